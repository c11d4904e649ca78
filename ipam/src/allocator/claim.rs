//! Claiming blocks and giving them back. Every step can be repeated, so that whoever comes next finishes a crash.

use std::collections::BTreeSet;
use std::time::Duration;

use api::{AffinityState, BlockAffinity, IpamBlock, Key};
use ipnet::IpNet;
use store::{ListOptions, Store, StoreError, Stored};

use super::Worker;
use crate::{
    AssignError, Family, affinity, block,
    datastore::{Authority, Ending, GiveBack, delete_as_read, may_retry, pause, release_claim},
    explain::max_blocks,
    memory::Frame,
    pool::{Asker, Pool, select},
    space::{Space, Summary},
};

/// An empty block of another node is left alone until its claim is this old: the claim may be in use in a moment.
const RECLAIM_AFTER: u64 = 60 * 1_000_000_000;

/// How long a new block may take to show up in our own watch.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
/// How long a look at the watch may take that saves a read.
const SHOWN_SOON: Duration = Duration::from_millis(100);
/// Blocks that a node tries to claim one after the other when others are faster.
const RACES: u8 = 64;
/// Calico stops at the limit and does not borrow.
pub(super) const LIMIT: &str = "is at the node's limit, see maxBlocksPerHost";

impl<S: Store> Worker<S> {
    /// Claims a free block of a pool. `Ok(Err(..))` says why the pool has none.
    pub(super) async fn claim_from(
        &mut self,
        pool: &Pool,
    ) -> Result<Result<IpNet, String>, StoreError> {
        let configuration = self.watches.configuration();
        if !configuration.auto_allocate_blocks {
            return Ok(Err("may claim no blocks, see autoAllocateBlocks".to_owned()));
        }
        let family = pool.family();
        let own = self.own_blocks().iter().filter(|net| Family::of(net.addr()) == family).count();
        let most = max_blocks(&configuration);
        if own >= most {
            return Ok(Err(format!("{LIMIT} ({own} blocks)")));
        }
        let mut lost = BTreeSet::new();
        let part = Frame::enter();
        for attempt in 0..RACES {
            let taken =
                |net: &IpNet| self.reservations.covering(net).or_else(|| lost.get(net).copied());
            let free =
                self.watches.space(|space| space.free_block(pool, &self.node, attempt, taken));
            let Some(net) = free else { break };
            self.remembers(&part, || {
                format!("claims {net} from {}, {attempt} {lost:?}", pool.name)
            });
            if self.claim(net).await? {
                return Ok(Ok(net));
            }
            lost.insert(net);
        }
        self.remembers(&part, || format!("reclaims from {}", pool.name));
        self.reclaim_from(pool).await
    }

