//! `voile-cni`: what the container runtime executes. See the library for everything.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use cni::{plugin, spec::CniError};

fn main() -> ExitCode {
    let mut conf = String::new();
    let variable = |name: &str| std::env::var(name).ok();
    let outcome = match io::stdin().read_to_string(&mut conf) {
        Ok(_) => plugin::run(variable, &conf),
        Err(error) => plugin::Outcome::error(
            &CniError::new(cni::spec::code::IO_FAILURE, "reading stdin", error.to_string()),
            "",
        ),
    };
    for warning in &outcome.warnings {
        // The runtime keeps stderr for its log; if that is closed there is nobody left to tell.
        drop(writeln!(io::stderr(), "voile-cni: {warning}"));
    }
    match io::stdout().write_all(outcome.stdout.as_bytes()) {
        Ok(()) => ExitCode::from(outcome.exit),
        Err(_) => ExitCode::FAILURE,
    }
}
