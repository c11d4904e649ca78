//! The routing table: for every prefix all paths received (Adj-RIB-In) and what was chosen (Loc-RIB).
//!
//! A prefix lives in a slot with a stable number, so that update groups can keep one word per slot. What was announced
//! to whom (Adj-RIB-Out) is theirs.

use std::{collections::BTreeSet, hash::BuildHasher, net::IpAddr, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::{
    attr::AttrSet,
    decision::{Candidate, Decision, Multipath, Origination, decide},
    speaker::FibNextHop,
    types::{Families, Prefix},
};

/// Number of a peer; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(pub(crate) u32);

impl PeerId {
    /// This speaker.
    pub(crate) const LOCAL: Self = Self(0);

    fn index(self) -> usize {
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

/// Why a received path is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rejection {
    OwnAs,
    OwnOriginator,
    OwnCluster,
    NextHop,
    RouteLeak,
    MappedNextHop,
    Policy,
}

/// A path as received, and what import policy made of it.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) source: PeerId,
    pub(crate) stale: bool,
    pub(crate) received: Arc<AttrSet>,
    pub(crate) accepted: Result<Arc<AttrSet>, Rejection>,
}

/// The paths of a slot. One is the usual case and needs no allocation.
#[derive(Debug, Default)]
enum Paths {
    #[default]
    None,
    One(Path),
    Many(Vec<Path>),
}

impl Paths {
    fn as_slice(&self) -> &[Path] {
        match self {
            Self::None => &[],
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Self::None => &mut [],
            Self::One(path) => std::slice::from_mut(path),
            Self::Many(paths) => paths,
        }
    }

    fn push(&mut self, path: Path) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(path),
            Self::One(first) => Self::Many(vec![first, path]),
            Self::Many(mut paths) => {
                paths.push(path);
                Self::Many(paths)
            }
        };
    }

    fn remove(&mut self, source: PeerId) -> Option<Path> {
        let position = self.as_slice().iter().position(|path| path.source == source)?;
        match std::mem::take(self) {
            Self::None => None,
            Self::One(path) => Some(path),
            Self::Many(mut paths) => {
                let removed = paths.remove(position);
                *self = match paths.len() {
                    1 => paths.pop().map_or(Self::None, Self::One),
                    _ => Self::Many(paths),
                };
                Some(removed)
            }
        }
    }
}

/// What was chosen for a prefix and is told to peers.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) attributes: Arc<AttrSet>,
    pub(crate) source: PeerId,
}

impl Chosen {
    fn is(&self, other: &Self) -> bool {
        self.source == other.source && Arc::ptr_eq(&self.attributes, &other.attributes)
    }
}

