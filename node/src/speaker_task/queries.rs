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

use super::Told;

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
/// As many peers are listed by name.
const SHOWN: usize = 20;
/// Questions that are answered at the same time.
const AT_ONCE: usize = 32;

/// Answers until the task is dropped.
pub(super) async fn run<S: Store>(
    store: S,
    node_name: String,
    handle: watch::Receiver<Option<Handle>>,
    told: watch::Receiver<Told>,
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
                    let named = sessions(question.peer.as_deref(), &told.borrow());
                    answers.spawn(async move {
                        let result = answer(&question, named, speaker, &known).await;
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

/// Returns the names of the sessions that a question is about; an empty text names none.
///
/// People know a session by its name, by the address of the peer, or by the BGPPeer that asks for it, whose selector may have found several
/// nodes (`reflectors` for `reflectors/n7` and `reflectors/n8`).
fn sessions(wanted: Option<&str>, told: &Told) -> Result<Vec<String>, String> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(Vec::new()) };
    let known = || told.spoken.iter().flat_map(|spoken| &spoken.config.peers);
    let exactly = known().filter(|peer| peer.name == wanted || peer.address.to_string() == wanted);
    let exactly: Vec<String> = exactly.map(|peer| peer.name.clone()).collect();
    if !exactly.is_empty() {
        return Ok(exactly);
    }
    let of = |name: &str| name.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('/'));
    let of_resource: Vec<String> =
        known().filter(|peer| of(&peer.name)).map(|peer| peer.name.clone()).collect();
    if !of_resource.is_empty() {
        return Ok(of_resource);
    }
    let mut others: Vec<&str> = known().map(|peer| peer.name.as_str()).collect();
    others.sort_unstable();
    Err(match others.len() {
        0 => format!("this node has no peer '{wanted}', nor any other"),
        SHOWN.. => format!("this node has no peer '{wanted}' among its {}", others.len()),
        _ => format!("this node has no peer '{wanted}'; it has {}", others.join(", ")),
    })
}

async fn answer(
    question: &BgpQuerySpec,
    named: Result<Vec<String>, String>,
    speaker: Option<Handle>,
    blocks: &BTreeSet<IpNet>,
) -> Result<String, String> {
    let speaker = speaker.ok_or("the speaker has not started yet")?;
    let named = named?;
    let answer = if let Some(action) = question.action {
        operate(&named, action, question.text.clone(), &speaker).await?
    } else if let Some(wanted) = &question.table {
        table(wanted, &named, &speaker).await?
    } else if let Some(wanted) = &question.watch {
        happenings(wanted, &speaker).await?
    } else if let Some(destination) = &question.destination {
        route(destination, &speaker, blocks).await?
    } else if question.peer.is_some() {
        peers(&named, &speaker).await?
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
    peers: &[String],
    action: BgpAction,
    text: Option<String>,
    speaker: &Handle,
) -> Result<String, String> {
    let (action, done) = match action {
        BgpAction::Reset => (PeerAction::reset(text.unwrap_or_default()), "session reset"),
        BgpAction::RefreshIn => (PeerAction::RefreshIn, "asked to send everything again"),
        BgpAction::RefreshOut => (PeerAction::RefreshOut, "everything is sent again"),
    };
    if peers.is_empty() {
        return Err("which session?".to_owned());
    }
    for peer in peers {
        tracing::info!(%peer, ?action, "an operator acts on a session");
        speaker.operate(peer, action.clone()).await.map_err(stopped)??;
    }
    serde_json::to_string(&json!({ "done": done })).map_err(|error| error.to_string())
}

async fn table(
    wanted: &BgpTableQuery,
    peers: &[String],
    speaker: &Handle,
) -> Result<String, String> {
    if peers.len() > 1 {
        return Err(format!("ask for one session at a time: {}", peers.join(", ")));
    }
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
        peer: peers.first().cloned(),
        within: prefix(&wanted.within)?,
        after: prefix(&wanted.after)?,
        limit: PART,
    };
    loop {
        let part = speaker.table(question.clone()).await.map_err(stopped)?;
        let part = part.ok_or_else(|| {
            format!("peer '{}' is gone", question.peer.as_deref().unwrap_or_default())
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

/// Some peers, or all if none are named.
async fn peers(named: &[String], speaker: &Handle) -> Result<String, String> {
    let snapshot = speaker.snapshot(false).await.map_err(stopped)?;
    let reports =
        snapshot.peers.iter().filter(|peer| named.is_empty() || named.contains(&peer.name));
    let reports: Vec<&PeerSnapshot> = reports.collect();
    if reports.is_empty() {
        return Err(match named {
            [] => "this node has no peers".to_owned(),
            _ => format!("the session with {} is gone", named.join(", ")),
        });
    }
    serde_json::to_string(&reports).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use bgp::{
        Asn,
        config::{PeerConfig, SpeakerConfig},
    };

    use super::*;
    use crate::speaker_config::Spoken;

    #[test]
    fn a_session_is_named_by_itself_by_its_address_or_by_its_bgppeer() {
        let mut config =
            SpeakerConfig::new(Asn(64512), std::net::Ipv4Addr::new(10, 0, 0, 1).into());
        for (name, address) in
            [("tor-a", "10.1.1.1"), ("reflectors/n2", "10.0.0.2"), ("reflectors/n3", "10.0.0.3")]
        {
            config.peers.push(PeerConfig::new(name, address.parse().unwrap(), Asn(65001)));
        }
        let spoken = Spoken { config, peerings: Vec::new(), problems: Vec::new() };
        let told = Told { spoken: Some(spoken), ..Told::default() };
        let named = |text| sessions(Some(text), &told);
        assert_eq!(named("tor-a").unwrap(), ["tor-a"]);
        assert_eq!(named("10.1.1.1").unwrap(), ["tor-a"]);
        assert_eq!(named("reflectors").unwrap(), ["reflectors/n2", "reflectors/n3"]);
        assert_eq!(named("reflectors/n3").unwrap(), ["reflectors/n3"]);
        assert!(named("").unwrap().is_empty());
        assert_eq!(
            named("tor").unwrap_err(),
            "this node has no peer 'tor'; it has reflectors/n2, reflectors/n3, tor-a"
        );
        let nobody = sessions(Some("tor-b"), &Told::default()).unwrap_err();
        assert_eq!(nobody, "this node has no peer 'tor-b', nor any other");
    }
}
