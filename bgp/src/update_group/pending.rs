//! Sets of slots, one bit each: those that a walk has yet to visit are visited once, however often they change.

use crate::rib::SlotId;

/// Bits of a word.
const WORD: usize = 64;

/// A set of slots, and where in it a walk is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slots {
    words: Vec<u64>,
    /// The word that the walk is at. It goes round: what is added behind it waits for the next round.
    at: usize,
}

impl Slots {
    /// Adds the first `count` slots.
    pub(super) fn fill(&mut self, count: usize) {
        let (full, rest) = (count / WORD, count % WORD);
        self.reach(full.saturating_add(1));
        self.words.iter_mut().take(full).for_each(|word| *word = u64::MAX);
        if let Some(word) = self.words.get_mut(full) {
            *word |= (1_u64 << rest).saturating_sub(1);
        }
    }

    /// Adds a slot.
    pub(super) fn add(&mut self, slot: SlotId) {
        let place = slot.index() / WORD;
        self.reach(place.saturating_add(1));
        if let Some(word) = self.words.get_mut(place) {
            *word |= 1 << (slot.index() % WORD);
        }
    }

    /// Removes a slot; returns whether it was there.
    pub(super) fn remove(&mut self, slot: SlotId) -> bool {
        let Some(word) = self.words.get_mut(slot.index() / WORD) else { return false };
        let bit = 1 << (slot.index() % WORD);
        let there = *word & bit != 0;
        *word &= !bit;
        there
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    fn reach(&mut self, words: usize) {
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    /// Takes the next slots, at most about `limit`; none: there are none.
    pub(super) fn take(&mut self, limit: usize) -> Vec<SlotId> {
        let mut taken = Vec::new();
        for _ in 0..self.words.len() {
            let first = self.at.saturating_mul(WORD);
            if let Some(word) = self.words.get_mut(self.at) {
                let mut bits = std::mem::take(word);
                while bits != 0 {
                    let bit = usize::try_from(bits.trailing_zeros()).unwrap_or(0);
                    taken.extend(u32::try_from(first.saturating_add(bit)).ok().map(SlotId));
                    bits &= bits.wrapping_sub(1);
                }
            }
            self.at = self.at.saturating_add(1);
            if self.at >= self.words.len() {
                self.at = 0;
            }
            if taken.len() >= limit {
                break;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(pending: &mut Slots, limit: usize) -> Vec<u32> {
        pending.take(limit).into_iter().map(|slot| slot.0).collect()
    }

    #[test]
    fn a_walk_goes_round_and_visits_what_changes_behind_it_in_the_next_round() {
        let mut pending = Slots::default();
        assert_eq!(numbers(&mut pending, 10), []);
        pending.fill(130);
        assert_eq!(numbers(&mut pending, 64), (0..64).collect::<Vec<_>>());
        pending.add(SlotId(3));
        pending.add(SlotId(3));
        pending.add(SlotId(100));
        assert_eq!(numbers(&mut pending, 64), (64..128).collect::<Vec<_>>());
        assert_eq!(numbers(&mut pending, 64), [128, 129, 3]);
        assert_eq!(numbers(&mut pending, 64), []);
        pending.fill(64);
        assert_eq!(numbers(&mut pending, usize::MAX).len(), 64);
    }
}
