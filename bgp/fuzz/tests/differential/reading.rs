//! What an UPDATE means, in words that all decoders share.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What the meaning of the bytes depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) internal: bool,
    pub(crate) four_octets: bool,
    pub(crate) add_path: bool,
}

/// A prefix and which of its paths; 0 without ADD-PATH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) address: IpAddr,
    pub(crate) length: u8,
    pub(crate) path_id: u32,
}

impl Route {
    /// RFC 4271 §4.3: what is behind the length does not matter.
    pub(crate) fn new(address: IpAddr, length: u8, path_id: u32) -> Self {
        let address = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Ipv4Addr::from(u32::from(address) & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                Ipv6Addr::from(u128::from(address) & mask).into()
            }
        };
        Self { address, length, path_id }
    }
}

/// The attributes of a route. Communities are sets: their order says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) origin: u8,
    pub(crate) as_path: Vec<u32>,
    pub(crate) next_hop: Option<IpAddr>,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: BTreeSet<u32>,
    pub(crate) large_communities: BTreeSet<[u32; 3]>,
    pub(crate) originator: Option<u32>,
    pub(crate) clusters: Vec<u32>,
}

/// What a decoder makes of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) announced: BTreeMap<Route, Attributes>,
    pub(crate) withdrawn: BTreeSet<Route>,
}

impl Reading {
    /// A route that is both is announced (RFC 4271 §4.3). What only internal peers may say is discarded from others (RFC
    /// 7606 §7.5, §7.9, §7.10).
    pub(crate) fn settle(mut self, terms: Terms) -> Self {
        for attributes in self.announced.values_mut().filter(|_| !terms.internal) {
            attributes.local_pref = None;
            attributes.originator = None;
            attributes.clusters.clear();
        }
        self.withdrawn.retain(|route| !self.announced.contains_key(route));
        self
    }

    pub(crate) fn routes(&self) -> BTreeSet<Route> {
        self.announced.keys().chain(&self.withdrawn).copied().collect()
    }
}

/// A reading, or what is wrong with the message.
pub(crate) type Verdict = Result<Reading, String>;
