//! This machine's own addresses and the networks it is on: what a next hop may be (RFC 4271 §6.3).

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use super::Speaker;
use crate::{
    rib::{PeerId, Task},
    types::{Prefix, is_link_local},
};

/// Addresses of this machine and the networks it shares with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalNetworks {
    /// Every address of every interface. Link-local ones do not count: they may be somebody else's on another link.
    pub addresses: BTreeSet<IpAddr>,
    /// The networks of interfaces with neighbours: loopback has none.
    pub networks: BTreeSet<Prefix>,
}

impl LocalNetworks {
    /// Says whether packets to the address end here.
    pub(super) fn is_own(&self, address: &IpAddr) -> bool {
        self.addresses.contains(address)
    }

    /// Says whether a router with this address is one hop away; nobody is while the networks are not known.
    pub(super) fn is_neighbour(&self, address: &IpAddr) -> bool {
        let mut networks = self.networks.iter();
        networks.any(|network| network.contains_address(*address))
            || is_link_local(address) && !self.networks.is_empty()
    }
}

impl Speaker {
    /// Tells which addresses and networks are this machine's; routes are judged again if that matters. Without it no
    /// peer counts as a neighbour, and only the address of a session as our own.
    pub fn handle_networks(&mut self, mut networks: LocalNetworks, now: Instant) {
        self.now = now;
        // They say nothing, and every new interface brings one.
        networks.addresses.retain(|address| !is_link_local(address));
        if self.networks == networks {
            return;
        }
        let old = std::mem::replace(&mut self.networks, networks);
        let matters = |address: &IpAddr| {
            old.is_own(address) != self.networks.is_own(address)
                || old.is_neighbour(address) != self.networks.is_neighbour(address)
        };
        let next_hop = self.interner.next_hops.iter().any(|address| matters(&address));
        let peers = self.peers.iter();
        let judged: Vec<PeerId> = peers
            .filter(|(_, peer)| next_hop || matters(&peer.config.address))
            .map(|(id, _)| *id)
            .collect();
        judged.into_iter().for_each(|id| self.order(id, Task::Reimport));
    }
}
