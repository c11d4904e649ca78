//! `cargo xtask lab`: builds what the lab needs, then hands over to `voile-lab`.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::packages;

/// Everything after `lab` goes to `voile-lab`; without a command it is `up`.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct LabArgs {
    /// Arguments of voile-lab
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

const PACKAGES: &[&str] = &["node", "cni", "ctl", "lab", "bgp"];
const COMMANDS: &[&str] = &[
    "up",
    "down",
    "list",
    "exec",
    "kubeconfig",
    "status",
    "apiserver",
    "help",
    "--help",
    "-h",
    "--version",
];

/// Builds and runs; returns the exit code of `voile-lab`.
pub(crate) fn run(args: &LabArgs) -> Result<ExitCode> {
    let command = args.rest.first().map(String::as_str);
    let up = command.is_none_or(|command| command == "up" || !COMMANDS.contains(&command));
    if up {
        packages::ensure(packages::LAB)?;
        build()?;
    }
    let program = target_dir().join("debug/voile-lab");
    if !program.exists() {
        build()?;
    }
    let mut lab = Command::new(&program);
    if command.is_none_or(|command| !COMMANDS.contains(&command)) {
        lab.arg("up");
    }
    let status = lab
        .args(&args.rest)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(2);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(2)))
}

fn build() -> Result<()> {
    eprintln!("building (the first time takes some minutes)");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("build");
    for package in PACKAGES {
        cargo.args(["-p", package]);
    }
    let status = cargo
        .args(["--features", "bgp/bgpd", "--bins"])
        .status()
        .context("cannot run cargo build")?;
    ensure!(status.success(), "the build failed, see above");
    Ok(())
}

/// Where cargo puts programs, from wherever in the workspace it was called.
pub(crate) fn target_dir() -> PathBuf {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.into(), PathBuf::from)
}
