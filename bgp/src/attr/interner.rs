//! Sets of attributes, each stored once as bytes, beside what decisions compare.
//!
//! Most sets are never looked at again: what a decision needs is ready, the rest is decoded when policy or an operator
//! asks. Routes hold plain numbers, and whoever keeps routes says which sets are needed no more.

use std::{
    hash::{BuildHasher, Hasher},
    num::NonZeroU32,
};

use bytes::BytesMut;
use hashbrown::DefaultHashBuilder;

use super::{
    Context, NextHopId, NextHops, PathAttributes, decode, decode_next_hop, encode_block,
    encode_next_hop,
};
use crate::{
    decision::Preference,
    index::{Found, Index},
    types::{Asn, Family, PeerType},
};

/// Number of a set. Equal numbers mean equal sets; used again once the set is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttrId(NonZeroU32);

impl AttrId {
    fn new(index: usize) -> Self {
        Self::from_number(u32::try_from(index).unwrap_or(u32::MAX))
    }

    const fn number(self) -> u32 {
        self.0.get().saturating_sub(1)
    }

    const fn from_number(number: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    /// Numbers are dense.
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.number()).unwrap_or(usize::MAX)
    }
}

/// Bytes that are not there yet, by their hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Absent(u32);

/// Bytes that always decode to the same attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawKey<'a> {
    pub(crate) context: Context,
    /// The next hop of MP_REACH_NLRI; empty when the routes are in the NLRI field.
    pub(crate) next_hop: &'a [u8],
    /// The attributes, without MP_REACH_NLRI and MP_UNREACH_NLRI.
    pub(crate) bytes: &'a [u8],
}

/// An interned set.
#[derive(Debug)]
pub(crate) struct AttrSet {
    /// The next hop of MP_REACH_NLRI, then the attributes.
    bytes: Box<[u8]>,
    context: Context,
    next_hop_length: u8,
    pub(crate) next_hop: Option<NextHopId>,
    /// What decisions compare, in this order.
    pub(crate) preference: Preference,
    pub(crate) med: u32,
    pub(crate) neighbour: Option<Asn>,
    pub(crate) originator: Option<NonZeroU32>,
    pub(crate) clusters: u16,
}

impl AttrSet {
    fn new(key: &RawKey<'_>, attributes: &PathAttributes, next_hop: Option<NextHopId>) -> Self {
        Self {
            bytes: [key.next_hop, key.bytes].concat().into(),
            context: key.context,
            next_hop_length: u8::try_from(key.next_hop.len()).unwrap_or(0),
            next_hop,
            preference: Preference::of(attributes),
            // RFC 4271 §9.1.2.2 c: a missing one is the lowest.
            med: attributes.med.unwrap_or(0),
            neighbour: attributes.as_path.neighbour(),
            originator: attributes.originator_id.and_then(|id| NonZeroU32::new(id.0)),
            // In 65535 octets there are fewer.
            clusters: u16::try_from(attributes.cluster_list.len()).unwrap_or(u16::MAX),
        }
    }

    fn key(&self) -> RawKey<'_> {
        let (next_hop, bytes) =
            self.bytes.split_at_checked(usize::from(self.next_hop_length)).unwrap_or_default();
        RawKey { context: self.context, next_hop, bytes }
    }

    /// Returns everything.
    pub(crate) fn attributes(&self) -> PathAttributes {
        let key = self.key();
        // What was stored could be read before.
        let mut attributes =
            decode(key.bytes, key.context).map(|decoded| decoded.attributes).unwrap_or_default();
        if !key.next_hop.is_empty() {
            attributes.next_hop = decode_next_hop(key.next_hop);
        }
        attributes
    }
}

/// The table of sets.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    hasher: DefaultHashBuilder,
    index: Index,
    sets: Vec<Option<AttrSet>>,
    free: Vec<AttrId>,
    pub(crate) next_hops: NextHops,
    /// Stored since somebody asked: perhaps for nothing.
    fresh: Vec<AttrId>,
}

impl Interner {
    /// Returns the number of these attributes.
    pub(crate) fn intern(&mut self, attributes: &PathAttributes) -> AttrId {
        let mut block = BytesMut::new();
        // The family of routes without a NEXT_HOP attribute: the next hop is kept in front.
        encode_block(attributes, Family::Ipv6, true, &mut block);
        let mut next_hop = BytesMut::new();
        if let Some(address) = &attributes.next_hop {
            encode_next_hop(address, &mut next_hop);
        }
        // Internal: nothing is discarded when it is read again.
        let context = Context { peer_type: PeerType::Internal, four_octet_as: true };
        let key = RawKey { context, next_hop: &next_hop, bytes: &block };
        self.find(&key).unwrap_or_else(|absent| self.insert(absent, &key, attributes))
    }

    /// Returns the set that was stored under these bytes.
    pub(crate) fn find(&self, key: &RawKey<'_>) -> Result<AttrId, Absent> {
        let hash = hash(&self.hasher, key);
        let is =
            |number| self.get(AttrId::from_number(number)).is_some_and(|set| is(&set.key(), key));
        match self.index.find(hash, is) {
            Found::Number(number) => Ok(AttrId::from_number(number)),
            Found::Vacant(_) => Err(Absent(hash)),
        }
    }

    /// Stores bytes without any fault that were not there yet, with what they decode to.
    pub(crate) fn insert(
        &mut self,
        Absent(hash): Absent,
        key: &RawKey<'_>,
        attributes: &PathAttributes,
    ) -> AttrId {
        let next_hop = attributes.next_hop.map(|hop| self.next_hops.hold(hop.address));
        let set = Some(AttrSet::new(key, attributes, next_hop));
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.sets.get_mut(id.index()) {
                    *place = set;
                }
                id
            }
            None => {
                self.sets.push(set);
                AttrId::new(self.sets.len().saturating_sub(1))
            }
        };
        self.index.reserve();
        if let Found::Vacant(place) = self.index.find(hash, |_| false) {
            self.index.occupy(place, hash, id.number());
        }
        self.fresh.push(id);
        id
    }

    pub(crate) fn get(&self, id: AttrId) -> Option<&AttrSet> {
        self.sets.get(id.index())?.as_ref()
    }

    /// Returns everything in a set.
    pub(crate) fn attributes(&self, id: AttrId) -> PathAttributes {
        self.get(id).map(AttrSet::attributes).unwrap_or_default()
    }

    /// Returns how many sets there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns the sets that were stored since the last time: whoever wanted one may have come to nothing.
    pub(crate) fn take_fresh(&mut self) -> Vec<AttrId> {
        std::mem::take(&mut self.fresh)
    }

    /// Forgets a set; its number is that of another one soon.
    pub(crate) fn forget(&mut self, id: AttrId) {
        let Some(set) = self.sets.get_mut(id.index()).and_then(Option::take) else { return };
        self.index.remove(hash(&self.hasher, &set.key()), id.number());
        set.next_hop.into_iter().for_each(|hop| self.next_hops.release(hop));
        self.free.push(id);
    }
}

fn hash(hasher: &DefaultHashBuilder, key: &RawKey<'_>) -> u32 {
    let mut state = hasher.build_hasher();
    let Context { peer_type, four_octet_as } = key.context;
    let context = u8::from(four_octet_as) | u8::from(peer_type == PeerType::Internal) << 1;
    state.write_u8(context);
    state.write(key.next_hop);
    state.write(key.bytes);
    u32::try_from(state.finish() >> 32).unwrap_or(0)
}

fn is(a: &RawKey<'_>, b: &RawKey<'_>) -> bool {
    a.context == b.context && a.next_hop == b.next_hop && a.bytes == b.bytes
}
