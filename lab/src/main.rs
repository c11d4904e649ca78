//! `voile-lab`: a Kubernetes cluster with its network fabric in namespaces of one machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    lab::cli::main()
}
