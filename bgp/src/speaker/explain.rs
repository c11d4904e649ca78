//! Why a prefix goes where it goes: the rules run once more, and this time they are asked for reasons.

use super::{Speaker, status::usage};
use crate::{
    attr::PathAttributes,
    filter::{Action, Source, Subject},
    rib::{Entry, Path, PeerId, SlotId},
    snapshot::{Announcement, FibState, ImportReason, PathExplanation, RouteExplanation, Usage},
    types::Prefix,
    update_group::{UpdateGroup, Withheld, judge, outgoing},
};

impl Speaker {
    /// Explains a prefix; `None` if there is no path to it. What is said about the present is said about the last
    /// decision: take all outputs before.
    pub fn explain(&self, prefix: &Prefix) -> Option<RouteExplanation> {
        let id = self.rib.find(prefix)?;
        let entry = self.rib.entry(id, &self.interner)?;
        let mut numbered: Vec<(usize, PathExplanation)> = entry
            .paths
            .iter()
            .enumerate()
            .map(|(index, path)| (index, self.explain_path(index, path, &entry)))
            .collect();
        numbered.sort_by(|(_, a), (_, b)| {
            let key =
                |path: &PathExplanation| (path.usage.clone(), path.peer.clone(), path.path_id);
            key(a).cmp(&key(b))
        });
        let order: Vec<usize> = numbered.iter().map(|(index, _)| *index).collect();
        let paths: Vec<PathExplanation> = numbered.into_iter().map(|(_, path)| path).collect();
        let mut announcements = Vec::new();
        for (peer, group) in self.audience() {
            self.explain_export(peer, group, id, &entry, &order, &mut announcements);
        }
        announcements.sort_by(|a, b| (&a.peer, a.path).cmp(&(&b.peer, b.path)));
        let fib = self.explain_fib(&entry, &paths);
        Some(RouteExplanation { prefix: *prefix, paths, announcements, fib })
    }

    fn name_of(&self, id: PeerId) -> Option<String> {
        self.peers.get(&id).map(|peer| peer.config.name.clone())
    }

    fn audience(&self) -> impl Iterator<Item = (PeerId, &UpdateGroup)> {
        self.peers.keys().filter_map(|id| {
            let group = self.groups.iter().find(|group| group.has(*id))?;
            Some((*id, group))
        })
    }

    fn explain_path(&self, index: usize, path: &Path, entry: &Entry<'_>) -> PathExplanation {
        let received = self.interner.attributes(path.received);
        let accepted = path.accepted().ok().map(|set| self.interner.attributes(set));
        PathExplanation {
            peer: self.name_of(path.key.source),
            path_id: path.key.path_id,
            import: self.import_reason(path, &entry.prefix, &received, accepted.as_ref()),
            accepted,
            received,
            stale: path.stale,
            usage: usage(index, path, entry.decision.as_ref()),
        }
    }

    fn import_reason(
        &self,
        path: &Path,
        prefix: &Prefix,
        received: &PathAttributes,
        accepted: Option<&PathAttributes>,
    ) -> ImportReason {
        let Some(importer) = self.importer(path.key.source) else { return ImportReason::Local };
        let subject = Subject {
            prefix: *prefix,
            attributes: received,
            source: Source::Peers,
            peer_type: importer.peer_type,
        };
        let verdict = importer.config.import.judge(&subject);
        let rule = verdict.why.to_string();
        match accepted {
            // Loops and leaks come before policy and are named by the usage.
            None if verdict.action == Action::Accept => ImportReason::BeforePolicy,
            None => ImportReason::Rejected(rule),
            Some(accepted) if accepted == received => ImportReason::Accepted(rule),
            Some(_) => ImportReason::Changed(rule),
        }
    }

    /// Says what a peer is told, or why not.
    fn explain_export(
        &self,
        peer: PeerId,
        group: &UpdateGroup,
        id: SlotId,
        entry: &Entry<'_>,
        order: &[usize],
        out: &mut Vec<Announcement>,
    ) {
        let Some(name) = self.name_of(peer) else { return };
        let several = group.key.add_path.contains(entry.prefix.family());
        let best = entry.decision.as_ref().and_then(|decision| decision.used.first());
        for (place, index) in order.iter().enumerate() {
            let Some(path) = entry.paths.get(*index) else { continue };
            let usable = entry.decision.as_ref().is_some_and(|decision| {
                let lost = decision.lost.iter().any(|(lost, _)| lost == index);
                lost || decision.used.contains(index)
            });
            if !usable || !several && best != Some(index) {
                continue;
            }
            let path_id = if several { path.local_id() } else { 0 };
            let result = self.export_of(peer, group, &entry.prefix, path);
            let (attributes, reason) = match result {
                Ok((attributes, rule)) => (Some(attributes), rule),
                Err(why) => (None, why),
            };
            let told = group.has_told(peer, id, path_id);
            let peer = name.clone();
            out.push(Announcement { peer, path: place, path_id, attributes, reason, told });
        }
    }

    fn export_of(
        &self,
        peer: PeerId,
        group: &UpdateGroup,
        prefix: &Prefix,
        path: &Path,
    ) -> Result<(PathAttributes, String), String> {
        if path.key.source == peer {
            return Err("it is from this peer".to_owned());
        }
        let set = path.accepted().map_err(|_| "not accepted".to_owned())?;
        let attributes = self.interner.attributes(set);
        let Some(sender) = self.senders.get(&path.key.source) else {
            return Err("its peer is gone".to_owned());
        };
        let out = outgoing(&group.key, prefix, &attributes, sender);
        let out = out.map_err(|why: Withheld| why.to_string())?;
        let verdict = judge(&group.key, prefix, &attributes, sender);
        Ok((out, verdict.why.to_string()))
    }

    fn explain_fib(&self, entry: &Entry<'_>, paths: &[PathExplanation]) -> FibState {
        if !self.config.fib {
            return FibState::Off;
        }
        if self.restart.is_some() {
            return FibState::Restarting;
        }
        if !entry.next_hops.is_empty() {
            return FibState::Told(entry.next_hops.to_vec());
        }
        match paths.first().map(|path| (&path.usage, &path.peer)) {
            Some((Usage::Best(_) | Usage::Multipath, None)) => FibState::Local,
            Some((Usage::Unreachable, _)) => FibState::Unreachable,
            _ => FibState::NoPath,
        }
    }
}
