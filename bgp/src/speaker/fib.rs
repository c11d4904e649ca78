//! What became of the routes that the kernel should have: the writer of its routes answers, and only refusals are kept.

use std::{collections::BTreeMap, time::Instant};

use hashbrown::HashSet;

use super::{FibNextHop, FibOutcome, FibUpdate, Speaker};
use crate::{snapshot::FibState, types::Prefix};

/// Answers that are due, and those that were bad. A route that is in neither list is in the kernel.
#[derive(Debug, Default)]
pub(super) struct Fib {
    pending: HashSet<Prefix>,
    refused: BTreeMap<Prefix, String>,
}

impl Fib {
    /// Takes note of what the writer is told.
    pub(super) fn told(&mut self, update: &FibUpdate) {
        if update.next_hops.is_empty() {
            self.pending.remove(&update.prefix);
            self.refused.remove(&update.prefix);
        } else {
            self.pending.insert(update.prefix);
        }
    }

    pub(super) fn state(&self, prefix: &Prefix, next_hops: Vec<FibNextHop>) -> FibState {
        if let Some(why) = self.refused.get(prefix) {
            return FibState::Refused { next_hops, why: why.clone() };
        }
        if self.pending.contains(prefix) {
            return FibState::Told(next_hops);
        }
        FibState::Installed(next_hops)
    }

    /// Counts the routes that the kernel does not have although it should.
    pub(super) fn refused(&self) -> usize {
        self.refused.len()
    }
}

impl Speaker {
    /// The writer of kernel routes says what became of routes that it was told, or that changed later.
    pub fn handle_fib_outcomes(&mut self, outcomes: Vec<FibOutcome>, now: Instant) {
        self.now = now;
        for FibOutcome { prefix, refused } in outcomes {
            self.fib.pending.remove(&prefix);
            // It may have been withdrawn meanwhile.
            match refused.filter(|_| self.rib.has_next_hops(&prefix)) {
                Some(why) => drop(self.fib.refused.insert(prefix, why)),
                None => drop(self.fib.refused.remove(&prefix)),
            }
        }
    }
}
