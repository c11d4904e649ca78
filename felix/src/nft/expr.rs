//! Matches and statements of a rule.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    element::{Element, KeyType, Value},
    ir::Verdict,
    name::{MapName, SetName},
};

/// Address family of a statement that rewrites addresses.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A property of the packet that can be loaded and compared.
///
/// Address fields imply their family (`meta nfproto`), ICMP fields their protocol: the encoder adds those tests where
/// the rule has not made them yet, as nft does. Ports imply nothing: test [`Field::L4Proto`] before, or key by it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Field {
    /// Name of the interface the packet came in by.
    IifName,
    /// Name of the interface the packet leaves by.
    OifName,
    /// `meta nfproto`: 2 is IPv4, 10 is IPv6. Compared with [`Value::L4Proto`]-sized values.
    NfProto,
    /// IP protocol, after IPv6 extension headers.
    L4Proto,
    /// Packet mark.
    Mark,
    /// IPv4 source.
    Ip4Saddr,
    /// IPv4 destination.
    Ip4Daddr,
    /// IPv6 source.
    Ip6Saddr,
    /// IPv6 destination.
    Ip6Daddr,
    /// Source port of TCP, UDP, SCTP.
    ThSport,
    /// Destination port of TCP, UDP, SCTP.
    ThDport,
    /// ICMP type.
    IcmpType,
    /// ICMP code.
    IcmpCode,
    /// ICMPv6 type.
    Icmpv6Type,
    /// ICMPv6 code.
    Icmpv6Code,
    /// Conntrack state bits.
    CtState,
    /// Original destination of a translated flow, IPv4.
    CtOriginalIp4Daddr,
    /// Original destination port of a translated flow.
    CtOriginalDport,
    /// `fib daddr type`: 2 is local (RTN_LOCAL). Compared with [`Value::Number`].
    FibDaddrType,
    /// `numgen random mod n`.
    Random(u32),
}

impl Field {
    /// Type of the loaded value.
    #[must_use]
    pub const fn key_type(self) -> KeyType {
        match self {
            Self::IifName | Self::OifName => KeyType::Ifname,
            Self::NfProto | Self::L4Proto => KeyType::L4Proto,
            Self::Mark => KeyType::Mark,
            Self::Ip4Saddr | Self::Ip4Daddr | Self::CtOriginalIp4Daddr => KeyType::Ipv4,
            Self::Ip6Saddr | Self::Ip6Daddr => KeyType::Ipv6,
            Self::ThSport | Self::ThDport | Self::CtOriginalDport => KeyType::Port,
            Self::IcmpType | Self::IcmpCode => KeyType::IcmpType,
            Self::Icmpv6Type | Self::Icmpv6Code => KeyType::Icmpv6Type,
            Self::CtState => KeyType::CtState,
            Self::FibDaddrType | Self::Random(_) => KeyType::Number,
        }
    }
}

/// Conntrack state bits, `ct state` (NF_CT_STATE_BIT in the kernel's uapi).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CtState(pub u32);

impl CtState {
    /// Not a valid packet of any flow.
    pub const INVALID: Self = Self(1);
    /// Of a flow seen in both directions.
    pub const ESTABLISHED: Self = Self(2);
    /// Belongs to another flow, such as its ICMP error.
    pub const RELATED: Self = Self(4);
    /// First of a flow.
    pub const NEW: Self = Self(8);
    /// Exempt from tracking.
    pub const UNTRACKED: Self = Self(64);

    /// Both.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The key of a map or set of states.
    #[must_use]
    pub const fn value(self) -> Value {
        Value::CtState(self.0)
    }
}

/// What a field, or a concatenation of fields, is compared with.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Operand {
    /// Exactly this value.
    Is(Value),
    /// Interface names that begin so (`"cali*"`).
    Starts(String),
    /// Addresses of a prefix.
    Within(IpNet),
    /// An inclusive range.
    Between(Value, Value),
    /// Any of the bits (`ct state established,related`).
    AnyBit(u32),
    /// Equal after masking (`meta mark & mask == value`).
    Masked {
        /// Bits that count.
        mask: u32,
        /// What they must be.
        value: u32,
    },
    /// A member of an anonymous set; ranges are allowed.
    OneOf(Vec<Element>),
    /// A member of a named set.
    In(SetName),
}

