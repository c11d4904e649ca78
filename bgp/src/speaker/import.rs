//! UPDATEs go into the table: errors get the treatment of RFC 7606, then loop checks, then import policy.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use super::{ConnectionId, Speaker};
use crate::{
    attr::{
        self, AttrSet, Community, Context, Decoded, NextHop, PathAttributes, RawKey, Treatment,
        decode_next_hop,
    },
    config::PeerConfig,
    filter::{Action, Source, Subject},
    rib::{Path, PeerId, Rejection},
    session::Negotiated,
    types::{Asn, Families, Family, PeerType, Prefix, Role},
    wire::{
        Nlri, Notification,
        update::{MP_REACH, MP_UNREACH, Parts, Reach, attributes},
    },
};

/// What a peer's routes are judged with.
pub(super) struct Importer<'a> {
    pub(super) id: PeerId,
    pub(super) config: &'a PeerConfig,
    pub(super) peer_type: PeerType,
}

/// One half of an UPDATE: prefixes of a family and the attributes they share.
type Announcement<'a> = (Nlri<'a>, Result<Arc<AttrSet>, ()>);

impl Speaker {
    pub(super) fn handle_update(&mut self, id: PeerId, connection: ConnectionId, body: &[u8]) {
        let Some((session, peer)) = self.peer_of(connection) else { return };
        let (Some(negotiated), config) = (session.negotiated.clone(), Arc::clone(&peer.config))
        else {
            return;
        };
        let peer_type = config.peer_type(self.config.local_as);
        let importer = Importer { id, config: &config, peer_type };
        if let Err(notification) = self.import(&importer, &negotiated, body) {
            self.fail(connection, notification);
            return;
        }
        if let Some(limit) = config.max_prefixes {
            self.check_limit(id, connection, limit);
        }
    }

