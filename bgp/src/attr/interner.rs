//! Sets of attributes, each stored once and shared by all routes that carry it.
//!
//! Two doors lead in: by the bytes as received (which skips parsing when they were seen before) and by value. Sets that
//! no route uses any more are dropped when the table has doubled since the last look.

use std::{
    hash::{BuildHasher, Hash},
    ops::Deref,
    sync::Arc,
};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Context, PathAttributes};
use crate::types::PeerType;

const SWEEP_AT_LEAST: usize = 4096;

/// An interned set of attributes; equal sets are the same allocation.
#[derive(Debug)]
pub(crate) struct AttrSet {
    attributes: PathAttributes,
    hash: u64,
}

impl Deref for AttrSet {
    type Target = PathAttributes;

    fn deref(&self) -> &PathAttributes {
        &self.attributes
    }
}

/// Bytes that always decode to the same attributes.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct RawKey<'a> {
    pub(crate) external: bool,
    pub(crate) four_octet_as: bool,
    /// The next hop of MP_REACH_NLRI; empty when the routes are in the NLRI field.
    pub(crate) next_hop: &'a [u8],
    /// The attributes, without MP_REACH_NLRI and MP_UNREACH_NLRI.
    pub(crate) bytes: &'a [u8],
}

impl<'a> RawKey<'a> {
    pub(crate) fn new(context: Context, next_hop: &'a [u8], bytes: &'a [u8]) -> Self {
        let external = context.peer_type == PeerType::External;
        Self { external, four_octet_as: context.four_octet_as, next_hop, bytes }
    }

    fn is(&self, stored: &Raw) -> bool {
        self.external == stored.external
            && self.four_octet_as == stored.four_octet_as
            && self.next_hop == &*stored.next_hop
            && self.bytes == &*stored.bytes
    }
}

#[derive(Debug)]
struct Raw {
    external: bool,
    four_octet_as: bool,
    next_hop: Box<[u8]>,
    bytes: Box<[u8]>,
    hash: u64,
    set: std::sync::Weak<AttrSet>,
}

/// The table of sets.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    hasher: DefaultHashBuilder,
    sets: HashTable<Arc<AttrSet>>,
    raws: HashTable<Raw>,
    sweep_at: usize,
}

impl Interner {
    /// Returns the one copy of these attributes.
    pub(crate) fn intern(&mut self, attributes: PathAttributes) -> Arc<AttrSet> {
        let hash = self.hasher.hash_one(&attributes);
        if let Some(set) = self.sets.find(hash, |set| set.attributes == attributes) {
            return Arc::clone(set);
        }
        self.sweep();
        let set = Arc::new(AttrSet { attributes, hash });
        self.sets.insert_unique(hash, Arc::clone(&set), |set| set.hash);
        set
    }

    /// Returns the set that these bytes decoded to before.
    pub(crate) fn find_raw(&self, key: &RawKey<'_>) -> Option<Arc<AttrSet>> {
        let hash = self.hasher.hash_one(key);
        self.raws.find(hash, |raw| key.is(raw))?.set.upgrade()
    }

    /// Remembers what bytes without any fault decode to.
    pub(crate) fn remember_raw(&mut self, key: &RawKey<'_>, set: &Arc<AttrSet>) {
        let hash = self.hasher.hash_one(key);
        if let Some(raw) = self.raws.find_mut(hash, |raw| key.is(raw)) {
            raw.set = Arc::downgrade(set);
            return;
        }
        let raw = Raw {
            external: key.external,
            four_octet_as: key.four_octet_as,
            next_hop: key.next_hop.into(),
            bytes: key.bytes.into(),
            hash,
            set: Arc::downgrade(set),
        };
        self.raws.insert_unique(hash, raw, |raw| raw.hash);
    }

    /// Returns how many sets there are.
    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }

    fn sweep(&mut self) {
        let size = self.sets.len().max(self.raws.len());
        if size < self.sweep_at.max(SWEEP_AT_LEAST) {
            return;
        }
        self.sets.retain(|set| Arc::strong_count(set) > 1);
        self.raws.retain(|raw| raw.set.strong_count() > 0);
        self.sets.shrink_to_fit(|set| set.hash);
        self.raws.shrink_to_fit(|raw| raw.hash);
        self.sweep_at = self.sets.len().max(self.raws.len()).saturating_mul(2);
    }
}
