//! The BFD sessions of a speaker: to which one a packet belongs, which one is due.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::AsFd,
    time::Instant,
};

use tokio::sync::mpsc;

use super::{BfdEvent, Received, TTL};
use crate::{
    bfd::{Config, MULTI_HOP_PORT, Machine, Packet, SINGLE_HOP_PORT},
    driver::socket_option,
    speaker::BfdSession,
    watched::{Deadline, Watched},
};

/// Source ports (RFC 5881 §4).
const PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// One of the sessions.
#[derive(Debug)]
struct Session {
    wanted: BfdSession,
    machine: Machine,
    /// Created again when sending fails, for instance because the address was not there yet.
    socket: Option<std::net::UdpSocket>,
}

impl Deadline for Session {
    fn next_deadline(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }
}

/// All sessions. What arrives and what is due is found without looking at all of them.
#[derive(Debug)]
pub(super) struct Sessions {
    by_discriminator: Watched<u32, Session>,
    by_peer: BTreeMap<String, u32>,
    /// By address and kind; link-local addresses may be several on as many interfaces.
    by_path: BTreeSet<(IpAddr, bool, u32)>,
    next_discriminator: u32,
    seed: u64,
    events: mpsc::UnboundedSender<BfdEvent>,
}

impl Sessions {
    pub(super) fn new(seed: u64, events: mpsc::UnboundedSender<BfdEvent>) -> Self {
        Self {
            by_discriminator: Watched::new(),
            by_peer: BTreeMap::new(),
            by_path: BTreeSet::new(),
            next_discriminator: u32::try_from(seed & 0xffff).unwrap_or(0) << 12 | 1,
            seed,
            events,
        }
    }

    /// Returns when [`Sessions::work`] is due.
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        self.by_discriminator.next_deadline()
    }

    /// RFC 5880 §6.8.6: by our number, or by address as long as the other side does not know it.
    fn find(&self, received: &Received) -> Option<u32> {
        let Received { from, packet, multi_hop } = received;
        let belongs = |number: &u32| {
            self.by_discriminator.get(number).is_some_and(|session| {
                session.wanted.config.multi_hop == *multi_hop && session.is_from(from)
            })
        };
        match packet.your_discriminator {
            0 => {
                let address = from.ip().to_canonical();
                let path = (address, *multi_hop, 0)..=(address, *multi_hop, u32::MAX);
                self.by_path.range(path).map(|(_, _, number)| *number).find(belongs)
            }
            number => Some(number).filter(belongs),
        }
    }

    pub(super) fn handle(&mut self, received: &Received, now: Instant) {
        let Some(number) = self.find(received) else { return };
        if let Some(session) = self.by_discriminator.get_mut(&number) {
            session.machine.handle_packet(&received.packet, now);
            session.serve(&self.events);
        }
    }

    /// Begins a session, or changes the timing of a running one.
    pub(super) fn watch(&mut self, wanted: BfdSession, now: Instant) {
        let known = self.by_peer.get(&wanted.peer);
        if let Some(session) = known.and_then(|number| self.by_discriminator.get_mut(number))
            && session.wanted.same_path(&wanted)
        {
            session.machine.set_timing(wanted.config.timing, now);
            session.wanted = wanted;
            session.serve(&self.events);
            return;
        }
        self.forget(&wanted.peer.clone(), now);
        let discriminator = self.next_discriminator;
        self.next_discriminator = self.next_discriminator.checked_add(1).unwrap_or(1);
        let seed = self.seed ^ u64::from(discriminator);
        let machine = Machine::new(wanted.config.timing, discriminator, seed, now);
        self.by_peer.insert(wanted.peer.clone(), discriminator);
        self.by_path.insert((wanted.address, wanted.config.multi_hop, discriminator));
        self.by_discriminator.insert(discriminator, Session { wanted, machine, socket: None });
    }

    /// Ends a session; the other side is told that it is no failure.
    pub(super) fn forget(&mut self, peer: &str, now: Instant) {
        let Some(number) = self.by_peer.remove(peer) else { return };
        let Some(mut session) = self.by_discriminator.remove(&number) else { return };
        self.by_path.remove(&(session.wanted.address, session.wanted.config.multi_hop, number));
        session.machine.shut_down(now);
        session.transmit();
    }

    /// Ends all sessions.
    pub(super) fn stop(&mut self, now: Instant) {
        for session in self.by_discriminator.values_mut() {
            session.machine.shut_down(now);
            session.transmit();
        }
    }

    /// Says whether a path is about to be given up: what lies in the sockets still should be handled before.
    pub(super) fn is_expiring(&mut self, now: Instant) -> bool {
        let due = self.by_discriminator.due(now);
        let sessions = due.iter().filter_map(|number| self.by_discriminator.get(number));
        sessions.into_iter().any(|session| session.machine.is_expiring(now))
    }

    /// Fires what is due.
    pub(super) fn work(&mut self, now: Instant) {
        for number in self.by_discriminator.due(now) {
            if let Some(session) = self.by_discriminator.get_mut(&number) {
                session.machine.handle_timeout(now);
                session.serve(&self.events);
            }
        }
    }
}

