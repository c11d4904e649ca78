//! What a lab made on this machine, on disk before it exists, so that clean-up works after any crash.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::procfs::ProcessId;

/// Everything to take back.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct State {
    /// Name of the lab.
    pub name: String,
    /// The topology file.
    pub topology: PathBuf,
    /// Whether everything lives in a user namespace.
    pub rootless: bool,
    /// The supervisor.
    pub supervisor: Option<ProcessId>,
    /// Set when everything was up.
    pub ready: bool,
    /// Address of the API server on the host.
    pub server: String,
    /// URL with token of the API server, reachable from the lab's own namespace.
    pub own_url: String,
    /// Programs that run now.
    pub processes: BTreeMap<String, ProcessId>,
    /// Named namespaces, with the kernel's number once they exist.
    pub namespaces: BTreeMap<PathBuf, u64>,
}

impl State {
    /// Reads what a lab left.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Numbers of all namespaces.
    #[must_use]
    pub fn inodes(&self) -> BTreeSet<u64> {
        self.namespaces.values().copied().filter(|inode| *inode != 0).collect()
    }

    /// Whether the supervisor runs.
    #[must_use]
    pub fn running(&self) -> bool {
        self.supervisor.is_some_and(ProcessId::alive)
    }
}

/// The supervisor's copy; every change is on disk when the call returns.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Ledger {
    /// Begins a ledger.
    pub fn begin(path: PathBuf, state: State) -> Result<Self> {
        let ledger = Self { path, state: Arc::new(Mutex::new(state)) };
        ledger.change(|_| ())?;
        Ok(ledger)
    }

    /// A copy of the present state.
    #[must_use]
    pub fn get(&self) -> State {
        self.lock().clone()
    }

    /// Changes the state, in memory and on disk.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T> {
        let mut state = self.lock();
        let result = change(&mut state);
        write_atomically(&self.path, &serde_json::to_vec_pretty(&*state)?)?;
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a file so that readers see the old or the new content, never a part.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    file.write_all(content)?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}
