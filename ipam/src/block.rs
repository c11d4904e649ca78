//! A block: who has which address. Pure; the caller writes the result with compare-and-swap.
//!
//! Calico `ipam_block.go`: free ordinals are taken from the head of `unallocated` and come back at its tail, attributes
//! are shared by equal owners and dropped when nobody refers to them.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use api::{AllocationAttribute, IpamBlock, IpamBlockSpec};
use ipnet::IpNet;

use crate::{clock::UnixNanos, ordinal, pool::Reservations};

/// Why a certain address could not be taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TakeError {
    /// Outside this block.
    #[error("{0} is not in this block")]
    Outside(IpAddr),
    /// Someone has it.
    #[error("{0} is in use")]
    InUse(IpAddr),
}

/// Makes an empty block, not stored yet. The sequence number starts at the time of creation, so that a block created
/// again never repeats one.
#[must_use]
pub fn empty(cidr: &IpNet, affinity: Option<&str>, now: UnixNanos) -> IpamBlock {
    let size = ordinal::size(cidr).unwrap_or_default();
    let spec = IpamBlockSpec {
        cidr: cidr.to_string(),
        affinity: affinity.map(str::to_owned),
        affinity_claim_time: affinity.map(|_| now.rfc3339()),
        allocations: (0..size).map(|_| None).collect(),
        unallocated: (0..size).collect(),
        sequence_number: now.0,
        ..IpamBlockSpec::default()
    };
    IpamBlock::new(api::cidr_name(cidr), spec)
}

/// Returns the block's prefix; `None` when it is unreadable or too large.
#[must_use]
pub fn cidr(block: &IpamBlockSpec) -> Option<IpNet> {
    let cidr: IpNet = block.cidr.parse().ok()?;
    ordinal::size(&cidr).map(|_| cidr.trunc())
}

/// Returns whether no address is assigned.
#[must_use]
pub fn is_empty(block: &IpamBlockSpec) -> bool {
    block.allocations.iter().all(Option::is_none)
}

/// Returns every assigned address with its owner.
pub fn assigned(
    block: &IpamBlockSpec,
) -> impl Iterator<Item = (IpAddr, &AllocationAttribute)> + '_ {
    let cidr = cidr(block);
    block.allocations.iter().zip(0_u32..).filter_map(move |(index, ordinal)| {
        let attribute = block.attributes.get(usize::try_from((*index)?).ok()?)?;
        Some((ordinal::address(&cidr?, ordinal)?, attribute))
    })
}

/// Returns the addresses of a handle.
#[must_use]
pub fn of_handle(block: &IpamBlockSpec, handle: &str) -> Vec<IpAddr> {
    assigned(block)
        .filter(|(_, owner)| owner.handle_id.as_deref() == Some(handle))
        .map(|(address, _)| address)
        .collect()
}

/// Counts the addresses that automatic assignment may take.
#[must_use]
pub fn room(block: &IpamBlockSpec, reservations: &Reservations) -> usize {
    match cidr(block) {
        Some(net) if reservations.touch(&net) => {
            let addresses = block.unallocated.iter().filter_map(|one| ordinal::address(&net, *one));
            addresses.filter(|address| !reservations.contains(*address)).count()
        }
        Some(_) => block.unallocated.len(),
        None => 0,
    }
}

/// Returns the sequence number at which an address was assigned.
#[must_use]
pub fn sequence_of(block: &IpamBlockSpec, address: IpAddr) -> Option<u64> {
    let ordinal = ordinal::ordinal(&cidr(block)?, address)?;
    block.sequence_number_for_allocation.get(&ordinal.to_string()).copied()
}

/// Takes the first free address that `skip` lets pass.
pub fn take_any(
    block: &mut IpamBlockSpec,
    owner: &AllocationAttribute,
    skip: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let cidr = cidr(block)?;
    let (place, ordinal, address) =
        block.unallocated.iter().enumerate().find_map(|(place, ordinal)| {
            let address = ordinal::address(&cidr, *ordinal)?;
            (!skip(address)).then_some((place, *ordinal, address))
        })?;
    block.unallocated.remove(place);
    record(block, ordinal, owner);
    Some(address)
}

/// Takes one certain address.
pub fn take(
    block: &mut IpamBlockSpec,
    address: IpAddr,
    owner: &AllocationAttribute,
) -> Result<(), TakeError> {
    let ordinal = cidr(block)
        .and_then(|cidr| ordinal::ordinal(&cidr, address))
        .ok_or(TakeError::Outside(address))?;
    let place = block.unallocated.iter().position(|free| *free == ordinal);
    block.unallocated.remove(place.ok_or(TakeError::InUse(address))?);
    record(block, ordinal, owner);
    Ok(())
}

fn record(block: &mut IpamBlockSpec, ordinal: u32, owner: &AllocationAttribute) {
    let known = block.attributes.iter().position(|attribute| attribute == owner);
    let index = known.unwrap_or_else(|| {
        block.attributes.push(owner.clone());
        block.attributes.len() - 1
    });
    let slot = usize::try_from(ordinal).ok().and_then(|at| block.allocations.get_mut(at));
    if let Some(slot) = slot {
        *slot = u32::try_from(index).ok();
        // The value before this write's increment, as Calico records it.
        let sequence = block.sequence_number;
        block.sequence_number_for_allocation.insert(ordinal.to_string(), sequence);
    }
}

