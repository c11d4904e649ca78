//! Routes that outlive what they were learned in: a session (RFC 4724), the restart time (RFC 9494), a refresh (RFC 7313).

use std::time::Duration;

use super::Speaker;
use crate::{
    attr::Community,
    rib::{Accepted, Path, PeerId, Rejection, Retire, Task},
    types::{Families, Family, Prefix},
    wire::Refresh,
};

/// How long a refresh may take (RFC 7313 §4: "an upper bound").
const REFRESH_TIME: Duration = Duration::from_secs(600);

impl Speaker {
    /// The peer did not come back, or did not repeat these routes (RFC 4724 §4.2). Unless they may live longer.
    pub(super) fn forget_stale(&mut self, id: PeerId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.stale_until = None;
        let mut begins = Vec::new();
        if peer.established.is_none() {
            for (family, time) in &peer.long_lived_times {
                if peer.stale.contains(*family) {
                    // RFC 9494 §4.2: the timer of an earlier loss goes on.
                    peer.long_lived.entry(*family).or_insert(now + *time);
                    begins.push(*family);
                }
            }
        }
        let longer: Families = peer.long_lived.keys().copied().collect();
        let gone = peer.stale.without(longer);
        peer.stale = peer.stale.and(longer);
        self.retire(id, Retire::stale(gone));
        if !begins.is_empty() {
            self.order(id, Task::BeginLongLived(begins.into_iter().collect()));
        }
    }

    /// Forgets what is kept of a peer whose session is lost: it does not come back as it was.
    pub(super) fn forget_kept(&mut self, id: PeerId, cause: &str) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.stale.is_empty()) else {
            return;
        };
        peer.keep_nothing();
        self.retire(id, Retire::ALL);
        self.report(id, cause);
        self.forget_member(id);
        self.finish_restart();
    }

    /// RFC 9494 §4.2: marked, and without those that must not live on.
    pub(super) fn begin_long_lived(&mut self, families: Families, paths: &[(Prefix, Path)]) {
        for (prefix, path) in paths {
            let family = prefix.family();
            if !families.contains(family) || self.rib.fate(family, path) != Some(true) {
                continue;
            }
            if self.interner.attributes(path.received).has(Community::NO_LLGR) {
                self.rib.remove(prefix, path.key);
            } else {
                let accepted = self.mark_long_lived(path.import());
                self.rib.revise(prefix, path.key, accepted);
            }
        }
    }

    pub(super) fn mark_long_lived(
        &mut self,
        accepted: Result<Accepted, Rejection>,
    ) -> Result<Accepted, Rejection> {
        let accepted = accepted?;
        let mut attributes = self.interner.attributes(accepted.set);
        attributes.add_community(Community::LLGR_STALE);
        Ok(Accepted { set: self.intern(&attributes)?, ..accepted })
    }

    /// Long enough (RFC 9494 §4.2, Long-lived Stale Time).
    pub(super) fn long_lived_timeout(&mut self, id: PeerId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let over = peer.long_lived.iter().filter(|(_, until)| **until <= now);
        let over: Families = over.map(|(family, _)| *family).collect();
        if over.is_empty() {
            return;
        }
        peer.long_lived.retain(|family, _| !over.contains(*family));
        peer.stale = peer.stale.without(over);
        if peer.stale.is_empty() {
            peer.stale_until = None;
        }
        self.retire(id, Retire::stale(over));
    }

    /// The peer has sent everything: what is still stale is gone (RFC 4724 §4.2).
    pub(super) fn end_of_rib(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.end_of_rib.insert(family);
        peer.long_lived.remove(&family);
        if peer.stale.contains(family) {
            peer.stale.remove(family);
            if peer.stale.is_empty() {
                peer.stale_until = None;
            }
            self.retire(id, Retire::stale(Families::from_iter([family])));
        }
    }

    pub(super) fn handle_refresh(&mut self, id: PeerId, family: Family, refresh: Refresh) {
        let Some(peer) = self.peers.get(&id) else { return };
        let session = peer.established.and_then(|connection| self.connections.get(&connection));
        let Some(negotiated) = session.and_then(|session| session.negotiated.as_ref()) else {
            return;
        };
        if !negotiated.families.contains(family) {
            return;
        }
        let enhanced = negotiated.enhanced_refresh;
        // RFC 7313 §4: before End-of-RIB the table is on its way anyway.
        let premature = negotiated.graceful.is_some() && !peer.end_of_rib.contains(family);
        match refresh {
            Refresh::Request => {
                self.refresh_group(id, Families::from_iter([family]), enhanced);
            }
            Refresh::Begin if enhanced && !premature => self.begin_refresh(id, family),
            Refresh::End if enhanced && peer.refreshing.contains(family) => {
                self.end_refresh(id, Families::from_iter([family]));
            }
            Refresh::Begin | Refresh::End => {
                tracing::debug!(peer = %peer.config.name, %family, ?refresh, "ignored a marker");
            }
        }
    }

    fn begin_refresh(&mut self, id: PeerId, family: Family) {
        let until = self.now + REFRESH_TIME;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.refreshing.insert(family);
        peer.refresh_until = Some(until);
        let mark_stale = Families::from_iter([family]);
        self.retire(id, Retire { mark_stale, ..Retire::default() });
    }

    fn end_refresh(&mut self, id: PeerId, families: Families) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.refreshing = peer.refreshing.without(families);
        if peer.refreshing.is_empty() {
            peer.refresh_until = None;
        }
        self.retire(id, Retire::stale(families));
    }

    pub(super) fn refresh_timeout(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        tracing::warn!(peer = %peer.config.name, "the end of a refresh did not come");
        self.end_refresh(id, peer.refreshing);
    }
}
