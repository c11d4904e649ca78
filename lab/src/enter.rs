//! `voile-lab enter`: becomes another program inside a network namespace.
//!
//! A small program of its own instead of code between fork and exec: no unsafe code, and whoever dies, it dies with it.

use std::{
    ffi::OsString, fs::File, os::unix::process::CommandExt as _, path::PathBuf, process::Command,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::{prctl, signal::Signal},
    unistd::getppid,
};

/// Arguments of `voile-lab enter`.
#[derive(clap::Args, Clone, Debug)]
pub struct EnterArgs {
    /// Network namespace to run in
    #[arg(long, value_name = "PATH")]
    pub netns: Option<PathBuf>,
    /// Get SIGKILL when this parent dies
    #[arg(long, value_name = "PID")]
    pub die_with: Option<i32>,
    /// Host name that the program sees
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Program and arguments
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Never returns when all goes well.
pub fn run(args: &EnterArgs) -> Result<()> {
    if let Some(parent) = args.die_with {
        prctl::set_pdeathsig(Signal::SIGKILL).context("cannot bind my life to the supervisor's")?;
        // It may have died before the line above: then nobody sends the signal.
        if getppid().as_raw() != parent {
            bail!("the supervisor is gone");
        }
    }
    if let Some(path) = &args.netns {
        let netns = File::open(path).with_context(|| format!("no namespace {}", path.display()))?;
        setns(netns, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter namespace {}", path.display()))?;
    }
    if let Some(name) = &args.hostname {
        nix::sched::unshare(CloneFlags::CLONE_NEWUTS).context("cannot make a UTS namespace")?;
        nix::unistd::sethostname(name).context("cannot set the host name")?;
    }
    let Some((program, arguments)) = args.command.split_first() else { bail!("no program given") };
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot execute {}", program.to_string_lossy()))
}
