//! `voile-bgpd`: the speaker alone, from a TOML file, for routers.
//!
//! SIGHUP reads the file again; only what changed is reset. SIGTERM stops as for a restart: peers and the kernel keep
//! the routes. SIGINT stops for good: peers are told and the routes are removed.

mod args;
mod config;
mod control;
mod daemon;
mod fields;
mod routes;
mod show;
mod status;

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use self::args::{Action, Args};

fn main() -> ExitCode {
    let args = Args::read();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Saying on standard error that standard error fails would be a panic: the log's disk may be full.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .log_internal_errors(false)
        .init();
    let action = match args.into_action() {
        Ok(action) => action,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "Error: {why}");
            return ExitCode::from(2);
        }
    };
    let is_daemon = matches!(action, Action::Run(_));
    match run(action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_daemon => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
        Err(error) => {
            // Nobody reads a log there.
            let _ = writeln!(std::io::stderr(), "Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> anyhow::Result<()> {
    // One thread: everything happens in the network namespace that we were started in.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match action {
        Action::Run(path) => {
            let config = config::read(&path)?;
            let daemon = daemon::run(config, &path);
            runtime.block_on(daemon).with_context(|| format!("speaker of {}", path.display()))
        }
        Action::Check(path) => {
            let config = config::read(&path)?;
            let (peers, groups) = (config.speaker.peers.len(), config.speaker.groups.len());
            let networks = config.networks.len();
            writeln!(
                std::io::stdout(),
                "{} is fine: AS {}, {peers} peers, {groups} groups of peers, {networks} networks",
                path.display(),
                config.speaker.local_as
            )?;
            Ok(())
        }
        Action::Ask { socket, request, view } => {
            let answer = runtime.block_on(control::ask(&socket, &request))?;
            view.print(&answer)
        }
        Action::Table { socket, question, output } => {
            runtime.block_on(show::table(&socket, question, output))
        }
        Action::Monitor { socket, within, json } => {
            runtime.block_on(show::monitor(&socket, within, json))
        }
    }
}
