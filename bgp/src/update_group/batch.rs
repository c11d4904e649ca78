//! A batch of changes, sorted into buckets: one for each set of outgoing attributes, with all prefixes that carry it.

use std::{collections::BTreeMap, hash::BuildHasher, ops::Range};

use bytes::BytesMut;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::{
    Table,
    export::{GroupKey, outgoing},
    log::{Audience, Writer},
    pack::{Block, Packer},
};
use crate::{
    attr::{AttrId, NextHop, PathAttributes, encode_block},
    rib::{Path, PeerId, SlotId},
    types::{Family, Prefix},
    wire::Item,
};

/// A bucket: who does not get it, and what the messages look like.
#[derive(Debug)]
struct Bucket {
    exclude: PeerId,
    family: Family,
    next_hop: Option<NextHop>,
    block: Range<usize>,
    items: Vec<Item>,
    slots: Vec<SlotId>,
}

/// Number of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketId(usize);

/// Export rules and buckets for one flush.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    key: &'a GroupKey,
    table: Table<'a>,
    /// Export policy looks at attributes only: a verdict holds for all prefixes with the same ones.
    uniform: bool,
    verdicts: HashMap<(AttrId, PeerId, Family), Option<BucketId>>,
    recent: Option<((AttrId, PeerId, Family), Option<BucketId>)>,
    decoded: Option<(AttrId, PathAttributes)>,
    hasher: DefaultHashBuilder,
    index: HashTable<BucketId>,
    buckets: Vec<Bucket>,
    /// All attribute blocks, one behind the other.
    blocks: BytesMut,
    withdrawals: BTreeMap<(Audience, Family), Vec<Item>>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(key: &'a GroupKey, table: Table<'a>) -> Self {
        Self {
            key,
            table,
            uniform: key.export.ignores_prefix(),
            verdicts: HashMap::new(),
            recent: None,
            decoded: None,
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            buckets: Vec::new(),
            blocks: BytesMut::new(),
            withdrawals: BTreeMap::new(),
        }
    }

    /// Applies export rules; `None`: the path is not for this group. `exclude` is who must not hear of it.
    pub(super) fn export(
        &mut self,
        prefix: &Prefix,
        path: &Path,
        exclude: PeerId,
    ) -> Option<BucketId> {
        let set = path.accepted().ok()?;
        let key = (set, path.key.source, prefix.family());
        if self.uniform {
            if let Some((recent, bucket)) = self.recent
                && recent == key
            {
                return bucket;
            }
            if let Some(known) = self.verdicts.get(&key) {
                return *known;
            }
        }
        let bucket = self.judge(prefix, set, path.key.source, exclude);
        if self.uniform {
            self.verdicts.insert(key, bucket);
            self.recent = Some((key, bucket));
        }
        bucket
    }

    fn judge(
        &mut self,
        prefix: &Prefix,
        set: AttrId,
        source: PeerId,
        exclude: PeerId,
    ) -> Option<BucketId> {
        let sender = self.table.senders.get(&source)?;
        if self.decoded.as_ref().is_none_or(|(known, _)| *known != set) {
            self.decoded = Some((set, self.table.interner.attributes(set)));
        }
        let (_, attributes) = self.decoded.as_ref()?;
        let attributes = outgoing(self.key, prefix, attributes, sender).ok()?;
        Some(self.bucket(prefix.family(), exclude, &attributes))
    }

    /// Finds the bucket of these attributes, or makes it.
    fn bucket(&mut self, family: Family, exclude: PeerId, attributes: &PathAttributes) -> BucketId {
        let start = self.blocks.len();
        encode_block(attributes, family, self.key.four_octet_as, &mut self.blocks);
        let block = start..self.blocks.len();
        let next_hop = attributes.next_hop;
        let bytes = self.blocks.get(block.clone()).unwrap_or_default();
        let hash = self.hasher.hash_one((exclude, family, next_hop, bytes));
        let (buckets, blocks) = (&self.buckets, &self.blocks);
        let found = self.index.find(hash, |id| {
            buckets.get(id.0).is_some_and(|bucket| {
                (bucket.exclude, bucket.family, bucket.next_hop) == (exclude, family, next_hop)
                    && blocks.get(bucket.block.clone()) == Some(bytes)
            })
        });
        if let Some(found) = found.copied() {
            self.blocks.truncate(start);
            return found;
        }
        let id = BucketId(self.buckets.len());
        let Self { hasher, index, buckets, blocks, .. } = self;
        index.insert_unique(hash, id, |id| {
            buckets.get(id.0).map_or(0, |bucket| {
                let bytes = blocks.get(bucket.block.clone()).unwrap_or_default();
                hasher.hash_one((bucket.exclude, bucket.family, bucket.next_hop, bytes))
            })
        });
        let (items, slots) = (Vec::new(), Vec::new());
        buckets.push(Bucket { exclude, family, next_hop, block, items, slots });
        id
    }

    pub(super) fn announce(&mut self, bucket: BucketId, id: SlotId, item: Item) {
        if let Some(bucket) = self.buckets.get_mut(bucket.0) {
            bucket.items.push(item);
            bucket.slots.push(id);
        }
    }

    pub(super) fn withdraw(&mut self, audience: Audience, item: Item) {
        self.withdrawals.entry((audience, item.prefix.family())).or_default().push(item);
    }

    /// Writes the messages: withdrawals first, then bucket by bucket. Returns what fits no message.
    pub(super) fn write(
        mut self,
        packer: &Packer,
        writer: &mut Writer,
        has_audience: impl Fn(Audience) -> bool,
    ) -> Vec<SlotId> {
        for ((audience, family), items) in &self.withdrawals {
            if has_audience(*audience) {
                writer.write(*audience, |out| packer.withdraw(*family, items, out));
            }
        }
        // One audience after the other makes long segments.
        self.buckets.sort_by_key(|bucket| bucket.exclude);
        let mut refused = Vec::new();
        for bucket in &self.buckets {
            let audience = audience_without(bucket.exclude);
            if !has_audience(audience) {
                continue;
            }
            let bytes = self.blocks.get(bucket.block.clone()).unwrap_or_default();
            let block = Block { family: bucket.family, next_hop: bucket.next_hop, bytes };
            writer.write(audience, |out| {
                packer.announce(&block, &bucket.items, out).unwrap_or_else(|_too_long| {
                    // The peers must not keep what they had, and never get half of it.
                    tracing::warn!(prefixes = ?bucket.items, "attributes too long, not announced");
                    refused.extend(&bucket.slots);
                    packer.withdraw(bucket.family, &bucket.items, out)
                })
            });
        }
        refused
    }
}

/// Returns everybody but one; this speaker stands for nobody.
pub(super) fn audience_without(exclude: PeerId) -> Audience {
    if exclude == PeerId::LOCAL { Audience::All } else { Audience::Except(exclude) }
}