impl Session {
    /// Sends what is to be sent and tells what changed.
    fn serve(&mut self, events: &mpsc::UnboundedSender<BfdEvent>) {
        self.transmit();
        while let Some(change) = self.machine.poll_change() {
            tracing::info!(peer = %self.wanted.peer, address = %self.wanted.address,
                from = %change.from, to = %change.to, why = %change.diagnostic, "BFD session changed");
            // The speaker is gone otherwise.
            let _ = events.send((self.wanted.peer.clone(), change));
        }
    }

    fn is_from(&self, from: &SocketAddr) -> bool {
        let on_link = match (from, self.remote()) {
            (SocketAddr::V6(from), SocketAddr::V6(remote)) => {
                remote.scope_id() == 0 || from.scope_id() == remote.scope_id()
            }
            _ => true,
        };
        on_link && from.ip().to_canonical() == self.wanted.address
    }

    fn remote(&self) -> SocketAddr {
        let BfdSession { address, interface, config, .. } = &self.wanted;
        let port = if config.multi_hop { MULTI_HOP_PORT } else { SINGLE_HOP_PORT };
        match (address, interface) {
            (IpAddr::V6(address), Some(interface)) if address.is_unicast_link_local() => {
                let scope = nix::net::if_::if_nametoindex(interface.as_str()).unwrap_or(0);
                SocketAddr::V6(SocketAddrV6::new(*address, port, 0, scope))
            }
            _ => SocketAddr::new(*address, port),
        }
    }

    fn transmit(&mut self) {
        while let Some(packet) = self.machine.poll_transmit() {
            if let Err(error) = self.send(&packet) {
                tracing::debug!(peer = %self.wanted.peer, %error, "cannot send a BFD packet");
                self.socket = None;
            }
        }
    }

