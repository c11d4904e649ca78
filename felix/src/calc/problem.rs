//! What could not be understood, for status and `voilectl`.

use std::fmt;

use api::Key;

/// An object that is not enforced as written. Everything else works on.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Problem {
    /// Kind of the object.
    pub kind: &'static str,
    /// Its key.
    pub key: Key,
    /// What is wrong with it and what is done instead.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.key, self.reason)
    }
}
