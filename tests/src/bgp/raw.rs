//! A peer made of bytes: it says exactly what a test wants and shows exactly what comes back.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// A TCP connection to a speaker.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub body: Vec<u8>,
}

pub const OPEN: u8 = 1;
pub const UPDATE: u8 = 2;
pub const NOTIFICATION: u8 = 3;
pub const KEEPALIVE: u8 = 4;

/// Returns the bytes that a text in hexadecimal with spaces stands for.
#[must_use]
pub fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    assert!(digits.len().is_multiple_of(2), "an odd number of digits: {text}");
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Returns a message with its header.
#[must_use]
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

/// Returns an OPEN with one optional parameter that holds these capabilities.
#[must_use]
pub fn open(asn: u16, hold_time: u16, id: Ipv4Addr, capabilities: &[u8]) -> Vec<u8> {
    let mut body = vec![4];
    body.extend(asn.to_be_bytes());
    body.extend(hold_time.to_be_bytes());
    body.extend(id.octets());
    match u8::try_from(capabilities.len()).unwrap() {
        0 => body.push(0),
        length => {
            body.extend([length + 2, 2, length]);
            body.extend(capabilities);
        }
    }
    message(OPEN, &body)
}

/// Returns an UPDATE of withdrawn prefixes, attributes and announced prefixes.
#[must_use]
pub fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in [withdrawn, attributes] {
        body.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        body.extend(part);
    }
    body.extend(nlri);
    message(UPDATE, &body)
}

impl Raw {
    /// Connects from one address to port 179 of another; run it in the right namespace.
    pub fn connect(from: IpAddr, to: IpAddr) -> std::io::Result<Self> {
        use nix::sys::socket::{
            AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket,
        };
        use std::os::fd::AsRawFd as _;
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to, 179)))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Takes over a connection that somebody else opened.
    #[must_use]
    pub fn from_stream(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream }
    }

    /// Sends bytes; what happens to them is seen by what comes back.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Returns the next message, or nothing when the connection was closed.
    pub fn receive(&mut self) -> Option<Message> {
        let mut header = [0; 19];
        self.stream.read_exact(&mut header).ok()?;
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length.checked_sub(19).expect("a length of at least 19")];
        self.stream.read_exact(&mut body).ok()?;
        Some(Message { kind: header[18], body })
    }

    /// Returns the next message of a kind; others are skipped.
    pub fn receive_kind(&mut self, kind: u8) -> Option<Message> {
        std::iter::from_fn(|| self.receive()).find(|message| message.kind == kind)
    }

    /// Sends an OPEN, waits for the other one, and exchanges keepalives.
    #[must_use]
    pub fn establish(mut self, open: &[u8]) -> Self {
        self.send(open);
        assert!(self.receive_kind(OPEN).is_some(), "no OPEN came");
        self.send(&message(KEEPALIVE, &[]));
        assert!(self.receive_kind(KEEPALIVE).is_some(), "no KEEPALIVE came");
        self
    }

    /// Waits for the NOTIFICATION that ends the session.
    pub fn receive_notification(&mut self) -> Option<Message> {
        self.receive_kind(NOTIFICATION)
    }

    /// Makes waiting for messages end after this time.
    pub fn patience(&self, time: Duration) {
        self.stream.set_read_timeout(Some(time)).unwrap();
    }
}
