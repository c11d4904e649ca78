//! Which pools a request may use, and in which order a node looks at a pool's blocks.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{AllowedUse, AssignmentMode, ConditionStatus, IpPool, Selector};
use ipnet::IpNet;

use crate::{Family, ordinal};

/// A pool that can be read.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Object name.
    pub name: String,
    /// Address space.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_prefix: u8,
    spec: api::IpPoolSpec,
    allocatable: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Labels of the node.
    pub node_labels: &'a BTreeMap<String, String>,
    /// Labels of the pod's namespace; `None` when there is no pod.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
    /// What the address is for.
    pub intended_use: AllowedUse,
}

impl Pool {
    /// Reads a pool. `Err` says why it cannot be used at all.
    pub fn read(pool: &IpPool) -> Result<Self, String> {
        let cidr = api::net::parse_cidr(&pool.spec.cidr).map_err(|error| error.to_string())?;
        let default = if cidr.addr().is_ipv4() { 26 } else { 122 };
        let block_prefix = pool.spec.block_size.filter(|size| *size > 0).unwrap_or(default);
        let usable = block_prefix >= cidr.prefix_len()
            && IpNet::new(cidr.addr(), block_prefix)
                .is_ok_and(|block| ordinal::size(&block).is_some());
        if !usable {
            return Err(format!("block size {block_prefix} does not fit {cidr}"));
        }
        let conditions = pool.status.iter().flat_map(|status| &status.conditions);
        let allocatable = !conditions.clone().any(|condition| {
            condition.condition_type == "Allocatable" && condition.status == ConditionStatus::False
        });
        Ok(Self {
            name: pool.metadata.name.clone(),
            cidr,
            block_prefix,
            spec: pool.spec.clone(),
            allocatable: allocatable && pool.metadata.deletion_timestamp.is_none(),
        })
    }

    /// Returns the family of the pool.
    #[must_use]
    pub fn family(&self) -> Family {
        if self.cidr.addr().is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Says whether the pool's blocks are for this node.
    #[must_use]
    pub fn is_for_node(&self, labels: &BTreeMap<String, String>) -> bool {
        selects(&self.spec.node_selector, labels).unwrap_or(true)
    }

    /// Says why no address may come from this pool even when it is asked for by name.
    pub fn usable(&self, intended_use: AllowedUse) -> Result<(), &'static str> {
        let default_uses = [AllowedUse::Workload, AllowedUse::Tunnel];
        let uses = if self.spec.allowed_uses.is_empty() {
            &default_uses[..]
        } else {
            &self.spec.allowed_uses
        };
        if self.spec.disabled {
            return Err("is disabled");
        }
        if !self.allocatable {
            return Err("is not allocatable, see its status");
        }
        if !uses.contains(&intended_use) {
            return Err("does not allow this use, see allowedUses");
        }
        Ok(())
    }

    /// Says why the pool is not one that is used without being asked for.
    pub fn automatic(&self, asker: &Asker<'_>) -> Result<(), &'static str> {
        self.usable(asker.intended_use)?;
        if self.spec.assignment_mode == AssignmentMode::Manual {
            return Err("has assignmentMode Manual");
        }
        if !selects(&self.spec.node_selector, asker.node_labels)? {
            return Err("does not select this node");
        }
        match (&self.spec.namespace_selector, asker.namespace_labels) {
            (Some(selector), Some(labels)) if !selects(selector, labels)? => {
                Err("does not select the namespace")
            }
            _ => Ok(()),
        }
    }
}

fn selects(text: &str, labels: &BTreeMap<String, String>) -> Result<bool, &'static str> {
    let selector = Selector::parse(text).map_err(|_| "has a selector that cannot be read")?;
    Ok(selector.matches_labels(labels))
}

/// Pools to use, and why the others are not.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// To use, in this order.
    pub pools: Vec<Pool>,
    /// Not to use: name and reason.
    pub refused: Vec<(String, String)>,
}

