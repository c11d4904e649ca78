//! Kernel settings under `/proc/sys`. `net/...` paths mean the calling thread's network namespace.
//!
//! Names are paths with slashes (`net/ipv4/conf/eth0.5/rp_filter`): interface names may contain dots.

use std::{fs, io, path::Path};

use nix::errno::Errno;

/// A setting that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{verb} sysctl {path}: {cause}")]
pub struct SysctlError {
    /// `read` or `write VALUE to`.
    verb: String,
    /// The path below `/proc/sys`.
    path: String,
    /// What kind of no it was.
    pub cause: Cause,
}

/// Why a setting can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// This kernel has no such setting, or the interface is gone.
    #[error("this kernel has no such setting, or the interface is gone")]
    Missing,
    /// `/proc/sys` is mounted read-only here.
    #[error("/proc/sys is read-only here; mount it writable or set it on the host")]
    ReadOnly,
    /// This process may not do that.
    #[error("permission denied; it belongs to another user namespace or CAP_NET_ADMIN is missing")]
    Denied,
    /// Anything else.
    #[error("{0}")]
    Other(io::Error),
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENODEV) => Self::Missing,
            Some(Errno::EROFS) => Self::ReadOnly,
            Some(Errno::EPERM | Errno::EACCES) => Self::Denied,
            _ => Self::Other(error),
        }
    }
}

/// Reads a setting, without the line end.
pub fn read(path: &str) -> Result<String, SysctlError> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(path)).map_err(|error| {
        SysctlError { verb: "read".into(), path: path.to_owned(), cause: error.into() }
    })?;
    Ok(text.trim_end().to_owned())
}

/// Writes a setting.
pub fn write(path: &str, value: &str) -> Result<(), SysctlError> {
    // No creation: a missing setting must be ENOENT, not EACCES.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(Path::new("/proc/sys").join(path))
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|error| SysctlError {
        verb: format!("write {value} to"),
        path: path.to_owned(),
        cause: error.into(),
    })
}

/// Makes a setting have this value and says whether it had another; writes only then, so that a read-only
/// `/proc/sys` with the right value is no error.
pub fn ensure(path: &str, value: &str) -> Result<bool, SysctlError> {
    if read(path).is_ok_and(|found| found == value) {
        return Ok(false);
    }
    write(path, value).map(|()| true)
}

/// Returns the path of an interface's IPv4 setting.
pub fn ipv4_conf(interface: &str, key: &str) -> String {
    format!("net/ipv4/conf/{interface}/{key}")
}

/// Returns the path of an interface's IPv6 setting.
pub fn ipv6_conf(interface: &str, key: &str) -> String {
    format!("net/ipv6/conf/{interface}/{key}")
}
