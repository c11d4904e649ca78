//! A batch of changes, sorted into buckets: one for each set of outgoing attributes, with all prefixes that carry it.

use std::{borrow::Cow, hash::BuildHasher, ops::Range};

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
}

/// What goes into a bucket.
#[derive(Clone, Copy, Debug)]
struct Announcement {
    bucket: BucketId,
    id: SlotId,
    item: Item,
}

impl AsRef<Item> for Announcement {
    fn as_ref(&self) -> &Item {
        &self.item
    }
}

/// What somebody must forget.
#[derive(Clone, Copy, Debug)]
struct Withdrawal {
    audience: Audience,
    item: Item,
}

impl AsRef<Item> for Withdrawal {
    fn as_ref(&self) -> &Item {
        &self.item
    }
}

/// Number of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BucketId(u32);

impl BucketId {
    fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

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
    /// The last source, and who must not hear of its paths.
    pub(super) excluded: Option<(PeerId, PeerId)>,
    hasher: DefaultHashBuilder,
    index: HashTable<BucketId>,
    buckets: Vec<Bucket>,
    /// All attribute blocks, one behind the other.
    blocks: BytesMut,
    announcements: Vec<Announcement>,
    withdrawals: Vec<Withdrawal>,
}

impl<'a> Batch<'a> {
    /// Begins with about so many changes to come.
    pub(super) fn new(key: &'a GroupKey, table: Table<'a>, changes: usize) -> Self {
        // In the Internet's table a few prefixes share their attributes.
        let sets = changes / 4;
        let uniform = key.export.ignores_prefix();
        Self {
            key,
            table,
            uniform,
            verdicts: HashMap::with_capacity(if uniform { sets } else { 0 }),
            recent: None,
            decoded: None,
            excluded: None,
            hasher: DefaultHashBuilder::default(),
            index: HashTable::with_capacity(sets),
            buckets: Vec::with_capacity(sets),
            blocks: BytesMut::new(),
            announcements: Vec::with_capacity(changes),
            withdrawals: Vec::new(),
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
        let attributes = if self.uniform {
            // Nobody asks for these again.
            Cow::Owned(self.table.interner.attributes(set))
        } else {
            if self.decoded.as_ref().is_none_or(|(known, _)| *known != set) {
                self.decoded = Some((set, self.table.interner.attributes(set)));
            }
            Cow::Borrowed(&self.decoded.as_ref()?.1)
        };
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
            buckets.get(id.index()).is_some_and(|bucket| {
                (bucket.exclude, bucket.family, bucket.next_hop) == (exclude, family, next_hop)
                    && blocks.get(bucket.block.clone()) == Some(bytes)
            })
        });
        if let Some(found) = found.copied() {
            self.blocks.truncate(start);
            return found;
        }
        let id = BucketId(u32::try_from(self.buckets.len()).unwrap_or(u32::MAX));
        let Self { hasher, index, buckets, blocks, .. } = self;
        index.insert_unique(hash, id, |id| {
            buckets.get(id.index()).map_or(0, |bucket| {
                let bytes = blocks.get(bucket.block.clone()).unwrap_or_default();
                hasher.hash_one((bucket.exclude, bucket.family, bucket.next_hop, bytes))
            })
        });
        buckets.push(Bucket { exclude, family, next_hop, block });
        id
    }

    pub(super) fn announce(&mut self, bucket: BucketId, id: SlotId, item: Item) {
        self.announcements.push(Announcement { bucket, id, item });
    }

    pub(super) fn withdraw(&mut self, audience: Audience, item: Item) {
        self.withdrawals.push(Withdrawal { audience, item });
    }

    /// Writes the messages: withdrawals first, then bucket by bucket. Returns what fits no message, with its identifier.
    pub(super) fn write(
        mut self,
        packer: &Packer,
        writer: &mut Writer,
        has_audience: impl Fn(Audience) -> bool,
    ) -> Vec<(SlotId, u32)> {
        // Stable, and quick where things are in order already.
        let place = |each: &Withdrawal| (each.audience, each.item.prefix.family());
        self.withdrawals.sort_by_key(place);
        for items in self.withdrawals.chunk_by(|a, b| place(a) == place(b)) {
            let Some((audience, family)) = items.first().map(place) else { continue };
            if has_audience(audience) {
                writer.write(audience, |out| packer.withdraw(family, items, out));
            }
        }
        // One audience after the other makes long segments.
        let exclude = |id: BucketId| {
            self.buckets.get(id.index()).map_or(PeerId::LOCAL, |bucket| bucket.exclude)
        };
        self.announcements.sort_by_key(|each| (exclude(each.bucket), each.bucket));
        let mut refused = Vec::new();
        for items in self.announcements.chunk_by(|a, b| a.bucket == b.bucket) {
            let bucket = items.first().and_then(|first| self.buckets.get(first.bucket.index()));
            let Some(bucket) = bucket else { continue };
            let audience = audience_without(bucket.exclude);
            if !has_audience(audience) {
                continue;
            }
            let bytes = self.blocks.get(bucket.block.clone()).unwrap_or_default();
            let block = Block { family: bucket.family, next_hop: bucket.next_hop, bytes };
            writer.write(audience, |out| {
                packer.announce(&block, items, out).unwrap_or_else(|_too_long| {
                    // The peers must not keep what they had, and never get half of it.
                    let count = items.len();
                    tracing::warn!(first = ?items.first(), count, "attributes too long, not announced");
                    refused.extend(items.iter().map(|each| (each.id, each.item.path_id)));
                    packer.withdraw(bucket.family, items, out)
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
