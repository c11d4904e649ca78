//! Takes back everything that a lab made, from what its ledger says. The one way down, after a command as after a crash.

use std::{collections::BTreeSet, fs, io, time::Duration};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::{paths::Layout, procfs, procfs::ProcessId, state::State};

const PATIENCE: Duration = Duration::from_secs(5);

/// What was there to take back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Swept {
    /// Processes that ran.
    pub processes: usize,
    /// Namespaces removed.
    pub namespaces: usize,
}

/// Removes every trace of a lab: processes, namespaces (and with them links, routes, tables), files.
pub fn sweep(layout: &Layout) -> Result<Swept> {
    let state = match State::load(&layout.state()) {
        Ok(state) => state,
        Err(_) if !layout.state().exists() => State::default(),
        Err(error) => return Err(error),
    };
    let ran =
        state.processes.values().chain(&state.supervisor).filter(|process| process.alive()).count();
    // The supervisor first, so that nothing starts again; its children die with it.
    if let Some(supervisor) = state.supervisor {
        supervisor.signal(Signal::SIGKILL);
        if !supervisor.wait_gone(PATIENCE) {
            bail!("the supervisor (process {}) does not die", supervisor.pid);
        }
    }
    // It may have written once more before it died.
    let state = State::load(&layout.state()).unwrap_or(state);
    kill_all(&state)?;
    let mut namespaces = 0;
    if !state.rootless {
        for path in state.namespaces.keys() {
            namespaces += usize::from(path.exists());
            kernel::netns::delete(path)?;
        }
    }
    remove_files(layout)?;
    Ok(Swept { processes: ran, namespaces })
}

fn kill_all(state: &State) -> Result<()> {
    let mut survivors = BTreeSet::new();
    // What runs in the lab's namespaces is the lab's, also what a container forked; it may fork while we look.
    for _ in 0..20 {
        let mut found: BTreeSet<ProcessId> = state.processes.values().copied().collect();
        found.extend(procfs::inside(&state.inodes()));
        let own = ProcessId::own();
        found.retain(|process| Some(*process) != own && process.alive());
        if found.is_empty() {
            return Ok(());
        }
        for process in &found {
            process.signal_group(Signal::SIGKILL);
            process.signal(Signal::SIGKILL);
            let _ = process.wait_gone(Duration::from_millis(500));
        }
        survivors = found;
    }
    bail!("processes of the lab do not die: {survivors:?}")
}

fn remove_files(layout: &Layout) -> Result<()> {
    // The ledger last: as long as it is there, `down` can be repeated.
    let entries = match fs::read_dir(&layout.dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {}", layout.dir.display()))?,
    };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| *path != layout.state()) {
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => (),
        }
    }
    match fs::remove_dir_all(&layout.dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", layout.dir.display()))
        }
        _ => {
            // The folder of all labs goes with the last one.
            let _ = layout.dir.parent().map(fs::remove_dir);
            Ok(())
        }
    }
}
