//! Processes named so that a number used again is never mistaken for ours.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// A process: its number and when it started (proc(5), field 22 of `stat`), which no later process shares.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ProcessId {
    /// Number.
    pub pid: i32,
    /// Start in clock ticks since boot.
    pub start: u64,
}

impl ProcessId {
    /// Identifies a running process.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let (start, state) = stat(pid)?;
        (state != 'Z').then_some(Self { pid, start })
    }

    /// Identifies the calling process.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Says whether it still runs; a zombie does not.
    #[must_use]
    pub fn alive(self) -> bool {
        stat(self.pid).is_some_and(|(start, state)| start == self.start && state != 'Z')
    }

    /// Sends a signal to the process, if it is still the same one.
    pub fn signal(self, signal: Signal) {
        if self.alive() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Sends a signal to its process group, if it leads one and is still the same process.
    pub fn signal_group(self, signal: Signal) {
        if self.alive() {
            let _ = killpg(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits until it is gone; says whether it is.
    #[must_use]
    pub fn wait_gone(self, limit: Duration) -> bool {
        let end = now() + limit;
        while self.alive() {
            if now() >= end {
                return false;
            }
            pause(Duration::from_millis(5));
        }
        true
    }
}

/// Reads start and state. The name before them may hold anything, even parentheses, so count from the last one.
fn stat(pid: i32) -> Option<(u64, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let state = rest.chars().next()?;
    let start = rest.split(' ').nth(19)?.parse().ok()?;
    Some((start, state))
}

/// Finds processes whose network namespace is one of `inodes`.
#[must_use]
pub fn inside(inodes: &BTreeSet<u64>) -> Vec<ProcessId> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|found| inodes.contains(&found.ino()))
        })
        .filter_map(ProcessId::of)
        .collect()
}

/// The clock of this crate's drivers.
#[expect(
    clippy::disallowed_methods,
    reason = "the lab drives real processes; this is its one clock"
)]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Sleeps; only for code that runs before or beside the asynchronous runtime.
#[expect(clippy::disallowed_methods, reason = "start and clean-up run without a runtime")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
