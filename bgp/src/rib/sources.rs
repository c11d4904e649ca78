//! Who the paths are from, how many each source has, and where.

use std::collections::VecDeque;

use super::{
    PeerId, SlotId,
    path::{Epoch, Path},
    walk::{Retire, Task, Walk},
};
use crate::{decision::Origination, types::Family};

/// A list may be this much longer than twice what it must tell before a walk makes it shorter.
const SLACK: usize = 1024;

/// A path's source as decisions and next hops need it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) origination: Origination,
    /// Interface of link-local next hops.
    pub(crate) interface: Option<String>,
}

/// Paths of one peer in the table. What its walks will remove or mark counts as removed or marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) received: usize,
    pub(crate) accepted: usize,
    /// Of those received the ones that outlived what they were learned in.
    pub(crate) stale: usize,
    /// Of those accepted the same.
    stale_accepted: usize,
}

impl Count {
    /// Returns how many the peer has announced since.
    pub(crate) const fn fresh(&self) -> usize {
        self.received.saturating_sub(self.stale)
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            received: self.received.saturating_add(other.received),
            accepted: self.accepted.saturating_add(other.accepted),
            stale: self.stale.saturating_add(other.stale),
            stale_accepted: self.stale_accepted.saturating_add(other.stale_accepted),
        }
    }

    /// Returns what is left of these paths.
    const fn after(self, family: Family, retire: &Retire) -> Self {
        let (fresh, stale) = (retire.applied(family, false), retire.applied(family, true));
        let Self { received, accepted, stale: old, stale_accepted: old_accepted } = self;
        let new = if fresh.is_some() { received.saturating_sub(old) } else { 0 };
        let new_accepted = if fresh.is_some() { accepted.saturating_sub(old_accepted) } else { 0 };
        let (old, old_accepted) = if stale.is_some() { (old, old_accepted) } else { (0, 0) };
        let received = new.saturating_add(old);
        let accepted = new_accepted.saturating_add(old_accepted);
        if matches!(fresh, Some(true)) {
            return Self { received, accepted, stale: received, stale_accepted: accepted };
        }
        Self { received, accepted, stale: old, stale_accepted: old_accepted }
    }
}

/// Prefixes that go the way of a peer, as was decided last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) all: usize,
    /// Those whose packets are dropped because the peer asked for it (RFC 7999).
    pub(crate) blackholed: usize,
}

#[derive(Debug, Default)]
struct Entry {
    source: Option<Source>,
    uses: Uses,
    /// By family, as in [`Family::ALL`].
    counts: [Count; 2],
    /// Every slot with a path of this source, perhaps several times, and others that had one: losing a peer must not cost
    /// a look at the paths of all others. What walks have before them is in their lists, each path at the latest in that of
    /// the first walk that meets it.
    slots: Vec<SlotId>,
    /// When what is written now is written.
    epoch: Epoch,
    /// In the order in which they were ordered: each begins when the one before it is over.
    walks: VecDeque<Walk>,
}

impl Entry {
    fn count_mut(&mut self, family: Family) -> &mut Count {
        let [ipv4, ipv6] = &mut self.counts;
        match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        }
    }

    fn total(&self) -> Count {
        let [ipv4, ipv6] = self.counts;
        ipv4.plus(ipv6)
    }

    /// Counts what a walk will do. Says whether there is anything.
    fn count_task(&mut self, task: &Task) -> bool {
        match task {
            Task::Retire(retire) => {
                let before = self.counts;
                for family in Family::ALL {
                    let count = self.count_mut(family);
                    *count = count.after(family, retire);
                }
                self.counts != before
            }
            Task::Reimport | Task::Tidy => self.total().received > 0,
            Task::BeginLongLived(families) => {
                families.iter().any(|family| self.count_mut(family).stale > 0)
            }
        }
    }
}

/// All sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    entries: Vec<Entry>,
    /// Those with walks: the first one's turn is next.
    walking: VecDeque<PeerId>,
}

