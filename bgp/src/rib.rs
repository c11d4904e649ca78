//! The routing table: for every prefix all paths received (Adj-RIB-In) and which of them are used (Loc-RIB).
//!
//! A prefix lives in a slot with a stable number, so that update groups can keep one word per slot. What was announced
//! to whom (Adj-RIB-Out) is theirs. Nothing is stored twice: the first path of a decided slot is the chosen one, and
//! the usual slot, with one path, needs no allocation.

mod next_hops;
mod path;
mod slot;

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

pub(crate) use self::{
    next_hops::NextHopSet,
    path::{Path, PathKey, Rejection},
};
use self::{
    next_hops::{NextHopSetId, NextHopSets},
    slot::Slot,
};
use crate::{
    attr::{AttrId, AttrSet, Interner},
    decision::{Candidate, Decision, Multipath, Origination, decide},
    speaker::FibNextHop,
    types::{Families, Prefix},
};

/// Number of a peer; used again once no path of it is left and every group knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(pub(crate) u32);

impl PeerId {
    /// This speaker.
    pub(crate) const LOCAL: Self = Self(0);

    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Number of a slot; used again once the prefix is gone and every group knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId(u32);

impl SlotId {
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

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
}

/// What a new decision changed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The next hops are others than before.
    pub(crate) fib: Option<NextHopSet>,
    /// The choice is another than before.
    pub(crate) chosen: bool,
}

/// All prefixes of both families.
#[derive(Debug)]
pub(crate) struct Rib {
    hasher: DefaultHashBuilder,
    index: HashTable<SlotId>,
    slots: Vec<Option<Slot>>,
    free: Vec<SlotId>,
    dirty: Vec<SlotId>,
    sources: Vec<Option<Source>>,
    counts: Vec<Count>,
    next_hop_sets: NextHopSets,
    /// Neighbouring prefixes mostly share their attributes.
    recent_next_hop: Option<(AttrId, PeerId, Option<NextHopSetId>)>,
    /// Networks on links without carrier.
    unreachable: Vec<Prefix>,
    pub(crate) multipath: Multipath,
}

