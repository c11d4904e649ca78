//! What is decided about again although none of its paths changed: everything, or the prefixes with certain next hops. One
//! round through the table, a slice at a time, does for all that is due; what joins it on the way ends where it began.

use std::{collections::BTreeMap, ops::Range};

use crate::attr::NextHopId;

/// A round that something takes part in.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Where it began.
    start: usize,
    /// It came to the end of the table, and begins at its front.
    wrapped: bool,
}

#[derive(Debug, Default)]
pub(super) struct Recheck {
    next: usize,
    all: Option<Round>,
    hops: BTreeMap<NextHopId, Round>,
}

/// A part of the table.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) slots: Range<usize>,
    /// All slots there; otherwise those with these next hops.
    pub(super) all: bool,
    pub(super) hops: Vec<NextHopId>,
}

impl Recheck {
    pub(super) fn is_over(&self) -> bool {
        self.all.is_none() && self.hops.is_empty()
    }

    pub(super) const fn begin_all(&mut self) {
        self.all = Some(Round { start: self.next, wrapped: false });
    }

    pub(super) fn begin(&mut self, hop: NextHopId) {
        self.hops.insert(hop, Round { start: self.next, wrapped: false });
    }

    /// The number means another next hop from now on.
    pub(super) fn forget(&mut self, hop: NextHopId) {
        self.hops.remove(&hop);
    }

    pub(super) fn clear(&mut self) {
        self.all = None;
        self.hops.clear();
    }

    /// Takes the next part of a table of so many slots.
    pub(super) fn step(&mut self, limit: usize, len: usize) -> Part {
        if self.next >= len {
            self.next = 0;
        }
        let first = self.next;
        let end = first.saturating_add(limit.max(1)).min(len);
        let part = Part {
            slots: first..end,
            all: self.all.is_some(),
            hops: self.hops.keys().copied().collect(),
        };
        let wraps = end >= len;
        self.next = if wraps { 0 } else { end };
        let goes_on = |round: &mut Round| {
            if round.wrapped && end >= round.start {
                return false;
            }
            round.wrapped |= wraps;
            // Who began at the front ends at the end.
            !(wraps && round.start == 0)
        };
        if let Some(round) = &mut self.all
            && !goes_on(round)
        {
            self.all = None;
        }
        self.hops.retain(|_, round| goes_on(round));
        part
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::attr::{Interner, PathAttributes};

    fn hop(number: u8) -> NextHopId {
        let mut interner = Interner::default();
        let ids = (0..=number).map(|each| {
            let address = IpAddr::from(Ipv4Addr::new(10, 0, 0, each));
            let next_hop = Some(address.into());
            let set = interner.intern(&PathAttributes { next_hop, ..PathAttributes::default() });
            interner.get(set).and_then(|set| set.next_hop).unwrap()
        });
        ids.last().unwrap()
    }

    proptest! {
        /// Whatever joins when, each comes by every slot there was when it joined, and the round ends.
        #[test]
        fn nobody_is_passed_over(
            steps in proptest::collection::vec((0_u8..4, 0_usize..30, 1_usize..20), 1..60),
        ) {
            let mut recheck = Recheck::default();
            let mut len = 0;
            let mut missing: BTreeMap<u8, Vec<bool>> = BTreeMap::new();
            let look = |recheck: &mut Recheck, missing: &mut BTreeMap<u8, Vec<bool>>, limit, len| {
                let part = recheck.step(limit, len);
                missing.retain(|number, slots| {
                    let meets = if *number == 0 { part.all } else { part.hops.contains(&hop(*number)) };
                    if meets {
                        slots.iter_mut().enumerate().for_each(|(slot, left)| *left &= !part.slots.contains(&slot));
                    }
                    slots.iter().any(|left| *left)
                });
            };
            for (number, grow, limit) in steps {
                len += grow;
                match number {
                    0 => recheck.begin_all(),
                    number => recheck.begin(hop(number)),
                }
                missing.insert(number, vec![true; len]);
                look(&mut recheck, &mut missing, limit, len);
            }
            let mut parts = 0;
            while !recheck.is_over() {
                look(&mut recheck, &mut missing, 7, len);
                parts += 1;
                prop_assert!(parts <= 2 * len / 7 + 2);
            }
            prop_assert!(missing.is_empty(), "{missing:?}");
        }
    }
}
