//! Claiming blocks and giving them back. Every step can be repeated, so that whoever comes next finishes a crash.

use api::{AffinityState, BlockAffinity, IpamBlock, Key};
use ipnet::IpNet;
use store::{ListOptions, Store, StoreError, Stored};

use super::Worker;
use crate::{
    AssignError, Family, affinity, block,
    datastore::{GiveBack, delete_as_read, may_retry, pause, release_claim},
    ordinal,
    pool::{Asker, Pool, blocks_from, select},
};

/// Blocks per host where the configuration says 0 (Calico `ipam.go`).
const DEFAULT_MAX_BLOCKS: usize = 20;
/// An empty block of another node is left alone until its claim is this old: the claim may be in use in a moment.
const RECLAIM_AFTER: u64 = 60 * 1_000_000_000;

/// Every stored block, for finding free space.
pub(super) struct Inventory {
    pub(super) blocks: Vec<(IpNet, Stored<IpamBlock>)>,
}

impl Inventory {
    pub(super) fn overlapping(&self, net: &IpNet) -> Option<&(IpNet, Stored<IpamBlock>)> {
        self.blocks.iter().find(|(other, _)| ordinal::overlap(other, net))
    }
}

impl<S: Store> Worker<S> {
    pub(super) async fn inventory(&self, options: ListOptions) -> Result<Inventory, StoreError> {
        let listing = self.store.list::<IpamBlock>(&options).await?;
        let readable = |stored: Stored<IpamBlock>| Some((stored.spec.cidr.parse().ok()?, stored));
        Ok(Inventory { blocks: listing.items.into_iter().filter_map(readable).collect() })
    }

    /// Claims a free block of a pool. `Ok(Err(..))` says why the pool has none.
    pub(super) async fn claim_from(
        &mut self,
        pool: &Pool,
        inventory: &mut Inventory,
    ) -> Result<Result<IpNet, String>, StoreError> {
        let configuration = self.watches.configuration();
        if !configuration.auto_allocate_blocks {
            return Ok(Err("may claim no blocks, see autoAllocateBlocks".to_owned()));
        }
        let family = pool.family();
        let own = self.own_blocks().iter().filter(|net| Family::of(net.addr()) == family).count();
        let most = match usize::try_from(configuration.max_blocks_per_host).unwrap_or_default() {
            0 => DEFAULT_MAX_BLOCKS,
            most => most,
        };
        if own >= most {
            return Ok(Err(format!("{LIMIT} ({own} blocks)")));
        }
        let reservations = self.watches.reservations();
        for net in blocks_from(pool, &self.node) {
            if reservations.covers(&net) || inventory.overlapping(&net).is_some() {
                continue;
            }
            if self.claim(net).await? {
                return Ok(Ok(net));
            }
            *inventory = self.inventory(ListOptions::consistent()).await?;
        }
        self.reclaim_from(pool, inventory).await
    }

    /// Takes an empty block that another node has not used for a while.
    async fn reclaim_from(
        &mut self,
        pool: &Pool,
        inventory: &Inventory,
    ) -> Result<Result<IpNet, String>, StoreError> {
        let now = self.options.clock.now();
        for (net, stored) in &inventory.blocks {
            let old = stored
                .spec
                .affinity_claim_time
                .as_deref()
                .and_then(crate::UnixNanos::parse_rfc3339);
            let ripe = old.is_some_and(|claimed| now.0.saturating_sub(claimed.0) >= RECLAIM_AFTER);
            let owner = stored.spec.affinity.as_deref().and_then(|text| text.strip_prefix("host:"));
            let Some(owner) = owner.filter(|owner| *owner != self.node) else { continue };
            let fits = pool.cidr.contains(net) && net.prefix_len() == pool.block_prefix;
            if !ripe || !fits || !block::is_empty(&stored.spec) {
                continue;
            }
            // Guarded by the revision: a block that got an address meanwhile stays.
            match self
                .release_affinity_of(
                    owner,
                    *net,
                    GiveBack::IfEmpty(Some(stored.spec.sequence_number)),
                )
                .await
            {
                Ok(true) if self.claim(*net).await? => return Ok(Ok(*net)),
                Ok(_) => {}
                Err(error) if may_retry(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Err("has no free block".to_owned()))
    }

    /// Claims one block in two phases. `false` means that it is somebody else's, or overlaps somebody else's.
    pub(super) async fn claim(&mut self, net: IpNet) -> Result<bool, StoreError> {
        let mut attempt = 0;
        loop {
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
        let mine = match self.store.create(&wanted).await {
            Ok(stored) => stored,
            Err(StoreError::AlreadyExists { .. }) => match self.load(net).await? {
                // Ours already: a claim that died half-way, here or in a former life.
                Some(stored) if stored.spec.affinity.as_deref() == Some(&self.affinity) => stored,
                Some(_) => {
                    delete_as_read(&self.store, &claim).await?;
                    return Ok(false);
                }
                None => return Err(conflict(&net)),
            },
            Err(error) => return Err(error),
        };
        // Two nodes may claim overlapping blocks of different sizes at once: whoever sees the other steps back.
        let inventory = self.inventory(ListOptions::consistent()).await?;
        let others = |(other, _): &&(IpNet, _)| *other != net && ordinal::overlap(other, &net);
        if block::is_empty(&mine.spec) && inventory.blocks.iter().any(|one| others(&one)) {
            delete_as_read(&self.store, &mine).await?;
            delete_as_read(&self.store, &claim).await?;
            self.blocks.remove(&net);
            return Ok(false);
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

    /// Finishes what a former life of this node left half-way.
    pub(super) async fn recover(&mut self) {
        for stored in self.watches.affinities.list() {
            let Ok(net) = stored.spec.cidr.parse::<IpNet>() else { continue };
            let unfinished = !affinity::is_confirmed(&stored.spec);
            // What this process did itself, the watch will show in a moment.
            if !unfinished || stored.spec.node != self.node || self.claimed.contains_key(&net) {
                continue;
            }
            let forward = stored.spec.state == AffinityState::Pending && !stored.spec.deleted;
            let outcome = if forward {
                self.claim(net).await.map(drop)
            } else {
                let node = self.node.clone();
                self.release_affinity_of(&node, net, GiveBack::IfEmpty(None)).await.map(drop)
            };
            match outcome {
                Ok(()) => {
                    self.claimed.entry(net).or_insert(false);
                }
                Err(error) => tracing::warn!(block = %net, %error, "cannot finish a claim yet"),
            }
        }
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
        for pool in selection.pools {
            let mut inventory = self.inventory(ListOptions::cached()).await?;
            match self.claim_from(&pool, &mut inventory).await? {
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
    async fn release_affinity_of(
        &mut self,
        node: &str,
        net: IpNet,
        when: GiveBack,
    ) -> Result<bool, StoreError> {
        let tries = self.options.tries;
        // What is left of the block is read when it is needed.
        self.blocks.remove(&net);
        let gone = release_claim(&self.store, node, &net, when, tries).await?;
        if node == self.node {
            self.claimed.insert(net, !gone);
        }
        Ok(gone)
    }
}

/// Calico stops at the limit and does not borrow.
pub(super) const LIMIT: &str = "is at the node's limit, see maxBlocksPerHost";

fn conflict(net: &IpNet) -> StoreError {
    StoreError::Conflict { kind: "IPAMBlock", key: api::cidr_name(net) }
}
