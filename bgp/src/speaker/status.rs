//! The speaker described as plain data.

use std::{collections::BTreeMap, time::Instant};

use super::{Speaker, history::Transition};
use crate::{
    bfd,
    rib::{Count, Entry, Path, PeerId},
    session::Session,
    snapshot::{
        PathSnapshot, PeerSnapshot, PrefixCounts, RibEntry, Snapshot, TransitionSnapshot, Usage,
    },
    types::{Families, Family},
};

impl Speaker {
    /// Tells the time, which durations of a snapshot are counted until; otherwise that is the time of the last input. No timer fires.
    pub const fn set_time(&mut self, now: Instant) {
        self.now = now;
    }

    /// Describes the speaker; the table only if asked for.
    pub fn snapshot(&self, with_rib: bool) -> Snapshot {
        let mut peers: Vec<_> =
            self.peers.keys().filter_map(|id| self.peer_snapshot(*id)).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        let rib = if with_rib {
            let entries = self.rib.entries(&self.interner);
            let entries = entries.iter().map(|entry| self.rib_entry(entry));
            entries.filter(|entry| !entry.paths.is_empty()).collect()
        } else {
            Vec::new()
        };
        Snapshot {
            local_as: self.config.local_as,
            router_id: self.config.router_id,
            uptime: self.ago(self.started),
            restarting: self.restart.is_some(),
            prefixes: self.rib.len(),
            attribute_sets: self.interner.len(),
            routes_refused: self.fib.refused(),
            prefixes_unreachable: self.rib.obstructed(),
            peers,
            collectors: self.collectors(),
            rib,
        }
    }

    fn peer_snapshot(&self, id: PeerId) -> Option<PeerSnapshot> {
        let peer = self.peers.get(&id)?;
        let session = peer.established.and_then(|connection| self.connections.get(&connection));
        let negotiated = session.and_then(|session| session.negotiated.as_ref());
        let exchanged = negotiated.map_or(Families::NONE, |each| each.families);
        let prefixes = self.prefixes(id, exchanged);
        let sum = |of: fn(&PrefixCounts) -> usize| prefixes.values().map(of).sum();
        let queued = self.groups.iter().map(|group| group.queued(id));
        let queued = queued.chain(session.map(Session::control_octets)).sum();
        Some(PeerSnapshot {
            name: peer.config.name.clone(),
            address: peer.config.address,
            asn: peer.config.asn,
            peer_type: peer.config.peer_type(self.config.local_as),
            state: peer.state,
            since: self.ago(peer.since),
            flaps: peer.flaps,
            losses: peer.losses.clone(),
            last_error: peer.last_error.clone(),
            history: peer.history.iter().map(|each| self.transition(each)).collect(),
            router_id: negotiated.map(|each| each.router_id),
            local_address: session.and_then(|session| session.local),
            families: exchanged,
            hold_time: negotiated.map(|each| each.hold_time),
            graceful_restart: negotiated.is_some_and(|each| each.graceful.is_some()),
            stale: peer.stale,
            bfd: peer.bfd_wanted.as_ref().map(|_| peer.bfd.unwrap_or(bfd::State::Down)),
            sent: peer.sent,
            received: peer.received,
            last_update: peer.last_update.map(|at| self.ago(at)),
            queued_octets: queued,
            prefixes_received: sum(|each| each.received),
            max_prefixes: peer.config.max_prefixes,
            near_limit: peer.near_limit,
            prefixes_accepted: sum(|each| each.accepted),
            prefixes_blackholed: self.rib.uses(id).blackholed,
            prefixes_installed: self.installed(id),
            prefixes_advertised: sum(|each| each.advertised),
            prefixes,
            treated_as_withdraw: peer.treated_as_withdraw,
            discarded_attributes: peer.discarded_attributes,
            ignored_routes: peer.ignored_routes,
        })
    }

    /// Counts by family: those that are exchanged, and those of which there is something.
    fn prefixes(&self, id: PeerId, exchanged: Families) -> BTreeMap<Family, PrefixCounts> {
        let each = Family::ALL.into_iter().map(|family| {
            let Count { received, accepted, stale, .. } = self.rib.count_in(id, family);
            let advertised = self.advertised(id, family);
            (family, PrefixCounts { received, accepted, stale, advertised })
        });
        let is_worth = |(family, counts): &(Family, PrefixCounts)| {
            exchanged.contains(*family) || *counts != PrefixCounts::default()
        };
        each.filter(is_worth).collect()
    }

    fn transition(&self, transition: &Transition) -> TransitionSnapshot {
        let Transition { at, from, to, cause, times } = transition;
        TransitionSnapshot {
            ago: self.ago(*at),
            from: *from,
            to: *to,
            cause: cause.clone(),
            times: *times,
        }
    }

    fn rib_entry(&self, entry: &Entry<'_>) -> RibEntry {
        let mut paths: Vec<PathSnapshot> = entry
            .paths
            .iter()
            .enumerate()
            .filter_map(|(index, path)| {
                // What is on its way out is gone.
                let stale = self.rib.fate(entry.prefix.family(), path)?;
                Some(PathSnapshot {
                    peer: self.peers.get(&path.key.source).map(|peer| peer.config.name.clone()),
                    path_id: path.key.path_id,
                    attributes: self.interner.attributes(path.accepted().unwrap_or(path.received)),
                    stale,
                    usage: self.usage(index, path, entry),
                })
            })
            .collect();
        paths.sort_by(|a, b| (&a.usage, &a.peer, a.path_id).cmp(&(&b.usage, &b.peer, b.path_id)));
        RibEntry { prefix: entry.prefix, paths }
    }

    pub(super) fn usage(&self, index: usize, path: &Path, entry: &Entry<'_>) -> Usage {
        if let Err(rejection) = path.accepted() {
            return Usage::Rejected(rejection.why());
        }
        let (used, lost) = match &entry.decision {
            Some(decision) => (decision.used.as_slice(), decision.lost.as_slice()),
            None => (&[][..], &[][..]),
        };
        if let Some(decision) = entry.decision.as_ref().filter(|_| used.first() == Some(&index)) {
            return Usage::Best(decision.why);
        }
        if used.contains(&index) {
            return Usage::Multipath;
        }
        if let Some((_, why)) = lost.iter().find(|(loser, _)| *loser == index) {
            return Usage::Lost(*why);
        }
        let obstacle = self.rib.obstacle(&entry.prefix, path, &self.interner);
        Usage::Unreachable(obstacle.unwrap_or_else(|| "to be decided".to_owned()))
    }
}
