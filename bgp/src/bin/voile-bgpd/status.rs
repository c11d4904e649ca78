//! The snapshot as JSON.

use bgp::{
    PathAttributes,
    snapshot::{
        Announcement, FibState, ImportReason, MessageCounters, PathExplanation, PeerSnapshot,
        RibEntry, RouteExplanation, Snapshot, TransitionSnapshot, Usage,
    },
};
use serde_json::{Value, json};

pub(crate) fn render(snapshot: &Snapshot) -> Value {
    json!({
        "as": snapshot.local_as.0,
        "routerId": snapshot.router_id.to_string(),
        "uptimeSeconds": snapshot.uptime.as_secs(),
        "restarting": snapshot.restarting,
        "prefixes": snapshot.prefixes,
        "attributeSets": snapshot.attribute_sets,
        "peers": snapshot.peers.iter().map(peer).collect::<Vec<_>>(),
        "routes": snapshot.rib.iter().map(entry).collect::<Vec<_>>(),
    })
}

fn families(families: bgp::Families) -> Vec<String> {
    families.iter().map(|family| family.to_string()).collect()
}

fn counters(counters: &MessageCounters) -> Value {
    json!({
        "opens": counters.opens,
        "updates": counters.updates,
        "notifications": counters.notifications,
        "keepalives": counters.keepalives,
        "refreshes": counters.refreshes,
    })
}

fn peer(peer: &PeerSnapshot) -> Value {
    json!({
        "name": peer.name,
        "address": peer.address.to_string(),
        "as": peer.asn.0,
        "type": peer.peer_type.to_string(),
        "state": peer.state.to_string(),
        "sinceSeconds": peer.since.as_secs(),
        "lastError": peer.last_error,
        "history": peer.history.iter().map(transition).collect::<Vec<_>>(),
        "routerId": peer.router_id.map(|id| id.to_string()),
        "localAddress": peer.local_address.map(|address| address.to_string()),
        "families": families(peer.families),
        "holdTimeSeconds": peer.hold_time.map(|time| time.as_secs()),
        "gracefulRestart": peer.graceful_restart,
        "stale": families(peer.stale),
        "bfd": peer.bfd.map(|state| state.to_string()),
        "sent": counters(&peer.sent),
        "received": counters(&peer.received),
        "prefixesReceived": peer.prefixes_received,
        "nearLimit": peer.near_limit,
        "prefixesAccepted": peer.prefixes_accepted,
        "prefixesAdvertised": peer.prefixes_advertised,
        "treatedAsWithdraw": peer.treated_as_withdraw,
        "discardedAttributes": peer.discarded_attributes,
    })
}

fn transition(transition: &TransitionSnapshot) -> Value {
    json!({
        "secondsAgo": transition.ago.as_secs(),
        "from": transition.from.to_string(),
        "to": transition.to.to_string(),
        "cause": transition.cause,
        "times": transition.times,
    })
}

fn entry(entry: &RibEntry) -> Value {
    let paths: Vec<Value> = entry
        .paths
        .iter()
        .map(|path| {
            let (usage, why) = usage(&path.usage);
            let mut value = attributes(&path.attributes);
            if let Value::Object(fields) = &mut value {
                fields.insert("peer".into(), json!(path.peer));
                fields.insert("stale".into(), json!(path.stale));
                fields.insert("usage".into(), json!(usage));
                fields.insert("why".into(), json!(why));
            }
            value
        })
        .collect();
    json!({ "prefix": entry.prefix.to_string(), "paths": paths })
}

/// One prefix with all reasons.
pub(crate) fn explanation(route: &RouteExplanation) -> Value {
    json!({
        "prefix": route.prefix.to_string(),
        "paths": route.paths.iter().map(path).collect::<Vec<_>>(),
        "announcements": route.announcements.iter().map(announcement).collect::<Vec<_>>(),
        "kernel": kernel(&route.fib),
    })
}

fn path(path: &PathExplanation) -> Value {
    let (usage, why) = usage(&path.usage);
    json!({
        "peer": path.peer,
        "pathId": path.path_id,
        "usage": usage,
        "why": why,
        "stale": path.stale,
        "import": match &path.import {
            ImportReason::Local => "originated here".to_owned(),
            ImportReason::Accepted(rule) => format!("accepted: {rule}"),
            ImportReason::Changed(rule) => format!("accepted with changes: {rule}"),
            ImportReason::Rejected(rule) => format!("rejected: {rule}"),
            ImportReason::BeforePolicy => "refused before policy".to_owned(),
        },
        "received": attributes(&path.received),
        "accepted": path.accepted.as_ref().map(attributes),
    })
}

fn announcement(announcement: &Announcement) -> Value {
    json!({
        "peer": announcement.peer,
        "path": announcement.path,
        "pathId": announcement.path_id,
        "told": announcement.told,
        "why": announcement.reason,
        "attributes": announcement.attributes.as_ref().map(attributes),
    })
}

fn kernel(state: &FibState) -> String {
    match state {
        FibState::Told(hops) => {
            let hops: Vec<String> = hops.iter().map(|hop| hop.address.to_string()).collect();
            format!("route via {}", hops.join(", "))
        }
        FibState::Local => "no route of ours: originated here".into(),
        FibState::NoPath => "no route: no path is usable".into(),
        FibState::Unreachable => "no route: the link of the next hop is down".into(),
        FibState::Restarting => "unchanged until peers have sent their tables".into(),
        FibState::Off => "not written (install-routes = false)".into(),
    }
}

fn usage(usage: &Usage) -> (&'static str, Option<String>) {
    match usage {
        Usage::Best(why) => ("best", Some(why.to_string())),
        Usage::Multipath => ("multipath", None),
        Usage::Lost(why) => ("lost", Some(why.to_string())),
        Usage::Unreachable => ("unreachable", Some("the link of the next hop is down".into())),
        Usage::Rejected(why) => ("rejected", Some((*why).into())),
    }
}

fn attributes(attributes: &PathAttributes) -> Value {
    let standard = attributes.communities.iter().map(ToString::to_string);
    let large = attributes.large_communities.iter().map(ToString::to_string);
    json!({
        "origin": attributes.origin.to_string(),
        "asPath": attributes.as_path.to_string(),
        "nextHop": attributes.next_hop.map(|next_hop| next_hop.address.to_string()),
        "med": attributes.med,
        "localPref": attributes.local_pref,
        "communities": standard.chain(large).collect::<Vec<_>>(),
        "originatorId": attributes.originator_id.map(|id| id.to_string()),
        "clusterList": attributes.cluster_list.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
