//! One rtnetlink connection: requests, dumps and batches. Knows framing, sequence numbers and ACKs, nothing else.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use crate::{Error, NetNs, Result};

/// Kernel dumps arrive in datagrams of at most this size (`NLMSG_GOODSIZE` grows to 32 KiB with the reader's buffer).
const DATAGRAM: usize = 64 * 1024;
/// Requests in flight: their ACKs must all fit into the default receive buffer (212 992 octets, about 1 KiB each).
const BATCH_MESSAGES: usize = 100;
const BATCH_OCTETS: usize = 32 * 1024;
/// `NLMSGERR_ATTR_MSG`: the text of an extended ACK.
const ERROR_TEXT: u16 = 1;
/// How often a dump is repeated when the table changed under it.
const DUMP_ATTEMPTS: usize = 8;

/// A blocking rtnetlink connection into one network namespace.
#[derive(Debug)]
pub struct Netlink {
    connection: Mutex<Connection>,
    port: u32,
}

struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// One message of the kernel, still encoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawMessage<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Port of the socket whose request caused this, 0 for the kernel itself.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// The kernel's no to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    pub(crate) note: String,
}

impl Refusal {
    pub(crate) fn during(self, operation: impl Into<String>) -> Error {
        Error::Refused { operation: operation.into(), errno: self.errno, note: self.note }
    }
}

