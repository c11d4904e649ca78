//! The messages as bytes. Decoding borrows, allocates little and cannot panic; it decides nothing about routes.

mod capability;
mod nlri;
mod notification;
mod open;
pub(crate) mod reader;
#[cfg(test)]
mod tests;
pub(crate) mod update;

use bytes::{BufMut, Bytes, BytesMut};

pub use self::{
    capability::{AddPath, Capabilities, GracefulRestart, GracefulRestartFamily, LongLivedFamily},
    notification::{Cease, Notification},
    open::Open,
};
pub(crate) use self::{
    nlri::{Item, Nlri, encode as encode_prefix, encoded_length},
    reader::Reader,
};
use crate::types::Family;

/// Length of the header: marker, length, type.
pub const HEADER: usize = 19;
/// Longest message (RFC 4271 §4.1).
pub const MAX_MESSAGE: usize = 4096;
/// Longest message once both sides announced RFC 8654.
pub const MAX_EXTENDED_MESSAGE: usize = 65535;
const MARKER: [u8; 16] = [0xff; 16];

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// OPEN.
    Open,
    /// UPDATE.
    Update,
    /// NOTIFICATION.
    Notification,
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "OPEN",
            Self::Update => "UPDATE",
            Self::Notification => "NOTIFICATION",
            Self::Keepalive => "KEEPALIVE",
            Self::RouteRefresh => "ROUTE-REFRESH",
        })
    }
}

impl Kind {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Open,
            2 => Self::Update,
            3 => Self::Notification,
            4 => Self::Keepalive,
            5 => Self::RouteRefresh,
            _ => return None,
        })
    }

    /// Says whether a message of this type may have this length.
    const fn allows(self, length: usize, limit: usize) -> bool {
        match self {
            Self::Open => length >= 29 && length <= MAX_MESSAGE,
            Self::Update => length >= 23 && length <= limit,
            Self::Notification => length >= 21 && length <= limit,
            Self::Keepalive => length == HEADER,
            Self::RouteRefresh => length >= 23 && length <= limit,
        }
    }
}

/// One complete message; the body follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type.
    pub kind: Kind,
    /// Everything after the header.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Returns the length of the whole message.
    pub const fn length(&self) -> usize {
        HEADER.saturating_add(self.body.len())
    }
}

/// Cuts the first message off a stream: `None` when more bytes are needed. `limit` is the longest message negotiated.
///
/// RFC 4271 §6.1 names the notifications.
pub fn next_frame(stream: &[u8], limit: usize) -> Result<Option<Frame<'_>>, Notification> {
    let mut reader = Reader::new(stream);
    let (Ok(marker), Ok(length), Ok(number)) = (reader.array::<16>(), reader.u16(), reader.u8())
    else {
        return Ok(None);
    };
    if marker != MARKER {
        return Err(Notification::new(1, 1, []));
    }
    let Some(kind) = Kind::from_number(number) else {
        return Err(Notification::new(1, 3, [number]));
    };
    if !kind.allows(usize::from(length), limit) {
        return Err(Notification::new(1, 2, length.to_be_bytes()));
    }
    match reader.take(usize::from(length).saturating_sub(HEADER)) {
        Ok(body) => Ok(Some(Frame { kind, body })),
        Err(_) => Ok(None),
    }
}

/// Writes a message with the body that `body` appends.
pub(crate) fn message(kind: Kind, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    write_message(kind, &mut out, body);
    out.freeze()
}

/// Appends a message with the body that `body` appends.
pub(crate) fn write_message(kind: Kind, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_slice(&MARKER);
    out.put_u16(0);
    out.put_u8(kind.number());
    body(out);
    let length = u16::try_from(out.len().saturating_sub(start)).unwrap_or(u16::MAX);
    let field = start.saturating_add(MARKER.len());
    if let Some(field) = out.get_mut(field..field.saturating_add(2)) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Returns a KEEPALIVE.
pub fn keepalive() -> Bytes {
    const KEEPALIVE: [u8; HEADER] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0, 19, 4,
    ];
    Bytes::from_static(&KEEPALIVE)
}

/// What a ROUTE-REFRESH says (RFC 2918, 7313).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Send everything again.
    Request,
    /// What follows is the whole table.
    Begin,
    /// That was the whole table.
    End,
}

/// A ROUTE-REFRESH message; `None` when its family or subtype is not ours.
pub fn decode_route_refresh(body: &[u8]) -> Result<Option<(Family, Refresh)>, Notification> {
    let mut reader = Reader::new(body);
    let (Ok(afi), Ok(subtype), Ok(safi)) = (reader.u16(), reader.u8(), reader.u8()) else {
        return Ok(None);
    };
    let refresh = match subtype {
        0 => Refresh::Request,
        1 => Refresh::Begin,
        2 => Refresh::End,
        _ => return Ok(None),
    };
    // RFC 7313 §5: only those two have a fixed length.
    if refresh != Refresh::Request && !reader.is_empty() {
        let whole = message(Kind::RouteRefresh, |out| out.put_slice(body));
        return Err(Notification::new(7, 1, &*whole));
    }
    Ok(Family::from_wire(afi, safi).map(|family| (family, refresh)))
}

/// Returns a ROUTE-REFRESH.
pub fn encode_route_refresh(family: Family, refresh: Refresh) -> Bytes {
    message(Kind::RouteRefresh, |out| {
        out.put_u16(family.afi());
        out.put_u8(match refresh {
            Refresh::Request => 0,
            Refresh::Begin => 1,
            Refresh::End => 2,
        });
        out.put_u8(1);
    })
}
