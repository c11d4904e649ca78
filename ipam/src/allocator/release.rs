//! Release: block first, handle after, so that a crash in between leaves a handle and never a leaked address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{AllocationAttribute, IpamBlock, IpamHandle, Key};
use ipnet::IpNet;
use store::{ListOptions, Store, StoreError};

use super::{Address, Released, Reply, Worker};
use crate::{
    AssignError, block,
    datastore::{may_retry, pause},
    handle,
    memory::Frame,
};

impl<S: Store> Worker<S> {
    pub(super) async fn release_handles(&mut self, requests: Vec<(String, Reply<Released>)>) {
        let mut in_block: BTreeMap<IpNet, BTreeSet<String>> = BTreeMap::new();
        let mut failed: BTreeMap<String, StoreError> = BTreeMap::new();
        let part = Frame::enter();
        for (id, _) in &requests {
            self.remembers(&part, || format!("blocks of {id}, {in_block:?} {failed:?}"));
            match self.blocks_of(id).await {
                Ok(blocks) => {
                    for net in blocks {
                        in_block.entry(net).or_default().insert(id.clone());
                    }
                }
                Err(error) => drop(failed.insert(id.clone(), error)),
            }
        }
        let mut released: BTreeMap<String, Released> = BTreeMap::new();
        for (net, ids) in in_block {
            self.remembers(&part, || format!("releases {ids:?} in {net}, {released:?} {failed:?}"));
            let wanted = |_: IpAddr, owner: &AllocationAttribute, _: Option<u64>| {
                owner.handle_id.as_ref().is_some_and(|id| ids.contains(id))
            };
            match self.release_in(net, wanted).await {
                Ok(freed) => {
                    for (address, owner) in freed {
                        released
                            .entry(owner.handle_id.unwrap_or_default())
                            .or_default()
                            .push(address);
                    }
                    let counts: Vec<_> = ids.iter().map(|id| (id.clone(), 0)).collect();
                    let outcomes = self.write_handles(net, &counts).await;
                    for ((id, _), outcome) in counts.into_iter().zip(outcomes) {
                        if let Err(error) = outcome {
                            failed.insert(id, error);
                        }
                    }
                }
                Err(error) => failed.extend(ids.into_iter().map(|id| (id, error.clone()))),
            }
        }
        for (id, reply) in requests {
            let result = match failed.get(&id) {
                Some(error) => Err(error.clone().into()),
                None => Ok(released.remove(&id).unwrap_or_default()),
            };
            let _ = reply.send(result);
        }
    }

    /// Returns the blocks in which a handle may have addresses.
    async fn blocks_of(&mut self, id: &str) -> Result<Vec<IpNet>, StoreError> {
        let mut attempt = 0;
        let found = loop {
            if let Some(known) = self.handles.get(id) {
                break Some(known.clone());
            }
            match self.store.get::<IpamHandle>(&Key::cluster(handle::object_name(id))).await {
                Ok(stored) => {
                    self.handles.insert(id.to_owned(), stored);
                }
                Err(StoreError::NotFound { .. }) => break None,
                Err(error) if may_retry(&error) && attempt < self.options.tries => {
                    attempt += 1;
                    pause(attempt).await;
                }
                Err(error) => return Err(error),
            }
        };
        let listed = found.iter().flat_map(|stored| stored.spec.block.keys());
        let mut blocks: BTreeSet<IpNet> = listed.filter_map(|text| text.parse().ok()).collect();
        // The block is the truth, should the handle be missing: its write may have arrived after the handle was released.
        if found.is_none() {
            self.load_own().await?;
        }
        let holds = |net: &&IpNet| {
            self.blocks
                .get(*net)
                .is_some_and(|stored| !block::of_handle(&stored.spec, id).is_empty())
        };
        blocks.extend(self.blocks.keys().filter(holds));
        Ok(blocks.into_iter().collect())
    }