/// Whether a match must hold or must not.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Test {
    /// Must hold.
    Is,
    /// Must not hold.
    Not,
}

/// A match: fields, and what they must (not) be.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Match {
    /// One field, or several for a concatenation (then the operand is a set).
    pub fields: Vec<Field>,
    /// Must hold or must not.
    pub test: Test,
    /// What is compared with.
    pub operand: Operand,
}

/// Unit of a rate limit.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RateUnit {
    /// Per second.
    Second,
    /// Per minute.
    Minute,
    /// Per hour.
    Hour,
}

/// A packet rate; the rule goes on only while it is not exceeded.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Limit {
    /// Packets per unit.
    pub rate: u64,
    /// Unit.
    pub unit: RateUnit,
    /// Packets that may exceed the rate at once.
    pub burst: u32,
    /// Match when exceeded instead.
    pub over: bool,
}

/// Hands a copy of the packet's head to a listener (NFLOG).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Log {
    /// NFLOG group.
    pub group: u16,
    /// At most 127 octets; who did what, such as `D|default/web|3`.
    pub prefix: String,
    /// Octets of the packet to copy.
    pub snaplen: u32,
    /// Messages gathered before the listener is woken.
    pub queue_threshold: u16,
}

impl Log {
    /// A log statement with the cheap settings: 64 octets, 512 messages per wake-up.
    #[must_use]
    pub fn new(group: u16, prefix: impl Into<String>) -> Self {
        Self { group, prefix: prefix.into(), snaplen: 64, queue_threshold: 512 }
    }
}

/// How a packet is refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reject {
    /// ICMP or ICMPv6 "administratively prohibited", by the packet's family.
    AdminProhibited,
    /// ICMP or ICMPv6 "port unreachable", by the packet's family.
    PortUnreachable,
    /// TCP reset.
    TcpReset,
}

/// Where a statement takes its value from.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Source {
    /// Fixed values, one per part.
    Values(Vec<Value>),
    /// What a named map gives for these fields; a key not found ends the rule.
    Map(Vec<Field>, MapName),
}

/// One expression of a rule.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Expr {
    /// A comparison.
    Match(Match),
    /// The verdict that a named map gives for these fields; a key not found: go on.
    Vmap(Vec<Field>, MapName),
    /// The same with an anonymous map.
    AnonymousVmap(Vec<Field>, Vec<(Element, Verdict)>),
    /// Packets and octets.
    Counter,
    /// NFLOG.
    Log(Log),
    /// Rate limit.
    Limit(Limit),
    /// Refuse with an answer; ends everything.
    Reject(Reject),
    /// `meta mark set`.
    SetMark(Source),
    /// `meta mark set mark and mask xor xor`.
    MixMark {
        /// Bits kept.
        mask: u32,
        /// Bits flipped afterwards.
        xor: u32,
    },
    /// Destination translation; the source gives an address, or an address and a port.
    Dnat(Family, Source),
    /// Source translation to the outgoing interface's address.
    Masquerade {
        /// Whether ports are chosen at random.
        random: bool,
    },
    /// `notrack`.
    Notrack,
}

impl Expr {
    /// `field == value`.
    #[must_use]
    pub fn eq(field: Field, value: impl Into<Value>) -> Self {
        Self::of(field, Test::Is, Operand::Is(value.into()))
    }

    /// `field != value`.
    #[must_use]
    pub fn ne(field: Field, value: impl Into<Value>) -> Self {
        Self::of(field, Test::Not, Operand::Is(value.into()))
    }

    /// A comparison of one field.
    #[must_use]
    pub fn of(field: Field, test: Test, operand: Operand) -> Self {
        Self::Match(Match { fields: vec![field], test, operand })
    }

