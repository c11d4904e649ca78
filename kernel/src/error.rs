//! Why an operation on the kernel failed, in words an operator can act on.

use std::{io, path::PathBuf};

use nix::errno::Errno;

/// An operation that the kernel refused, or that never reached it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel answered a request with an error code.
    #[error("{operation}: {}{note}", errno.desc())]
    Refused {
        /// What was asked, e.g. `add route 10.0.0.0/8`.
        operation: String,
        /// The kernel's code.
        errno: Errno,
        /// The kernel's own explanation (extended ACK), empty or starting with ` (`.
        note: String,
    },
    /// The netlink socket itself failed.
    #[error("{operation} on a netlink socket")]
    Socket {
        /// What was done with the socket.
        operation: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel's answer made no sense.
    #[error("{operation}: undecodable answer from the kernel: {reason}")]
    Undecodable {
        /// What was asked.
        operation: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// No interface has that name in this namespace.
    #[error("no interface named {name}")]
    NoSuchLink {
        /// The name that was looked up.
        name: String,
    },
    /// A network namespace could not be made, opened, entered or removed.
    #[error("{operation} network namespace {}", path.display())]
    Namespace {
        /// What was tried.
        operation: &'static str,
        /// Which namespace.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A value that can't be sent to the kernel.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// Returns the kernel's code, when there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket { source, .. } | Self::Namespace { source, .. } => {
                source.raw_os_error().map(Errno::from_raw)
            }
            Self::NoSuchLink { .. } => Some(Errno::ENODEV),
            Self::Undecodable { .. } | Self::Invalid { .. } => None,
        }
    }

    /// Says whether the object to act on does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.errno(),
            Some(
                Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENXIO
            )
        )
    }

    /// Says whether the object to create is there already.
    pub fn is_existing(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Says whether this process may not do that (missing CAP_NET_ADMIN, usually).
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(Errno::EPERM | Errno::EACCES))
    }
}

/// Turns "it was not there" into success, for deletions.
pub(crate) fn missing_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    }
}
