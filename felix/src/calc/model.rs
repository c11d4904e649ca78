//! Policies as the engine understands them: Calico's model of tiers, policies and rules, whatever kind they came from.

use std::{collections::BTreeSet, fmt, sync::Arc};

use api::Key;

use super::{ranges::NetSet, selector::Selector};
use crate::nft::Family;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// IP protocol number of SCTP.
pub const SCTP: u8 = 132;
/// IP protocol number of UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// Whether packets of a protocol have ports.
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP | UDP_LITE)
}

/// The name of a protocol, or its number.
#[must_use]
pub fn protocol_name(protocol: u8) -> String {
    match protocol {
        TCP => "TCP".to_owned(),
        UDP => "UDP".to_owned(),
        ICMP => "ICMP".to_owned(),
        ICMPV6 => "ICMPv6".to_owned(),
        SCTP => "SCTP".to_owned(),
        UDP_LITE => "UDPLite".to_owned(),
        other => other.to_string(),
    }
}

/// Reads a protocol by name (any case) or number.
#[must_use]
pub fn parse_protocol(text: &str) -> Option<u8> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Some(TCP),
        "udp" => Some(UDP),
        "icmp" => Some(ICMP),
        "icmpv6" => Some(ICMPV6),
        "sctp" => Some(SCTP),
        "udplite" => Some(UDP_LITE),
        number => number.parse().ok().filter(|number| *number != 0),
    }
}

/// Seen from the pod that the policy selects.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// The kind of object a policy came from.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PolicyKind {
    /// `projectcalico.org/v3` GlobalNetworkPolicy.
    GlobalNetworkPolicy,
    /// `networking.k8s.io/v1` NetworkPolicy.
    KubernetesNetworkPolicy,
    /// `projectcalico.org/v3` NetworkPolicy.
    NetworkPolicy,
}

/// Which policy; shown as `knp default/db-policy`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PolicyId {
    /// Kind of the object.
    pub kind: PolicyKind,
    /// Key of the object.
    pub key: Key,
}

impl PolicyId {
    /// Names a policy.
    #[must_use]
    pub const fn new(kind: PolicyKind, key: Key) -> Self {
        Self { kind, key }
    }

    /// The short name of the kind.
    #[must_use]
    pub const fn short_kind(&self) -> &'static str {
        match self.kind {
            PolicyKind::GlobalNetworkPolicy => "gnp",
            PolicyKind::KubernetesNetworkPolicy => "knp",
            PolicyKind::NetworkPolicy => "np",
        }
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.short_kind(), self.key)
    }
}

/// `spec.order`: lower first, absent last.
#[derive(Clone, Copy, Debug)]
pub struct Order(pub Option<f64>);

impl Order {
    fn rank(self) -> f64 {
        self.0.unwrap_or(f64::INFINITY)
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().total_cmp(&other.rank())
    }
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Action {
    /// Lets it through, in this direction.
    Allow,
    /// Drops it.
    Deny,
    /// Logs it and goes on.
    Log,
    /// Leaves the tier.
    Pass,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Log => "Log",
            Self::Pass => "Pass",
        })
    }
}

/// A tier of policies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tier {
    /// Order among tiers.
    pub order: Order,
    /// What happens to traffic that the tier's policies select but no rule decides: `true` passes it on.
    pub pass_by_default: bool,
}

/// A policy, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Which object.
    pub id: PolicyId,
    /// The tier it is in.
    pub tier: String,
    /// Order inside the tier.
    pub order: Order,
    /// The pods it applies to.
    pub subject: Arc<Selector>,
    /// Rules for traffic to those pods; `None` when the policy says nothing about that direction.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for traffic from those pods.
    pub egress: Option<Vec<Rule>>,
    /// What could not be understood, for people.
    pub problems: Vec<String>,
}

impl Policy {
    /// Rules of a direction, if the policy applies to it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Whether a rule of a direction passes traffic to the next tier.
    #[must_use]
    pub fn passes(&self, direction: Direction) -> bool {
        self.rules(direction)
            .is_some_and(|rules| rules.iter().any(|rule| rule.action == Action::Pass))
    }

    /// All rules of both directions.
    pub fn all_rules(&self) -> impl Iterator<Item = &Rule> {
        self.ingress.iter().chain(&self.egress).flatten()
    }
}

/// A rule, parsed: one action, and conditions that must all hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What happens on a match.
    pub action: Action,
    /// Where it is in the object, such as `ingress[0]`.
    pub origin: String,
    /// Only this family.
    pub family: Option<Family>,
    /// Only this protocol.
    pub protocol: Option<u8>,
    /// Any protocol but this.
    pub not_protocol: Option<u8>,
    /// Only these ICMP messages.
    pub icmp: Option<Icmp>,
    /// Any but these ICMP messages.
    pub not_icmp: Option<Icmp>,
    /// The sender.
    pub source: Entity,
    /// The receiver.
    pub destination: Entity,
}

impl Rule {
    /// A rule without conditions.
    #[must_use]
    pub fn any(action: Action, origin: impl Into<String>) -> Self {
        Self {
            action,
            origin: origin.into(),
            family: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Entity::default(),
            destination: Entity::default(),
        }
    }
}

/// ICMP type and code.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code, if it matters.
    pub code: Option<u8>,
    /// Whether it is about ICMPv6.
    pub v6: bool,
}

/// Conditions on one side of a flow; all must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entity {
    /// One of these peers.
    pub peers: Option<Arc<Peers>>,
    /// None of these peers.
    pub not_peers: Option<Arc<Peers>>,
    /// An address in here.
    pub nets: Option<NetSet>,
    /// No address in here.
    pub not_nets: NetSet,
    /// One of these ports.
    pub ports: Option<Ports>,
    /// None of these ports.
    pub not_ports: Option<Ports>,
    /// A backend of this service.
    pub service: Option<ServiceMatch>,
}

/// A union of selectors and prefixes.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Peers {
    /// Pods and network sets.
    pub selectors: BTreeSet<Arc<Selector>>,
    /// Prefixes written in the policy itself.
    pub nets: NetSet,
}

/// Ports, by number and by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ports {
    /// Inclusive ranges, disjoint, in order.
    pub ranges: Vec<(u16, u16)>,
    /// Names of ports of pods, resolved per pod and protocol.
    pub named: BTreeSet<String>,
}

impl Ports {
    /// Ports from ranges in any order and names.
    #[must_use]
    pub fn new(mut ranges: Vec<(u16, u16)>, named: BTreeSet<String>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::new();
        for (from, to) in ranges {
            match joined.last_mut() {
                Some(last) if last.1.checked_add(1).is_none_or(|next| from <= next) => {
                    last.1 = last.1.max(to);
                }
                _ => joined.push((from, to)),
            }
        }
        Self { ranges: joined, named }
    }

    /// Whether a port is among the numbered ones.
    #[must_use]
    pub fn holds_number(&self, port: u16) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&port))
    }
}

/// The backends of a service.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceMatch {
    /// Key of the Service.
    pub service: Key,
    /// Whether the service's protocol and ports must match too (destinations), or the address only (sources).
    pub ports: bool,
}
