//! What a node does once at start: kernel settings for routing, its own addresses in the API, the objects that stock clients expect.

use std::time::Duration;

use anyhow::{Context as _, Result};
use api::{
    ClusterInformation, ClusterInformationSpec, Key, KubeControllersConfiguration, Node, Resource,
    Tier, TierSpec,
};
use ipnet::IpNet;
use kernel::Netlink;
use serde_json::json;
use store::{Store, StoreError};

use crate::{
    args::Args,
    identity::{Candidate, Choice, Family, choose, usable},
};

/// Settings without which a node does not route, and what is lost when one cannot be set.
const SYSCTLS: &[(&str, &str, &str)] = &[
    ("net/ipv4/ip_forward", "1", "IPv4 between pods"),
    ("net/ipv6/conf/all/forwarding", "1", "IPv6 between pods"),
    ("net/ipv4/fib_multipath_hash_policy", "1", "spreading of IPv4 connections over equal paths"),
    ("net/ipv6/fib_multipath_hash_policy", "1", "spreading of IPv6 connections over equal paths"),
    (
        "net/ipv4/conf/all/ignore_routes_with_linkdown",
        "1",
        "instant failover when a link loses carrier",
    ),
    (
        "net/ipv4/conf/default/ignore_routes_with_linkdown",
        "1",
        "instant failover when a link loses carrier",
    ),
    (
        "net/ipv6/conf/all/ignore_routes_with_linkdown",
        "1",
        "instant failover when a link loses carrier",
    ),
    (
        "net/ipv6/conf/default/ignore_routes_with_linkdown",
        "1",
        "instant failover when a link loses carrier",
    ),
];

/// Applies the settings; those that this host refuses are named with what they cost. Returns whether forwarding is on: the
/// others make things slower, without these two nothing works.
pub(crate) fn sysctls() -> bool {
    let mut forwarding = true;
    for (path, value, purpose) in SYSCTLS {
        if let Err(error) = kernel::sysctl::ensure(path, value) {
            tracing::warn!(%error, %purpose, "kernel setting refused");
            // A host without IPv6 needs no forwarding of it.
            let needed = path.ends_with("forward") || path.ends_with("forwarding");
            forwarding &= !needed || matches!(error.cause, kernel::sysctl::Cause::Missing);
        }
    }
    forwarding
}

/// Lists the addresses of this namespace as candidates.
pub(crate) fn candidates() -> Result<Vec<Candidate>> {
    let netlink = Netlink::open()?;
    let links = kernel::link::list(&netlink)?;
    let addresses = kernel::address::list(&netlink, None)?;
    let candidate = |address: &kernel::Address| {
        let link = links.iter().find(|link| link.index == address.interface)?;
        Some(Candidate { interface: link.name.clone(), address: address.prefix, up: link.up })
    };
    Ok(addresses.iter().filter_map(candidate).collect())
}

/// Returns the MTU for pods: the smallest of the links that are up and not pods'.
pub(crate) fn uplink_mtu() -> Result<u32> {
    let netlink = Netlink::open()?;
    let links = kernel::link::list(&netlink)?;
    let uplinks =
        links.iter().filter(|link| link.up && !link.loopback && !link.name.starts_with("cali"));
    Ok(uplinks.map(|link| link.mtu).min().unwrap_or(1500))
}

