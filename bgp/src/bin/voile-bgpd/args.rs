//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::{control::Request, show::View};

/// Where the file is unless said otherwise.
const CONFIG: &str = "/etc/voile/bgpd.toml";
/// Where the status socket is unless said otherwise.
const SOCKET: &str = "/run/voile-bgpd.sock";

/// A BGP speaker configured by a TOML file.
///
/// Without a command it runs until a signal: SIGHUP reads the file again and resets only what changed, SIGTERM stops as
/// for a restart (peers and the kernel keep the routes), SIGINT stops for good.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  voile-bgpd /etc/voile/bgpd.toml          run
  voile-bgpd check bgpd.toml               say what is wrong with a file
  voile-bgpd show peers                    one line per peer
  voile-bgpd show peer leaf1               one peer and the history of its session
  voile-bgpd show routes 10.244.0.0/16     the prefix and those within
  voile-bgpd show route 10.244.7.0/24      why it goes where it goes, and who is told
  voile-bgpd show peers -o json            for scripts
  voile-bgpd refresh leaf1                 ask the peer to send everything again
  voile-bgpd reset leaf1 'new line card'   end the session and begin anew
The file is described in docs/reference/voile-bgpd.md."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file
    #[arg(default_value = CONFIG)]
    config: PathBuf,
    /// The same as the command check
    #[arg(long, hide = true)]
    check: bool,
    /// Print the whole state of the speaker that listens on this socket as JSON
    #[arg(long, value_name = "SOCKET", hide = true)]
    status: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a configuration file and say what is wrong with it
    #[command(
        after_help = "Example:\n  voile-bgpd check bgpd.toml && kill -HUP $(pidof voile-bgpd)"
    )]
    Check {
        /// Configuration file
        #[arg(default_value = CONFIG)]
        config: PathBuf,
    },
    /// Show the state of a running speaker
    #[command(after_help = "\
Examples:
  voile-bgpd show peers
  voile-bgpd show peer leaf1
  voile-bgpd show routes
  voile-bgpd show routes 10.244.7.0/24 -o json
  voile-bgpd show route 10.244.7.9
  voile-bgpd show all -o json | jq .peers[].lastError")]
    Show {
        #[command(subcommand)]
        what: What,
        /// How to print it
        #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Status socket of the speaker (`status-socket` in its file)
        #[arg(long, global = true, default_value = SOCKET)]
        socket: PathBuf,
    },
    /// Write the table as an MRT file (RFC 6396), for bgpdump and the like
    #[command(after_help = "Example:\n  voile-bgpd dump table.mrt && bgpdump -m table.mrt")]
    Dump {
        /// The file
        file: PathBuf,
        /// Status socket of the speaker
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
    },
    /// Ask a peer to send everything again (RFC 2918)
    #[command(after_help = "Example:\n  voile-bgpd refresh leaf1")]
    Refresh {
        /// Name of the peer
        peer: String,
        /// Status socket of the speaker
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
    },
    /// End the session of a peer and begin anew, also after too many prefixes
    #[command(after_help = "Example:\n  voile-bgpd reset leaf1 'new line card'")]
    Reset {
        /// Name of the peer
        peer: String,
        /// What to tell the operator of the peer (RFC 9003)
        #[arg(default_value = "")]
        text: String,
        /// Status socket of the speaker
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum What {
    /// One line per peer
    Peers,
    /// One peer and the history of its session
    Peer {
        /// Name of the peer
        name: String,
    },
    /// The table: every path, and why it is used or not
    Routes {
        /// Only this prefix and those within
        prefix: Option<bgp::Prefix>,
    },
    /// One prefix: which step of the decision and which rules made it what it is, who is told, and what the kernel has
    #[command(after_help = "\
Examples:
  voile-bgpd show route 10.244.7.0/24      this prefix
  voile-bgpd show route 10.244.7.9         the prefix that packets to this address follow
  voile-bgpd show route 10.244.7.9 -o wide with every attribute, and what import and export changed")]
    Route {
        /// The prefix, or an address
        #[arg(value_name = "PREFIX|ADDRESS", value_parser = destination)]
        destination: String,
    },
    /// Everything
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    /// More of it, for `route`
    Wide,
    Json,
}

fn destination(text: &str) -> Result<String, String> {
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    match text.parse::<bgp::Prefix>() {
        Ok(prefix) => Ok(prefix.to_string()),
        Err(_) if is_address => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Action {
    Run(PathBuf),
    Check(PathBuf),
    Ask { socket: PathBuf, request: Request, view: View },
}

impl Args {
    pub(crate) fn into_action(self) -> Action {
        match self.command {
            None => match self.status {
                Some(socket) => Action::Ask { socket, request: Request::State, view: View::Raw },
                None if self.check => Action::Check(self.config),
                None => Action::Run(self.config),
            },
            Some(Command::Check { config }) => Action::Check(config),
            Some(Command::Show { what, output, socket }) => {
                let json = output == Output::Json;
                if let What::Route { destination } = what {
                    let request = Request::Route { prefix: destination };
                    return Action::Ask { socket, request, view: View::Route { output } };
                }
                let view = match what {
                    What::Peers => View::Peers { json },
                    What::Peer { name } => View::Peer { name, json },
                    What::Routes { prefix } => View::Routes { prefix, json },
                    What::All | What::Route { .. } => View::Raw,
                };
                Action::Ask { socket, request: Request::State, view }
            }
            Some(Command::Dump { file, socket }) => {
                Action::Ask { socket, request: Request::Mrt, view: View::Dump { file } }
            }
            Some(Command::Refresh { peer, socket }) => {
                Action::Ask { socket, request: Request::Refresh { peer }, view: View::Done }
            }
            Some(Command::Reset { peer, text, socket }) => {
                Action::Ask { socket, request: Request::Reset { peer, text }, view: View::Done }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        <Args as clap::CommandFactory>::command().debug_assert();
        let action = |line: &str| {
            let args = Args::try_parse_from(line.split_whitespace()).unwrap();
            format!("{:?}", args.into_action())
        };
        assert_eq!(action("voile-bgpd"), "Run(\"/etc/voile/bgpd.toml\")");
        assert_eq!(action("voile-bgpd x.toml"), "Run(\"x.toml\")");
        assert_eq!(action("voile-bgpd x.toml --check"), "Check(\"x.toml\")");
        assert_eq!(action("voile-bgpd check x.toml"), "Check(\"x.toml\")");
        let asked = action("voile-bgpd show routes 10.0.0.0/8 -o json --socket s");
        assert!(asked.contains("Routes { prefix: Some(10.0.0.0/8), json: true }"), "{asked}");
        assert!(asked.contains("socket: \"s\""), "{asked}");
    }
}
