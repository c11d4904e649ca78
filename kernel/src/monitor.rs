//! What changes in the kernel, as typed events. Non-blocking: wait on the descriptor, then call
//! [`Monitor::try_next`] until it has nothing more.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use netlink_sys::Socket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    Address, Error, Link, NetNs, Netlink, Result, Route, address, link,
    netlink::{RawMessage, bound_socket, for_each_message},
    route,
};

/// `RTNLGRP_LINK`, `IPV4_IFADDR`, `IPV4_ROUTE`, `IPV6_IFADDR`, `IPV6_ROUTE`.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
const DATAGRAM: usize = 64 * 1024;
/// Enough for the burst of a full table; the kernel caps it at `net.core.rmem_max`.
const RECEIVE_BUFFER: i32 = 8 << 20;

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An interface appeared (created, moved in, or renamed: then [`Event::LinkDeleted`] with the old name precedes).
    LinkNew(Link),
    /// An interface became operational: switched on and with carrier.
    LinkUp(Link),
    /// An interface stopped being operational.
    LinkDown(Link),
    /// Anything else about an interface changed (MTU, address, master).
    LinkChanged(Link),
    /// An interface disappeared.
    LinkDeleted(Link),
    /// An address was added or its flags changed (IPv6: detection finished).
    AddressAdded(Address),
    /// An address was removed.
    AddressRemoved(Address),
    /// A route was added or replaced.
    RouteAdded {
        /// The route now in the kernel; for IPv6 possibly one leg of a multipath.
        route: Route,
        /// [`Netlink::port`] of whoever did it, 0 for the kernel.
        origin: u32,
    },
    /// A route was removed. IPv4 routes that go with their interface are **not** told one by one.
    RouteRemoved {
        /// The route that is gone; for IPv6 possibly one leg of a multipath.
        route: Route,
        /// [`Netlink::port`] of whoever did it, 0 for the kernel.
        origin: u32,
    },
    /// Events were lost: read everything again.
    Overrun,
}

/// A subscription to the changes in one network namespace.
pub struct Monitor {
    socket: Socket,
    links: BTreeMap<u32, Link>,
    queue: VecDeque<Event>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("queued", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Subscribes in the namespace of the calling thread. Interfaces that exist already are told as
    /// [`Event::LinkNew`] (and [`Event::LinkUp`]) first, so that there is no gap.
    pub fn open() -> Result<Self> {
        let failed = |operation| move |source| Error::Socket { operation, source };
        let (socket, _) = bound_socket()?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER).map_err(failed("set the receive buffer"))?;
        for group in GROUPS {
            socket.add_membership(group).map_err(failed("subscribe"))?;
        }
        socket.set_non_blocking(true).map_err(failed("make non-blocking"))?;
        let mut monitor = Self {
            socket,
            links: BTreeMap::new(),
            queue: VecDeque::new(),
            buffer: Vec::with_capacity(DATAGRAM),
        };
        for link in link::list(&Netlink::open()?)? {
            monitor.observe_link(link);
        }
        Ok(monitor)
    }

    /// Subscribes in another namespace.
    pub fn open_in(netns: &NetNs) -> Result<Self> {
        netns.run(Self::open)?
    }

    /// Returns the next event; `None` when there is nothing more to read now.
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        while self.queue.is_empty() {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, 0) {
                Ok((_, sender)) if sender.port_number() == 0 => self.read_datagram(),
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.queue.push_back(Event::Overrun)
                }
                Err(source) => return Err(Error::Socket { operation: "receive", source }),
            }
        }
        Ok(self.queue.pop_front())
    }

    /// Waits for the next event, at most that long.
    pub fn next_within(&mut self, patience: Duration) -> Result<Option<Event>> {
        if let Some(event) = self.try_next()? {
            return Ok(Some(event));
        }
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let mut descriptors = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => self.try_next(),
            Err(errno) => Err(Error::Socket { operation: "wait", source: errno.into() }),
        }
    }

    fn read_datagram(&mut self) {
        let datagram = std::mem::take(&mut self.buffer);
        for_each_message(&datagram, |raw| self.read(raw));
        self.buffer = datagram;
    }

    fn read(&mut self, raw: RawMessage<'_>) {
        let origin = raw.port;
        match raw.kind {
            link::RTM_NEWLINK => {
                if let Some(link) = link::decode(raw) {
                    self.observe_link(link);
                }
            }
            link::RTM_DELLINK => {
                if let Some(link) = link::decode(raw) {
                    self.links.remove(&link.index);
                    self.queue.push_back(Event::LinkDeleted(link));
                }
            }
            address::RTM_NEWADDR => {
                self.queue.extend(address::decode(raw).map(Event::AddressAdded))
            }
            address::RTM_DELADDR => {
                self.queue.extend(address::decode(raw).map(Event::AddressRemoved))
            }
            route::RTM_NEWROUTE => {
                let event = route::decode(raw).map(|route| Event::RouteAdded { route, origin });
                self.queue.extend(event);
            }
            route::RTM_DELROUTE => {
                let event = route::decode(raw).map(|route| Event::RouteRemoved { route, origin });
                self.queue.extend(event);
            }
            _ => (),
        }
    }

    fn observe_link(&mut self, link: Link) {
        let before = self.links.insert(link.index, link.clone());
        self.queue.extend(transitions(before, link));
    }
}

/// What happened between two descriptions of the interface with one index.
fn transitions(before: Option<Link>, now: Link) -> Vec<Event> {
    match before {
        Some(before) if before.name == now.name => {
            match (before.is_operational(), now.is_operational()) {
                (false, true) => vec![Event::LinkUp(now)],
                (true, false) => vec![Event::LinkDown(now)],
                _ if before != now => vec![Event::LinkChanged(now)],
                _ => vec![],
            }
        }
        renamed => {
            let mut events: Vec<_> = renamed.into_iter().map(Event::LinkDeleted).collect();
            let up = now.is_operational().then(|| Event::LinkUp(now.clone()));
            events.push(Event::LinkNew(now));
            events.extend(up);
            events
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
