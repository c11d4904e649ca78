//! Where an address comes from: the node's own blocks, then a new one, then another node's.

use std::net::IpAddr;

use api::IpamBlock;
use ipnet::IpNet;
use store::{Store, StoreError, Stored};

use super::{Worker, assign::Want, claim::LIMIT};
use crate::{
    AssignError, AutoAssign, Family, block,
    memory::Frame,
    ordinal,
    pool::{Asker, Pool, Selection, node_seed, select},
    space::Summary,
};

impl<S: Store> Worker<S> {
    /// Finds a block for one address. `planned` tells how many addresses of a block are already promised.
    pub(super) async fn place(
        &mut self,
        request: &AutoAssign,
        want: Want,
        planned: &impl Fn(&IpNet) -> usize,
    ) -> Result<IpNet, AssignError> {
        let family = match want {
            Want::Certain(address) => return self.place_certain(request, address).await,
            Want::Any(family) => family,
        };
        let selection = self.select(request, family);
        let own = self.own_blocks();
        let part = Frame::enter();
        for pool in &selection.pools {
            for net in own.iter().filter(|net| pool.cidr.contains(*net)) {
                self.remembers(&part, || format!("room in {net} for {}, of {own:?}", pool.name));
                if self.has_room(*net, planned(net)).await? {
                    return Ok(*net);
                }
            }
        }
        let mut tried = selection.refused;
        let mut full = Vec::new();
        for pool in selection.pools {
            self.remembers(&part, || format!("claims from {}, {tried:?} {full:?}", pool.name));
            match self.claim_from(&pool).await? {
                Ok(net) => return Ok(net),
                // Calico stops at the limit and does not borrow.
                Err(why) if why.starts_with(LIMIT) => tried.push((pool.name, why)),
                Err(why) => full.push((pool, why)),
            }
        }
        let strict = self.watches.configuration().strict_affinity;
        for (pool, _) in full.iter().filter(|_| !strict) {
            self.remembers(&part, || format!("borrows from {}, {tried:?} {full:?}", pool.name));
            if let Some(net) = self.borrow(pool, planned).await? {
                return Ok(net);
            }
        }
        tried.extend(full.into_iter().map(|(pool, why)| {
            let why = if strict {
                format!("{why}, and strictAffinity forbids to borrow from other nodes")
            } else {
                format!("{why}, and no address to borrow: {}", self.fullness(&pool))
            };
            (pool.name, why)
        }));
        Err(AssignError::NoAddress { family, tried })
    }

    pub(super) fn select(&self, request: &AutoAssign, family: Family) -> Selection {
        let node_labels = self.watches.node_labels();
        let asker = Asker {
            node_labels: &node_labels,
            namespace_labels: request.namespace_labels.as_ref(),
            intended_use: request.intended_use,
        };
        let requested = match family {
            Family::V4 => &request.pools4,
            Family::V6 => &request.pools6,
        };
        let objects = self.watches.pools.list();
        select(objects.iter().map(|stored| &***stored), family, requested, &asker)
    }

    /// Returns whether a block of this node has an address left. Our copy decides while it has one; else what was seen of the
    /// block since, and then the block itself: others release addresses too.
    async fn has_room(&mut self, net: IpNet, planned: usize) -> Result<bool, StoreError> {
        let mut stored = self.blocks.get(&net).cloned();
        let (is_news, overlap) = self.watches.space(|space| {
            let news = |copy| space.get(&net).is_some_and(|seen| seen.is_news_to(copy));
            (stored.as_ref().is_some_and(news), space.overlapping(&net))
        });
        if let Some(other) = overlap {
            tracing::warn!(block = %net, %other, "blocks overlap: nothing is assigned from this one");
            return Ok(false);
        }
        // What we are writing ourselves, the watch may show before the answer is here.
        let is_behind = stored.as_ref().is_none_or(|copy| {
            is_news && !self.line.is_writing(&net) && self.room(copy) <= planned
        });
        if is_behind {
            stored = match self.load_patiently(net).await {
                Err(StoreError::Malformed { .. }) => return Ok(false),
                result => result?,
            };
        }
        let own = stored.filter(|stored| stored.spec.affinity.as_deref() == Some(&self.affinity));
        if own.is_none() {
            self.claimed.insert(net, false);
        }
        Ok(own.is_some_and(|stored| self.room(&stored) > planned))
    }

