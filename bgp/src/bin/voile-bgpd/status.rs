//! The snapshot as JSON.

use bgp::{
    report::{AttributesReport, usage},
    snapshot::{RibEntry, Snapshot},
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
        "prefixesUnreachable": snapshot.prefixes_unreachable,
        "peers": snapshot.peers,
        "collectors": snapshot.collectors,
        "routes": snapshot.rib.iter().map(entry).collect::<Vec<_>>(),
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
