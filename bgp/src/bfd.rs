//! Bidirectional Forwarding Detection (RFC 5880) over one hop (RFC 5881) or several (RFC 5883): asynchronous mode, without
//! echo and authentication.
//!
//! [`Machine`] is one session and knows no socket; the driver finds the session of a packet. What a failure means to BGP
//! (RFC 5882) is the speaker's question.

mod machine;
mod packet;
#[cfg(test)]
mod tests;

pub use self::{
    machine::{Change, Machine, Timing},
    packet::{Diagnostic, LENGTH, Malformed, Packet, State},
};

/// UDP port of single-hop sessions (RFC 5881 §4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// UDP port of multi-hop sessions (RFC 5883 §5).
pub const MULTI_HOP_PORT: u16 = 4784;

/// How a BGP peer is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Config {
    /// Intervals.
    pub timing: Timing,
    /// Whether there are routers in between.
    pub multi_hop: bool,
    /// Whether a failure ends the peer's routes even if the peer might only be restarting (RFC 5882 §4.3.2).
    pub strict: bool,
}
