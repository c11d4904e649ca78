//! Listening sockets, with the keys of all peers on them before the first SYN.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
    task::AbortHandle,
};

use super::{
    Error,
    connection::Input,
    socket_option,
    tcp_ao::{self, Use},
};
use crate::{
    Prefix, SpeakerConfig,
    config::{Key, Members},
};

/// Hundreds of nodes connect at once after a restart.
const BACKLOG: u32 = 1024;

/// All listening sockets.
#[derive(Default)]
pub(super) struct Listeners {
    sockets: Vec<(Arc<TcpListener>, AbortHandle)>,
    /// What is set.
    keys: BTreeMap<Prefix, Key>,
    /// What is configured, by addresses and by interfaces.
    configured: BTreeMap<Prefix, Key>,
    by_interface: BTreeMap<String, Key>,
    /// Routers that were found on interfaces.
    found: BTreeMap<String, IpAddr>,
}

impl Listeners {
    pub(super) fn open(
        addresses: &[SocketAddr],
        inputs: &mpsc::Sender<Input>,
    ) -> Result<Self, Error> {
        let mut listeners = Self::default();
        for address in addresses {
            let socket =
                listen(*address).map_err(|source| Error::Listen { address: *address, source })?;
            let socket = Arc::new(socket);
            let task = tokio::spawn(accept(Arc::clone(&socket), inputs.clone()));
            listeners.sockets.push((socket, task.abort_handle()));
        }
        Ok(listeners)
    }

    /// Brings keys and TTLs up to date.
    pub(super) fn configure(&mut self, config: &SpeakerConfig) -> Result<(), Error> {
        self.configured = keys_of(config);
        let interfaces = config.groups.iter().filter_map(|group| match &group.members {
            Members::Range(_) => None,
            Members::Interface(name) => Some((name.clone(), group.template.key()?)),
        });
        self.by_interface = interfaces.collect();
        self.set_keys()?;
        self.secure(config)
    }

    /// Takes the key of an interface for the router that was found there.
    pub(super) fn allow(&mut self, interface: &str, peer: IpAddr) -> Result<(), Error> {
        self.found.insert(interface.to_owned(), peer);
        self.set_keys()
    }

    /// The keys that the sockets should have.
    fn wanted(&self) -> BTreeMap<Prefix, Key> {
        let found = self.found.iter().filter_map(|(interface, peer)| {
            Some((Prefix::host(*peer), self.by_interface.get(interface)?.clone()))
        });
        // A router with a section of its own has the key that is there.
        let configured = self.configured.iter().map(|(peers, key)| (*peers, key.clone()));
        found.chain(configured).collect()
    }

    fn set_keys(&mut self) -> Result<(), Error> {
        let wanted = self.wanted();
        let old = std::mem::take(&mut self.keys);
        for (peers, key) in old.iter().filter(|(peers, _)| !wanted.contains_key(peers)) {
            self.set_key(peers, Some(key), None)?;
        }
        for (peers, key) in &wanted {
            if old.get(peers) != Some(key) {
                self.set_key(peers, old.get(peers), Some(key))?;
            }
        }
        self.keys = wanted;
        Ok(())
    }

    /// RFC 5082 §3: also the SYN-ACK has the TTL 255. Segments of a handshake can be refused only if all peers are close,
    /// because the socket is theirs together.
    fn secure(&self, config: &SpeakerConfig) -> Result<(), Error> {
        let templates = config.groups.iter().map(|group| &group.template);
        let hops: Vec<Option<u8>> =
            config.peers.iter().chain(templates).map(|peer| peer.ttl_security).collect();
        let furthest = hops.iter().copied().collect::<Option<Vec<u8>>>();
        let furthest = furthest.and_then(|hops| hops.into_iter().max());
        let any = hops.iter().any(Option::is_some);
        for (socket, _) in &self.sockets {
            let Ok(address) = socket.local_addr() else { continue };
            let (socket, is_ipv4) = (socket.as_fd(), address.is_ipv4());
            let result = match furthest {
                Some(hops) => socket_option::set_ttl_security(socket, is_ipv4, hops),
                None if any => socket_option::unset_ttl_security(socket, is_ipv4)
                    .and_then(|()| socket_option::set_ttl(socket, is_ipv4, 255)),
                None => socket_option::unset_ttl_security(socket, is_ipv4),
            };
            result.map_err(|source| Error::Listen { address, source })?;
        }
        Ok(())
    }

    fn set_key(&self, peers: &Prefix, old: Option<&Key>, new: Option<&Key>) -> Result<(), Error> {
        for (socket, _) in &self.sockets {
            let same_family =
                socket.local_addr().is_ok_and(|local| local.is_ipv4() == peers.address().is_ipv4());
            if same_family {
                replace_key(socket.as_fd(), peers, old, new)?;
            }
        }
        Ok(())
    }
}

