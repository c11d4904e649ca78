//! Tables: the columns that `kubectl get` prints.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    kinds::Resource,
    value::{at, items, show, text},
};

/// How much of each object a row carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Include {
    None,
    Metadata,
    Object,
}

/// A `Table` of objects.
pub(super) fn render<'a>(
    resource: &Resource,
    objects: impl Iterator<Item = &'a Value>,
    list_meta: &Value,
    include: Include,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects.map(|object| row(resource, object, include, now)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta,
        "columnDefinitions": resource.columns, "rows": rows,
    })
}

fn row(resource: &Resource, object: &Value, include: Include, now: Timestamp) -> Value {
    let cells = if resource.is_custom() {
        custom_cells(resource, object, now)
    } else {
        cells(resource, object, now)
    };
    match include {
        Include::None => json!({"cells": cells}),
        Include::Metadata => json!({"cells": cells, "object": partial(object)}),
        Include::Object => json!({"cells": cells, "object": object}),
    }
}

/// `PartialObjectMetadata` of an object.
pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": at(object, &["metadata"])})
}

fn custom_cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    resource
        .columns
        .iter()
        .zip(&resource.column_paths)
        .map(|(column, path)| {
            let found = json_path(object, path);
            match (text(column, &["type"]), found) {
                ("date", Some(time)) => json!(age(time.as_str().unwrap_or_default(), now)),
                ("string", Some(value)) => json!(show(&value)),
                (_, Some(value)) => value,
                (_, None) => Value::Null,
            }
        })
        .collect()
}

/// The part of JSONPath that columns use: `.a.b`, `['a']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`. Several matches are
/// joined by commas.
fn json_path(object: &Value, path: &str) -> Option<Value> {
    let mut found = vec![object.clone()];
    let mut rest = path.trim_start_matches('{').trim_end_matches('}');
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').unwrap_or((inner, "")),
            None => {
                let named = rest.strip_prefix('.').unwrap_or(rest);
                named.split_at(named.find(['.', '[']).unwrap_or(named.len()))
            }
        };
        found = found
            .iter()
            .flat_map(|value| json_path_step(value, step, rest.starts_with('[')))
            .collect();
        rest = after;
    }
    match found.as_slice() {
        [] => None,
        [one] => Some(one.clone()).filter(|value| !value.is_null()),
        many => Some(Value::String(many.iter().map(show).collect::<Vec<_>>().join(","))),
    }
}

fn json_path_step(value: &Value, step: &str, bracket: bool) -> Vec<Value> {
    if !bracket {
        return value.get(step.replace('\\', "")).cloned().into_iter().collect();
    }
    if let Some(key) = step.strip_prefix('\'').and_then(|step| step.strip_suffix('\'')) {
        return value.get(key).cloned().into_iter().collect();
    }
    let list = value.as_array().cloned().unwrap_or_default();
    if step == "*" {
        return list;
    }
    if let Some((field, wanted)) =
        step.strip_prefix("?(@.").and_then(|s| s.strip_suffix(')')).and_then(|s| s.split_once("=="))
    {
        let wanted = wanted.trim().trim_matches(['"', '\'']);
        return list
            .into_iter()
            .filter(|element| show(at(element, &[field.trim()])) == wanted)
            .collect();
    }
    step.parse::<usize>().ok().and_then(|index| list.get(index).cloned()).into_iter().collect()
}

fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = json!(text(object, &["metadata", "name"]));
    let age = json!(age(text(object, &["metadata", "creationTimestamp"]), now));
    let count = |path: &[&str]| at(object, path).as_u64().unwrap_or(0);
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod(object, name, age, now),
        ("", "Node") => node(object, name, age),
        ("", "Namespace") => vec![name, json!(text(object, &["status", "phase"])), age],
        ("", "Service") => service(object, name, age),
        ("", "ConfigMap") => {
            vec![name, json!(size(object, "data") + size(object, "binaryData")), age]
        }
        ("", "Secret") => {
            vec![name, json!(text(object, &["type"])), json!(size(object, "data")), age]
        }
        ("", "Endpoints") => vec![name, json!(none_if_empty(endpoints(object))), age],
        ("" | "events.k8s.io", "Event") => event(object, name, now),
        ("networking.k8s.io", "NetworkPolicy") => {
            vec![name, json!(selector(at(object, &["spec", "podSelector"]))), age]
        }
        ("discovery.k8s.io", _) => endpoint_slice(object, name, age),
        ("coordination.k8s.io", _) => {
            vec![name, json!(text(object, &["spec", "holderIdentity"])), age]
        }
        ("apiextensions.k8s.io", _) => {
            vec![name, at(object, &["metadata", "creationTimestamp"]).clone()]
        }
        ("apps", kind @ ("Deployment" | "StatefulSet")) => {
            let ready =
                format!("{}/{}", count(&["status", "readyReplicas"]), count(&["spec", "replicas"]));
            let mut cells = vec![name, json!(ready)];
            if kind == "Deployment" {
                cells.push(json!(count(&["status", "updatedReplicas"]).to_string()));
                cells.push(json!(count(&["status", "availableReplicas"]).to_string()));
            }
            cells.push(age);
            cells.extend(template(object));
            if kind == "Deployment" {
                cells.push(json!(selector(at(object, &["spec", "selector"]))));
            }
            cells
        }
        ("apps", "DaemonSet") => {
            let numbers = [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ];
            let mut cells = vec![name];
            cells.extend(numbers.iter().map(|field| json!(count(&["status", field]))));
            cells.push(json!(labels(at(object, &["spec", "template", "spec", "nodeSelector"]))));
            cells.push(age);
            cells.extend(template(object));
            cells.push(json!(selector(at(object, &["spec", "selector"]))));
            cells
        }
        (_, "ReplicaSet" | "ReplicationController") => {
            let mut cells = vec![name, json!(count(&["spec", "replicas"]))];
            cells.extend(
                ["replicas", "readyReplicas"].iter().map(|field| json!(count(&["status", field]))),
            );
            cells.push(age);
            cells.extend(template(object));
            cells.push(json!(selector(at(object, &["spec", "selector"]))));
            cells
        }
        _ => vec![name, age],
    }
}

fn size(object: &Value, field: &str) -> usize {
    at(object, &[field]).as_object().map_or(0, serde_json::Map::len)
}

fn template(object: &Value) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let containers = items(object, &["spec", "template", "spec", "containers"]);
        json!(
            containers
                .iter()
                .map(|container| text(container, &[field]))
                .collect::<Vec<_>>()
                .join(",")
        )
    })
}

