//! Stages 1 to 5: sessions, addresses, routes, connectivity, policy.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use tokio::time::sleep;

use super::{
    Demo,
    reach::Matrix,
    view::{self, DemoPod},
};
use crate::{
    procfs::now,
    topology::{Role, RouterKind},
};

const PATIENCE: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(100);

impl Demo {
    /// Waits for nodes and sessions, telling each as it comes.
    pub(super) async fn sessions(&mut self) -> Result<()> {
        self.out.stage(1, "BGP sessions");
        let nodes: Vec<_> =
            self.topology.kubernetes_nodes().map(|node| node.name.clone()).collect();
        let mut told = BTreeSet::new();
        let mut up = BTreeSet::new();
        let end = now() + PATIENCE;
        loop {
            for node in view::ready_nodes(&self.client).await? {
                if told.insert(node.clone()) {
                    self.out.progress(&format!("node {node} is ready"));
                }
            }
            let sessions = view::sessions(&self.client).await?;
            for (node, peer) in sessions.iter().filter(|(_, peer)| peer.state == "Established") {
                if up.insert((node.clone(), peer.address.clone())) {
                    self.out.progress(&format!(
                        "{node} AS {} — {} AS {} established",
                        peer.local_as, peer.address, peer.peer_as
                    ));
                }
            }
            let with_peers: BTreeSet<_> = sessions.iter().map(|(node, _)| node).collect();
            let done = told.len() == nodes.len()
                && with_peers.len() == nodes.len()
                && up.len() == sessions.len();
            if done || now() > end {
                break;
            }
            sleep(GLANCE).await;
        }
        self.check(
            "nodes ready",
            told.len() == nodes.len(),
            &format!("{} of {}", told.len(), nodes.len()),
        );
        let sessions = view::sessions(&self.client).await?;
        self.show_sessions(&sessions);
        let established = sessions.iter().filter(|(_, peer)| peer.state == "Established").count();
        let all = established == sessions.len() && established >= nodes.len();
        self.check(
            "BGP sessions established",
            all,
            &format!("{established} of {}", sessions.len()),
        );
        anyhow::ensure!(
            told.len() == nodes.len(),
            "nodes are not ready; see {}",
            self.layout.log("voile-node-*").display()
        );
        Ok(())
    }

    pub(super) fn show_sessions(&self, sessions: &[(String, api::PeerStatus)]) {
        let rows: Vec<_> = sessions
            .iter()
            .map(|(node, peer)| {
                let why = peer
                    .last_error
                    .clone()
                    .filter(|_| peer.state != "Established")
                    .unwrap_or_default();
                vec![
                    node.clone(),
                    peer.local_as.to_string(),
                    peer.address.clone(),
                    peer.peer_as.to_string(),
                    format!("{} {why}", peer.state).trim_end().to_owned(),
                    peer.received.to_string(),
                    peer.advertised.to_string(),
                ]
            })
            .collect();
        self.out.table(&["NODE", "AS", "PEER", "PEER AS", "STATE", "IN", "OUT"], &rows);
    }

    /// Deploys the pods and shows blocks and addresses.
    pub(super) async fn pods(&mut self) -> Result<()> {
        self.out.stage(2, "pods and their addresses");
        let begun = now();
        for (name, text) in self.pod_manifests()? {
            self.applier.apply_text(&text, &name).await?;
        }
        let mut told = BTreeSet::new();
        let pods = loop {
            let pods = view::pods(&self.client, &self.layout).await?;
            for pod in pods.iter().filter(|pod| pod.ready) {
                if told.insert(pod.key()) {
                    self.out.progress(&format!("{} runs on {}", pod.key(), pod.node));
                }
            }
            if told.len() == pods.len() || begun.elapsed() > PATIENCE {
                break pods;
            }
            sleep(GLANCE).await;
        };
        let blocks = view::blocks(&self.client).await?;
        let rows: Vec<_> = blocks
            .iter()
            .map(|(prefix, node, used)| vec![node.clone(), prefix.to_string(), used.to_string()])
            .collect();
        self.out.table(&["NODE", "BLOCK", "IN USE"], &rows);
        let rows: Vec<_> = pods
            .iter()
            .map(|pod| {
                let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
                let ports: Vec<_> = pod.ports.iter().map(ToString::to_string).collect();
                vec![pod.key(), pod.node.clone(), addresses.join("  "), ports.join(",")]
            })
            .collect();
        self.out.table(&["POD", "NODE", "ADDRESSES", "TCP PORTS"], &rows);
        let (ready, count) = (told.len(), pods.len());
        let seconds = begun.elapsed().as_secs_f64();
        self.check(
            "pods running",
            ready == count && count > 0,
            &format!("{ready} of {count} in {seconds:.1} s"),
        );
        let problems: Vec<_> = pods
            .iter()
            .filter(|pod| !pod.ready)
            .map(|pod| format!("{}: {}", pod.key(), pod.problem.clone().unwrap_or_default()))
            .collect();
        anyhow::ensure!(problems.is_empty(), "pods do not run: {}", problems.join("; "));
        self.check_addresses(&pods, &blocks);
        Ok(())
    }

    fn check_addresses(&mut self, pods: &[DemoPod], blocks: &[(IpNet, String, usize)]) {
        let mut seen = BTreeSet::new();
        let mut wrong = Vec::new();
        for pod in pods {
            for v4 in [true, false] {
                let Some(address) = super::probe::of_family(&pod.addresses, v4) else {
                    wrong.push(format!(
                        "{} has no IPv{} address",
                        pod.key(),
                        if v4 { 4 } else { 6 }
                    ));
                    continue;
                };
                if !seen.insert(address) {
                    wrong.push(format!("{address} was given twice"));
                }
                let home = blocks.iter().find(|(prefix, ..)| prefix.contains(&address));
                if home.is_none_or(|(_, node, _)| *node != pod.node) {
                    wrong.push(format!("{address} is not in a block of {}", pod.node));
                }
            }
        }
        self.check(
            "addresses dual-stack, unique, out of the node's blocks",
            wrong.is_empty(),
            &few(&wrong),
        );
    }

