//! A user namespace in which everyone is root over networks of their own.

use std::{
    fs::{self, File, OpenOptions},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::{getegid, geteuid},
};

/// Moves this process into new user, mount and network namespaces. Only a process with a single thread may do that.
///
/// `/run` becomes a private tmpfs, except for `keep`, the lab's own folder.
pub fn enter_new(keep: &Path) -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .context(
            "cannot make a user namespace; run as root, or allow them \
         (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0)",
        )?;
    // user_namespaces(7): setgroups has to be denied before an unprivileged process may write gid_map.
    fs::write("/proc/self/setgroups", "deny").context("cannot deny setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("cannot map the user id")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("cannot map the group id")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make mounts private")?;
    private_run(keep)?;
    let netlink = kernel::Netlink::open()?;
    kernel::link::set_up(&netlink, kernel::link::index_of(&netlink, "lo")?, true)?;
    Ok(())
}

fn private_run(keep: &Path) -> Result<()> {
    let kept = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_PATH | nix::libc::O_DIRECTORY)
        .open(keep)
        .with_context(|| format!("cannot open {}", keep.display()))?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("cannot mount a tmpfs on /run")?;
    if keep.starts_with("/run") || keep.starts_with("/var/run") {
        fs::create_dir_all(keep)?;
        let source = format!("/proc/self/fd/{}", kept.as_raw_fd());
        mount(Some(source.as_str()), keep, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("cannot keep {} visible", keep.display()))?;
    }
    Ok(())
}

/// Moves this process into the namespaces of a rootless lab's supervisor. Only a process with a single thread may.
pub fn join(pid: i32) -> Result<()> {
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        File::open(&path).with_context(|| format!("cannot open {path}; is the lab up, and yours?"))
    };
    let (user, mounts, network) = (open("user")?, open("mnt")?, open("net")?);
    let folder = std::env::current_dir().ok();
    setns(user, CloneFlags::CLONE_NEWUSER).context("cannot join the lab's user namespace")?;
    setns(mounts, CloneFlags::CLONE_NEWNS).context("cannot join the lab's mount namespace")?;
    setns(network, CloneFlags::CLONE_NEWNET).context("cannot join the lab's network namespace")?;
    // setns(2) moves the working directory to the root of the mount namespace.
    if let Some(folder) = folder {
        drop(std::env::set_current_dir(folder));
    }
    Ok(())
}
