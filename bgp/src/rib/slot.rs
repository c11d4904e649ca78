//! The place of a prefix.

use super::{
    SlotId,
    path::{Accepted, Path, PathKey, Paths, Rejection},
    way::WayId,
};
use crate::{effort, types::Prefix};

/// A decision is due.
const DIRTY: u8 = 1;
/// The first path was chosen by the last decision and is still there.
const CHOSEN: u8 = 2;
/// What the last decision chose changed or went away since.
const TOUCHED: u8 = 4;
/// A path is not used because of its next hop.
const OBSTRUCTED: u8 = 8;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) prefix: Prefix,
    /// In one octet: there may be millions of slots.
    flags: u8,
    /// The way told last.
    pub(super) fib: Option<WayId>,
    paths: Paths,
}

impl Slot {
    /// A prefix with its first path.
    pub(super) const fn new(prefix: Prefix, path: Path) -> Self {
        Self { prefix, flags: 0, fib: None, paths: Paths::one(path) }
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    const fn set(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    /// Says whether a decision is due.
    pub(super) const fn is_dirty(&self) -> bool {
        self.has(DIRTY)
    }

    pub(super) const fn set_dirty(&mut self, dirty: bool) {
        self.set(DIRTY, dirty);
    }

    /// Notes whether a path is not used because of its next hop; returns whether that is news.
    pub(super) const fn set_obstructed(&mut self, obstructed: bool) -> bool {
        let before = self.has(OBSTRUCTED);
        self.set(OBSTRUCTED, obstructed);
        before != obstructed
    }

    pub(super) fn paths(&self) -> &[Path] {
        self.paths.as_slice()
    }

    /// To change nothing that a decision looks at.
    pub(super) fn paths_mut(&mut self) -> &mut [Path] {
        self.paths.as_mut_slice()
    }

    /// Returns the path that peers are told.
    pub(super) fn chosen(&self) -> Option<&Path> {
        self.paths().first().filter(|_| self.has(CHOSEN))
    }

    /// Stores a path; returns the one it replaces.
    pub(super) fn insert(&mut self, mut path: Path) -> Option<Path> {
        let Some(index) = self.paths.find(path.key) else {
            self.paths.push(path);
            return None;
        };
        let place = self.paths.as_mut_slice().get_mut(index)?;
        path.local_id = place.local_id;
        let replaced = std::mem::replace(place, path);
        if index == 0 && self.has(CHOSEN) && path.accepted() != replaced.accepted() {
            self.set(TOUCHED, true);
        }
        Some(replaced)
    }

    pub(super) fn remove(&mut self, key: PathKey) -> Option<Path> {
        // Nearly always the only one.
        if let Paths::One(path) = self.paths {
            if path.key != key {
                return None;
            }
            if self.has(CHOSEN) {
                self.flags = self.flags & !CHOSEN | TOUCHED;
            }
            self.paths = Paths::None;
            return Some(path);
        }
        let index = self.paths.find(key)?;
        if index == 0 && self.has(CHOSEN) {
            self.set(CHOSEN, false);
            self.set(TOUCHED, true);
        }
        self.paths.remove(index)
    }

    /// Replaces what import policy said about a path; returns the path as it was, if that is news.
    pub(super) fn revise(
        &mut self,
        key: PathKey,
        import: Result<Accepted, Rejection>,
    ) -> Option<Path> {
        let index = self.paths.find(key)?;
        let path = self.paths.as_mut_slice().get_mut(index)?;
        let before = *path;
        if before.import() == import {
            return None;
        }
        path.set_import(import);
        if index == 0 && self.has(CHOSEN) {
            self.set(TOUCHED, true);
        }
        Some(before)
    }

    /// Takes the outcome of a decision: this path, or none, is chosen. Returns whether that is news.
    pub(super) fn choose(&mut self, index: Option<usize>) -> bool {
        let (before, touched) = (self.has(CHOSEN), self.has(TOUCHED));
        self.set(TOUCHED, false);
        self.set(CHOSEN, index.is_some());
        let moved = index.is_some_and(|index| index > 0);
        if let Some(index) = index.filter(|_| moved) {
            self.paths.as_mut_slice().swap(0, index);
        }
        touched || moved || before != index.is_some()
    }
}

/// Slots of a chunk.
const CHUNK: usize = 4096;

/// All slots, in chunks: growing neither copies them nor needs room for old and new ones at once.
#[derive(Debug, Default)]
pub(super) struct Slots {
    chunks: Vec<Vec<Option<Slot>>>,
}

impl Slots {
    pub(super) fn get(&self, id: SlotId) -> Option<&Slot> {
        effort::count();
        self.chunks.get(id.index() / CHUNK)?.get(id.index() % CHUNK)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.place(id)?.as_mut()
    }

    /// Returns the place of a slot, whether it is used or not.
    pub(super) fn place(&mut self, id: SlotId) -> Option<&mut Option<Slot>> {
        effort::count();
        self.chunks.get_mut(id.index() / CHUNK)?.get_mut(id.index() % CHUNK)
    }

    /// Returns how many places there are.
    pub(super) fn len(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1).saturating_mul(CHUNK);
        full.saturating_add(self.chunks.last().map_or(0, Vec::len))
    }

    /// Adds a slot behind all others.
    pub(super) fn push(&mut self, slot: Slot) -> SlotId {
        let id = SlotId(u32::try_from(self.len()).unwrap_or(u32::MAX));
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(Some(slot)),
            first => {
                // A table of a few prefixes is not to need a whole chunk.
                let capacity = if first.is_some() { CHUNK } else { 0 };
                let mut chunk = Vec::with_capacity(capacity);
                chunk.push(Some(slot));
                self.chunks.push(chunk);
            }
        }
        id
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_slot_is_small() {
        assert_eq!(size_of::<Option<super::Slot>>(), 48);
    }
}
