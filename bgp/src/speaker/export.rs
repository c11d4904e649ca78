//! Decisions turn into FIB updates and announcements, and connections get their bytes.

use std::{collections::BTreeSet, net::IpAddr};

use bytes::Bytes;

use super::{ConnectionId, Output, Slice, Speaker};
use crate::{
    fib::FibUpdate,
    rib::{PeerId, SlotId},
    types::{Families, Family},
    update_group::{Changes, GroupKey, Heritage, Table, UpdateGroup},
    wire::Kind,
};

impl Speaker {
    /// Returns the next thing to do. Never ask again before the last answer was `None` and then give new input.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            match self.poll_slice() {
                Slice::Output(output) => return Some(output),
                Slice::Worked => (),
                Slice::Idle => return None,
            }
        }
    }

    /// Like [`Speaker::poll_output`], but returns after each slice of work: a loss of a million routes is many of them, and
    /// input may be given between any two.
    pub fn poll_slice(&mut self) -> Slice {
        self.ask_next_hops();
        if let Some(output) = self.outputs.pop_front() {
            return Slice::Output(output);
        }
        let walks = self.rib.is_walking();
        if walks {
            self.walk_on();
        }
        // A restart chooses and announces nothing before it knows enough (RFC 4724 §4.1).
        let decides = self.restart.is_none()
            && (self.rib.is_dirty() || self.groups.iter().any(UpdateGroup::wants_flush));
        if decides {
            self.work();
        } else {
            // What came to nothing marks no prefix: a path that is refused as before, with other attributes.
            self.rib.forget_unused(&mut self.interner);
        }
        self.complete_restart();
        // A slice of its own: others have their turn.
        if let Some(connection) = self.resume.pop_front() {
            self.signal(connection);
        }
        let goes_on = !self.outputs.is_empty() || !self.resume.is_empty();
        if walks || decides || goes_on { Slice::Worked } else { Slice::Idle }
    }

    fn work(&mut self) {
        self.rib.forget_unused(&mut self.interner);
        let paths = self.rib.take_dirty(self.slice, &self.interner);
        let mut chosen: Vec<SlotId> = Vec::with_capacity(paths.len());
        for id in &paths {
            let outcome = self.rib.update(*id, &self.interner);
            if self.config.fib
                && outcome.fib
                && let Some((prefix, route)) = self.rib.fib_entry(*id)
            {
                let update = FibUpdate { prefix, route };
                self.fib.told(&update);
                self.outputs.push_back(Output::Fib(update));
            }
            if outcome.chosen {
                chosen.push(*id);
            }
        }
        self.rib.look_at_next_hops(&self.interner);
        self.read_journal();
        let complete = !self.rib.is_dirty() && !self.rib.reach().is_waiting();
        let changes = Changes { chosen: &chosen, paths: &paths, complete };
        let Self { rib, interner, senders, .. } = self;
        let table = Table { rib, interner, senders };
        let mut ready = BTreeSet::new();
        let mut left = Vec::new();
        for group in &mut self.groups {
            group.flush(changes, table, &mut ready);
            left.extend(group.take_left());
        }
        self.rib.release(&paths);
        for (peer, had) in left {
            self.enter_group(peer, had);
        }
        self.groups.retain(|group| !group.is_empty());
        for peer in ready {
            if let Some(connection) = self.peers.get(&peer).and_then(|peer| peer.established) {
                self.signal(connection);
            }
        }
    }

    /// Takes messages to send over a connection, about `limit` bytes. Nothing: wait for [`Output::TransmitReady`].
    pub fn transmit(&mut self, connection: ConnectionId, limit: usize) -> Vec<Bytes> {
        let now = self.now;
        let Some(session) = self.connections.get_mut(&connection) else { return Vec::new() };
        let id = session.peer;
        let mut out: Vec<Bytes> = session.take_control().collect();
        let mut goes_on = false;
        let Some(peer) = self.peers.get_mut(&id) else { return Vec::new() };
        for message in &out {
            if let Some(kind) = message.get(18).and_then(|number| Kind::from_number(*number)) {
                peer.sent.count(kind);
            }
        }
        if peer.established == Some(connection)
            && let Some(group) = self.groups.iter_mut().find(|group| group.has(id))
        {
            let Self { rib, interner, senders, .. } = self;
            let taken = group.transmit(id, limit, Table { rib, interner, senders }, &mut out);
            peer.sent.updates = peer.sent.updates.saturating_add(taken.updates);
            peer.sent.refreshes = peer.sent.refreshes.saturating_add(taken.refreshes);
            goes_on = taken.goes_on;
        }
        if let Some(session) = self.connections.get_mut(&connection) {
            session.signalled = !out.is_empty();
            session.blocked_since = (!out.is_empty()).then_some(now);
        }
        if out.is_empty() && goes_on {
            self.resume.push_back(connection);
        }
        out
    }

    /// Returns what makes announcements to a peer the same as to others.
    pub(super) fn group_key(&self, id: PeerId) -> Option<GroupKey> {
        let peer = self.peers.get(&id)?;
        let session = self.connections.get(&peer.established?)?;
        let negotiated = session.negotiated.as_ref()?;
        let config = &peer.config;
        let local = session.local;
        let own = |configured: Option<IpAddr>, is_family: fn(&IpAddr) -> bool| {
            configured.or_else(|| local.filter(is_family))
        };
        let own_ipv6 = own(config.next_hop_ipv6, IpAddr::is_ipv6);
        Some(GroupKey {
            peer_type: config.peer_type(self.config.local_as),
            client: config.route_reflector_client,
            local_as: config.local_as.unwrap_or(self.config.local_as),
            cluster_id: self.config.cluster_id.unwrap_or(self.config.router_id),
            families: negotiated.families,
            add_path: negotiated.add_path_send,
            four_octet_as: negotiated.four_octet_as,
            limit: negotiated.limit,
            next_hop: config.next_hop,
            own_ipv4: own(config.next_hop_ipv4, IpAddr::is_ipv4)
                .or(own_ipv6.filter(|_| negotiated.extended_next_hop)),
            own_ipv6,
            extended_next_hop: negotiated.extended_next_hop,
            local_pref: config.local_pref,
            graceful_shutdown: config.graceful_shutdown,
            role: config.role,
            long_lived: negotiated.long_lived.is_some(),
            export: config.export.clone(),
        })
    }

    pub(super) fn join_group(&mut self, id: PeerId) {
        self.enter_group(id, Heritage::default());
    }

    fn enter_group(&mut self, id: PeerId, had: Heritage) {
        let Some(key) = self.group_key(id) else { return };
        let found = self.groups.iter_mut().find(|group| *group.key == key);
        match found {
            Some(group) => group.join(id, had),
            None => {
                let mut group = UpdateGroup::new(key, self.limits);
                group.join(id, had);
                self.groups.push(group);
            }
        }
        self.tell_own_routes(id);
        self.monitor_exports(id);
    }

    pub(super) fn leave_group(&mut self, id: PeerId) {
        self.groups.iter_mut().for_each(|group| group.leave(id));
        self.groups.retain(|group| !group.is_empty());
    }

    /// The peer's policy changed: it gets what is new and is told what it should forget.
    pub(super) fn change_group(&mut self, id: PeerId) {
        let current = self.groups.iter().find(|group| group.has(id));
        let key = self.group_key(id);
        if current.is_some_and(|current| key.is_none_or(|key| key != *current.key)) {
            self.rejoin_group(id);
        }
    }

    /// Like [`Speaker::change_group`], also when only the senders changed.
    pub(super) fn rejoin_group(&mut self, id: PeerId) {
        let Some(current) = self.groups.iter_mut().find(|group| group.has(id)) else { return };
        // One that is leaving already goes where it belongs by then.
        if current.is_leaving(id) {
            return;
        }
        if let Some(had) = current.begin_leaving(id) {
            self.groups.retain(|group| !group.is_empty());
            self.enter_group(id, had);
        }
    }

    pub(super) fn refresh_group(&mut self, id: PeerId, families: Families, enhanced: bool) {
        if let Some(group) = self.groups.iter_mut().find(|group| group.has(id)) {
            group.refresh(id, families, enhanced);
        }
        if let Some(connection) = self.peers.get(&id).and_then(|peer| peer.established) {
            self.signal(connection);
        }
    }

    pub(super) fn advertised(&self, id: PeerId, family: Family) -> usize {
        self.groups.iter().map(|group| group.advertised(id, family)).sum()
    }
}
