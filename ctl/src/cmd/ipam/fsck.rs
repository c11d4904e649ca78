//! `voilectl ipam check`: blocks, claims, handles, pools, nodes and pods compared with each other.

use std::net::IpAddr;

use anyhow::Result;
use api::Pod;
use store::Store;

use super::Inventory;
use crate::{
    cmd::{Context, Outcome},
    output::machine,
};

/// Everything that has to agree.
pub(in crate::cmd) struct Cluster {
    inventory: Inventory,
}

impl Cluster {
    pub(in crate::cmd) async fn load<S: Store>(context: &Context<S>) -> Result<Self> {
        Ok(Self { inventory: Inventory::load(context).await? })
    }

    /// Number of blocks that a node owns.
    pub(in crate::cmd) fn blocks_of(&self, node: &str) -> usize {
        self.inventory.blocks.iter().filter(|block| block.owner.as_deref() == Some(node)).count()
    }

    /// Addresses in use, and blocks.
    pub(in crate::cmd) fn totals(&self) -> (u128, usize) {
        (self.inventory.blocks.iter().map(super::Block::in_use).sum(), self.inventory.blocks.len())
    }

    /// What does not agree.
    pub(in crate::cmd) fn findings(&self) -> Vec<String> {
        self.inventory.problems.clone()
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
pub async fn check<S: Store>(context: &Context<S>) -> Result<Outcome> {
    let cluster = Cluster::load(context).await?;
    let findings = cluster.findings();
    let finding = !findings.is_empty();
    if let Some(text) = machine(context.format, &findings)? {
        return Ok(Outcome { text, finding });
    }
    let mut text = String::new();
    findings.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    text.push_str(&format!("Check complete; found {} problems.\n", findings.len()));
    Ok(Outcome { text, finding })
}
