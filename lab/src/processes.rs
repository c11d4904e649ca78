//! Programs that the supervisor keeps running.
//!
//! All of them are children of its main thread (the parent-death signal follows the thread that forked), lead a process
//! group each, and stand in the ledger while they run.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::sleep,
};

use crate::{procfs::ProcessId, state::Ledger};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A program that lived this long starts its next life without delay.
const SETTLED: Duration = Duration::from_secs(5);

/// A program to run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Unique name, for logs and commands.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment in addition to ours.
    pub env: BTreeMap<String, String>,
    /// Network namespace.
    pub netns: Option<PathBuf>,
    /// Host name it shall see.
    pub hostname: Option<String>,
    /// Where its output goes.
    pub log: PathBuf,
    /// What to do when it ends.
    pub restart: Restart,
}

/// What follows the end of a program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Restart {
    /// It starts again.
    Always,
    /// It starts again unless its exit code was 0.
    OnFailure,
    /// That was it.
    Never,
}

/// What a program is doing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Status {
    /// Not started yet, or waiting for its next life.
    #[default]
    Waiting,
    /// Running.
    Running(ProcessId),
    /// Ended for good with this exit code (128 + signal).
    Ended(i32),
    /// Stopped by command.
    Stopped,
}

/// A row of `status`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// Name.
    pub name: String,
    /// What it is doing.
    pub status: Status,
    /// How often it was started again.
    pub restarts: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Want {
    Run,
    Stop(Signal, Duration),
}

#[derive(Debug)]
struct Entry {
    want: watch::Sender<Want>,
    status: watch::Receiver<Status>,
    restarts: Arc<Mutex<u32>>,
}

/// All programs of a lab.
#[derive(Clone, Debug)]
pub struct Processes {
    ledger: Ledger,
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

impl Processes {
    /// No programs yet.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, entries: Arc::default() }
    }

    /// Starts a program and keeps it running; its status can be watched.
    pub fn start(&self, spec: Spec) -> watch::Receiver<Status> {
        let (want, wanted) = watch::channel(Want::Run);
        let (report, status) = watch::channel(Status::Waiting);
        let restarts = Arc::new(Mutex::new(0));
        let entry = Entry { want, status: status.clone(), restarts: restarts.clone() };
        self.lock().insert(spec.name.clone(), entry);
        let keeper = Keeper { spec, ledger: self.ledger.clone(), wanted, report, restarts };
        tokio::spawn(keeper.run());
        status
    }

    /// Stops a program and waits until it is gone; it can be resumed.
    pub async fn stop(&self, name: &str, signal: Signal, grace: Duration) -> Result<()> {
        let mut status = self.order(name, Want::Stop(signal, grace))?;
        status
            .wait_for(|status| matches!(status, Status::Stopped | Status::Ended(_)))
            .await
            .map(drop)
            .or(Ok(()))
    }

    /// Runs a stopped program again and waits until it does.
    pub async fn resume(&self, name: &str) -> Result<()> {
        let mut status = self.order(name, Want::Run)?;
        status.wait_for(|status| matches!(status, Status::Running(_))).await.context("it ended")?;
        Ok(())
    }

    /// Stops a program for good.
    pub async fn remove(&self, name: &str, signal: Signal, grace: Duration) -> Result<()> {
        self.stop(name, signal, grace).await?;
        self.lock().remove(name);
        Ok(())
    }

    /// Kills a program without a word to its keeper, as a crash would.
    pub fn kill(&self, name: &str) -> Result<ProcessId> {
        let entries = self.lock();
        let entry = entries.get(name).ok_or_else(|| unknown(name, &entries))?;
        match *entry.status.borrow() {
            Status::Running(process) => {
                process.signal(Signal::SIGKILL);
                Ok(process)
            }
            other => Err(anyhow!("{name} does not run: {other:?}")),
        }
    }

    /// Lists all programs.
    #[must_use]
    pub fn list(&self) -> Vec<Row> {
        let row = |(name, entry): (&String, &Entry)| Row {
            name: name.clone(),
            status: *entry.status.borrow(),
            restarts: *entry.restarts.lock().unwrap_or_else(PoisonError::into_inner),
        };
        self.lock().iter().map(row).collect()
    }

