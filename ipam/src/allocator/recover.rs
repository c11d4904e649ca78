//! What a former life of the node, or somebody else's, left half-way: found by the watches, finished or undone here.

use std::collections::BTreeSet;

use api::AffinityState;
use ipnet::IpNet;
use store::{Store, StoreError};

use super::Worker;
use crate::{block, datastore::GiveBack, memory::Frame};

/// What to do about a claim or a block that stands alone.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Step {
    /// Claim it to the end.
    Finish,
    /// Give it back, or confirm it again when it has addresses.
    End,
    /// Give it back if the block is indeed not ours.
    EndIfLost,
}

impl<S: Store> Worker<S> {
    pub(super) async fn recover(&mut self) {
        let watched = self.watched_claims();
        self.claimed.retain(|net, mine| watched.get(net).copied().unwrap_or_default() != *mine);
        let (part, steps) = (Frame::enter(), self.unfinished());
        for (net, step) in &steps {
            let (net, step) = (*net, *step);
            self.remembers(&part, || format!("{step:?} {net}, of {steps:?}"));
            if let Err(error) = self.take_step(net, step).await {
                tracing::warn!(block = %net, %error, "cannot finish a claim yet");
            }
        }
        let _silent = Frame::enter();
        for (net, sequence) in self.misplaced() {
            let when = GiveBack::IfEmpty(Some(sequence));
            match self.release_affinity_of(&self.node.clone(), net, when).await {
                Ok(gone) => {
                    tracing::info!(block = %net, gone, "its pool no longer selects this node")
                }
                Err(error) => tracing::warn!(block = %net, %error, "cannot give a block back yet"),
            }
        }
    }

    /// Compares claims with blocks. What this process did itself, the watches will show in a moment.
    fn unfinished(&self) -> BTreeSet<(IpNet, Step)> {
        let mut steps = BTreeSet::new();
        let mut claims = BTreeSet::new();
        let owns = |net: &IpNet| {
            self.watches.space(|space| {
                space.get(net).is_some_and(|seen| seen.affinity.as_deref() == Some(&self.affinity))
            })
        };
        for claim in self.watches.claims() {
            let Ok(net) = claim.cidr.parse::<IpNet>() else { continue };
            if claim.node != self.node {
                continue;
            }
            claims.insert(net);
            let step = match claim.state {
                // It was the last thing to go; with a block it was not.
                _ if claim.deleted && !owns(&net) => Step::End,
                _ if claim.deleted => Step::Finish,
                // Somebody, perhaps a former life of ours, began to end it: we are here, so it is undone.
                AffinityState::PendingDeletion | AffinityState::Pending => Step::Finish,
                AffinityState::Confirmed | AffinityState::Unset if owns(&net) => continue,
                AffinityState::Confirmed | AffinityState::Unset => Step::EndIfLost,
            };
            steps.insert((net, step));
        }
        let own: Vec<IpNet> = self.watches.space(|space| space.of_owner(&self.affinity).collect());
        let orphans = own.into_iter().filter(|net| !claims.contains(net));
        steps.extend(orphans.map(|net| (net, Step::Finish)));
        steps.retain(|(net, _)| !self.claimed.contains_key(net));
        steps
    }

    async fn take_step(&mut self, net: IpNet, step: Step) -> Result<(), StoreError> {
        if step == Step::EndIfLost {
            let found = self.load_patiently(net).await?;
            if found.is_some_and(|one| one.spec.affinity.as_deref() == Some(&self.affinity)) {
                self.claimed.insert(net, true);
                return Ok(());
            }
        }
        if step == Step::Finish {
            let mine = self.claim(net).await?;
            self.claimed.insert(net, mine);
            return Ok(());
        }
        let node = self.node.clone();
        self.release_affinity_of(&node, net, GiveBack::IfEmpty(None)).await.map(drop)
    }

    /// Returns empty blocks of pools that do not select this node any more, with their sequence numbers.
    fn misplaced(&self) -> Vec<(IpNet, u64)> {
        let labels = self.watches.node_labels();
        let pools: Vec<_> = self.watches.readable_pools();
        if pools.iter().all(|pool| pool.is_for_node(&labels)) {
            return Vec::new();
        }
        let elsewhere = |net: &IpNet| {
            let pool = pools.iter().find(|pool| pool.cidr.contains(net));
            pool.is_some_and(|pool| !pool.is_for_node(&labels))
        };
        // A pod may have asked for that pool by name.
        let promised = self.line.promised();
        let own = self.own_blocks().into_iter().filter(elsewhere);
        let own = own.filter(|net| !promised.contains_key(net));
        self.watches.space(|space| {
            own.filter(|net| self.blocks.get(net).is_none_or(|one| block::is_empty(&one.spec)))
                .filter_map(|net| {
                    let seen = space.get(&net).filter(|seen| seen.empty)?;
                    Some((net, seen.sequence))
                })
                .collect()
        })
    }
}