#[derive(Debug)]
struct Slot {
    prefix: Prefix,
    dirty: bool,
    paths: Paths,
    chosen: Option<Chosen>,
    fib: Option<Arc<[FibNextHop]>>,
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
    pub(crate) fib: Option<Arc<[FibNextHop]>>,
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
    next_hop_sets: BTreeSet<Arc<[FibNextHop]>>,
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
            next_hop_sets: BTreeSet::new(),
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
    }

    pub(crate) fn count(&self, peer: PeerId) -> Count {
        self.counts.get(peer.index()).copied().unwrap_or_default()
    }

    /// Returns how many prefixes there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    fn find(&self, prefix: &Prefix) -> Option<SlotId> {
        let hash = self.hasher.hash_one(prefix);
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
        let slot = Slot { prefix, dirty: false, paths: Paths::None, chosen: None, fib: None };
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = SlotId(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
                self.slots.push(None);
                id
            }
        };
        if let Some(place) = self.slots.get_mut(id.index()) {
            *place = Some(slot);
        }
        let Self { hasher, slots, index, .. } = self;
        index.insert_unique(hasher.hash_one(prefix), id, |id| {
            hasher.hash_one(slot_prefix(slots, *id).unwrap_or(prefix))
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
        let Some(count) = self.counts.get_mut(path.source.index()) else { return };
        let step = |number: &mut usize| {
            *number = if present { number.saturating_add(1) } else { number.saturating_sub(1) };
        };
        step(&mut count.received);
        if path.accepted.is_ok() {
            step(&mut count.accepted);
        }
    }

    /// Stores a path, in place of the one its source had before.
    pub(crate) fn insert(&mut self, prefix: Prefix, path: Path) {
        let id = self.find_or_insert(prefix);
        self.count_path(&path, true);
        let Some(slot) = self.slot_mut(id) else { return };
        let places = slot.paths.as_mut_slice();
        let replaced = match places.iter_mut().find(|old| old.source == path.source) {
            Some(place) => Some(std::mem::replace(place, path)),
            None => {
                slot.paths.push(path);
                None
            }
        };
        if let Some(replaced) = replaced {
            self.count_path(&replaced, false);
        }
        self.mark(id);
    }

    /// Removes the path of a source.
    pub(crate) fn remove(&mut self, prefix: &Prefix, source: PeerId) {
        if let Some(id) = self.find(prefix) {
            self.remove_in(id, source);
        }
    }

    fn remove_in(&mut self, id: SlotId, source: PeerId) {
        let removed = self.slot_mut(id).and_then(|slot| slot.paths.remove(source));
        if let Some(removed) = removed {
            self.count_path(&removed, false);
            self.mark(id);
        }
    }

    fn all(&self) -> impl Iterator<Item = SlotId> + use<> {
        (0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)).map(SlotId)
    }

    fn path_in(&self, id: SlotId, source: PeerId) -> Option<(&Prefix, &Path)> {
        let slot = self.slot(id)?;
        let path = slot.paths.as_slice().iter().find(|path| path.source == source)?;
        Some((&slot.prefix, path))
    }

    /// Removes all paths of a source in these families; only the stale ones if asked so.
    pub(crate) fn remove_all(&mut self, source: PeerId, families: Families, only_stale: bool) {
        if families.is_empty() || self.count(source).received == 0 {
            return;
        }
        for id in self.all() {
            let matching = self.path_in(id, source).is_some_and(|(prefix, path)| {
                families.contains(prefix.family()) && (path.stale || !only_stale)
            });
            if matching {
                self.remove_in(id, source);
            }
        }
    }

    /// Marks all paths of a source in these families as stale.
    pub(crate) fn mark_stale(&mut self, source: PeerId, families: Families) {
        for slot in self.slots.iter_mut().flatten() {
            if families.contains(slot.prefix.family()) {
                let paths = slot.paths.as_mut_slice().iter_mut();
                paths.filter(|path| path.source == source).for_each(|path| path.stale = true);
            }
        }
    }

    /// Lists the paths of a source.
    pub(crate) fn paths_of(&self, source: PeerId) -> Vec<(Prefix, Path)> {
        let all = self.all().filter_map(|id| self.path_in(id, source));
        all.map(|(prefix, path)| (*prefix, path.clone())).collect()
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
    pub(crate) fn update(&mut self, id: SlotId) -> Outcome {
        let Some(slot) = self.slot(id) else { return Outcome::default() };
        let decision = self.decision(slot);
        let used: Vec<&Path> = decision
            .iter()
            .flat_map(|decision| &decision.used)
            .filter_map(|index| slot.paths.as_slice().get(*index))
            .collect();
        let chosen = used.first().and_then(|path| {
            let attributes = Arc::clone(path.accepted.as_ref().ok()?);
            Some(Chosen { attributes, source: path.source })
        });
        let hops = self.next_hops(&used);
        let hops = self.intern_next_hops(hops);
        let Some(slot) = self.slot_mut(id) else { return Outcome::default() };
        let same = match (&slot.chosen, &chosen) {
            (Some(before), Some(now)) => before.is(now),
            (None, None) => true,
            _ => false,
        };
        slot.chosen = chosen;
        let empty: &[FibNextHop] = &[];
        let fib_changed = slot.fib.as_deref().unwrap_or(empty) != &*hops;
        if fib_changed {
            slot.fib = (!hops.is_empty()).then(|| Arc::clone(&hops));
        }
        Outcome { fib: fib_changed.then_some(hops), chosen: !same }
    }

    /// Runs the decision process over the usable paths of a slot.
    fn decision(&self, slot: &Slot) -> Option<Decision> {
        let candidates = slot.paths.as_slice().iter().enumerate().filter_map(|(index, path)| {
            let attributes = path.accepted.as_ref().ok()?;
            let from = self.source(path.source)?.origination;
            self.is_reachable(attributes).then_some(Candidate { attributes, from, index })
        });
        decide(candidates.collect(), self.multipath)
    }

    fn is_reachable(&self, attributes: &AttrSet) -> bool {
        let Some(next_hop) = attributes.next_hop else { return true };
        !self.unreachable.iter().any(|network| network.contains_address(next_hop.address))
    }

    pub(crate) fn source(&self, peer: PeerId) -> Option<&Source> {
        self.sources.get(peer.index())?.as_ref()
    }

    /// Routes of our own are not ours to put into the kernel.
    fn next_hops(&self, used: &[&Path]) -> Vec<FibNextHop> {
        let mut hops = Vec::with_capacity(used.len());
        for path in used {
            if path.source == PeerId::LOCAL {
                return Vec::new();
            }
            let Some(next_hop) = path.accepted.as_ref().ok().and_then(|set| set.next_hop) else {
                continue;
            };
            let address = next_hop.address;
            let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            let interface = if link_local {
                self.source(path.source).and_then(|source| source.interface.clone())
            } else {
                None
            };
            let hop = FibNextHop { address, interface };
            if !hops.contains(&hop) {
                hops.push(hop);
            }
        }
        hops.sort();
        hops
    }

    fn intern_next_hops(&mut self, hops: Vec<FibNextHop>) -> Arc<[FibNextHop]> {
        if let Some(known) = self.next_hop_sets.get(hops.as_slice()) {
            return Arc::clone(known);
        }
        if self.next_hop_sets.len() >= 1024 {
            self.next_hop_sets.retain(|set| Arc::strong_count(set) > 1);
        }
        let set: Arc<[FibNextHop]> = hops.into();
        self.next_hop_sets.insert(Arc::clone(&set));
        set
    }

    pub(crate) fn prefix(&self, id: SlotId) -> Option<Prefix> {
        self.slot(id).map(|slot| slot.prefix)
    }

    pub(crate) fn chosen(&self, id: SlotId) -> Option<&Chosen> {
        self.slot(id)?.chosen.as_ref()
    }

    /// Lists the slots with a choice.
    pub(crate) fn chosen_slots(&self) -> Vec<SlotId> {
        self.all().filter(|id| self.chosen(*id).is_some()).collect()
    }

    /// Gives the slots back that hold nothing any more; every group has seen that.
    pub(crate) fn release(&mut self, ids: &[SlotId]) {
        for id in ids {
            let Some(slot) = self.slot(*id) else { continue };
            let empty = slot.paths.as_slice().is_empty() && slot.chosen.is_none() && !slot.dirty;
            if !empty {
                continue;
            }
            let hash = self.hasher.hash_one(slot.prefix);
            if let Ok(entry) = self.index.find_entry(hash, |other| other == id) {
                entry.remove();
            }
            if let Some(place) = self.slots.get_mut(id.index()) {
                *place = None;
            }
            self.free.push(*id);
        }
    }

    /// Shows every prefix with its paths and the decision about them, in order.
    pub(crate) fn entries(&self) -> Vec<Entry<'_>> {
        let mut entries: Vec<_> = self
            .slots
            .iter()
            .flatten()
            .map(|slot| Entry {
                prefix: slot.prefix,
                paths: slot.paths.as_slice(),
                decision: self.decision(slot),
            })
            .collect();
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
}

fn slot_prefix(slots: &[Option<Slot>], id: SlotId) -> Option<Prefix> {
    slots.get(id.index())?.as_ref().map(|slot| slot.prefix)
}
