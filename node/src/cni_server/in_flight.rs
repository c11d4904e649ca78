//! Handles that a request is working on, so that the repair does not take what is being given.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What is done to a handle at the moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Work {
    Adding,
    Releasing,
}

/// Handles being worked on.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<BTreeMap<String, Work>>);

/// Ends the work on a handle when dropped.
#[derive(Debug)]
pub(super) struct Guard<'a> {
    all: &'a InFlight,
    handle: String,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(&self.handle);
    }
}

impl InFlight {
    /// Begins an ADD; `None` while the handle is worked on by somebody else.
    pub(super) fn add(&self, handle: &str) -> Option<Guard<'_>> {
        self.begin(handle, Work::Adding)
    }

    /// Begins a release; `None` while the handle is worked on by somebody else.
    pub(super) fn release(&self, handle: &str) -> Option<Guard<'_>> {
        self.begin(handle, Work::Releasing)
    }

    /// Whether an ADD works on the handle.
    pub(super) fn is_adding(&self, handle: &str) -> bool {
        self.lock().get(handle) == Some(&Work::Adding)
    }

    fn begin(&self, handle: &str, work: Work) -> Option<Guard<'_>> {
        let mut works = self.lock();
        if works.contains_key(handle) {
            return None;
        }
        works.insert(handle.to_owned(), work);
        Some(Guard { all: self, handle: handle.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_given_or_taken_never_both() {
        let all = InFlight::default();
        let adding = all.add("h").unwrap();
        assert!(all.is_adding("h"));
        assert!(all.release("h").is_none());
        assert!(all.add("h").is_none());
        drop(adding);
        let releasing = all.release("h").unwrap();
        assert!(all.add("h").is_none());
        assert!(!all.is_adding("h"));
        drop(releasing);
        assert!(all.add("h").is_some());
    }
}
