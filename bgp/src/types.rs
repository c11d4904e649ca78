//! The vocabulary of the speaker: AS numbers, identifiers, prefixes, address families.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Says whether an address means something on its link only (RFC 4291 §2.5.6).
pub(crate) const fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// An autonomous system number (RFC 6793).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(pub u32);

impl Asn {
    /// Stands for a four-octet number where only two octets fit (RFC 6793 §9).
    pub const TRANS: Self = Self(23456);

    /// Returns the number for a two-octet field.
    pub fn two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23456)
    }

    /// Says whether the number is for private use (RFC 6996).
    pub const fn is_private(self) -> bool {
        matches!(self.0, 64512..=65534 | 4_200_000_000..=4_294_967_294)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text that is no AS number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no AS number; write 64512 or 1.10")]
pub struct MalformedAsn(String);

impl FromStr for Asn {
    type Err = MalformedAsn;

    /// Reads plain or dotted notation (RFC 5396).
    fn from_str(text: &str) -> Result<Self, MalformedAsn> {
        let number = match text.split_once('.') {
            None => text.parse().ok(),
            Some((high, low)) => high
                .parse::<u16>()
                .ok()
                .zip(low.parse::<u16>().ok())
                .map(|(high, low)| u32::from(high) << 16 | u32::from(low)),
        };
        number.map(Self).ok_or_else(|| MalformedAsn(text.to_owned()))
    }
}

/// A BGP identifier: any four octets but zero (RFC 6286).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub u32);

impl From<Ipv4Addr> for RouterId {
    fn from(address: Ipv4Addr) -> Self {
        Self(u32::from(address))
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from(self.0).fmt(f)
    }
}

impl FromStr for RouterId {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Ipv4Addr>().map(Self::from)
    }
}

/// An address family this speaker routes; the sub-family is always unicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4,
    /// AFI 2, SAFI 1.
    Ipv6,
}

impl Family {
    /// Both families.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// Returns the family of an address.
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// Returns the AFI.
    pub const fn afi(self) -> u16 {
        match self {
            Self::Ipv4 => 1,
            Self::Ipv6 => 2,
        }
    }

    /// Returns the family of an AFI and SAFI, if it is one of ours.
    pub const fn from_wire(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, 1) => Some(Self::Ipv4),
            (2, 1) => Some(Self::Ipv6),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

/// A set of address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Families {
    /// IPv4 unicast.
    pub ipv4: bool,
    /// IPv6 unicast.
    pub ipv6: bool,
}

impl Families {
    /// No family.
    pub const NONE: Self = Self { ipv4: false, ipv6: false };
    /// IPv4 unicast alone.
    pub const IPV4: Self = Self { ipv4: true, ipv6: false };
    /// IPv6 unicast alone.
    pub const IPV6: Self = Self { ipv4: false, ipv6: true };
    /// Both.
    pub const BOTH: Self = Self { ipv4: true, ipv6: true };

    /// Returns what a session to this address carries unless told otherwise: its own family, as BIRD and Calico do.
    pub const fn default_for(peer: &IpAddr) -> Self {
        match peer {
            IpAddr::V4(_) => Self::IPV4,
            IpAddr::V6(_) => Self::IPV6,
        }
    }

    /// Says whether the family is in the set.
    pub const fn contains(self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// Adds a family.
    pub fn insert(&mut self, family: Family) {
        match family {
            Family::Ipv4 => self.ipv4 = true,
            Family::Ipv6 => self.ipv6 = true,
        }
    }

    /// Removes a family.
    pub fn remove(&mut self, family: Family) {
        match family {
            Family::Ipv4 => self.ipv4 = false,
            Family::Ipv6 => self.ipv6 = false,
        }
    }

    /// Returns the families in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { ipv4: self.ipv4 && other.ipv4, ipv6: self.ipv6 && other.ipv6 }
    }

    /// Returns the families of either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self { ipv4: self.ipv4 || other.ipv4, ipv6: self.ipv6 || other.ipv6 }
    }

    /// Returns the families of this set that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self { ipv4: self.ipv4 && !other.ipv4, ipv6: self.ipv6 && !other.ipv6 }
    }

    /// Says whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        !self.ipv4 && !self.ipv6
    }

    /// Lists the families.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.ipv4, self.ipv6) {
            (true, true) => "ipv4 and ipv6",
            (true, false) => "ipv4",
            (false, true) => "ipv6",
            (false, false) => "none",
        })
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Self::NONE;
        families.into_iter().for_each(|family| set.insert(family));
        set
    }
}

