//! Members of groups: peers that come by connecting to us, or by showing up on an interface, and go when nothing is left
//! of them.

use std::{net::IpAddr, sync::Arc, time::Instant};

use super::{Speaker, peer::Peer};
use crate::{
    config::{Members, PeerConfig, PeerGroup},
    rib::PeerId,
    wire::{Frame, Kind, Open},
};

impl Speaker {
    /// A router showed up on an interface, with its link-local address. Early and repeated calls are harmless.
    pub fn handle_neighbour(&mut self, interface: &str, address: IpAddr, now: Instant) {
        self.now = now;
        let on_interface = Members::Interface(interface.to_owned());
        let wanted = self.config.groups.iter().find(|group| group.members == on_interface);
        let Some(group) = wanted.cloned() else { return };
        let known = self.members_of(&group.name);
        if let Some((id, peer)) = known.first() {
            if *peer == address {
                return;
            }
            // Another router, or the same with another address.
            self.remove_peer(*id);
        }
        self.add_member(&group, address);
    }

    /// The router on an interface has not shown up for long. While its session is up, or its routes are kept for its
    /// return, that means nothing.
    pub fn handle_neighbour_silent(&mut self, interface: &str, now: Instant) {
        self.now = now;
        let is_gone = |peer: &Peer| peer.established.is_none() && peer.stale.is_empty();
        let all_gone = self.peers.values().all(|peer| {
            peer.config.interface.as_deref() != Some(interface)
                || peer.group.is_none()
                || is_gone(peer)
        });
        if all_gone {
            self.handle_neighbour_lost(interface, now);
        }
    }

    /// The router on an interface is gone for good.
    pub fn handle_neighbour_lost(&mut self, interface: &str, now: Instant) {
        self.now = now;
        let on_interface = Members::Interface(interface.to_owned());
        let group = self.config.groups.iter().find(|group| group.members == on_interface);
        let Some(name) = group.map(|group| group.name.clone()) else { return };
        for (id, _) in self.members_of(&name) {
            self.remove_peer(id);
        }
    }

    /// Makes a member of whoever connects from a range, unless it is full.
    pub(super) fn admit(&mut self, remote: IpAddr) -> Option<PeerId> {
        let matching = |group: &&PeerGroup| match &group.members {
            Members::Range(prefix) => prefix.contains_address(remote),
            Members::Interface(_) => false,
        };
        let group = self.config.groups.iter().find(matching)?.clone();
        if self.members_of(&group.name).len() >= group.limit {
            tracing::warn!(group = %group.name, limit = group.limit, %remote, "the group is full");
            return None;
        }
        Some(self.add_member(&group, remote))
    }

    fn members_of(&self, group: &str) -> Vec<(PeerId, IpAddr)> {
        let members = self.peers.iter().filter(|(_, peer)| peer.group.as_deref() == Some(group));
        members.map(|(id, peer)| (*id, peer.config.address)).collect()
    }

    fn add_member(&mut self, group: &PeerGroup, address: IpAddr) -> PeerId {
        let config = group.member(address, self.config.local_as);
        self.add_peer(config, Some(group.name.clone()))
    }

    /// The configuration that a member has after a change; none: it does not belong to us any more.
    pub(super) fn member_config(&self, peer: &Peer) -> Option<PeerConfig> {
        let name = peer.group.as_deref()?;
        let address = peer.config.address;
        if self.config.peers.iter().any(|named| named.address == address) {
            return None;
        }
        let group = self.config.groups.iter().find(|group| group.name == name)?;
        let belongs = match &group.members {
            Members::Range(prefix) => prefix.contains_address(address),
            Members::Interface(interface) => peer.config.interface.as_ref() == Some(interface),
        };
        let mut config = group.member(address, self.config.local_as);
        // What it said of itself, if that is still acceptable.
        if config.asn.0 == 0 && group.asns.accepts(peer.config.asn, self.local_as_of(&config)) {
            config.asn = peer.config.asn;
        }
        belongs.then_some(config)
    }

    fn local_as_of(&self, config: &PeerConfig) -> crate::types::Asn {
        config.local_as.unwrap_or(self.config.local_as)
    }

    /// An OPEN tells the AS of a member.
    pub(super) fn learn_as(&mut self, id: PeerId, frame: &Frame<'_>) {
        let Some(peer) = self.peers.get(&id).filter(|_| frame.kind == Kind::Open) else { return };
        let Some(group) = peer.group.as_deref().filter(|_| peer.established.is_none()) else {
            return;
        };
        let Some(group) = self.config.groups.iter().find(|each| each.name == group) else { return };
        let Ok(open) = Open::decode(frame.body) else { return };
        if group.asns.accepts(open.asn, self.local_as_of(&peer.config))
            && peer.config.asn != open.asn
            && let Some(peer) = self.peers.get_mut(&id)
        {
            Arc::make_mut(&mut peer.config).asn = open.asn;
        }
    }

    /// Forgets a member of a range once it has no connection, no routes and no penalty left.
    pub(super) fn forget_member(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let waits = peer.refuse_until.is_some_and(|until| self.now < until);
        let in_range = peer.group.is_some() && peer.config.passive;
        let idle = peer.connections().next().is_none() && peer.stale.is_empty();
        if in_range && idle && !waits {
            self.remove_peer(id);
        }
    }
}
