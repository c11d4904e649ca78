//! `voilectl ipam explain`: why a pod has its addresses, or why it gets none.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Result, bail};
use api::{
    AllowedUse, IpPool, IpReservation, IpamConfiguration, IpamConfigurationSpec, Key, Namespace,
    Node, Pod,
};
use ipam::{
    Family,
    explain::{Source, source},
    pool::{Asker, Reservations, select},
    space::Space,
    wishes::Wishes,
};
use store::{Store, StoreError};

use super::{Inventory, fsck};
use crate::cmd::{Context, Outcome};

/// Runs the command.
///
/// # Errors
/// A pod that does not exist, and whatever the API server answers.
pub(super) async fn explain<S: Store>(context: &Context<S>, name: &str) -> Result<Outcome> {
    let Some((namespace, pod)) = name.split_once('/') else {
        bail!("{name:?} is not namespace/name");
    };
    let key = Key::namespaced(namespace, pod);
    let Some(pod) = find::<S, Pod>(context, &key).await? else {
        bail!("there is no pod {name}; `kubectl get pods -A` lists them");
    };
    let mut text = format!("pod {name}");
    let node = pod.spec.node_name.clone();
    match &node {
        Some(node) => text.push_str(&format!(" on node {node}\n")),
        None => text.push_str(" is not scheduled: only its node assigns addresses\n"),
    }
    if pod.spec.host_network {
        text.push_str("uses its node's network, so it gets no address of its own\n");
        return Ok(Outcome::ok(text));
    }
    let space_of = find::<S, Namespace>(context, &Key::cluster(namespace)).await?;
    let space_of = space_of.map(|one| one.metadata).unwrap_or_default();
    let wishes = match Wishes::read(&pod.metadata.annotations, &space_of.annotations) {
        Ok(wishes) => wishes,
        Err(error) => {
            text.push_str(&format!("gets no address: {error}\n"));
            return Ok(Outcome { text, finding: true });
        }
    };
    let inventory = Inventory::load(context).await?;
    let held = fsck::addresses(&pod);
    for address in &held {
        text.push_str(&told(*address, &inventory, &wishes, node.as_deref()));
    }
    let labels = match &node {
        Some(node) => find::<S, Node>(context, &Key::cluster(node)).await?,
        None => None,
    };
    let labels = labels.map(|node| node.metadata.labels).unwrap_or_default();
    let node = node.unwrap_or_else(|| "(none)".to_owned());
    let (pools, can) =
        pools(context, &inventory, &wishes, &node, &labels, &space_of.labels).await?;
    text.push_str(&pools);
    Ok(Outcome { text, finding: held.is_empty() && !can && wishes.unmanaged.is_empty() })
}

async fn find<S: Store, R: api::Resource>(context: &Context<S>, key: &Key) -> Result<Option<R>> {
    match context.store.get::<R>(key).await {
        Ok(found) => Ok(Some(found.into_inner())),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn told(address: IpAddr, inventory: &Inventory, wishes: &Wishes, node: Option<&str>) -> String {
    if wishes.unmanaged.contains(&address) {
        return format!(
            "has {address}: the annotation ipAddrsNoIpam gives it, nobody assigned it\n"
        );
    }
    let block = inventory.block_of(address);
    let taken = block.and_then(|block| block.taken().find(|taken| taken.address == address));
    let (Some(block), Some(taken)) = (block, taken) else {
        return format!(
            "has {address}, which is not assigned to anybody; see `voilectl ipam check`\n"
        );
    };
    let pool = inventory.pool_of(address).map_or("(none)", |pool| pool.metadata.name.as_str());
    let why = if wishes.addresses.contains(&address) {
        "the annotation ipAddrs asks for it"
    } else if block.owner.as_deref() == node {
        "first free address of a block of its node"
    } else {
        "borrowed: its node had no free address"
    };
    let owner = block.owner.as_deref().unwrap_or("nobody");
    let mut text =
        format!("has {address} from pool {pool}, block {} of {owner}: {why}\n", block.net);
    if let Some(time) = taken.attributes.get("timestamp") {
        text.push_str(&format!("  assigned {time}, handle {}\n", taken.handle.unwrap_or("-")));
    }
    text
}

/// Each pool, and what a pod like this would get from it now.
async fn pools<S: Store>(
    context: &Context<S>,
    inventory: &Inventory,
    wishes: &Wishes,
    node: &str,
    node_labels: &BTreeMap<String, String>,
    namespace_labels: &BTreeMap<String, String>,
) -> Result<(String, bool)> {
    let key = Key::cluster("default");
    let configuration = find::<S, IpamConfiguration>(context, &key).await?;
    let configuration: IpamConfigurationSpec =
        configuration.map(|one| one.spec).unwrap_or_default();
    let reserved = context.list::<IpReservation>().await?;
    let reserved = Reservations::read(reserved.items.iter().map(|stored| &**stored));
    let mut space = Space::default();
    for block in &inventory.blocks {
        space.put(&block.object);
    }
    let asker = Asker {
        node_labels,
        namespace_labels: Some(namespace_labels),
        intended_use: AllowedUse::Workload,
    };
    let objects: Vec<&IpPool> = inventory.pools.iter().map(|(_, pool)| pool).collect();
    let (mut text, mut any, mut lacking) = (String::new(), false, Vec::new());
    for family in [Family::V4, Family::V6] {
        let automatic = select(objects.iter().copied(), family, &[], &asker);
        let wanted = wishes.wants(family, || !automatic.pools.is_empty());
        let requested = wishes.pools(family);
        let selection = select(objects.iter().copied(), family, requested, &asker);
        text.push_str(&match (wanted, requested.is_empty()) {
            (false, _) => format!("{family}: not wanted, or no pool gives one by itself\n"),
            (true, true) => {
                format!("{family}: of the pools that are used without being asked for\n")
            }
            (true, false) => format!("{family}: only of {}, as annotated\n", requested.join(", ")),
        });
        any |= wanted;
        let mut has_source = false;
        for pool in &selection.pools {
            let source = source(pool, node, &space, &configuration, &reserved);
            has_source |= !matches!(source, Source::None(_));
            text.push_str(&format!("  pool {}: {source}\n", pool.name));
        }
        for (name, why) in &selection.refused {
            text.push_str(&format!("  pool {name}: {why}\n"));
        }
        if wanted && !has_source {
            lacking.push(family.to_string());
        }
    }
    if !lacking.is_empty() {
        // All or none: a pod that wants both families gets none when one is lacking.
        text.push_str(&format!("a new address is refused: no {}\n", lacking.join(", no ")));
    }
    Ok((text, any && lacking.is_empty()))
}
