//! Keys of sets and maps, kept as the bytes the kernel compares.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Length of an interface name in the kernel, with its NUL (IFNAMSIZ).
pub const IFNAME_LEN: usize = 16;

/// Type of one part of a key.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum KeyType {
    /// Interface name.
    Ifname,
    /// IPv4 address.
    Ipv4,
    /// IPv6 address.
    Ipv6,
    /// IP protocol number.
    L4Proto,
    /// Port of TCP, UDP, SCTP.
    Port,
    /// 32-bit mark, host byte order.
    Mark,
    /// Conntrack state bits, host byte order.
    CtState,
    /// Type of an ICMP message.
    IcmpType,
    /// Type of an ICMPv6 message.
    Icmpv6Type,
    /// A 32-bit number in host byte order without a type of its own (a bucket of `numgen`).
    Number,
}

impl KeyType {
    /// Octets of a value of this type.
    #[must_use]
    pub const fn octets(self) -> usize {
        match self {
            Self::Ifname | Self::Ipv6 => 16,
            Self::Ipv4 | Self::Mark | Self::CtState | Self::Number => 4,
            Self::Port => 2,
            Self::L4Proto | Self::IcmpType | Self::Icmpv6Type => 1,
        }
    }

    /// Octets of a value inside a concatenation: registers have four each.
    #[must_use]
    pub const fn padded_octets(self) -> usize {
        self.octets().next_multiple_of(4)
    }
}

/// Octets of a whole key: bare for a single part, each part padded to a register when concatenated.
#[must_use]
pub fn key_len(types: &[KeyType]) -> usize {
    match types {
        [single] => single.octets(),
        many => many.iter().map(|part| part.padded_octets()).sum(),
    }
}

/// One part of a key.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Value {
    /// Interface name; longer than 15 octets can't exist and is cut there.
    Ifname(String),
    /// IPv4 address.
    Ipv4(Ipv4Addr),
    /// IPv6 address.
    Ipv6(Ipv6Addr),
    /// IP protocol number.
    L4Proto(u8),
    /// Port of TCP, UDP, SCTP.
    Port(u16),
    /// 32-bit mark.
    Mark(u32),
    /// Conntrack state bits, see [`super::CtState`].
    CtState(u32),
    /// Type of an ICMP message.
    IcmpType(u8),
    /// Type of an ICMPv6 message.
    Icmpv6Type(u8),
    /// A number in host byte order.
    Number(u32),
}

impl Value {
    /// The type of this value.
    #[must_use]
    pub const fn key_type(&self) -> KeyType {
        match self {
            Self::Ifname(_) => KeyType::Ifname,
            Self::Ipv4(_) => KeyType::Ipv4,
            Self::Ipv6(_) => KeyType::Ipv6,
            Self::L4Proto(_) => KeyType::L4Proto,
            Self::Port(_) => KeyType::Port,
            Self::Mark(_) => KeyType::Mark,
            Self::CtState(_) => KeyType::CtState,
            Self::IcmpType(_) => KeyType::IcmpType,
            Self::Icmpv6Type(_) => KeyType::Icmpv6Type,
            Self::Number(_) => KeyType::Number,
        }
    }

