//! The command line.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use bgp::snapshot::{PolicySide, Table, TableQuestion};
use clap::{
    CommandFactory as _, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ErrorKind},
};

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
  voile-bgpd show rib adj-out leaf1        what a peer is told
  voile-bgpd monitor                       sessions and routes as they change
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
  voile-bgpd show rib adj-in leaf1 10.244.0.0/16
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
    /// Show changes of sessions and of best paths as they happen, until Ctrl-C
    #[command(after_help = "\
Examples:
  voile-bgpd monitor
  voile-bgpd monitor 10.244.0.0/16
  voile-bgpd monitor -o json | jq -c .sessions[]")]
    Monitor {
        /// Of routes only this prefix and those within
        prefix: Option<bgp::Prefix>,
        /// How to print it; json is one object a line
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Status socket of the speaker
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
    },
    /// Ask a peer to send everything again (RFC 2918), or send it everything again
    #[command(
        after_help = "Examples:\n  voile-bgpd refresh leaf1\n  voile-bgpd refresh leaf1 --out"
    )]
    Refresh {
        /// Name or address of the peer
        peer: String,
        /// Send instead of asking
        #[arg(long)]
        out: bool,
        /// Status socket of the speaker
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
    },
    /// End the session of a peer and begin anew, also after too many prefixes
    #[command(after_help = "Example:\n  voile-bgpd reset leaf1 'new line card'")]
    Reset {
        /// Name or address of the peer
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
        /// Name or address of the peer
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
    /// A table of RFC 4271: what peers told us, what we use, what we tell them
    #[command(after_help = "\
Examples:
  voile-bgpd show rib loc                          what is used, and what the kernel has
  voile-bgpd show rib adj-in leaf1                 what leaf1 sent, and what import policy said
  voile-bgpd show rib adj-in leaf1 --post-policy   what policy let in, as it changed it
  voile-bgpd show rib adj-out leaf1 10.244.0.0/16  what leaf1 is told of these
  voile-bgpd show rib adj-out leaf1 --pre-policy   also what it is not told, and why")]
    Rib {
        /// Which table
        table: TableName,
        /// Only of this peer, by name or address; only this prefix and those within
        #[arg(value_name = "PEER|PREFIX", num_args = 0..=2)]
        which: Vec<String>,
        /// Before policy, with what it stops; adj-in is shown so by default
        #[arg(long, conflicts_with = "post_policy")]
        pre_policy: bool,
        /// After policy, with what it changed; adj-out is shown so by default
        #[arg(long)]
        post_policy: bool,
    },
    /// Numbers, as Prometheus reads them
    #[command(
        after_help = "Example:\n  voile-bgpd show metrics > /var/lib/node_exporter/voile.prom"
    )]
    Metrics,
    /// Everything
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableName {
    /// What peers told us
    AdjIn,
    /// What we use
    Loc,
    /// What we tell peers
    AdjOut,
}

/// Paths of one answer.
const PART: usize = 2000;

fn question(
    table: TableName,
    which: &[String],
    pre_policy: bool,
    post_policy: bool,
) -> Result<TableQuestion, String> {
    let (table, usual) = match table {
        TableName::AdjIn => (Table::AdjIn, PolicySide::Pre),
        TableName::Loc => (Table::Loc, PolicySide::Post),
        TableName::AdjOut => (Table::AdjOut, PolicySide::Post),
    };
    let policy = match (pre_policy, post_policy) {
        (true, _) => PolicySide::Pre,
        (_, true) => PolicySide::Post,
        _ => usual,
    };
    let mut question =
        TableQuestion { table, policy, peer: None, within: None, after: None, limit: PART };
    for word in which {
        let taken = match word.parse() {
            Ok(prefix) => question.within.replace(prefix).is_some(),
            Err(_) => question.peer.replace(word.clone()).is_some(),
        };
        if taken {
            return Err(format!("'{word}' is one too many: give one peer and one prefix at most"));
        }
    }
    Ok(question)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    /// More of it, for `route` and `rib`
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
    Table { socket: PathBuf, question: TableQuestion, output: Output },
    Monitor { socket: PathBuf, within: Option<bgp::Prefix>, json: bool },
}

/// Says what is wrong with a first word that is neither a command nor a file: clap would take it for the file's name, and complain
/// of the word after it.
fn misspelt(words: &[OsString]) -> Option<clap::Error> {
    let word = words.get(1)?.to_str()?;
    if word.starts_with('-') || word.contains(['/', '.']) || Path::new(word).exists() {
        return None;
    }
    let commands = clap::Command::new("voile-bgpd")
        .subcommand_required(true)
        .subcommands(Args::command().get_subcommands().cloned());
    let error = commands.try_get_matches_from(words).err()?;
    let is_nearly_one = error.get(ContextKind::SuggestedSubcommand).is_some();
    let more_follows = words.get(2).is_some_and(|next| !next.to_string_lossy().starts_with('-'));
    (error.kind() == ErrorKind::InvalidSubcommand && (is_nearly_one || more_follows))
        .then_some(error)
}

