//! The address of a BGP peer, perhaps with a port.

use std::net::{IpAddr, SocketAddr};

/// Reads `192.0.2.1`, `192.0.2.1:179`, `2001:db8::1` or `[2001:db8::1]:179`; the port is `None` where absent.
#[must_use]
pub fn parse_peer(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Some((addr, None));
    }
    let with_port = text.parse::<SocketAddr>().ok()?;
    (with_port.port() != 0).then(|| (with_port.ip(), Some(with_port.port())))
}
