//! How much is done at once, counted in slots that are looked at. Tests ask; otherwise nothing is counted.
//!
//! Sessions are served between steps, so no step may grow with the table. What does, because it is cheap, says so where it
//! is and is not counted.

/// A slot is looked at.
#[cfg(not(test))]
pub(crate) const fn count() {}

#[cfg(test)]
pub(crate) use counted::{count, take};

#[cfg(test)]
mod counted {
    use std::cell::Cell;

    thread_local! {
        static DONE: Cell<usize> = const { Cell::new(0) };
    }

    pub(crate) fn count() {
        DONE.set(DONE.get() + 1);
    }

    /// Returns what was counted since the last time.
    pub(crate) fn take() -> usize {
        DONE.take()
    }
}
