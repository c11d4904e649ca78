//! The configuration changes, links go up and down, the speaker stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{InterfaceDown, Output, Shutdown, Speaker, close::Loss, peer::Peer};
use crate::{
    config::{PeerConfig, SpeakerConfig},
    decision::Multipath,
    rib::{PeerId, Retire, Source, Task},
    types::is_link_local,
    wire::{Cease, Notification},
};

/// First attempts of many peers are spread over this time.
const SPREAD: Duration = Duration::from_millis(200);

impl Speaker {
    /// Applies a new configuration. Only sessions whose own terms changed are reset; changed policy is applied to the
    /// routes that are there.
    pub fn configure(&mut self, config: SpeakerConfig, now: Instant) {
        self.now = now;
        let identity = |config: &SpeakerConfig| (config.local_as, config.router_id);
        let everything = identity(&self.config) != identity(&config);
        let reexport = self.config.cluster_id != config.cluster_id;
        let multipath = Multipath { max_paths: config.max_paths, relax: config.multipath_relax };
        if self.config.max_paths != config.max_paths
            || self.config.multipath_relax != config.multipath_relax
        {
            self.rib.multipath = multipath;
            self.rib.mark_all();
        }
        self.interner.next_hops.follow(config.follow_next_hops);
        self.rib.follow_next_hops(config.follow_next_hops);
        let mut wanted: BTreeMap<String, PeerConfig> =
            config.peers.iter().map(|peer| (peer.name.clone(), peer.clone())).collect();
        self.config = config;
        self.configure_collectors();
        self.set_local_source();
        let known: Vec<(PeerId, Arc<PeerConfig>)> =
            self.peers.iter().map(|(id, peer)| (*id, Arc::clone(&peer.config))).collect();
        for (id, old) in known {
            let member = self.peers.get(&id).filter(|peer| peer.group.is_some());
            let new = match member {
                Some(peer) => self.member_config(peer),
                None => wanted.remove(&old.name),
            };
            match new {
                None => self.remove_peer(id),
                // Another router: nothing of the old one may stay.
                Some(new) if new.address != old.address || new.asn != old.asn || everything => {
                    let group = self.peers.get(&id).and_then(|peer| peer.group.clone());
                    self.remove_peer(id);
                    // A member of a range comes back by itself.
                    if group.is_none() || !new.passive {
                        self.add_peer(new, group);
                    }
                }
                Some(new) if new != *old => self.change_peer(id, new, reexport),
                Some(_) if reexport => self.change_group(id),
                Some(_) => (),
            }
        }
        for new in wanted.into_values() {
            self.add_peer(new, None);
        }
        if reexport {
            // Other paths are loops now (RFC 4456 §8).
            let all: Vec<PeerId> = self.peers.keys().copied().collect();
            all.into_iter().for_each(|id| self.order(id, Task::Reimport));
        }
    }

    pub(super) fn add_peer(&mut self, config: PeerConfig, group: Option<String>) -> PeerId {
        let id = self.peer_number();
        let start = self.random.up_to(SPREAD);
        let (now, stopped) = (self.now, self.stopped);
        let mut peer = Peer { group, ..Peer::new(config, now) };
        if !peer.config.passive && !peer.config.shutdown && !stopped {
            peer.retry_at = Some(now + start);
        }
        self.by_address.insert((peer.config.address, id));
        self.peers.insert(id, peer);
        self.report(id, "configured");
        self.update_bfd(id);
        id
    }

    /// Returns a number for a new peer: one that was used before, unless something may still remember it. Strangers who
    /// knock on a range must not make tables grow.
    fn peer_number(&mut self) -> PeerId {
        if !self.rib.is_dirty()
            && let Some(id) = self.free_peers.pop()
        {
            return id;
        }
        let id = PeerId(self.next_peer);
        self.next_peer = self.next_peer.saturating_add(1);
        id
    }

