//! Finds numbered things, such as prefixes or sets of attributes, by a hash.
//!
//! A full table is far larger than the processor's caches, so what a look-up costs is how often it waits for memory: an
//! entry is a hash beside a number, entries lie where the upper bits of their hash say, or right behind, and neither a
//! miss nor growth looks at the thing itself.

use crate::prefetch::prefetch;

/// Entries of the smallest table.
const SMALLEST: usize = 16;

/// Open addressing with linear probing; nothing but an empty entry ends a search, so removal closes the gap.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The hash in the upper half, the number plus one in the lower half; 0: empty. As many as a power of two.
    entries: Vec<u64>,
    len: usize,
}

/// Where a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The one that was looked for.
    Number(u32),
    /// An entry with this hash belongs here.
    Vacant(usize),
}

fn entry(hash: u32, number: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(number.saturating_add(1))
}

fn hash_of(entry: u64) -> u32 {
    u32::try_from(entry >> 32).unwrap_or(0)
}

fn number_of(entry: u64) -> Option<u32> {
    u32::try_from(entry & u64::from(u32::MAX)).unwrap_or(0).checked_sub(1)
}

impl Index {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Returns where the search for a hash begins: the order of places is the order of hashes, so that growing moves
    /// from front to back in both tables.
    fn home(&self, hash: u32) -> usize {
        let bits = self.entries.len().checked_ilog2().unwrap_or(0);
        let place = u64::from(hash) << bits >> 32;
        usize::try_from(place).unwrap_or(0)
    }

    fn next(&self, place: usize) -> usize {
        place.wrapping_add(1) & self.entries.len().wrapping_sub(1)
    }

    fn at(&self, place: usize) -> u64 {
        self.entries.get(place).copied().unwrap_or(0)
    }

    /// Asks for the memory where a search will begin. Many of these in a row cost as much as one.
    pub(crate) fn prefetch(&self, hash: u32) {
        if let Some(entry) = self.entries.get(self.home(hash)) {
            prefetch(entry);
        }
    }

    /// Returns what may be the one, if the first look finds any.
    pub(crate) fn guess(&self, hash: u32) -> Option<u32> {
        let first = self.at(self.home(hash));
        if hash_of(first) == hash { number_of(first) } else { None }
    }

    /// Finds the one with this hash that `is` the one.
    pub(crate) fn find(&self, hash: u32, is: impl Fn(u32) -> bool) -> Found {
        let mut place = self.home(hash);
        loop {
            let entry = self.at(place);
            let Some(number) = number_of(entry) else { return Found::Vacant(place) };
            if hash_of(entry) == hash && is(number) {
                return Found::Number(number);
            }
            place = self.next(place);
        }
    }

    /// Makes room for one more; vacant places that were found before are others now.
    pub(crate) fn reserve(&mut self) {
        let capacity = self.entries.len();
        // At most three quarters are used: searches stay within a line or two of the cache.
        if self.len < capacity.saturating_sub(capacity >> 2) {
            return;
        }
        self.grow(capacity.saturating_mul(2).max(SMALLEST));
    }

    fn grow(&mut self, capacity: usize) {
        for entry in std::mem::replace(&mut self.entries, vec![0; capacity]) {
            if entry != 0
                && let Found::Vacant(place) = self.find(hash_of(entry), |_| false)
            {
                self.put(place, entry);
            }
        }
    }

    /// Puts a number where a search for its hash ended, with room reserved before.
    pub(crate) fn occupy(&mut self, place: usize, hash: u32, number: u32) {
        if let Some(empty) = self.entries.get_mut(place) {
            *empty = entry(hash, number);
            self.len = self.len.saturating_add(1);
        }
    }

    /// Removes a number.
    pub(crate) fn remove(&mut self, hash: u32, number: u32) {
        let wanted = entry(hash, number);
        let mut gap = self.home(hash);
        while self.at(gap) != wanted {
            if self.at(gap) == 0 {
                return;
            }
            gap = self.next(gap);
        }
        self.len = self.len.saturating_sub(1);
        let mut place = self.next(gap);
        loop {
            let entry = self.at(place);
            if entry != 0 {
                // An entry may move back to the gap unless its search begins behind it.
                let mask = self.entries.len().wrapping_sub(1);
                let way = place.wrapping_sub(self.home(hash_of(entry))) & mask;
                if way >= place.wrapping_sub(gap) & mask {
                    self.put(gap, entry);
                    gap = place;
                }
                place = self.next(place);
                continue;
            }
            self.put(gap, 0);
            return;
        }
    }

    fn put(&mut self, place: usize, entry: u64) {
        if let Some(old) = self.entries.get_mut(place) {
            *old = entry;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few distinct hashes, at both ends of the table: long runs, around the end too.
        #[test]
        fn what_was_put_in_is_found_until_it_is_removed(
            steps in proptest::collection::vec((any::<bool>(), 0_u32..60), 1..400),
        ) {
            let hash = |number: u32| ((number % 5).wrapping_sub(2) << 28) | (number % 3);
            let mut index = Index::default();
            let mut model = BTreeSet::new();
            for (present, number) in steps {
                if present {
                    index.reserve();
                    if let Found::Vacant(place) = index.find(hash(number), |each| each == number) {
                        index.occupy(place, hash(number), number);
                    }
                    model.insert(number);
                } else {
                    index.remove(hash(number), number);
                    model.remove(&number);
                }
                prop_assert_eq!(index.len(), model.len());
                for number in 0..60 {
                    let found = index.find(hash(number), |each| each == number);
                    prop_assert_eq!(found == Found::Number(number), model.contains(&number));
                }
            }
        }
    }
}
