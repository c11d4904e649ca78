//! A question to the speakers of nodes, through the API server: one object for each node, which its daemon answers.

use std::{collections::BTreeMap, time::Duration};

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
    let (reports, _) = reports(context).await?;
    let mut answers: BTreeMap<String, Option<Result<String, String>>> = BTreeMap::new();
    for report in reports.iter().filter(|report| node.is_none_or(|node| node == report.node)) {
        answers.insert(report.node.clone(), silent(report).map(Err));
    }
    if answers.is_empty() {
        let known: Vec<&str> = reports.iter().map(|report| report.node.as_str()).collect();
        match node {
            Some(node) => bail!("there is no node '{node}'; there are {}", known.join(", ")),
            None => bail!("there are no nodes"),
        }
    }
    let id = format!("{:x}-{}", context.now, std::process::id());
    let waiting: Vec<String> = answers
        .iter()
        .filter(|(_, answer)| answer.is_none())
        .map(|(node, _)| node.clone())
        .collect();
    let mut keys = Vec::new();
    let mut asked = Ok(());
    for node in &waiting {
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

/// Why a node is not asked.
fn silent(report: &NodeReport) -> Option<String> {
    match report.report {
        Freshness::Fresh => None,
        Freshness::Stale => Some("its daemon does not report, so it would not answer".to_owned()),
        Freshness::Missing => Some("its daemon never reported".to_owned()),
    }
}

fn query(id: &str, node: &str, question: &BgpQuerySpec) -> BgpQuery {
    // Names of objects are as long as names of nodes.
    let short = node.get(..node.len().min(200)).unwrap_or("node").trim_end_matches(['.', '-']);
    let spec = BgpQuerySpec { node: node.to_owned(), ..question.clone() };
    let mut query = BgpQuery::new(format!("{short}-{id}"), spec);
    let labels = [(QUERY_NODE_LABEL, node_label(node)), (QUERY_LABEL, id)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    query.metadata.labels.extend(labels);
    query
}

async fn create<S: Store>(context: &Context<S>, query: &BgpQuery) -> Result<()> {
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
