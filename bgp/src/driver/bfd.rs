//! The sockets and the clock of BFD, on a thread of their own: no work on routes may look like a broken path.
//!
//! The thread begins with the first session, in the network namespace of the thread that asks for it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, sync::mpsc, time::sleep_until};

use super::socket_option;
use crate::{
    bfd::{Change, Config, MULTI_HOP_PORT, Machine, Packet, SINGLE_HOP_PORT},
    speaker::BfdSession,
};

/// Packets between the sockets and the sessions.
const QUEUE: usize = 1024;
/// Source ports (RFC 5881 §4).
const PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// RFC 5881 §5.
const TTL: u8 = 255;

#[derive(Debug)]
enum Command {
    Watch(BfdSession),
    Forget(String),
    Stop,
}

/// What happened to the session of a peer.
pub(super) type BfdEvent = (String, Change);

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Bfd {
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<std::thread::JoinHandle<()>>,
    events: mpsc::UnboundedSender<BfdEvent>,
    addresses: Vec<IpAddr>,
    seed: u64,
}

impl Bfd {
    /// Listens on these addresses once there is a session.
    pub(super) const fn new(
        addresses: Vec<IpAddr>,
        seed: u64,
        events: mpsc::UnboundedSender<BfdEvent>,
    ) -> Self {
        Self { commands: None, thread: None, events, addresses, seed }
    }

    /// Begins a session with a peer, or changes it.
    pub(super) fn watch(&mut self, session: BfdSession) {
        if self.commands.is_none() {
            self.start();
        }
        self.tell(Command::Watch(session));
    }

    /// Ends the session with a peer, as the operator's wish.
    pub(super) fn forget(&mut self, peer: String) {
        self.tell(Command::Forget(peer));
    }

    /// Ends all sessions; the peers are told that it is no failure.
    pub(super) fn stop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // It sends some packets and ends.
            let _ = thread.join();
        }
    }

    fn tell(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // An error means that the thread could not start, and it said so.
            let _ = commands.send(command);
        }
    }

    fn start(&mut self) {
        let (commands, queue) = mpsc::unbounded_channel();
        let (addresses, events, seed) = (self.addresses.clone(), self.events.clone(), self.seed);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(run(addresses, queue, events, seed)),
                Err(error) => tracing::error!(%error, "cannot start BFD"),
            }
        };
        match std::thread::Builder::new().name("bfd".into()).spawn(run) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => tracing::error!(%error, "cannot start the thread of BFD"),
        }
        self.commands = Some(commands);
    }
}

/// What a socket received.
#[derive(Debug)]
struct Received {
    from: SocketAddr,
    packet: Packet,
    multi_hop: bool,
}

#[derive(Debug)]
struct Session {
    wanted: BfdSession,
    machine: Machine,
    /// Created again when sending fails, for instance because the address was not there yet.
    socket: Option<std::net::UdpSocket>,
}

