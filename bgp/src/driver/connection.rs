//! The two tasks of a TCP connection, and how one is made.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::socket_option;
use crate::{
    PeerConfig, Prefix,
    speaker::{ConnectRequest, ConnectionId},
};

/// Bytes taken from the kernel at once.
const READ: usize = 128 << 10;
/// Messages given to the kernel at once.
const SLICES: usize = 64;
/// How long the last message may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the tasks tell the speaker.
#[derive(Debug)]
pub(super) enum Input {
    Accepted(TcpStream, SocketAddr),
    Connected(ConnectionId, TcpStream),
    Received(ConnectionId, Bytes),
    Written(ConnectionId),
    Closed(ConnectionId, String),
}

/// The speaker's end of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The task that connects, then the one that reads.
    pub(super) reader: AbortHandle,
    /// None while connecting.
    pub(super) writer: Option<mpsc::Sender<Vec<Bytes>>>,
    /// The writer has something that it has not confirmed yet.
    pub(super) busy: bool,
}

/// Connects and reports the outcome.
pub(super) async fn connect(
    request: ConnectRequest,
    config: PeerConfig,
    inputs: mpsc::Sender<Input>,
) {
    let connection = request.connection;
    let input = match try_connect(&request, &config).await {
        Ok(stream) => Input::Connected(connection, stream),
        Err(error) => Input::Closed(connection, explain(&error, &request)),
    };
    // The speaker is gone otherwise.
    let _ = inputs.send(input).await;
}

fn explain(error: &io::Error, request: &ConnectRequest) -> String {
    let remote = request.remote;
    match (error.kind(), request.local) {
        (io::ErrorKind::ConnectionRefused, _) => format!("nothing listens on {remote}"),
        (io::ErrorKind::HostUnreachable, _) => {
            format!("{} is unreachable: no neighbour answers for it", remote.ip())
        }
        (io::ErrorKind::NetworkUnreachable, _) => format!("no route to {}", remote.ip()),
        (io::ErrorKind::TimedOut, _) => format!("{remote} does not answer"),
        (io::ErrorKind::AddrNotAvailable, Some(local)) => {
            format!("cannot connect from {local}: this machine does not have the address")
        }
        _ => format!("cannot connect to {remote}: {error}"),
    }
}

async fn try_connect(request: &ConnectRequest, config: &PeerConfig) -> io::Result<TcpStream> {
    let remote = with_scope(request.remote, config);
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    secure(socket.as_fd(), config)?;
    if let Some(password) = &config.password {
        let peer = Prefix::host(remote.ip());
        socket_option::set_password(socket.as_fd(), &peer, Some(password))?;
    }
    if let Some(local) = request.local {
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(local, 0))?;
    }
    socket.connect(remote).await
}

/// A link-local peer is on an interface.
fn with_scope(remote: SocketAddr, config: &PeerConfig) -> SocketAddr {
    match (remote, &config.interface) {
        (SocketAddr::V6(mut remote), Some(interface)) if remote.ip().is_unicast_link_local() => {
            remote.set_scope_id(nix::net::if_::if_nametoindex(interface.as_str()).unwrap_or(0));
            SocketAddr::V6(remote)
        }
        _ => remote,
    }
}

/// Returns the interface that a link-local address is on.
pub(super) fn interface_of(remote: &SocketAddr) -> Option<String> {
    let SocketAddr::V6(remote) = remote else { return None };
    if !remote.ip().is_unicast_link_local() {
        return None;
    }
    let name = nix::net::if_::if_indextoname(remote.scope_id()).ok()?;
    name.into_string().ok()
}

/// Sets TTLs as the peer's configuration asks.
pub(super) fn secure(socket: std::os::fd::BorrowedFd<'_>, config: &PeerConfig) -> io::Result<()> {
    let is_ipv4 = config.address.is_ipv4();
    match (config.ttl_security, config.ttl) {
        (Some(hops), _) => socket_option::set_ttl_security(socket, is_ipv4, hops),
        (None, Some(ttl)) => socket_option::set_ttl(socket, is_ipv4, ttl),
        (None, None) => Ok(()),
    }
}

/// Starts the tasks of an established TCP connection.
pub(super) fn start(
    connection: ConnectionId,
    stream: TcpStream,
    inputs: &mpsc::Sender<Input>,
    writers: &mut JoinSet<()>,
) -> Connection {
    // Keepalives must not wait for acknowledgements; batches are made above.
    let _ = stream.set_nodelay(true);
    let (read_half, write_half) = stream.into_split();
    // One batch in flight and the farewell.
    let (writer, batches) = mpsc::channel(2);
    writers.spawn(write(connection, write_half, batches, inputs.clone()));
    let reader = tokio::spawn(read(connection, read_half, inputs.clone())).abort_handle();
    Connection { reader, writer: Some(writer), busy: false }
}

/// Ends with the connection. Cancel-safe: aborted only when nobody wants the bytes any more.
async fn read(connection: ConnectionId, mut half: OwnedReadHalf, inputs: mpsc::Sender<Input>) {
    let mut buffer = BytesMut::new();
    let reason = loop {
        buffer.reserve(READ);
        match half.read_buf(&mut buffer).await {
            Ok(0) => break "peer closed the connection".to_owned(),
            Ok(_) => {
                if inputs.send(Input::Received(connection, buffer.split().freeze())).await.is_err()
                {
                    return;
                }
            }
            Err(error) => break format!("connection failed: {error}"),
        }
    };
    let _ = inputs.send(Input::Closed(connection, reason)).await;
}

/// Writes batches until the sender is dropped, then closes.
async fn write(
    connection: ConnectionId,
    mut half: OwnedWriteHalf,
    mut batches: mpsc::Receiver<Vec<Bytes>>,
    inputs: mpsc::Sender<Input>,
) {
    while let Some(batch) = batches.recv().await {
        let last = batches.is_closed();
        let written = if last {
            tokio::time::timeout(FAREWELL, write_all(&mut half, batch)).await.unwrap_or(Ok(()))
        } else {
            write_all(&mut half, batch).await
        };
        let input = match written {
            Ok(()) => Input::Written(connection),
            Err(error) => Input::Closed(connection, format!("connection failed: {error}")),
        };
        let failed = matches!(input, Input::Closed(..));
        if !last {
            let _ = inputs.send(input).await;
        }
        if failed {
            return;
        }
    }
    let _ = half.shutdown().await;
}

async fn write_all(half: &mut OwnedWriteHalf, batch: Vec<Bytes>) -> io::Result<()> {
    let mut left: VecDeque<Bytes> = batch.into();
    while !left.is_empty() {
        let slices: Vec<IoSlice<'_>> =
            left.iter().take(SLICES).map(|bytes| IoSlice::new(bytes)).collect();
        let mut written = half.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = left.front_mut() {
            if first.len() > written {
                first.advance(written);
                break;
            }
            written = written.saturating_sub(first.len());
            left.pop_front();
        }
    }
    Ok(())
}

/// Undoes the mapping of IPv4 addresses on IPv6 sockets.
pub(super) fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
