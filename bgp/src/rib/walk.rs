//! Walks over everything that one peer has in the table: its routes go, become stale, or are judged anew.
//!
//! A peer may have a million routes, and nobody must wait for that long: a walk does a few slots at a time. What it will do
//! counts at once all the same. A path knows when it was written, and so which of its peer's walks have yet to meet it
//! ([`Rib::fate`]); what the peer announces meanwhile is newer than they are, and they leave it alone.

use super::{
    PeerId, Rejection, Rib, SlotId,
    path::{Accepted, Epoch, Path, PathKey},
};
use crate::types::{Families, Family, Prefix};

/// What becomes of a peer's routes, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retire {
    /// All of these families go.
    pub(crate) remove: Families,
    /// Of these the stale ones go.
    pub(crate) remove_stale: Families,
    /// What is there of these is stale from now on.
    pub(crate) mark_stale: Families,
}

impl Retire {
    pub(crate) const ALL: Self =
        Self { remove: Families::BOTH, remove_stale: Families::NONE, mark_stale: Families::NONE };

    pub(crate) fn stale(families: Families) -> Self {
        Self { remove_stale: families, ..Self::default() }
    }

    /// Returns what a path becomes: gone, or stale or not.
    pub(super) const fn applied(&self, family: Family, stale: bool) -> Option<bool> {
        if self.remove.contains(family) || stale && self.remove_stale.contains(family) {
            return None;
        }
        Some(stale || self.mark_stale.contains(family))
    }

    /// Says whether an earlier one changes nothing any more once this one is ordered.
    fn covers(&self, earlier: &Self) -> bool {
        Family::ALL.into_iter().all(|family| {
            let removes = earlier.remove.contains(family) || earlier.remove_stale.contains(family);
            let marks = earlier.mark_stale.contains(family);
            let marked_again =
                self.mark_stale.contains(family) && !self.remove_stale.contains(family);
            self.remove.contains(family) || !removes && (!marks || marked_again)
        })
    }
}

/// What a walk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Retire(Retire),
    /// Import policy changed.
    Reimport,
    /// The stale routes of these families become long-lived ones (RFC 9494 §4.2).
    BeginLongLived(Families),
    /// The source's list of slots became long: those without a path of it are forgotten, and second mentions.
    Tidy,
}

impl Task {
    fn covers(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            // Every walk does that.
            (_, Self::Tidy) => true,
            (Self::Retire(this), Self::Retire(earlier)) => this.covers(earlier),
            (Self::Retire(this), _) => this.remove == Families::BOTH,
            (Self::Reimport, Self::Reimport) => true,
            _ => false,
        }
    }
}

/// A walk that was ordered.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) task: Task,
    /// It meets what was written before.
    pub(super) epoch: Epoch,
    slots: Vec<SlotId>,
    next: usize,
}

impl Walk {
    pub(super) const fn new(task: Task, epoch: Epoch, slots: Vec<SlotId>) -> Self {
        Self { task, epoch, slots, next: 0 }
    }

    /// Becomes a later one, if that leaves nothing to do for this one; otherwise gives the slots back.
    pub(super) fn become_later(
        &mut self,
        task: Task,
        epoch: Epoch,
        slots: Vec<SlotId>,
    ) -> Result<(), Vec<SlotId>> {
        if !task.covers(&self.task) {
            return Err(slots);
        }
        self.slots.drain(..self.next);
        self.slots.extend(slots);
        (self.task, self.epoch, self.next) = (task, epoch, 0);
        Ok(())
    }

    /// Takes the next slots.
    pub(super) fn take(&mut self, limit: usize) -> Vec<SlotId> {
        let end = self.next.saturating_add(limit).min(self.slots.len());
        let taken = self.slots.get(self.next..end).unwrap_or_default().to_vec();
        self.next = end;
        taken
    }

    /// Lists the slots that are left.
    #[cfg(test)]
    pub(super) fn rest(&self) -> &[SlotId] {
        self.slots.get(self.next..).unwrap_or_default()
    }

    pub(super) fn add(&mut self, slots: Vec<SlotId>) {
        self.slots.extend(slots);
    }

    pub(super) const fn is_over(&self) -> bool {
        self.next >= self.slots.len()
    }
}

/// Paths that a walk met and that others must judge.
#[derive(Debug)]
pub(crate) struct Review {
    pub(crate) source: PeerId,
    pub(crate) task: Task,
    pub(crate) paths: Vec<(Prefix, Path)>,
}

