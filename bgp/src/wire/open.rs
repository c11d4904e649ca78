//! OPEN: who the other side is and what it can do.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Capabilities, Kind, Notification, message,
    reader::{Reader, Truncated},
};
use crate::types::{Asn, RouterId};

const VERSION: u8 = 4;
const CAPABILITIES: u8 = 2;
/// Length and type that announce the extended form (RFC 9072).
const EXTENDED: u8 = 255;

/// An OPEN message (RFC 4271 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The speaker's AS: the four-octet one if announced.
    pub asn: Asn,
    /// Seconds; 0 means no timers, 1 and 2 do not exist.
    pub hold_time: u16,
    /// BGP identifier.
    pub router_id: RouterId,
    /// Capabilities.
    pub capabilities: Capabilities,
}

impl Open {
    /// Reads the body of an OPEN. Whether the values suit the configured peer is the session's question.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let malformed = |Truncated| Notification::new(2, 0, []);
        let mut reader = Reader::new(body);
        let version = reader.u8().map_err(malformed)?;
        if version != VERSION {
            return Err(Notification::new(2, 1, u16::from(VERSION).to_be_bytes()));
        }
        let short_asn = reader.u16().map_err(malformed)?;
        let hold_time = reader.u16().map_err(malformed)?;
        let router_id = RouterId(reader.u32().map_err(malformed)?);
        let capabilities = decode_parameters(reader)?;
        let asn = capabilities.four_octet_as.unwrap_or(Asn(u32::from(short_asn)));
        // RFC 7607 §2, RFC 6286 §2.2, RFC 4271 §6.2.
        if asn.0 == 0 || short_asn == 0 {
            return Err(Notification::new(2, 2, []));
        }
        if router_id.0 == 0 {
            return Err(Notification::new(2, 3, []));
        }
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::new(2, 6, []));
        }
        Ok(Self { asn, hold_time, router_id, capabilities })
    }

    /// Returns the message.
    pub fn encode(&self) -> Bytes {
        let mut capabilities = BytesMut::new();
        self.capabilities.encode(&mut capabilities);
        message(Kind::Open, |out| {
            out.put_u8(VERSION);
            out.put_u16(self.asn.two_octets());
            out.put_u16(self.hold_time);
            out.put_u32(self.router_id.0);
            encode_parameters(&capabilities, out);
        })
    }
}

fn encode_parameters(capabilities: &[u8], out: &mut BytesMut) {
    let length = capabilities.len();
    if length == 0 {
        out.put_u8(0);
    } else if let (Ok(inner), Ok(outer)) =
        (u8::try_from(length), u8::try_from(length.saturating_add(2)))
        && outer != EXTENDED
    {
        out.put_slice(&[outer, CAPABILITIES, inner]);
    } else {
        out.put_slice(&[EXTENDED, EXTENDED]);
        out.put_u16(u16::try_from(length.saturating_add(3)).unwrap_or(u16::MAX));
        out.put_u8(CAPABILITIES);
        out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
    }
    out.put_slice(capabilities);
}

fn decode_parameters(mut reader: Reader<'_>) -> Result<Capabilities, Notification> {
    let malformed = |Truncated| Notification::new(2, 0, []);
    let length = reader.u8().map_err(malformed)?;
    // RFC 9072 §2: the type octet 255 decides; a length of 255 is only what a sender should write.
    let extended = length != 0 && reader.rest().first() == Some(&EXTENDED);
    let block = if extended {
        reader.u8().and_then(|_| reader.long_block()).map_err(malformed)?
    } else {
        reader.take(usize::from(length)).map_err(malformed)?
    };
    if !reader.is_empty() {
        return Err(Notification::new(2, 0, []));
    }
    let mut capabilities = Capabilities::default();
    let mut parameters = Reader::new(block);
    while !parameters.is_empty() {
        let kind = parameters.u8().map_err(malformed)?;
        let value = if extended { parameters.long_block() } else { parameters.short_block() };
        let value = value.map_err(malformed)?;
        if kind != CAPABILITIES {
            return Err(Notification::new(2, 4, []));
        }
        capabilities.decode_into(value).map_err(malformed)?;
    }
    Ok(capabilities)
}
