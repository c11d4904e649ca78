//! The routing table: for every prefix all paths received (Adj-RIB-In) and which of them are used (Loc-RIB).
//!
//! A prefix lives in a slot with a stable number, so that update groups can keep one word per slot. What was announced
//! to whom (Adj-RIB-Out) is theirs. Nothing is stored twice: the first path of a decided slot is the chosen one, and
//! the usual slot, with one path, needs no allocation.

mod holds;
mod path;
mod reach;
mod recheck;
mod slot;
mod sources;
mod walk;
mod way;

use std::{collections::VecDeque, hash::BuildHasher};

use hashbrown::DefaultHashBuilder;

use self::{
    holds::Holds,
    reach::Reach,
    recheck::Recheck,
    slot::{Slot, Slots},
    sources::Sources,
    way::{Way, WayId, Ways},
};
pub(crate) use self::{
    path::{Accepted, Path, PathKey, Rejection},
    reach::{HopChange, PATIENCE as NEXT_HOP_PATIENCE},
    sources::{Count, Source, Uses},
    walk::{Retire, Review, Task},
};
use crate::{
    attr::{AttrId, AttrSet, Interner},
    decision::{Candidate, Decision, Multipath, decide},
    fib::FibRoute,
    index::{Found, Index},
    prefetch::prefetch,
    types::{Family, Prefix},
    wire::Item,
};

/// Look-ups that are begun together.
const TOGETHER: usize = 32;

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
pub(crate) struct SlotId(pub(crate) u32);

impl SlotId {
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// What a new decision changed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Packets go another way than before.
    pub(crate) fib: bool,
    /// The choice is another than before.
    pub(crate) chosen: bool,
}

/// A prefix that is about to be looked for, with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lookup {
    pub(crate) item: Item,
    hash: u32,
}

/// All prefixes of both families.
#[derive(Debug)]
pub(crate) struct Rib {
    hasher: DefaultHashBuilder,
    index: Index,
    slots: Slots,
    free: Vec<SlotId>,
    dirty: VecDeque<SlotId>,
    /// How many slots were ever put there, and how many were taken.
    marked: u64,
    decided: u64,
    recheck: Recheck,
    sources: Sources,
    ways: Ways,
    /// Neighbouring prefixes mostly share their attributes.
    recent_way: Option<(AttrId, PeerId, Option<WayId>)>,
    reach: Reach,
    /// Prefixes with a path that is not used because of its next hop.
    obstructed: usize,
    holds: Holds,
    pub(crate) multipath: Multipath,
    /// What changed, for those who watch.
    journal: Option<Journal>,
}

/// What changed since somebody looked.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Paths that came, changed or went.
    pub(crate) paths: Vec<(PathKey, Prefix)>,
    /// Prefixes with another choice.
    pub(crate) chosen: Vec<Prefix>,
}