impl Rib {
    pub(crate) fn new(multipath: Multipath) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            sources: Vec::new(),
            counts: Vec::new(),
            next_hop_sets: NextHopSets::new(),
            recent_next_hop: None,
            unreachable: Vec::new(),
            multipath,
        }
    }

    /// Tells who a peer is; must come before its first path.
    pub(crate) fn set_source(&mut self, peer: PeerId, source: Source) {
        let index = peer.index();
        if self.sources.len() <= index {
            self.sources.resize(index.saturating_add(1), None);
            self.counts.resize(index.saturating_add(1), Count::default());
        }
        if let Some(place) = self.sources.get_mut(index) {
            *place = Some(source);
        }
        self.recent_next_hop = None;
    }

    pub(crate) fn source(&self, peer: PeerId) -> Option<&Source> {
        self.sources.get(peer.index())?.as_ref()
    }

    pub(crate) fn count(&self, peer: PeerId) -> Count {
        self.counts.get(peer.index()).copied().unwrap_or_default()
    }

    /// Returns how many prefixes there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn find(&self, prefix: &Prefix) -> Option<SlotId> {
        let hash = hash(&self.hasher, prefix);
        let slots = &self.slots;
        self.index.find(hash, |id| slot_prefix(slots, *id) == Some(*prefix)).copied()
    }

    fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(id.index())?.as_ref()
    }

    fn slot_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(id.index())?.as_mut()
    }

    fn find_or_insert(&mut self, prefix: Prefix) -> SlotId {
        if let Some(found) = self.find(&prefix) {
            return found;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            SlotId(u32::try_from(self.slots.len().saturating_sub(1)).unwrap_or(u32::MAX))
        });
        if let Some(place) = self.slots.get_mut(id.index()) {
            *place = Some(Slot::new(prefix));
        }
        let Self { hasher, slots, index, .. } = self;
        index.insert_unique(hash(hasher, &prefix), id, |id| {
            hash(hasher, &slot_prefix(slots, *id).unwrap_or(prefix))
        });
        id
    }

    fn mark(&mut self, id: SlotId) {
        if let Some(slot) = self.slot_mut(id)
            && !slot.dirty
        {
            slot.dirty = true;
            self.dirty.push(id);
        }
    }

    fn count_path(&mut self, path: &Path, present: bool) {
        let Some(count) = self.counts.get_mut(path.key.source.index()) else { return };
        let step = |number: &mut usize| {
            *number = if present { number.saturating_add(1) } else { number.saturating_sub(1) };
        };
        step(&mut count.received);
        if path.accepted().is_ok() {
            step(&mut count.accepted);
        }
    }

    /// Stores a path, in place of the one with the same key.
    pub(crate) fn insert(&mut self, prefix: Prefix, path: Path) {
        let id = self.find_or_insert(prefix);
        let Some(slot) = self.slot_mut(id) else { return };
        let replaced = slot.insert(path);
        self.count_path(&path, true);
        if let Some(replaced) = &replaced {
            self.count_path(replaced, false);
        }
        if replaced.is_none_or(|replaced| !replaced.decides_like(&path)) {
            self.mark(id);
        }
    }

    /// Removes a path.
    pub(crate) fn remove(&mut self, prefix: &Prefix, key: PathKey) {
        if let Some(id) = self.find(prefix) {
            self.remove_in(id, key);
        }
    }

    fn remove_in(&mut self, id: SlotId, key: PathKey) {
        if let Some(removed) = self.slot_mut(id).and_then(|slot| slot.remove(key)) {
            self.count_path(&removed, false);
            self.mark(id);
        }
    }

    /// Lists all numbers; slots may be empty.
    pub(crate) fn all(&self) -> impl Iterator<Item = SlotId> + use<> {
        self.range(0, usize::MAX)
    }

    /// Lists up to `count` numbers from `first` on.
    pub(crate) fn range(&self, first: usize, count: usize) -> impl Iterator<Item = SlotId> + use<> {
        let end = first.saturating_add(count).min(self.slots.len());
        (first..end).filter_map(|index| u32::try_from(index).ok().map(SlotId))
    }

    /// Removes all paths of a source in these families; only the stale ones if asked so.
    pub(crate) fn remove_all(&mut self, source: PeerId, families: Families, only_stale: bool) {
        if families.is_empty() || self.count(source).received == 0 {
            return;
        }
        for id in self.all() {
            let Some(slot) = self.slot(id) else { continue };
            if !families.contains(slot.prefix.family()) {
                continue;
            }
            let matches = |path: &&Path| path.key.source == source && (path.stale || !only_stale);
            while let Some(key) = self
                .slot(id)
                .and_then(|slot| slot.paths().iter().find(matches))
                .map(|path| path.key)
            {
                self.remove_in(id, key);
            }
        }
    }

    /// Marks all paths of a source in these families as stale.
    pub(crate) fn mark_stale(&mut self, source: PeerId, families: Families) {
        for slot in self.slots.iter_mut().flatten() {
            if families.contains(slot.prefix.family()) {
                slot.mark_stale(|path| path.key.source == source);
            }
        }
    }

    /// Lists the paths of a source.
    pub(crate) fn paths_of(&self, source: PeerId) -> Vec<(Prefix, Path)> {
        let slots = self.slots.iter().flatten();
        let all = slots.flat_map(|slot| slot.paths().iter().map(|path| (slot.prefix, *path)));
        all.filter(|(_, path)| path.key.source == source).collect()
    }

    /// Replaces the networks that cannot be reached and looks at everything again.
    pub(crate) fn set_unreachable(&mut self, networks: Vec<Prefix>) {
        if self.unreachable != networks {
            self.unreachable = networks;
            self.mark_all();
        }
    }

    /// Decides everything again.
    pub(crate) fn mark_all(&mut self) {
        for id in self.all() {
            self.mark(id);
        }
    }

    /// Says whether decisions are due.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes up to `limit` slots whose paths changed.
    pub(crate) fn take_dirty(&mut self, limit: usize) -> Vec<SlotId> {
        let rest = self.dirty.split_off(self.dirty.len().min(limit));
        let taken = std::mem::replace(&mut self.dirty, rest);
        for id in &taken {
            if let Some(slot) = self.slot_mut(*id) {
                slot.dirty = false;
            }
        }
        taken
    }

    /// Decides about one slot.
    pub(crate) fn update(&mut self, id: SlotId, interner: &Interner) -> Outcome {
        let Some(slot) = self.slot(id) else { return Outcome::default() };
        let (best, fib) = match slot.paths() {
            [] => (None, None),
            [only] => {
                let only = *only;
                match self.usable(&only, interner) {
                    Some(set) => (Some(0), self.only_next_hop(&only, set)),
                    None => (None, None),
                }
            }
            _ => {
                let decision = self.decision(slot, interner);
                let used = decision.map(|decision| decision.used).unwrap_or_default();
                let hops = self.next_hops(slot, &used, interner);
                (used.first().copied(), self.next_hop_sets.intern(&hops))
            }
        };
        let Some(slot) = self.slot_mut(id) else { return Outcome::default() };
        let chosen = slot.choose(best);
        let fib_changed = slot.fib != fib;
        slot.fib = fib;
        Outcome { fib: fib_changed.then(|| self.next_hop_sets.get(fib)), chosen }
    }

    /// Returns the attributes of a path that may be used.
    fn usable<'a>(&self, path: &Path, interner: &'a Interner) -> Option<&'a AttrSet> {
        let set = interner.get(path.accepted().ok()?)?;
        self.is_reachable(set).then_some(set)
    }

    /// Runs the decision process over the usable paths of a slot.
    fn decision(&self, slot: &Slot, interner: &Interner) -> Option<Decision> {
        decide(self.candidates_in(slot, interner), self.multipath)
    }

    fn candidates_in<'a>(&self, slot: &Slot, interner: &'a Interner) -> Vec<Candidate<'a>> {
        let candidates = slot.paths().iter().enumerate().filter_map(|(index, path)| {
            let attributes = self.usable(path, interner)?;
            let from = self.source(path.key.source)?.origination;
            Some(Candidate { attributes, from, index, path_id: path.key.path_id })
        });
        candidates.collect()
    }

    /// Lists what the decision process chooses from; the index is the place among the paths of the slot.
    pub(crate) fn candidates<'a>(&self, id: SlotId, interner: &'a Interner) -> Vec<Candidate<'a>> {
        self.slot(id).map(|slot| self.candidates_in(slot, interner)).unwrap_or_default()
    }

    /// Returns the longest prefix with a chosen path that the address lies in; without one, the longest with any path.
    pub(crate) fn longest_match(&self, address: std::net::IpAddr) -> Option<Prefix> {
        let longest = Prefix::host(address).length();
        let lengths = (0..=longest).rev();
        let mut known = lengths.filter_map(|length| {
            let prefix = Prefix::new(address, length).ok()?;
            Some((prefix, self.find(&prefix)?))
        });
        let first = known.next()?;
        let mut all = std::iter::once(first).chain(known);
        let used = all.find(|(_, id)| self.chosen(*id).is_some());
        Some(used.unwrap_or(first).0)
    }

    fn is_reachable(&self, set: &AttrSet) -> bool {
        let Some(next_hop) = set.next_hop else { return true };
        !self.unreachable.iter().any(|network| network.contains_address(next_hop))
    }

    fn only_next_hop(&mut self, path: &Path, set: &AttrSet) -> Option<NextHopSetId> {
        let id = path.accepted().ok()?;
        if let Some((recent, source, hops)) = self.recent_next_hop
            && recent == id
            && source == path.key.source
        {
            return hops;
        }
        let hops = self.next_hop(path, set).and_then(|hop| self.next_hop_sets.intern(&[hop]));
        self.recent_next_hop = Some((id, path.key.source, hops));
        hops
    }

    /// Routes of our own are not ours to put into the kernel.
    fn next_hop(&self, path: &Path, set: &AttrSet) -> Option<FibNextHop> {
        if path.key.source == PeerId::LOCAL {
            return None;
        }
        let address = set.next_hop?;
        let link_local = matches!(address, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
        let source = self.source(path.key.source).filter(|_| link_local);
        Some(FibNextHop { address, interface: source.and_then(|source| source.interface.clone()) })
    }

    fn next_hops(&self, slot: &Slot, used: &[usize], interner: &Interner) -> Vec<FibNextHop> {
        let used: Vec<&Path> = used.iter().filter_map(|index| slot.paths().get(*index)).collect();
        if used.iter().any(|path| path.key.source == PeerId::LOCAL) {
            return Vec::new();
        }
        let hops = used
            .into_iter()
            .filter_map(|path| self.next_hop(path, interner.get(path.accepted().ok()?)?));
        let mut hops: Vec<FibNextHop> = hops.collect();
        hops.sort();
        hops.dedup();
        hops
    }

    pub(crate) fn prefix(&self, id: SlotId) -> Option<Prefix> {
        self.slot(id).map(|slot| slot.prefix)
    }

    /// Says whether the kernel should have a route to the prefix.
    pub(crate) fn has_next_hops(&self, prefix: &Prefix) -> bool {
        self.find(prefix).and_then(|id| self.slot(id)).is_some_and(|slot| slot.fib.is_some())
    }

    /// Returns the path that peers are told.
    pub(crate) fn chosen(&self, id: SlotId) -> Option<&Path> {
        self.slot(id)?.chosen()
    }

    /// Lists the paths that may be told to ADD-PATH peers.
    pub(crate) fn usable_paths<'a>(
        &'a self,
        id: SlotId,
        interner: &'a Interner,
    ) -> impl Iterator<Item = &'a Path> {
        let paths = self.slot(id).map(Slot::paths).unwrap_or_default();
        paths.iter().filter(|path| self.usable(path, interner).is_some())
    }

    /// Gives the slots back that hold nothing any more; every group has seen that.
    pub(crate) fn release(&mut self, ids: &[SlotId]) {
        for id in ids {
            let Some(slot) = self.slot(*id) else { continue };
            if !slot.paths().is_empty() || slot.dirty {
                continue;
            }
            let hash = hash(&self.hasher, &slot.prefix);
            if let Ok(entry) = self.index.find_entry(hash, |other| other == id) {
                entry.remove();
            }
            if let Some(place) = self.slots.get_mut(id.index()) {
                *place = None;
            }
            self.free.push(*id);
        }
    }

    /// Forgets attributes and next hops that no path has any more, if there may be many of them.
    pub(crate) fn sweep(
        &mut self,
        interner: &mut Interner,
        remembered: impl Iterator<Item = AttrId>,
    ) {
        if interner.wants_sweep() {
            let paths = self.slots.iter().flatten().flat_map(Slot::paths);
            let held = paths.flat_map(|path| [Some(path.received), path.accepted().ok()]);
            interner.sweep(held.flatten().chain(remembered));
            self.recent_next_hop = None;
        }
        if self.next_hop_sets.wants_sweep() {
            self.next_hop_sets.sweep(self.slots.iter().flatten().filter_map(|slot| slot.fib));
            self.recent_next_hop = None;
        }
    }

    /// Shows one prefix with its paths and the decision about them.
    pub(crate) fn entry(&self, id: SlotId, interner: &Interner) -> Option<Entry<'_>> {
        let slot = self.slot(id)?;
        let decision = self.decision(slot, interner);
        let next_hops = self.next_hop_sets.get(slot.fib);
        Some(Entry { prefix: slot.prefix, paths: slot.paths(), decision, next_hops })
    }

    /// Shows every prefix, in order.
    pub(crate) fn entries(&self, interner: &Interner) -> Vec<Entry<'_>> {
        let mut entries: Vec<_> = self.all().filter_map(|id| self.entry(id, interner)).collect();
        entries.sort_by_key(|entry| entry.prefix);
        entries
    }
}

/// One prefix for the operator.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) prefix: Prefix,
    pub(crate) paths: &'a [Path],
    pub(crate) decision: Option<Decision>,
    /// The next hops told last.
    pub(crate) next_hops: NextHopSet,
}

fn hash(hasher: &DefaultHashBuilder, prefix: &Prefix) -> u64 {
    match prefix.address() {
        std::net::IpAddr::V4(address) => {
            hasher.hash_one(u64::from(u32::from(address)) << 8 | u64::from(prefix.length()))
        }
        std::net::IpAddr::V6(address) => hasher.hash_one((u128::from(address), prefix.length())),
    }
}

fn slot_prefix(slots: &[Option<Slot>], id: SlotId) -> Option<Prefix> {
    slots.get(id.index())?.as_ref().map(|slot| slot.prefix)
}