    fn order(&self, name: &str, want: Want) -> Result<watch::Receiver<Status>> {
        let entries = self.lock();
        let entry = entries.get(name).ok_or_else(|| unknown(name, &entries))?;
        entry.want.send_replace(want);
        Ok(entry.status.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(name: &str, entries: &BTreeMap<String, Entry>) -> anyhow::Error {
    let names: Vec<_> = entries.keys().map(String::as_str).collect();
    anyhow!("no program {name:?} in this lab; there are {}", names.join(", "))
}

struct Keeper {
    spec: Spec,
    ledger: Ledger,
    wanted: watch::Receiver<Want>,
    report: watch::Sender<Status>,
    restarts: Arc<Mutex<u32>>,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let want = *self.wanted.borrow_and_update();
            if want != Want::Run {
                self.report.send_replace(Status::Stopped);
                if self.wanted.wait_for(|want| *want == Want::Run).await.is_err() {
                    return;
                }
            }
            let begun = crate::procfs::now();
            let end = match self.spawn() {
                Ok(child) => self.attend(child).await,
                Err(error) => {
                    tracing::error!(process = self.spec.name, "{error:#}");
                    Some(127)
                }
            };
            // The handle was dropped, so nobody wants it any more.
            if self.wanted.has_changed().is_err() && end.is_none() {
                self.report.send_replace(Status::Stopped);
                return;
            }
            let Some(code) = end else { continue };
            if self.spec.restart == Restart::Never
                || (self.spec.restart == Restart::OnFailure && code == 0)
            {
                self.report.send_replace(Status::Ended(code));
                return;
            }
            tracing::warn!(process = self.spec.name, code, "ended; it starts again");
            *self.restarts.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            self.report.send_replace(Status::Waiting);
            pause = if begun.elapsed() > SETTLED {
                FIRST_PAUSE
            } else {
                (pause * 2).min(LONGEST_PAUSE)
            };
            tokio::select! {
                () = sleep(pause) => (),
                _ = self.wanted.changed() => (),
            }
        }
    }

    fn spawn(&self) -> Result<Child> {
        let spec = &self.spec;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&spec.log)
            .with_context(|| format!("cannot write {}", spec.log.display()))?;
        let child = entering(spec)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", spec.name))?;
        if let Some(process) = child.id().and_then(ProcessId::of) {
            self.ledger.change(|state| state.processes.insert(spec.name.clone(), process))?;
            self.report.send_replace(Status::Running(process));
        }
        Ok(child)
    }

    /// Waits for the end; `None` when it was ordered.
    async fn attend(&mut self, mut child: Child) -> Option<i32> {
        let ended = tokio::select! {
            status = child.wait() => Some(code(status)),
            order = stop_order(&mut self.wanted) => {
                stop(&mut child, order).await;
                None
            }
        };
        let forgotten = self.ledger.change(|state| state.processes.remove(&self.spec.name));
        if let Err(error) = forgotten {
            tracing::warn!("{error:#}");
        }
        ended
    }
}

/// Waits for the order to stop; whoever drops the other end means it too.
async fn stop_order(wanted: &mut watch::Receiver<Want>) -> Want {
    let order = wanted.wait_for(|want| matches!(want, Want::Stop(..))).await;
    order.map_or(Want::Stop(Signal::SIGKILL, Duration::ZERO), |want| *want)
}

async fn stop(child: &mut Child, order: Want) {
    let Want::Stop(signal, grace) = order else { return };
    let process = child.id().and_then(ProcessId::of);
    if let Some(process) = process {
        process.signal_group(signal);
    }
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        if let Some(process) = process {
            process.signal_group(Signal::SIGKILL);
        }
        drop(child.wait().await);
    }
}

fn code(status: std::io::Result<std::process::ExitStatus>) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .map_or(127, |status| status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(127))
}

/// A command that enters its namespace first and dies with us.
fn entering(spec: &Spec) -> Command {
    // Not the path: a build may have replaced the file since.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("voile-lab").arg("enter").args(["--die-with", &std::process::id().to_string()]);
    if let Some(netns) = &spec.netns {
        command.arg("--netns").arg(netns);
    }
    if let Some(hostname) = &spec.hostname {
        command.args(["--hostname", hostname]);
    }
    command.arg("--").args(&spec.command).envs(&spec.env);
    command
}