/// Whether a peer is in another autonomous system or in ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerType {
    /// Another autonomous system.
    External,
    /// Ours.
    Internal,
}

impl fmt::Display for PeerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::External => "eBGP",
            Self::Internal => "iBGP",
        })
    }
}

/// What we are to an external peer (RFC 9234 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The peer pays us for transit.
    Provider,
    /// We are a route server.
    RouteServer,
    /// We are a client of a route server.
    RouteServerClient,
    /// We pay the peer for transit.
    Customer,
    /// Neither pays.
    Peer,
}

impl Role {
    /// Returns the number of the capability.
    pub const fn number(self) -> u8 {
        match self {
            Self::Provider => 0,
            Self::RouteServer => 1,
            Self::RouteServerClient => 2,
            Self::Customer => 3,
            Self::Peer => 4,
        }
    }

    /// Returns the role of a number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Provider,
            1 => Self::RouteServer,
            2 => Self::RouteServerClient,
            3 => Self::Customer,
            4 => Self::Peer,
            _ => return None,
        })
    }

    /// Returns the role that the other side must have (RFC 9234 §4.2).
    #[must_use]
    pub const fn counterpart(self) -> Self {
        match self {
            Self::Provider => Self::Customer,
            Self::Customer => Self::Provider,
            Self::RouteServer => Self::RouteServerClient,
            Self::RouteServerClient => Self::RouteServer,
            Self::Peer => Self::Peer,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provider => "provider",
            Self::RouteServer => "rs-server",
            Self::RouteServerClient => "rs-client",
            Self::Customer => "customer",
            Self::Peer => "peer",
        })
    }
}

/// An address prefix. Host bits are zero and the length fits the family: [`Prefix::new`] is the only way in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Repr);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    V4(Ipv4Addr, u8),
    V6(Ipv6Addr, u8),
}

/// Text or a length that makes no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no prefix; write address/length, like 10.0.0.0/8")]
pub struct MalformedPrefix(String);

