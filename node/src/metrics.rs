//! Prometheus metrics and the pages around them, made of snapshots when somebody asks.

use std::{sync::Arc, time::Duration};

use bgp::{
    driver::Stopped,
    report::{Exposition, speaker_metrics},
};

use crate::{
    http::{Page, PageFuture, Pages},
    status::Snapshots,
};

/// How long a busy speaker is waited for; Prometheus gives up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns the pages of the daemon's HTTP server.
pub(crate) fn pages(snapshots: Snapshots) -> Pages {
    Arc::new(move |path| {
        let page = match path {
            "/metrics" => {
                let snapshots = snapshots.clone();
                return Some(Box::pin(async move { Page::metrics(render(&snapshots).await) }));
            }
            "/healthz" => Page::text(200, "ok\n"),
            "/readyz" => match snapshots.ready() {
                Ok(()) => Page::text(200, "ok\n"),
                Err(reason) => Page::text(503, reason + "\n"),
            },
            "/status" => match serde_json::to_string_pretty(&snapshots.status()) {
                Ok(body) => Page { status: 200, content_type: "application/json", body },
                Err(error) => Page::text(500, error.to_string()),
            },
            _ => return None,
        };
        Some(Box::pin(std::future::ready(page)) as PageFuture)
    })
}

async fn render(snapshots: &Snapshots) -> Exposition {
    let mut text = Exposition::default();
    build_info(&mut text);
    bgp(&mut text, snapshots).await;
    policy(&mut text, snapshots);
    let sync = snapshots.sync.borrow();
    text.single(
        "voile_datastore_in_sync",
        "gauge",
        "Whether everything was read once.",
        u8::from(sync.synced),
    );
    text.family("voile_datastore_watch_down", "gauge", "Watches that are down at the moment.");
    for kind in sync.trouble.keys() {
        text.sample("voile_datastore_watch_down", &[("kind", kind)], 1);
    }
    text
}

/// What runs here.
pub(crate) fn build_info(text: &mut Exposition) {
    let name = "voile_build_info";
    text.family(name, "gauge", "The version of the program, as a label.");
    text.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
}

async fn bgp(text: &mut Exposition, snapshots: &Snapshots) {
    let handle = snapshots.speaker.borrow().clone();
    let asked = match &handle {
        Some(handle) => tokio::time::timeout(PATIENCE, handle.snapshot(false)).await,
        None => Ok(Err(Stopped)),
    };
    let known = asked.ok().and_then(Result::ok);
    text.single(
        "voile_bgp_up",
        "gauge",
        "Whether the speaker runs and answers.",
        u8::from(known.is_some()),
    );
    if let Some(known) = known {
        speaker_metrics(&known, text);
    }
    let report = snapshots.bgp.borrow();
    text.single("voile_bgp_routes", "gauge", "Routes learned by BGP and in use.", report.routes);
    text.single(
        "voile_bgp_problems",
        "gauge",
        "Peers and filters of the configuration that cannot be used; the log names them.",
        report.problems.len(),
    );
    text.single(
        "voile_ipam_blocks",
        "gauge",
        "IPAM blocks that this node owns.",
        report.blocks.len(),
    );
}

fn policy(text: &mut Exposition, snapshots: &Snapshots) {
    let status = snapshots.policy.borrow();
    text.single(
        "voile_policy_endpoints",
        "gauge",
        "Pods whose policy is in the kernel.",
        status.endpoints,
    );
    text.single(
        "voile_policy_endpoints_waiting",
        "gauge",
        "Pods whose policy is not in the kernel yet.",
        status.not_ready.len(),
    );
    text.single(
        "voile_policy_problems",
        "gauge",
        "Policies, tiers and sets that are not enforced as written; /status names them.",
        status.problems.len(),
    );
    text.single(
        "voile_policies",
        "gauge",
        "Policies that select a pod of this node.",
        status.policies,
    );
    text.single("voile_nft_sets", "gauge", "Sets in the table voile.", status.table.sets);
    text.single("voile_nft_rules", "gauge", "Rules in the table voile.", status.table.rules);
    text.single(
        "voile_nft_commits_total",
        "counter",
        "Transactions that the kernel took.",
        status.commits,
    );
    text.single(
        "voile_nft_drift_repairs_total",
        "counter",
        "Times that the table was repaired after someone else changed it.",
        status.drift_repairs,
    );
    text.single("voile_routes", "gauge", "Routes of ours in the kernel.", status.routes);
    text.single(
        "voile_route_repairs_total",
        "counter",
        "Routes written again after someone else removed them.",
        status.route_repairs,
    );
    let name = "voile_nft_apply_seconds";
    text.family(
        name,
        "histogram",
        "From the first change of a transaction to the kernel's acknowledgement.",
    );
    let bucket = format!("{name}_bucket");
    let mut below = 0_u64;
    for (bound, count) in status.apply.buckets() {
        below = below.saturating_add(count);
        let bound = bound.map_or_else(|| "+Inf".to_owned(), seconds);
        text.sample(&bucket, &[("le", &bound)], below);
    }
    text.sample(&format!("{name}_sum"), &[], seconds(status.apply.sum_micros));
    text.sample(&format!("{name}_count"), &[], status.apply.count);
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
