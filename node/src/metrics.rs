//! Prometheus metrics and the pages around them, made of snapshots when somebody asks.

use std::{fmt::Write as _, sync::Arc};

use crate::{
    http::{Page, PageFuture, Pages},
    status::Snapshots,
};

/// Returns the pages of the daemon's HTTP server.
pub(crate) fn pages(snapshots: Snapshots) -> Pages {
    Arc::new(move |path| {
        let page = match path {
            "/metrics" => Page {
                status: 200,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                body: render(&snapshots),
            },
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

/// Text exposition format 0.0.4.
pub(crate) struct Text(pub(crate) String);

impl Text {
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub(crate) fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl std::fmt::Display,
    ) {
        self.0.push_str(name);
        for (index, (key, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{key}=\"{escaped}\"", if index == 0 { '{' } else { ',' });
        }
        self.0.push_str(if labels.is_empty() { " " } else { "} " });
        let _ = writeln!(self.0, "{value}");
    }

    pub(crate) fn single(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        value: impl std::fmt::Display,
    ) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

fn render(snapshots: &Snapshots) -> String {
    let mut text = Text(String::new());
    bgp(&mut text, snapshots);
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
    text.0
}

fn bgp(text: &mut Text, snapshots: &Snapshots) {
    let report = snapshots.bgp.borrow();
    text.family("voile_bgp_session_established", "gauge", "Whether a session is Established.");
    for peer in &report.peers {
        let labels = [("peer", peer.name.as_str()), ("address", peer.address.as_str())];
        text.sample(
            "voile_bgp_session_established",
            &labels,
            u8::from(peer.state == "Established"),
        );
    }
    type Count = fn(&api::PeerStatus) -> u64;
    let families: [(&str, &str, Count); 4] = [
        ("voile_bgp_prefixes_received", "Prefixes received, before import filters.", |peer| {
            peer.received
        }),
        ("voile_bgp_prefixes_accepted", "Prefixes that import filters let in.", |peer| {
            peer.accepted
        }),
        ("voile_bgp_prefixes_installed", "Prefixes whose packets go to the peer.", |peer| {
            peer.installed
        }),
        ("voile_bgp_prefixes_advertised", "Prefixes told to the peer.", |peer| peer.advertised),
    ];
    for (name, help, count) in families {
        text.family(name, "gauge", help);
        for peer in &report.peers {
            let labels = [("peer", peer.name.as_str()), ("address", peer.address.as_str())];
            text.sample(name, &labels, count(peer));
        }
    }
    let labelled = report
        .peers
        .iter()
        .map(|peer| (peer, [("peer", peer.name.as_str()), ("address", peer.address.as_str())]));
    let name = "voile_bgp_session_flaps_total";
    text.family(name, "counter", "Times that an established session was lost.");
    for ((_, labels), flaps) in labelled.clone().zip(&report.flaps) {
        text.sample(name, &labels, flaps);
    }
    let name = "voile_bgp_prefixes_blackholed";
    text.family(name, "gauge", "Prefixes whose packets are dropped, as agreed (RFC 7999).");
    for ((_, labels), count) in labelled.clone().zip(&report.blackholed) {
        text.sample(name, &labels, count);
    }
    let name = "voile_bgp_routes_ignored_total";
    text.family(name, "counter", "Routes whose next hop or prefix makes no sense (RFC 4271 6.3).");
    for ((_, labels), count) in labelled.clone().zip(&report.ignored) {
        text.sample(name, &labels, count);
    }
    let name = "voile_bgp_session_info";
    text.family(name, "gauge", "State, AS numbers and last error of a session, as labels.");
    for (peer, [name_label, address]) in labelled.clone() {
        let (local, remote) = (peer.local_as.to_string(), peer.peer_as.to_string());
        let error = peer.last_error.as_deref().unwrap_or_default();
        let numbers = [("local_as", local.as_str()), ("peer_as", remote.as_str())];
        let [local, remote] = numbers;
        let state = ("state", peer.state.as_str());
        let labels = [name_label, address, local, remote, state, ("last_error", error)];
        text.sample(name, &labels, 1);
    }
    let name = "voile_bfd_session_up";
    text.family(name, "gauge", "Whether the BFD session beside a BGP session is up.");
    for (peer, labels) in labelled {
        if let Some(bfd) = &peer.bfd {
            text.sample(name, &labels, u8::from(bfd == "Up"));
        }
    }
    text.single("voile_bgp_routes", "gauge", "Routes learned by BGP and in use.", report.routes);
    text.single(
        "voile_bgp_routes_refused",
        "gauge",
        "Routes learned by BGP that the kernel does not have; `voilectl bgp route` says why.",
        report.routes_refused,
    );
    text.single(
        "voile_ipam_blocks",
        "gauge",
        "IPAM blocks that this node owns.",
        report.blocks.len(),
    );
}

fn policy(text: &mut Text, snapshots: &Snapshots) {
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
