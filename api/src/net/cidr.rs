//! Prefixes: parsing that says what is wrong, and the names objects carry for them.

use std::net::IpAddr;

use ipnet::IpNet;

/// Why a text is no prefix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CidrError {
    /// Not `address/length`.
    #[error("`{0}` is no CIDR: write an address and a prefix length, such as 10.244.0.0/16")]
    Syntax(String),
    /// Bits set beyond the prefix length.
    #[error("`{given}` has host bits set: write {network}")]
    HostBits {
        /// What was given.
        given: String,
        /// The prefix it lies in.
        network: IpNet,
    },
}

/// Reads a CIDR whose host bits must be zero, as pools, blocks and reservations need.
///
/// # Errors
/// When it is no CIDR or has host bits set.
pub fn parse_cidr(text: &str) -> Result<IpNet, CidrError> {
    let net: IpNet = text.parse().map_err(|_| CidrError::Syntax(text.to_owned()))?;
    if net.addr() != net.network() {
        return Err(CidrError::HostBits { given: text.to_owned(), network: net.trunc() });
    }
    Ok(net)
}

/// Reads a CIDR or a bare address (then /32 or /128); host bits are cleared, as policies and sets allow.
///
/// # Errors
/// When it is neither.
pub fn parse_net(text: &str) -> Result<IpNet, CidrError> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(net.trunc());
    }
    text.parse::<IpAddr>().map(IpNet::from).map_err(|_| CidrError::Syntax(text.to_owned()))
}

/// Returns the object name for a prefix: `10.244.0.0/26` is `10-244-0-0-26` (Calico `names/cidr.go`).
#[must_use]
pub fn cidr_name(net: &IpNet) -> String {
    net.to_string().chars().map(|c| if matches!(c, '.' | ':' | '/') { '-' } else { c }).collect()
}