    /// Shows routes on a router and on a node; checks that everyone knows every block.
    pub(super) async fn routes(&mut self) -> Result<()> {
        self.out.stage(3, "routes");
        let pools = view::pools(&self.client).await?;
        let blocks = view::blocks(&self.client).await?;
        let end = now() + Duration::from_secs(10);
        let mut missing;
        loop {
            missing = self.missing_routes(&pools, &blocks)?;
            if missing.is_empty() || now() > end {
                break;
            }
            sleep(GLANCE).await;
        }
        let sessions = view::sessions(&self.client).await?;
        self.show_sessions(&sessions);
        let leaf = self.uplinks().into_values().flatten().next();
        let node = self.topology.kubernetes_nodes().next().map(|node| node.name.clone());
        for name in leaf.into_iter().chain(node) {
            self.out.progress(&format!("routes to pods on {name}"));
            for route in view::routes(&self.layout, &name, &pools)? {
                if route.prefix.prefix_len() < route.prefix.max_prefix_len() {
                    self.out.block(&format!("        {}", route.text));
                }
            }
        }
        self.check(
            "every node has a route to every block, over all its uplinks",
            missing.is_empty(),
            &few(&missing),
        );
        Ok(())
    }

    /// Routers that each Kubernetes node has a link to.
    pub(super) fn uplinks(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut uplinks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for link in &self.topology.links {
            for (a, b) in [(&link.a.node, &link.b.node), (&link.b.node, &link.a.node)] {
                let is = |name: &str, wanted: fn(Role) -> bool| {
                    self.topology.node(name).is_some_and(|node| wanted(node.role))
                };
                if is(a, |role| role == Role::Kubernetes)
                    && is(b, |role| matches!(role, Role::Router(_)))
                {
                    uplinks.entry(a.clone()).or_default().insert(b.clone());
                }
            }
        }
        uplinks
    }

    /// Nodes without a route to a block of another node, or with fewer next hops than uplinks.
    fn missing_routes(
        &self,
        pools: &[IpNet],
        blocks: &[(IpNet, String, usize)],
    ) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for (node, uplinks) in self.uplinks() {
            let routes = view::routes(&self.layout, &node, pools)?;
            for (prefix, owner, _) in blocks.iter().filter(|(_, owner, _)| *owner != node) {
                match routes.iter().find(|route| route.prefix == *prefix) {
                    None => missing.push(format!("{node} has no route to {prefix} of {owner}")),
                    Some(route) if route.hops < uplinks.len() => {
                        missing.push(format!(
                            "{node} reaches {prefix} over {} of {} uplinks",
                            route.hops,
                            uplinks.len()
                        ));
                    }
                    Some(_) => (),
                }
            }
        }
        Ok(missing)
    }

    /// Everyone to everyone, without any policy.
    pub(super) async fn open_matrix(&mut self) -> Result<Matrix> {
        self.out.stage(4, "connectivity, pod to pod, TCP over IPv4 and IPv6");
        let pods = view::pods(&self.client, &self.layout).await?;
        let mut matrix = Matrix::new(pods);
        let policies = view::policies(&self.client).await?;
        let report = matrix.settle(&policies, Duration::from_secs(10)).await?;
        self.out.block(&matrix.render());
        let (open, all) = matrix.open();
        self.check(
            "connectivity",
            report.is_empty(),
            &with_surprises(format!("{open} of {all} connections open"), &report),
        );
        Ok(matrix)
    }

    /// Applies the policies one by one and shows what each changes.
    pub(super) async fn policies(
        &mut self,
        files: &[(String, String)],
        matrix: &mut Matrix,
    ) -> Result<()> {
        self.out.stage(5, "network policy");
        for (name, text) in files {
            let begun = now();
            let applied = self.applier.apply_text(text, name).await.context("policy")?;
            let policies = view::policies(&self.client).await?;
            let took = matrix.converge(&policies).await?;
            let report = matrix.settle(&policies, Duration::from_secs(3)).await?;
            self.out.progress(&format!("{name}: {} applied", applied.join(", ")));
            self.out.block(&matrix.render());
            let (open, all) = matrix.open();
            let effect = took.map_or_else(String::new, |at| {
                format!(
                    ", in effect after {:.0} ms",
                    at.duration_since(begun).as_secs_f64() * 1000.0
                )
            });
            let detail =
                with_surprises(format!("{open} of {all} connections open{effect}"), &report);
            self.check(
                &format!("{name} does what it says, and no more"),
                report.is_empty(),
                &detail,
            );
        }
        Ok(())
    }

    /// Programs that make up a router.
    pub(super) fn programs(&self, router: &str) -> Vec<String> {
        match self.topology.node(router).map(|node| node.role) {
            Some(Role::Router(RouterKind::Frr)) => {
                vec![format!("{router}-zebra"), format!("{router}-bgpd")]
            }
            _ => vec![router.to_owned()],
        }
    }
}

/// The first few of many problems.
pub(super) fn few(problems: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<_> = problems.iter().take(SHOWN).map(String::as_str).collect();
    let rest = problems.len() - shown.len();
    if rest > 0 { format!("{} and {rest} more", shown.join(", ")) } else { shown.join(", ") }
}

/// A detail, and behind it what was not expected.
pub(super) fn with_surprises(detail: String, surprises: &[String]) -> String {
    if surprises.is_empty() { detail } else { format!("{detail}; unexpected: {}", few(surprises)) }
}
