//! `voile-node`: the daemon of one node.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    node::daemon::main(node::args::Args::parse())
}