impl Prefix {
    /// Makes a prefix; bits beyond the length are cleared.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, MalformedPrefix> {
        let made = match address {
            IpAddr::V4(address) => Self::v4(address, length),
            IpAddr::V6(address) => Self::v6(address, length),
        };
        made.ok_or_else(|| MalformedPrefix(format!("{address}/{length}")))
    }

    pub(crate) fn v4(address: Ipv4Addr, length: u8) -> Option<Self> {
        let host_bits = 32_u32.checked_sub(u32::from(length))?;
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        Some(Self(Repr::V4(Ipv4Addr::from(u32::from(address) & mask), length)))
    }

    pub(crate) fn v6(address: Ipv6Addr, length: u8) -> Option<Self> {
        let host_bits = 128_u32.checked_sub(u32::from(length))?;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Some(Self(Repr::V6(Ipv6Addr::from(u128::from(address) & mask), length)))
    }

    /// Makes the prefix of exactly one address.
    pub fn host(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self(Repr::V4(address, 32)),
            IpAddr::V6(address) => Self(Repr::V6(address, 128)),
        }
    }

    /// Returns the first address.
    pub const fn address(&self) -> IpAddr {
        match self.0 {
            Repr::V4(address, _) => IpAddr::V4(address),
            Repr::V6(address, _) => IpAddr::V6(address),
        }
    }

    /// Returns the last address.
    pub(crate) fn last_address(&self) -> IpAddr {
        match self.0 {
            Repr::V4(address, length) => {
                let hosts = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
                Ipv4Addr::from(u32::from(address) | hosts).into()
            }
            Repr::V6(address, length) => {
                let hosts = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
                Ipv6Addr::from(u128::from(address) | hosts).into()
            }
        }
    }

    /// Returns the number of leading bits that count.
    pub const fn length(&self) -> u8 {
        match self.0 {
            Repr::V4(_, length) | Repr::V6(_, length) => length,
        }
    }

    /// Returns the family.
    pub const fn family(&self) -> Family {
        match self.0 {
            Repr::V4(..) => Family::Ipv4,
            Repr::V6(..) => Family::Ipv6,
        }
    }

    /// Says whether packets to these addresses may be forwarded by a route: not multicast, not the host itself, not "this
    /// network", not a link (RFC 4271 §6.3, RFC 6890, RFC 4291). Class E counts as unicast, as it does in Linux.
    pub fn is_unicast(&self) -> bool {
        match self.0 {
            Repr::V4(address, length) => match address.octets() {
                [0, ..] => length < 8,
                [127, ..] => length < 8,
                [224..=239, ..] => length < 4,
                [255, 255, 255, 255] => length < 32,
                _ => true,
            },
            Repr::V6(address, length) => {
                let segments = address.segments();
                let [first, ..] = segments;
                match segments {
                    [0, 0, 0, 0, 0, 0, 0, 0 | 1] => length < 128,
                    [0, 0, 0, 0, 0, 0xffff, ..] => length < 96,
                    _ if first & 0xff00 == 0xff00 => length < 8,
                    _ if first & 0xffc0 == 0xfe80 => length < 10,
                    _ => true,
                }
            }
        }
    }

    /// Says whether the other prefix lies within this one (or is the same).
    pub fn contains(&self, other: &Self) -> bool {
        other.length() >= self.length() && self.contains_address(other.address())
    }

    /// Says whether the address lies within this prefix.
    pub fn contains_address(&self, address: IpAddr) -> bool {
        match (self.0, address) {
            (Repr::V4(_, length), IpAddr::V4(address)) => Self::v4(address, length) == Some(*self),
            (Repr::V6(_, length), IpAddr::V6(address)) => Self::v6(address, length) == Some(*self),
            _ => false,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = MalformedPrefix;

    fn from_str(text: &str) -> Result<Self, MalformedPrefix> {
        let malformed = || MalformedPrefix(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(malformed)?;
        let address = address.parse().map_err(|_| malformed())?;
        Self::new(address, length.parse().map_err(|_| malformed())?).map_err(|_| malformed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_masked_and_ordered() {
        let prefix: Prefix = "10.1.2.3/16".parse().unwrap();
        assert_eq!(prefix.to_string(), "10.1.0.0/16");
        assert!("10.0.0.0/33".parse::<Prefix>().is_err());
        assert!("10.0.0.0".parse::<Prefix>().is_err());
        let all: Prefix = "::/0".parse().unwrap();
        assert!(all.contains(&"2001:db8::/32".parse().unwrap()));
        assert!(!all.contains(&prefix));
        assert!(prefix.contains_address("10.1.255.255".parse().unwrap()));
        assert!(!prefix.contains(&"10.0.0.0/8".parse().unwrap()));
        assert_eq!(size_of::<Prefix>(), 18);
    }

    #[test]
    fn some_prefixes_are_not_unicast() {
        let unicast = [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "126.0.0.0/7",
            "127.0.0.0/7",
            "192.0.2.0/24",
            "169.254.1.0/24",
            "192.0.0.0/2",
            "240.0.0.0/4",
            "::/0",
            "::/64",
            "::ffff:0:0/95",
            "64:ff9b::/96",
            "2001:db8::1/128",
            "fc00::/7",
            "fe00::/9",
            "fe00::/7",
        ];
        let others = [
            "0.0.0.0/8",
            "0.0.0.0/32",
            "127.0.0.1/32",
            "224.0.0.0/4",
            "239.1.2.3/32",
            "255.255.255.255/32",
            "::/128",
            "::1/128",
            "::ffff:10.0.0.0/104",
            "fe80::/10",
            "fe80::1/128",
            "ff00::/8",
            "ff02::1/128",
        ];
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        for text in unicast {
            assert!(prefix(text).is_unicast(), "{text}");
        }
        for text in others {
            assert!(!prefix(text).is_unicast(), "{text}");
        }
    }

    #[test]
    fn as_numbers_are_read_in_both_notations() {
        assert_eq!("64512".parse(), Ok(Asn(64512)));
        assert_eq!("1.10".parse(), Ok(Asn(65546)));
        assert!("1.70000".parse::<Asn>().is_err());
        assert_eq!(Asn(70000).two_octets(), 23456);
    }
}
