//! `voilectl status` and `version`: one page about the whole cluster.

use std::collections::BTreeMap;

use anyhow::Result;
use api::{Node, NodeNetworkState, NodeNetworkStateStatus, Resource as _};
use serde::Serialize;
use store::Store;

use super::{
    Context, Outcome,
    bgp::{Freshness, NodeReport},
    ipam::fsck,
    policy::World,
};
use crate::{
    output::{Format, Table, count, machine},
    time,
};

/// One node, as `-o json` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeLine {
    node: String,
    report: Freshness,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    asn: Option<u32>,
    established: usize,
    sessions: usize,
    blocks: usize,
    endpoints: u64,
    policies: u64,
    routes: u64,
}

#[derive(Debug, Serialize)]
struct Page<'a> {
    nodes: &'a [NodeLine],
    problems: &'a [String],
}

/// Runs `status`: exit code 1 when there is a problem anywhere.
///
/// # Errors
/// Whatever the API server answers.
pub async fn status<S: Store>(context: &Context<S>) -> Result<Outcome> {
    let (reports, mut problems) = super::bgp::reports(context).await?;
    let states = states(context).await?;
    let (blocks, findings) = fsck::Cluster::observe(context).await?;
    let world = World::load(context).await?;
    let lines: Vec<NodeLine> = reports
        .iter()
        .map(|report| line(report, states.get(&report.node), blocks.blocks_of(&report.node)))
        .collect();
    for report in &reports {
        problems.extend(report.problems(context.now));
        let failed = states.get(&report.node).and_then(|state| state.policy.as_ref());
        if let Some(error) = failed.and_then(|policy| policy.last_error.as_deref()) {
            problems.push(format!(
                "{}: policy could not be written to the kernel: {error}",
                report.node
            ));
        }
    }
    problems.extend(super::bgp::unusable(&reports));
    problems.extend(findings.iter().map(|finding| format!("ipam: {}", finding.message)));
    problems.extend(world.problems.iter().map(|problem| format!("policy: {problem}")));
    let finding = !problems.is_empty();
    if let Some(text) = machine(context.format, &Page { nodes: &lines, problems: &problems })? {
        return Ok(Outcome { text, finding });
    }
    if context.format == Format::Name {
        return Ok(Outcome {
            text: lines.iter().map(|line| format!("{}\n", line.node)).collect(),
            finding,
        });
    }
    let mut text = table(&lines);
    let (taken, owned) = blocks.totals();
    text.push_str(&format!(
        "\n{}, addresses in use: {taken}, policies: {}, pods: {}\n",
        count(owned, "block"),
        world.policies().len(),
        world.pods.len()
    ));
    match problems.len() {
        0 => text.push_str("no problems\n"),
        number => {
            text.push_str(&format!("{}:\n", count(number, "problem")));
            problems.iter().for_each(|problem| text.push_str(&format!("  {problem}\n")));
        }
    }
    Ok(Outcome { text, finding })
}

async fn states<S: Store>(
    context: &Context<S>,
) -> Result<BTreeMap<String, NodeNetworkStateStatus>> {
    let listing = context.list::<NodeNetworkState>().await?;
    let states = listing.items.into_iter().map(store::Stored::into_inner);
    Ok(states.filter_map(|state| Some((state.metadata.name, state.status?))).collect())
}

fn line(report: &NodeReport, state: Option<&NodeNetworkStateStatus>, blocks: usize) -> NodeLine {
    let policy = state.and_then(|state| state.policy.as_ref());
    let bgp = state.and_then(|state| state.bgp.as_ref());
    let daemon = state.and_then(|state| state.daemon.as_ref());
    let routes = state.and_then(|state| state.routes);
    NodeLine {
        node: report.node.clone(),
        report: report.report,
        age_seconds: report.age_seconds,
        version: daemon.map(|daemon| daemon.version.clone()),
        asn: bgp.map(|bgp| bgp.local_as),
        established: report
            .sessions
            .iter()
            .filter(|session| session.state == "Established")
            .count(),
        sessions: report.sessions.len(),
        blocks,
        endpoints: policy.map_or(0, |policy| policy.local_endpoints),
        policies: policy.map_or(0, |policy| policy.policies),
        routes: routes.map_or(0, |routes| routes.bgp),
    }
}

fn table(lines: &[NodeLine]) -> String {
    let mut table = Table::new(&[
        "NODE",
        "REPORT",
        "VERSION",
        "ASN",
        "SESSIONS",
        "BGP-ROUTES",
        "BLOCKS",
        "PODS",
        "POLICIES",
    ]);
    for line in lines {
        let age = time::age(line.age_seconds.unwrap_or_default());
        let report = match line.report {
            Freshness::Fresh => format!("{age} ago"),
            Freshness::Stale => format!("STALE ({age})"),
            Freshness::Missing => "MISSING".to_owned(),
        };
        table.row([
            line.node.clone(),
            report,
            line.version.clone().unwrap_or_default(),
            line.asn.map(|asn| asn.to_string()).unwrap_or_default(),
            format!("{}/{}", line.established, line.sessions),
            line.routes.to_string(),
            line.blocks.to_string(),
            line.endpoints.to_string(),
            line.policies.to_string(),
        ]);
    }
    table.render()
}

/// Runs `version`.
///
/// # Errors
/// Whatever the API server answers.
pub async fn version<S: Store>(context: &Context<S>) -> Result<Outcome> {
    let client = env!("CARGO_PKG_VERSION");
    let nodes = context.list::<Node>().await?;
    let states = states(context).await?;
    let versions: BTreeMap<String, Option<String>> = nodes
        .items
        .iter()
        .map(|node| {
            let name = node.key().name;
            let daemon = states.get(&name).and_then(|state| state.daemon.as_ref());
            let version = daemon.map(|daemon| daemon.version.clone());
            (name, version)
        })
        .collect();
    let value = serde_json::json!({ "client": client, "nodes": versions });
    if let Some(text) = machine(context.format, &value)? {
        return Ok(Outcome::ok(text));
    }
    let mut table = Table::new(&["COMPONENT", "VERSION"]);
    table.row(["voilectl".to_owned(), client.to_owned()]);
    for (name, version) in versions {
        let version = version.filter(|version| !version.is_empty());
        table.row([
            format!("voile-node on {name}"),
            version.unwrap_or_else(|| "(no report)".to_owned()),
        ]);
    }
    Ok(Outcome::ok(table.render()))
}

#[cfg(test)]
mod tests;