impl Args {
    /// Reads the command line; ends the program where that makes no sense.
    pub(crate) fn read() -> Self {
        let words: Vec<OsString> = std::env::args_os().collect();
        if let Some(error) = misspelt(&words) {
            error.exit();
        }
        Self::parse_from(words)
    }

    /// Says what to do.
    ///
    /// # Errors
    /// Words that mean nothing together.
    pub(crate) fn into_action(self) -> Result<Action, String> {
        Ok(match self.command {
            None => match self.status {
                Some(socket) => Action::Ask { socket, request: Request::State, view: View::Raw },
                None if self.check => Action::Check(self.config),
                None => Action::Run(self.config),
            },
            Some(Command::Check { config }) => Action::Check(config),
            Some(Command::Show { what, output, socket }) => {
                let json = output == Output::Json;
                let (request, view) = match what {
                    What::Peers => (Request::Peers, View::Peers { json }),
                    What::Peer { name } => (Request::Peers, View::Peer { name, json }),
                    What::Routes { prefix } => (Request::State, View::Routes { prefix, json }),
                    What::Route { destination } => {
                        (Request::Route { prefix: destination }, View::Route { output })
                    }
                    What::Rib { table, which, pre_policy, post_policy } => {
                        let question = question(table, &which, pre_policy, post_policy)?;
                        return Ok(Action::Table { socket, question, output });
                    }
                    What::Metrics => (Request::Metrics, View::Metrics),
                    What::All => (Request::State, View::Raw),
                };
                Action::Ask { socket, request, view }
            }
            Some(Command::Monitor { prefix, output, socket }) => {
                Action::Monitor { socket, within: prefix, json: output == Output::Json }
            }
            Some(Command::Dump { file, socket }) => {
                Action::Ask { socket, request: Request::Mrt, view: View::Dump { file } }
            }
            Some(Command::Refresh { peer, out, socket }) => {
                Action::Ask { socket, request: Request::Refresh { peer, out }, view: View::Done }
            }
            Some(Command::Reset { peer, text, socket }) => {
                Action::Ask { socket, request: Request::Reset { peer, text }, view: View::Done }
            }
        })
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
            format!("{:?}", args.into_action().unwrap())
        };
        assert_eq!(action("voile-bgpd"), "Run(\"/etc/voile/bgpd.toml\")");
        assert_eq!(action("voile-bgpd x.toml"), "Run(\"x.toml\")");
        assert_eq!(action("voile-bgpd x.toml --check"), "Check(\"x.toml\")");
        assert_eq!(action("voile-bgpd check x.toml"), "Check(\"x.toml\")");
        let asked = action("voile-bgpd show routes 10.0.0.0/8 -o json --socket s");
        assert!(asked.contains("Routes { prefix: Some(10.0.0.0/8), json: true }"), "{asked}");
        assert!(asked.contains("socket: \"s\""), "{asked}");
        let asked = action("voile-bgpd show rib adj-out 10.0.0.2 10.0.0.0/8 --pre-policy");
        let part = "table: AdjOut, policy: Pre, peer: Some(\"10.0.0.2\"), within: Some(10.0.0.0/8)";
        assert!(asked.contains(part), "{asked}");
    }

    #[test]
    fn a_misspelt_command_is_no_file() {
        let said = |words: &str| {
            let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
            misspelt(&words).map(|error| error.to_string())
        };
        for (words, nearest) in [
            ("voile-bgpd shwo peers", "'show'"),
            ("voile-bgpd shwo", "'show'"),
            ("voile-bgpd refesh leaf1", "'refresh'"),
            ("voile-bgpd montior", "'monitor'"),
        ] {
            let error = said(words).unwrap();
            assert!(
                error.contains("unrecognized subcommand") && error.contains(nearest),
                "{error}"
            );
        }
        let error = said("voile-bgpd frobnicate leaf1").unwrap();
        assert!(error.contains("unrecognized subcommand 'frobnicate'"), "{error}");
        for words in [
            "voile-bgpd",
            "voile-bgpd show peers",
            "voile-bgpd bgpd.toml",
            "voile-bgpd ./shwo",
            "voile-bgpd leaf1",
            "voile-bgpd leaf1 --check",
            "voile-bgpd --check leaf1",
        ] {
            assert_eq!(said(words), None, "{words}");
        }
    }
}
