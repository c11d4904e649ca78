//! Who the paths are from, how many each source has, and where.

use super::{PeerId, SlotId, path::Path};
use crate::decision::Origination;

/// A list may be this much longer than twice what it must tell.
const SLACK: usize = 1024;

/// A path's source as decisions and next hops need it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) origination: Origination,
    /// Interface of link-local next hops.
    pub(crate) interface: Option<String>,
}

/// Paths of one peer in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) received: usize,
    pub(crate) accepted: usize,
    /// Of those received the ones that outlived what they were learned in.
    pub(crate) stale: usize,
}

impl Count {
    /// Returns how many the peer has announced since.
    pub(crate) const fn fresh(&self) -> usize {
        self.received.saturating_sub(self.stale)
    }
}

#[derive(Debug, Default)]
struct Entry {
    source: Option<Source>,
    count: Count,
    /// Every slot with a path of this source, perhaps several times, and others that had one: losing a peer must not cost
    /// a look at the paths of all others.
    slots: Vec<SlotId>,
}

/// All sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    entries: Vec<Entry>,
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

    pub(super) fn count(&self, peer: PeerId) -> Count {
        self.entries.get(peer.index()).map(|entry| entry.count).unwrap_or_default()
    }

    /// A path came or went, or is counted in another way now.
    pub(super) fn count_path(&mut self, path: &Path, present: bool) {
        let Some(entry) = self.entries.get_mut(path.key.source.index()) else { return };
        let step = |number: &mut usize, counts: bool| {
            if counts {
                *number = if present { number.saturating_add(1) } else { number.saturating_sub(1) };
            }
        };
        step(&mut entry.count.received, true);
        step(&mut entry.count.accepted, path.accepted().is_ok());
        step(&mut entry.count.stale, path.stale);
    }

    /// So many paths became stale.
    pub(super) fn add_stale(&mut self, peer: PeerId, count: usize) {
        if let Some(entry) = self.entries.get_mut(peer.index()) {
            entry.count.stale = entry.count.stale.saturating_add(count);
        }
    }

    /// A slot has a path of the peer that was not there before. Says whether the list wants to be made shorter.
    #[must_use]
    pub(super) fn add_slot(&mut self, peer: PeerId, slot: SlotId) -> bool {
        let Some(entry) = self.entries.get_mut(peer.index()) else { return false };
        entry.slots.push(slot);
        entry.slots.len() > entry.count.received.saturating_mul(2).saturating_add(SLACK)
    }

    /// Takes the list of slots, each once and in order.
    pub(super) fn take_slots(&mut self, peer: PeerId) -> Vec<SlotId> {
        let Some(entry) = self.entries.get_mut(peer.index()) else { return Vec::new() };
        let mut slots = std::mem::take(&mut entry.slots);
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Puts the list back.
    pub(super) fn put_slots(&mut self, peer: PeerId, mut slots: Vec<SlotId>) {
        if slots.len() < slots.capacity() >> 2 {
            slots.shrink_to_fit();
        }
        if let Some(entry) = self.entries.get_mut(peer.index()) {
            entry.slots = slots;
        }
    }
}