struct Sessions {
    by_discriminator: BTreeMap<u32, Session>,
    next_discriminator: u32,
    seed: u64,
    events: mpsc::UnboundedSender<BfdEvent>,
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Runs until told to stop. Every branch is cancel-safe: they wait only.
async fn run(
    addresses: Vec<IpAddr>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<BfdEvent>,
    seed: u64,
) {
    let (packets, mut received) = mpsc::channel(QUEUE);
    for address in addresses {
        for port in [SINGLE_HOP_PORT, MULTI_HOP_PORT] {
            listen(SocketAddr::new(address, port), &packets);
        }
    }
    let mut sessions = Sessions {
        by_discriminator: BTreeMap::new(),
        next_discriminator: u32::try_from(seed & 0xffff).unwrap_or(0) << 12 | 1,
        seed,
        events,
    };
    loop {
        let deadline =
            sessions.by_discriminator.values().filter_map(|each| each.machine.poll_timeout()).min();
        let deadline = deadline.unwrap_or_else(|| now() + Duration::from_secs(3600));
        tokio::select! {
            Some(received) = received.recv() => sessions.handle(&received),
            command = commands.recv() => match command {
                Some(Command::Watch(session)) => sessions.watch(session),
                Some(Command::Forget(peer)) => sessions.forget(&peer),
                Some(Command::Stop) | None => return sessions.stop(),
            },
            () = sleep_until(deadline.into()) => (),
        }
        sessions.work();
    }
}

/// A socket that cannot be opened is an error of the operator's making: sessions stay down, BGP goes on.
fn listen(address: SocketAddr, packets: &mpsc::Sender<Received>) {
    let socket = match open(address) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%address, %error, "cannot listen for BFD; is another BFD daemon running there?");
            return;
        }
    };
    tokio::spawn(receive(socket, packets.clone(), address.port() == MULTI_HOP_PORT));
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket_option::udp_socket(address.is_ipv4())?;
    if address.is_ipv6() {
        socket_option::set_ipv6_only(socket.as_fd())?;
    }
    socket_option::set_receive_ttl(socket.as_fd(), address.is_ipv4())?;
    socket_option::bind(socket.as_fd(), address)?;
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Ends with the thread.
async fn receive(socket: UdpSocket, packets: mpsc::Sender<Received>, multi_hop: bool) {
    loop {
        let mut buffer = [0; 128];
        let result = socket
            .async_io(tokio::io::Interest::READABLE, || {
                socket_option::receive_with_ttl(socket.as_fd(), &mut buffer)
            })
            .await;
        match result {
            Ok((length, Some(from), ttl)) => {
                // RFC 5881 §5: nobody further away may speak.
                if !multi_hop && ttl != Some(TTL) {
                    tracing::debug!(%from, ?ttl, "BFD packet from further away than one hop");
                    continue;
                }
                match Packet::decode(buffer.get(..length).unwrap_or_default()) {
                    Ok(packet) => {
                        if packets.send(Received { from, packet, multi_hop }).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => tracing::debug!(%from, %error, "dropped"),
                }
            }
            Ok((_, None, _)) => (),
            Err(error) => {
                tracing::warn!(%error, "cannot receive BFD packets");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Sessions {
    /// RFC 5880 §6.8.6: by our number, or by address as long as the other side does not know it.
    fn handle(&mut self, received: &Received) {
        let Received { from, packet, multi_hop } = received;
        let belongs = |session: &&mut Session| {
            session.wanted.config.multi_hop == *multi_hop && session.is_from(from)
        };
        let session = match packet.your_discriminator {
            0 => self.by_discriminator.values_mut().find(belongs),
            number => self.by_discriminator.get_mut(&number).filter(|session| belongs(session)),
        };
        if let Some(session) = session {
            session.machine.handle_packet(packet, now());
        }
    }

    fn watch(&mut self, wanted: BfdSession) {
        let known = self.by_discriminator.values_mut().find(|each| each.wanted.peer == wanted.peer);
        if let Some(session) = known
            && session.wanted.same_path(&wanted)
        {
            session.machine.set_timing(wanted.config.timing, now());
            session.wanted = wanted;
            return;
        }
        self.forget(&wanted.peer.clone());
        let discriminator = self.next_discriminator;
        self.next_discriminator = self.next_discriminator.checked_add(1).unwrap_or(1);
        let seed = self.seed ^ u64::from(discriminator);
        let machine = Machine::new(wanted.config.timing, discriminator, seed, now());
        self.by_discriminator.insert(discriminator, Session { wanted, machine, socket: None });
    }

    fn forget(&mut self, peer: &str) {
        let known = self.by_discriminator.iter().find(|(_, each)| each.wanted.peer == peer);
        let Some(discriminator) = known.map(|(discriminator, _)| *discriminator) else { return };
        if let Some(mut session) = self.by_discriminator.remove(&discriminator) {
            session.machine.shut_down(now());
            session.transmit();
        }
    }

    fn stop(&mut self) {
        for session in self.by_discriminator.values_mut() {
            session.machine.shut_down(now());
            session.transmit();
        }
    }

    fn work(&mut self) {
        let time = now();
        for session in self.by_discriminator.values_mut() {
            if session.machine.poll_timeout().is_some_and(|at| at <= time) {
                session.machine.handle_timeout(time);
            }
            session.transmit();
            while let Some(change) = session.machine.poll_change() {
                tracing::info!(peer = %session.wanted.peer, address = %session.wanted.address,
                    from = %change.from, to = %change.to, why = %change.diagnostic, "BFD session changed");
                // The speaker is gone otherwise.
                let _ = self.events.send((session.wanted.peer.clone(), change));
            }
        }
    }
}

impl Session {
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