impl Netlink {
    /// Connects to the network namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let failed = |operation| move |source| Error::Socket { operation, source };
        let (socket, address) = bound_socket()?;
        // Older kernels lack these; without them errors are terser and dumps are filtered here only.
        for option in [
            socket.set_ext_ack(true),
            socket.set_cap_ack(true),
            socket.set_netlink_get_strict_chk(true),
        ] {
            if let Err(error) = option {
                tracing::debug!(%error, "netlink socket option not available");
            }
        }
        socket.set_rx_buf_sz(1_i32 << 20).map_err(failed("set the receive buffer"))?;
        let connection = Connection { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM) };
        Ok(Self { connection: Mutex::new(connection), port: address.port_number() })
    }

    /// Connects to another network namespace; the calling thread stays where it is.
    pub fn open_in(netns: &NetNs) -> Result<Self> {
        netns.run(Self::open)?
    }

    /// Returns the port number that the kernel puts on notifications caused by this connection.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends one request and waits for its ACK.
    pub(crate) fn execute(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        operation: impl FnOnce() -> String,
    ) -> Result<()> {
        self.lock().execute(message, flags, |_| ())?.map_err(|refusal| refusal.during(operation()))
    }

    /// Sends one request, hands every answer to `each` and waits for the ACK.
    pub(crate) fn query(
        &self,
        message: RouteNetlinkMessage,
        operation: &str,
        each: impl FnMut(RawMessage<'_>),
    ) -> Result<()> {
        self.lock().execute(message, 0, each)?.map_err(|refusal| refusal.during(operation))
    }

    /// Dumps a kernel table; `T`s of a pass that was interrupted by a change are thrown away.
    pub(crate) fn dump<T>(
        &self,
        message: &RouteNetlinkMessage,
        operation: &str,
        mut decode: impl FnMut(RawMessage<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut connection = self.lock();
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let mut interrupted = false;
            connection
                .dump(message.clone(), |raw| {
                    interrupted |= raw.flags & NLM_F_DUMP_INTR != 0;
                    found.extend(decode(raw));
                })?
                .map_err(|refusal| refusal.during(operation))?;
            if !interrupted {
                return Ok(found);
            }
        }
        Err(Refusal { errno: Errno::EINTR, note: " (table kept changing)".into() }
            .during(operation))
    }

    /// Sends many requests with few system calls; the answers keep the order of the requests.
    pub(crate) fn batch(
        &self,
        requests: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Result<Vec<std::result::Result<(), Refusal>>> {
        self.lock().batch(requests)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        // A panic in a callback leaves old answers in the socket; their sequence numbers give them away.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a NETLINK_ROUTE socket with a port chosen by the kernel.
pub(crate) fn bound_socket() -> Result<(Socket, SocketAddr)> {
    let failed = |operation| move |source| Error::Socket { operation, source };
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open"))?;
    let address = socket.bind_auto().map_err(failed("bind"))?;
    Ok((socket, address))
}

impl Connection {
    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    fn execute(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RawMessage<'_>),
    ) -> Result<std::result::Result<(), Refusal>> {
        let sequence = self.next_sequence();
        let mut request = Vec::new();
        encode(message, NLM_F_REQUEST | NLM_F_ACK | flags, sequence, &mut request);
        self.send(&request)?;
        let mut outcome = None;
        while outcome.is_none() {
            self.receive(|raw| match raw.kind {
                _ if raw.sequence != sequence => (),
                NLMSG_ERROR => outcome = Some(acknowledgement(raw.payload)),
                _ => each(raw),
            })?;
        }
        Ok(outcome.unwrap_or(Ok(())))
    }

    fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        mut each: impl FnMut(RawMessage<'_>),
    ) -> Result<std::result::Result<(), Refusal>> {
        let sequence = self.next_sequence();
        let mut request = Vec::new();
        encode(message, NLM_F_REQUEST | NLM_F_DUMP, sequence, &mut request);
        self.send(&request)?;
        let mut outcome = None;
        while outcome.is_none() {
            self.receive(|raw| match raw.kind {
                _ if raw.sequence != sequence => (),
                // The payload of DONE is an error code too.
                NLMSG_ERROR | NLMSG_DONE => outcome = Some(acknowledgement(raw.payload)),
                _ => each(raw),
            })?;
        }
        Ok(outcome.unwrap_or(Ok(())))
    }

    fn batch(
        &mut self,
        requests: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Result<Vec<std::result::Result<(), Refusal>>> {
        let mut outcomes = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let mut octets = Vec::with_capacity(BATCH_OCTETS);
            let mut waiting: BTreeMap<u32, usize> = BTreeMap::new();
            while waiting.len() < BATCH_MESSAGES && octets.len() < BATCH_OCTETS {
                let Some((message, flags)) = requests.next() else { break };
                let sequence = self.next_sequence();
                encode(message, NLM_F_REQUEST | NLM_F_ACK | flags, sequence, &mut octets);
                waiting.insert(sequence, outcomes.len());
                outcomes.push(Ok(()));
            }
            self.send(&octets)?;
            while !waiting.is_empty() {
                self.receive(|raw| {
                    if raw.kind == NLMSG_ERROR
                        && let Some(slot) = waiting.remove(&raw.sequence)
                        && let Some(outcome) = outcomes.get_mut(slot)
                    {
                        *outcome = acknowledgement(raw.payload);
                    }
                })?;
            }
        }
        Ok(outcomes)
    }

    fn send(&self, octets: &[u8]) -> Result<()> {
        let kernel = SocketAddr::new(0, 0);
        let failed = |source| Error::Socket { operation: "send", source };
        let sent = self.socket.send_to(octets, &kernel, 0).map_err(failed)?;
        if sent == octets.len() {
            return Ok(());
        }
        Err(failed(io::Error::from(io::ErrorKind::WriteZero)))
    }

    fn receive(&mut self, each: impl FnMut(RawMessage<'_>)) -> Result<()> {
        self.buffer.clear();
        let failed = |source| Error::Socket { operation: "receive", source };
        loop {
            match self.socket.recv_from(&mut self.buffer, 0) {
                Ok((_, sender)) if sender.port_number() != 0 => self.buffer.clear(),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(failed(error)),
            }
        }
        for_each_message(&self.buffer, each);
        Ok(())
    }
}

/// Walks over the messages of one datagram; a cut-off one at its end is ignored.
pub(crate) fn for_each_message(datagram: &[u8], mut each: impl FnMut(RawMessage<'_>)) {
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        each(RawMessage {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            port: message.port_number(),
            payload: message.payload(),
        });
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        let Some(next) = length.checked_next_multiple_of(4).and_then(|end| rest.get(end..)) else {
            break;
        };
        rest = next;
    }
}

/// Reads an ACK: an error code and, with extended ACKs, the capped request header and a text.
fn acknowledgement(payload: &[u8]) -> std::result::Result<(), Refusal> {
    const CAPPED_HEADER: usize = 16;
    let Some((code, rest)) = payload.split_first_chunk::<4>() else { return Ok(()) };
    let code = i32::from_ne_bytes(*code);
    if code == 0 {
        return Ok(());
    }
    let text =
        rest.get(CAPPED_HEADER..).into_iter().flat_map(NlasIterator::new).flatten().find_map(
            |attribute| {
                let text = attribute.value();
                (attribute.kind() == ERROR_TEXT)
                    .then(|| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
            },
        );
    let note = text.map(|text| format!(" ({text})")).unwrap_or_default();
    Err(Refusal { errno: Errno::from_raw(code.saturating_abs()), note })
}

fn encode(message: RouteNetlinkMessage, flags: u16, sequence: u32, into: &mut Vec<u8>) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = into.len();
    into.resize(start.saturating_add(message.buffer_len()).next_multiple_of(4), 0);
    if let Some(room) = into.get_mut(start..) {
        message.serialize(room);
    }
}
