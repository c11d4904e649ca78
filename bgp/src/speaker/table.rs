//! Tables part by part: what peers told us, what we use, what we tell them, each path with what policy made of it.

use std::collections::BTreeSet;

use super::Speaker;
use crate::{
    rib::{Entry, PeerId, SlotId},
    snapshot::{Announcement, PolicySide, Table, TablePart, TableQuestion, TableRoute},
    types::Prefix,
};

/// Prefixes of one part at most: policy runs for each of them, and sessions must not wait for that.
const AT_ONCE: usize = 8192;

impl Speaker {
    /// Returns a part of a table; `None` if there is no such peer. What is said about the present is said about the last
    /// decision: take all outputs before.
    pub fn table(&self, question: &TableQuestion) -> Option<TablePart> {
        let peers = match &question.peer {
            None => None,
            Some(name) => Some(self.peers_called(name)).filter(|found| !found.is_empty()),
        };
        if question.peer.is_some() && peers.is_none() {
            return None;
        }
        let peers: Option<BTreeSet<PeerId>> = peers.map(|found| found.into_iter().collect());
        let is_within =
            |prefix: &Prefix| question.within.is_none_or(|within| within.contains(prefix));
        // The Adj-RIB-Out is made of paths of all peers.
        let sources = peers.as_ref().filter(|_| question.table != Table::AdjOut);
        let found = self.rib.following(question.after, AT_ONCE, |prefix, id| {
            let from = |source: &PeerId| sources.is_none_or(|wanted| wanted.contains(source));
            is_within(prefix) && self.rib.paths(id).iter().any(|path| from(&path.key.source))
        });
        let is_all = found.len() < AT_ONCE;
        let mut part = TablePart { routes: Vec::new(), next: found.last().map(|last| last.0) };
        let mut count: usize = 0;
        let last = found.last().map(|(prefix, _)| *prefix);
        for (prefix, id) in found {
            let Some(route) = self.table_route(id, question, peers.as_ref()) else { continue };
            count = count.saturating_add(route.paths.len().max(route.announcements.len()));
            part.routes.push(route);
            if count >= question.limit {
                part.next = Some(prefix);
                break;
            }
        }
        if is_all && part.next == last {
            part.next = None;
        }
        Some(part)
    }

    fn table_route(
        &self,
        id: SlotId,
        question: &TableQuestion,
        peers: Option<&BTreeSet<PeerId>>,
    ) -> Option<TableRoute> {
        let entry = self.rib.entry(id, &self.interner)?;
        let prefix = entry.prefix;
        let mut route =
            TableRoute { prefix, paths: Vec::new(), announcements: Vec::new(), fib: None };
        match question.table {
            Table::AdjIn => {
                for (index, path) in entry.paths.iter().enumerate() {
                    let source = path.key.source;
                    let is_theirs = source != PeerId::LOCAL
                        && peers.is_none_or(|peers| peers.contains(&source));
                    let shown = question.policy == PolicySide::Pre || path.accepted().is_ok();
                    if is_theirs && shown {
                        let path = self.explain_path(index, path, &entry, &Vec::new());
                        route.paths.extend(path);
                    }
                }
                route.paths.sort_by(|a, b| (&a.peer, a.path_id).cmp(&(&b.peer, b.path_id)));
            }
            Table::Loc => {
                let used = entry.decision.iter().flat_map(|decision| &decision.used);
                for index in used {
                    let Some(path) = entry.paths.get(*index) else { continue };
                    if peers.is_none_or(|peers| peers.contains(&path.key.source)) {
                        let path = self.explain_path(*index, path, &entry, &Vec::new());
                        route.paths.extend(path);
                    }
                }
                if !route.paths.is_empty() {
                    route.fib = Some(self.explain_fib(&entry, &route.paths));
                }
            }
            Table::AdjOut => self.adj_out(id, &entry, question.policy, peers, &mut route),
        }
        (!route.paths.is_empty() || !route.announcements.is_empty()).then_some(route)
    }

    fn adj_out(
        &self,
        id: SlotId,
        entry: &Entry<'_>,
        policy: PolicySide,
        peers: Option<&BTreeSet<PeerId>>,
        route: &mut TableRoute,
    ) {
        let Some(decision) = &entry.decision else { return };
        let lost = decision.lost.iter().map(|(index, _)| *index);
        let order: Vec<usize> = decision.used.iter().copied().chain(lost).collect();
        for peer in self.peers.keys().filter(|id| peers.is_none_or(|peers| peers.contains(id))) {
            self.explain_export(*peer, id, entry, &order, &mut route.announcements);
        }
        let is_candidate = |each: &Announcement| each.path.is_some();
        let is_told = |each: &Announcement| each.told && each.attributes.is_some();
        route.announcements.retain(match policy {
            PolicySide::Pre => is_candidate,
            PolicySide::Post => is_told,
        });
        route.announcements.sort_by(|a, b| (&a.peer, a.path).cmp(&(&b.peer, b.path)));
        if !route.announcements.is_empty() {
            // The places in announcements are places here.
            let paths = order.iter().filter_map(|index| Some((*index, entry.paths.get(*index)?)));
            route.paths = paths
                .filter_map(|(index, path)| self.explain_path(index, path, entry, &Vec::new()))
                .collect();
        }
    }
}
