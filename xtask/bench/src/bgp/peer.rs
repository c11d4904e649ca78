//! One peer: a socket, as much of a session as is needed to keep it, and the table that it was told.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};

use super::{
    plan::{PeerPlan, SPEAKER},
    table::{Table, Truth},
    wire::{self, Message},
};

/// How long a refused peer waits before it tries again.
const RETRY: Duration = Duration::from_millis(100);
/// How long a peer waits for the answer to its OPEN before it tries again. Connections that overflowed the speaker's
/// queue look connected from here and would hang for minutes.
const PATIENCE: Duration = Duration::from_secs(10);
const BGP_PORT: u16 = 179;

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No connection; the next attempt is due then.
    Down(Instant),
    /// The connection is being made.
    Connecting,
    /// OPEN sent.
    OpenSent,
    /// OPEN received, KEEPALIVE awaited.
    OpenConfirm,
    /// Routes may flow.
    Established,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) state: State,
    pub(crate) table: Table,
    /// Why it lost an Established session, the first time.
    pub(crate) lost: Option<String>,
    pub(crate) stream: Option<TcpStream>,
    address: Ipv4Addr,
    asn: u32,
    hold_time: u16,
    /// Between two KEEPALIVEs, once negotiated.
    interval: Duration,
    next_keepalive: Instant,
    /// When it started its connection.
    started: Instant,
    /// The part of a message that has come so far.
    partial: Vec<u8>,
    /// Small messages of the session, before `bulk`.
    control: Vec<u8>,
    /// What it announces, and how much of that is written.
    bulk: Option<(Arc<Vec<u8>>, usize)>,
    why: String,
}

impl Peer {
    pub(crate) fn new(plan: &PeerPlan, truth: &Arc<Truth>, hold_time: u16, now: Instant) -> Self {
        Self {
            state: State::Down(now),
            table: Table::new(Arc::clone(truth), Arc::clone(&plan.expected), Arc::clone(&plan.own)),
            lost: None,
            stream: None,
            address: plan.address,
            asn: plan.asn,
            hold_time,
            interval: Duration::from_secs(30),
            next_keepalive: now,
            started: now,
            partial: Vec::new(),
            control: Vec::new(),
            bulk: None,
            why: String::new(),
        }
    }

    pub(crate) fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// What it waits for, for people.
    pub(crate) fn complaint(&self) -> String {
        let state = match self.state {
            State::Down(_) => "no connection",
            State::Connecting => "no answer to SYN",
            State::OpenSent => "no OPEN",
            State::OpenConfirm => "no KEEPALIVE after OPEN",
            State::Established => return self.table.complaint(),
        };
        let why = if self.why.is_empty() { "" } else { ", before that: " };
        format!("{}: {state}{why}{}", self.address, self.why)
    }