    pub(super) fn remove_peer(&mut self, id: PeerId) {
        let cease = Notification::cease(Cease::PeerDeconfigured);
        self.end_sessions(id, &cease, "removed from the configuration");
        self.retire(id, Retire::ALL);
        if let Some(peer) = self.peers.remove(&id) {
            self.free_peers.push(id);
            self.by_address.remove(&(peer.config.address, id));
            if peer.bfd_wanted.is_some() {
                self.outputs.push_back(Output::BfdForget(peer.config.name.clone()));
            }
        }
        self.senders.remove(&id);
    }

    /// Ends all connections to a peer for good.
    pub(super) fn end_sessions(&mut self, id: PeerId, cease: &Notification, cause: &str) {
        let Some(peer) = self.peers.get(&id) else { return };
        let connections: BTreeSet<_> = peer.connections().collect();
        for connection in connections {
            let session = self.connections.get(&connection);
            let negotiated = session.and_then(|session| session.negotiated.as_ref());
            let keeps = negotiated.is_some_and(|negotiated| negotiated.notification_keeps);
            // RFC 8538 §3: otherwise the peer would keep our routes.
            let cease = if keeps { cease.clone().into_hard_reset() } else { cease.clone() };
            self.lose(connection, Loss::Final(Some(cease)), cause);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.keep_nothing();
            peer.failures = 0;
            peer.refuse_until = None;
        }
    }

