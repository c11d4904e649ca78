//! From the model to nf_tables: one table, chains shared by endpoints with equal policies.
//!
//! ```text
//! raw prerouting    anti-spoofing: a pod sends from its own addresses only
//! forward 0         egress of the sender     ct state -> from_endpoint vmap -> group -> [tier ->] policy
//! forward 1         ingress of the receiver  ct state -> to_endpoint vmap   -> group -> [tier ->] policy
//! input             pod to this host: egress of the sender
//! output            not filtered: the kubelet reaches its pods
//! ```
//! `accept` ends only the base chain it happens in, so both directions are always asked; `drop` ends everything.

pub mod base;
pub mod endpoint;
pub mod policy;

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::{
    calc::{
        members::SetSpec,
        model::{Direction, PolicyId},
    },
    nft::{ChainName, Family, MapName, SetName},
};

/// The families that endpoints of this node use; rules for others would match nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Families {
    /// Some endpoint has an IPv4 address.
    pub v4: bool,
    /// Some endpoint has an IPv6 address.
    pub v6: bool,
}

impl Families {
    /// The families in use.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        let v4 = self.v4.then_some(Family::V4);
        v4.into_iter().chain(self.v6.then_some(Family::V6))
    }
}

/// Verdicts by the interface a packet came in by.
#[must_use]
pub fn from_endpoint() -> MapName {
    MapName::new("from_endpoint")
}

/// Verdicts by the interface a packet leaves by.
#[must_use]
pub fn to_endpoint() -> MapName {
    MapName::new("to_endpoint")
}

/// Pairs of an interface and an address its pod may send from.
#[must_use]
pub fn own_addresses(family: Family) -> SetName {
    SetName::new(format!("own_addresses_{}", suffix(family)))
}

/// Pairs of an interface with itself: traffic of a pod to itself by way of a service.
#[must_use]
pub fn hairpin() -> SetName {
    SetName::new("hairpin")
}

/// The chain of a policy in a direction.
#[must_use]
pub fn policy_chain(id: &PolicyId, direction: Direction) -> ChainName {
    let key = &id.key;
    let owner = key.namespace.as_deref().map_or_else(String::new, |name| format!("{name}/"));
    ChainName::new(format!("{}/{owner}{}/{direction}", id.short_kind(), key.name))
}

/// The set of exact members of a spec.
#[must_use]
pub fn member_set(spec: &SetSpec, family: Family) -> SetName {
    let family = suffix(family);
    SetName::new(match spec {
        SetSpec::Selectors(_) => format!("pods-{}-{family}", hash(&spec.text())),
        SetSpec::NamedPort { name, protocol } => format!("port-{name}-{protocol}-{family}"),
        SetSpec::Service(_) => format!("svc-{}-{family}", hash(&spec.text())),
    })
}

/// The set of prefixes of the network sets that a spec selects.
#[must_use]
pub fn nets_set(spec: &SetSpec, family: Family) -> SetName {
    SetName::new(format!("nets-{}-{}", hash(&spec.text()), suffix(family)))
}

/// `v4` or `v6`.
#[must_use]
pub const fn suffix(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

/// Ten octets of SHA-256 in hexadecimal: enough that two names never meet.
#[must_use]
pub fn hash(text: &str) -> String {
    let mut out = String::with_capacity(20);
    for byte in Sha256::digest(text.as_bytes()).iter().take(10) {
        // Writing to a String can't fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}
