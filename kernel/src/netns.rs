//! Network namespaces. No function here ever leaves a thread in another namespace than it was in.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    panic,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::{Error, Result};

/// Where `ip netns` and we keep named namespaces.
pub const DIRECTORY: &str = "/run/netns";
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace; the kernel keeps it alive while this lives.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    path: PathBuf,
}

impl NetNs {
    /// Opens the namespace at a path such as `/run/netns/blue` or `/proc/42/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(failed("open", path))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Opens the namespace of the calling thread.
    pub fn current() -> Result<Self> {
        Self::open(OWN)
    }

    /// Makes a namespace without a name; it disappears with its last user.
    pub fn anonymous() -> Result<Self> {
        on_fresh_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| failed("create", Path::new("-"))(errno.into()))?;
            Self::current()
        })?
    }

    /// Makes a namespace and pins it at `path` with a bind mount.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        create(path.as_ref())?;
        Self::open(path)
    }

    /// Runs `work` inside this namespace, on a thread of its own, and returns its result; a panic is passed on.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_fresh_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| failed("enter", &self.path)(errno.into()))?;
            Ok(work())
        })?
    }

    /// Returns the number that identifies the namespace on this machine.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(failed("look at", &self.path))?.ino())
    }

    /// Returns a path under which processes of the same user can open it as long as this value lives.
    pub fn process_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Returns the conventional path of a named namespace.
pub fn named(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Makes a namespace and pins it at `path`; the folder is made when missing. An existing path is refused.
pub fn create(path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("make the folder of", path))?;
        if folder == Path::new(DIRECTORY) {
            // Without it namespaces work as well, until someone calls `ip netns add`.
            drop(share(folder));
        }
    }
    File::create_new(path).map_err(failed("create", path))?;
    let made = on_fresh_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
    })?;
    made.map_err(|errno| {
        // Nothing was pinned, so the empty file is all there is to take back.
        drop(fs::remove_file(path));
        failed("create", path)(errno.into())
    })
}

/// Makes the folder a shared mount of its own, as `ip netns add` does where it is not one yet: it would bind the folder
/// over itself later, with a second mount of each namespace that is pinned there, and the first could not be removed any more.
fn share(folder: &Path) -> io::Result<()> {
    // The lock that iproute2 takes too; it ends with the file.
    let lock = File::open(folder)?;
    lock.lock()?;
    let none = None::<&str>;
    let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
    // EINVAL: the folder is not a mount.
    if mount(none, folder, none, flags, none) == Err(nix::Error::EINVAL) {
        mount(Some(folder), folder, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        mount(none, folder, none, flags, none)?;
    }
    Ok(())
}

/// Unpins the namespace at `path`; succeeds when it is gone already.
pub fn delete(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: a plain file, left by a creation that died half way.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => (),
        Err(errno) => return Err(failed("unmount", path)(errno.into())),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Runs `work` inside the namespace at `path`, on a thread of its own.
pub fn in_netns<T: Send>(path: impl AsRef<Path>, work: impl FnOnce() -> T + Send) -> Result<T> {
    NetNs::open(path)?.run(work)
}

/// Returns the number of the calling thread's namespace.
pub fn current_netns_inode() -> Result<u64> {
    NetNs::current()?.inode()
}

/// Returns the number of the namespace at `path`.
pub fn inode(path: impl AsRef<Path>) -> Result<u64> {
    NetNs::open(path)?.inode()
}

fn on_fresh_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(failed("start a thread for", Path::new("-")))?;
        Ok(thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
    })
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Namespace { operation, path, source }
}
