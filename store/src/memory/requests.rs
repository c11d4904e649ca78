//! What was asked of the memory backend: for tests that count round trips.

use std::collections::BTreeMap;

/// A verb of the datastore port.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "the names are the methods of `Store`")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    UpdateStatus,
    Patch,
    Delete,
}

impl Verb {
    /// Tells whether the verb changes the datastore.
    #[must_use]
    pub fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// One request as it arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// What was asked.
    pub verb: Verb,
    /// Of which kind.
    pub kind: &'static str,
    /// Of which object; empty for lists and watches.
    pub key: String,
}

const KEPT: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct RequestLog {
    entries: Vec<Request>,
    counts: BTreeMap<(Verb, &'static str), u64>,
}

impl RequestLog {
    pub(super) fn push(&mut self, verb: Verb, kind: &'static str, key: &str) {
        *self.counts.entry((verb, kind)).or_default() += 1;
        if self.entries.len() < KEPT {
            self.entries.push(Request { verb, kind, key: key.to_owned() });
        }
    }

    pub(super) fn count(&self, verb: Verb, kind: &'static str) -> u64 {
        self.counts.get(&(verb, kind)).copied().unwrap_or_default()
    }

    pub(super) fn entries(&self) -> &[Request] {
        &self.entries
    }
}
