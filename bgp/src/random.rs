//! Jitter from an injected seed, so that a run can be repeated.

use std::time::Duration;

/// SplitMix64: small, and good enough to keep peers out of lockstep.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns 75 to 100 % of the time (RFC 4271 §10).
    pub(crate) fn jitter(&mut self, time: Duration) -> Duration {
        let thousandths = u32::try_from(self.next() % 251).unwrap_or(0).saturating_add(750);
        time.saturating_mul(thousandths) / 1000
    }

    /// Returns 0 to 100 % of the time.
    pub(crate) fn up_to(&mut self, time: Duration) -> Duration {
        let thousandths = u32::try_from(self.next() % 1001).unwrap_or(0);
        time.saturating_mul(thousandths) / 1000
    }
}
