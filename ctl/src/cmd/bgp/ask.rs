//! A question to the speakers of nodes, through the API server: one object for each node, which its daemon answers.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use api::{BgpQuery, BgpQuerySpec, QUERY_LABEL, QUERY_NODE_LABEL, Resource as _, node_label};
use store::{DeletePreconditions, ListOptions, Store, StoreError};
use tokio::time::Instant;

use super::{Context, Freshness, NodeReport, reports};

/// A daemon that reports answers within a moment.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at the answers.
const PAUSE: Duration = Duration::from_millis(50);

/// What one node answered: JSON, or why there is nothing.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Name of the node.
    pub(super) node: String,
    /// The answer.
    pub(super) result: Result<String, String>,
}

/// Asks one node, or all. The node in `question` is filled in here.
pub(super) async fn ask<S: Store>(
    context: &Context<S>,
    node: Option<&str>,
    question: &BgpQuerySpec,
) -> Result<Vec<Answer>> {
    let nodes = nodes(context, node).await?;
    let asked: Vec<String> =
        nodes.iter().filter(|(_, silent)| silent.is_none()).map(|(node, _)| node.clone()).collect();
    let silent = nodes.into_iter().filter_map(|(node, silent)| Some((node, silent?)));
    let silent = silent.map(|(node, why)| Answer { node, result: Err(why) });
    let mut answers = put(context, &asked, question).await?;
    answers.extend(silent);
    answers.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(answers)
}

/// Lists the nodes that are meant, and why one is not worth asking.
pub(super) async fn nodes<S: Store>(
    context: &Context<S>,
    node: Option<&str>,
) -> Result<Vec<(String, Option<String>)>> {
    let (reports, _) = reports(context).await?;
    let meant = reports.iter().filter(|report| node.is_none_or(|node| node == report.node));
    let meant: Vec<_> = meant.map(|report| (report.node.clone(), silent(report))).collect();
    if meant.is_empty() {
        let known: Vec<&str> = reports.iter().map(|report| report.node.as_str()).collect();
        let Some(node) = node else { bail!("there are no nodes") };
        let is_peer = |session: &api::PeerStatus| session.name == node || session.address == node;
        if reports.iter().flat_map(|report| &report.sessions).any(is_peer) {
            bail!("'{node}' is a peer, not a node; for that peer of every node write '*/{node}'");
        }
        bail!("there is no node '{node}'; there are {}", known.join(", "));
    }
    Ok(meant)
}

/// Asks these nodes, and waits for their answers.
pub(super) async fn put<S: Store>(
    context: &Context<S>,
    nodes: &[String],
    question: &BgpQuerySpec,
) -> Result<Vec<Answer>> {
    let mut answers: BTreeMap<String, Option<Result<String, String>>> =
        nodes.iter().map(|node| (node.clone(), None)).collect();
    let id = id(context);
    let mut keys = Vec::new();
    let mut asked = Ok(());
    for node in nodes {
        let query = query(&id, node, question);
        keys.push(query.key());
        asked = create(context, &query).await;
        if asked.is_err() {
            break;
        }
    }
    let listened = match asked {
        Ok(()) => listen(context, &id, &mut answers).await,
        Err(error) => Err(error),
    };
    // Also after an error. What we cannot remove the daemons do.
    for key in keys {
        let _ = context.store.delete::<BgpQuery>(&key, &DeletePreconditions::default()).await;
    }
    listened?;
    let late = || {
        let seconds = PATIENCE.as_secs();
        Err(format!("no answer within {seconds} s; look at the log of voile-node on it"))
    };
    let answers = answers.into_iter();
    Ok(answers.map(|(node, result)| Answer { node, result: result.unwrap_or_else(late) }).collect())
}

/// A name for the questions of one command, another one each time.
pub(super) fn id<S>(context: &Context<S>) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{}-{count}", context.now, std::process::id())
}

/// Why a node is not asked.
fn silent(report: &NodeReport) -> Option<String> {
    match report.report {
        Freshness::Fresh => None,
        Freshness::Stale => Some("its daemon does not report, so it would not answer".to_owned()),
        Freshness::Missing => Some("its daemon never reported".to_owned()),
    }
}

/// Makes the object for one node. Two questions of one command to the same node have different names.
pub(super) fn query(id: &str, node: &str, question: &BgpQuerySpec) -> BgpQuery {
    // Names of objects are as long as names of nodes.
    let short = node.get(..node.len().min(200)).unwrap_or("node").trim_end_matches(['.', '-']);
    let spec = BgpQuerySpec { node: node.to_owned(), ..question.clone() };
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut query = BgpQuery::new(format!("{short}-{id}-{count}"), spec);
    let labels = [(QUERY_NODE_LABEL, node_label(node)), (QUERY_LABEL, id)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    query.metadata.labels.extend(labels);
    query
}

/// Puts the question.
pub(super) async fn create<S: Store>(context: &Context<S>, query: &BgpQuery) -> Result<()> {
    match context.store.create(query).await {
        Ok(_) => Ok(()),
        Err(StoreError::NotFound { .. }) => Err(anyhow!(
            "this cluster has no bgpqueries.voile.dev; install the CRDs: kubectl apply -f deploy/crds"
        )),
        Err(error) => Err(error).context("cannot ask: creating a bgpqueries.voile.dev failed"),
    }
}

async fn listen<S: Store>(
    context: &Context<S>,
    id: &str,
    answers: &mut BTreeMap<String, Option<Result<String, String>>>,
) -> Result<()> {
    let started = Instant::now();
    let ours = ListOptions::consistent().label(QUERY_LABEL, id);
    while answers.values().any(Option::is_none) && started.elapsed() < PATIENCE {
        tokio::time::sleep(PAUSE).await;
        for query in context.list_with::<BgpQuery>(&ours).await?.items {
            let query = query.into_inner();
            let Some(status) = query.status.filter(|status| status.answered_at.is_some()) else {
                continue;
            };
            let Some(answer) = answers.get_mut(&query.spec.node) else { continue };
            *answer = Some(match (status.answer, status.error) {
                (Some(answer), _) => Ok(answer),
                (None, error) => Err(error.unwrap_or_else(|| "an empty answer".to_owned())),
            });
        }
    }
    Ok(())
}