fn none_if_empty(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// READY, STATUS and RESTARTS follow kubernetes `printPod` (pkg/printers/internalversion).
fn pod(object: &Value, name: Value, age_cell: Value, now: Timestamp) -> Vec<Value> {
    let statuses = items(object, &["status", "containerStatuses"]);
    let total = items(object, &["spec", "containers"]).len();
    let runs = |status: &&Value| {
        at(status, &["ready"]) == &Value::Bool(true)
            && at(status, &["state", "running"]).is_object()
    };
    let ready = statuses.iter().filter(runs).count();
    let restarts: u64 =
        statuses.iter().filter_map(|status| at(status, &["restartCount"]).as_u64()).sum();
    let last = statuses
        .iter()
        .map(|status| text(status, &["lastState", "terminated", "finishedAt"]))
        .max();
    let restarts = match last.filter(|last| restarts > 0 && !last.is_empty()) {
        Some(last) => format!("{restarts} ({} ago)", age(last, now)),
        None => restarts.to_string(),
    };
    let addresses: Vec<&str> =
        items(object, &["status", "podIPs"]).iter().map(|ip| text(ip, &["ip"])).collect();
    let address = addresses.first().copied().unwrap_or_else(|| text(object, &["status", "podIP"]));
    let or_none = |text: &str| json!(none_if_empty(text.to_owned()));
    vec![
        name,
        json!(format!("{ready}/{total}")),
        json!(pod_status(object)),
        json!(restarts),
        age_cell,
        or_none(address),
        or_none(text(object, &["spec", "nodeName"])),
        or_none(text(object, &["status", "nominatedNodeName"])),
        json!("<none>"),
    ]
}

fn pod_status(object: &Value) -> String {
    let own = text(object, &["status", "reason"]);
    let mut reason =
        if own.is_empty() { text(object, &["status", "phase"]) } else { own }.to_owned();
    for status in items(object, &["status", "containerStatuses"]) {
        let waiting = text(status, &["state", "waiting", "reason"]);
        let terminated = at(status, &["state", "terminated"]);
        if !waiting.is_empty() {
            waiting.clone_into(&mut reason);
        } else if !text(terminated, &["reason"]).is_empty() {
            text(terminated, &["reason"]).clone_into(&mut reason);
        } else if terminated.is_object() {
            reason = format!("ExitCode:{}", show(at(terminated, &["exitCode"])));
        }
    }
    if text(object, &["metadata", "deletionTimestamp"]).is_empty() {
        reason
    } else {
        "Terminating".to_owned()
    }
}

fn node(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let ready =
        items(object, &["status", "conditions"]).iter().find(|c| text(c, &["type"]) == "Ready");
    let mut status = match ready.map(|condition| text(condition, &["status"])) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if at(object, &["spec", "unschedulable"]) == &Value::Bool(true) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = at(object, &["metadata", "labels"]).as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    roles.sort_unstable();
    let address = |kind: &str| {
        let found =
            items(object, &["status", "addresses"]).iter().find(|a| text(a, &["type"]) == kind);
        json!(none_if_empty(found.map_or_else(String::new, |a| text(a, &["address"]).to_owned())))
    };
    let info = |field: &str| {
        let found = text(object, &["status", "nodeInfo", field]);
        json!(if found.is_empty() { "<unknown>" } else { found })
    };
    vec![
        name,
        json!(status),
        json!(none_if_empty(roles.join(","))),
        age,
        json!(text(object, &["status", "nodeInfo", "kubeletVersion"])),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn service(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let kind = text(object, &["spec", "type"]);
    let mut external: Vec<String> = items(object, &["spec", "externalIPs"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    for ingress in items(object, &["status", "loadBalancer", "ingress"]) {
        let address = text(ingress, &["ip"]);
        external.push(
            if address.is_empty() { text(ingress, &["hostname"]) } else { address }.to_owned(),
        );
    }
    let external = match (kind, external.is_empty()) {
        ("ExternalName", _) => text(object, &["spec", "externalName"]).to_owned(),
        ("LoadBalancer", true) => "<pending>".to_owned(),
        _ => none_if_empty(external.join(",")),
    };
    let ports: Vec<String> = items(object, &["spec", "ports"])
        .iter()
        .map(|port| {
            let mut shown = show(at(port, &["port"]));
            if let Some(node_port) = at(port, &["nodePort"]).as_u64().filter(|port| *port != 0) {
                let _ = write!(shown, ":{node_port}");
            }
            format!("{shown}/{}", text(port, &["protocol"]))
        })
        .collect();
    vec![
        name,
        json!(kind),
        json!(none_if_empty(text(object, &["spec", "clusterIP"]).to_owned())),
        json!(external),
        json!(none_if_empty(ports.join(","))),
        age,
        json!(labels(at(object, &["spec", "selector"]))),
    ]
}

/// At most three, as kubectl shows them.
fn first_three(mut all: Vec<String>) -> String {
    let more = all.len().saturating_sub(3);
    all.truncate(3);
    let shown = all.join(",");
    if more > 0 { format!("{shown} + {more} more...") } else { shown }
}

fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(object, &["subsets"]) {
        for port in items(subset, &["ports"]) {
            for address in items(subset, &["addresses"]) {
                all.push(format!("{}:{}", text(address, &["ip"]), show(at(port, &["port"]))));
            }
        }
    }
    first_three(all)
}

fn endpoint_slice(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let ports =
        items(object, &["ports"]).iter().map(|port| show(at(port, &["port"]))).collect::<Vec<_>>();
    let addresses = items(object, &["endpoints"])
        .iter()
        .flat_map(|endpoint| items(endpoint, &["addresses"]))
        .map(show)
        .collect::<Vec<_>>();
    let unset = |list: String| json!(if list.is_empty() { "<unset>".to_owned() } else { list });
    vec![
        name,
        json!(text(object, &["addressType"])),
        unset(first_three(ports)),
        unset(first_three(addresses)),
        age,
    ]
}

fn event(object: &Value, name: Value, now: Timestamp) -> Vec<Value> {
    let pick = |first: &[&str], second: &[&str]| {
        let found = text(object, first);
        if found.is_empty() { text(object, second).to_owned() } else { found.to_owned() }
    };
    let first = pick(&["firstTimestamp"], &["eventTime"]);
    let last = Some(pick(&["lastTimestamp"], &["deprecatedLastTimestamp"]))
        .filter(|time| !time.is_empty());
    let about =
        if at(object, &["involvedObject"]).is_object() { "involvedObject" } else { "regarding" };
    let subject = format!(
        "{}/{}",
        text(object, &[about, "kind"]).to_lowercase(),
        text(object, &[about, "name"])
    );
    vec![
        json!(age(last.as_ref().unwrap_or(&first), now)),
        json!(text(object, &["type"])),
        json!(text(object, &["reason"])),
        json!(subject),
        json!(text(object, &[about, "fieldPath"])),
        json!(pick(&["source", "component"], &["reportingComponent"])),
        json!(pick(&["message"], &["note"]).trim()),
        json!(age(&first, now)),
        json!(at(object, &["count"]).as_u64().unwrap_or(1).to_string()),
        name,
    ]
}

fn labels(map: &Value) -> String {
    let sorted: BTreeMap<&String, &Value> = map.as_object().into_iter().flatten().collect();
    none_if_empty(
        sorted
            .iter()
            .map(|(key, value)| format!("{key}={}", show(value)))
            .collect::<Vec<_>>()
            .join(","),
    )
}

/// A LabelSelector as text (apimachinery `FormatLabelSelector`).
fn selector(selector: &Value) -> String {
    if selector.get("matchLabels").is_none() && selector.get("matchExpressions").is_none() {
        return labels(selector);
    }
    let mut terms: Vec<String> = Vec::new();
    let matched: BTreeMap<&String, &Value> =
        at(selector, &["matchLabels"]).as_object().into_iter().flatten().collect();
    terms.extend(matched.iter().map(|(key, value)| format!("{key}={}", show(value))));
    for expression in items(selector, &["matchExpressions"]) {
        let key = text(expression, &["key"]);
        let values = items(expression, &["values"]).iter().map(show).collect::<Vec<_>>().join(",");
        terms.push(match text(expression, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    none_if_empty(terms.join(","))
}

/// An age as kubectl shows it (apimachinery `duration.HumanDuration`).
fn age(since: &str, now: Timestamp) -> String {
    let Ok(since) = since.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = now.duration_since(since).as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        1..=119 => format!("{seconds}s"),
        120..=599 => two(minutes, "m", seconds % 60, "s"),
        600..=10_799 => format!("{minutes}m"),
        10_800..=28_799 => two(hours, "h", minutes % 60, "m"),
        28_800..=172_799 => format!("{hours}h"),
        172_800..=691_199 => two(days, "d", hours % 24, "h"),
        691_200..=63_071_999 => format!("{days}d"),
        _ => two(days / 365, "y", days % 365, "d"),
    }
}
