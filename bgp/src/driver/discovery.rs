//! Finds the routers at the other end of interfaces by their router advertisements (RFC 4861 §4.2), and is found by ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::{mpsc, watch},
    task::AbortHandle,
};

use super::socket_option;
use crate::{SpeakerConfig, config::Members};

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Nobody further away may speak (RFC 4861 §6.1).
const HOP_LIMIT: u8 = 255;
/// Time between advertisements of ours.
const INTERVAL: Duration = Duration::from_secs(10);

/// A router whose advertisements stop is asked after this time whether it is still there.
const DOUBT: Duration = Duration::from_secs(15);
/// Without an answer it is gone after this one, unless it said that it speaks less often.
const PATIENCE: Duration = Duration::from_secs(45);

/// What was learned about an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Neighbour {
    /// A router showed up there.
    Found(String, IpAddr),
    /// It has not been heard for long. Told again and again until it is.
    Silent(String),
}

/// When the router on each interface was heard, and how long that holds.
#[derive(Debug, Default)]
struct Heard(BTreeMap<String, (Instant, Duration)>);

impl Heard {
    /// Takes note of an advertisement with this Router Lifetime (RFC 4861 §4.2); zero says nothing but that it is no
    /// default router.
    fn note(&mut self, interface: &str, lifetime: Duration, now: Instant) {
        self.0.insert(interface.to_owned(), (now, lifetime.max(PATIENCE)));
    }

    fn retain(&mut self, interfaces: &BTreeSet<String>) {
        self.0.retain(|interface, _| interfaces.contains(interface));
    }

    /// Lists interfaces whose router should be asked whether it is there.
    fn doubtful(&self, now: Instant) -> impl Iterator<Item = &String> {
        let old = move |at: &Instant| now.saturating_duration_since(*at) >= DOUBT;
        self.0.iter().filter(move |(_, (at, _))| old(at)).map(|(interface, _)| interface)
    }

    /// Lists interfaces whose router is gone.
    fn silent(&self, now: Instant) -> impl Iterator<Item = &String> {
        let over =
            move |(at, valid): &(Instant, Duration)| now.saturating_duration_since(*at) >= *valid;
        self.0.iter().filter(move |(_, heard)| over(heard)).map(|(interface, _)| interface)
    }
}

/// The way to the task that looks.
#[derive(Debug)]
pub(super) struct Discovery {
    interfaces: watch::Sender<BTreeSet<String>>,
    found: mpsc::UnboundedSender<Neighbour>,
    task: Option<AbortHandle>,
}

impl Discovery {
    pub(super) fn new(found: mpsc::UnboundedSender<Neighbour>) -> Self {
        Self { interfaces: watch::Sender::new(BTreeSet::new()), found, task: None }
    }

