//! Where a lab keeps its files, and what it calls its namespaces.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;

/// Whether the lab uses the machine's namespaces or brings a user namespace of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Root: namespaces are named in the machine's `/run/netns`.
    Root,
    /// Anyone: everything lives inside a user namespace.
    Rootless,
}

/// The folder of all labs of this user.
#[derive(Clone, Debug)]
pub struct Base {
    /// The folder.
    pub path: PathBuf,
    /// What this user can do.
    pub mode: Mode,
}

impl Base {
    /// Finds the folder: `/run/voile-lab` for root, `$XDG_RUNTIME_DIR/voile-lab` or `/tmp/voile-lab-UID` for others.
    pub fn find() -> Result<Self> {
        let own = geteuid();
        if own.is_root() {
            let path = PathBuf::from("/run/voile-lab");
            if make_private(&path).is_ok() && can_mount() {
                return Ok(Self { path, mode: Mode::Root });
            }
        }
        let runtime =
            std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("voile-lab"));
        let fallback = std::env::temp_dir().join(format!("voile-lab-{own}"));
        let path = runtime.filter(|path| make_private(path).is_ok()).unwrap_or(fallback);
        make_private(&path)
            .with_context(|| format!("cannot use {} for the lab's files", path.display()))?;
        let found = fs::metadata(&path)?;
        ensure!(
            found.uid() == own.as_raw() && found.mode().trailing_zeros() >= 6,
            "{} belongs to someone else or is open to others; remove it or set XDG_RUNTIME_DIR",
            path.display()
        );
        Ok(Self { path, mode: Mode::Rootless })
    }

    /// The folder of one lab.
    #[must_use]
    pub fn lab(&self, name: &str) -> Layout {
        Layout { name: name.to_owned(), dir: self.path.join(name) }
    }

    /// Names of all labs that left something here.
    #[must_use]
    pub fn labs(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter(|entry| entry.path().join("state.json").exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}

/// Root inside someone's container may lack what named namespaces need.
fn can_mount() -> bool {
    nix::sched::unshare(nix::sched::CloneFlags::empty()).is_ok()
        && fs::read_to_string("/proc/self/status").is_ok_and(|status| {
            let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
            let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
            // CAP_NET_ADMIN is 12, CAP_SYS_ADMIN 21 (capabilities(7)).
            mask & (1 << 12) != 0 && mask & (1 << 21) != 0
        })
}

/// Makes a folder that only its owner can enter.
pub fn make_private(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(path)
}

/// Names and files of one lab.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Name of the lab.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
}

impl Layout {
    /// From the folder alone.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        let name =
            dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { name, dir: dir.to_owned() }
    }

    /// What must be taken back by `down`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// Where clients talk to the supervisor.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// For kubectl on the host.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// For programs inside the lab's namespaces.
    #[must_use]
    pub fn inner_kubeconfig(&self) -> PathBuf {
        self.dir.join("inner.kubeconfig")
    }

    /// Log of one process.
    #[must_use]
    pub fn log(&self, process: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{process}.log"))
    }

    /// Folder of one topology node.
    #[must_use]
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    /// The socket where voile-cni finds the node's daemon.
    #[must_use]
    pub fn cni_socket(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("cni.sock")
    }

    /// Namespace of a topology node.
    #[must_use]
    pub fn netns(&self, node: &str) -> PathBuf {
        kernel::netns::named(&format!("{}-{node}", self.name))
    }

    /// Namespace of a pod.
    #[must_use]
    pub fn pod_netns(&self, uid: &str) -> PathBuf {
        let short: String = uid.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        kernel::netns::named(&format!("{}-pod-{short}", self.name))
    }
}
