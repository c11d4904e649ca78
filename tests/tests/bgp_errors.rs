//! What an error costs, on a real socket: bytes to `voile-bgpd`, and what comes back and what stays in its table.
//!
//! The tables name the clause behind each expectation. Every row has a peer of its own (an address of 127.0.0.0/8), so
//! that no row waits for another one's session.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::too_many_lines,
    reason = "a test: what fails here fails it, with the reason; tables may be long"
)]

#[path = "bgp_errors/collision.rs"]
mod collision;
#[path = "bgp_errors/framing.rs"]
mod framing;
#[path = "bgp_errors/next_hop.rs"]
mod next_hop;
#[path = "bgp_errors/open.rs"]
mod open;
#[path = "bgp_errors/speaker.rs"]
mod speaker;
#[path = "bgp_errors/update.rs"]
mod update;
