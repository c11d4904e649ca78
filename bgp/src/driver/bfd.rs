//! The sockets and the clock of BFD, on a thread of their own: no work on routes may look like a broken path.
//!
//! The thread begins with the first session, in the network namespace of the thread that asks for it.

mod sessions;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, sync::mpsc, time::sleep_until};

use self::sessions::Sessions;
use super::socket_option;
use crate::{
    bfd::{Change, MULTI_HOP_PORT, Packet, SINGLE_HOP_PORT},
    speaker::BfdSession,
};

/// Packets between the sockets and the sessions.
const QUEUE: usize = 1024;
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

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A socket that receives.
#[derive(Clone, Debug)]
struct Ear {
    socket: Arc<UdpSocket>,
    multi_hop: bool,
}

/// Runs until told to stop. Every branch is cancel-safe: they wait only.
async fn run(
    addresses: Vec<IpAddr>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<BfdEvent>,
    seed: u64,
) {
    let (packets, mut received) = mpsc::channel(QUEUE);
    let ports = [SINGLE_HOP_PORT, MULTI_HOP_PORT];
    let wanted = addresses.iter().flat_map(|ip| ports.map(|port| SocketAddr::new(*ip, port)));
    let ears: Vec<Ear> = wanted.filter_map(listen).collect();
    for ear in &ears {
        tokio::spawn(receive(ear.clone(), packets.clone()));
    }
    let mut sessions = Sessions::new(seed, events);
    loop {
        let deadline = sessions.poll_timeout();
        let deadline = deadline.unwrap_or_else(|| now() + Duration::from_secs(3600));
        tokio::select! {
            Some(received) = received.recv() => sessions.handle(&received, now()),
            command = commands.recv() => match command {
                Some(Command::Watch(session)) => sessions.watch(session, now()),
                Some(Command::Forget(peer)) => sessions.forget(&peer, now()),
                Some(Command::Stop) | None => return sessions.stop(now()),
            },
            () = sleep_until(deadline.into()) => (),
        }
        let time = now();
        if sessions.is_expiring(time) {
            // We may not have looked for a while: what came in time lies in the queue and in the sockets still.
            while let Ok(received) = received.try_recv() {
                sessions.handle(&received, time);
            }
            for ear in &ears {
                for received in (0..QUEUE).map_while(|_| ear.hear().ok()).flatten() {
                    sessions.handle(&received, time);
                }
            }
        }
        sessions.work(time);
    }
}

/// A socket that cannot be opened is an error of the operator's making: sessions stay down, BGP goes on.
fn listen(address: SocketAddr) -> Option<Ear> {
    match open(address) {
        Ok(socket) => {
            let multi_hop = address.port() == MULTI_HOP_PORT;
            Some(Ear { socket: Arc::new(socket), multi_hop })
        }
        Err(error) => {
            tracing::error!(%address, %error, "cannot listen for BFD; is another BFD daemon running there?");
            None
        }
    }
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

impl Ear {
    /// Takes a datagram if there is one; nothing is made of one that is no packet for us.
    fn hear(&self) -> io::Result<Option<Received>> {
        let mut buffer = [0; 128];
        let (length, from, ttl) =
            socket_option::receive_with_ttl(self.socket.as_fd(), &mut buffer)?;
        let Some(from) = from else { return Ok(None) };
        // RFC 5881 §5: nobody further away may speak.
        if !self.multi_hop && ttl != Some(TTL) {
            tracing::debug!(%from, ?ttl, "BFD packet from further away than one hop");
            return Ok(None);
        }
        Ok(match Packet::decode(buffer.get(..length).unwrap_or_default()) {
            Ok(packet) => Some(Received { from, packet, multi_hop: self.multi_hop }),
            Err(error) => {
                tracing::debug!(%from, %error, "dropped");
                None
            }
        })
    }
}

/// Ends with the thread.
async fn receive(ear: Ear, packets: mpsc::Sender<Received>) {
    loop {
        match ear.socket.async_io(tokio::io::Interest::READABLE, || ear.hear()).await {
            Ok(Some(received)) => {
                if packets.send(received).await.is_err() {
                    return;
                }
            }
            Ok(None) => (),
            Err(error) => {
                tracing::warn!(%error, "cannot receive BFD packets");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
