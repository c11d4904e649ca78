//! `voilectl ipam check`: blocks, claims, handles, pools, nodes and pods compared with each other.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::Result;
use api::{BlockAffinity, IpPool, IpamBlock, IpamHandle, Node, Pod, Service};
use ipam::check::{Finding, State};
use serde::Serialize;
use store::Store;

use super::{Block, Inventory, items, report};
use crate::{
    cmd::{Context, Outcome},
    output::machine,
};

/// An ADD or DEL is done within this time.
pub(super) const BETWEEN_OBSERVATIONS: Duration = Duration::from_secs(2);

/// Everything that has to agree.
pub(in crate::cmd) struct Cluster {
    pub(super) inventory: Inventory,
    pub(super) affinities: Vec<BlockAffinity>,
    pub(super) handles: Vec<IpamHandle>,
    pub(super) pods: Vec<Pod>,
    pub(super) nodes: Vec<Node>,
    pub(super) services: Vec<Service>,
}

/// Something that does not agree, as `-o json` shows it.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(in crate::cmd) struct Line {
    group: &'static str,
    pub(in crate::cmd) message: String,
}

impl Cluster {
    pub(in crate::cmd) async fn load<S: Store>(context: &Context<S>) -> Result<Self> {
        let mut inventory = Inventory::load(context).await?;
        let problems = &mut inventory.problems;
        let affinities = items(context.list().await?, "BlockAffinity", problems);
        let handles = items(context.list().await?, "IPAMHandle", problems);
        let pods = items(context.list().await?, "Pod", problems);
        let nodes = items(context.list().await?, "Node", problems);
        let services = items(context.list().await?, "Service", problems);
        Ok(Self { inventory, affinities, handles, pods, nodes, services })
    }

    /// Reads it, and reads it again when something does not agree: the lists are not of one moment, and a pod that starts
    /// or ends between them looks like a leak. Only what is wrong both times counts.
    pub(in crate::cmd) async fn observe<S: Store>(
        context: &Context<S>,
    ) -> Result<(Self, Vec<Line>)> {
        let first = Self::load(context).await?;
        let findings = first.findings();
        if findings.is_empty() {
            return Ok((first, findings));
        }
        tokio::time::sleep(BETWEEN_OBSERVATIONS).await;
        let second = Self::load(context).await?;
        let mut still = second.findings();
        still.retain(|line| findings.contains(line));
        Ok((second, still))
    }

    /// Number of blocks that a node owns.
    pub(in crate::cmd) fn blocks_of(&self, node: &str) -> usize {
        self.inventory.blocks.iter().filter(|block| block.owner.as_deref() == Some(node)).count()
    }

    /// Addresses in use, and blocks.
    pub(in crate::cmd) fn totals(&self) -> (u128, usize) {
        (self.inventory.blocks.iter().map(Block::in_use).sum(), self.inventory.blocks.len())
    }

    pub(super) fn blocks(&self) -> Vec<IpamBlock> {
        self.inventory.blocks.iter().map(|block| block.object.clone()).collect()
    }

    pub(super) fn pools(&self) -> Vec<IpPool> {
        self.inventory.pools.iter().map(|(_, pool)| pool.clone()).collect()
    }

    pub(super) fn state_of<'a>(
        &'a self,
        blocks: &'a [IpamBlock],
        pools: &'a [IpPool],
    ) -> State<'a> {
        State {
            blocks,
            affinities: &self.affinities,
            handles: &self.handles,
            pools,
            pods: &self.pods,
            nodes: &self.nodes,
            services: &self.services,
        }
    }

    /// Addresses that are allocated to somebody who does not use them.
    pub(super) fn leaked_addresses(&self) -> BTreeSet<IpAddr> {
        let (blocks, pools) = (self.blocks(), self.pools());
        let found = ipam::check::check(&self.state_of(&blocks, &pools)).into_iter();
        found
            .filter_map(|one| match one {
                Finding::Leaked { address, .. } => Some(address),
                _ => None,
            })
            .collect()
    }

    /// What does not agree, grouped.
    pub(in crate::cmd) fn findings(&self) -> Vec<Line> {
        let (blocks, pools) = (self.blocks(), self.pools());
        let state = self.state_of(&blocks, &pools);
        let unreadable = self.inventory.problems.iter();
        let unreadable = unreadable
            .map(|message| Line { group: "unreadable objects", message: message.clone() });
        let mut lines: Vec<Line> = unreadable.collect();
        let found = ipam::check::check(&state);
        lines.extend(found.iter().map(|one| Line { group: group(one), message: one.to_string() }));
        lines
    }
}

fn group(finding: &Finding) -> &'static str {
    match finding {
        Finding::InvalidBlock { .. } => "invalid blocks",
        Finding::Overlap { .. } => "overlapping blocks",
        Finding::OutsidePools { .. } => "blocks outside pools",
        Finding::Leaked { .. } => "leaked addresses",
        Finding::NotAllocated { .. } => "addresses in use and not allocated",
        Finding::UsedOutsidePools { .. } => "addresses in use outside enabled pools",
        Finding::SharedAddress { .. } => "addresses of several pods",
        Finding::SharedService { .. } => "addresses of several services",
        Finding::HandleWithoutAddresses { .. }
        | Finding::HandleMissing { .. }
        | Finding::WrongCount { .. } => "handles",
        Finding::AffinityWithoutBlock { .. }
        | Finding::BlockWithoutAffinity { .. }
        | Finding::UnfinishedAffinity { .. }
        | Finding::DeadNode { .. } => "affinities",
    }
}

/// The addresses that a pod really has; none once it is done.
pub(super) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let status = pod.status.as_ref();
    if pod.spec.host_network
        || matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
    {
        return Vec::new();
    }
    let annotations = &pod.metadata.annotations;
    let written = annotations
        .get("cni.projectcalico.org/podIPs")
        .or_else(|| annotations.get("cni.projectcalico.org/podIP"));
    let texts: Vec<&str> = match written {
        Some(text) => text.split(',').collect(),
        None => status
            .iter()
            .flat_map(|status| {
                status.pod_ips.iter().map(|one| one.ip.as_str()).chain(status.pod_ip.as_deref())
            })
            .collect(),
    };
    texts.into_iter().filter_map(|text| text.split('/').next()?.trim().parse().ok()).collect()
}

/// Runs the command: exit code 1 when something does not agree.
///
/// # Errors
/// Whatever the API server answers.
pub(super) async fn check<S: Store>(context: &Context<S>) -> Result<Outcome> {
    let (cluster, findings) = Cluster::observe(context).await?;
    if let Some(file) = &context.report {
        report::write(context, &cluster, file).await?;
    }
    told(context, &findings)
}

/// Shows findings: exit code 1 when there are any.
pub(super) fn told<S: Store>(context: &Context<S>, findings: &[Line]) -> Result<Outcome> {
    let finding = !findings.is_empty();
    if let Some(text) = machine(context.format, &findings)? {
        return Ok(Outcome { text, finding });
    }
    let mut text = String::new();
    let mut group = "";
    for line in findings {
        if line.group != group {
            text.push_str(&format!("{}:\n", line.group));
            group = line.group;
        }
        text.push_str(&format!("  {}\n", line.message));
    }
    // The words that scripts look for in calicoctl's output.
    text.push_str(&format!("Check complete; found {} problems.\n", findings.len()));
    Ok(Outcome { text, finding })
}
