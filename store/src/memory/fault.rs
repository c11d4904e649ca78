//! Faults on demand, drawn from a seed so that a failing run can be repeated.

use std::time::Duration;

use super::requests::Verb;
use crate::{StoreError, random::Random};

/// How often each fault happens, in thousandths of the requests it can hit.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    /// Where the random choices start.
    pub seed: u64,
    /// An update or delete fails with a conflict although nobody else wrote.
    pub conflict: u32,
    /// A request fails before anything happened.
    pub unavailable_before: u32,
    /// A write happens and its answer is lost.
    pub unavailable_after: u32,
    /// A watch ends silently instead of giving its next event.
    pub watch_lost: u32,
    /// A watch request fails because its revision is said to be too old.
    pub watch_gone: u32,
    /// A list from the cache shows an older state.
    pub stale_list: u32,
    /// Longest time that a request takes.
    pub latency: Duration,
}

impl Faults {
    /// Everything works at once.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A bad day: every fault, each in `per_mille` of the requests.
    #[must_use]
    pub fn everything(seed: u64, per_mille: u32) -> Self {
        Self {
            seed,
            conflict: per_mille,
            unavailable_before: per_mille,
            unavailable_after: per_mille,
            watch_lost: per_mille,
            watch_gone: per_mille,
            stale_list: per_mille,
            latency: Duration::ZERO,
        }
    }
}

#[derive(Debug)]
pub(super) struct FaultState {
    plan: Faults,
    random: Random,
}

impl FaultState {
    pub(super) fn new(plan: Faults) -> Self {
        Self { random: Random::seeded(plan.seed), plan }
    }

    pub(super) fn latency(&mut self) -> Duration {
        if self.plan.latency.is_zero() {
            return Duration::ZERO;
        }
        let nanos = u64::try_from(self.plan.latency.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.below(nanos))
    }

    pub(super) fn before(
        &mut self,
        verb: Verb,
        kind: &'static str,
        key: &str,
    ) -> Option<StoreError> {
        if self.random.chance(self.plan.unavailable_before) {
            return Some(unavailable("injected before the request was served"));
        }
        match verb {
            Verb::Update | Verb::UpdateStatus | Verb::Delete
                if self.random.chance(self.plan.conflict) =>
            {
                Some(StoreError::Conflict { kind, key: key.to_owned() })
            }
            Verb::Watch if self.random.chance(self.plan.watch_gone) => Some(StoreError::Gone),
            _ => None,
        }
    }

    pub(super) fn after(&mut self, verb: Verb) -> Option<StoreError> {
        (verb.writes() && self.random.chance(self.plan.unavailable_after))
            .then(|| unavailable("injected after the write was done"))
    }

    pub(super) fn loses_watch(&mut self) -> bool {
        self.random.chance(self.plan.watch_lost)
    }

    /// Picks the revision that a cached list shows: the newest, or one between `floor` and it.
    pub(super) fn stale_revision(&mut self, floor: u64, newest: u64) -> u64 {
        if newest <= floor || !self.random.chance(self.plan.stale_list) {
            return newest;
        }
        newest - self.random.below(newest - floor + 1)
    }
}

fn unavailable(message: &str) -> StoreError {
    StoreError::Unavailable { message: message.to_owned() }
}