    /// RFC 4486 §4, with a warning before.
    fn check_limit(&mut self, id: PeerId, connection: ConnectionId, limit: usize) {
        let received = self.rib.count(id).received;
        if received > limit {
            self.exceed_prefixes(connection, limit);
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let percent = usize::from(peer.config.max_prefixes_warning);
        let near = received.saturating_mul(100) >= limit.saturating_mul(percent);
        if near && !peer.near_limit {
            tracing::warn!(peer = %peer.config.name, received, limit, "close to max-prefixes");
        }
        peer.near_limit = near;
    }

    fn import(
        &mut self,
        importer: &Importer<'_>,
        negotiated: &Negotiated,
        body: &[u8],
    ) -> Result<(), Notification> {
        let parts = Parts::find(body)?;
        if let Some(family) = parts.end_of_rib() {
            self.end_of_rib(importer.id, family);
            return Ok(());
        }
        let families = negotiated.families;
        let (v4, mp) = self.announcements(importer, negotiated, &parts)?;
        if families.ipv4 {
            self.remove(importer.id, parts.withdrawn);
        }
        if let Some(unreach) = parts.unreach
            && unreach.family.is_some_and(|family| families.contains(family))
        {
            self.remove(importer.id, unreach.nlri);
        }
        let reach = parts.reach.and_then(|reach| Some((reach.family?, reach.nlri)));
        for (family, (nlri, set)) in [
            Some((Family::Ipv4, (parts.announced, v4))),
            reach.map(|(family, nlri)| (family, (nlri, mp))),
        ]
        .into_iter()
        .flatten()
        {
            if families.contains(family) {
                self.announce(importer, (nlri, set));
            }
        }
        Ok(())
    }

    fn remove(&mut self, id: PeerId, nlri: Nlri<'_>) {
        for prefix in nlri.iter() {
            self.rib.remove(&prefix, id);
        }
    }

    fn announce(&mut self, importer: &Importer<'_>, (nlri, set): Announcement<'_>) {
        let Ok(set) = set else {
            self.remove(importer.id, nlri);
            return;
        };
        // Without conditions on the prefix one verdict holds for all of them.
        let mut shared = None;
        for prefix in nlri.iter() {
            let accepted = match &shared {
                Some(accepted) => Clone::clone(accepted),
                None => self.accept(importer, &prefix, &set),
            };
            if importer.config.import.ignores_prefix() {
                shared = Some(accepted.clone());
            }
            let received = Arc::clone(&set);
            self.rib.insert(prefix, Path { source: importer.id, stale: false, received, accepted });
        }
    }

    /// Reads the attributes, once per distinct bytes: for the NLRI field, and for MP_REACH_NLRI.
    #[expect(clippy::type_complexity, reason = "two of the same, used right away")]
    fn announcements(
        &mut self,
        importer: &Importer<'_>,
        negotiated: &Negotiated,
        parts: &Parts<'_>,
    ) -> Result<(Result<Arc<AttrSet>, ()>, Result<Arc<AttrSet>, ()>), Notification> {
        let mut pair = (Err(()), Err(()));
        if !parts.announces() {
            return Ok(pair);
        }
        let context =
            Context { peer_type: importer.peer_type, four_octet_as: negotiated.four_octet_as };
        if !parts.announced.is_empty() {
            pair.0 = self.attributes(importer.id, context, parts, None)?;
        }
        if let Some(reach) = parts.reach.filter(|reach| !reach.nlri.is_empty()) {
            pair.1 = self.attributes(importer.id, context, parts, Some(reach))?;
        }
        Ok(pair)
    }

    fn attributes(
        &mut self,
        id: PeerId,
        context: Context,
        parts: &Parts<'_>,
        reach: Option<Reach<'_>>,
    ) -> Result<Result<Arc<AttrSet>, ()>, Notification> {
        let bytes = without_multiprotocol(parts);
        let next_hop = reach.map_or(&[][..], |reach| reach.next_hop);
        let key = RawKey::new(context, next_hop, &bytes);
        if !parts.overrun
            && let Some(known) = self.interner.find_raw(&key)
        {
            return Ok(Ok(known));
        }
        let mut decoded = attr::decode(parts.section, context)?;
        if let Some(reach) = reach {
            decoded.attributes.next_hop = decode_next_hop(reach.next_hop);
        }
        self.count_faults(id, &decoded);
        // RFC 7606 §3 d: NEXT_HOP is mandatory for the NLRI field.
        if decoded.withdraw().is_some() || decoded.attributes.next_hop.is_none() {
            tracing::warn!(faults = ?decoded.faults, bytes = ?parts.section, "treated as withdraw");
            return Ok(Err(()));
        }
        let set = self.interner.intern(decoded.attributes);
        if decoded.faults.is_empty() {
            self.interner.remember_raw(&key, &set);
        }
        Ok(Ok(set))
    }

    fn count_faults(&mut self, id: PeerId, decoded: &Decoded) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let discarded =
            decoded.faults.iter().filter(|fault| fault.treatment == Treatment::Discard).count();
        let discarded = u64::try_from(discarded).unwrap_or(u64::MAX);
        peer.discarded_attributes = peer.discarded_attributes.saturating_add(discarded);
        if decoded.withdraw().is_some() || decoded.attributes.next_hop.is_none() {
            peer.treated_as_withdraw = peer.treated_as_withdraw.saturating_add(1);
        }
    }

    /// Returns what is made of a received path.
    pub(super) fn accept(
        &mut self,
        importer: &Importer<'_>,
        prefix: &Prefix,
        set: &Arc<AttrSet>,
    ) -> Result<Arc<AttrSet>, Rejection> {
        self.check_loops(importer, set)?;
        let only_to_customer = check_leak(importer, set)?;
        let subject = Subject {
            prefix: *prefix,
            attributes: set,
            source: Source::Peers,
            peer_type: importer.peer_type,
        };
        let verdict = importer.config.import.judge(&subject);
        if verdict.action == Action::Reject {
            return Err(Rejection::Policy);
        }
        // RFC 8326 §4.2.
        let leaving = importer.config.graceful_shutdown
            || importer.peer_type == PeerType::External && set.has(Community::GRACEFUL_SHUTDOWN);
        if verdict.operations.is_empty() && !leaving && only_to_customer.is_none() {
            return Ok(Arc::clone(set));
        }
        let mut attributes: PathAttributes = (***set).clone();
        for operation in verdict.operations {
            operation.apply(&mut attributes);
        }
        if leaving {
            attributes.local_pref = Some(0);
        }
        if let Some(asn) = only_to_customer {
            attributes.mark_only_to_customer(asn);
        }
        Ok(self.interner.intern(attributes))
    }