impl Rib {
    /// As many of a source may wait.
    pub(crate) const MOST_WALKS: usize = Epoch::REACH - 1;

    /// Orders a walk over what a source has now. The caller keeps its walks at no more than
    /// [`Rib::MOST_WALKS`].
    pub(crate) fn order(&mut self, source: PeerId, task: Task) {
        self.sources.order(source, task);
    }

    /// Counts the walks that a source waits for.
    pub(crate) fn walks_of(&self, source: PeerId) -> usize {
        self.sources.walks(source).len()
    }

    /// Says whether walks are under way.
    pub(crate) fn is_walking(&self) -> bool {
        self.sources.next_walk().is_some()
    }

    /// Returns what a path is although walks may not have met it yet: gone, or stale or not.
    pub(crate) fn fate(&self, family: Family, path: &Path) -> Option<bool> {
        let mut stale = path.is_stale();
        if !self.is_walking() {
            return Some(stale);
        }
        for walk in self.sources.walks(path.key.source) {
            if let Task::Retire(retire) = walk.task
                && path.epoch().is_before(walk.epoch)
            {
                stale = retire.applied(family, stale)?;
            }
        }
        Some(stale)
    }

    /// Does one walk's next slots, at most `limit`; sources take turns. Returns what others must judge.
    pub(crate) fn walk_on(&mut self, limit: usize) -> Option<Review> {
        let source = self.sources.next_walk()?;
        let (task, epoch, slots) = self.sources.take_slots_of_walk(source, limit)?;
        let mut review = Review { source, task, paths: Vec::new() };
        let mut left = Vec::new();
        for id in slots {
            // One that has no path to meet is in the list of a later walk, if it has any path at all.
            let stays = match task {
                Task::Retire(retire) => self.retire(id, source, epoch, &retire),
                _ => self.meet(id, source, epoch, task, &mut review.paths),
            };
            if stays {
                left.push(id);
            }
        }
        self.sources.end_turn(source, left);
        (!review.paths.is_empty()).then_some(review)
    }

    /// Says whether there is a path that was met and stays.
    fn retire(&mut self, id: SlotId, source: PeerId, epoch: Epoch, retire: &Retire) -> bool {
        let Some(family) = self.prefix(id).map(|prefix| prefix.family()) else { return false };
        let met = |path: &Path| path.key.source == source && path.epoch().is_before(epoch);
        let goes = |path: &&Path| met(path) && retire.applied(family, path.is_stale()).is_none();
        while let Some(key) = self.paths(id).iter().find(goes).map(|path| path.key) {
            self.remove_in(id, key);
        }
        let Some(slot) = self.slot_mut(id) else { return false };
        let mut stays = false;
        for path in slot.paths_mut().iter_mut().filter(|path| met(path)) {
            if let Some(stale) = retire.applied(family, path.is_stale()) {
                path.set_stale(stale);
                path.set_epoch(epoch);
                stays = true;
            }
        }
        stays
    }

    /// Collects the paths that have to be judged, unless a later walk removes them anyway. Says whether there is any that was
    /// met.
    fn meet(
        &mut self,
        id: SlotId,
        source: PeerId,
        epoch: Epoch,
        task: Task,
        paths: &mut Vec<(Prefix, Path)>,
    ) -> bool {
        let Some(slot) = self.slot_mut(id) else { return false };
        let prefix = slot.prefix;
        let mut met = Vec::new();
        for path in slot.paths_mut() {
            if path.key.source == source && path.epoch().is_before(epoch) {
                path.set_epoch(epoch);
                met.push((prefix, *path));
            }
        }
        let stays = !met.is_empty();
        if task != Task::Tidy {
            met.retain(|(_, path)| self.fate(prefix.family(), path).is_some());
            paths.extend(met);
        }
        stays
    }

