//! What this node reports of itself: one `NodeNetworkState`, written on change and as a sign of life.

use std::time::Duration;

use api::{
    BgpState, DaemonState, IpamState, Key, NodeNetworkState, NodeNetworkStateSpec,
    NodeNetworkStateStatus, PolicyState, RouteCounts,
};
use bgp::driver::Handle;
use ipam::{Clock, UnixNanos};
use serde_json::json;
use store::{Store, StoreError};
use tokio::{sync::watch, time::Instant};

use crate::{report::BgpReport, speaker_task::Ends, sync::SyncState, tasks::Context};

/// Shortest time between two writes.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Longest time between two writes: older than three of these means that the daemon is gone.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// Problems that the report names; `/metrics` counts all, the log names all.
const SHOWN_PROBLEMS: usize = 20;

/// Where the reports come from.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    pub(crate) node_name: String,
    pub(crate) started_at: String,
    pub(crate) speaker: watch::Receiver<Option<Handle>>,
    pub(crate) bgp: watch::Receiver<BgpReport>,
    pub(crate) policy: watch::Receiver<felix::driver::Status>,
    pub(crate) sync: watch::Receiver<SyncState>,
    clock: Clock,
}

impl Snapshots {
    pub(crate) fn new(context: &Context, speaker: &Ends, sync: watch::Receiver<SyncState>) -> Self {
        let clock = Clock::system();
        Self {
            node_name: context.node_name.clone(),
            started_at: clock.now().rfc3339(),
            speaker: speaker.handle.clone(),
            bgp: speaker.report.clone(),
            policy: context.felix.status(),
            sync,
            clock,
        }
    }

    /// Whether the node serves pods: everything read once and in the kernel.
    pub(crate) fn ready(&self) -> Result<(), String> {
        let sync = self.sync.borrow();
        if !sync.synced {
            return Err(sync.trouble.iter().next().map_or_else(
                || "the cluster's objects are still being read".to_owned(),
                |(kind, reason)| format!("cannot read {kind}: {reason}"),
            ));
        }
        let policy = self.policy.borrow();
        match (&policy.last_error, policy.in_sync) {
            (Some(error), _) => Err(format!("the kernel refuses policy: {error}")),
            (None, false) => Err("policy is not in the kernel yet".to_owned()),
            (None, true) => Ok(()),
        }
    }

    /// The report, without its time.
    pub(crate) fn status(&self) -> NodeNetworkStateStatus {
        let (bgp, policy) = (self.bgp.borrow().clone(), self.policy.borrow().clone());
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        NodeNetworkStateStatus {
            updated_at: None,
            daemon: Some(DaemonState {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_at: Some(self.started_at.clone()),
                pid: std::process::id(),
            }),
            bgp: Some(BgpState {
                local_as: bgp.local_as,
                router_id: bgp.router_id,
                peers: bgp.peers,
                problems: bgp.problems.into_iter().take(SHOWN_PROBLEMS).collect(),
            }),
            ipam: Some(IpamState { blocks: bgp.blocks }),
            policy: Some(PolicyState {
                local_endpoints: count(policy.endpoints),
                policies: count(policy.policies),
                ip_sets: count(policy.table.sets),
                rules: count(policy.table.rules),
                revision: policy.commits,
                last_applied: policy.last_commit.map(|at| UnixNanos::from(at).rfc3339()),
                last_apply_micros: policy.last_apply_micros,
                last_error: policy.last_error,
                problems: policy.problems.into_iter().take(SHOWN_PROBLEMS).collect(),
            }),
            routes: Some(RouteCounts {
                bgp: bgp.routes,
                local: count(policy.routes).saturating_sub(bgp.routes),
            }),
        }
    }
}

/// Writes the report until the task is dropped. A server that does not answer costs nothing but the report.
pub(crate) async fn run<S: Store>(store: S, mut snapshots: Snapshots) {
    let key = Key::cluster(&snapshots.node_name);
    let mut written: Option<(NodeNetworkStateStatus, Instant)> = None;
    loop {
        let status = snapshots.status();
        let due = written
            .as_ref()
            .is_none_or(|(last, at)| *last != status || at.elapsed() >= AT_LEAST_EVERY);
        if due {
            let now = snapshots.clock.now().rfc3339();
            match write(&store, &key, &status, &now).await {
                Ok(()) => written = Some((status, Instant::now())),
                Err(error) => tracing::debug!(%error, "cannot write NodeNetworkState"),
            }
        }
        tokio::time::sleep(AT_MOST_EVERY).await;
        let changed = async {
            tokio::select! {
                changed = snapshots.bgp.changed() => changed,
                changed = snapshots.policy.changed() => changed,
            }
        };
        // A sender that is gone ends with the daemon; until then the sign of life goes on.
        if let Ok(Err(_)) = tokio::time::timeout(AT_LEAST_EVERY, changed).await {
            tokio::time::sleep(AT_LEAST_EVERY).await;
        }
    }
}

async fn write<S: Store>(
    store: &S,
    key: &Key,
    status: &NodeNetworkStateStatus,
    now: &str,
) -> Result<(), StoreError> {
    let status = NodeNetworkStateStatus { updated_at: Some(now.to_owned()), ..status.clone() };
    let mut patch = json!({"status": status});
    // What is absent in a merge patch stays as it was: an error that is over must be taken back.
    for (part, field) in [("policy", "lastError"), ("policy", "problems"), ("bgp", "problems")] {
        let part = patch.pointer_mut(&format!("/status/{part}"));
        if let Some(part) = part.and_then(|found| found.as_object_mut()) {
            part.entry(field).or_insert(serde_json::Value::Null);
        }
    }
    match store.patch::<NodeNetworkState>(key, Some("status"), &patch).await {
        Err(StoreError::NotFound { .. }) => {
            let object = NodeNetworkState::new(&key.name, NodeNetworkStateSpec {});
            match store.create(&object).await {
                Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
            store.patch::<NodeNetworkState>(key, Some("status"), &patch).await.map(drop)
        }
        other => other.map(drop),
    }
}
