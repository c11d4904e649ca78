//! `cargo xtask`: the project's commands.
#![expect(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a command line program that times its steps"
)]

mod bench;
mod fuzz;
mod lab;
mod packages;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything a developer or a newcomer runs.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "Examples:\n  cargo xtask lab               a routed cluster on this machine, shown at work\n  \
    cargo xtask lab --keep        the same, and it stays up to look around\n  cargo xtask lab down          remove it\n  \
    cargo xtask test              every check that CI makes\n  \
    cargo xtask bench bgp         our speaker beside BIRD 2, FRR, GoBGP and OpenBGPD\n  \
    cargo xtask fuzz --seconds 600    ten minutes of fuzzing for every target of the speaker"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up a routed cluster in network namespaces of this machine and show it at work
    Lab(lab::LabArgs),
    Bench(bench::BenchArgs),
    Fuzz(fuzz::FuzzArgs),
    /// Run every check: format, lints, unit, namespace and interoperability tests
    Test(test::TestArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Lab(args) => lab::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => {
            fuzz::run(&args).map(|clean| if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Test(args) => test::run(&args)
            .map(|passed| if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