    /// Starts a connection; the caller registers the new socket.
    pub(crate) fn connect(&mut self, now: Instant) -> io::Result<()> {
        self.started = now;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(self.address, 0)))?;
        let target = SockaddrIn::from(SocketAddrV4::new(SPEAKER, BGP_PORT));
        match connect(fd.as_raw_fd(), &target) {
            Ok(()) | Err(nix::Error::EINPROGRESS) => {
                self.stream = Some(TcpStream::from(fd));
                self.state = State::Connecting;
            }
            Err(error) => self.down(now, &format!("connect: {error}")),
        }
        Ok(())
    }

    /// Ends the connection as a machine that loses its power: the other side gets a reset and no NOTIFICATION.
    pub(crate) fn reset(&mut self, now: Instant) {
        if let Some(stream) = &self.stream {
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            let _ = setsockopt(stream, sockopt::Linger, &linger);
        }
        self.close();
        self.state = State::Down(now);
    }

    fn close(&mut self) {
        self.stream = None;
        self.partial.clear();
        self.control.clear();
        self.bulk = None;
        self.table.clear();
    }

    fn down(&mut self, now: Instant, why: &str) {
        if self.is_established() && self.lost.is_none() {
            self.lost = Some(format!("{} lost its session: {why}", self.address));
        }
        why.clone_into(&mut self.why);
        self.close();
        self.state = State::Down(now + RETRY);
    }

    /// Queues what it announces.
    pub(crate) fn announce(&mut self, bytes: Arc<Vec<u8>>) {
        self.bulk = Some((bytes, 0));
    }

    /// Whether there is something to write, or a connection to be finished.
    pub(crate) fn wants_write(&self) -> bool {
        self.state == State::Connecting || !self.control.is_empty() || self.bulk.is_some()
    }

    /// Whether its session is being made right now.
    pub(crate) fn is_opening(&self) -> bool {
        !matches!(self.state, State::Down(_) | State::Established)
    }

    /// Gives up a session that gets no answer.
    pub(crate) fn lose_patience(&mut self, now: Instant) {
        if self.state == State::OpenSent && now.duration_since(self.started) > PATIENCE {
            self.down(now, "no answer to its OPEN");
        }
    }

    /// Queues a KEEPALIVE when it is due; the first one at a moment of its own, so that not all send at once.
    pub(crate) fn keep_alive(&mut self, now: Instant) {
        if self.is_established() && now >= self.next_keepalive {
            self.next_keepalive = now + self.interval;
            // While the table is being written its UPDATEs do a KEEPALIVE's work.
            if self.bulk.is_none() {
                wire::keepalive(&mut self.control);
            }
        }
    }

    /// Writes as much as the socket takes.
    pub(crate) fn writable(&mut self, now: Instant) {
        if self.state == State::Connecting {
            match self.stream.as_ref().map(TcpStream::take_error) {
                Some(Ok(None)) => {
                    wire::open(&mut self.control, self.asn, self.hold_time, self.address);
                    self.state = State::OpenSent;
                }
                Some(Ok(Some(error)) | Err(error)) => return self.down(now, &error.to_string()),
                None => return,
            }
        }
        if let Err(error) = self.write() {
            self.down(now, &error.to_string());
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let blocked = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        while !self.control.is_empty() {
            match stream.write(&self.control) {
                Ok(written) => drop(self.control.drain(..written)),
                Err(error) if blocked(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        while let Some((bytes, written)) = &mut self.bulk {
            let rest = bytes.get(*written..).unwrap_or_default();
            if rest.is_empty() {
                self.bulk = None;
                break;
            }
            match stream.write(rest) {
                Ok(more) => *written += more,
                Err(error) if blocked(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once into the buffer that all peers share, and takes in every whole message.
    pub(crate) fn readable(&mut self, buffer: &mut [u8], now: Instant) {
        let Some(stream) = &mut self.stream else { return };
        let kept = self.partial.len();
        let Some((front, room)) = buffer.split_at_mut_checked(kept) else { return };
        front.copy_from_slice(&self.partial);
        let result = match stream.read(room) {
            Ok(0) => Err("it closed the connection".to_owned()),
            Ok(count) => self.take(buffer.get(..kept + count).unwrap_or_default(), now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = result {
            self.down(now, &why);
        }
    }

    fn take(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), String> {
        while let Some((message, rest)) = wire::split(bytes)? {
            match message {
                Message::Update(body) => self.table.update(body)?,
                Message::Open(body) => self.opened(body),
                Message::Keepalive if self.state == State::OpenConfirm => {
                    self.state = State::Established;
                    let spread = u32::from(self.address.octets()[3]) % 100;
                    self.next_keepalive = now + self.interval * spread / 100;
                }
                Message::Notification(code, subcode) => {
                    return Err(format!("it sent NOTIFICATION {code}/{subcode}"));
                }
                Message::Keepalive | Message::Other => (),
            }
            bytes = rest;
        }
        self.partial.clear();
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn opened(&mut self, body: &[u8]) {
        let theirs = wire::hold_time(body).unwrap_or(self.hold_time);
        self.interval = Duration::from_secs(u64::from(theirs.min(self.hold_time).max(3))) / 3;
        wire::keepalive(&mut self.control);
        self.state = State::OpenConfirm;
    }
}