    /// Returns how many addresses of a block automatic assignment may take.
    fn room(&self, stored: &Stored<IpamBlock>) -> usize {
        if stored.spec.attributes.iter().all(|owner| owner.released_at.is_none()) {
            return block::room(&stored.spec, &self.reservations);
        }
        let mut thawed = stored.spec.clone();
        block::thaw(&mut thawed, self.cooldown());
        block::room(&thawed, &self.reservations)
    }

    /// Finds a block of somebody else with an address left. Nodes begin at different places.
    async fn borrow(
        &mut self,
        pool: &Pool,
        planned: &impl Fn(&IpNet) -> usize,
    ) -> Result<Option<IpNet>, StoreError> {
        let lends = |summary: &Summary| {
            let owner = summary.affinity.as_deref();
            (summary.free > 0 || summary.cooling)
                && owner != Some(&self.affinity)
                && owner.is_none_or(|owner| owner.starts_with("host:"))
        };
        let mut lenders: Vec<IpNet> = self.watches.space(|space| {
            let inside = space.inside(&pool.cidr).filter(|(_, summary)| lends(summary));
            inside.map(|(net, _)| *net).collect()
        });
        let start = usize::try_from(node_seed(&self.node)).unwrap_or_default();
        if let Some(start) = start.checked_rem(lenders.len()) {
            lenders.rotate_left(start);
        }
        let part = Frame::enter();
        for (at, net) in lenders.iter().enumerate() {
            let net = *net;
            self.remembers(&part, || format!("lends {:?}", lenders.get(at..)));
            if self.watches.space(|space| space.overlapping(&net)).is_some() {
                continue;
            }
            let fresh = self.load_patiently(net).await?;
            if fresh.is_some_and(|stored| self.room(&stored) > planned(&net)) {
                return Ok(Some(net));
            }
        }
        Ok(None)
    }

    /// Returns whether a block is another node's, or nobody's, and such lend nothing.
    pub(super) fn is_forbidden(&self, block: &IpamBlock) -> bool {
        let is_foreign = block.spec.affinity.as_deref() != Some(&self.affinity);
        is_foreign && self.watches.configuration().strict_affinity
    }

    /// Says what a pool's addresses are used for.
    fn fullness(&self, pool: &Pool) -> String {
        let (mut blocks, mut total, mut free) = (0_usize, 0, 0);
        self.watches.space(|space| {
            for (net, summary) in space.inside(&pool.cidr) {
                blocks += 1;
                total +=
                    ordinal::size(net).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
                free += summary.free;
            }
        });
        let mut text = format!(
            "{} of {total} addresses in {blocks} blocks are in use",
            total - free.min(total)
        );
        if free > 0 {
            text.push_str(&format!(", {free} are reserved"));
        }
        text
    }

    async fn place_certain(
        &mut self,
        request: &AutoAssign,
        address: IpAddr,
    ) -> Result<IpNet, AssignError> {
        let _silent = Frame::enter();
        let refused = |reason: String| AssignError::Refused { address, reason };
        let pools = self.watches.readable_pools();
        let pool: Option<&Pool> = pools.iter().find(|pool| pool.cidr.contains(&address));
        let pool = pool.ok_or_else(|| {
            refused("is in no pool; `voilectl get ippools` lists them".to_owned())
        })?;
        pool.usable(request.intended_use)
            .map_err(|why| refused(format!("is in pool {}, which {why}", pool.name)))?;
        let stored = self.watches.space(|space| space.of_address(address));
        let net = IpNet::new(address, pool.block_prefix).map(|net| net.trunc());
        let net = stored.or(net.ok()).ok_or_else(|| refused("is in no block".to_owned()))?;
        let found = match self.load_patiently(net).await? {
            Some(found) => found,
            None if self.claim(net).await? => return Ok(net),
            None => return Err(refused(format!("is in block {net}, which overlaps another"))),
        };
        if let Some(other) = self.watches.space(|space| space.overlapping(&net)) {
            return Err(refused(format!("is in block {net}, which overlaps block {other}")));
        }
        if self.is_forbidden(&found) {
            return Err(refused(format!("is in block {net} of another node, see strictAffinity")));
        }
        Ok(net)
    }
}
