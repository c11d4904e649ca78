//! Somebody who knows the machine's routing table is asked about next hops (RFC 4271 §9.1.2.1).

use std::time::Instant;

use super::{Output, Speaker};
use crate::{fib::NextHopAnswer, rib::HopChange};

impl Speaker {
    /// Asks about next hops that came, and no more about those that went.
    pub(super) fn ask_next_hops(&mut self) {
        if !self.rib.follows_next_hops() {
            return;
        }
        let changes = self.rib.take_next_hops(&mut self.interner, self.now);
        self.outputs.extend(changes.into_iter().map(|change| match change {
            HopChange::Came(address) => Output::NextHopWatch(address),
            HopChange::Went(address) => Output::NextHopForget(address),
        }));
    }

    /// Says how the machine's routes lead to next hops that were asked about, or do no more. Routes that this speaker told
    /// must not count: what they lead to it knows itself.
    pub fn handle_next_hops(&mut self, answers: Vec<NextHopAnswer>, now: Instant) {
        self.now = now;
        self.ask_next_hops();
        for NextHopAnswer { address, route } in answers {
            self.rib.answer_next_hop(&address, route);
        }
        self.rib.look_at_next_hops(&self.interner);
        self.finish_restart();
    }

    /// Who was asked may be dead, and routes must not wait for ever.
    pub(super) fn give_up_next_hops(&mut self) {
        let late = self.rib.give_up_next_hops(self.now);
        if late > 0 {
            tracing::warn!(
                late,
                "nobody says whether next hops are reachable; they count as reachable"
            );
            self.rib.look_at_next_hops(&self.interner);
        }
    }
}
