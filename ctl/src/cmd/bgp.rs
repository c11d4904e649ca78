//! `voilectl bgp`: sessions as every node's daemon reports them; routes and histories as it answers when asked.

mod ask;
pub mod diff;
pub mod monitor;
pub mod neighbors;
pub mod operate;
pub mod rib;
pub mod route;
mod which;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use anyhow::{Result, bail};
use api::{BgpAction, Node, NodeNetworkState, PeerOrigin, PeerStatus, Resource as _};
use serde::Serialize;
use store::Store;

use super::{Context, Outcome};
use crate::{
    cli::{BgpCommand, Direction},
    output::{Format, Table, machine},
    time,
};

/// A daemon writes at least every 30 s; three missed reports mean that it does not run or does not reach the API server.
const STALE_SECONDS: u64 = 90;

/// What is known of one node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Name of the node.
    pub node: String,
    /// Whether the report can be relied on.
    pub report: Freshness,
    /// Age of the report in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Its sessions.
    pub sessions: Vec<PeerStatus>,
    /// What of the configuration it cannot use, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unusable: Vec<String>,
}

/// Whether a node's report can be relied on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Freshness {
    /// Younger than 90 s.
    Fresh,
    /// Older.
    Stale,
    /// The daemon never reported.
    Missing,
}

impl NodeReport {
    /// Pairs a node with its report, if there is one.
    #[must_use]
    pub fn new(node: &str, state: Option<&NodeNetworkState>, now: u64) -> Self {
        let status = state.and_then(|state| state.status.as_ref());
        let written = status.and_then(|status| status.updated_at.as_deref()).and_then(time::parse);
        let age_seconds = written.map(|then| now.saturating_sub(then));
        let report = match age_seconds {
            None => Freshness::Missing,
            Some(age) if age > STALE_SECONDS => Freshness::Stale,
            Some(_) => Freshness::Fresh,
        };
        let bgp = status.and_then(|status| status.bgp.clone()).unwrap_or_default();
        Self {
            node: node.to_owned(),
            report,
            age_seconds,
            sessions: bgp.peers,
            unusable: bgp.problems,
        }
    }

    /// Returns what is wrong with the node's report and its sessions, one line each, with what to do.
    #[must_use]
    pub fn problems(&self, now: u64) -> Vec<String> {
        let node = &self.node;
        let remedy =
            "look at the log of voile-node on it (is it running, does it reach the API server?)";
        match self.report {
            Freshness::Missing => {
                return vec![format!("{node}: its daemon never reported; {remedy}")];
            }
            Freshness::Stale => {
                let age = time::age(self.age_seconds.unwrap_or_default());
                return vec![format!(
                    "{node}: last report is {age} old, its sessions are not known now; {remedy}"
                )];
            }
            Freshness::Fresh => {}
        }
        let down = self.sessions.iter().filter(|session| !established(session));
        down.map(|session| down_line(node, session, now)).collect()
    }
}

/// Returns what nodes cannot use of the configuration: one line for all nodes that say the same.
pub(super) fn unusable(reports: &[NodeReport]) -> Vec<String> {
    let mut nodes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for report in reports.iter().filter(|report| report.report == Freshness::Fresh) {
        for problem in &report.unusable {
            nodes.entry(problem).or_default().push(&report.node);
        }
    }
    let all = nodes.into_iter().map(|(problem, nodes)| match &nodes[..] {
        [a, b, c, _, _, ..] => {
            format!("{a}, {b}, {c} and {} more nodes: {problem}", nodes.len() - 3)
        }
        _ => format!("{}: {problem}", nodes.join(", ")),
    });
    all.collect()
}

fn established(session: &PeerStatus) -> bool {
    session.state == "Established"
}

fn down_line(node: &str, session: &PeerStatus, now: u64) -> String {
    let lasting = time::since(session.since.as_deref(), now);
    let lasting = if lasting.is_empty() { String::new() } else { format!(" for {lasting}") };
    let cause = session.last_error.as_deref().unwrap_or("no error yet; the peer has not answered");
    let look = match session.peer_type {
        PeerOrigin::NodeMesh => "voilectl get nodes".to_owned(),
        _ => format!("voilectl get bgppeer {} -o yaml", resource(&session.name)),
    };
    format!("{node}: {} is {}{lasting}: {cause} -> {look}", peer(session), session.state)
}

