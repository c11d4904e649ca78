//! Those who look on: an operator who wants to see what happens now. They ask again and again; what they have not heard yet is
//! remembered within bounds, and not for long when they ask no more.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use super::{PeerEvent, Speaker};
use crate::{
    snapshot::{Happenings, PathExplanation},
    types::Prefix,
};

/// Who has not asked for this long has gone away.
const PATIENCE: Duration = Duration::from_secs(60);
/// Prefixes that may wait for somebody to ask.
const PREFIXES: usize = 1 << 16;
/// The same for changes of sessions.
const SESSIONS: usize = 1 << 10;
/// Those who look on at the same time.
const WATCHERS: usize = 16;
/// Prefixes told at once.
const AT_ONCE: usize = 1024;

/// What somebody who looks on has not heard yet.
#[derive(Debug)]
pub(super) struct Watcher {
    asked: Instant,
    within: Option<Prefix>,
    sessions: VecDeque<(Instant, PeerEvent)>,
    routes: BTreeSet<Prefix>,
    missed: bool,
}

impl Speaker {
    /// Tells what happened since the one of this name asked last; of routes only those within a prefix, if one is given. Who
    /// asks for the first time hears nothing: it begins here. `None`: too many look on already.
    pub fn happenings(
        &mut self,
        watcher: &str,
        within: Option<Prefix>,
        now: Instant,
    ) -> Option<Happenings> {
        self.now = now;
        self.read_journal();
        self.forget_watchers();
        if !self.watchers.contains_key(watcher) {
            if self.watchers.len() >= WATCHERS {
                return None;
            }
            let (sessions, routes) = (VecDeque::new(), BTreeSet::new());
            let new = Watcher { asked: now, within, sessions, routes, missed: false };
            self.watchers.insert(watcher.to_owned(), new);
            self.rib.keep_journal(true);
        }
        let watcher = self.watchers.get_mut(watcher)?;
        watcher.asked = now;
        let sessions = std::mem::take(&mut watcher.sessions);
        let missed = std::mem::take(&mut watcher.missed);
        let mut changed = Vec::new();
        while changed.len() < AT_ONCE
            && let Some(prefix) = watcher.routes.pop_first()
        {
            changed.push(prefix);
        }
        let ago = |(at, event): (Instant, PeerEvent)| (now.saturating_duration_since(at), event);
        Some(Happenings {
            sessions: sessions.into_iter().map(ago).collect(),
            routes: changed.into_iter().map(|prefix| (prefix, self.best(&prefix))).collect(),
            missed,
        })
    }

    /// The best path of a prefix.
    fn best(&self, prefix: &Prefix) -> Option<PathExplanation> {
        let id = self.rib.find(prefix)?;
        let entry = self.rib.entry(id, &self.interner)?;
        let index = *entry.decision.as_ref()?.used.first()?;
        let path = entry.paths.get(index)?;
        self.explain_path(index, path, &entry, &Vec::new())
    }

    fn forget_watchers(&mut self) {
        let now = self.now;
        let before = self.watchers.len();
        self.watchers.retain(|_, each| now.saturating_duration_since(each.asked) < PATIENCE);
        if self.watchers.len() < before {
            self.keep_journal_if_read();
        }
    }

    /// The table remembers what changes only while somebody wants to know.
    pub(super) fn keep_journal_if_read(&mut self) {
        self.rib.keep_journal(!self.monitors.is_empty() || !self.watchers.is_empty());
    }

    pub(super) fn watch_routes(&mut self, chosen: &[Prefix]) {
        self.forget_watchers();
        for watcher in self.watchers.values_mut() {
            let within = watcher.within;
            let wanted = |prefix: &&Prefix| within.is_none_or(|within| within.contains(prefix));
            watcher.routes.extend(chosen.iter().filter(wanted));
            if watcher.routes.len() > PREFIXES {
                watcher.routes.clear();
                watcher.missed = true;
            }
        }
    }

    pub(super) fn watch_session(&mut self, event: &PeerEvent) {
        let now = self.now;
        for watcher in self.watchers.values_mut() {
            if watcher.sessions.len() >= SESSIONS {
                watcher.sessions.pop_front();
                watcher.missed = true;
            }
            watcher.sessions.push_back((now, event.clone()));
        }
    }
}