    /// Looks on the interfaces that groups of peers are for; the first one makes the socket.
    pub(super) fn configure(&mut self, config: &SpeakerConfig) {
        let wanted = config.groups.iter().filter_map(|group| match &group.members {
            Members::Interface(interface) => Some(interface.clone()),
            Members::Range(_) => None,
        });
        let wanted: BTreeSet<String> = wanted.collect();
        if self.task.is_none() && !wanted.is_empty() {
            let looking = run(self.interfaces.subscribe(), self.found.clone());
            self.task = Some(tokio::spawn(looking).abort_handle());
        }
        self.interfaces.send_if_modified(|current| {
            let changed = *current != wanted;
            *current = wanted;
            changed
        });
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// The type is the wrong one and does not matter: it waits for a socket of datagrams, and these are no others.
fn open() -> io::Result<UdpSocket> {
    UdpSocket::from_std(std::net::UdpSocket::from(socket_option::router_socket()?))
}

/// Runs until aborted. Every branch is cancel-safe: they wait only.
async fn run(
    mut interfaces: watch::Receiver<BTreeSet<String>>,
    found: mpsc::UnboundedSender<Neighbour>,
) {
    let socket = match open() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "cannot look for routers on interfaces; it needs CAP_NET_RAW");
            return;
        }
    };
    let mut tick = tokio::time::interval(INTERVAL);
    let mut heard = Heard::default();
    loop {
        let mut buffer = [0; 1500];
        tokio::select! {
            _ = tick.tick() => {
                for interface in interfaces.borrow().iter() {
                    send(&socket, interface, ADVERTISEMENT);
                }
                let now = tokio::time::Instant::now().into_std();
                for interface in heard.doubtful(now) {
                    send(&socket, interface, SOLICITATION);
                }
                for interface in heard.silent(now) {
                    if found.send(Neighbour::Silent(interface.clone())).is_err() {
                        return;
                    }
                }
            }
            changed = interfaces.changed() => {
                if changed.is_err() {
                    return;
                }
                heard.retain(&interfaces.borrow());
                for interface in interfaces.borrow_and_update().iter() {
                    send(&socket, interface, SOLICITATION);
                    send(&socket, interface, ADVERTISEMENT);
                }
            }
            received = receive(&socket, &mut buffer) => match received {
                Ok(Some(message)) => {
                    if !interfaces.borrow().contains(&message.interface) {
                        continue;
                    }
                    let Some(lifetime) = message.lifetime else {
                        send(&socket, &message.interface, ADVERTISEMENT);
                        continue;
                    };
                    let now = tokio::time::Instant::now().into_std();
                    heard.note(&message.interface, lifetime, now);
                    let neighbour = Neighbour::Found(message.interface, message.address);
                    if found.send(neighbour).is_err() {
                        return;
                    }
                }
                Ok(None) => (),
                Err(error) => {
                    tracing::warn!(%error, "cannot receive router advertisements");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// A solicitation or an advertisement.
#[derive(Debug)]
struct Message {
    interface: String,
    address: IpAddr,
    /// Router Lifetime of an advertisement; none for a solicitation.
    lifetime: Option<Duration>,
}

/// Waits for a message; `None` if it is not one for us.
async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Message>> {
    let (length, from, hops) = socket
        .async_io(Interest::READABLE, || socket_option::receive_with_ttl(socket.as_fd(), buffer))
        .await?;
    let Some(SocketAddr::V6(from)) = from.filter(|_| hops == Some(HOP_LIMIT)) else {
        return Ok(None);
    };
    let lifetime = match buffer.get(..length).unwrap_or_default() {
        // The shortest advertisement and solicitation (RFC 4861 §4.1, §4.2).
        [ADVERTISEMENT, 0, _, _, _, _, high, low, rest @ ..] if rest.len() >= 8 => {
            Some(Duration::from_secs(u64::from(u16::from_be_bytes([*high, *low]))))
        }
        [SOLICITATION, 0, rest @ ..] if rest.len() >= 6 => None,
        _ => return Ok(None),
    };
    if !from.ip().is_unicast_link_local() {
        return Ok(None);
    }
    let name = nix::net::if_::if_indextoname(from.scope_id())?;
    let name = name.into_string().map_err(io::Error::other)?;
    Ok(Some(Message { interface: name, address: IpAddr::V6(*from.ip()), lifetime }))
}

/// An interface that is not there yet is tried again with the next advertisement.
fn send(socket: &UdpSocket, interface: &str, kind: u8) {
    // The checksum is the kernel's business. A lifetime of zero: hosts shall not take us for their default router.
    let mut message = [0; 16];
    message[0] = kind;
    let (group, bytes) = match kind {
        SOLICITATION => (ALL_ROUTERS, &message[..8]),
        _ => (ALL_NODES, &message[..]),
    };
    let result = nix::net::if_::if_nametoindex(interface)
        .map_err(io::Error::from)
        .and_then(|index| socket_option::send_to_group(socket.as_fd(), index, group, bytes));
    if let Err(error) = result {
        tracing::debug!(%interface, %error, "cannot send to the routers on an interface");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_that_is_not_heard_any_more_is_asked_and_then_gone() {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut heard = Heard::default();
        heard.note("eth0", Duration::ZERO, at(0));
        heard.note("eth1", Duration::from_secs(1800), at(0));
        heard.note("eth2", Duration::from_secs(5), at(0));
        assert_eq!((heard.doubtful(at(14)).count(), heard.silent(at(14)).count()), (0, 0));
        heard.note("eth2", Duration::from_secs(5), at(14));
        assert_eq!(heard.doubtful(at(20)).collect::<Vec<_>>(), ["eth0", "eth1"]);
        assert_eq!(heard.silent(at(44)).count(), 0);
        // It stays silent until it is heard again.
        for seconds in [45, 55] {
            assert_eq!(heard.silent(at(seconds)).collect::<Vec<_>>(), ["eth0"]);
        }
        heard.note("eth0", Duration::ZERO, at(56));
        assert_eq!(heard.silent(at(58)).count(), 0);
        assert_eq!(heard.silent(at(1800)).count(), 3);
        heard.retain(&BTreeSet::from(["eth1".to_owned()]));
        assert_eq!(heard.silent(at(1800)).collect::<Vec<_>>(), ["eth1"]);
    }
}