/// Chooses this node's addresses and writes them to its Node object, as Calico's start-up does
/// (`node/pkg/lifecycle/startup`); others peer with what stands there.
///
/// # Errors
/// That the Node object does not exist or cannot be read; the caller tries again.
pub(crate) async fn announce_addresses<S: Store>(
    store: &S,
    node_name: &str,
    args: &Args,
) -> Result<()> {
    let node = store.get::<Node>(&Key::cluster(node_name)).await.with_context(|| {
        format!("cannot read Node {node_name}; --node-name must be the name that `kubectl get nodes` shows")
    })?;
    let candidates = candidates()?;
    let mut annotations = serde_json::Map::new();
    for (family, configured, annotation) in [
        (Family::V4, &args.ip, "projectcalico.org/IPv4Address"),
        (Family::V6, &args.ip6, "projectcalico.org/IPv6Address"),
    ] {
        let present = node.metadata.annotations.get(annotation).map(String::as_str);
        let internal = internal_ip(&node, family);
        match choose(family, configured, present, internal, &candidates) {
            Some(Choice { address, reason }) => {
                let text = address.to_string();
                tracing::info!(%address, %reason, "address of this node");
                if present != Some(text.as_str()) {
                    annotations.insert(annotation.to_owned(), json!(text));
                }
            }
            None => tracing::info!(?family, "this node has no address of this family"),
        }
    }
    if !annotations.is_empty() {
        let patch = json!({"metadata": {"annotations": annotations}});
        store.patch::<Node>(&Key::cluster(node_name), Some("status"), &patch).await?;
    }
    Ok(())
}

fn internal_ip(node: &Node, family: Family) -> Option<std::net::IpAddr> {
    let addresses = node.status.as_ref()?.addresses.iter();
    addresses
        .filter(|address| address.address_type == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .find(|address: &std::net::IpAddr| address.is_ipv4() == (family == Family::V4))
}

/// Creates what stock clients expect of a cluster, unless someone has: ClusterInformation, tiers, KubeControllersConfiguration.
///
/// # Errors
/// The first refusal that is not "exists already".
pub(crate) async fn cluster_defaults<S: Store>(store: &S, guid: String) -> Result<()> {
    let information = ClusterInformationSpec {
        cluster_guid: Some(guid),
        cluster_type: Some("k8s,bgp,kdd,voile".to_owned()),
        datastore_ready: Some(true),
        ..ClusterInformationSpec::default()
    };
    ensure(store, ClusterInformation::new("default", information)).await?;
    for (name, order, action) in [
        ("kube-admin", 1_000.0, "Pass"),
        ("default", 1_000_000.0, "Deny"),
        ("kube-baseline", 10_000_000.0, "Pass"),
    ] {
        let spec: TierSpec =
            serde_json::from_value(json!({"order": order, "defaultAction": action}))?;
        ensure(store, Tier::new(name, spec)).await?;
    }
    let controllers: KubeControllersConfiguration = serde_json::from_value(json!({
        "metadata": {"name": "default"},
        "spec": {"controllers": {"node": {"hostEndpoint": {"autoCreate": "Disabled"}}}},
    }))?;
    ensure(store, controllers).await
}

async fn ensure<S: Store, R: Resource>(store: &S, object: R) -> Result<()> {
    match store.get::<R>(&object.key()).await {
        Ok(_) => return Ok(()),
        Err(StoreError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match store.create(&object).await {
        Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("cannot create {} {}", R::KIND.kind, object.key()))
        }
    }
}

/// Reads 16 random bytes as a GUID (RFC 9562, version 4) from the kernel.
///
/// # Errors
/// That /proc is not mounted.
pub(crate) fn guid() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .context("cannot read a random UUID")?;
    Ok(text.trim().replace('-', ""))
}

/// Runs `step` until it succeeds, with doubling waits up to 30 s, telling each failure once it changes.
pub(crate) async fn until_done<F, Fut>(what: &str, mut step: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let (mut wait, mut last) = (Duration::from_millis(250), String::new());
    loop {
        match step().await {
            Ok(()) => return,
            Err(error) => {
                let text = format!("{error:#}");
                if text != last {
                    tracing::warn!(error = %text, "{what}: not done yet, trying again");
                    last = text;
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(30));
    }
}

/// Returns the families that this node can serve pods in, from its addresses.
pub(crate) fn families(candidates: &[Candidate]) -> (bool, bool) {
    let has = |v4: bool| {
        candidates.iter().any(|candidate| {
            let address: IpNet = candidate.address;
            address.addr().is_ipv4() == v4 && usable(address.addr())
        })
    };
    (has(true), has(false))
}