    fn check_loops(&self, importer: &Importer<'_>, set: &AttrSet) -> Result<(), Rejection> {
        let config = importer.config;
        // The AS we pretend to be is ours too.
        let own = [Some(self.config.local_as), config.local_as];
        if own.into_iter().flatten().any(|own| set.as_path.count(own) > config.allow_own_as) {
            return Err(Rejection::OwnAs);
        }
        // RFC 4456 §8.
        if set.originator_id == Some(self.config.router_id) {
            return Err(Rejection::OwnOriginator);
        }
        let cluster = self.config.cluster_id.unwrap_or(self.config.router_id);
        if set.cluster_list.contains(&cluster) {
            return Err(Rejection::OwnCluster);
        }
        match set.next_hop {
            // FRR sends these when it has no IPv6 address there; no kernel has a way to one.
            Some(NextHop { address: IpAddr::V6(address), .. })
                if address.to_ipv4_mapped().is_some() =>
            {
                Err(Rejection::MappedNextHop)
            }
            Some(next_hop) if self.is_usable(importer.id, &next_hop.address) => Ok(()),
            _ => Err(Rejection::NextHop),
        }
    }

    /// RFC 4271 §6.3: a next hop must be a router, and not this one.
    fn is_usable(&self, id: PeerId, next_hop: &IpAddr) -> bool {
        let strange = match next_hop {
            IpAddr::V4(address) => {
                let [first, ..] = address.octets();
                first == 0 || address.is_loopback() && !self.is_loopback_session(id) || first >= 224
            }
            IpAddr::V6(address) => {
                address.is_unspecified() || address.is_loopback() || address.is_multicast()
            }
        };
        let own = self.peers.get(&id).and_then(|peer| peer.established);
        let own = own.and_then(|connection| self.connections.get(&connection)?.local);
        !strange && own != Some(*next_hop)
    }

    /// Speakers on one machine may talk over 127.0.0.0/8.
    fn is_loopback_session(&self, id: PeerId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.config.address.is_loopback())
    }

    /// Runs import policy again over what a peer sent.
    pub(super) fn reimport(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let config = Arc::clone(&peer.config);
        let peer_type = config.peer_type(self.config.local_as);
        let long_lived: Families = peer.long_lived.keys().copied().collect();
        let importer = Importer { id, config: &config, peer_type };
        for (prefix, path) in self.rib.paths_of(id) {
            let mut accepted = self.accept(&importer, &prefix, &path.received);
            if path.stale && long_lived.contains(prefix.family()) {
                accepted = self.mark_long_lived(accepted);
            }
            self.rib.insert(prefix, Path { accepted, ..path });
        }
    }
}

/// RFC 9234 §5, on receipt: refuses leaks; returns the AS to mark the route with.
fn check_leak(importer: &Importer<'_>, set: &AttrSet) -> Result<Option<Asn>, Rejection> {
    let Some(role) = importer.config.role.filter(|_| importer.peer_type == PeerType::External)
    else {
        return Ok(None);
    };
    let asn = importer.config.asn;
    match (role, set.only_to_customer()) {
        (Role::Provider | Role::RouteServer, Some(_)) => Err(Rejection::RouteLeak),
        (Role::Peer, Some(other)) if other != asn => Err(Rejection::RouteLeak),
        (Role::Customer | Role::RouteServerClient | Role::Peer, None) => Ok(Some(asn)),
        _ => Ok(None),
    }
}

/// The attributes that all prefixes share. Usually there are no others and nothing is copied.
fn without_multiprotocol<'a>(parts: &Parts<'a>) -> Cow<'a, [u8]> {
    if parts.reach.is_none() && parts.unreach.is_none() {
        return Cow::Borrowed(parts.section);
    }
    let mut bytes = Vec::with_capacity(parts.section.len());
    for attribute in attributes(parts.section).map_while(Result::ok) {
        // Wrong flags are a fault and must not hit the cache: they count.
        bytes.extend([attribute.flags, attribute.code]);
        if !matches!(attribute.code, MP_REACH | MP_UNREACH) {
            bytes.extend(u16::try_from(attribute.value.len()).unwrap_or(0).to_be_bytes());
            bytes.extend_from_slice(attribute.value);
        }
    }
    Cow::Owned(bytes)
}