/// What becomes of a released address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cooldown {
    /// The time of the release.
    pub now: UnixNanos,
    /// How long an address rests before somebody else gets it (`ipCooldownSeconds`); zero frees it at once.
    pub rest: Duration,
}

impl Cooldown {
    /// Frees addresses at once.
    #[must_use]
    pub fn none(now: UnixNanos) -> Self {
        Self { now, rest: Duration::ZERO }
    }
}

/// Releases every address for which `wanted` says so, and returns them with their former owners. With a cool-down they stay
/// allocated, to nobody, until [`thaw`] finds that they rested long enough.
pub fn release(
    block: &mut IpamBlockSpec,
    cooldown: Cooldown,
    wanted: impl Fn(IpAddr, &AllocationAttribute) -> bool,
) -> Vec<(IpAddr, AllocationAttribute)> {
    let released: Vec<_> = assigned(block)
        .filter(|(address, owner)| owner.released_at.is_none() && wanted(*address, owner))
        .map(|(address, owner)| (address, owner.clone()))
        .collect();
    let (Some(cidr), false) = (cidr(block), released.is_empty()) else { return released };
    let ordinals: Vec<u32> =
        released.iter().filter_map(|(address, _)| ordinal::ordinal(&cidr, *address)).collect();
    if cooldown.rest.is_zero() {
        for ordinal in ordinals {
            free(block, ordinal);
        }
        drop_unused_attributes(block);
        return released;
    }
    let cooling = AllocationAttribute {
        released_at: Some(cooldown.now.rfc3339()),
        ..AllocationAttribute::default()
    };
    for ordinal in ordinals {
        record(block, ordinal, &cooling);
    }
    drop_unused_attributes(block);
    released
}

/// Frees addresses that cooled down. Returns whether there were any; the caller writes the block, now or with its next change.
pub fn thaw(block: &mut IpamBlockSpec, cooldown: Cooldown) -> bool {
    let Some(cidr) = cidr(block) else { return false };
    let rested = |owner: &AllocationAttribute| {
        // A time that nobody can read holds nothing back.
        let since = owner.released_at.as_deref().map(UnixNanos::parse_rfc3339);
        since.is_some_and(|since| {
            let age = cooldown.now.0.saturating_sub(since.unwrap_or_default().0);
            u128::from(age) >= cooldown.rest.as_nanos()
        })
    };
    let ordinals: Vec<u32> = assigned(block)
        .filter(|(_, owner)| rested(owner))
        .filter_map(|(address, _)| ordinal::ordinal(&cidr, address))
        .collect();
    for ordinal in &ordinals {
        free(block, *ordinal);
    }
    drop_unused_attributes(block);
    !ordinals.is_empty()
}

fn free(block: &mut IpamBlockSpec, ordinal: u32) {
    let slot = usize::try_from(ordinal).ok().and_then(|at| block.allocations.get_mut(at));
    if let Some(slot) = slot {
        *slot = None;
        block.unallocated.push(ordinal);
        block.sequence_number_for_allocation.remove(&ordinal.to_string());
    }
}

fn drop_unused_attributes(block: &mut IpamBlockSpec) {
    let used: BTreeSet<u32> = block.allocations.iter().flatten().copied().collect();
    let mut renumbered = std::collections::BTreeMap::new();
    let mut kept = Vec::new();
    for (attribute, index) in std::mem::take(&mut block.attributes).into_iter().zip(0_u32..) {
        if used.contains(&index) {
            renumbered.insert(index, u32::try_from(kept.len()).unwrap_or(u32::MAX));
            kept.push(attribute);
        }
    }
    block.attributes = kept;
    for slot in block.allocations.iter_mut().flatten() {
        *slot = renumbered.get(slot).copied().unwrap_or(*slot);
    }
}

/// Returns what is wrong with a block in itself; empty when nothing is.
#[must_use]
pub fn defects(block: &IpamBlockSpec) -> Vec<String> {
    let Some(cidr) = cidr(block) else {
        return vec![format!("cidr {:?} is not that of a block", block.cidr)];
    };
    let mut defects = Vec::new();
    let size = ordinal::size(&cidr).unwrap_or_default();
    if block.allocations.len() != usize::try_from(size).unwrap_or(usize::MAX) {
        defects.push(format!("{} allocations instead of {size}", block.allocations.len()));
    }
    let mut free = BTreeSet::new();
    for ordinal in &block.unallocated {
        if *ordinal >= size {
            defects.push(format!("unallocated ordinal {ordinal} is beyond the end"));
        }
        if !free.insert(*ordinal) {
            defects.push(format!("ordinal {ordinal} is unallocated twice"));
        }
    }
    for (slot, ordinal) in block.allocations.iter().zip(0_u32..) {
        match slot {
            Some(_) if free.contains(&ordinal) => {
                defects.push(format!("ordinal {ordinal} is both allocated and unallocated"));
            }
            None if !free.contains(&ordinal) => {
                defects.push(format!("ordinal {ordinal} is neither allocated nor unallocated"));
            }
            Some(index)
                if usize::try_from(*index).map_or(true, |at| at >= block.attributes.len()) =>
            {
                defects
                    .push(format!("ordinal {ordinal} has attribute {index}, which does not exist"));
            }
            _ => {}
        }
    }
    defects
}
