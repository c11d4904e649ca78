//! Ctrl-C as a value that loops look at, so that everything is dropped, and thereby removed, on the way out.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

/// SIGINT, SIGTERM and SIGHUP of this process.
#[derive(Debug)]
pub struct Interrupt {
    signals: SignalFd,
}

impl Interrupt {
    /// Takes the signals over; call it before the first thread starts.
    pub fn take_over() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().context("cannot block signals")?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot make a signalfd")?;
        Ok(Self { signals })
    }

    /// Fails as soon as a signal came.
    pub fn check(&self) -> Result<()> {
        let mut readable = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut readable, PollTimeout::ZERO) {
            // The signal is left unread, so that every later question gets the same answer.
            Ok(count) if count > 0 => bail!("interrupted"),
            _ => Ok(()),
        }
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
