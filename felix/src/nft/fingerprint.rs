//! A rule's content as a number, kept in the kernel next to the rule.
//!
//! The kernel gives rules back as expressions in its own order and form. Comparing those would mean decoding every
//! expression; a fingerprint in the rule's userdata says the same in eight octets. A rule edited by hand is written
//! anew by whoever edits it, without our fingerprint, so it is seen as changed.

use std::hash::{Hash, Hasher};

use super::ir::Rule;

/// Bumped when the encoder writes different bytes for the same rule, so that an upgrade rewrites what it must.
const ENCODING: u64 = 1;

/// Fingerprint of a rule's content.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// Of a rule: its expressions, verdict and comment.
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        ENCODING.hash(&mut hasher);
        rule.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// FNV-1a, 64 bits: std's hasher may change between releases of Rust, which would rewrite every rule on upgrade.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