    /// Appends the bytes the kernel compares.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ifname(name) => {
                let bytes = name.as_bytes();
                let kept = bytes.len().min(IFNAME_LEN - 1);
                out.extend(bytes.iter().take(kept));
                out.resize(out.len() + IFNAME_LEN - kept, 0);
            }
            Self::Ipv4(addr) => out.extend_from_slice(&addr.octets()),
            Self::Ipv6(addr) => out.extend_from_slice(&addr.octets()),
            Self::L4Proto(n) | Self::IcmpType(n) | Self::Icmpv6Type(n) => out.push(*n),
            Self::Port(n) => out.extend_from_slice(&n.to_be_bytes()),
            Self::Mark(n) | Self::CtState(n) | Self::Number(n) => {
                out.extend_from_slice(&n.to_ne_bytes());
            }
        }
    }

    /// The bytes the kernel compares.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.key_type().octets());
        self.write(&mut out);
        out
    }

    /// Reads a value of a type back from kernel bytes; `None` when there are too few.
    #[must_use]
    pub fn read(kind: KeyType, bytes: &[u8]) -> Option<Self> {
        let raw = bytes.get(..kind.octets())?;
        let word = || <[u8; 4]>::try_from(raw).ok();
        let octet = || raw.first().copied();
        Some(match kind {
            KeyType::Ifname => {
                let name = raw.split(|byte| *byte == 0).next().unwrap_or_default();
                Self::Ifname(String::from_utf8_lossy(name).into_owned())
            }
            KeyType::Ipv4 => Self::Ipv4(Ipv4Addr::from(word()?)),
            KeyType::Ipv6 => Self::Ipv6(Ipv6Addr::from(<[u8; 16]>::try_from(raw).ok()?)),
            KeyType::L4Proto => Self::L4Proto(octet()?),
            KeyType::IcmpType => Self::IcmpType(octet()?),
            KeyType::Icmpv6Type => Self::Icmpv6Type(octet()?),
            KeyType::Port => Self::Port(u16::from_be_bytes(<[u8; 2]>::try_from(raw).ok()?)),
            KeyType::Mark => Self::Mark(u32::from_ne_bytes(word()?)),
            KeyType::CtState => Self::CtState(u32::from_ne_bytes(word()?)),
            KeyType::Number => Self::Number(u32::from_ne_bytes(word()?)),
        })
    }
}

impl From<IpAddr> for Value {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Self::Ipv4(addr),
            IpAddr::V6(addr) => Self::Ipv6(addr),
        }
    }
}

impl From<Ipv4Addr> for Value {
    fn from(addr: Ipv4Addr) -> Self {
        Self::Ipv4(addr)
    }
}

impl From<Ipv6Addr> for Value {
    fn from(addr: Ipv6Addr) -> Self {
        Self::Ipv6(addr)
    }
}

/// A key of a set or map: one value, a concatenation of values, or an inclusive range of either.
///
/// Kept as the bytes the kernel compares: what is read back compares without decoding.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Element {
    start: Box<[u8]>,
    /// Inclusive end; `None` where start and end are the same.
    end: Option<Box<[u8]>>,
}

impl Element {
    /// A key of one or more parts. One part is stored bare, several are padded to registers each.
    #[must_use]
    pub fn new(parts: &[Value]) -> Self {
        Self { start: join(parts), end: None }
    }

    /// An inclusive range, part by part; only for interval sets.
    #[must_use]
    pub fn range(from: &[Value], to: &[Value]) -> Self {
        Self::from_bytes(join(from), Some(join(to)))
    }

    /// All addresses of a prefix; only for interval sets.
    #[must_use]
    pub fn prefix(net: IpNet) -> Self {
        Self::range(&[net.network().into()], &[net.broadcast().into()])
    }

    /// A single address.
    #[must_use]
    pub fn addr(addr: IpAddr) -> Self {
        Self::new(&[addr.into()])
    }

    /// An interface name.
    #[must_use]
    pub fn ifname(name: impl Into<String>) -> Self {
        Self::new(&[Value::Ifname(name.into())])
    }

    /// From kernel bytes; an end equal to the start is forgotten.
    #[must_use]
    pub fn from_bytes(start: Box<[u8]>, end: Option<Box<[u8]>>) -> Self {
        let end = end.filter(|end| *end != start);
        Self { start, end }
    }

    /// Bytes of the first (or only) key.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// Bytes of the last key of a range.
    #[must_use]
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }
}

impl From<IpNet> for Element {
    fn from(net: IpNet) -> Self {
        Self::prefix(net)
    }
}

impl From<IpAddr> for Element {
    fn from(addr: IpAddr) -> Self {
        Self::addr(addr)
    }
}

fn join(parts: &[Value]) -> Box<[u8]> {
    let mut out =
        Vec::with_capacity(parts.iter().map(|part| part.key_type().padded_octets()).sum());
    for part in parts {
        part.write(&mut out);
        if parts.len() > 1 {
            out.resize(out.len().next_multiple_of(4), 0);
        }
    }
    out.into_boxed_slice()
}