    fn send(&mut self, packet: &Packet) -> io::Result<()> {
        let remote = self.remote();
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.sending_socket(remote)?,
        };
        let result = socket.send_to(&packet.encode(), remote);
        self.socket = Some(socket);
        result.map(|_| ())
    }

    fn sending_socket(&self, remote: SocketAddr) -> io::Result<std::net::UdpSocket> {
        let local = self.wanted.local.unwrap_or(match remote {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        });
        let span = u32::from(PORTS.end().saturating_sub(*PORTS.start()));
        let first = self.machine.discriminator();
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for offset in 0..64_u32 {
            let step = first.wrapping_add(offset.wrapping_mul(257)) % span;
            let port = PORTS.start().saturating_add(u16::try_from(step).unwrap_or(0));
            let mut address = SocketAddr::new(local, port);
            if let (SocketAddr::V6(address), SocketAddr::V6(remote)) = (&mut address, remote)
                && address.ip().is_unicast_link_local()
            {
                address.set_scope_id(remote.scope_id());
            }
            match std::net::UdpSocket::bind(address) {
                Ok(socket) => {
                    socket.set_nonblocking(true)?;
                    socket_option::set_ttl(socket.as_fd(), remote.is_ipv4(), TTL)?;
                    return Ok(socket);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl BfdSession {
    fn same_path(&self, other: &Self) -> bool {
        let Self { address, interface, local, config: Config { multi_hop, .. }, .. } = self;
        (*address, interface, *local, *multi_hop)
            == (other.address, &other.interface, other.local, other.config.multi_hop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfd::State;

    fn session(peer: &str, address: &str, interface: Option<&str>, multi_hop: bool) -> BfdSession {
        let config = Config { multi_hop, ..Config::default() };
        BfdSession {
            peer: peer.into(),
            address: address.parse().unwrap(),
            interface: interface.map(str::to_owned),
            local: Some(IpAddr::from([127, 78, 0, 1])),
            config,
        }
    }

    fn packet(from: &str, your_discriminator: u32, multi_hop: bool) -> Received {
        let from = SocketAddr::new(from.parse().unwrap(), 50_000);
        let mut other = Machine::new(Config::default().timing, 7, 7, epoch());
        other.handle_timeout(epoch());
        let packet = Packet { your_discriminator, ..other.poll_transmit().unwrap() };
        Received { from, packet, multi_hop }
    }

    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn epoch() -> Instant {
        static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *EPOCH.get_or_init(Instant::now)
    }

    /// The peers whose session has heard something.
    fn awake(sessions: &Sessions) -> Vec<&str> {
        let heard = |number: &u32| {
            let session = sessions.by_discriminator.get(number);
            session.is_some_and(|session| session.machine.state() != State::Down)
        };
        let peers = sessions.by_peer.iter().filter(|(_, number)| heard(number));
        peers.map(|(peer, _)| peer.as_str()).collect()
    }

    #[test]
    fn a_packet_reaches_the_session_of_its_number_or_address_and_no_other() {
        let now = epoch();
        let (events, _told) = mpsc::unbounded_channel();
        let mut sessions = Sessions::new(3, events);
        for index in 1..=200_u8 {
            let address = format!("127.78.1.{index}");
            sessions.watch(session(&address, &address, None, index % 2 == 0), now);
        }
        // Not of that address in that mode; not of that number; nobody's.
        sessions.handle(&packet("127.78.1.2", 0, false), now);
        let number = *sessions.by_peer.get("127.78.1.3").unwrap();
        sessions.handle(&packet("127.78.1.5", number, false), now);
        sessions.handle(&packet("127.78.2.1", 0, false), now);
        assert_eq!(awake(&sessions), Vec::<&str>::new());
        sessions.handle(&packet("127.78.1.2", 0, true), now);
        sessions.handle(&packet("127.78.1.3", number, false), now);
        assert_eq!(awake(&sessions), ["127.78.1.2", "127.78.1.3"]);
        // One that is forgotten hears nothing, and neither does its number; the same peer begins anew.
        sessions.forget("127.78.1.3", now);
        sessions.handle(&packet("127.78.1.3", number, false), now);
        sessions.watch(session("127.78.1.3", "127.78.1.3", None, false), now);
        sessions.handle(&packet("127.78.1.3", number, false), now);
        assert_eq!(awake(&sessions), ["127.78.1.2"]);
        sessions.handle(&packet("127.78.1.3", 0, false), now);
        assert_eq!(awake(&sessions), ["127.78.1.2", "127.78.1.3"]);
    }

    #[test]
    fn only_what_is_due_is_worked_on_and_silence_is_noticed() {
        let now = epoch();
        let (events, mut told) = mpsc::unbounded_channel();
        let mut sessions = Sessions::new(3, events);
        sessions.watch(session("a", "127.78.1.1", None, false), now);
        sessions.work(now);
        sessions.handle(&packet("127.78.1.1", 0, false), now);
        assert_eq!(told.try_recv().unwrap().1.to, State::Init);
        let next = sessions.poll_timeout().unwrap();
        assert!(!sessions.is_expiring(next));
        // Three intervals of the other side, which is slow while it is not up.
        let silence = now + std::time::Duration::from_secs(3);
        assert!(sessions.is_expiring(silence));
        sessions.work(silence);
        assert_eq!(told.try_recv().unwrap().1.to, State::Down);
        assert!(sessions.poll_timeout().is_some_and(|at| at > silence));
    }
}
