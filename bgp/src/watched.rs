//! A map whose items have deadlines: the earliest is known without looking at all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    time::Instant,
};

/// Something that wants to be woken.
pub(crate) trait Deadline {
    /// Returns when, at the latest.
    fn next_deadline(&self) -> Option<Instant>;
}

/// A map that notices which items may have changed, because it lent them out.
#[derive(Debug)]
pub(crate) struct Watched<K, V> {
    items: BTreeMap<K, V>,
    /// Lent out since deadlines were looked at.
    touched: Vec<K>,
    known: BTreeMap<K, Instant>,
    queue: BTreeSet<(Instant, K)>,
}

impl<K, V> Deref for Watched<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.items
    }
}

impl<K: Ord + Copy, V: Deadline> Watched<K, V> {
    pub(crate) const fn new() -> Self {
        Self {
            items: BTreeMap::new(),
            touched: Vec::new(),
            known: BTreeMap::new(),
            queue: BTreeSet::new(),
        }
    }

    fn touch(&mut self, key: K) {
        if self.touched.last() != Some(&key) {
            self.touched.push(key);
        }
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.touch(*key);
        self.items.get_mut(key)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.touched.extend(self.items.keys());
        self.items.values_mut()
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.touch(key);
        self.items.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.touch(*key);
        self.items.remove(key)
    }

    /// Returns the earliest deadline.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        self.look();
        self.queue.first().map(|(at, _)| *at)
    }

    /// Lists what is due, in order of keys.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<K> {
        self.look();
        let due = self.queue.iter().take_while(|(at, _)| *at <= now);
        let mut keys: Vec<K> = due.map(|(_, key)| *key).collect();
        keys.sort_unstable();
        keys
    }

    /// Looks at the deadlines of everything that was lent out.
    fn look(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for key in touched.drain(..) {
            let deadline = self.items.get(&key).and_then(Deadline::next_deadline);
            let known = self.known.get(&key).copied();
            if deadline == known {
                continue;
            }
            if let Some(known) = known {
                self.queue.remove(&(known, key));
            }
            match deadline {
                Some(deadline) => {
                    self.queue.insert((deadline, key));
                    self.known.insert(key, deadline);
                }
                None => {
                    self.known.remove(&key);
                }
            }
        }
        self.touched = touched;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    struct Item(Option<Instant>);

    impl Deadline for Item {
        fn next_deadline(&self) -> Option<Instant> {
            self.0
        }
    }

    proptest! {
        #[test]
        fn the_earliest_is_what_a_search_finds(
            steps in proptest::collection::vec((0_u8..4, 0_u8..6, 0_u64..20), 1..60),
        ) {
            #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
            let start = Instant::now();
            let mut map = Watched::new();
            for (action, key, seconds) in steps {
                let at = start + Duration::from_secs(seconds);
                match action {
                    0 => map.insert(key, Item(Some(at))),
                    1 => drop(map.remove(&key)),
                    2 => map.get_mut(&key).into_iter().for_each(|item| item.0 = None),
                    _ => map.values_mut().for_each(|item| item.0 = Some(at)),
                }
                if seconds % 3 == 0 {
                    let found = map.values().filter_map(|item| item.0).min();
                    prop_assert_eq!(map.next_deadline(), found);
                    let due: Vec<u8> = map
                        .iter()
                        .filter(|(_, item)| item.0.is_some_and(|deadline| deadline <= at))
                        .map(|(key, _)| *key)
                        .collect();
                    prop_assert_eq!(map.due(at), due);
                }
            }
        }
    }
}
