//! Carries out a plan. Everything is read again first; what changed meanwhile is left for the next observation.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{AllocationAttribute, BlockAffinity, IpamHandle, Key, Node, Pod};
use ipnet::IpNet;
use store::{Store, StoreError, Stored};

use super::{
    HandleRelease, HandleRepair, Inventory, ReleasePlan, is_of_machine, machines, verdict::Facts,
};
use crate::{
    Clock,
    block::{self, Cooldown},
    datastore::{
        Authority, Ending, GiveBack, delete_as_read, find, find_block, may_retry, pause,
        release_claim, save_block, settle_handle,
    },
    handle,
    memory::{self, Frame},
};

/// How often a write is tried when others win or the datastore does not answer.
const TRIES: u32 = 6;

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Addresses that were released.
    pub addresses: Vec<IpAddr>,
    /// Blocks that their nodes lost.
    pub blocks: Vec<IpNet>,
    /// Claims that owned nothing and are gone.
    pub affinities: Vec<String>,
    /// Handles that agree with the blocks again.
    pub handles: Vec<String>,
    /// Of what, and why it was not done. The next plan tries again.
    pub errors: Vec<(String, StoreError)>,
}

/// Releases what a plan says, unless it changed meanwhile. Goes on after errors.
pub async fn apply<S: Store>(store: &S, plan: &ReleasePlan, clock: &Clock) -> Applied {
    apply_patiently(store, plan, clock, TRIES).await
}

/// Like [`apply`], with so many repetitions of a write that fails.
pub(crate) async fn apply_patiently<S: Store>(
    store: &S,
    plan: &ReleasePlan,
    clock: &Clock,
    tries: u32,
) -> Applied {
    let mut applied = Applied::default();
    // What was done decides about nothing that is still to be done.
    let part = Frame::enter();
    let cooldown = || Cooldown { now: clock.now(), rest: plan.cooldown };
    for net in &plan.tidy {
        part.remembers(|| format!("tidy {:?}", net));
        if let Err(error) = tidy(store, net, cooldown()).await {
            applied.errors.push((format!("block {net}"), error));
        }
    }
    for release in &plan.handles {
        part.remembers(|| format!("handles {:?}", release));
        match release_handle(store, release, cooldown(), tries).await {
            Ok(addresses) => applied.addresses.extend(addresses),
            Err(error) => applied.errors.push((format!("handle {}", release.handle), error)),
        }
    }
    for one in &plan.blocks {
        part.remembers(|| format!("blocks {:?}", one));
        let result = release_block(store, one, tries).await;
        match result {
            Ok(true) => applied.blocks.push(one.block),
            Ok(false) => {}
            Err(error) => applied.errors.push((format!("block {}", one.block), error)),
        }
    }
    for (name, revision) in &plan.affinities {
        part.remembers(|| format!("affinities {:?}", (name, revision)));
        match delete_if_same::<S, BlockAffinity>(store, name, revision.as_deref()).await {
            Ok(true) => applied.affinities.push(name.clone()),
            Ok(false) => {}
            Err(error) => applied.errors.push((format!("affinity {name}"), error)),
        }
    }
    for one in &plan.repairs {
        part.remembers(|| format!("repairs {:?}", one));
        match repair(store, one).await {
            Ok(true) => applied.handles.push(one.handle.clone()),
            Ok(false) => {}
            Err(error) => applied.errors.push((format!("handle {}", one.handle), error)),
        }
    }
    applied
}