/// Lists the keys that listening sockets have before the first SYN.
fn keys_of(config: &SpeakerConfig) -> BTreeMap<Prefix, Key> {
    let named = config.peers.iter().map(|peer| (Prefix::host(peer.address), peer));
    let ranges = config.groups.iter().filter_map(|group| match group.members {
        Members::Range(prefix) => Some((prefix, &group.template)),
        Members::Interface(_) => None,
    });
    let keyed = named.chain(ranges).filter_map(|(peers, config)| Some((peers, config.key()?)));
    keyed.collect()
}

/// Says whether the kernel takes the keys of a configuration beside each other: they are set on sockets that are thrown away.
pub(super) fn try_keys(config: &SpeakerConfig) -> Result<(), Error> {
    let keys = keys_of(config);
    for is_ipv4 in [true, false] {
        let mut own =
            keys.iter().filter(|(peers, _)| peers.address().is_ipv4() == is_ipv4).peekable();
        if own.peek().is_none() {
            continue;
        }
        let socket = socket_option::tcp_socket(is_ipv4).map_err(Error::Socket)?;
        own.try_for_each(|(peers, key)| replace_key(socket.as_fd(), peers, None, Some(key)))?;
    }
    Ok(())
}

/// A new password takes the place of the old one; keys of TCP-AO are several, and exclude a password.
fn replace_key(
    socket: BorrowedFd<'_>,
    peers: &Prefix,
    old: Option<&Key>,
    new: Option<&Key>,
) -> Result<(), Error> {
    let peer = || peers.to_string();
    let md5 = |password: Option<&str>| {
        socket_option::set_password(socket, peers, password)
            .map_err(|source| Error::Password { peer: peer(), source })
    };
    match (old, new) {
        (Some(Key::Md5(_)), Some(Key::Md5(_))) | (None, _) => (),
        (Some(Key::Md5(_)), _) => md5(None)?,
        (Some(Key::Ao(keys)), _) => {
            for key in keys {
                tcp_ao::remove(socket, peers, key)
                    .map_err(|source| Error::TcpAo { peer: peer(), source })?;
            }
        }
    }
    match new {
        None => Ok(()),
        Some(Key::Md5(password)) => md5(Some(password)),
        Some(Key::Ao(keys)) => keys.iter().try_for_each(|key| {
            tcp_ao::add(socket, peers, key, Use::Accept)
                .map_err(|source| Error::TcpAo { peer: peer(), source })
        }),
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.sockets.iter().for_each(|(_, task)| task.abort());
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        socket_option::set_ipv6_only(socket.as_fd())?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Ends with the listener or the speaker. Cancel-safe: a connection is either passed on or still in the backlog.
async fn accept(socket: Arc<TcpListener>, inputs: mpsc::Sender<Input>) {
    loop {
        match socket.accept().await {
            Ok((stream, remote)) => {
                if inputs.send(Input::Accepted(stream, remote)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: do not spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Asn, PeerConfig, PeerGroup, RouterId, config::AcceptedAs};

    fn config(password: &str) -> SpeakerConfig {
        let mut config = SpeakerConfig::new(Asn(1), RouterId(1));
        let mut template = PeerConfig::new("eth0", IpAddr::from([0_u16; 8]), Asn(0));
        template.password = Some(password.into());
        config.groups.push(PeerGroup {
            name: "eth0".into(),
            members: Members::Interface("eth0".into()),
            asns: AcceptedAs::External,
            limit: 1,
            template,
        });
        config
    }

    /// Its next advertisement may be minutes away.
    #[test]
    fn a_new_configuration_keeps_the_key_of_a_router_that_was_found() {
        let mut listeners = Listeners::default();
        let router: IpAddr = "fe80::1".parse().unwrap();
        let keys = |listeners: &Listeners| {
            let keys = listeners.keys.iter();
            keys.map(|(peers, key)| (peers.address(), key.clone())).collect::<Vec<_>>()
        };
        let md5 = |password: &str| Key::Md5(password.to_owned());
        listeners.configure(&config("one")).unwrap();
        assert_eq!(keys(&listeners), []);
        listeners.allow("eth0", router).unwrap();
        listeners.allow("eth1", "fe80::9".parse().unwrap()).unwrap();
        assert_eq!(keys(&listeners), [(router, md5("one"))]);
        listeners.configure(&config("one")).unwrap();
        assert_eq!(keys(&listeners), [(router, md5("one"))]);
        listeners.configure(&config("two")).unwrap();
        assert_eq!(keys(&listeners), [(router, md5("two"))]);
        // Another router there.
        let other: IpAddr = "fe80::2".parse().unwrap();
        listeners.allow("eth0", other).unwrap();
        assert_eq!(keys(&listeners), [(other, md5("two"))]);
        listeners.configure(&SpeakerConfig::new(Asn(1), RouterId(1))).unwrap();
        assert_eq!(keys(&listeners), []);
    }
}
