//! Small random numbers for jitter and for seeded faults. Not for secrets.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, every seed is good.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed; the same seed gives the same numbers.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Starts somewhere else in every process and at every call.
    #[must_use]
    pub fn from_entropy() -> Self {
        Self(std::collections::hash_map::RandomState::new().build_hasher().finish())
    }

    /// Returns the next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or_default()
    }

    /// Says yes `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// Returns a duration between half of `full` and `full`.
    pub fn jitter(&mut self, full: Duration) -> Duration {
        let half = full / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }
}

/// Exponential backoff with jitter: the step doubles up to a ceiling, each wait is between half the step and the step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    ceiling: Duration,
    step: Duration,
    random: Random,
}

impl Backoff {
    /// Starts at `first` and never exceeds `ceiling`.
    #[must_use]
    pub fn new(first: Duration, ceiling: Duration) -> Self {
        Self { first, ceiling, step: first, random: Random::from_entropy() }
    }

    /// Returns how long to wait now; the next wait is longer.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.random.jitter(self.step);
        self.step = self.step.saturating_mul(2).min(self.ceiling);
        wait
    }

    /// Starts over after success.
    pub fn reset(&mut self) {
        self.step = self.first;
    }
}