impl Sources {
    /// Tells who a peer is.
    pub(super) fn set(&mut self, peer: PeerId, source: Source) {
        let index = peer.index();
        if self.entries.len() <= index {
            self.entries.resize_with(index.saturating_add(1), Entry::default);
        }
        if let Some(entry) = self.entries.get_mut(index) {
            entry.source = Some(source);
        }
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&Source> {
        self.entries.get(peer.index())?.source.as_ref()
    }

    pub(super) fn uses(&self, peer: PeerId) -> Uses {
        self.entries.get(peer.index()).map(|entry| entry.uses).unwrap_or_default()
    }

    /// A prefix begins or ends to go the way of a peer.
    pub(super) fn count_use(&mut self, peer: PeerId, blackhole: bool, begins: bool) {
        let Some(entry) = self.entries.get_mut(peer.index()) else { return };
        let step = |number: &mut usize| {
            *number = if begins { number.saturating_add(1) } else { number.saturating_sub(1) };
        };
        step(&mut entry.uses.all);
        if blackhole {
            step(&mut entry.uses.blackholed);
        }
    }

    pub(super) fn count(&self, peer: PeerId) -> Count {
        self.entries.get(peer.index()).map(Entry::total).unwrap_or_default()
    }

    pub(super) fn count_in(&self, peer: PeerId, family: Family) -> Count {
        let counts = self.entries.get(peer.index()).map(|entry| entry.counts).unwrap_or_default();
        let [ipv4, ipv6] = counts;
        match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        }
    }

    /// Returns when what the peer announces now is written.
    pub(super) fn epoch(&self, peer: PeerId) -> Epoch {
        self.entries.get(peer.index()).map(|entry| entry.epoch).unwrap_or_default()
    }

    /// A path came or went, or is counted in another way now.
    pub(super) fn count_path(&mut self, family: Family, path: &Path, stale: bool, present: bool) {
        let Some(entry) = self.entries.get_mut(path.key.source.index()) else { return };
        let step = |number: &mut usize, counts: bool| {
            if counts {
                *number = if present { number.saturating_add(1) } else { number.saturating_sub(1) };
            }
        };
        let count = entry.count_mut(family);
        let accepted = path.accepted().is_ok();
        step(&mut count.received, true);
        step(&mut count.accepted, accepted);
        step(&mut count.stale, stale);
        step(&mut count.stale_accepted, stale && accepted);
    }

    /// A slot has a path of the peer that was not there before. Says whether the list wants to be made shorter.
    #[must_use]
    pub(super) fn add_slot(&mut self, peer: PeerId, slot: SlotId) -> bool {
        let Some(entry) = self.entries.get_mut(peer.index()) else { return false };
        entry.slots.push(slot);
        entry.slots.len() > entry.total().received.saturating_mul(2).saturating_add(SLACK)
    }

    /// Lists the walks that a source waits for.
    pub(super) fn walks(&self, peer: PeerId) -> &VecDeque<Walk> {
        static NONE: VecDeque<Walk> = VecDeque::new();
        self.entries.get(peer.index()).map_or(&NONE, |entry| &entry.walks)
    }

    pub(super) fn order(&mut self, peer: PeerId, task: Task) {
        let Some(entry) = self.entries.get_mut(peer.index()) else { return };
        if !entry.count_task(&task) {
            return;
        }
        entry.epoch = entry.epoch.next();
        let (epoch, slots) = (entry.epoch, std::mem::take(&mut entry.slots));
        let slots = match entry.walks.back_mut() {
            None => {
                self.walking.push_back(peer);
                slots
            }
            Some(last) => match last.become_later(task, epoch, slots) {
                Ok(()) => return,
                Err(slots) => slots,
            },
        };
        entry.walks.push_back(Walk::new(task, epoch, slots));
    }

    pub(super) fn forget_walks(&mut self) {
        self.walking.clear();
        self.entries.iter_mut().for_each(|entry| entry.walks.clear());
    }

    /// Lists the slots of a source, as they are listed.
    #[cfg(test)]
    pub(super) fn listed(&self, peer: PeerId) -> Vec<SlotId> {
        let entry = self.entries.get(peer.index());
        let walks = entry.iter().flat_map(|entry| &entry.walks).flat_map(Walk::rest);
        walks.chain(entry.iter().flat_map(|entry| &entry.slots)).copied().collect()
    }

    /// Returns whose turn it is.
    pub(super) fn next_walk(&self) -> Option<PeerId> {
        self.walking.front().copied()
    }

    pub(super) fn take_slots_of_walk(
        &mut self,
        peer: PeerId,
        limit: usize,
    ) -> Option<(Task, Epoch, Vec<SlotId>)> {
        let walk = self.entries.get_mut(peer.index())?.walks.front_mut()?;
        Some((walk.task, walk.epoch, walk.take(limit)))
    }

    /// A walk was at some slots; in these the source has paths still. Others have their turn now.
    pub(super) fn end_turn(&mut self, peer: PeerId, left: Vec<SlotId>) {
        self.walking.pop_front();
        let Some(entry) = self.entries.get_mut(peer.index()) else { return };
        match entry.walks.get_mut(1) {
            Some(next) => next.add(left),
            None => entry.slots.extend(left),
        }
        if entry.walks.front().is_some_and(Walk::is_over) {
            entry.walks.pop_front();
        }
        if !entry.walks.is_empty() {
            self.walking.push_back(peer);
        }
    }
}
