//! Blocks and claims that nobody needs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{AffinityState, BlockAffinity, IpamBlock};
use ipnet::IpNet;

use super::{BlockRelease, Inventory, Pass, ReleasePlan, Subject, verdict::Facts};
use crate::{
    Family, affinity,
    block::{self, Cooldown},
    space::Space,
};

impl Inventory<'_> {
    /// Whether a block is within a pool that is in use.
    fn gives_addresses(&self, block: &IpNet) -> bool {
        self.pools.as_ref().is_none_or(|pools| {
            let mut open = pools.iter().filter(|pool| !pool.spec.disabled);
            open.any(|pool| pool.spec.cidr.parse().is_ok_and(|pool: IpNet| pool.contains(block)))
        })
    }
}

impl Pass<'_> {
    /// Finds blocks and claims that nobody needs.
    pub(super) fn blocks(
        &mut self,
        inventory: &Inventory<'_>,
        facts: &Facts<'_>,
        in_use: &BTreeSet<IpAddr>,
        plan: &mut ReleasePlan,
    ) {
        let live = inventory.blocks.iter().filter(|block| !block.spec.deleted);
        let blocks: BTreeMap<IpNet, &IpamBlock> =
            live.filter_map(|one| Some((block::cidr(&one.spec)?, *one))).collect();
        let owner = |net: &IpNet| blocks.get(net).and_then(|one| one.spec.affinity.as_deref());
        let is_needed = |net: &IpNet| {
            let addresses = blocks.get(net).into_iter().flat_map(|one| block::assigned(&one.spec));
            addresses.into_iter().any(|(address, _)| in_use.contains(&address))
        };
        // A dead node may own a block without any claim.
        let mut dead: BTreeSet<(String, IpNet)> = blocks
            .iter()
            .filter_map(|(net, one)| Some((host(one)?.to_owned(), *net)))
            .filter(|(node, _)| !facts.has_node(node))
            .collect();
        for one in inventory.affinities.iter().filter(|one| is_of_host(one)) {
            let (node, name) = (&one.spec.node, &one.metadata.name);
            let Ok(net) = one.spec.cidr.parse::<IpNet>() else { continue };
            if !facts.has_node(node) {
                dead.insert((node.clone(), net));
                continue;
            }
            let owns = owner(&net) == Some(&affinity::of_host(node));
            let mark = one.metadata.resource_version.clone();
            let text = mark.clone().unwrap_or_default();
            let left_over = !owns || one.spec.deleted;
            let ending = one.spec.state == AffinityState::PendingDeletion;
            if (left_over || ending)
                && self.is_due(Subject::Affinity(name.clone()), text, self.rules.grace)
            {
                if left_over {
                    plan.affinities.push((name.clone(), mark));
                } else if let Some(found) = blocks.get(&net) {
                    let if_empty_at = Some(found.spec.sequence_number);
                    plan.blocks.push(BlockRelease { node: node.clone(), block: net, if_empty_at });
                }
            }
        }
        for (node, net) in dead.into_iter().filter(|(_, net)| !is_needed(net)) {
            let subject = Subject::Affinity(affinity::object_name(&node, &net));
            if self.is_due(subject, String::new(), Some(self.rules.settle)) {
                plan.blocks.push(BlockRelease { node, block: net, if_empty_at: None });
            }
        }
        self.misfits(&blocks, plan);
        self.idle_blocks(inventory, facts, &blocks, plan);
    }

    /// Finds empty blocks that overlap another or that nobody owns.
    fn misfits(&mut self, blocks: &BTreeMap<IpNet, &IpamBlock>, plan: &mut ReleasePlan) {
        let mut space = Space::default();
        for one in blocks.values() {
            space.put(one);
        }
        for (net, one) in blocks.iter().filter(|(_, one)| block::is_empty(&one.spec)) {
            let ownerless = one.spec.affinity.is_none();
            if !ownerless && space.overlapping(net).is_none() {
                continue;
            }
            let sequence = one.spec.sequence_number;
            let subject = Subject::Misfit(net.to_string());
            if !self.is_due(subject, sequence.to_string(), Some(self.rules.settle)) {
                continue;
            }
            if ownerless {
                plan.tidy.push(*net);
            } else if let Some(node) = host(one) {
                // Of two empty ones the first goes; the other no longer overlaps then.
                space.remove(&one.metadata.name);
                plan.blocks.push(BlockRelease {
                    node: node.to_owned(),
                    block: *net,
                    if_empty_at: Some(sequence),
                });
            }
        }
    }

    /// Finds empty blocks of nodes that have others of the family, and those that give no addresses any more: their pool is gone or disabled.
    fn idle_blocks(
        &mut self,
        inventory: &Inventory<'_>,
        facts: &Facts<'_>,
        blocks: &BTreeMap<IpNet, &IpamBlock>,
        plan: &mut ReleasePlan,
    ) {
        let confirmed = inventory.affinities.iter().filter(|one| is_of_host(one));
        let confirmed: BTreeSet<(&str, IpNet)> = confirmed
            .filter(|one| affinity::is_confirmed(&one.spec))
            .filter_map(|one| Some((one.spec.node.as_str(), one.spec.cidr.parse().ok()?)))
            .collect();
        let mut of_node: BTreeMap<(&str, Family), Vec<(IpNet, &IpamBlock)>> = BTreeMap::new();
        for (net, one) in blocks {
            let Some(node) = host(one).filter(|node| facts.has_node(node)) else { continue };
            if confirmed.contains(&(node, *net)) {
                let family = Family::of(net.network());
                of_node.entry((node, family)).or_default().push((*net, one));
            }
        }
        for ((node, _), own) in of_node {
            let (useful, useless): (Vec<_>, Vec<_>) =
                own.into_iter().partition(|(net, _)| inventory.gives_addresses(net));
            let is_empty = |(_, one): &&(IpNet, &IpamBlock)| block::is_empty(&one.spec);
            // Each node keeps one block: one with addresses, or its first.
            let spared = usize::from(useful.iter().all(|one| is_empty(&one)));
            let spare = useful.iter().filter(is_empty).skip(spared);
            let spare = spare.filter(|_| self.rules.spare_blocks);
            let idle: Vec<_> = useless.iter().filter(is_empty).chain(spare).collect();
            for (net, one) in idle {
                let sequence = one.spec.sequence_number;
                let subject = Subject::Block(net.to_string());
                if self.is_due(subject, sequence.to_string(), Some(self.rules.settle)) {
                    plan.blocks.push(BlockRelease {
                        node: node.to_owned(),
                        block: *net,
                        if_empty_at: Some(sequence),
                    });
                }
            }
        }
    }
}

/// Returns the blocks with addresses that cooled down.
pub(super) fn rested(inventory: &Inventory<'_>, cooldown: Cooldown) -> Vec<IpNet> {
    let cooling = inventory.blocks.iter().filter(|one| {
        !one.spec.deleted && one.spec.attributes.iter().any(|owner| owner.released_at.is_some())
    });
    let rested = cooling.filter(|one| block::thaw(&mut one.spec.clone(), cooldown));
    rested.filter_map(|one| block::cidr(&one.spec)).collect()
}

fn host(block: &IpamBlock) -> Option<&str> {
    block.spec.affinity.as_deref()?.strip_prefix("host:")
}

fn is_of_host(affinity: &BlockAffinity) -> bool {
    affinity.spec.affinity_type.as_deref().unwrap_or("host") == "host"
}
