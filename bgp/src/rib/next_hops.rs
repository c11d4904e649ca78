//! Sets of next hops, numbered: many prefixes go the same way.

use std::{num::NonZeroU32, sync::Arc};

use hashbrown::HashMap;

use crate::speaker::FibNextHop;

/// Next hops that share the load of a prefix, in order; none: no route.
pub(crate) type NextHopSet = Arc<[FibNextHop]>;

const SWEEP_AT_LEAST: usize = 1024;

/// Number of a set with at least one next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NextHopSetId(NonZeroU32);

impl NextHopSetId {
    fn new(index: usize) -> Self {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    fn index(self) -> usize {
        usize::try_from(self.0.get().saturating_sub(1)).unwrap_or(usize::MAX)
    }
}

#[derive(Debug)]
pub(super) struct NextHopSets {
    sets: Vec<Option<NextHopSet>>,
    free: Vec<NextHopSetId>,
    index: HashMap<NextHopSet, NextHopSetId>,
    none: NextHopSet,
    sweep_at: usize,
}

impl NextHopSets {
    pub(super) fn new() -> Self {
        Self {
            sets: Vec::new(),
            free: Vec::new(),
            index: HashMap::new(),
            none: Arc::new([]),
            sweep_at: 0,
        }
    }

    pub(super) fn intern(&mut self, hops: &[FibNextHop]) -> Option<NextHopSetId> {
        if hops.is_empty() {
            return None;
        }
        if let Some(id) = self.index.get(hops) {
            return Some(*id);
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.sets.push(None);
            NextHopSetId::new(self.sets.len().saturating_sub(1))
        });
        let set: NextHopSet = hops.into();
        *self.sets.get_mut(id.index())? = Some(Arc::clone(&set));
        self.index.insert(set, id);
        Some(id)
    }

    pub(super) fn get(&self, id: Option<NextHopSetId>) -> NextHopSet {
        let set = id.and_then(|id| self.sets.get(id.index())?.as_ref());
        Arc::clone(set.unwrap_or(&self.none))
    }

    pub(super) fn wants_sweep(&self) -> bool {
        self.index.len() >= self.sweep_at.max(SWEEP_AT_LEAST)
    }

    /// Forgets the sets that are not among these: peers choose next hops, so there may be any number.
    pub(super) fn sweep(&mut self, used: impl Iterator<Item = NextHopSetId>) {
        let mut is_used = vec![false; self.sets.len()];
        for id in used {
            if let Some(mark) = is_used.get_mut(id.index()) {
                *mark = true;
            }
        }
        let keep = |id: NextHopSetId| is_used.get(id.index()).copied().unwrap_or(false);
        self.index.retain(|_, id| keep(*id));
        for (number, place) in self.sets.iter_mut().enumerate() {
            let id = NextHopSetId::new(number);
            if place.is_some() && !keep(id) {
                *place = None;
                self.free.push(id);
            }
        }
        self.sweep_at = self.index.len().saturating_mul(2);
    }
}