    /// Takes an empty block that another node claimed a while ago.
    async fn reclaim_from(&mut self, pool: &Pool) -> Result<Result<IpNet, String>, StoreError> {
        let now = self.options.clock.now();
        let spare = |(net, seen): (&IpNet, &Summary)| {
            let owner = seen.affinity.as_deref()?.strip_prefix("host:")?;
            let claimed = seen.claimed.filter(|_| seen.empty && owner != self.node)?;
            let ripe = now.0.saturating_sub(claimed.0) >= RECLAIM_AFTER;
            let fits = net.prefix_len() == pool.block_prefix;
            (ripe && fits).then(|| (*net, owner.to_owned(), seen.sequence))
        };
        let spare: Vec<_> =
            self.watches.space(|space| space.inside(&pool.cidr).filter_map(spare).collect());
        let part = Frame::enter();
        for (at, (net, owner, sequence)) in spare.iter().enumerate() {
            let (net, sequence) = (*net, *sequence);
            self.remembers(&part, || format!("reclaims {:?}", spare.get(at..)));
            // Guarded by the sequence number and the revision: a block that got an address meanwhile stays.
            match self.release_affinity_of(owner, net, GiveBack::IfEmpty(Some(sequence))).await {
                Ok(true) => {
                    self.remembers(&part, || format!("claims, of {:?}", spare.get(at..)));
                    if self.claim(net).await? {
                        return Ok(Ok(net));
                    }
                }
                Ok(false) => {}
                Err(error) if may_retry(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Err("has no free block".to_owned()))
    }

    /// Claims one block in two phases. `false` means that it is somebody else's, or overlaps somebody else's.
    pub(super) async fn claim(&mut self, net: IpNet) -> Result<bool, StoreError> {
        let mut attempt = 0;
        let part = Frame::enter();
        loop {
            self.remembers(&part, || format!("claims {net}, {attempt}"));
            match self.claim_once(net).await {
                Err(error) if may_retry(&error) && attempt < self.options.tries => {
                    attempt += 1;
                    pause(attempt).await;
                }
                result => return result,
            }
        }
    }

    async fn claim_once(&mut self, net: IpNet) -> Result<bool, StoreError> {
        let mut claim = self.pending_affinity(net).await?;
        let wanted = block::empty(&net, Some(&self.affinity), self.options.clock.now());
        let (mine, is_new) = match self.store.create(&wanted).await {
            Ok(stored) => (stored, true),
            Err(StoreError::AlreadyExists { .. }) if self.is_shown_as_others(net).await => {
                delete_as_read(&self.store, &claim).await?;
                return Ok(false);
            }
            Err(StoreError::AlreadyExists { .. }) => match self.load(net).await? {
                // Ours already: a claim that died half-way, here or in a former life.
                Some(stored) if stored.spec.affinity.as_deref() == Some(&self.affinity) => {
                    (self.renew(stored, &claim).await?, false)
                }
                Some(_) => {
                    delete_as_read(&self.store, &claim).await?;
                    return Ok(false);
                }
                None => return Err(conflict(&net)),
            },
            Err(error) => return Err(error),
        };
        if block::is_empty(&mine.spec) && self.overlaps(net, &mine).await? {
            // The claim first: a former life may have confirmed it, or may be about to, and nobody else gets the block while
            // a claim counts. A block that is left without its claim is claimed to the end or given back later.
            delete_as_read(&self.store, &claim).await?;
            delete_as_read(&self.store, &mine).await?;
            self.blocks.remove(&net);
            return Ok(false);
        }
        if is_new && claim.spec.state != AffinityState::Pending {
            // A claim whose block had vanished: whoever is about to collect it must notice.
            claim.spec.state = AffinityState::Pending;
            claim = self.store.update(&claim).await?;
        }
        if claim.spec.state != AffinityState::Confirmed {
            claim.spec.state = AffinityState::Confirmed;
            self.store.update(&claim).await?;
        }
        self.blocks.insert(net, mine);
        self.claimed.insert(net, true);
        tracing::info!(block = %net, "claimed a block");
        Ok(true)
    }

    /// Returns whether our watch shows that a block that exists is not ours; it does in a moment, and saves a read.
    async fn is_shown_as_others(&self, net: IpNet) -> bool {
        let shown = |space: &Space| space.get(&net).is_some();
        self.watches.space_becomes(shown, SHOWN_SOON).await
            && self.watches.space(|space| {
                space.get(&net).is_some_and(|seen| seen.affinity.as_deref() != Some(&self.affinity))
            })
    }

    /// Writes a block of ours whose claim is not confirmed: whoever is about to delete it must notice.
    async fn renew(
        &mut self,
        mut mine: Stored<IpamBlock>,
        claim: &BlockAffinity,
    ) -> Result<Stored<IpamBlock>, StoreError> {
        if claim.spec.state == AffinityState::Confirmed {
            return Ok(mine);
        }
        mine.spec.affinity_claim_time = Some(self.options.clock.now().rfc3339());
        mine.spec.sequence_number += 1;
        self.store.update(&mine).await
    }

    /// Returns a block to take addresses from, as [`Worker::block`] does, if it may be used: it is ours, or we may borrow; and
    /// whoever takes the first address of a block must know that it overlaps no other. Its owner may not have found that out yet;
    /// and the block that we, or its owner, found good may have made room for another.
    pub(super) async fn usable(
        &mut self,
        net: IpNet,
    ) -> Result<Option<Stored<IpamBlock>>, StoreError> {
        let mut known = self.block(net).await?;
        let is_shown = |space: &Space| known.as_ref().is_none_or(|copy| shows(space, &net, copy));
        let is_used = known.as_ref().is_some_and(|copy| !block::is_empty(&copy.spec));
        if !is_used && !self.watches.space(is_shown) {
            // The watch is behind, or the copy is.
            known = self.load_patiently(net).await?;
        }
        let Some(stored) = known else { return Ok(None) };
        if self.is_forbidden(&stored) {
            return Ok(None);
        }
        if block::is_empty(&stored.spec) && self.overlaps(net, &stored).await? {
            return Ok(None);
        }
        Ok(Some(stored))
    }

    /// Returns whether a new block overlaps another. Two nodes may create overlapping blocks of different sizes at once.
    /// Changes of a kind are seen in order: when our watch shows this block, and no other that had its place before, it has shown
    /// every block that was created before. So of two such blocks the later one's owner sees the other, and steps back; and
    /// nobody takes an address out of a block before somebody has seen it so ([`Worker::usable`]).
    async fn overlaps(&self, net: IpNet, new: &Stored<IpamBlock>) -> Result<bool, StoreError> {
        let shown = |space: &Space| shows(space, &net, new);
        if self.watches.space_becomes(shown, SHOWN_WITHIN).await {
            return Ok(self.watches.space(|space| space.overlapping(&net)).is_some());
        }
        tracing::debug!(block = %net, "the watch is behind, listing all blocks");
        let listing = self.store.list::<IpamBlock>(&ListOptions::consistent()).await?;
        let mut space = Space::default();
        listing.items.iter().for_each(|one| space.put(one));
        listing.malformed.iter().for_each(|(key, _)| space.put_unreadable(&key.name));
        Ok(space.overlapping(&net).is_some())
    }

    async fn pending_affinity(&self, net: IpNet) -> Result<Stored<BlockAffinity>, StoreError> {
        let wanted = affinity::pending(&self.node, &net);
        let key = Key::cluster(wanted.metadata.name.clone());
        let mut found = match self.store.create(&wanted).await {
            Err(StoreError::AlreadyExists { .. }) => self.store.get::<BlockAffinity>(&key).await?,
            result => return result,
        };
        if found.spec.deleted {
            delete_as_read(&self.store, &found).await?;
            return self.store.create(&wanted).await;
        }
        let missing = wanted
            .metadata
            .labels
            .iter()
            .any(|(name, value)| found.metadata.labels.get(name) != Some(value));
        if missing || found.spec.state == AffinityState::PendingDeletion {
            found.metadata.labels.extend(wanted.metadata.labels);
            found.spec.state = AffinityState::Pending;
            return self.store.update(&found).await;
        }
        Ok(found)
    }

    pub(super) async fn ensure_block(&mut self, family: Family) -> Result<IpNet, AssignError> {
        let own = self.own_blocks();
        let node_labels = self.watches.node_labels();
        let asker = Asker {
            node_labels: &node_labels,
            namespace_labels: None,
            intended_use: api::AllowedUse::Workload,
        };
        let objects = self.watches.pools.list();
        let selection = select(objects.iter().map(|stored| &***stored), family, &[], &asker);
        let holds = |net: &&IpNet| selection.pools.iter().any(|pool| pool.cidr.contains(*net));
        if let Some(net) = own.iter().find(holds) {
            return Ok(*net);
        }
        let mut tried = selection.refused;
        let part = Frame::enter();
        for pool in selection.pools {
            self.remembers(&part, || format!("ensures from {}, {tried:?}", pool.name));
            match self.claim_from(&pool).await? {
                Ok(net) => return Ok(net),
                Err(why) => tried.push((pool.name, why)),
            }
        }
        Err(AssignError::NoAddress { family, tried })
    }

    pub(super) async fn claim_certain(&mut self, net: IpNet) -> Result<IpNet, AssignError> {
        let refused = |reason: &str| AssignError::Refused {
            address: net.addr(),
            reason: format!("of block {net} {reason}"),
        };
        let pools = self.watches.readable_pools();
        if !pools
            .iter()
            .any(|pool| pool.cidr.contains(&net) && pool.block_prefix == net.prefix_len())
        {
            return Err(refused("is in no pool with blocks of that size"));
        }
        if self.claim(net).await? {
            return Ok(net);
        }
        Err(refused("belongs to someone else"))
    }

    pub(super) async fn release_affinity(&mut self, net: IpNet) -> Result<(), AssignError> {
        let node = self.node.clone();
        Ok(self.release_affinity_of(&node, net, GiveBack::Always).await.map(drop)?)
    }

    /// Gives back a node's block. Returns whether the claim is gone.
    pub(super) async fn release_affinity_of(
        &mut self,
        node: &str,
        net: IpNet,
        when: GiveBack,
    ) -> Result<bool, StoreError> {
        // What is left of the block is read when it is needed.
        self.blocks.remove(&net);
        let is_own = node == self.node;
        let authority = if is_own { Authority::Full } else { Authority::Guest };
        let ending = Ending { node, net: &net, when, authority };
        let part = Frame::enter();
        self.remembers(&part, || format!("ends {ending:?}"));
        let gone = release_claim(&self.store, ending, self.options.tries).await?;
        if is_own {
            self.claimed.insert(net, !gone);
        }
        Ok(gone)
    }
}

fn shows(space: &Space, net: &IpNet, block: &Stored<IpamBlock>) -> bool {
    space.get(net).is_some_and(|seen| seen.uid == block.metadata.uid)
}

fn conflict(net: &IpNet) -> StoreError {
    StoreError::Conflict { kind: "IPAMBlock", key: api::cidr_name(net) }
}
