//! UPDATEs go into the table: errors get the treatment of RFC 7606, then loop checks, then import policy.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use super::{ConnectionId, Speaker};
use crate::{
    attr::{
        self, AttrId, Community, Context, Decoded, NextHop, PathAttributes, RawKey, Treatment,
        decode_next_hop, flag,
    },
    config::{Blackhole, PeerConfig},
    filter::{Action, AnyCommunity, Operation, Source, Subject, Verdict},
    rib::{Accepted, Path, PathKey, PeerId, Rejection},
    session::Negotiated,
    types::{Asn, Families, Family, PeerType, Prefix, Role, is_link_local},
    wire::{
        Item, Nlri, Notification,
        update::{MP_REACH, MP_UNREACH, Parts, Reach, attributes},
    },
};

/// What a peer's routes are judged with.
#[derive(Clone, Debug)]
pub(super) struct Importer {
    pub(super) id: PeerId,
    pub(super) config: Arc<PeerConfig>,
    pub(super) peer_type: PeerType,
    /// Our address in the session: no next hop for us.
    pub(super) local: Option<IpAddr>,
    /// Whether the peer is of another system and on a network of ours: so must its next hops be (RFC 4271 §6.3 b).
    pub(super) on_link: bool,
}

/// A set of attributes, and what is in it if that is known already.
#[derive(Debug)]
struct Learned {
    set: AttrId,
    attributes: Option<PathAttributes>,
}

impl Speaker {
    /// Returns what the routes of a peer are judged with.
    pub(super) fn importer(&self, id: PeerId) -> Option<Importer> {
        let peer = self.peers.get(&id)?;
        let config = Arc::clone(&peer.config);
        let peer_type = config.peer_type(self.config.local_as);
        let session = peer.established.and_then(|connection| self.connections.get(&connection));
        let near = !config.multihop && self.networks.is_neighbour(&config.address);
        let on_link = peer_type == PeerType::External && near;
        let local = session.and_then(|session| session.local);
        Some(Importer { id, config, peer_type, local, on_link })
    }

    /// Says whether the session goes on.
    pub(super) fn handle_update(
        &mut self,
        importer: &Importer,
        negotiated: &Negotiated,
        connection: ConnectionId,
        update: Result<Parts<'_>, Notification>,
    ) -> bool {
        let imported = update.and_then(|parts| self.import(importer, negotiated, &parts));
        if let Err(notification) = imported {
            self.fail(connection, notification);
            return false;
        }
        match importer.config.max_prefixes {
            Some(limit) => self.check_limit(importer.id, connection, limit),
            None => true,
        }
    }

