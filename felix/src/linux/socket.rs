//! One nfnetlink socket: requests, dumps, batches.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
        recv, sendto, setsockopt, socket, sockopt,
    },
};

use super::{
    uapi::{NLMSG_DONE, NLMSG_ERROR, flag},
    wire::{Message, Messages, Writer, fixed},
};

/// Largest datagram the kernel makes for a dump, with room.
const RECEIVE: usize = 256 * 1024;
/// Receive buffer: notifications of others' big transactions should fit.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A netlink socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    port: u32,
    seq: u32,
    send_buffer: usize,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens and binds.
    pub(super) fn open(blocking: bool) -> io::Result<Self> {
        let flags = if blocking {
            SockFlag::SOCK_CLOEXEC
        } else {
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK
        };
        let fd =
            socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let port = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        // Beyond the system's limit if we may; within it otherwise.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        Ok(Self { fd, port, seq: 1, send_buffer: 0, buffer: vec![0; RECEIVE] })
    }

    /// The address the kernel gave us: notifications of our own changes carry it.
    pub(super) const fn port(&self) -> u32 {
        self.port
    }

    /// The descriptor, for polling.
    pub(super) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reserves sequence numbers.
    pub(super) fn reserve(&mut self, count: u32) -> u32 {
        let first = self.seq;
        self.seq = self.seq.wrapping_add(count).max(1);
        first
    }

    /// Sends one datagram; a transaction is one datagram, however big.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Twice what goes out: the kernel counts its own bookkeeping too, and doubles what we ask for.
        let wanted = bytes.len().saturating_mul(2).max(1 << 20);
        if wanted > self.send_buffer {
            if setsockopt(&self.fd, sockopt::SndBufForce, &wanted).is_err() {
                setsockopt(&self.fd, sockopt::SndBuf, &wanted)?;
            }
            self.send_buffer = wanted;
        }
        let kernel = NetlinkAddr::new(0, 0);
        loop {
            match sendto(self.fd.as_raw_fd(), bytes, &kernel, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives one datagram.
    pub(super) fn receive(&mut self) -> io::Result<&[u8]> {
        let len = loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        Ok(self.buffer.get(..len).unwrap_or_default())
    }

    /// Receives one datagram if there is one.
    pub(super) fn receive_now(&mut self) -> io::Result<Option<&[u8]>> {
        let len = loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                other => break other?,
            }
        };
        Ok(self.buffer.get(..len))
    }

    /// One request with one answer.
    pub(super) fn ask<T>(
        &mut self,
        kind: u8,
        fill: impl FnOnce(&mut Writer),
        mut read: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let seq = self.reserve(1);
        let mut out = Writer::default();
        out.begin_nft(kind, flag::REQUEST | flag::ACK, seq);
        fill(&mut out);
        out.end();
        self.send(&out.buf)?;
        let mut answer = None;
        loop {
            for message in Messages(self.receive()?).filter(|message| message.seq == seq) {
                if let Some(done) = finished(&message) {
                    done?;
                    return Ok(answer);
                }
                answer = answer.or_else(|| read(&message));
            }
        }
    }

    /// One dump; false when it changed under the kernel's hands and must be repeated.
    pub(super) fn dump(
        &mut self,
        kind: u8,
        fill: impl FnOnce(&mut Writer),
        mut read: impl FnMut(&Message<'_>),
    ) -> io::Result<bool> {
        let seq = self.reserve(1);
        let mut out = Writer::default();
        out.begin_nft(kind, flag::REQUEST | flag::DUMP, seq);
        fill(&mut out);
        out.end();
        self.send(&out.buf)?;
        let mut whole = true;
        loop {
            for message in Messages(self.receive()?).filter(|message| message.seq == seq) {
                whole &= message.flags & flag::DUMP_INTERRUPTED == 0;
                if let Some(done) = finished(&message) {
                    // EINTR ends a dump that raced with a commit.
                    return match done {
                        Err(error) if error.raw_os_error() == Some(libc::EINTR) => Ok(false),
                        other => other.map(|()| whole),
                    };
                }
                read(&message);
            }
        }
    }
}

/// Whether a message ends the conversation, and how.
pub(super) fn finished(message: &Message<'_>) -> Option<io::Result<()>> {
    if message.kind != NLMSG_ERROR && message.kind != NLMSG_DONE {
        return None;
    }
    let code = fixed(message.body, 0).map_or(0, i32::from_ne_bytes);
    Some(if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(()) })
}
