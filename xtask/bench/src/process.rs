//! A measured program: its processor time and memory, children included, and its end.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::link::Pair;

/// What a program has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Processor time of all its processes and threads.
    pub cpu: Duration,
    /// Peak resident memory (`VmHWM`), in KiB, summed over its processes.
    pub peak_kib: u64,
    /// Resident memory now (`VmRSS`), in KiB, summed over its processes.
    pub resident_kib: u64,
}

/// A running program, ended and reaped when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program in the namespace that is measured; what it prints goes to a file.
    pub fn start(pair: &Pair, command: &mut Command, log: &Path) -> Result<Self> {
        let out =
            fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        Ok(Self { child: pair.spawn(command)?, log: log.to_owned() })
    }

    /// Says how the program ended, with the last lines that it printed, if it has.
    pub fn death(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("it died ({status}): {}", self.last_words()))
    }

    /// The last lines that it printed.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join(" | ")
    }

    /// Whether one of its processes, or another of its namespace, listens on this TCP port.
    #[must_use]
    pub fn listens(&self, port: u16) -> bool {
        let suffix = format!(":{port:04X}");
        ["tcp", "tcp6"].into_iter().any(|file| {
            let table = fs::read_to_string(format!("/proc/{}/net/{file}", self.child.id()));
            table.unwrap_or_default().lines().skip(1).any(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let local = fields.next().unwrap_or_default();
                // 0A: listening
                local.ends_with(&suffix) && fields.nth(1) == Some("0A")
            })
        })
    }

    /// What it and its descendants have used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        usage(self.child.id())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for pid in family(self.child.id()) {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// What a process and its descendants have used.
#[must_use]
pub fn usage(root: u32) -> Usage {
    let mut sum = Usage::default();
    for pid in family(root) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        sum.cpu += cpu(pid);
        sum.peak_kib += kib("VmHWM:");
        sum.resident_kib += kib("VmRSS:");
    }
    sum
}

/// Processor time of one process. `schedstat` counts nanoseconds of the threads alive, `stat` ticks of all: the larger one.
fn cpu(pid: u32) -> Duration {
    let mut threads = Duration::ZERO;
    if let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) {
        for task in tasks.flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
            threads += Duration::from_nanos(nanoseconds.unwrap_or(0));
        }
    }
    threads.max(ticks(pid).unwrap_or_default())
}

fn ticks(pid: u32) -> Option<Duration> {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let milliseconds = 1000 / u64::try_from(per_second).ok()?.max(1);
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces: fields are counted from behind its closing parenthesis.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Duration::from_millis((field(11)? + field(12)?) * milliseconds))
}

/// A process and its descendants.
fn family(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    if let Ok(processes) = fs::read_dir("/proc") {
        for process in processes.flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let text = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            let parent = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
            if let Some(parent) = parent.and_then(|word| word.parse().ok()) {
                children.entry(parent).or_default().push(pid);
            }
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(children.get(&pid).into_iter().flatten());
        at += 1;
    }
    found
}
