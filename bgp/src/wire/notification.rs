//! NOTIFICATION: the reason a session ends, as numbers and in words.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Kind, message,
    reader::{Reader, Truncated},
};

/// A NOTIFICATION message (RFC 4271 §4.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// What the code asks for.
    pub data: Vec<u8>,
}

/// Subcodes of Cease (RFC 4486, 8538).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cease {
    /// Too many prefixes.
    MaximumPrefixes = 1,
    /// Switched off by the operator.
    AdministrativeShutdown = 2,
    /// The peer was removed from the configuration.
    PeerDeconfigured = 3,
    /// Reset by the operator.
    AdministrativeReset = 4,
    /// The connection is not wanted.
    ConnectionRejected = 5,
    /// The configuration of the session changed.
    OtherConfigurationChange = 6,
    /// The other connection won.
    ConnectionCollision = 7,
    /// No memory for this peer.
    OutOfResources = 8,
    /// The session ends without graceful restart; data is the real notification.
    HardReset = 9,
    /// BFD says that the path is broken (RFC 9384).
    BfdDown = 10,
}

impl Cease {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::MaximumPrefixes => 1,
            Self::AdministrativeShutdown => 2,
            Self::PeerDeconfigured => 3,
            Self::AdministrativeReset => 4,
            Self::ConnectionRejected => 5,
            Self::OtherConfigurationChange => 6,
            Self::ConnectionCollision => 7,
            Self::OutOfResources => 8,
            Self::HardReset => 9,
            Self::BfdDown => 10,
        }
    }
}

impl Notification {
    /// Hold Timer Expired.
    pub const HOLD_TIMER_EXPIRED: Self = Self { code: 4, subcode: 0, data: Vec::new() };
    /// Send Hold Timer Expired (RFC 9687).
    pub const SEND_HOLD_TIMER_EXPIRED: Self = Self { code: 8, subcode: 0, data: Vec::new() };

    /// Makes a notification.
    pub fn new(code: u8, subcode: u8, data: impl Into<Vec<u8>>) -> Self {
        Self { code, subcode, data: data.into() }
    }

    /// Makes a Cease.
    pub fn cease(reason: Cease) -> Self {
        Self::new(6, reason.number(), [])
    }

    /// Makes a Cease with a text for the other operator (RFC 9003); cut to 255 octets at a character.
    pub fn shutdown(reason: Cease, text: &str) -> Self {
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let text = text.get(..end).unwrap_or_default();
        let mut data = vec![u8::try_from(text.len()).unwrap_or(0)];
        data.extend_from_slice(text.as_bytes());
        Self::new(6, reason.number(), data)
    }

    /// Wraps the notification so that the peer does not keep our routes (RFC 8538 §3).
    #[must_use]
    pub fn into_hard_reset(self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend(self.data);
        Self::new(6, Cease::HardReset.number(), data)
    }

    /// Says whether this is Cease with Hard Reset.
    pub fn is_hard_reset(&self) -> bool {
        self.code == 6 && self.subcode == Cease::HardReset.number()
    }

    /// Says whether this asks for a retry without capabilities (RFC 5492 §3).
    pub fn is_unsupported_parameter(&self) -> bool {
        self.code == 2 && self.subcode == 4
    }

    /// Returns the text of the other operator (RFC 9003), with control characters replaced.
    pub fn text(&self) -> Option<String> {
        if self.code != 6 || !matches!(self.subcode, 2 | 4) {
            return None;
        }
        let text = Reader::new(&self.data).short_block().ok().filter(|text| !text.is_empty())?;
        let text = String::from_utf8_lossy(text);
        Some(text.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Truncated> {
        let mut reader = Reader::new(body);
        Ok(Self { code: reader.u8()?, subcode: reader.u8()?, data: reader.rest().to_vec() })
    }

    /// Returns the message.
    pub fn encode(&self) -> Bytes {
        message(Kind::Notification, |out: &mut BytesMut| {
            out.put_u8(self.code);
            out.put_u8(self.subcode);
            out.put_slice(self.data.get(..4075).unwrap_or(&self.data));
        })
    }

    fn words(&self) -> Option<&'static str> {
        Some(match (self.code, self.subcode) {
            (1, 1) => "connection not synchronized",
            (1, 2) => "bad message length",
            (1, 3) => "bad message type",
            (1, _) => "message header error",
            (2, 1) => "unsupported version",
            (2, 2) => "bad peer AS",
            (2, 3) => "bad BGP identifier",
            (2, 4) => "unsupported optional parameter",
            (2, 6) => "unacceptable hold time",
            (2, 7) => "unsupported capability",
            (2, 11) => "role mismatch",
            (2, _) => "OPEN error",
            (3, 1) => "malformed attribute list",
            (3, 2) => "unrecognized well-known attribute",
            (3, 3) => "missing well-known attribute",
            (3, 4) => "attribute flags error",
            (3, 5) => "attribute length error",
            (3, 6) => "invalid ORIGIN",
            (3, 8) => "invalid NEXT_HOP",
            (3, 9) => "optional attribute error",
            (3, 10) => "invalid network field",
            (3, 11) => "malformed AS_PATH",
            (3, _) => "UPDATE error",
            (4, _) => "hold timer expired",
            (5, 1) => "unexpected message in OpenSent",
            (5, 2) => "unexpected message in OpenConfirm",
            (5, 3) => "unexpected message in Established",
            (5, _) => "finite state machine error",
            (6, 1) => "maximum number of prefixes reached",
            (6, 2) => "administrative shutdown",
            (6, 3) => "peer de-configured",
            (6, 4) => "administrative reset",
            (6, 5) => "connection rejected",
            (6, 6) => "other configuration change",
            (6, 7) => "connection collision resolution",
            (6, 8) => "out of resources",
            (6, 9) => "hard reset",
            (6, 10) => "BFD down",
            (6, _) => "cease",
            (7, 1) => "invalid message length",
            (7, _) => "route refresh error",
            (8, _) => "send hold timer expired",
            _ => return None,
        })
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.code, self.subcode)?;
        if let Some(words) = self.words() {
            write!(f, " {words}")?;
        }
        if self.is_hard_reset()
            && let Ok(inner) = Self::decode(&self.data)
            && !inner.is_hard_reset()
        {
            return write!(f, " ({inner})");
        }
        match self.text() {
            Some(text) => write!(f, " \"{text}\""),
            None => Ok(()),
        }
    }
}
