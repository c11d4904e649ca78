//! `voilectl ipam release` and `configure`.

use std::net::IpAddr;

use anyhow::{Result, bail};
use api::{
    IpamBlock, IpamConfiguration, IpamConfigurationSpec, IpamHandle, Key, Pod, Resource as _,
};
use store::{DeletePreconditions, Store, StoreError, Stored};

use super::Inventory;
use crate::{
    cli::IpamConfigureArgs,
    cmd::{Context, Outcome},
};

/// How often a lost compare-and-swap is tried again.
const TRIES: usize = 10;

/// Runs `release`: refuses while a pod has the address.
///
/// # Errors
/// An address that is in no block, not assigned or in use; and whatever the API server answers.
pub async fn release<S: Store>(context: &Context<S>, ip: IpAddr) -> Result<Outcome> {
    if let Some(pod) = holder(context, ip).await? {
        bail!("{ip} belongs to pod {pod}, which exists; delete the pod instead");
    }
    for _ in 0..TRIES {
        let inventory = Inventory::load(context).await?;
        let Some(block) = inventory.block_of(ip) else {
            bail!("{ip} is in no block: nothing has it");
        };
        let Some(taken) = block.taken().find(|taken| taken.address == ip) else {
            return Ok(Outcome::ok(format!("{ip} is not assigned: nothing to release\n")));
        };
        let (owner, handle) = (taken.owner(), taken.handle.map(str::to_owned));
        let stored = context.store.get::<IpamBlock>(&block.object.key()).await?;
        if stored.spec != block.object.spec {
            continue;
        }
        match context.store.update(&without(stored, &block.net, ip)).await {
            Ok(_) => {}
            Err(StoreError::Conflict { .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        if let Some(handle) = handle {
            count_down(context, &handle, &block.net.to_string()).await?;
        }
        return Ok(Outcome::ok(format!("{ip} released; it belonged to {owner}\n")));
    }
    bail!("the block of {ip} keeps changing; try again")
}

/// The pod that has an address, if it runs.
async fn holder<S: Store>(context: &Context<S>, ip: IpAddr) -> Result<Option<Key>> {
    let pods = context.list::<Pod>().await?;
    let found = pods.items.iter().find(|pod| super::fsck::addresses(pod).contains(&ip));
    Ok(found.map(|pod| pod.key()))
}

/// Frees an ordinal as Calico does (`ipam_block.go`): to the end of the queue, and attributes that nobody uses go.
fn without(mut stored: Stored<IpamBlock>, net: &ipnet::IpNet, ip: IpAddr) -> Stored<IpamBlock> {
    let spec = &mut stored.spec;
    let found =
        (0..spec.allocations.len()).find(|ordinal| super::address_at(net, *ordinal) == Some(ip));
    let Some(ordinal) = found else { return stored };
    if let Some(slot) = spec.allocations.get_mut(ordinal) {
        *slot = None;
    }
    spec.unallocated.extend(u32::try_from(ordinal));
    spec.sequence_number_for_allocation.remove(&ordinal.to_string());
    spec.sequence_number = spec.sequence_number.wrapping_add(1);
    let mut kept = Vec::new();
    for (index, attribute) in std::mem::take(&mut spec.attributes).into_iter().enumerate() {
        let used = |slot: &&mut Option<u32>| {
            slot.and_then(|slot| usize::try_from(slot).ok()) == Some(index)
        };
        let mut slots = spec.allocations.iter_mut().filter(used).peekable();
        if slots.peek().is_some() {
            let new = u32::try_from(kept.len()).ok();
            // New indexes are never above old ones: a slot is not renumbered twice in a way that mixes owners up.
            slots.for_each(|slot| *slot = new);
            kept.push(attribute);
        }
    }
    spec.attributes = kept;
    stored
}

/// Takes one address of a block off a handle; the last one deletes it.
async fn count_down<S: Store>(context: &Context<S>, handle: &str, block: &str) -> Result<()> {
    let key = Key::cluster(handle.to_lowercase());
    for _ in 0..TRIES {
        let mut stored = match context.store.get::<IpamHandle>(&key).await {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match stored.spec.block.get_mut(block) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(stored.spec.block.remove(block)),
        }
        let result = if stored.spec.block.is_empty() {
            let preconditions = DeletePreconditions {
                uid: stored.metadata.uid.clone(),
                revision: Some(stored.revision()),
            };
            context.store.delete::<IpamHandle>(&key, &preconditions).await
        } else {
            context.store.update(&stored).await.map(drop)
        };
        match result {
            Ok(()) | Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!(
        "the address is free, but handle {handle} keeps changing; `voilectl ipam check` will tell"
    )
}

/// Runs `configure`.
///
/// # Errors
/// A change that Calico refuses too, and whatever the API server answers.
pub async fn configure<S: Store>(
    context: &Context<S>,
    args: &IpamConfigureArgs,
) -> Result<Outcome> {
    let key = Key::cluster("default");
    for _ in 0..TRIES {
        let existing = match context.store.get::<IpamConfiguration>(&key).await {
            Ok(stored) => Some(stored),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let mut spec =
            existing.as_ref().map_or_else(IpamConfigurationSpec::default, |e| e.spec.clone());
        spec.strict_affinity = args.strictaffinity.unwrap_or(spec.strict_affinity);
        spec.max_blocks_per_host = args.max_blocks_per_host.unwrap_or(spec.max_blocks_per_host);
        // Both rules are calicoctl's (`commands/ipam/configure.go`).
        if !spec.strict_affinity && !spec.auto_allocate_blocks {
            bail!(
                "strictAffinity=false needs autoAllocateBlocks=true, or nodes could borrow without owning a block"
            );
        }
        if spec.max_blocks_per_host > 0 && !spec.strict_affinity {
            bail!(
                "--max-blocks-per-host needs --strictaffinity true, or nodes would borrow past the limit"
            );
        }
        let result = match existing {
            Some(mut stored) => {
                stored.spec = spec.clone();
                context.store.update(&stored).await
            }
            None => context.store.create(&IpamConfiguration::new("default", spec.clone())).await,
        };
        match result {
            Ok(_) => {
                return Ok(Outcome::ok(format!(
                    "IPAMConfiguration/default configured: strictAffinity={} maxBlocksPerHost={}\n",
                    spec.strict_affinity, spec.max_blocks_per_host
                )));
            }
            Err(StoreError::Conflict { .. } | StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the IPAMConfiguration keeps changing; try again")
}
