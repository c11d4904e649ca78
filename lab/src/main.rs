//! `voile-lab`: so far only the API server alone.

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "voile-lab", about = "A Kubernetes network lab on one machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the API server alone.
    Apiserver(lab::apiserver::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match Cli::parse().command {
        Command::Apiserver(args) => lab::apiserver::cli(args).await,
    }
}
