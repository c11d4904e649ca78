//! `voile-controller`: what a cluster needs done once.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    node::controller::main(node::controller::Args::parse())
}
