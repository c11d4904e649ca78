//! The report of `ipam check`, in calicoctl's form, and releasing what it names.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use api::{ClusterInformation, IpamHandle, Key};
use ipam::{Allocator, block, check};
use serde::{Deserialize, Serialize};
use store::{DeletePreconditions, Store, StoreError, Stored};

use super::fsck::Cluster;
use crate::{
    cmd::{Context, Outcome},
    output::count,
};

/// What calicoctl calls a CheckReport (`commands/ipam/check.go`).
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    version: String,
    #[serde(rename = "clusterGUID")]
    cluster_guid: String,
    datastore_locked: bool,
    cluster_information_revision: String,
    cluster_type: String,
    allocations: BTreeMap<IpAddr, Vec<Allocation>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leaked_handles: Vec<LeakedHandle>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Allocation {
    ip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    handle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence_number: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pod: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    node: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    creation_timestamp: String,
    in_use: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    borrowed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cooling_down: bool,
    owners: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct LeakedHandle {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "UID")]
    uid: Option<String>,
    #[serde(rename = "Revision")]
    revision: String,
}

async fn information<S: Store>(context: &Context<S>) -> Result<Option<Stored<ClusterInformation>>> {
    match context.store.get::<ClusterInformation>(&Key::cluster("default")).await {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error).context("cannot read ClusterInformation default"),
    }
}

/// Whether nobody may assign addresses at the moment.
pub(super) async fn is_locked<S: Store>(context: &Context<S>) -> Result<bool> {
    let found = information(context).await?;
    Ok(found.is_some_and(|found| found.spec.datastore_ready == Some(false)))
}

/// Writes the report of a cluster.
pub(super) async fn write<S: Store>(
    context: &Context<S>,
    cluster: &Cluster,
    file: &Path,
) -> Result<()> {
    let mut report = Report { version: env!("CARGO_PKG_VERSION").to_owned(), ..Report::default() };
    if let Some(found) = information(context).await? {
        report.cluster_guid = found.spec.cluster_guid.clone().unwrap_or_default();
        report.cluster_type = found.spec.cluster_type.clone().unwrap_or_default();
        report.datastore_locked = found.spec.datastore_ready == Some(false);
        report.cluster_information_revision = found.revision().as_str().to_owned();
    }
    let users = check::users(&cluster.pods, &cluster.nodes, &cluster.services);
    let leaked = cluster.leaked_addresses();
    for one in &cluster.inventory.blocks {
        for taken in one.taken() {
            let get = |name: &str| taken.attributes.get(name).cloned().unwrap_or_default();
            let owners = users.get(&taken.address).cloned();
            // A service may have its address before its status says so; a machine keeps it while it is stopped.
            let in_use = owners.is_some()
                || taken.is_of_machine
                || (taken.attributes.contains_key("service") && !leaked.contains(&taken.address));
            let (node, owner) = (get("node"), one.owner.clone().unwrap_or_default());
            report.allocations.entry(taken.address).or_default().push(Allocation {
                ip: taken.address.to_string(),
                handle: taken.handle.unwrap_or_default().to_owned(),
                sequence_number: block::sequence_of(&one.object.spec, taken.address),
                pod: get("pod"),
                namespace: get("namespace"),
                kind: get("type"),
                creation_timestamp: get("timestamp"),
                in_use,
                borrowed: node != owner,
                cooling_down: taken.released_at.is_some(),
                node,
                owners,
            });
        }
    }
    report.leaked_handles = leaked_handles(cluster);
    let text = serde_json::to_string_pretty(&report)? + "\n";
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Handles without any address.
fn leaked_handles(cluster: &Cluster) -> Vec<LeakedHandle> {
    let taken = cluster.inventory.blocks.iter().flat_map(|one| one.taken());
    let used: std::collections::BTreeSet<String> =
        taken.filter_map(|taken| taken.handle.map(str::to_lowercase)).collect();
    let leaked = cluster.handles.iter().filter(|one| !used.contains(&one.metadata.name));
    leaked
        .map(|one| LeakedHandle {
            id: one.spec.handle_id.clone(),
            uid: one.metadata.uid.clone(),
            revision: one.metadata.resource_version.clone().unwrap_or_default(),
        })
        .collect()
}

/// Runs `release --from-report`: what leaked in every report, if it is still the same.
///
/// # Errors
/// Reports of another cluster, old ones, a datastore that is not locked, and whatever the API server answers.
pub(super) async fn release<S: Store>(
    context: &Context<S>,
    files: &[PathBuf],
    force: bool,
) -> Result<Outcome> {
    let Some(now) = information(context).await? else {
        bail!(
            "this cluster has no ClusterInformation default, so no report can be known to be its"
        );
    };
    let mut reports = Vec::new();
    for file in files {
        let name = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
        let report: Report =
            serde_json::from_str(&text).with_context(|| format!("{name} is no report"))?;
        if now.spec.cluster_guid.as_deref().unwrap_or_default() != report.cluster_guid {
            bail!("{name} is of another cluster ({}): nothing was released", report.cluster_guid);
        }
        if report.version != env!("CARGO_PKG_VERSION") && !force {
            bail!(
                "{name} was written by version {:?}; make a new one, or add --force",
                report.version
            );
        }
        reports.push(report);
    }
    let revision = now.revision();
    if !reports.iter().any(|one| one.cluster_information_revision == revision.as_str()) && !force {
        bail!("all reports are old; make one now, or add --force");
    }
    if now.spec.datastore_ready != Some(false) && !force {
        bail!(
            "the datastore is not locked; set datastoreReady: false in ClusterInformation default, or add --force: every \
             address is checked against its handle and sequence number"
        );
    }
    release_all(context, &reports).await
}

async fn release_all<S: Store>(context: &Context<S>, reports: &[Report]) -> Result<Outcome> {
    let leaked = |report: &Report, address: &IpAddr| {
        let found = report.allocations.get(address)?.first()?.clone();
        (!found.in_use && !found.cooling_down).then_some(found)
    };
    let allocator = Allocator::new(context.store.clone(), "voilectl");
    let (mut released, mut skipped, mut text) = (0, 0, String::new());
    let newest = reports.last().into_iter().flat_map(|report| report.allocations.keys());
    for address in newest {
        let found: Option<Vec<Allocation>> =
            reports.iter().map(|report| leaked(report, address)).collect();
        let Some(last) = found.and_then(|mut found| found.pop()) else { continue };
        let handle = Some(last.handle.as_str()).filter(|handle| !handle.is_empty());
        let freed = allocator.release_ip(*address, handle, last.sequence_number).await?;
        if freed.is_empty() {
            skipped += 1;
        } else {
            released += 1;
            text.push_str(&format!("released {address}\n"));
        }
    }
    let mut handles = 0;
    for handle in reports.last().into_iter().flat_map(|report| &report.leaked_handles) {
        if !reports.iter().all(|report| report.leaked_handles.contains(handle)) {
            continue;
        }
        let preconditions = DeletePreconditions {
            uid: handle.uid.clone(),
            revision: Some(store::Revision::new(handle.revision.clone())),
        };
        let key = Key::cluster(ipam::handle::object_name(&handle.id));
        match context.store.delete::<IpamHandle>(&key, &preconditions).await {
            Ok(()) => handles += 1,
            Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => skipped += 1,
            Err(error) => return Err(error.into()),
        }
    }
    let (addresses, handles) = (count(released, "address"), count(handles, "handle"));
    text.push_str(&format!("{addresses} and {handles} released, {skipped} changed since\n"));
    Ok(Outcome::ok(text.replace("addresss", "addresses")))
}