/// The BGPPeer that a session comes from: sessions of selector peerings are called `<resource>/<node>`.
fn resource(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// `10.0.1.1 (tor-a)`; names that only repeat the address are left out.
fn peer(session: &PeerStatus) -> String {
    let PeerStatus { address, name, .. } = session;
    if name.is_empty() || name == address { address.clone() } else { format!("{address} ({name})") }
}

/// Runs `bgp`.
///
/// # Errors
/// Why it could not be done.
pub(super) async fn run<S: Store>(context: &Context<S>, command: &BgpCommand) -> Result<Outcome> {
    match command {
        BgpCommand::Summary { failed, node } => summary(context, *failed, node.as_deref()).await,
        BgpCommand::Neighbors { which } => neighbors::neighbors(context, which.as_deref()).await,
        BgpCommand::Route { destination, node } => {
            route::route(context, destination, node.as_deref()).await
        }
        BgpCommand::Rib(args) => rib::rib(context, args).await,
        BgpCommand::Diff { which } => diff::diff(context, which).await,
        BgpCommand::Monitor { which, lasting } => monitor::monitor(context, which, *lasting).await,
        BgpCommand::Clear { which, soft, text } => {
            let action = match soft {
                None => BgpAction::Reset,
                Some(Direction::In) => BgpAction::RefreshIn,
                Some(Direction::Out) => BgpAction::RefreshOut,
            };
            operate::operate(context, which, action, text.as_deref()).await
        }
        BgpCommand::Refresh { which } => {
            operate::operate(context, which, BgpAction::RefreshIn, None).await
        }
    }
}

/// Reads the reports of all nodes, by name.
pub(super) async fn reports<S: Store>(
    context: &Context<S>,
) -> Result<(Vec<NodeReport>, Vec<String>)> {
    let nodes = context.list::<Node>().await?;
    let states = context.list::<NodeNetworkState>().await?;
    let names: BTreeSet<String> = nodes
        .items
        .iter()
        .map(|node| node.key().name)
        .chain(states.items.iter().map(|state| state.key().name))
        .collect();
    let find = |name: &str| states.items.iter().find(|state| state.metadata.name == name);
    let reports = names
        .iter()
        .map(|name| NodeReport::new(name, find(name).map(|state| &**state), context.now))
        .collect();
    let malformed = states.malformed.iter();
    let malformed = malformed.map(|(key, why)| format!("{key}: its report cannot be read: {why}"));
    Ok((reports, malformed.collect()))
}

/// Runs `bgp summary`.
///
/// # Errors
/// A node that does not exist, and whatever the API server answers.
pub async fn summary<S: Store>(
    context: &Context<S>,
    failed: bool,
    node: Option<&str>,
) -> Result<Outcome> {
    let (mut reports, mut problems) = reports(context).await?;
    if let Some(node) = node {
        let known: Vec<_> = reports.iter().map(|report| report.node.clone()).collect();
        reports.retain(|report| report.node == node);
        problems.retain(|problem| problem.starts_with(&format!("{node}:")));
        if reports.is_empty() {
            bail!("there is no node '{node}'; there are {}", known.join(", "));
        }
    }
    problems.extend(reports.iter().flat_map(|report| report.problems(context.now)));
    problems.extend(unusable(&reports));
    let finding = !problems.is_empty();
    if failed {
        for report in &mut reports {
            let all = report.report != Freshness::Fresh;
            report.sessions.retain(|session| all || !established(session));
        }
    }
    if let Some(text) = machine(context.format, &reports)? {
        return Ok(Outcome { text, finding });
    }
    if context.format == Format::Name {
        let names = reports.iter().flat_map(|report| {
            report.sessions.iter().map(|session| format!("{}/{}\n", report.node, session.address))
        });
        return Ok(Outcome { text: names.collect(), finding });
    }
    let text = render(&reports, &problems, context, failed);
    Ok(Outcome { text, finding })
}

fn render<S>(
    reports: &[NodeReport],
    problems: &[String],
    context: &Context<S>,
    failed: bool,
) -> String {
    let wide = context.format == Format::Wide;
    let mut headers =
        vec!["NODE", "PEER", "LOCAL-AS", "PEER-AS", "STATE", "UP", "RCV", "ACC", "ADV", "GR"];
    if wide {
        headers.extend(["INST", "FAMILIES", "BFD", "TYPE"]);
    }
    headers.push("LAST-ERROR");
    let mut table = Table::new(&headers);
    for report in reports {
        for session in &report.sessions {
            table.row(row(report, session, context.now, wide));
        }
        if report.sessions.is_empty() && report.report != Freshness::Fresh {
            let mut cells = vec![String::new(); headers.len()];
            if let [name, _, _, _, state, ..] = cells.as_mut_slice() {
                name.clone_from(&report.node);
                *state =
                    if report.report == Freshness::Missing { "(no report)" } else { "(stale)" }
                        .to_owned();
            }
            table.row(cells);
        }
    }
    let mut text = if table.is_empty() { String::new() } else { table.render() };
    if !failed {
        let sessions =
            || reports.iter().flat_map(|report| report.sessions.iter().map(move |s| (report, s)));
        let up = sessions().filter(|(r, s)| r.report == Freshness::Fresh && established(s)).count();
        match sessions().count() {
            0 if !problems.is_empty() => {}
            0 => text.push_str("no BGP sessions; a BGPPeer or the node-to-node mesh makes them\n"),
            all => drop(writeln!(text, "{up}/{all} established")),
        }
    } else if problems.is_empty() {
        text.push_str("every session is established\n");
    }
    for problem in problems {
        let _ = writeln!(text, "{problem}");
    }
    text
}

fn row(report: &NodeReport, session: &PeerStatus, now: u64, wide: bool) -> Vec<String> {
    let fresh = report.report == Freshness::Fresh;
    let state = if fresh { session.state.clone() } else { format!("{} (stale)", session.state) };
    let up = established(session).then(|| time::since(session.since.as_deref(), now));
    let mut cells = vec![
        report.node.clone(),
        peer(session),
        session.local_as.to_string(),
        session.peer_as.to_string(),
        state,
        up.unwrap_or_default(),
        session.received.to_string(),
        session.accepted.to_string(),
        session.advertised.to_string(),
        session.graceful_restart.clone().unwrap_or_default(),
    ];
    if wide {
        cells.push(session.installed.to_string());
        cells.push(session.families.join(","));
        cells.push(session.bfd.clone().unwrap_or_default());
        cells.push(
            serde_json::to_value(session.peer_type)
                .ok()
                .and_then(|v| v.as_str().map(str::to_owned))
                .unwrap_or_default(),
        );
    }
    cells.push(session.last_error.clone().unwrap_or_default());
    cells
}

#[cfg(test)]
mod tests;
