//! Listening sockets, with the passwords of all peers on them before the first SYN.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
    task::AbortHandle,
};

use super::{Error, connection::Input, socket_option};
use crate::SpeakerConfig;

/// Hundreds of nodes connect at once after a restart.
const BACKLOG: u32 = 1024;

/// All listening sockets.
pub(super) struct Listeners {
    sockets: Vec<(Arc<TcpListener>, AbortHandle)>,
    passwords: BTreeMap<IpAddr, String>,
}

impl Listeners {
    pub(super) fn open(
        addresses: &[SocketAddr],
        inputs: &mpsc::Sender<Input>,
    ) -> Result<Self, Error> {
        let mut sockets = Vec::new();
        for address in addresses {
            let socket =
                listen(*address).map_err(|source| Error::Listen { address: *address, source })?;
            let socket = Arc::new(socket);
            let task = tokio::spawn(accept(Arc::clone(&socket), inputs.clone()));
            sockets.push((socket, task.abort_handle()));
        }
        Ok(Self { sockets, passwords: BTreeMap::new() })
    }

    /// Brings passwords and TTLs up to date.
    pub(super) fn configure(&mut self, config: &SpeakerConfig) -> Result<(), Error> {
        let wanted: BTreeMap<IpAddr, String> = config
            .peers
            .iter()
            .filter_map(|peer| Some((peer.address, peer.password.clone()?)))
            .collect();
        let gone: Vec<IpAddr> =
            self.passwords.keys().filter(|peer| !wanted.contains_key(peer)).copied().collect();
        for peer in gone {
            self.set_password(peer, None)?;
        }
        for (peer, password) in &wanted {
            if self.passwords.get(peer) != Some(password) {
                self.set_password(*peer, Some(password))?;
            }
        }
        self.passwords = wanted;
        let secured = config.peers.iter().any(|peer| peer.ttl_security.is_some());
        for (socket, _) in &self.sockets {
            // RFC 5082 §3: the SYN-ACK must have it as well.
            if secured && let Ok(address) = socket.local_addr() {
                let result = socket_option::set_ttl(socket.as_fd(), address.is_ipv4(), 255);
                result.map_err(|source| Error::Listen { address, source })?;
            }
        }
        Ok(())
    }

    fn set_password(&self, peer: IpAddr, password: Option<&str>) -> Result<(), Error> {
        for (socket, _) in &self.sockets {
            let same_family =
                socket.local_addr().is_ok_and(|local| local.is_ipv4() == peer.is_ipv4());
            if same_family {
                socket_option::set_password(socket.as_fd(), peer, password)
                    .map_err(|source| Error::Password { peer: peer.to_string(), source })?;
            }
        }
        Ok(())
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
