//! The kernel's own word that a transaction of nf_tables is in force.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kernel::NetNs;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
        setsockopt, socket, sockopt,
    },
};

/// Multicast group NFNLGRP_NFTABLES (7) as a bit.
const GROUP: u32 = 1 << 6;
/// NFNL_SUBSYS_NFTABLES and NFT_MSG_NEWGEN: the last message of every transaction.
const NEW_GENERATION: u16 = (10 << 8) | 15;
/// Room for the events of a large transaction.
const BUFFER: usize = 4 << 20;

/// A listener for the transactions of one namespace.
#[derive(Debug)]
pub(super) struct Commits {
    socket: OwnedFd,
}

impl Commits {
    pub(super) fn open(netns: &NetNs) -> Result<Self> {
        let socket = netns.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let protocol = SockProtocol::NetlinkNetFilter;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
            // More than the limit of others is root's to ask for; without it events may be lost, which would show.
            let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
            nix::Result::Ok(socket)
        })?;
        Ok(Self { socket: socket.context("cannot listen for transactions of nf_tables")? })
    }

    /// Drops what has come so far.
    pub(super) fn forget(&mut self) -> Result<()> {
        while self.receive()?.is_some() {}
        Ok(())
    }

    /// Waits for the next commit and says when its message was here.
    pub(super) fn next(&mut self, patience: Duration) -> Result<Instant> {
        let deadline = Instant::now() + patience;
        loop {
            let commit = self.receive()?;
            let now = Instant::now();
            if commit == Some(true) {
                return Ok(now);
            }
            ensure!(now < deadline, "no commit in the kernel within {} s", patience.as_secs());
            if commit.is_none() {
                let mut readable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                poll(&mut readable, PollTimeout::from(100_u8))?;
            }
        }
    }

    /// Takes one datagram; says whether it ends a transaction. `None`: nothing is there.
    fn receive(&mut self) -> Result<Option<bool>> {
        let mut buffer = vec![0; 64 * 1024];
        match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => Ok(Some(has_generation(buffer.get(..length).unwrap_or_default()))),
            Err(nix::Error::EAGAIN) => Ok(None),
            Err(error) => Err(error).context("cannot read events of nf_tables"),
        }
    }
}

/// Walks the messages of a datagram (length, type, ... as netlink(7) says, each aligned to four octets).
fn has_generation(mut bytes: &[u8]) -> bool {
    while let Some([a, b, c, d, low, high]) = bytes.first_chunk::<6>() {
        if u16::from_ne_bytes([*low, *high]) == NEW_GENERATION {
            return true;
        }
        let length = usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let step = length.max(16).saturating_add(3) & !3;
        bytes = bytes.get(step..).unwrap_or_default();
    }
    false
}