    /// Puts another verdict of import policy in place of the one that a path has.
    pub(crate) fn revise(
        &mut self,
        prefix: &Prefix,
        key: PathKey,
        import: Result<Accepted, Rejection>,
    ) {
        let Some(id) = self.find(prefix) else { return };
        let Some(before) = self.slot_mut(id).and_then(|slot| slot.revise(key, import)) else {
            return;
        };
        let mut after = before;
        after.set_import(import);
        self.tally(prefix.family(), &before, false);
        self.tally(prefix.family(), &after, true);
        self.note_path(key, *prefix);
        self.mark(id);
        self.holds.begin(&after);
        self.holds.end(&before, self.marked);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        net::{IpAddr, Ipv4Addr},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::{
        attr::{Interner, PathAttributes},
        decision::{Multipath, Origination},
        rib::{Count, Source, holds::sets},
        types::RouterId,
    };

    const SOURCES: u32 = 3;
    const SETS: usize = 3;

    #[derive(Clone, Debug)]
    enum Step {
        /// Source, prefix, path identifier, which attributes, whether policy takes it.
        Announce(u32, u8, u32, usize, bool),
        Withdraw(u32, u8, u32),
        Order(u32, Retire),
        Tidy(u32),
        Walk(usize),
        Decide,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let (source, prefix, path_id) = (|| 1..=SOURCES, || 0_u8..12, || 0_u32..2);
        let families = || {
            let family = (any::<bool>(), any::<bool>());
            family.prop_map(|(ipv4, ipv6)| Families { ipv4, ipv6 })
        };
        let retire =
            (families(), families(), families()).prop_map(|(remove, remove_stale, mark_stale)| {
                // Not always everything.
                let remove = remove.and(remove_stale);
                Retire { remove, remove_stale, mark_stale }
            });
        prop_oneof![
            6 => (source(), prefix(), path_id(), 0..SETS, any::<bool>())
                .prop_map(|(a, b, c, d, e)| Step::Announce(a, b, c, d, e)),
            2 => (source(), prefix(), path_id()).prop_map(|(a, b, c)| Step::Withdraw(a, b, c)),
            2 => (source(), retire).prop_map(|(a, b)| Step::Order(a, b)),
            1 => source().prop_map(Step::Tidy),
            2 => (1_usize..4).prop_map(Step::Walk),
            1 => Just(Step::Decide),
        ]
    }

    fn prefix(number: u8) -> Prefix {
        let address: IpAddr = if number.is_multiple_of(2) {
            Ipv4Addr::new(10, number, 0, 0).into()
        } else {
            std::net::Ipv6Addr::new(0x2001, u16::from(number), 0, 0, 0, 0, 0, 0).into()
        };
        Prefix::new(address, 16).unwrap()
    }

    /// What every path is, if walks took no time: accepted, and stale.
    type Model = BTreeMap<(PathKey, Prefix), (bool, bool)>;

    fn retire(model: &mut Model, source: PeerId, retire: &Retire) {
        model.retain(|(key, prefix), (_, stale)| {
            if key.source != source {
                return true;
            }
            let family = prefix.family();
            let gone =
                retire.remove.contains(family) || *stale && retire.remove_stale.contains(family);
            *stale |= retire.mark_stale.contains(family);
            !gone
        });
    }

    fn check(rib: &Rib, model: &Model) {
        let mut found = Model::new();
        for id in rib.all() {
            for path in rib.paths(id) {
                let prefix = rib.prefix(id).unwrap();
                if let Some(stale) = rib.fate(prefix.family(), path) {
                    found.insert((path.key, prefix), (path.accepted().is_ok(), stale));
                }
            }
        }
        assert_eq!(&found, model);
        for source in (1..=SOURCES).map(PeerId) {
            let own = || model.iter().filter(|((key, _), _)| key.source == source);
            let Count { received, accepted, stale, .. } = rib.count(source);
            let expected = [
                own().count(),
                own().filter(|(_, (accepted, _))| *accepted).count(),
                own().filter(|(_, (_, stale))| *stale).count(),
            ];
            assert_eq!([received, accepted, stale], expected);
            // No path is where no walk will find it.
            let listed = rib.sources.listed(source);
            assert!(slots_of(rib, source).iter().all(|id| listed.contains(id)));
        }
        let mut held = BTreeMap::new();
        let paths = rib.all().flat_map(|id| rib.paths(id));
        for set in paths.flat_map(sets) {
            *held.entry(set.index()).or_insert(0_u32) += 1;
        }
        assert_eq!(rib.holds.current(), held);
    }

    fn slots_of(rib: &Rib, source: PeerId) -> Vec<SlotId> {
        let has = |id: &SlotId| rib.paths(*id).iter().any(|path| path.key.source == source);
        rib.all().filter(has).collect()
    }

    fn decide(rib: &mut Rib, interner: &Interner, model: &Model) {
        let due = rib.take_dirty(usize::MAX, interner);
        for id in &due {
            rib.update(*id, interner);
        }
        // Nothing is chosen that is on its way out, and something is where anything may be.
        for id in rib.all() {
            let Some(prefix) = rib.prefix(id) else { continue };
            let usable = |key: &PathKey| model.get(&(*key, prefix)).is_some_and(|each| each.0);
            let any = rib.paths(id).iter().any(|path| usable(&path.key));
            if due.contains(&id) {
                assert_eq!(rib.chosen(id).map(|path| usable(&path.key)), any.then_some(true));
            }
        }
        rib.release(&due);
    }

    #[test]
    fn a_list_of_slots_does_not_grow_with_what_comes_and_goes() {
        let mut rib = Rib::new(Multipath { max_paths: 1, relax: false });
        let mut interner = Interner::default();
        let set = interner.intern(&PathAttributes::default());
        let source = PeerId(1);
        let address = IpAddr::from(Ipv4Addr::from(1));
        let origination = Origination { peer_type: None, router_id: RouterId(1), address };
        rib.set_source(source, Source { origination, interface: None });
        for _ in 0..5000 {
            rib.insert(prefix(0), Path::new(source.into(), set, Ok(set.into())));
            while rib.is_walking() {
                assert!(rib.walk_on(100).is_none());
            }
            rib.remove(&prefix(0), source.into());
            let due = rib.take_dirty(usize::MAX, &interner);
            for id in &due {
                rib.update(*id, &interner);
            }
            rib.release(&due);
        }
        let listed = rib.sources.listed(source).len();
        assert!(listed <= 1100, "{listed}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn whatever_happens_while_walks_are_under_way_they_are_as_good_as_over(
            steps in proptest::collection::vec(any_step(), 1..80),
        ) {
            let mut rib = Rib::new(Multipath { max_paths: 1, relax: false });
            let mut interner = Interner::default();
            let any_set = |interner: &mut Interner, number: usize| {
                let address = IpAddr::from([10, 9, 9, u8::try_from(number).unwrap()]);
                let next_hop = Some(address.into());
                interner.intern(&PathAttributes { next_hop, ..PathAttributes::default() })
            };
            let mut model = Model::new();
            for peer in 1..=SOURCES {
                let address = IpAddr::from(Ipv4Addr::from(peer));
                let origination =
                    Origination { peer_type: None, router_id: RouterId(peer), address };
                rib.set_source(PeerId(peer), Source { origination, interface: None });
            }
            for step in steps {
                match step {
                    Step::Announce(source, number, path_id, set, accepts) => {
                        let key = PathKey { source: PeerId(source), path_id };
                        let set = any_set(&mut interner, set);
                        let accepted = if accepts { Ok(set.into()) } else { Err(Rejection::Policy) };
                        rib.insert(prefix(number), Path::new(key, set, accepted));
                        model.insert((key, prefix(number)), (accepts, false));
                    }
                    Step::Withdraw(source, number, path_id) => {
                        let key = PathKey { source: PeerId(source), path_id };
                        rib.remove(&prefix(number), key);
                        model.remove(&(key, prefix(number)));
                    }
                    Step::Order(source, task) => {
                        let source = PeerId(source);
                        if rib.walks_of(source) < Rib::MOST_WALKS {
                            rib.order(source, Task::Retire(task));
                            retire(&mut model, source, &task);
                        }
                    }
                    Step::Tidy(source) => {
                        let source = PeerId(source);
                        if rib.walks_of(source) < Rib::MOST_WALKS {
                            rib.order(source, Task::Tidy);
                        }
                    }
                    Step::Walk(limit) => assert!(rib.walk_on(limit).is_none()),
                    Step::Decide => {
                        decide(&mut rib, &interner, &model);
                        rib.forget_unused(&mut interner);
                    }
                }
                check(&rib, &model);
            }
            while rib.is_walking() {
                assert!(rib.walk_on(2).is_none());
            }
            for source in (1..=SOURCES).map(PeerId) {
                rib.order(source, Task::Tidy);
                while rib.is_walking() {
                    assert!(rib.walk_on(2).is_none());
                }
                // Each once, and nothing else.
                let mut listed = rib.sources.listed(source);
                listed.sort_unstable();
                if rib.count(source).received > 0 {
                    assert_eq!(listed, slots_of(&rib, source));
                }
            }
            decide(&mut rib, &interner, &model);
            check(&rib, &model);
            rib.forget_unused(&mut interner);
            prop_assert_eq!(interner.len(), rib.holds.current().len());
            let used = rib.all().filter(|id| rib.chosen(*id).is_some()).count();
            prop_assert_eq!(rib.ways.uses(), used);
            let there = rib.all().map(|id| rib.paths(id).len()).sum::<usize>();
            prop_assert_eq!(there, model.len());
        }
    }
}
