//! IP protocols by name or number.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::IntOrString;

/// An IP protocol as a policy writes it: a name or a number, kept as written.
///
/// Anything may be stored; [`Protocol::number`] tells whether it means something.
#[derive(
    Clone, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
#[schemars(inline, extend("pattern" = "^.*"))]
pub struct Protocol(IntOrString);

/// Names that Calico knows (`numorstring.Protocol`), with their IANA numbers.
const NAMES: [(&str, u8); 6] =
    [("TCP", 6), ("UDP", 17), ("ICMP", 1), ("ICMPv6", 58), ("SCTP", 132), ("UDPLite", 136)];

impl Protocol {
    /// TCP.
    #[must_use]
    pub fn tcp() -> Self {
        Self::from("TCP")
    }

    /// UDP.
    #[must_use]
    pub fn udp() -> Self {
        Self::from("UDP")
    }

    /// SCTP.
    #[must_use]
    pub fn sctp() -> Self {
        Self::from("SCTP")
    }

    /// Returns the protocol number; `None` if the name is unknown or the number outside 1..=255.
    #[must_use]
    pub fn number(&self) -> Option<u8> {
        let number = match &self.0 {
            IntOrString::Int(number) => u8::try_from(*number).ok(),
            IntOrString::String(text) => NAMES
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(text))
                .map(|(_, number)| *number)
                .or_else(|| text.parse().ok()),
        };
        number.filter(|number| *number != 0)
    }

    /// Whether it has ports: TCP, UDP, SCTP. (Calico counts UDPLite out.)
    #[must_use]
    pub fn has_ports(&self) -> bool {
        matches!(self.number(), Some(6 | 17 | 132))
    }
}

/// TCP, as Kubernetes has it where no protocol is given.
impl Default for Protocol {
    fn default() -> Self {
        Self::tcp()
    }
}

impl From<&str> for Protocol {
    fn from(text: &str) -> Self {
        Self(IntOrString::String(text.to_owned()))
    }
}

impl From<u8> for Protocol {
    fn from(number: u8) -> Self {
        Self(IntOrString::Int(i64::from(number)))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