impl Rib {
    pub(crate) fn new(multipath: Multipath) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            index: Index::default(),
            slots: Slots::default(),
            free: Vec::new(),
            dirty: VecDeque::new(),
            marked: 0,
            decided: 0,
            recheck: Recheck::default(),
            sources: Sources::default(),
            ways: Ways::default(),
            recent_way: None,
            reach: Reach::default(),
            obstructed: 0,
            holds: Holds::default(),
            multipath,
            journal: None,
        }
    }

    /// Begins or ends to remember what changes.
    pub(crate) fn keep_journal(&mut self, keep: bool) {
        if keep != self.journal.is_some() {
            self.journal = keep.then(Journal::default);
        }
    }

    /// Returns what changed since the last time.
    pub(crate) fn take_journal(&mut self) -> Journal {
        self.journal.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn note_path(&mut self, key: PathKey, prefix: Prefix) {
        if let Some(journal) = &mut self.journal {
            journal.paths.push((key, prefix));
        }
    }

    /// Tells who a peer is; must come before its first path.
    pub(crate) fn set_source(&mut self, peer: PeerId, source: Source) {
        self.sources.set(peer, source);
        self.recent_way = None;
    }

    pub(crate) fn source(&self, peer: PeerId) -> Option<&Source> {
        self.sources.get(peer)
    }

    pub(crate) fn count(&self, peer: PeerId) -> Count {
        self.sources.count(peer)
    }

    /// A path came or went. One that a walk will remove was counted when that was ordered.
    fn tally(&mut self, family: Family, path: &Path, present: bool) {
        if let Some(stale) = self.fate(family, path) {
            self.sources.count_path(family, path, stale, present);
        }
    }

    /// Counts the paths of one family.
    pub(crate) fn count_in(&self, peer: PeerId, family: Family) -> Count {
        self.sources.count_in(peer, family)
    }

    /// Returns how many prefixes there are.
    pub(crate) const fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn find(&self, prefix: &Prefix) -> Option<SlotId> {
        self.find_hashed(prefix, hash(&self.hasher, prefix))
    }

    fn find_hashed(&self, prefix: &Prefix, hash: u32) -> Option<SlotId> {
        match self.index.find(hash, |id| self.prefix(SlotId(id)) == Some(*prefix)) {
            Found::Number(id) => Some(SlotId(id)),
            Found::Vacant(_) => None,
        }
    }

    fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(id)
    }

    fn slot_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(id)
    }

    /// Asks for the memory that looking for these prefixes will need.
    pub(crate) fn prefetch(&self, items: impl Iterator<Item = Item>) {
        // Of a long message the rest has its turn when it is looked up.
        let first = items.take(TOGETHER);
        first.for_each(|item| self.index.prefetch(hash(&self.hasher, &item.prefix)));
    }

    /// Takes some prefixes and begins to look for all of them at once: the waits for memory overlap. Says whether there were
    /// any.
    pub(crate) fn look_up(
        &self,
        items: &mut impl Iterator<Item = Item>,
        found: &mut Vec<Lookup>,
    ) -> bool {
        found.clear();
        for item in items.take(TOGETHER) {
            let hash = hash(&self.hasher, &item.prefix);
            self.index.prefetch(hash);
            found.push(Lookup { item, hash });
        }
        for Lookup { hash, .. } in &*found {
            if let Some(slot) = self.index.guess(*hash).and_then(|id| self.slot(SlotId(id))) {
                prefetch(slot);
            }
        }
        !found.is_empty()
    }

    fn lookup(&self, prefix: Prefix, path_id: u32) -> Lookup {
        Lookup { item: Item { prefix, path_id }, hash: hash(&self.hasher, &prefix) }
    }

    fn mark(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id)
            && !slot.is_dirty()
        {
            slot.set_dirty(true);
            self.dirty.push_back(id);
            self.marked = self.marked.saturating_add(1);
        }
    }

    /// Stores a path, in place of the one with the same key.
    pub(crate) fn insert(&mut self, prefix: Prefix, path: Path) {
        self.insert_at(self.lookup(prefix, path.key.path_id), path);
    }

    /// Stores a path of a prefix that was looked up.
    pub(crate) fn insert_at(&mut self, Lookup { item, hash }: Lookup, mut path: Path) {
        let prefix = item.prefix;
        path.set_epoch(self.sources.epoch(path.key.source));
        self.index.reserve();
        let found = self.index.find(hash, |id| self.prefix(SlotId(id)) == Some(prefix));
        let (id, replaced) = match found {
            Found::Number(id) => {
                let id = SlotId(id);
                let Some(slot) = self.slot_mut(id) else { return };
                (id, slot.insert(path))
            }
            Found::Vacant(place) => {
                let id = self.occupy(Slot::new(prefix, path));
                self.index.occupy(place, hash, id.0);
                (id, None)
            }
        };
        self.note_path(path.key, prefix);
        self.holds.begin(&path);
        let family = prefix.family();
        self.tally(family, &path, true);
        // A walk that has yet to meet the one before leaves this one alone, and does not keep the slot in the list.
        if replaced.is_none_or(|replaced| replaced.epoch() != path.epoch()) {
            self.list(path.key.source, id);
        }
        let Some(replaced) = replaced else { return self.mark(id) };
        self.tally(family, &replaced, false);
        // One that was on its way out may have been decided without.
        if replaced.import() != path.import() || self.fate(family, &replaced) != Some(false) {
            self.mark(id);
        }
        self.holds.end(&replaced, self.marked);
    }

    /// A slot has a path of a source that was not there before.
    fn list(&mut self, source: PeerId, id: SlotId) {
        let is_long = self.sources.add_slot(source, id);
        if is_long && self.walks_of(source) < Self::MOST_WALKS {
            self.order(source, Task::Tidy);
        }
    }

    fn occupy(&mut self, slot: Slot) -> SlotId {
        if let Some(id) = self.free.pop() {
            if let Some(place) = self.slots.place(id) {
                *place = Some(slot);
            }
            return id;
        }
        self.slots.push(slot)
    }

    /// Removes a path.
    pub(crate) fn remove(&mut self, prefix: &Prefix, key: PathKey) {
        self.remove_at(self.lookup(*prefix, key.path_id), key.source);
    }

    /// Removes the path of a prefix that was looked up.
    pub(crate) fn remove_at(&mut self, Lookup { item, hash }: Lookup, source: PeerId) {
        if let Some(id) = self.find_hashed(&item.prefix, hash) {
            self.remove_in(id, PathKey { source, path_id: item.path_id });
        }
    }

    fn remove_in(&mut self, id: SlotId, key: PathKey) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Some(removed) = slot.remove(key) else { return };
        let prefix = slot.prefix;
        self.mark(id);
        self.tally(prefix.family(), &removed, false);
        self.holds.end(&removed, self.marked);
        self.note_path(key, prefix);
    }

    /// Returns how many slots there are, empty ones too.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
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

    /// Decides everything again.
    pub(crate) const fn mark_all(&mut self) {
        self.recheck.begin_all();
    }

    /// Says whether decisions are due, or will be because of walks.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.recheck.is_over() || self.is_walking()
    }

    /// Takes up to `limit` slots whose paths changed; [`Rib::update`] is next for each.
    pub(crate) fn take_dirty(&mut self, limit: usize, interner: &Interner) -> Vec<SlotId> {
        let taken: Vec<SlotId> = self.dirty.drain(..self.dirty.len().min(limit)).collect();
        let count = u64::try_from(taken.len()).unwrap_or(u64::MAX);
        self.decided = self.decided.saturating_add(count);
        // Not together: no slot is to be twice in one batch.
        if taken.is_empty() && !self.recheck.is_over() {
            return self.take_recheck(limit, interner);
        }
        taken
    }

    /// Throws away what is due.
    pub(crate) fn forget_dirty(&mut self) {
        self.recheck.clear();
        self.sources.forget_walks();
        self.dirty.clear();
    }

    /// Decides about one slot.
    pub(crate) fn update(&mut self, id: SlotId, interner: &Interner) -> Outcome {
        let Some(slot) = self.slot(id) else { return Outcome::default() };
        let prefix = slot.prefix;
        let (best, fib) = match slot.paths() {
            [] => (None, None),
            [only] => {
                let only = *only;
                match self.usable(&prefix, &only, interner) {
                    Some(set) => (Some(0), self.only_way(&only, set, interner)),
                    None => (None, None),
                }
            }
            _ => {
                let decision = self.decision(slot, interner);
                let used = decision.map(|decision| decision.used).unwrap_or_default();
                let way = self.way(slot, &used, interner);
                (used.first().copied(), self.ways.intern(way))
            }
        };
        let Some(slot) = self.slot_mut(id) else { return Outcome::default() };
        slot.set_dirty(false);
        let chosen = slot.choose(best);
        let before = std::mem::replace(&mut slot.fib, fib);
        let fib_changed = !self.ways.leads_alike(before, fib);
        self.note_next_hops(id, interner);
        if before != fib {
            self.count_uses(before, fib);
        }
        if let Some(journal) = self.journal.as_mut().filter(|_| chosen) {
            journal.chosen.push(prefix);
        }
        Outcome { fib: fib_changed, chosen }
    }

    fn count_uses(&mut self, before: Option<WayId>, after: Option<WayId>) {
        let Self { ways, sources, recent_way, .. } = self;
        for (way, begins) in [(before, false), (after, true)] {
            let blackhole = ways.is_blackhole(way);
            let users = ways.sources(way).iter();
            users.for_each(|source| sources.count_use(*source, blackhole, begins));
        }
        ways.begin_use(after);
        if ways.end_use(before) && recent_way.is_some_and(|(.., way)| way == before) {
            *recent_way = None;
        }
    }

    /// Counts the prefixes that go the way of a source.
    pub(crate) fn uses(&self, source: PeerId) -> Uses {
        self.sources.uses(source)
    }

    /// Returns a prefix and the way that the last decision chose.
    pub(crate) fn fib_entry(&self, id: SlotId) -> Option<(Prefix, FibRoute)> {
        let slot = self.slot(id)?;
        Some((slot.prefix, self.ways.route(slot.fib)))
    }

    /// Lists whose paths the way of a prefix was made of.
    pub(crate) fn users(&self, prefix: &Prefix) -> &[PeerId] {
        let slot = self.find(prefix).and_then(|id| self.slot(id));
        slot.map_or(&[], |slot| self.ways.sources(slot.fib))
    }

    /// Runs the decision process over the usable paths of a slot.
    fn decision(&self, slot: &Slot, interner: &Interner) -> Option<Decision> {
        decide(self.candidates_in(slot, interner), self.multipath)
    }

    fn candidates_in<'a>(&'a self, slot: &Slot, interner: &'a Interner) -> Vec<Candidate<'a>> {
        let candidates = slot.paths().iter().enumerate().filter_map(|(index, path)| {
            let attributes = self.usable(&slot.prefix, path, interner)?;
            self.candidate(index, path, attributes, self.cost(path, attributes))
        });
        candidates.collect()
    }

    /// Lists what the decision process chooses from; the index is the place among the paths of the slot.
    pub(crate) fn candidates<'a>(
        &'a self,
        id: SlotId,
        interner: &'a Interner,
    ) -> Vec<Candidate<'a>> {
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

    fn only_way(&mut self, path: &Path, set: &AttrSet, interner: &Interner) -> Option<WayId> {
        let id = path.accepted().ok()?;
        if path.is_blackholed() {
            return self.ways.intern(Some(Way::blackhole(path.key.source)));
        }
        if let Some((recent, source, way)) = self.recent_way
            && recent == id
            && source == path.key.source
        {
            return way;
        }
        let way = self.ways.intern(Way::via(self.legs(path, set, interner)));
        self.recent_way = Some((id, path.key.source, way));
        way
    }

    /// The best path says whether packets are dropped; what is dropped shares no load.
    fn way(&self, slot: &Slot, used: &[usize], interner: &Interner) -> Option<Way> {
        let used: Vec<&Path> = used.iter().filter_map(|index| slot.paths().get(*index)).collect();
        if used.iter().any(|path| path.key.source == PeerId::LOCAL) {
            return None;
        }
        if let Some(best) = used.first().filter(|best| best.is_blackholed()) {
            return Some(Way::blackhole(best.key.source));
        }
        let via = used.into_iter().filter(|path| !path.is_blackholed());
        let sets = via.filter_map(|path| Some((path, interner.get(path.accepted().ok()?)?)));
        Way::via(sets.flat_map(|(path, set)| self.legs(path, set, interner)).collect())
    }

    pub(crate) fn prefix(&self, id: SlotId) -> Option<Prefix> {
        self.slot(id).map(|slot| slot.prefix)
    }

    /// Says whether the kernel should have a route to the prefix.
    pub(crate) fn has_way(&self, prefix: &Prefix) -> bool {
        self.find(prefix).and_then(|id| self.slot(id)).is_some_and(|slot| slot.fib.is_some())
    }

    /// Returns the path that peers are told.
    pub(crate) fn chosen(&self, id: SlotId) -> Option<&Path> {
        self.slot(id)?.chosen()
    }

    /// Lists all paths of a slot.
    pub(crate) fn paths(&self, id: SlotId) -> &[Path] {
        self.slot(id).map(Slot::paths).unwrap_or_default()
    }

    /// Lists the paths that may be told to ADD-PATH peers.
    pub(crate) fn usable_paths<'a>(
        &'a self,
        id: SlotId,
        interner: &'a Interner,
    ) -> impl Iterator<Item = &'a Path> {
        let slot = self.slot(id);
        let paths =
            slot.into_iter().flat_map(|slot| slot.paths().iter().map(|path| (slot.prefix, path)));
        let usable =
            paths.filter(move |(prefix, path)| self.usable(prefix, path, interner).is_some());
        usable.map(|(_, path)| path)
    }

    /// Gives the slots back that hold nothing any more; every group has seen that.
    pub(crate) fn release(&mut self, ids: &[SlotId]) {
        let mut unused = Vec::with_capacity(TOGETHER);
        for ids in ids.chunks(TOGETHER) {
            unused.clear();
            for id in ids {
                let Some(slot) = self.slot(*id) else { continue };
                if slot.paths().is_empty() && !slot.is_dirty() {
                    let hash = hash(&self.hasher, &slot.prefix);
                    self.index.prefetch(hash);
                    unused.push((*id, hash));
                }
            }
            for (id, hash) in &unused {
                self.index.remove(*hash, id.0);
                if let Some(place) = self.slots.place(*id) {
                    *place = None;
                }
                self.free.push(*id);
            }
        }
    }

    /// Forgets attributes that no path has any more. What was taken to be decided about is told by now.
    pub(crate) fn forget_unused(&mut self, interner: &mut Interner) {
        let unused = self.holds.settle(self.decided, interner);
        if self.recent_way.is_some_and(|(set, ..)| unused.contains(&set)) {
            self.recent_way = None;
        }
    }

    /// Shows one prefix with its paths and the decision about them.
    pub(crate) fn entry(&self, id: SlotId, interner: &Interner) -> Option<Entry<'_>> {
        let slot = self.slot(id)?;
        let decision = self.decision(slot, interner);
        let route = self.ways.route(slot.fib);
        Some(Entry { prefix: slot.prefix, paths: slot.paths(), decision, route })
    }

    /// Lists the first `count` prefixes behind one, in order, that are wanted. It is a look at every slot.
    pub(crate) fn following(
        &self,
        after: Option<Prefix>,
        count: usize,
        wanted: impl Fn(&Prefix, SlotId) -> bool,
    ) -> Vec<(Prefix, SlotId)> {
        let mut first = std::collections::BinaryHeap::new();
        for id in self.all() {
            let Some(slot) = self.slot(id) else { continue };
            let is_behind = after.is_none_or(|after| slot.prefix > after);
            let is_late =
                first.len() >= count && first.peek().is_some_and(|(last, _)| slot.prefix > *last);
            if is_behind && !is_late && wanted(&slot.prefix, id) {
                first.push((slot.prefix, id));
                if first.len() > count {
                    first.pop();
                }
            }
        }
        first.into_sorted_vec()
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
    /// The way told last.
    pub(crate) route: FibRoute,
}

fn hash(hasher: &DefaultHashBuilder, prefix: &Prefix) -> u32 {
    let hash = match prefix.address() {
        std::net::IpAddr::V4(address) => {
            hasher.hash_one(u64::from(u32::from(address)) << 8 | u64::from(prefix.length()))
        }
        std::net::IpAddr::V6(address) => hasher.hash_one((u128::from(address), prefix.length())),
    };
    u32::try_from(hash >> 32).unwrap_or(0)
}
