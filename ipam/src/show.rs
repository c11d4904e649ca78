//! How full pools and blocks are. Pure.

use api::{IpPool, IpReservation, IpamBlock};
use ipnet::IpNet;

use crate::{block, ordinal, pool::Reservations};

/// A pool or block and its addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Usage {
    /// The prefix.
    pub cidr: IpNet,
    /// Owner of a block, such as `host:node-1`.
    pub affinity: Option<String>,
    /// Addresses in all.
    pub total: u128,
    /// Assigned.
    pub in_use: u128,
    /// Free, and left alone by automatic assignment.
    pub reserved: u128,
    /// Assigned to pods of other nodes than the owner.
    pub borrowed: u128,
}

impl Usage {
    /// Returns how many addresses can be assigned.
    #[must_use]
    pub fn free(&self) -> u128 {
        self.total.saturating_sub(self.in_use + self.reserved)
    }
}

/// A pool with its blocks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolUsage {
    /// Name of the pool.
    pub name: String,
    /// The pool itself.
    pub usage: Usage,
    /// Its blocks in address order.
    pub blocks: Vec<Usage>,
}

/// Computes the usage of every pool, by name.
#[must_use]
pub fn usage(
    pools: &[IpPool],
    blocks: &[IpamBlock],
    reservations: &[IpReservation],
) -> Vec<PoolUsage> {
    let reserved = Reservations::read(reservations);
    let mut used: Vec<Usage> = blocks.iter().filter_map(|one| of_block(one, &reserved)).collect();
    used.sort_by_key(|one| (one.cidr.addr().is_ipv6(), ordinal::number(one.cidr.network())));
    let mut result: Vec<PoolUsage> = pools
        .iter()
        .filter_map(|pool| {
            let cidr: IpNet = pool.spec.cidr.parse().ok()?;
            let blocks: Vec<Usage> =
                used.iter().filter(|one| cidr.contains(&one.cidr)).cloned().collect();
            let sum = |part: fn(&Usage) -> u128| blocks.iter().map(part).sum();
            let bits = u32::from(cidr.max_prefix_len()) - u32::from(cidr.prefix_len());
            let usage = Usage {
                cidr,
                affinity: None,
                total: 1_u128.checked_shl(bits).unwrap_or(u128::MAX),
                in_use: sum(|one| one.in_use),
                reserved: sum(|one| one.reserved),
                borrowed: sum(|one| one.borrowed),
            };
            Some(PoolUsage { name: pool.metadata.name.clone(), usage, blocks })
        })
        .collect();
    result.sort_by(|a, b| a.name.cmp(&b.name));
    result
}

fn of_block(one: &IpamBlock, reserved: &Reservations) -> Option<Usage> {
    let cidr = block::cidr(&one.spec)?;
    let count = |number: usize| u128::try_from(number).unwrap_or_default();
    let owner = one.spec.affinity.as_deref().and_then(|text| text.strip_prefix("host:"));
    let foreign = |node: Option<&String>| node.is_some_and(|node| Some(node.as_str()) != owner);
    let held_back = one
        .spec
        .unallocated
        .iter()
        .filter_map(|free| ordinal::address(&cidr, *free))
        .filter(|address| reserved.contains(*address));
    Some(Usage {
        cidr,
        affinity: one.spec.affinity.clone(),
        total: count(one.spec.allocations.len()),
        in_use: count(block::assigned(&one.spec).count()),
        reserved: count(held_back.count()),
        borrowed: count(
            block::assigned(&one.spec)
                .filter(|(_, owner)| foreign(owner.secondary.get("node")))
                .count(),
        ),
    })
}