/// Chooses pools of a family: the requested ones as they are (by name or CIDR), else those meant for everybody.
#[must_use]
pub fn select<'a>(
    pools: impl IntoIterator<Item = &'a IpPool>,
    family: Family,
    requested: &[String],
    asker: &Asker<'_>,
) -> Selection {
    let mut selection = Selection::default();
    let mut found = vec![false; requested.len()];
    for object in pools {
        let pool = match Pool::read(object) {
            Ok(pool) => pool,
            Err(why) => {
                selection.refused.push((object.metadata.name.clone(), why));
                continue;
            }
        };
        let wanted = requested
            .iter()
            .position(|wanted| *wanted == pool.name || wanted.parse() == Ok(pool.cidr));
        if let Some(found) = wanted.and_then(|at| found.get_mut(at)) {
            *found = true;
        }
        if pool.family() != family || (!requested.is_empty() && wanted.is_none()) {
            continue;
        }
        let verdict = if requested.is_empty() {
            pool.automatic(asker)
        } else {
            pool.usable(asker.intended_use)
        };
        match verdict {
            Ok(()) => selection.pools.push(pool),
            Err(why) => selection.refused.push((pool.name, why.to_owned())),
        }
    }
    if !requested.is_empty() {
        let rank = |pool: &Pool| {
            requested.iter().position(|text| *text == pool.name || text.parse() == Ok(pool.cidr))
        };
        selection.pools.sort_by_key(rank);
    }
    let missing = requested.iter().zip(found).filter(|(_, found)| !found);
    selection.refused.extend(missing.map(|(name, _)| (name.clone(), "does not exist".to_owned())));
    selection
}

/// Returns the first block of a pool that nothing takes, in the order in which a node looks: from a place that depends on its
/// name (FNV-32, as Calico seeds it), to the end, then from the beginning. Another attempt begins elsewhere: nodes that lost the
/// same race part. `taken` says what takes a block; all that lies in that prefix is passed over at once.
pub fn first_block(
    pool: &Pool,
    node: &str,
    attempt: u8,
    taken: impl Fn(&IpNet) -> Option<IpNet>,
) -> Option<IpNet> {
    let (prefix, base) = (pool.block_prefix, pool.cidr.network());
    let block_bits = u32::from(pool.cidr.max_prefix_len().saturating_sub(prefix));
    let count_bits = u32::from(prefix.saturating_sub(pool.cidr.prefix_len())).min(64);
    let count = 1_u128 << count_bits;
    let seed = match attempt {
        0 => node_seed(node),
        attempt => fnv32(&[node.as_bytes(), &[attempt], node.as_bytes()].concat()),
    };
    let start = u128::from(seed) % count;
    let mut index = 0;
    while index < count {
        let position = (start + index) % count;
        let net = IpNet::new(ordinal::offset(base, position << block_bits), prefix).ok()?;
        let Some(by) = taken(&net) else { return Some(net) };
        let distance = ordinal::number(by.broadcast()).saturating_sub(ordinal::number(base));
        let last = (distance >> block_bits).clamp(position, count - 1);
        index += last - position + 1;
    }
    None
}

/// Returns the number by which a node begins elsewhere than others.
#[must_use]
pub fn node_seed(node: &str) -> u32 {
    fnv32(node.as_bytes())
}

/// FNV-1, 32 bits (Go `fnv.New32`).
fn fnv32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |hash, byte| hash.wrapping_mul(16_777_619) ^ u32::from(*byte))
}

/// Reserved addresses, which automatic assignment leaves alone: sorted, disjoint prefixes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reservations(Vec<IpNet>);

impl Reservations {
    /// Reads reservations; unreadable entries reserve nothing.
    pub fn read<'a>(reservations: impl IntoIterator<Item = &'a api::IpReservation>) -> Self {
        let texts = reservations.into_iter().flat_map(|one| &one.spec.reserved_cidrs);
        let nets: Vec<IpNet> = texts.filter_map(|text| api::net::parse_net(text).ok()).collect();
        Self(IpNet::aggregate(&nets))
    }

    /// Returns the last prefix that begins at or before an address: the only one that can hold it.
    fn before(&self, address: IpAddr) -> Option<&IpNet> {
        let after = self.0.partition_point(|net| net.network() <= address);
        self.0.get(after.checked_sub(1)?)
    }

    /// Returns whether an address is reserved.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.before(address).is_some_and(|net| net.contains(&address))
    }

    /// Returns the reservation of every address of a block.
    #[must_use]
    pub fn covering(&self, block: &IpNet) -> Option<IpNet> {
        self.before(block.network()).filter(|net| net.contains(block)).copied()
    }

    /// Returns whether some address of a block is reserved.
    #[must_use]
    pub fn touch(&self, block: &IpNet) -> bool {
        self.before(block.broadcast()).is_some_and(|net| ordinal::overlap(net, block))
    }
}
