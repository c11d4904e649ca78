//! How many paths hold each set of attributes. A set that nobody holds is forgotten then: never has anybody to look at the
//! whole table for what may be garbage.

use std::collections::VecDeque;

use super::path::Path;
use crate::attr::{AttrId, Interner};

/// Holds that ended.
#[derive(Debug)]
struct Ended {
    set: AttrId,
    times: u32,
    /// How many slots had been marked for a decision by then.
    marked: u64,
}

/// Counts by set. Update groups compare the sets that paths had when they were told: until they have heard of what became
/// of such a path, its set must not make room for another one. So holds end with the decision about their slot.
#[derive(Debug, Default)]
pub(super) struct Holds {
    counts: Vec<u32>,
    ended: VecDeque<Ended>,
}

impl Holds {
    pub(super) fn begin(&mut self, path: &Path) {
        for set in sets(path) {
            let index = set.index();
            if self.counts.len() <= index {
                self.counts.resize(index.saturating_add(1), 0);
            }
            if let Some(count) = self.counts.get_mut(index) {
                *count = count.saturating_add(1);
            }
        }
    }

    /// A path is gone, and its slot marked.
    pub(super) fn end(&mut self, path: &Path, marked: u64) {
        for set in sets(path) {
            // Neighbouring prefixes mostly share their attributes.
            match self.ended.back_mut() {
                Some(last) if last.set == set => {
                    (last.times, last.marked) = (last.times.saturating_add(1), marked);
                }
                _ => self.ended.push_back(Ended { set, times: 1, marked }),
            }
        }
    }

    fn is_held(&self, set: AttrId) -> bool {
        self.counts.get(set.index()).is_some_and(|count| *count > 0)
    }

    /// Forgets the sets that nobody holds any more, or ever did, now that so many of the slots that were marked are decided
    /// about. Returns them.
    pub(super) fn settle(&mut self, decided: u64, interner: &mut Interner) -> Vec<AttrId> {
        let mut unused = interner.take_fresh();
        unused.retain(|set| !self.is_held(*set));
        while let Some(Ended { set, times, .. }) =
            self.ended.pop_front_if(|ended| ended.marked <= decided)
        {
            if let Some(count) = self.counts.get_mut(set.index()) {
                *count = count.saturating_sub(times);
            }
            if !self.is_held(set) {
                unused.push(set);
            }
        }
        unused.iter().for_each(|set| interner.forget(*set));
        unused
    }

    /// Returns the counts without what ended, of the sets that anybody holds.
    #[cfg(test)]
    pub(super) fn current(&self) -> std::collections::BTreeMap<usize, u32> {
        let mut counts: std::collections::BTreeMap<usize, u32> =
            self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
        for Ended { set, times, .. } in &self.ended {
            *counts.get_mut(&set.index()).unwrap() -= times;
        }
        counts.retain(|_, count| *count > 0);
        counts
    }
}

/// Lists what a path holds; mostly the same twice.
pub(super) fn sets(path: &Path) -> impl Iterator<Item = AttrId> {
    [Some(path.received), path.accepted().ok()].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attr::PathAttributes, rib::PeerId};

    #[test]
    fn a_set_lives_until_the_slot_of_its_last_path_is_decided_about() {
        let (mut interner, mut holds) = (Interner::default(), Holds::default());
        let set = interner.intern(&PathAttributes::default());
        let path = Path::new(PeerId(1).into(), set, Ok(set.into()));
        holds.begin(&path);
        assert_eq!(holds.settle(0, &mut interner), []);
        holds.end(&path, 3);
        assert_eq!(holds.settle(2, &mut interner), []);
        assert!(interner.get(set).is_some());
        assert_eq!(holds.settle(3, &mut interner), [set]);
        // The same number for another set, which no path ever has.
        let other = PathAttributes { med: Some(1), ..PathAttributes::default() };
        assert_eq!(interner.intern(&other), set);
        assert_eq!(holds.settle(3, &mut interner), [set]);
        assert_eq!(interner.len(), 0);
    }
}
