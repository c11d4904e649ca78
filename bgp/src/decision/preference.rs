//! The first steps of the decision in one number.
//!
//! What these steps look at belongs to a set of attributes, so the number is made once for each set. To compare two paths
//! is to compare two numbers, and the highest bit in which they differ says which step told them apart: no explanation has
//! to do the comparison once more.

use super::Why;
use crate::attr::{Community, DEFAULT_LOCAL_PREF, Origin, PathAttributes};

/// The steps from the highest bits down, with the width of what each compares. In all of them less is better.
const STEPS: [(Why, u32); 5] = [
    (Why::LongLivedStale, 1),
    (Why::LocalOrigin, 1),
    (Why::LocalPref, 32),
    // The longest AS_PATH of 65535 octets has fewer than 2^15 systems.
    (Why::AsPathLength, 28),
    (Why::Origin, 2),
];

/// How much a path is preferred before MULTI_EXIT_DISC is looked at: less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Preference(u64);

impl Preference {
    /// Returns that of a path from a peer.
    pub(crate) fn of(attributes: &PathAttributes) -> Self {
        let local_pref = attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
        let hops = u64::try_from(attributes.as_path.0.len()).unwrap_or(u64::MAX);
        let origin = match attributes.origin {
            Origin::Igp => 0,
            Origin::Egp => 1,
            Origin::Incomplete => 2,
        };
        let long_lived_stale = attributes.has(Community::LLGR_STALE);
        // The highest LOCAL_PREF is the best one; zero is what a graceful shutdown asks for (RFC 8326 §4.2).
        Self::pack([long_lived_stale.into(), 1, (!local_pref).into(), hops, origin])
    }

    /// Returns that of the same path when it is this speaker's own.
    pub(crate) fn of_own(self) -> Self {
        Self(self.0 & !Self::pack([0, 1, 0, 0, 0]).0)
    }

    /// What is too large for its place counts as the largest that is not, and never runs over into another step's.
    fn pack(values: [u64; STEPS.len()]) -> Self {
        let places = STEPS.iter().zip(values);
        Self(
            places.fold(0, |packed, ((_, width), value)| {
                packed << width | value.min((1 << width) - 1)
            }),
        )
    }

    /// Returns the step that tells the two apart, if any does.
    pub(crate) fn step_between(self, other: Self) -> Option<Why> {
        let mut equal_bits = (self.0 ^ other.0).leading_zeros();
        for (step, width) in STEPS {
            match equal_bits.checked_sub(width) {
                Some(rest) => equal_bits = rest,
                None => return Some(step),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_for_its_place_is_the_largest_and_changes_no_other() {
        let with = |hops: u64, origin: u64| Preference::pack([0, 1, 0, hops, origin]);
        let most = (1 << 28) - 1;
        assert!(with(most - 1, 2) < with(most, 0));
        for more in [most, most + 1, u64::MAX] {
            assert_eq!(with(more, 1), with(most, 1));
            assert_eq!(with(more, 1).step_between(with(0, 1)), Some(Why::AsPathLength));
            assert!(with(more, 1) < Preference::pack([0, 1, 1, 0, 0]));
        }
        assert_eq!(with(0, 9), with(0, 3));
    }
}
