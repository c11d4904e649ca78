//! Answers questions to the speaker of this node ([`api::BgpQuery`]).

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use api::{BgpQuery, BgpQuerySpec, Key, QUERY_NODE_LABEL, Resource as _, node_label};
use bgp::{
    Prefix,
    driver::Handle,
    report::{PeerReport, RouteReport},
};
use futures::StreamExt as _;
use ipam::Clock;
use ipnet::IpNet;
use serde_json::json;
use store::{
    DeletePreconditions, ListOptions, Store, StoreError,
    informer::{Change, FollowOptions, follow},
};
use tokio::{sync::watch, time::Instant};

/// Who asked has read the answer by then, or never will.
const KEEP: Duration = Duration::from_secs(60);
/// Answers are no place for tables: etcd takes 1.5 MB.
const LONGEST_ANSWER: usize = 1 << 20;

/// Answers until the task is dropped.
pub(super) async fn run<S: Store>(
    store: S,
    node_name: String,
    handle: watch::Receiver<Option<Handle>>,
    blocks: watch::Receiver<BTreeSet<IpNet>>,
) {
    let list = ListOptions::cached().label(QUERY_NODE_LABEL, node_label(&node_name));
    let mut changes = std::pin::pin!(follow::<BgpQuery>(store.clone(), FollowOptions::new(list)));
    let clock = Clock::system();
    // In order of time.
    let mut answered: Vec<(Instant, Key)> = Vec::new();
    loop {
        let expires = answered.first().map(|(at, _)| *at + KEEP);
        let change = tokio::select! {
            change = changes.next() => change,
            () = sleep_until(expires) => {
                let (_, key) = answered.remove(0);
                // Usually it is gone already.
                if let Err(error) = store.delete::<BgpQuery>(&key, &DeletePreconditions::default()).await
                    && !matches!(error, StoreError::NotFound { .. })
                {
                    tracing::debug!(%error, %key, "cannot remove a question that was answered");
                }
                continue;
            }
        };
        match change {
            None => return,
            Some(Change::Applied(query)) if query.spec.node == node_name => {
                let key = query.key();
                if answered.iter().any(|(_, known)| *known == key) {
                    continue;
                }
                answered.push((Instant::now(), key.clone()));
                let asked = query.status.as_ref().is_none_or(|status| status.answered_at.is_none());
                if asked {
                    let speaker = handle.borrow().clone();
                    let known = blocks.borrow().clone();
                    let result = answer(&query.spec, speaker, &known).await;
                    let now = clock.now().rfc3339();
                    let patch = match result {
                        Ok(answer) => json!({"status": {"answeredAt": now, "answer": answer}}),
                        Err(error) => json!({"status": {"answeredAt": now, "error": error}}),
                    };
                    if let Err(error) = store.patch::<BgpQuery>(&key, Some("status"), &patch).await
                    {
                        tracing::warn!(%error, %key, "cannot answer a question to the BGP speaker");
                    }
                }
            }
            Some(Change::Deleted(key, _)) => answered.retain(|(_, known)| *known != key),
            Some(_) => {}
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn answer(
    question: &BgpQuerySpec,
    speaker: Option<Handle>,
    blocks: &BTreeSet<IpNet>,
) -> Result<String, String> {
    let speaker = speaker.ok_or("the speaker has not started yet")?;
    let answer = match (&question.destination, &question.peer) {
        (Some(destination), _) => route(destination, &speaker, blocks).await?,
        (None, Some(peer)) => peers(peer, &speaker).await?,
        (None, None) => return Err("neither a destination nor a peer is asked for".to_owned()),
    };
    if answer.len() > LONGEST_ANSWER {
        return Err("the answer is too long for an object; ask for one peer".to_owned());
    }
    Ok(answer)
}

async fn route(
    destination: &str,
    speaker: &Handle,
    blocks: &BTreeSet<IpNet>,
) -> Result<String, String> {
    let stopped = |stopped: bgp::driver::Stopped| stopped.to_string();
    let explanation = match destination.parse::<IpAddr>() {
        Ok(address) => speaker.explain_address(address).await.map_err(stopped)?,
        Err(_) => {
            let prefix = destination.parse::<Prefix>().map_err(|error| error.to_string())?;
            speaker.explain(prefix).await.map_err(stopped)?
        }
    };
    let explanation = explanation.ok_or_else(|| format!("there is no path to {destination}"))?;
    let mut report = RouteReport::from(&explanation);
    if report.kernel.state == "local" {
        let is_block = blocks.iter().any(|block| block.to_string() == report.prefix);
        report.kernel.why = Some(if is_block {
            "block of this node: routes to its pods, a blackhole for the rest of it (protocol 80)"
                .to_owned()
        } else {
            "address of a pod of this node: the route to its interface (protocol 80)".to_owned()
        });
    }
    serde_json::to_string(&report).map_err(|error| error.to_string())
}

async fn peers(wanted: &str, speaker: &Handle) -> Result<String, String> {
    let snapshot = speaker.snapshot(false).await.map_err(|stopped| stopped.to_string())?;
    let named = snapshot.peers.iter().filter(|peer| {
        wanted.is_empty() || peer.name == wanted || peer.address.to_string() == wanted
    });
    let reports: Vec<PeerReport> = named.map(PeerReport::from).collect();
    if reports.is_empty() {
        return Err(match wanted {
            "" => "this node has no peers".to_owned(),
            wanted => format!("this node has no peer '{wanted}'"),
        });
    }
    serde_json::to_string(&reports).map_err(|error| error.to_string())
}