    /// Reads the node's own blocks with addresses, as far as our copies are not what the watch has seen.
    async fn load_own(&mut self) -> Result<(), StoreError> {
        let (part, own) = (Frame::enter(), self.own_blocks());
        for net in own.iter().copied() {
            self.remembers(&part, || format!("reads {net} of {own:?}"));
            let copy = self.blocks.get(&net);
            let is_behind = self.watches.space(|space| {
                let used = space.get(&net).filter(|seen| !seen.empty);
                used.is_some_and(|seen| copy.is_none_or(|copy| seen.is_news_to(copy)))
            });
            if is_behind {
                match self.load_patiently(net).await {
                    // Nothing can be done with it, and others need not wait for that.
                    Ok(_) | Err(StoreError::Malformed { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    pub(super) async fn release_address(
        &mut self,
        release: &Address,
    ) -> Result<Released, AssignError> {
        let _silent = Frame::enter();
        let holds = |net: &IpNet| net.contains(&release.address);
        let mut nets: BTreeSet<IpNet> =
            self.blocks.keys().filter(|net| holds(net)).copied().collect();
        nets.extend(self.watches.space(|space| space.of_address(release.address)));
        for net in &nets {
            let released = self.release_at(*net, release).await?;
            if !released.is_empty() {
                return Ok(released);
            }
        }
        // Copies and watch may be behind, and blocks of other sizes may have been there before.
        let listing = self.store.list::<IpamBlock>(&ListOptions::consistent()).await?;
        let others = listing.items.iter().filter_map(|one| block::cidr(&one.spec));
        for net in others.filter(|net| holds(net) && !nets.contains(net)) {
            let released = self.release_at(net, release).await?;
            if !released.is_empty() {
                return Ok(released);
            }
        }
        Ok(Vec::new())
    }

    /// Releases an address that would be in this block.
    pub(super) async fn release_at(
        &mut self,
        net: IpNet,
        release: &Address,
    ) -> Result<Released, AssignError> {
        let meant = |one: IpAddr, owner: &AllocationAttribute, sequence: Option<u64>| {
            let handle = release.handle.as_deref();
            one == release.address
                && handle.is_none_or(|handle| owner.handle_id.as_deref() == Some(handle))
                && (release.sequence.is_none() || release.sequence == sequence)
        };
        let freed = self.release_in(net, meant).await?;
        for (_, owner) in &freed {
            let Some(id) = &owner.handle_id else { continue };
            let left = (id.clone(), self.count_of(net, id));
            for outcome in self.write_handles(net, &[left]).await {
                outcome?;
            }
        }
        Ok(freed.into_iter().map(|(address, _)| address).collect())
    }

    pub(super) async fn release_in(
        &mut self,
        net: IpNet,
        wanted: impl Fn(IpAddr, &AllocationAttribute, Option<u64>) -> bool,
    ) -> Result<Vec<(IpAddr, AllocationAttribute)>, StoreError> {
        let cooldown = self.cooldown();
        let mut fresh = !self.blocks.contains_key(&net);
        let mut lost = Vec::new();
        let mut attempt = 0;
        let part = Frame::enter();
        loop {
            self.remembers(&part, || format!("releases in {net}, {attempt} {fresh} {lost:?}"));
            let Some(mut changed) = self.block(net).await? else { return Ok(lost) };
            block::thaw(&mut changed.spec, cooldown);
            let before = changed.spec.clone();
            let freed = block::release(&mut changed.spec, cooldown, |address, owner| {
                wanted(address, owner, block::sequence_of(&before, address))
            });
            if freed.is_empty() {
                if fresh {
                    return Ok(lost);
                }
                // Our copy may be old: nothing to release only counts when it was just read.
                self.load_patiently(net).await?;
                fresh = true;
                continue;
            }
            match self.save(net, changed).await {
                Ok(()) => return Ok(freed),
                Err(error) if may_retry(&error) && attempt < self.options.tries => {
                    attempt += 1;
                    // If the answer alone was lost, these will not be found again.
                    if matches!(error, StoreError::Unavailable { .. }) {
                        lost = freed;
                    }
                    pause(attempt).await;
                    self.load_patiently(net).await?;
                    fresh = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
