//! Answers questions to the speaker of this node ([`api::BgpQuery`]).

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use api::{
    BgpAction, BgpPolicySide, BgpQuery, BgpQuerySpec, BgpTable, BgpTableQuery, BgpWatchQuery, Key,
    QUERY_NODE_LABEL, Resource as _, node_label,
};
use bgp::{
    PeerAction, Prefix,
    driver::{Handle, Stopped},
    report::{HappeningsReport, RouteReport, TableReport},
    snapshot::{PeerSnapshot, PolicySide, Table, TableQuestion},
};
use futures::StreamExt as _;
use ipam::Clock;
use ipnet::IpNet;
use serde_json::json;
use store::{
    DeletePreconditions, ListOptions, Store, StoreError,
    informer::{Change, FollowOptions, follow},
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

/// Who asked has read the answer by then, or never will.
const KEEP: Duration = Duration::from_secs(60);
/// Answers are no place for tables: etcd takes 1.5 MB.
const LONGEST_ANSWER: usize = 1 << 20;
/// Paths of one part of a table: some hundred octets each.
const PART: usize = 1000;
/// How long a question about what happens waits for something to happen.
const WATCH: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Questions that are answered at the same time.
const AT_ONCE: usize = 32;

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
    // Some questions wait for something to happen; the others must not wait for them.
    let mut answers = JoinSet::new();
    loop {
        let expires = answered.first().map(|(at, _)| *at + KEEP);
        let change = tokio::select! {
            change = changes.next(), if answers.len() < AT_ONCE => change,
            Some(_) = answers.join_next() => continue,
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
                    let (store, clock) = (store.clone(), clock.clone());
                    let question = query.spec.clone();
                    answers.spawn(async move {
                        let result = answer(&question, speaker, &known).await;
                        write(&store, &key, result, &clock).await;
                    });
                }
            }
            Some(Change::Deleted(key, _)) => answered.retain(|(_, known)| *known != key),
            Some(_) => {}
        }
    }
}

async fn write<S: Store>(store: &S, key: &Key, result: Result<String, String>, clock: &Clock) {
    let now = clock.now().rfc3339();
    let patch = match result {
        Ok(answer) => json!({"status": {"answeredAt": now, "answer": answer}}),
        Err(error) => json!({"status": {"answeredAt": now, "error": error}}),
    };
    match store.patch::<BgpQuery>(key, Some("status"), &patch).await {
        // Who asked has given up.
        Ok(_) | Err(StoreError::NotFound { .. }) => {}
        Err(error) => {
            tracing::warn!(%error, %key, "cannot answer a question to the BGP speaker");
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
    let peer = question.peer.as_deref();
    let answer = if let Some(action) = question.action {
        operate(peer.unwrap_or_default(), action, question.text.clone(), &speaker).await?
    } else if let Some(wanted) = &question.table {
        table(wanted, peer, &speaker).await?
    } else if let Some(wanted) = &question.watch {
        happenings(wanted, &speaker).await?
    } else if let Some(destination) = &question.destination {
        route(destination, &speaker, blocks).await?
    } else if let Some(peer) = peer {
        peers(peer, &speaker).await?
    } else {
        return Err("nothing is asked that this version knows".to_owned());
    };
    if answer.len() > LONGEST_ANSWER {
        return Err("the answer is too long for an object; ask for one peer".to_owned());
    }
    Ok(answer)
}

fn stopped(stopped: Stopped) -> String {
    stopped.to_string()
}

fn prefix(text: &Option<String>) -> Result<Option<Prefix>, String> {
    let text = text.as_deref().filter(|text| !text.is_empty());
    text.map(|text| text.parse::<Prefix>().map_err(|error| error.to_string())).transpose()
}

/// Does something to a session; a log line says so, because it is a change that no object tells of afterwards.
async fn operate(
    peer: &str,
    action: BgpAction,
    text: Option<String>,
    speaker: &Handle,
) -> Result<String, String> {
    let (action, done) = match action {
        BgpAction::Reset => (PeerAction::reset(text.unwrap_or_default()), "session reset"),
        BgpAction::RefreshIn => (PeerAction::RefreshIn, "asked to send everything again"),
        BgpAction::RefreshOut => (PeerAction::RefreshOut, "everything is sent again"),
    };
    tracing::info!(%peer, ?action, "an operator acts on a session");
    speaker.operate(peer, action).await.map_err(stopped)??;
    serde_json::to_string(&json!({ "done": done })).map_err(|error| error.to_string())
}

async fn table(
    wanted: &BgpTableQuery,
    peer: Option<&str>,
    speaker: &Handle,
) -> Result<String, String> {
    let mut question = TableQuestion {
        table: match wanted.view {
            BgpTable::AdjIn => Table::AdjIn,
            BgpTable::Loc => Table::Loc,
            BgpTable::AdjOut => Table::AdjOut,
        },
        policy: match wanted.policy {
            BgpPolicySide::Pre => PolicySide::Pre,
            BgpPolicySide::Post => PolicySide::Post,
        },
        peer: peer.filter(|peer| !peer.is_empty()).map(str::to_owned),
        within: prefix(&wanted.within)?,
        after: prefix(&wanted.after)?,
        limit: PART,
    };
    loop {
        let part = speaker.table(question.clone()).await.map_err(stopped)?;
        let part = part.ok_or_else(|| {
            format!("this node has no peer '{}'", question.peer.as_deref().unwrap_or_default())
        })?;
        let text = serde_json::to_string(&TableReport::from(&part));
        let text = text.map_err(|error| error.to_string())?;
        // Attributes may be long: a smaller part, then.
        if text.len() <= LONGEST_ANSWER || question.limit <= 1 {
            return Ok(text);
        }
        question.limit /= 4;
    }
}

/// Waits until something happens, and answers that nothing did after a while.
async fn happenings(wanted: &BgpWatchQuery, speaker: &Handle) -> Result<String, String> {
    let within = prefix(&wanted.within)?;
    let until = Instant::now() + WATCH;
    loop {
        let happenings = speaker.happenings(&wanted.watcher, within).await.map_err(stopped)?;
        let happenings =
            happenings.ok_or("too many look on at this node already; try again in a minute")?;
        let report = HappeningsReport::from(&happenings);
        if !report.is_empty() || Instant::now() >= until {
            return serde_json::to_string(&report).map_err(|error| error.to_string());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn route(
    destination: &str,
    speaker: &Handle,
    blocks: &BTreeSet<IpNet>,
) -> Result<String, String> {
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
    let snapshot = speaker.snapshot(false).await.map_err(stopped)?;
    let named = snapshot.peers.iter().filter(|peer| {
        wanted.is_empty() || peer.name == wanted || peer.address.to_string() == wanted
    });
    let reports: Vec<&PeerSnapshot> = named.collect();
    if reports.is_empty() {
        return Err(match wanted {
            "" => "this node has no peers".to_owned(),
            wanted => format!("this node has no peer '{wanted}'"),
        });
    }
    serde_json::to_string(&reports).map_err(|error| error.to_string())
}
