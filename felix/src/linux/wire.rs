//! Netlink messages as bytes: writing with lengths patched afterwards, reading without panics.

use super::uapi::{INET, SUBSYSTEM};

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;

/// Writes netlink messages one after another into one buffer.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) buf: Vec<u8>,
    message: usize,
}

/// Where an open attribute begins.
#[must_use]
pub(super) struct Open(usize);

impl Writer {
    /// Starts a message with its netfilter header.
    pub(super) fn begin(&mut self, kind: u16, flags: u16, seq: u32, family: u8, resource: u16) {
        self.message = self.buf.len();
        self.buf.extend_from_slice(&0_u32.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(&flags.to_ne_bytes());
        self.buf.extend_from_slice(&seq.to_ne_bytes());
        self.buf.extend_from_slice(&0_u32.to_ne_bytes());
        self.buf.extend_from_slice(&[family, 0]);
        self.buf.extend_from_slice(&resource.to_be_bytes());
    }

    /// Starts an nf_tables message for the inet family.
    pub(super) fn begin_nft(&mut self, kind: u8, flags: u16, seq: u32) {
        self.begin((SUBSYSTEM << 8) | u16::from(kind), flags, seq, INET, 0);
    }

    /// Ends the message started last.
    pub(super) fn end(&mut self) {
        let len = u32::try_from(self.buf.len() - self.message).unwrap_or(u32::MAX);
        self.patch(self.message, &len.to_ne_bytes());
    }

    /// Sets flags of the message started last.
    pub(super) fn add_flags(&mut self, flags: u16) {
        let at = self.message + 6;
        if let Some([low, high]) = self.buf.get(at..at + 2) {
            let merged = u16::from_ne_bytes([*low, *high]) | flags;
            self.patch(at, &merged.to_ne_bytes());
        }
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(target) = self.buf.get_mut(at..at + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }

    /// An attribute with these bytes.
    pub(super) fn attr(&mut self, kind: u16, payload: &[u8]) {
        let len = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(payload);
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }

    /// An attribute with a NUL-terminated string.
    pub(super) fn string(&mut self, kind: u16, text: &str) {
        let len = u16::try_from(text.len() + 5).unwrap_or(u16::MAX);
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(text.as_bytes());
        self.buf.push(0);
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }

    /// An attribute with a 32-bit number in network byte order, as nf_tables wants them.
    pub(super) fn be32(&mut self, kind: u16, number: u32) {
        self.attr(kind, &number.to_be_bytes());
    }

    /// Opens an attribute that holds attributes.
    pub(super) fn open(&mut self, kind: u16) -> Open {
        let at = self.buf.len();
        self.buf.extend_from_slice(&0_u16.to_ne_bytes());
        self.buf.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        Open(at)
    }

    /// Closes an attribute.
    pub(super) fn close(&mut self, open: Open) {
        let Open(at) = open;
        let len = u16::try_from(self.buf.len() - at).unwrap_or(u16::MAX);
        self.patch(at, &len.to_ne_bytes());
    }

    /// Octets written since an attribute was opened.
    pub(super) fn len_since(&self, open: &Open) -> usize {
        self.buf.len() - open.0
    }
}

/// One received netlink message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    /// Everything after the netlink header.
    pub(super) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The nf_tables message type, if it is one.
    pub(super) fn nft(&self) -> Option<u8> {
        let [kind, subsystem] = self.kind.to_le_bytes();
        (u16::from(subsystem) == SUBSYSTEM).then_some(kind)
    }

    /// Family of the netfilter header.
    pub(super) fn family(&self) -> Option<u8> {
        self.body.first().copied()
    }

    /// Attributes after the netfilter header.
    pub(super) fn attrs(&self) -> Attrs<'a> {
        Attrs(self.body.get(4..).unwrap_or_default())
    }
}

/// Messages of one datagram.
#[derive(Clone, Debug)]
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let len = usize::try_from(u32::from_ne_bytes(fixed(self.0, 0)?)).ok()?;
        let whole = self.0.get(..len)?;
        let message = Message {
            kind: u16::from_ne_bytes(fixed(whole, 4)?),
            flags: u16::from_ne_bytes(fixed(whole, 6)?),
            seq: u32::from_ne_bytes(fixed(whole, 8)?),
            body: whole.get(HEADER..)?,
        };
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// Attributes: type and payload.
#[derive(Clone, Debug)]
pub(super) struct Attrs<'a>(pub(super) &'a [u8]);

impl<'a> Attrs<'a> {
    /// Payload of the first attribute of a type.
    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find(|(found, _)| *found == kind).map(|(_, payload)| payload)
    }

    /// Attributes inside the first attribute of a type.
    pub(super) fn nested(&self, kind: u16) -> Option<Self> {
        self.get(kind).map(Attrs)
    }

    /// A NUL-terminated string.
    pub(super) fn string(&self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
    }

    /// A 32-bit number in network byte order.
    pub(super) fn be32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(fixed(self.get(kind)?, 0)?))
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16::from_ne_bytes(fixed(self.0, 0)?));
        let kind = u16::from_ne_bytes(fixed(self.0, 2)?) & TYPE_MASK;
        let payload = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// A fixed number of bytes at an offset.
pub(super) fn fixed<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
