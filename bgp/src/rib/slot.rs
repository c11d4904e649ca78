//! The place of a prefix.

use super::{
    next_hops::NextHopSetId,
    path::{Path, PathKey, Paths},
};
use crate::types::Prefix;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) prefix: Prefix,
    /// A decision is due.
    pub(super) dirty: bool,
    /// The first path was chosen by the last decision and is still there.
    chosen: bool,
    /// What the last decision chose changed or went away since.
    touched: bool,
    /// The next hops told last.
    pub(super) fib: Option<NextHopSetId>,
    paths: Paths,
}

impl Slot {
    pub(super) const fn new(prefix: Prefix) -> Self {
        Self { prefix, dirty: false, chosen: false, touched: false, fib: None, paths: Paths::None }
    }

    pub(super) fn paths(&self) -> &[Path] {
        self.paths.as_slice()
    }

    /// Returns the path that peers are told.
    pub(super) fn chosen(&self) -> Option<&Path> {
        self.paths().first().filter(|_| self.chosen)
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
        if index == 0 && self.chosen && path.accepted() != replaced.accepted() {
            self.touched = true;
        }
        Some(replaced)
    }

    pub(super) fn remove(&mut self, key: PathKey) -> Option<Path> {
        let index = self.paths.find(key)?;
        if index == 0 && self.chosen {
            (self.chosen, self.touched) = (false, true);
        }
        self.paths.remove(index)
    }

    pub(super) fn mark_stale(&mut self, matches: impl Fn(&Path) -> bool) {
        let paths = self.paths.as_mut_slice().iter_mut();
        paths.filter(|path| matches(path)).for_each(|path| path.stale = true);
    }

    /// Takes the outcome of a decision: this path, or none, is chosen. Returns whether that is news.
    pub(super) fn choose(&mut self, index: Option<usize>) -> bool {
        let before = self.chosen;
        let touched = std::mem::take(&mut self.touched);
        self.chosen = index.is_some();
        let moved = index.is_some_and(|index| index > 0);
        if let Some(index) = index {
            self.paths.as_mut_slice().swap(0, index);
        }
        touched || moved || before != self.chosen
    }
}
