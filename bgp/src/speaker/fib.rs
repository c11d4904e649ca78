//! What became of the routes that the kernel should have: the writer of its routes answers, and only refusals are kept.

use std::{collections::BTreeMap, time::Instant};

use hashbrown::HashSet;

use super::Speaker;
use crate::{
    fib::{FibOutcome, FibRoute, FibUpdate},
    rib::PeerId,
    snapshot::FibState,
    types::Prefix,
};

/// Answers that are due, and those that were bad. A route that is in neither list is in the kernel.
#[derive(Debug, Default)]
pub(super) struct Fib {
    pending: HashSet<Prefix>,
    refused: BTreeMap<Prefix, String>,
}

impl Fib {
    /// Takes note of what the writer is told.
    pub(super) fn told(&mut self, update: &FibUpdate) {
        if update.route == FibRoute::Absent {
            self.pending.remove(&update.prefix);
            self.refused.remove(&update.prefix);
        } else {
            self.pending.insert(update.prefix);
        }
    }

    pub(super) fn state(&self, prefix: &Prefix, route: FibRoute) -> FibState {
        if let Some(why) = self.refused.get(prefix) {
            return FibState::Refused { route, why: why.clone() };
        }
        if self.pending.contains(prefix) {
            return FibState::Told(route);
        }
        FibState::Installed(route)
    }

    /// Counts the routes that the kernel does not have although it should.
    pub(super) fn refused(&self) -> usize {
        self.refused.len()
    }
}

impl Speaker {
    /// Counts the prefixes that the kernel sends the way of a peer, as far as it was told: all but those that it refused.
    pub(super) fn installed(&self, id: PeerId) -> usize {
        if !self.config.fib {
            return 0;
        }
        let refused = self.fib.refused.keys();
        let refused = refused.filter(|prefix| self.rib.users(prefix).contains(&id)).count();
        self.rib.uses(id).all.saturating_sub(refused)
    }

    /// The writer of kernel routes says what became of routes that it was told, or that changed later.
    pub fn handle_fib_outcomes(&mut self, outcomes: Vec<FibOutcome>, now: Instant) {
        self.now = now;
        for FibOutcome { prefix, refused } in outcomes {
            self.fib.pending.remove(&prefix);
            // It may have been withdrawn meanwhile.
            match refused.filter(|_| self.rib.has_way(&prefix)) {
                Some(why) => drop(self.fib.refused.insert(prefix, why)),
                None => drop(self.fib.refused.remove(&prefix)),
            }
        }
    }
}