    /// RFC 4486 §4, with a warning before.
    fn check_limit(&mut self, id: PeerId, connection: ConnectionId, limit: usize) -> bool {
        // What it announced before its restart, or before a refresh, it did not announce besides.
        let received = self.rib.count(id).fresh();
        if received > limit {
            self.exceed_prefixes(connection, limit);
            return false;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let percent = usize::from(peer.config.max_prefixes_warning);
        let near = received.saturating_mul(100) >= limit.saturating_mul(percent);
        if near && !peer.near_limit {
            tracing::warn!(peer = %peer.config.name, received, limit, "close to max-prefixes");
        }
        peer.near_limit = near;
        true
    }

    fn import(
        &mut self,
        importer: &Importer,
        negotiated: &Negotiated,
        parts: &Parts<'_>,
    ) -> Result<(), Notification> {
        if let Some(family) = parts.end_of_rib() {
            self.end_of_rib(importer.id, family);
            self.monitor_end_of_rib(importer.id, family);
            return Ok(());
        }
        let context =
            Context { peer_type: importer.peer_type, four_octet_as: negotiated.four_octet_as };
        if let Some(reach) = parts.reach
            && reach.family == Some(Family::Ipv4)
            && reach.next_hop.len() != 4
            && !negotiated.extended_next_hop
        {
            return Err(Notification::new(3, 9, reach.whole));
        }
        // Both halves are read before anything is done: an error may end the session.
        let v4 = self.learn(importer, context, parts, None)?;
        let mp = match parts.reach {
            Some(reach) => self.learn(importer, context, parts, Some(reach))?,
            None => None,
        };
        let families = negotiated.families;
        let wants_mp = parts
            .reach
            .and_then(|reach| reach.family)
            .is_some_and(|family| families.contains(family));
        if families.ipv4 {
            self.remove(importer.id, parts.withdrawn);
        }
        if let Some(unreach) = parts.unreach
            && unreach.family.is_some_and(|family| families.contains(family))
        {
            self.remove(importer.id, unreach.nlri);
        }
        if families.ipv4 && !parts.announced.is_empty() {
            self.announce(importer, parts.announced, v4);
        }
        if let Some(reach) = parts.reach.filter(|_| wants_mp) {
            self.announce(importer, reach.nlri, mp);
        }
        Ok(())
    }

    fn remove(&mut self, source: PeerId, nlri: Nlri<'_>) {
        let mut items = nlri.iter();
        let mut lookups = std::mem::take(&mut self.lookups);
        while self.rib.look_up(&mut items, &mut lookups) {
            for lookup in &lookups {
                self.rib.remove_at(*lookup, source);
            }
        }
        self.lookups = lookups;
    }

    fn announce(&mut self, importer: &Importer, nlri: Nlri<'_>, learned: Option<Learned>) {
        let Some(Learned { set, attributes }) = learned else {
            self.remove(importer.id, nlri);
            return;
        };
        let attributes = attributes.unwrap_or_else(|| self.interner.attributes(set));
        // Without conditions on the prefix one verdict holds for all of them.
        let blackhole = matches!(importer.config.blackhole, Blackhole::Within(_))
            && attributes.has(Community::BLACKHOLE);
        let uniform = importer.config.import.ignores_prefix() && !blackhole;
        let mut shared = None;
        let mut items = nlri.iter();
        let mut lookups = std::mem::take(&mut self.lookups);
        while self.rib.look_up(&mut items, &mut lookups) {
            for lookup in &lookups {
                let Item { prefix, path_id } = lookup.item;
                let accepted = match shared {
                    Some(shared) if prefix.is_unicast() => shared,
                    _ => self.accept(importer, &prefix, set, &attributes),
                };
                if uniform && prefix.is_unicast() {
                    shared = Some(accepted);
                }
                let key = PathKey { source: importer.id, path_id };
                self.rib.insert_at(*lookup, Path::new(key, set, accepted));
            }
        }
        self.lookups = lookups;
    }

    /// Reads the attributes, once per distinct bytes: those of the NLRI field, or those of MP_REACH_NLRI. `None`: there
    /// are no prefixes there, or they count as withdrawn.
    fn learn(
        &mut self,
        importer: &Importer,
        context: Context,
        parts: &Parts<'_>,
        reach: Option<Reach<'_>>,
    ) -> Result<Option<Learned>, Notification> {
        let nlri = reach.map_or(parts.announced, |reach| reach.nlri);
        if nlri.is_empty() {
            return Ok(None);
        }
        let bytes = without_multiprotocol(parts);
        let next_hop = reach.map_or(&[][..], |reach| usable_half(reach.next_hop, importer));
        let key = RawKey { context, next_hop, bytes: &bytes };
        let found = self.interner.find(&key);
        if !parts.overrun
            && let Ok(set) = found
        {
            return Ok(Some(Learned { set, attributes: None }));
        }
        let mut decoded = attr::decode(parts.section, context)?;
        if reach.is_some() {
            decoded.attributes.next_hop = decode_next_hop(next_hop);
        }
        self.count_faults(importer.id, &decoded, parts.section);
        // RFC 7606 §3 d: NEXT_HOP is mandatory for the NLRI field.
        if decoded.withdraw().is_some() || decoded.attributes.next_hop.is_none() {
            return Ok(None);
        }
        let attributes = decoded.attributes;
        let set = match found {
            Err(absent) if decoded.faults.is_empty() => {
                self.interner.insert(absent, &key, &attributes)
            }
            // These bytes must be judged, and counted, every time.
            _ => self.interner.intern(&attributes),
        };
        Ok(Some(Learned { set, attributes: Some(attributes) }))
    }

    fn count_faults(&mut self, id: PeerId, decoded: &Decoded, bytes: &[u8]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let discarded =
            decoded.faults.iter().filter(|fault| fault.treatment == Treatment::Discard).count();
        let discarded = u64::try_from(discarded).unwrap_or(u64::MAX);
        peer.discarded_attributes = peer.discarded_attributes.saturating_add(discarded);
        if decoded.withdraw().is_some() || decoded.attributes.next_hop.is_none() {
            peer.treated_as_withdraw = peer.treated_as_withdraw.saturating_add(1);
            let count = peer.treated_as_withdraw;
            // A peer that errs errs often: all are counted, fewer and fewer are told.
            if count.is_power_of_two() {
                let (peer, faults) = (&peer.config.name, &decoded.faults);
                tracing::warn!(%peer, count, ?faults, ?bytes, "treated as withdraw");
            }
        }
    }

    /// Returns what is made of a received path.
    pub(super) fn accept(
        &mut self,
        importer: &Importer,
        prefix: &Prefix,
        set: AttrId,
        received: &PathAttributes,
    ) -> Result<Accepted, Rejection> {
        let judged = self.judge(importer, prefix, set, received);
        if let Err(why) = judged
            && why.is_semantic()
        {
            self.log_ignored(importer.id, prefix, received, why);
        }
        judged
    }

    /// RFC 4271 §6.3: what makes no sense is logged and ignored, and the session goes on.
    fn log_ignored(
        &mut self,
        id: PeerId,
        prefix: &Prefix,
        received: &PathAttributes,
        why: Rejection,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.ignored_routes = peer.ignored_routes.saturating_add(1);
        let count = peer.ignored_routes;
        // As with malformed messages: all are counted, fewer and fewer are told.
        if count.is_power_of_two() {
            let next_hop = received.next_hop.map(|next_hop| next_hop.address);
            tracing::warn!(peer = %peer.config.name, %prefix, ?next_hop, count, "route ignored: {why}");
        }
    }

    fn judge(
        &mut self,
        importer: &Importer,
        prefix: &Prefix,
        set: AttrId,
        received: &PathAttributes,
    ) -> Result<Accepted, Rejection> {
        if !prefix.is_unicast() {
            return Err(Rejection::Martian);
        }
        self.check_loops(importer, received)?;
        let only_to_customer = check_leak(importer, received)?;
        let subject = Subject {
            prefix: *prefix,
            attributes: received,
            source: Source::Peers,
            peer_type: importer.peer_type,
        };
        let verdict = importer.config.import.judge(&subject);
        let blackhole = is_blackhole(importer, &subject, &verdict);
        let operations = match verdict.action {
            Action::Accept => verdict.operations,
            Action::Reject if blackhole => &[],
            Action::Reject => return Err(Rejection::Policy),
        };
        // What is dropped needs no next hop.
        if importer.on_link && !blackhole {
            self.check_on_link(importer, received)?;
        }
        // RFC 8326 §4.2.
        let leaving = importer.config.graceful_shutdown
            || importer.peer_type == PeerType::External
                && received.has(Community::GRACEFUL_SHUTDOWN);
        if operations.is_empty() && !leaving && only_to_customer.is_none() && !blackhole {
            return Ok(set.into());
        }
        let mut attributes = received.clone();
        for operation in operations {
            operation.apply(&mut attributes);
        }
        if leaving {
            attributes.local_pref = Some(0);
        }
        if let Some(asn) = only_to_customer {
            attributes.mark_only_to_customer(asn);
        }
        if blackhole {
            confine(&mut attributes);
        }
        Ok(Accepted { set: self.intern(&attributes)?, blackhole })
    }

    /// Stores attributes that we changed.
    pub(super) fn intern(&mut self, attributes: &PathAttributes) -> Result<AttrId, Rejection> {
        if attributes.fits() {
            Ok(self.interner.intern(attributes))
        } else {
            Err(Rejection::TooLong)
        }
    }

    fn check_loops(&self, importer: &Importer, set: &PathAttributes) -> Result<(), Rejection> {
        let config = &importer.config;
        // The AS we pretend to be is ours too.
        let own = [Some(self.config.local_as), config.local_as];
        if own.into_iter().flatten().any(|own| set.as_path.count(own) > config.allow_own_as) {
            return Err(Rejection::OwnAs);
        }
        if !begins_with_peer(importer, set) {
            return Err(Rejection::FirstAs);
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
            Some(NextHop { address, .. }) if is_router(importer, &address) => {
                // RFC 4271 §6.3 a.
                let own = importer.local == Some(address) || self.networks.is_own(&address);
                if own { Err(Rejection::OwnNextHop) } else { Ok(()) }
            }
            _ => Err(Rejection::NextHop),
        }
    }

    /// RFC 4271 §6.3 b: the next hop of a peer on our link is the peer, or another router there.
    fn check_on_link(&self, importer: &Importer, set: &PathAttributes) -> Result<(), Rejection> {
        let next_hop = set.next_hop.map(|next_hop| next_hop.address);
        let near = next_hop.is_none_or(|address| {
            address == importer.config.address || self.networks.is_neighbour(&address)
        });
        if near { Ok(()) } else { Err(Rejection::OffLink) }
    }

    /// Runs import policy again over paths that a peer sent.
    pub(super) fn reimport(&mut self, id: PeerId, paths: &[(Prefix, Path)]) {
        let Some(importer) = self.importer(id) else { return };
        let peer = self.peers.get(&id);
        let long_lived: Families =
            peer.iter().flat_map(|peer| peer.long_lived.keys().copied()).collect();
        for (prefix, path) in paths {
            let attributes = self.interner.attributes(path.received);
            let mut accepted = self.accept(&importer, prefix, path.received, &attributes);
            let is_stale = self.rib.fate(prefix.family(), path) == Some(true);
            if is_stale && long_lived.contains(prefix.family()) {
                accepted = self.mark_long_lived(accepted);
            }
            self.rib.revise(prefix, path.key, accepted);
        }
    }
}

/// Of a global and a link-local next hop (RFC 2545 §3) the second one, if the first cannot be reached: when it is none, or
/// when nothing but the link joins us.
fn usable_half<'a>(next_hop: &'a [u8], importer: &Importer) -> &'a [u8] {
    let Some((global, link_local)) = next_hop.split_at_checked(16) else { return next_hop };
    let on_link = importer.local.as_ref().is_some_and(is_link_local);
    let pointless = match decode_next_hop(global) {
        Some(NextHop { address, .. }) => address.is_unspecified() || is_link_local(&address),
        None => false,
    };
    let second = decode_next_hop(link_local).map(|each| each.address);
    if (on_link || pointless) && second.as_ref().is_some_and(is_link_local) {
        link_local
    } else {
        next_hop
    }
}