/// Frees what cooled down, and deletes a block that is left empty and without owner. Whoever wrote the block meanwhile did
/// that too.
async fn tidy<S: Store>(store: &S, net: &IpNet, cooldown: Cooldown) -> Result<(), StoreError> {
    let Some(mut found) = find_block(store, net).await? else { return Ok(()) };
    let is_left = found.spec.affinity.is_none() && block::is_empty(&found.spec);
    if !block::thaw(&mut found.spec, cooldown) && !is_left {
        return Ok(());
    }
    match save_block(store, found).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn release_block<S: Store>(
    store: &S,
    one: &super::BlockRelease,
    tries: u32,
) -> Result<bool, StoreError> {
    let when = match one.if_empty_at {
        Some(sequence) => GiveBack::IfEmpty(Some(sequence)),
        // A node that came back keeps its blocks.
        None if find::<Node>(store, &Key::cluster(one.node.clone())).await?.is_some() => {
            return Ok(false);
        }
        None => GiveBack::Always,
    };
    let ending = Ending { node: &one.node, net: &one.block, when, authority: Authority::Full };
    release_claim(store, ending, tries).await
}

/// Releases all addresses of a handle, or none when one of them is in use or was assigned anew; of one that keeps others, those
/// that are planned.
async fn release_handle<S: Store>(
    store: &S,
    release: &HandleRelease,
    cooldown: Cooldown,
    tries: u32,
) -> Result<Vec<IpAddr>, StoreError> {
    let mut blocks: BTreeMap<IpNet, Vec<IpAddr>> = BTreeMap::new();
    for one in &release.addresses {
        blocks.entry(one.block).or_default().push(one.address);
    }
    let mut owners = Vec::new();
    for net in blocks.keys() {
        let Some(found) = find_block(store, net).await? else { return Ok(Vec::new()) };
        for (address, owner) in block::assigned(&found.spec).filter(|(_, one)| is_of(one, release))
        {
            let planned = release.addresses.iter().find(|one| one.address == address);
            if planned.is_none() && release.is_part {
                continue;
            }
            let sequence = block::sequence_of(&found.spec, address);
            if planned.is_none_or(|planned| planned.sequence != sequence) {
                return Ok(Vec::new());
            }
            owners.push((address, owner.clone()));
        }
    }
    if is_used(store, &owners, release.is_part).await? {
        return Ok(Vec::new());
    }
    let mut released = Vec::new();
    let part = Frame::enter();
    for (net, addresses) in blocks {
        part.remembers(|| format!("releases in {net}, {owners:?}"));
        let judged = owners.iter().filter(|(address, _)| addresses.contains(address));
        let judged: BTreeMap<IpAddr, AllocationAttribute> = judged.cloned().collect();
        let handle =
            find::<IpamHandle>(store, &Key::cluster(handle::object_name(&release.handle))).await?;
        part.remembers(|| {
            format!("releases in {net}, {owners:?} {:?}", handle.as_ref().map(memory::copy))
        });
        let (freed, left) = release_in(store, &net, &judged, release, cooldown, tries).await?;
        released.extend(freed);
        part.remembers(|| {
            let handle = handle.as_ref().map(memory::copy);
            format!("of {net} {left} are left, {owners:?} {handle:?}")
        });
        if let Some(handle) = handle {
            settle_handle(store, handle, &[(net, left)], tries).await?;
        }
    }
    tracing::info!(handle = release.handle, reason = release.reason, ?released, "collected");
    Ok(released)
}

fn is_of(owner: &AllocationAttribute, release: &HandleRelease) -> bool {
    owner.handle_id.as_deref() == Some(&release.handle)
}

/// Asks the datastore itself about pods, nodes and machines: a watch may be behind.
async fn is_used<S: Store>(
    store: &S,
    owners: &[(IpAddr, AllocationAttribute)],
    is_part: bool,
) -> Result<bool, StoreError> {
    let (mut pods, mut nodes) = (BTreeMap::new(), BTreeMap::new());
    for (_, owner) in owners {
        for attributes in [&owner.secondary, &owner.alternate_owner_attrs] {
            if let (Some(namespace), Some(pod)) =
                (attributes.get("namespace"), attributes.get("pod"))
            {
                let key = Key::namespaced(namespace, pod);
                pods.insert(key.clone(), find::<Pod>(store, &key).await?.map(Stored::into_inner));
            }
            if let Some(node) = attributes.get("node") {
                let key = Key::cluster(node);
                nodes.insert(key.clone(), find::<Node>(store, &key).await?.map(Stored::into_inner));
            }
        }
    }
    let machines = match owners.iter().any(|(_, owner)| is_of_machine(owner)) {
        true => machines(store).await?,
        false => None,
    };
    let inventory = Inventory {
        pods: pods.values().flatten().collect(),
        nodes: nodes.values().flatten().collect(),
        machines: machines.as_ref(),
        ..Inventory::default()
    };
    let facts = Facts::new(&inventory);
    let goes = |(address, owner): &(IpAddr, AllocationAttribute)| {
        facts.judge(*address, owner).is_some_and(|leak| !is_part || leak.goes_alone)
    };
    Ok(!owners.iter().all(goes))
}

/// Returns what was released, and how many addresses of the handle are left in the block. What has another owner than the one who
/// was judged stays: the next pod of a machine may have it.
async fn release_in<S: Store>(
    store: &S,
    net: &IpNet,
    judged: &BTreeMap<IpAddr, AllocationAttribute>,
    release: &HandleRelease,
    cooldown: Cooldown,
    tries: u32,
) -> Result<(Vec<IpAddr>, u32), StoreError> {
    let mut lost = Vec::new();
    let mut attempt = 0;
    let part = Frame::enter();
    loop {
        part.remembers(|| format!("releases, {attempt}"));
        let Some(mut found) = find_block(store, net).await? else { return Ok((lost, 0)) };
        let planned: BTreeMap<IpAddr, Option<u64>> =
            release.addresses.iter().map(|one| (one.address, one.sequence)).collect();
        let now: BTreeMap<IpAddr, Option<u64>> =
            judged.keys().map(|one| (*one, block::sequence_of(&found.spec, *one))).collect();
        let freed = block::release(&mut found.spec, cooldown, |address, owner| {
            judged.get(&address) == Some(owner)
                && now.get(&address).is_some_and(|now| planned.get(&address) == Some(now))
        });
        let left = block::of_handle(&found.spec, &release.handle).len();
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        if freed.is_empty() {
            return Ok((lost, left));
        }
        let freed: Vec<IpAddr> = freed.into_iter().map(|(address, _)| address).collect();
        match save_block(store, found).await {
            Ok(_) => return Ok((freed, left)),
            Err(error) if may_retry(&error) && attempt < tries => {
                attempt += 1;
                // If only the answer was lost, these will not be found again.
                if matches!(error, StoreError::Unavailable { .. }) {
                    lost = freed;
                }
                pause(attempt).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn delete_if_same<S: Store, R: api::Resource>(
    store: &S,
    name: &str,
    revision: Option<&str>,
) -> Result<bool, StoreError> {
    let Some(found) = find::<R>(store, &Key::cluster(name)).await? else { return Ok(false) };
    if found.meta().resource_version.as_deref() != revision {
        return Ok(false);
    }
    match delete_as_read(store, &found).await {
        Ok(()) => Ok(true),
        Err(StoreError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn repair<S: Store>(store: &S, one: &HandleRepair) -> Result<bool, StoreError> {
    let name = handle::object_name(&one.handle);
    if one.block.is_empty() {
        return delete_if_same::<S, IpamHandle>(store, &name, one.revision.as_deref()).await;
    }
    let found = find::<IpamHandle>(store, &Key::cluster(name)).await?;
    let revision = found.as_ref().and_then(|found| found.metadata.resource_version.clone());
    if revision != one.revision {
        return Ok(false);
    }
    let result = match found {
        Some(mut found) => {
            found.spec.block.clone_from(&one.block);
            found.spec.deleted = false;
            store.update(&found).await
        }
        None => store.create(&handle::with_blocks(&one.handle, one.block.clone())).await,
    };
    match result {
        Ok(_) => Ok(true),
        Err(StoreError::Conflict { .. } | StoreError::AlreadyExists { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
