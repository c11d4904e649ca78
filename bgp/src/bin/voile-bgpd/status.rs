//! The snapshot as JSON.

use bgp::{
    report::{AttributesReport, usage},
    snapshot::{MessageCounters, PeerSnapshot, RibEntry, Snapshot, TransitionSnapshot},
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
        "routesRefused": snapshot.routes_refused,
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
            let mut value = json!(AttributesReport::from(&path.attributes));
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
