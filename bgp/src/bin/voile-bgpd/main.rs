//! `voile-bgpd`: the speaker alone, from a TOML file, for routers.
//!
//! SIGHUP reads the file again; only what changed is reset. SIGTERM stops as for a restart: peers and the kernel keep
//! the routes. SIGINT stops for good: peers are told and the routes are removed.

mod config;
mod control;
mod daemon;
mod fields;
mod routes;
mod status;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// A BGP speaker configured by a TOML file
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Configuration file
    #[arg(default_value = "/etc/voile/bgpd.toml")]
    config: PathBuf,
    /// Read the configuration, say what is wrong with it, and exit
    #[arg(long)]
    check: bool,
    /// Print the state of the speaker that listens on this socket as JSON, and exit
    #[arg(long, value_name = "SOCKET")]
    status: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    // One thread: everything happens in the network namespace that we were started in.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(socket) = &args.status {
        return runtime.block_on(control::print(socket));
    }
    let config = config::read(&args.config)?;
    if args.check {
        return Ok(());
    }
    runtime
        .block_on(daemon::run(config, &args.config))
        .with_context(|| format!("speaker of {}", args.config.display()))
}
