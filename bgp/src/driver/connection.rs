//! A TCP connection: how it is made, what is read and written when the kernel is ready, how it ends.
//!
//! Reading and writing happen where the speaker is, straight from and to its buffers. Two tasks only wait for the
//! kernel, so a connection costs no buffer while it is silent and cannot run ahead of the speaker.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, Shutdown, recv, shutdown},
};
use tokio::{
    io::Interest,
    net::{TcpSocket, TcpStream},
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
};

use super::{
    socket_option,
    tcp_ao::{self, Use},
};
use crate::{
    PeerConfig, Prefix,
    config::Key,
    speaker::{ConnectRequest, ConnectionId},
};

/// Messages given to the kernel at once.
const SLICES: usize = 64;
/// How long the last message may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the peer may take to close after it.
const LINGER: Duration = Duration::from_millis(500);

/// What the tasks tell the speaker.
#[derive(Debug)]
pub(super) enum Input {
    Accepted(TcpStream, SocketAddr),
    Connected(ConnectionId, TcpStream),
    Readable(ConnectionId),
    Writable(ConnectionId),
    Closed(ConnectionId, String),
}

/// The speaker's end of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Those that wait: for the connection, then for its readiness. They end with this.
    tasks: Vec<AbortHandle>,
    /// None while connecting.
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    stream: Arc<TcpStream>,
    /// What the kernel did not take yet.
    pending: VecDeque<Bytes>,
    /// A task waits for room.
    blocked: bool,
    /// Why nothing can be written any more.
    failed: Option<String>,
    watch_readable: Arc<Notify>,
    watch_writable: Arc<Notify>,
}

impl Link {
    /// There is nothing left to read. A write that failed knows more about why.
    fn ended(&self) -> Read {
        let usual = || "peer closed the connection".to_owned();
        Read::Closed(self.failed.clone().unwrap_or_else(usual))
    }
}

/// What a read brought.
#[derive(Debug)]
pub(super) enum Read {
    Bytes(usize),
    Nothing,
    Closed(String),
}

/// How far writing came.
#[derive(Debug)]
pub(super) enum Written {
    /// There is room for more.
    All,
    /// The task will tell when there is.
    Blocked,
    /// No more. The peer's last words may still be there to be read, so the end comes with [`Read::Closed`].
    Failed,
}

impl Connection {
    /// One that is being made by a task.
    pub(super) fn connecting(task: AbortHandle) -> Self {
        Self { tasks: vec![task], link: None }
    }

    /// Starts to wait for the readiness of a connection that is up.
    pub(super) fn start(
        connection: ConnectionId,
        stream: TcpStream,
        inputs: &mpsc::Sender<Input>,
    ) -> Self {
        // Keepalives must not wait for acknowledgements; batches are made above.
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let (watch_readable, watch_writable) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        watch_readable.notify_one();
        let watches = [
            (Interest::READABLE, Arc::clone(&watch_readable)),
            (Interest::WRITABLE, Arc::clone(&watch_writable)),
        ];
        let tasks = watches.map(|(interest, wanted)| {
            let task = watch(connection, Arc::clone(&stream), interest, wanted, inputs.clone());
            tokio::spawn(task).abort_handle()
        });
        let pending = VecDeque::new();
        let link =
            Link { stream, pending, blocked: false, failed: None, watch_readable, watch_writable };
        Self { tasks: tasks.into(), link: Some(link) }
    }

    /// Reads once into the buffer, and waits for more.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Read {
        let Some(link) = &self.link else { return Read::Nothing };
        let mut count = None;
        let wanted = buffer.len();
        let result = link.stream.try_io(Interest::READABLE, || {
            let read = recv(link.stream.as_raw_fd(), buffer, MsgFlags::empty())?;
            count = Some(read);
            // Less than asked for: there is no more, so wait for the kernel without trying again.
            if read < wanted && read > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        let outcome = match (count, result) {
            (Some(0), _) => return link.ended(),
            (Some(count), _) => Read::Bytes(count),
            (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                return Read::Closed(format!("connection failed: {error}"));
            }
            (None, _) => Read::Nothing,
        };
        link.watch_readable.notify_one();
        outcome
    }

    /// Reads once what lies in the kernel, whether or not its readiness was noticed yet.
    pub(super) fn read_now(&self, buffer: &mut [u8]) -> Read {
        let Some(link) = &self.link else { return Read::Nothing };
        match recv(link.stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => link.ended(),
            Ok(count) => Read::Bytes(count),
            Err(Errno::EAGAIN | Errno::EINTR) => Read::Nothing,
            Err(error) => Read::Closed(format!("connection failed: {error}")),
        }
    }

    /// Says whether there is room for more.
    pub(super) fn is_ready(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !link.blocked)
    }

