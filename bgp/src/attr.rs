//! Path attributes: the values, and the interned sets that routes share.

mod community;
mod decode;
mod encode;
mod interner;
mod next_hops;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub use self::community::{Community, ExtendedCommunity, LargeCommunity, MalformedCommunity};
pub(crate) use self::{
    decode::{Context, Decoded, Treatment, decode, decode_next_hop},
    encode::{encode_block, encode_mp_reach_head, encode_next_hop},
    interner::{AttrId, AttrSet, Interner, RawKey},
    next_hops::{NextHopId, NextHops},
};
use crate::types::{Asn, RouterId};

/// Codes of the attributes we know.
pub(crate) mod code {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub(crate) const AIGP: u8 = 26;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
    pub(crate) const OTC: u8 = 35;
    pub(crate) const PREFIX_SID: u8 = 40;
}

/// Flag bits of an attribute.
pub(crate) mod flag {
    pub(crate) const OPTIONAL: u8 = 0x80;
    pub(crate) const TRANSITIVE: u8 = 0x40;
    pub(crate) const PARTIAL: u8 = 0x20;
    pub(crate) const EXTENDED_LENGTH: u8 = 0x10;
}

/// LOCAL_PREF of a path without one.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

/// Where a route came from in the first place; smaller is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// IGP.
    #[default]
    Igp,
    /// EGP.
    Egp,
    /// INCOMPLETE.
    Incomplete,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igp => "igp",
            Self::Egp => "egp",
            Self::Incomplete => "incomplete",
        })
    }
}

/// The autonomous systems a route went through, nearest first.
///
/// Only sequences exist: sets are refused (RFC 9774), confederations are not ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AsPath(pub Vec<Asn>);

impl AsPath {
    /// Returns how often the AS is in the path.
    pub fn count(&self, asn: Asn) -> usize {
        self.0.iter().filter(|each| **each == asn).count()
    }

    /// Returns the AS next to us; none for a route of our own AS.
    pub fn neighbour(&self) -> Option<Asn> {
        self.0.first().copied()
    }

    /// Puts the AS in front.
    pub fn prepend(&mut self, asn: Asn) {
        self.0.insert(0, asn);
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, asn) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            asn.fmt(f)?;
        }
        Ok(())
    }
}

/// The router to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The address.
    pub address: IpAddr,
    /// The second address of an IPv6 next hop (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        Self { address, link_local: None }
    }
}

/// AGGREGATOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// AS of the aggregating router.
    pub asn: Asn,
    /// Its identifier.
    pub router_id: Ipv4Addr,
}

/// An optional transitive attribute that we pass on unread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnknownAttribute {
    /// Flags; partial is set.
    pub flags: u8,
    /// Code.
    pub code: u8,
    /// Value.
    pub value: Vec<u8>,
}

/// The attributes of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathAttributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, with AS4_PATH merged in.
    pub as_path: AsPath,
    /// NEXT_HOP, or the next hop of MP_REACH_NLRI; none means the speaker itself.
    pub next_hop: Option<NextHop>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<Community>,
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub extended_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY (RFC 8092).
    pub large_communities: Vec<LargeCommunity>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<RouterId>,
    /// CLUSTER_LIST (RFC 4456), newest first.
    pub cluster_list: Vec<RouterId>,
    /// Those of the known optional transitive ones above that somebody on the way did not know (RFC 4271 §5).
    pub partial: Partial,
    /// What we do not understand but must pass on.
    pub unknown: Vec<UnknownAttribute>,
}

/// Known optional transitive attributes whose partial bit is set, which nobody may clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Partial {
    aggregator: bool,
    communities: bool,
    extended_communities: bool,
    large_communities: bool,
}

impl Partial {
    fn place(&mut self, code: u8) -> Option<&mut bool> {
        Some(match code {
            code::AGGREGATOR => &mut self.aggregator,
            code::COMMUNITIES => &mut self.communities,
            code::EXTENDED_COMMUNITIES => &mut self.extended_communities,
            code::LARGE_COMMUNITIES => &mut self.large_communities,
            _ => return None,
        })
    }

    /// Takes note of the bit; attributes that are passed on unread keep theirs by themselves.
    pub(crate) fn insert(&mut self, code: u8) {
        if let Some(place) = self.place(code) {
            *place = true;
        }
    }

    /// Returns the flag of an attribute.
    pub(crate) fn flag(mut self, code: u8) -> u8 {
        if self.place(code).is_some_and(|partial| *partial) { flag::PARTIAL } else { 0 }
    }
}

impl PathAttributes {
    /// Says whether every list can be written: none is longer than two octets can say (RFC 4271 §4.3). What arrived was, but an
    /// AS_PATH of two-octet numbers is twice as long with four, and filters add to it.
    pub(crate) fn fits(&self) -> bool {
        let systems = self.as_path.0.len();
        let segments = systems.div_ceil(usize::from(u8::MAX));
        let path = systems.saturating_mul(4).saturating_add(segments.saturating_mul(2));
        let lists = [
            path,
            self.communities.len().saturating_mul(4),
            self.extended_communities.len().saturating_mul(8),
            self.large_communities.len().saturating_mul(12),
            self.cluster_list.len().saturating_mul(4),
        ];
        lists.into_iter().all(|length| length <= usize::from(u16::MAX))
    }

    /// Returns the AS of ONLY_TO_CUSTOMER (RFC 9234 §5). It is kept among the unread ones: without roles it goes on as
    /// it came.
    pub fn only_to_customer(&self) -> Option<Asn> {
        let found = self.unknown.iter().find(|each| each.code == code::OTC)?;
        Some(Asn(u32::from_be_bytes(<[u8; 4]>::try_from(found.value.as_slice()).ok()?)))
    }

    /// Attaches ONLY_TO_CUSTOMER unless it is there.
    pub fn mark_only_to_customer(&mut self, asn: Asn) {
        if self.only_to_customer().is_none() {
            let flags = flag::OPTIONAL | flag::TRANSITIVE;
            let value = asn.0.to_be_bytes().to_vec();
            self.unknown.push(UnknownAttribute { flags, code: code::OTC, value });
            self.unknown.sort_by_key(|unknown| unknown.code);
        }
    }

    /// Attaches a community unless it is there.
    pub fn add_community(&mut self, community: Community) {
        if !self.has(community) {
            self.communities.push(community);
            self.communities.sort_unstable();
        }
    }

    /// Says whether the community is attached.
    pub fn has(&self, community: Community) -> bool {
        self.communities.contains(&community)
    }
}
