//! `voilectl ipam release` and `configure`.

use std::net::IpAddr;

use anyhow::{Result, bail};
use api::{IpamConfiguration, IpamConfigurationSpec, Key, Pod, Resource as _};
use ipam::Allocator;
use store::{Store, StoreError};

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
/// An address that is in no block or in use, and whatever the API server answers.
pub(super) async fn release<S: Store>(context: &Context<S>, ip: IpAddr) -> Result<Outcome> {
    if let Some(pod) = holder(context, ip).await? {
        bail!("{ip} belongs to pod {pod}, which exists; delete the pod instead");
    }
    let inventory = Inventory::load(context).await?;
    let Some(block) = inventory.block_of(ip) else {
        bail!("{ip} is in no block: nothing has it");
    };
    let taken = block.taken().find(|taken| taken.address == ip);
    let nothing = || Outcome::ok(format!("{ip} is not assigned: nothing to release\n"));
    let Some(taken) = taken else { return Ok(nothing()) };
    // The handle guards against a new owner that came between reading and releasing.
    let allocator = Allocator::new(context.store.clone(), "voilectl");
    if allocator.release_ip(ip, taken.handle, None).await?.is_empty() {
        return Ok(nothing());
    }
    Ok(Outcome::ok(format!("{ip} released; it belonged to {}\n", taken.owner())))
}

/// The pod that has an address, if it runs.
async fn holder<S: Store>(context: &Context<S>, ip: IpAddr) -> Result<Option<Key>> {
    let pods = context.list::<Pod>().await?;
    let found = pods.items.iter().find(|pod| super::fsck::addresses(pod).contains(&ip));
    Ok(found.map(|pod| pod.key()))
}

/// Runs `configure`.
///
/// # Errors
/// A change that Calico refuses too, and whatever the API server answers.
pub(super) async fn configure<S: Store>(
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
        spec.auto_allocate_blocks = args.auto_allocate_blocks.unwrap_or(spec.auto_allocate_blocks);
        spec.ip_cooldown_seconds = args.ip_cooldown_seconds.or(spec.ip_cooldown_seconds);
        if let Some(state) = &args.kubevirt_ip_persistence {
            let state = serde_json::from_value(serde_json::Value::String(state.clone()))?;
            spec.kube_virt_vm_address_persistence = Some(state);
        }
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
                return Ok(Outcome::ok(told(&spec)));
            }
            Err(StoreError::Conflict { .. } | StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the IPAMConfiguration keeps changing; try again")
}

fn told(spec: &IpamConfigurationSpec) -> String {
    let mut text = format!(
        "IPAMConfiguration/default configured: strictAffinity={} maxBlocksPerHost={}",
        spec.strict_affinity, spec.max_blocks_per_host
    );
    if !spec.auto_allocate_blocks {
        text.push_str(" autoAllocateBlocks=false");
    }
    if let Some(seconds) = spec.ip_cooldown_seconds {
        text.push_str(&format!(" ipCooldownSeconds={seconds}"));
    }
    if let Some(state) = spec.kube_virt_vm_address_persistence {
        text.push_str(&format!(" kubeVirtVMAddressPersistence={state:?}"));
    }
    text.push('\n');
    text
}
