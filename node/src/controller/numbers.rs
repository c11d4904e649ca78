//! What the metrics count, under the names that Calico's kube-controllers use. Pure.

use std::collections::BTreeMap;

use api::{IpPool, IpReservation, IpamBlock};
use bgp::report::Exposition;
use ipnet::IpNet;

/// Pool and node.
type Place = (String, String);

/// Counts of one look.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Numbers {
    in_use: BTreeMap<Place, u64>,
    borrowed: BTreeMap<Place, u64>,
    blocks: BTreeMap<Place, u64>,
    pools: BTreeMap<String, (u128, u128)>,
    candidates: BTreeMap<String, usize>,
    reclaimed: BTreeMap<String, u64>,
}

/// For blocks without an owner, and addresses without a node.
const NOBODY: &str = "no_affinity";
/// For blocks outside every pool.
const NO_POOL: &str = "no_ippool";

impl Numbers {
    /// Counts blocks and addresses.
    pub(crate) fn count<'a>(
        blocks: &[&IpamBlock],
        pools: impl Iterator<Item = &'a IpPool>,
        reservations: impl Iterator<Item = &'a IpReservation>,
    ) -> Self {
        let mut numbers = Self::default();
        let pools: Vec<(&str, IpNet)> = pools
            .filter_map(|pool| Some((pool.metadata.name.as_str(), pool.spec.cidr.parse().ok()?)))
            .collect();
        let reserved: Vec<IpNet> = reservations
            .flat_map(|one| &one.spec.reserved_cidrs)
            .filter_map(|text| api::net::parse_net(text).ok())
            .collect();
        for (name, net) in &pools {
            let sizes = (size(net), overlap(net, &reserved));
            numbers.pools.insert((*name).to_owned(), sizes);
        }
        for block in blocks.iter().filter(|block| !block.spec.deleted) {
            let Some(net) = ipam::block::cidr(&block.spec) else { continue };
            let pool = pools.iter().find(|(_, pool)| pool.contains(&net));
            let pool = pool.map_or(NO_POOL, |(name, _)| *name).to_owned();
            let affinity = block.spec.affinity.as_deref();
            let owner = affinity.map(|text| text.strip_prefix("host:").unwrap_or(text));
            let owner = owner.unwrap_or(NOBODY).to_owned();
            *numbers.blocks.entry((pool.clone(), owner.clone())).or_default() += 1;
            for (_, one) in ipam::block::assigned(&block.spec) {
                let node = one.secondary.get("node").map_or(NOBODY, String::as_str).to_owned();
                if node != owner {
                    *numbers.borrowed.entry((pool.clone(), node.clone())).or_default() += 1;
                }
                *numbers.in_use.entry((pool.clone(), node)).or_default() += 1;
            }
        }
        numbers
    }

    /// Takes in how many addresses of each node look unused.
    pub(crate) fn observe(&mut self, candidates: &BTreeMap<String, usize>) {
        self.candidates.clone_from(candidates);
    }

    /// Hands over the counter of released addresses.
    pub(crate) fn take_reclaimed(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.reclaimed)
    }

    /// Goes on with a counter, for the addresses released now.
    pub(crate) fn reclaim<'a>(
        &mut self,
        before: BTreeMap<String, u64>,
        nodes: impl Iterator<Item = Option<&'a String>>,
    ) {
        self.reclaimed = before;
        for node in nodes {
            let node = node.map_or(NOBODY, String::as_str).to_owned();
            *self.reclaimed.entry(node).or_default() += 1;
        }
    }

    /// Writes them down.
    pub(crate) fn render(&self, text: &mut Exposition) {
        let families = [
            ("ipam_allocations_in_use", "Addresses in use.", &self.in_use),
            ("ipam_allocations_borrowed", "Of these, out of another node's block.", &self.borrowed),
            ("ipam_blocks", "Blocks.", &self.blocks),
        ];
        for (name, help, counts) in families {
            text.family(name, "gauge", help);
            for ((pool, node), count) in counts {
                text.sample(name, &[("ippool", pool), ("node", node)], count);
            }
        }
        let families = [
            ("ipam_allocations_per_node", "Addresses in use.", &self.in_use),
            ("ipam_allocations_borrowed_per_node", "Of these, borrowed.", &self.borrowed),
            ("ipam_blocks_per_node", "Blocks.", &self.blocks),
        ];
        for (name, help, counts) in families {
            text.family(name, "gauge", help);
            let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
            for ((_, node), count) in counts {
                *sums.entry(node).or_default() += count;
            }
            for (node, count) in sums {
                text.sample(name, &[("node", node)], count);
            }
        }
        let name = "ipam_allocations_gc_candidates";
        text.family(name, "gauge", "Addresses that look unused.");
        for (node, count) in &self.candidates {
            text.sample(name, &[("node", node)], count);
        }
        let name = "ipam_allocations_gc_reclamations";
        text.family(name, "counter", "Addresses released because nobody used them.");
        for (node, count) in &self.reclaimed {
            text.sample(name, &[("node", node)], count);
        }
        text.family("ipam_ippool_size", "gauge", "Addresses in a pool.");
        for (pool, (size, _)) in &self.pools {
            text.sample("ipam_ippool_size", &[("ippool", pool)], size);
        }
        text.family("ipam_ippool_reserved", "gauge", "Addresses in a pool that are reserved.");
        for (pool, (_, reserved)) in &self.pools {
            text.sample("ipam_ippool_reserved", &[("ippool", pool)], reserved);
        }
    }
}

/// First and last address as numbers.
fn bounds(net: &IpNet) -> (u128, u128) {
    let number = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => u128::from(u32::from(v4)),
        std::net::IpAddr::V6(v6) => u128::from(v6),
    };
    (number(net.network()), number(net.broadcast()))
}

fn size(net: &IpNet) -> u128 {
    let (first, last) = bounds(net);
    (last - first).saturating_add(1)
}

/// How many addresses of `net` are in at least one of the others.
fn overlap(net: &IpNet, others: &[IpNet]) -> u128 {
    let (first, last) = bounds(net);
    let same_family = |other: &&IpNet| other.addr().is_ipv4() == net.addr().is_ipv4();
    let clipped = others.iter().filter(same_family).map(bounds);
    let mut clipped: Vec<(u128, u128)> =
        clipped.map(|(from, to)| (from.max(first), to.min(last))).filter(|(a, b)| a <= b).collect();
    clipped.sort_unstable();
    let (mut count, mut next) = (0_u128, Some(first));
    for (from, to) in clipped {
        let Some(begin) = next else { break };
        let begin = begin.max(from);
        if begin <= to {
            count = count.saturating_add(to - begin).saturating_add(1);
            next = to.checked_add(1);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_addresses_are_counted_once() {
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let pool = "10.0.0.0/24".parse().unwrap();
        assert_eq!(size(&pool), 256);
        assert_eq!(overlap(&pool, &nets(&[])), 0);
        assert_eq!(overlap(&pool, &nets(&["10.0.0.0/28", "10.0.0.8/29", "10.0.0.255/32"])), 17);
        assert_eq!(overlap(&pool, &nets(&["10.0.0.0/8", "fd00::/8"])), 256);
        assert_eq!(overlap(&pool, &nets(&["10.0.1.0/24"])), 0);
        assert_eq!(size(&"::/0".parse().unwrap()), u128::MAX);
    }
}
