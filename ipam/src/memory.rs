//! What a program remembers, told to the model check.
//!
//! At some points all that decides about a program's future is a few values: which try of which write this is, and what was read
//! before. A part of a program says so with a [`Frame`]. When all parts that are at work have said it, two programs that
//! remember the same go on the same, whatever they went through before; the model check explores one of them
//! (`allocator/tests/model/actors.rs`). Outside tests nothing of this exists.

use store::Stored;

/// A copy of an object, in few words.
pub(crate) fn copy<R>(stored: &Stored<R>) -> String {
    stored.raw().to_string()
}

/// A part of a program at work, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Frame {
    #[cfg(test)]
    place: Option<(tests::Shared, usize)>,
}

impl Frame {
    /// The part begins. Until it says what it remembers, nobody knows.
    pub(crate) fn enter() -> Self {
        Self {
            #[cfg(test)]
            place: tests::push(),
        }
    }

    /// From here on this part depends on nothing but this, its callers' memories, and what it hears. A caller that changed
    /// something says so before it calls on.
    pub(crate) fn remembers(&self, what: impl FnOnce() -> String) {
        #[cfg(test)]
        if let Some((shared, depth)) = &self.place {
            tests::tell(shared, *depth, Some(what()), None);
        }
        #[cfg(not(test))]
        drop(what);
    }

    /// The same of a part that changes what all share.
    #[cfg(test)]
    pub(crate) fn remembers_all(&self, shared: Option<String>, what: String) {
        if let Some((stack, depth)) = &self.place {
            tests::tell(stack, *depth, Some(what), Some(shared));
        }
    }
}

#[cfg(test)]
impl Drop for Frame {
    fn drop(&mut self) {
        if let Some((shared, depth)) = &self.place {
            tests::pop(shared, *depth);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;
    use std::sync::{Arc, Mutex};

    /// The parts at work in one life, the outer ones first.
    #[derive(Debug, Default)]
    pub(crate) struct Stack {
        parts: Vec<Option<String>>,
        /// What all parts share and change; nobody knows after `Some(None)`.
        common: Option<Option<String>>,
        /// All of it, when it was known last.
        told: Option<String>,
    }

    pub(crate) type Shared = Arc<Mutex<Stack>>;

    thread_local! {
        static CURRENT: RefCell<Option<Shared>> = const { RefCell::new(None) };
    }

    /// Runs a life that tells what it remembers.
    pub(crate) fn listening<T>(to: &Shared, run: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(Some(Arc::clone(to)));
        let result = run();
        CURRENT.replace(before);
        result
    }

    /// Returns what was remembered last, if anything was told since the last call.
    pub(crate) fn take(from: &Shared) -> Option<String> {
        from.lock().unwrap().told.take()
    }

    pub(super) fn push() -> Option<(Shared, usize)> {
        let shared = CURRENT.with_borrow(Clone::clone)?;
        let mut stack = shared.lock().unwrap();
        stack.parts.push(None);
        let depth = stack.parts.len() - 1;
        drop(stack);
        Some((shared, depth))
    }

    pub(super) fn tell(
        shared: &Shared,
        depth: usize,
        what: Option<String>,
        common: Option<Option<String>>,
    ) {
        let mut stack = shared.lock().unwrap();
        assert_eq!(stack.parts.len(), depth + 1, "the innermost part speaks");
        stack.parts[depth] = what;
        if common.is_some() {
            stack.common = common;
        }
        let common = stack.common.iter().map(Option::as_deref);
        let all = common.chain(stack.parts.iter().map(Option::as_deref));
        let all: Option<Vec<&str>> = all.collect();
        if let Some(all) = all.map(|all| all.join("\n")) {
            stack.told = Some(all);
            crate::allocator::looks_are_over();
        }
    }

    pub(super) fn pop(shared: &Shared, depth: usize) {
        shared.lock().unwrap().parts.truncate(depth);
    }
}