/// RFC 4271 §6.3: the leftmost AS is that of an external peer. RFC 7606 §7.2: its routes count as withdrawn otherwise.
fn begins_with_peer(importer: &Importer, set: &PathAttributes) -> bool {
    let config = &importer.config;
    let asked = importer.peer_type == PeerType::External
        && config.enforce_first_as
        && config.role != Some(Role::RouteServerClient);
    !asked || set.as_path.0.first() == Some(&config.asn)
}

/// RFC 9234 §5, on receipt: refuses leaks; returns the AS to mark the route with.
fn check_leak(importer: &Importer, set: &PathAttributes) -> Result<Option<Asn>, Rejection> {
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

/// RFC 7999 §3.3: honoured only if that was agreed with the peer, which may announce the prefix.
fn is_blackhole(importer: &Importer, subject: &Subject<'_>, verdict: &Verdict<'_>) -> bool {
    let accepted = verdict.action == Action::Accept;
    let agreed = match &importer.config.blackhole {
        Blackhole::None => false,
        Blackhole::Accepted => accepted,
        within @ Blackhole::Within(_) => within.covers(&subject.prefix),
    };
    let blackhole = Operation::AddCommunity(AnyCommunity::Standard(Community::BLACKHOLE));
    let attached = accepted && verdict.operations.contains(&blackhole);
    agreed && (attached || subject.attributes.has(Community::BLACKHOLE))
}

/// RFC 7999 §3.2: a blackhole must not leave our system unless somebody said where it may go.
fn confine(attributes: &mut PathAttributes) {
    let scopes = [Community::NO_ADVERTISE, Community::NO_EXPORT, Community::NO_EXPORT_SUBCONFED];
    if !scopes.into_iter().any(|scope| attributes.has(scope)) {
        attributes.add_community(Community::NO_EXPORT);
    }
}

/// RFC 4271 §6.3: a next hop must be a router.
fn is_router(importer: &Importer, next_hop: &IpAddr) -> bool {
    // Speakers on one machine may talk over 127.0.0.0/8.
    let loopback_session = importer.config.address.is_loopback();
    let strange = match next_hop {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first == 0 || address.is_loopback() && !loopback_session || first >= 224
        }
        IpAddr::V6(address) => {
            address.is_unspecified() || address.is_loopback() || address.is_multicast()
        }
    };
    !strange
}

/// The attributes that all prefixes share. Usually there are no others and nothing is copied.
fn without_multiprotocol<'a>(parts: &Parts<'a>) -> Cow<'a, [u8]> {
    if parts.reach.is_none() && parts.unreach.is_none() {
        return Cow::Borrowed(parts.section);
    }
    let mut bytes = Vec::with_capacity(parts.section.len());
    for attribute in attributes(parts.section).map_while(Result::ok) {
        // Wrong flags are a fault and must not hit the cache: they count. So the attribute stays, without its value.
        let is_multiprotocol = matches!(attribute.code, MP_REACH | MP_UNREACH);
        let value = if is_multiprotocol { &[] } else { attribute.value };
        // What is stored is decoded again: the length must be where the flags say.
        bytes.extend([attribute.flags | flag::EXTENDED_LENGTH, attribute.code]);
        bytes.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(value);
    }
    Cow::Owned(bytes)
}
