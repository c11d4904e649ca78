//! `voilectl`: looks at, explains and changes a Voile network, with the same pure cores that the daemons run.
//!
//! Every command is a function from a [`store::Store`] to an [`cmd::Outcome`]; only this file connects, reads the clock and prints.

pub mod cli;
pub mod cmd;
pub mod kinds;
pub mod manifest;
pub mod output;
#[cfg(test)]
mod testing;
pub mod time;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};
use ipam::Clock;
use store::{
    StoreError,
    kube::{KubeOptions, KubeStore},
};

use crate::{
    cli::{Cli, Command, Global},
    cmd::{Context, Outcome},
    output::{Screen, Sink},
};

/// Runs the command line: 0 all is well, 1 something is wrong in the cluster, 2 it could not be found out.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(&cli)))
        .and_then(|outcome| Sink::Stdout.write(&outcome.text).map(|_| outcome.finding));
    match result {
        Ok(finding) => ExitCode::from(u8::from(finding)),
        Err(error) => {
            // Nobody is left to tell when standard error is closed too.
            let _ = io::stderr().write_all(complaint(&error).as_bytes());
            ExitCode::from(2)
        }
    }
}

async fn run(cli: &Cli) -> Result<Outcome> {
    match &cli.command {
        Command::Completion { shell } => Ok(Outcome::ok(completion(*shell))),
        Command::Validate(args) => cmd::write::validate(args),
        command => match connect(&cli.global).await {
            Ok(store) => {
                let output = &cli.global.output;
                let context = Context {
                    store,
                    format: output.format(),
                    report: output.file().map(Into::into),
                    screen: Screen::detect(),
                    sink: Sink::Stdout,
                    now: now(),
                };
                cmd::run(&context, command).await
            }
            // Without a cluster there is still this program's own version to tell.
            Err(error) if matches!(command, Command::Version) => Err(error.context(format!(
                "voilectl {}; no version of the daemons",
                env!("CARGO_PKG_VERSION")
            ))),
            Err(error) => Err(error),
        },
    }
}

async fn connect(global: &Global) -> Result<KubeStore> {
    let mut options = KubeOptions::default();
    options.user_agent = concat!("voilectl/", env!("CARGO_PKG_VERSION")).to_owned();
    let store = match &global.kubeconfig {
        Some(path) => KubeStore::from_kubeconfig(path, global.context.as_deref(), options).await,
        None => KubeStore::infer(options).await,
    };
    store.context("no API server to ask; give --kubeconfig FILE or set KUBECONFIG")
}

fn now() -> u64 {
    Clock::system().now().0 / 1_000_000_000
}

fn completion(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "voilectl", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// An error for people: the chain of causes, and what to do next where that is known.
fn complaint(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error:#}\n");
    let next = error.chain().find_map(|cause| match cause.downcast_ref::<StoreError>()? {
        StoreError::Unavailable { .. } => Some(
            "is the API server up? `kubectl version` tells; another cluster: --kubeconfig FILE",
        ),
        StoreError::Forbidden { .. } => {
            Some("this user lacks the right; `kubectl auth can-i --list` shows what it may do")
        }
        StoreError::TooManyRequests { .. } => Some("try again in a moment"),
        StoreError::Conflict { .. } => Some("it changed meanwhile; try again"),
        _ => None,
    });
    if let Some(next) = next {
        text.push_str(&format!("next:  {next}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_chain_and_a_next_step() {
        let cause = StoreError::Unavailable { message: "connection refused".to_owned() };
        let error = anyhow::Error::from(cause).context("cannot list nodes");
        expect_test::expect![[r#"
            error: cannot list nodes: datastore unavailable: connection refused
            next:  is the API server up? `kubectl version` tells; another cluster: --kubeconfig FILE
        "#]]
        .assert_eq(&complaint(&error));
    }

    #[test]
    fn the_command_line_is_consistent_and_completes() {
        Cli::command().debug_assert();
        assert!(completion(clap_complete::Shell::Bash).contains("voilectl"));
    }
}