    fn change_peer(&mut self, id: PeerId, new: PeerConfig, reexport: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let old = std::mem::replace(&mut peer.config, Arc::new(new));
        let new = Arc::clone(&peer.config);
        self.update_bfd(id);
        if new.changes_only_key_of(&old) {
            self.change_key(id);
        } else if !new.keeps_session_of(&old) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.without_capabilities = false;
            }
            let (cease, cause) = if new.shutdown {
                (
                    Notification::shutdown(Cease::AdministrativeShutdown, ""),
                    "administrative shutdown",
                )
            } else {
                (Notification::cease(Cease::OtherConfigurationChange), "configuration changed")
            };
            self.end_sessions(id, &cease, cause);
            self.retire(id, Retire::ALL);
            let at = self.now + self.random.up_to(SPREAD);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.retry_at = (!new.passive && !new.shutdown).then_some(at);
            }
            self.report(id, cause);
            return;
        }
        if let Some(source) = self.rib.source(id) {
            let source = Source { interface: new.interface.clone(), ..source.clone() };
            let router_id = source.origination.router_id;
            self.rib.set_source(id, source);
            self.set_sender(id, router_id);
        }
        if new.import != old.import
            || new.allow_own_as != old.allow_own_as
            || new.enforce_first_as != old.enforce_first_as
            || new.graceful_shutdown != old.graceful_shutdown
            || new.blackhole != old.blackhole
            || new.multihop != old.multihop
        {
            self.order(id, Task::Reimport);
        }
        if new.route_reflector_client != old.route_reflector_client {
            // Who may hear this peer's routes changed for everybody.
            self.regroup_all();
        } else if new.export != old.export || reexport || *new != *old {
            self.change_group(id);
        }
        self.retry_soon(id, new.max_prefixes != old.max_prefixes);
    }

    /// Keys are those of a connection (RFC 2385 §4.5): the session begins anew. It closes without a word, as for a restart,
    /// so that both sides keep the routes if graceful restart was agreed upon.
    fn change_key(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let signed = !peer.config.tcp_ao.is_empty();
        let cause = if signed { "TCP-AO keys changed" } else { "password changed" };
        let connections: BTreeSet<_> = peer.connections().collect();
        for connection in connections {
            let session = self.connections.get(&connection);
            let negotiated = session.and_then(|session| session.negotiated.as_ref());
            let loss = if negotiated.is_some_and(|each| each.graceful.is_some()) {
                Loss::Transport
            } else {
                Loss::Final(Some(Notification::cease(Cease::OtherConfigurationChange)))
            };
            self.lose(connection, loss, cause);
        }
    }

    /// Connects at once to a peer without any connection. One that is refused waits on, unless it is pardoned.
    fn retry_soon(&mut self, id: PeerId, pardoned: bool) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.connections().next().is_some() {
            return;
        }
        if pardoned {
            peer.refuse_until = None;
        }
        let at = peer.refuse_until.filter(|until| *until > now).unwrap_or(now);
        peer.retry_at = (!peer.config.passive && !peer.config.shutdown).then_some(at);
        self.report(id, "configuration changed");
    }

    pub(super) fn regroup_all(&mut self) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.rejoin_group(id);
        }
    }

    /// A link lost its carrier: sessions over it end at once and without graceful restart (the neighbour cannot be
    /// forwarding to us), and next hops on it are not used.
    pub fn handle_interface_down(&mut self, down: InterfaceDown, now: Instant) {
        self.now = now;
        let lost: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, session)| {
                let config = self.peers.get(&session.peer).map(|peer| &peer.config);
                let interface = config.and_then(|config| config.interface.as_deref());
                session.local.is_some_and(|local| down.addresses.contains(&local))
                    || interface == Some(down.interface.as_str())
            })
            .map(|(connection, _)| *connection)
            .collect();
        let cause = format!("interface {} is down", down.interface);
        for connection in lost {
            self.lose(connection, Loss::Final(None), &cause);
        }
        self.down.retain(|known| known.interface != down.interface);
        self.down.push(down);
        self.tell_dead_links();
    }

    /// A link has its carrier again.
    pub fn handle_interface_up(&mut self, interface: &str, now: Instant) {
        self.now = now;
        let Some(position) = self.down.iter().position(|down| down.interface == interface) else {
            return;
        };
        let up = self.down.remove(position);
        self.tell_dead_links();
        for peer in self.peers.values_mut() {
            let address = peer.config.address;
            let there = up.networks.iter().any(|network| network.contains_address(address))
                || peer.config.interface.as_deref() == Some(interface);
            // One that announced too many prefixes is not better because a link was down.
            let refused = peer.refuse_until.is_some_and(|until| now < until);
            if there && !refused && peer.retry_at.is_some() {
                peer.failures = 0;
                peer.retry_at = Some(now);
            }
        }
    }

    /// Link-local next hops are known by their interface, as the same network is on every link. About others who follows
    /// routes knows better: there may be another way to the same network.
    fn tell_dead_links(&mut self) {
        let config = self.peers.values().filter_map(|peer| peer.config.interface.as_ref());
        let used: BTreeSet<&String> = config.collect();
        let interfaces = self.down.iter().map(|down| &down.interface);
        let interfaces = interfaces.filter(|interface| used.contains(interface)).cloned().collect();
        let networks = self.down.iter().flat_map(|down| &down.networks);
        let networks = networks.filter(|each| !is_link_local(&each.address())).copied();
        let follows = self.config.follow_next_hops;
        let networks = if follows { Vec::new() } else { networks.collect() };
        self.rib.set_dead(networks, interfaces);
    }

    /// Ends all sessions. Call [`Speaker::poll_output`] once more, then throw the speaker away. Routes are not
    /// withdrawn from the FIB: that is the daemon's choice.
    pub fn shutdown(&mut self, kind: Shutdown, now: Instant) {
        self.now = now;
        self.stopped = true;
        let connections: Vec<_> = self.connections.keys().copied().collect();
        for connection in connections {
            let negotiated =
                self.connections.get(&connection).and_then(|session| session.negotiated.as_ref());
            let graceful = negotiated.is_some_and(|each| each.graceful.is_some());
            let keeps = negotiated.is_some_and(|each| each.notification_keeps);
            let notification = match kind {
                // RFC 4724 §4: the peer must see a broken connection, not a Cease.
                Shutdown::Restart if graceful => None,
                Shutdown::Restart => Some(Notification::shutdown(Cease::AdministrativeReset, "")),
                Shutdown::Final => {
                    let cease = Notification::shutdown(Cease::AdministrativeShutdown, "");
                    Some(if keeps { cease.into_hard_reset() } else { cease })
                }
            };
            let id = self.connections.get(&connection).map(|session| session.peer);
            self.drop_connection(connection, notification.as_ref());
            if let Some(id) = id {
                self.report(id, "the speaker stops");
            }
        }
        for peer in self.peers.values_mut() {
            peer.retry_at = None;
        }
        // Nothing that is pending is told any more.
        self.rib.forget_dirty();
        self.groups.clear();
    }
}