    /// `meta iifname == name`; a trailing `*` matches by prefix.
    #[must_use]
    pub fn iifname(name: &str) -> Self {
        Self::ifname(Field::IifName, name)
    }

    /// `meta oifname == name`; a trailing `*` matches by prefix.
    #[must_use]
    pub fn oifname(name: &str) -> Self {
        Self::ifname(Field::OifName, name)
    }

    fn ifname(field: Field, name: &str) -> Self {
        let operand = match name.strip_suffix('*') {
            Some(start) => Operand::Starts(start.to_owned()),
            None => Operand::Is(Value::Ifname(name.to_owned())),
        };
        Self::of(field, Test::Is, operand)
    }

    /// Source address within a prefix, of whichever family.
    #[must_use]
    pub fn saddr(net: IpNet, test: Test) -> Self {
        let field = if net.addr().is_ipv4() { Field::Ip4Saddr } else { Field::Ip6Saddr };
        Self::of(field, test, within(net))
    }

    /// Destination address within a prefix, of whichever family.
    #[must_use]
    pub fn daddr(net: IpNet, test: Test) -> Self {
        let field = if net.addr().is_ipv4() { Field::Ip4Daddr } else { Field::Ip6Daddr };
        Self::of(field, test, within(net))
    }

    /// `meta l4proto == n`.
    #[must_use]
    pub fn l4proto(number: u8) -> Self {
        Self::eq(Field::L4Proto, Value::L4Proto(number))
    }

    /// `meta nfproto == family`.
    #[must_use]
    pub fn family(family: Family) -> Self {
        let number = match family {
            Family::V4 => 2,
            Family::V6 => 10,
        };
        Self::eq(Field::NfProto, Value::L4Proto(number))
    }

    /// Fields in a named set.
    #[must_use]
    pub fn in_set(fields: &[Field], set: SetName) -> Self {
        let (fields, operand) = (fields.to_vec(), Operand::In(set));
        Self::Match(Match { fields, test: Test::Is, operand })
    }

    /// Fields not in a named set.
    #[must_use]
    pub fn not_in_set(fields: &[Field], set: SetName) -> Self {
        let (fields, operand) = (fields.to_vec(), Operand::In(set));
        Self::Match(Match { fields, test: Test::Not, operand })
    }

    /// One field in a list of exact values and ranges, as an anonymous set.
    #[must_use]
    pub fn one_of(field: Field, elements: Vec<Element>) -> Self {
        Self::of(field, Test::Is, Operand::OneOf(elements))
    }

    /// Port within an inclusive range.
    #[must_use]
    pub fn port(field: Field, from: u16, to: u16) -> Self {
        let operand = if from == to {
            Operand::Is(Value::Port(from))
        } else {
            Operand::Between(Value::Port(from), Value::Port(to))
        };
        Self::of(field, Test::Is, operand)
    }

    /// `ct state a,b`.
    #[must_use]
    pub fn ct_state(states: CtState) -> Self {
        Self::of(Field::CtState, Test::Is, Operand::AnyBit(states.0))
    }

    /// `ct state vmap { ... }`.
    #[must_use]
    pub fn ct_state_vmap(entries: &[(CtState, Verdict)]) -> Self {
        let entries = entries
            .iter()
            .map(|(state, verdict)| (Element::new(&[state.value()]), verdict.clone()))
            .collect();
        Self::AnonymousVmap(vec![Field::CtState], entries)
    }

    /// DNAT to a fixed address and perhaps port.
    #[must_use]
    pub fn dnat_to(addr: IpAddr, port: Option<u16>) -> Self {
        let family = if addr.is_ipv4() { Family::V4 } else { Family::V6 };
        let values = std::iter::once(addr.into()).chain(port.map(Value::Port)).collect();
        Self::Dnat(family, Source::Values(values))
    }
}

fn within(net: IpNet) -> Operand {
    if net.prefix_len() == net.max_prefix_len() {
        Operand::Is(net.addr().into())
    } else {
        Operand::Within(net)
    }
}
