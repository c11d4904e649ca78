//! Finds the routers at the other end of interfaces by their router advertisements (RFC 4861 §4.2), and is found by ours.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
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

/// An interface, and the address of the router that showed up there.
pub(super) type Neighbour = (String, IpAddr);

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
    loop {
        let mut buffer = [0; 1500];
        tokio::select! {
            _ = tick.tick() => {
                for interface in interfaces.borrow().iter() {
                    send(&socket, interface, ADVERTISEMENT);
                }
            }
            changed = interfaces.changed() => {
                if changed.is_err() {
                    return;
                }
                for interface in interfaces.borrow_and_update().iter() {
                    send(&socket, interface, SOLICITATION);
                    send(&socket, interface, ADVERTISEMENT);
                }
            }
            received = receive(&socket, &mut buffer) => match received {
                Ok(Some((interface, address, kind))) => {
                    if !interfaces.borrow().contains(&interface) {
                        continue;
                    }
                    if kind == SOLICITATION {
                        send(&socket, &interface, ADVERTISEMENT);
                    } else if found.send((interface, address)).is_err() {
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

/// Waits for a message; `None` if it is not one for us.
async fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<Option<(String, IpAddr, u8)>> {
    let (length, from, hops) = socket
        .async_io(Interest::READABLE, || socket_option::receive_with_ttl(socket.as_fd(), buffer))
        .await?;
    let Some(SocketAddr::V6(from)) = from.filter(|_| hops == Some(HOP_LIMIT)) else {
        return Ok(None);
    };
    let kind = match buffer.get(..length).unwrap_or_default() {
        // The shortest advertisement and solicitation (RFC 4861 §4.1, §4.2).
        [ADVERTISEMENT, 0, rest @ ..] if rest.len() >= 14 => ADVERTISEMENT,
        [SOLICITATION, 0, rest @ ..] if rest.len() >= 6 => SOLICITATION,
        _ => return Ok(None),
    };
    if !from.ip().is_unicast_link_local() {
        return Ok(None);
    }
    let name = nix::net::if_::if_indextoname(from.scope_id())?;
    let name = name.into_string().map_err(io::Error::other)?;
    Ok(Some((name, IpAddr::V6(*from.ip()), kind)))
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