    /// There is room again.
    pub(super) const fn unblock(&mut self) {
        if let Some(link) = &mut self.link {
            link.blocked = false;
        }
    }

    /// Comes back to this connection after others had their turn.
    pub(super) fn yield_now(&mut self) {
        if let Some(link) = &mut self.link {
            link.blocked = true;
            link.watch_writable.notify_one();
        }
    }

    /// Writes what is pending, and these messages.
    pub(super) fn write(&mut self, messages: Vec<Bytes>) -> Written {
        let Some(link) = &mut self.link else { return Written::Blocked };
        if link.failed.is_some() {
            return Written::Failed;
        }
        link.pending.extend(messages);
        while !link.pending.is_empty() {
            match try_write(&link.stream, &mut link.pending) {
                Ok(()) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    link.blocked = true;
                    link.watch_writable.notify_one();
                    return Written::Blocked;
                }
                Err(error) => {
                    link.failed = Some(format!("connection failed: {error}"));
                    link.pending.clear();
                    return Written::Failed;
                }
            }
        }
        Written::All
    }

    /// Ends; a task of its own delivers the last messages.
    pub(super) fn close(mut self, last: Vec<Bytes>, farewells: &mut JoinSet<()>) {
        let Some(mut link) = self.link.take() else { return };
        link.pending.extend(last);
        if !link.pending.is_empty() {
            farewells.spawn(say_farewell(link.stream, link.pending));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Each time it is wanted, waits for the kernel and says so. Ends with the connection; cancel-safe: it only waits.
async fn watch(
    connection: ConnectionId,
    stream: Arc<TcpStream>,
    interest: Interest,
    wanted: Arc<Notify>,
    inputs: mpsc::Sender<Input>,
) {
    loop {
        wanted.notified().await;
        let input = match stream.ready(interest).await {
            Ok(_) if interest.is_readable() => Input::Readable(connection),
            Ok(_) => Input::Writable(connection),
            Err(error) => Input::Closed(connection, format!("connection failed: {error}")),
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

/// Gives one batch to the kernel.
fn try_write(stream: &TcpStream, pending: &mut VecDeque<Bytes>) -> io::Result<()> {
    let slices: Vec<IoSlice<'_>> =
        pending.iter().take(SLICES).map(|bytes| IoSlice::new(bytes)).collect();
    let mut written = stream.try_write_vectored(&slices)?;
    if written == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    while let Some(first) = pending.front_mut() {
        if first.len() > written {
            first.advance(written);
            break;
        }
        written = written.saturating_sub(first.len());
        pending.pop_front();
    }
    Ok(())
}

/// Delivers the last messages. Closing with unread bytes would make the kernel throw them away: the peer closes first,
/// if it is quick.
async fn say_farewell(stream: Arc<TcpStream>, mut pending: VecDeque<Bytes>) {
    let deliver = async {
        while !pending.is_empty() {
            stream.writable().await?;
            match try_write(&stream, &mut pending) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => (),
            }
        }
        shutdown(stream.as_raw_fd(), Shutdown::Write).map_err(io::Error::from)
    };
    let delivered = tokio::time::timeout(FAREWELL, deliver).await;
    if delivered.is_err() {
        // The kernel would try on as long as the peer says that it has no room (RFC 9687 §1).
        let _ = stream.set_zero_linger();
    }
    if !matches!(delivered, Ok(Ok(()))) {
        return;
    }
    let drain = async {
        let mut buffer = [0; 4096];
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Ok(0) | Err(_) => return,
                Ok(_) => (),
            }
        }
    };
    // A peer that keeps its side open learns of our end all the same.
    let _ = tokio::time::timeout(LINGER, drain).await;
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
    let peer = Prefix::host(remote.ip());
    match config.key() {
        None => (),
        Some(Key::Md5(password)) => {
            socket_option::set_password(socket.as_fd(), &peer, Some(&password))?;
        }
        Some(Key::Ao(keys)) => {
            for (index, key) in keys.iter().enumerate() {
                let purpose = if index == 0 { Use::First } else { Use::Accept };
                tcp_ao::add(socket.as_fd(), &peer, key, purpose)?;
            }
        }
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

/// Undoes the mapping of IPv4 addresses on IPv6 sockets.
pub(super) fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
