//! What happened to a session, and why: a bounded ring of transitions, in which repetitions are counted.

use std::{collections::VecDeque, time::Instant};

use crate::session::State;

/// Transitions remembered per peer.
const LENGTH: usize = 32;
/// Longest cycle whose repetitions are counted: connecting, connected, refused, waited.
const CYCLE: usize = 4;

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    /// The last time it happened.
    pub(super) at: Instant,
    pub(super) from: State,
    pub(super) to: State,
    pub(super) cause: String,
    /// How often it happened, with few others in between.
    pub(super) times: u32,
}

#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Transition>);

impl History {
    /// Remembers a transition. A peer that is down fails in the same few steps again and again: these are counted, so
    /// that they do not push out what came before.
    pub(super) fn push(&mut self, at: Instant, from: State, to: State, cause: &str) {
        let alike = |old: &Transition| old.from == from && old.to == to && old.cause == cause;
        let recent = self.0.len().saturating_sub(CYCLE);
        let repeated = self.0.range(recent..).rposition(alike);
        let repeated = repeated.map(|index| index.saturating_add(recent));
        let times = match repeated.and_then(|index| self.0.remove(index)) {
            Some(old) => old.times.saturating_add(1),
            None => 1,
        };
        if self.0.len() >= LENGTH {
            self.0.pop_front();
        }
        self.0.push_back(Transition { at, from, to, cause: cause.to_owned(), times });
    }

    /// Lists the transitions, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Transition> {
        self.0.iter()
    }
}
