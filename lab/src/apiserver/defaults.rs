//! What a real API server adds to built-in objects beyond the defaults in their schemas, and checks beyond their types.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{
    kinds::Resource,
    status::{Failure, FieldError},
    storage::Storage,
    value::{at, default_to, items, object_at, text},
};

/// Fills in what the server decides for a built-in object.
pub(super) fn fill(resource: &Resource, object: &mut Value) {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod(object),
        ("", "Service") => service(object),
        ("", "Namespace") => {
            let name = text(object, &["metadata", "name"]).to_owned();
            object_at(object, &["metadata", "labels"])
                .insert("kubernetes.io/metadata.name".to_owned(), name.into());
            default_to(object_at(object, &["spec"]), "finalizers", json!(["kubernetes"]));
            default_to(object_at(object, &["status"]), "phase", "Active");
        }
        ("", "Secret") => secret(object),
        ("networking.k8s.io", _) => network_policy(object),
        ("discovery.k8s.io", _) => each(object, "ports", |port| {
            default_to(port, "name", "");
            default_to(port, "protocol", "TCP");
        }),
        ("apps", _) => default_to(object_at(object, &["spec"]), "replicas", 1),
        _ => {}
    }
    if resource.is("apps", "daemonsets") {
        object_at(object, &["spec"]).shift_remove("replicas");
    }
}

fn each(object: &mut Value, list: &str, change: impl Fn(&mut Map<String, Value>)) {
    if let Some(Value::Array(elements)) = object.get_mut(list) {
        elements.iter_mut().filter_map(Value::as_object_mut).for_each(change);
    }
}

fn pod(object: &mut Value) {
    let spec = object_at(object, &["spec"]);
    default_to(spec, "restartPolicy", "Always");
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_to(spec, "dnsPolicy", "ClusterFirst");
    default_to(spec, "schedulerName", "default-scheduler");
    default_to(spec, "enableServiceLinks", true);
    let account = spec.get("serviceAccount").cloned().unwrap_or_else(|| json!("default"));
    default_to(spec, "serviceAccountName", account);
    default_to(spec, "securityContext", json!({}));
    default_to(spec, "priority", 0);
    default_to(spec, "preemptionPolicy", "PreemptLowerPriority");
    let taints = ["not-ready", "unreachable"].map(|taint| {
        json!({
            "key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 300,
        })
    });
    default_to(spec, "tolerations", json!(taints));
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    let spec = object_at(object, &[]).entry("spec").or_insert(Value::Null);
    for list in ["containers", "initContainers"] {
        each(spec, list, |container| {
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            let name = image.rsplit('/').next().unwrap_or_default();
            let tagged = name.contains([':', '@']) && !name.ends_with(":latest");
            let policy = if tagged { "IfNotPresent" } else { "Always" };
            default_to(container, "imagePullPolicy", policy);
            default_to(container, "resources", json!({}));
            for port in
                container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten()
            {
                let container_port = port.get("containerPort").cloned();
                if let (Some(map), Some(number), true) =
                    (port.as_object_mut(), container_port, host_network)
                {
                    default_to(map, "hostPort", number);
                }
            }
        });
    }
    default_to(object_at(object, &["status"]), "phase", "Pending");
    default_to(object_at(object, &["status"]), "qosClass", "BestEffort");
}

fn service(object: &mut Value) {
    let spec = object_at(object, &["spec"]);
    default_to(spec, "type", "ClusterIP");
    default_to(spec, "sessionAffinity", "None");
    if spec.get("sessionAffinity").is_some_and(|affinity| affinity == "ClientIP") {
        default_to(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind != "ExternalName" {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default_to(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
    if let Some(spec) = object.get_mut("spec") {
        each(spec, "ports", |port| {
            if let Some(number) = port.get("port").cloned() {
                default_to(port, "targetPort", number);
            }
        });
    }
    object_at(object, &["status", "loadBalancer"]);
}

fn secret(object: &mut Value) {
    use base64::Engine as _;
    let plain = object_at(object, &[]).shift_remove("stringData");
    for (key, value) in plain.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let encoded =
            base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        object_at(object, &["data"]).insert(key.clone(), encoded.into());
    }
    default_to(object_at(object, &[]), "type", "Opaque");
}

fn network_policy(object: &mut Value) {
    let egress = !items(object, &["spec", "egress"]).is_empty();
    let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    let spec = object_at(object, &["spec"]);
    default_to(spec, "podSelector", json!({}));
    default_to(spec, "policyTypes", types);
    for rules in ["ingress", "egress"] {
        for rule in spec.get_mut(rules).and_then(Value::as_array_mut).into_iter().flatten() {
            each(rule, "ports", |port| default_to(port, "protocol", "TCP"));
        }
    }
}

/// An event of `events.k8s.io/v1` in the older form (kubernetes `pkg/apis/events/v1/conversion.go`).
pub(super) fn core_event(event: &Value) -> Value {
    let mut core = event.clone();
    let map = object_at(&mut core, &[]);
    map.insert("apiVersion".to_owned(), "v1".into());
    let renamed = [
        ("regarding", "involvedObject"),
        ("note", "message"),
        ("reportingController", "reportingComponent"),
        ("deprecatedCount", "count"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedSource", "source"),
    ];
    for (new, old) in renamed {
        if let Some(value) = map.shift_remove(new) {
            map.insert(old.to_owned(), value);
        }
    }
    core
}

/// Gives a Service its cluster addresses and node ports. `before` keeps what it had.
pub(super) fn allocate(
    object: &mut Value,
    before: Option<&Value>,
    storage: &Storage,
    ranges: &[IpNet],
) -> Result<(), Failure> {
    let kind = text(object, &["spec", "type"]).to_owned();
    if kind == "ExternalName" {
        return Ok(());
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"]
    {
        let kept = before.map_or(&Value::Null, |before| at(before, &["spec", field])).clone();
        if !kept.is_null() {
            default_to(object_at(object, &["spec"]), field, kept);
        }
    }
    cluster_addresses(object, storage, ranges)?;
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        && at(object, &["spec", "allocateLoadBalancerNodePorts"]) != &Value::Bool(false)
    {
        node_ports(object, before, storage);
    }
    Ok(())
}

fn cluster_addresses(
    object: &mut Value,
    storage: &Storage,
    ranges: &[IpNet],
) -> Result<(), Failure> {
    let wanted: Vec<String> = ["clusterIPs"]
        .iter()
        .flat_map(|field| items(object, &["spec", field]))
        .chain([at(object, &["spec", "clusterIP"])])
        .filter_map(Value::as_str)
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
        .collect();
    let policy = text(object, &["spec", "ipFamilyPolicy"]).to_owned();
    let families: Vec<&str> =
        items(object, &["spec", "ipFamilies"]).iter().filter_map(Value::as_str).collect();
    let mut chosen: Vec<IpNet> =
        ranges.iter().filter(|range| families.contains(&family(range.addr()))).copied().collect();
    if chosen.is_empty() || policy.ends_with("DualStack") {
        chosen.extend(
            ranges.iter().filter(|range| !chosen.contains(range)).copied().collect::<Vec<_>>(),
        );
    }
    if policy.is_empty() || policy == "SingleStack" {
        chosen.truncate(families.len().max(1));
    }
    let addresses = if wanted.is_empty() { free_addresses(&chosen, storage)? } else { wanted };
    let mut unique = Vec::new();
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let mut kinds: Vec<&str> = unique.iter().filter_map(|a| a.parse().ok()).map(family).collect();
    if kinds.is_empty() {
        kinds = chosen.iter().map(|range| family(range.addr())).collect();
    }
    let policy = if kinds.len() > 1 { "PreferDualStack" } else { "SingleStack" };
    let spec = object_at(object, &["spec"]);
    default_to(spec, "clusterIP", unique.first().cloned().unwrap_or_default());
    default_to(spec, "clusterIPs", json!(unique));
    default_to(spec, "ipFamilies", json!(kinds));
    default_to(spec, "ipFamilyPolicy", policy);
    Ok(())
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn free_addresses(ranges: &[IpNet], storage: &Storage) -> Result<Vec<String>, Failure> {
    let used: Vec<&str> = storage
        .list("/services", None)
        .flat_map(|(_, service)| items(service, &["spec", "clusterIPs"]))
        .filter_map(Value::as_str)
        .collect();
    let free = |range: &IpNet| {
        // The first addresses are left for `kubernetes` and DNS, which manifests name by hand.
        range
            .hosts()
            .skip(15)
            .take(65_000)
            .map(|a| a.to_string())
            .find(|a| !used.contains(&a.as_str()))
    };
    ranges
        .iter()
        .map(|range| {
            free(range).ok_or_else(|| {
                Failure::new(500, "InternalError", format!("no service address left in {range}"))
            })
        })
        .collect()
}

fn node_ports(object: &mut Value, before: Option<&Value>, storage: &Storage) {
    let ports = |service: &Value| -> Vec<u64> {
        items(service, &["spec", "ports"])
            .iter()
            .filter_map(|port| port.get("nodePort")?.as_u64())
            .collect()
    };
    let mut used: Vec<u64> =
        storage.list("/services", None).flat_map(|(_, service)| ports(service)).collect();
    used.extend(ports(object));
    let kept: Vec<(Value, Value)> = before
        .map_or(&[][..], |before| items(before, &["spec", "ports"]))
        .iter()
        .filter_map(|port| Some((port.get("port")?.clone(), port.get("nodePort")?.clone())))
        .collect();
    let Some(Value::Array(list)) = object_at(object, &["spec"]).get_mut("ports") else { return };
    for port in list.iter_mut().filter_map(Value::as_object_mut) {
        let old = kept
            .iter()
            .find(|(number, _)| Some(number) == port.get("port"))
            .map(|(_, node)| node.clone());
        let new = (30_000..=32_767_u64).find(|candidate| !used.contains(candidate)).unwrap_or(0);
        let node_port = old.unwrap_or_else(|| new.into());
        used.extend(node_port.as_u64());
        default_to(port, "nodePort", node_port);
    }
}

/// Checks an object's metadata: its name and its labels.
pub(super) fn check_metadata(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = at(object, &["metadata", "name"]);
    let labels_only =
        resource.group.is_empty() && matches!(resource.kind.as_str(), "Namespace" | "Service");
    let text = name.as_str().unwrap_or_default();
    let good = text.len() <= if labels_only { 63 } else { 253 } && is_dns_name(text, !labels_only);
    if !good {
        let why = if labels_only {
            super::checks::LABEL_RULE
        } else {
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
             and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        };
        errors.push(FieldError::value("metadata.name", name, why));
    }
    for (key, value) in at(object, &["metadata", "labels"]).as_object().into_iter().flatten() {
        if !is_label_key(key) {
            let key = Value::String(key.clone());
            errors.push(FieldError::value("metadata.labels", &key, KEY_RULE));
        }
        if !value.as_str().is_some_and(is_label) {
            let why = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
                       must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', \
                       regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
            errors.push(FieldError::value("metadata.labels", value, why));
        }
    }
    errors
}

pub(super) fn is_dns_name(text: &str, dots: bool) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if dots { text.split('.').all(label) } else { label(text) }
}

/// Kubernetes' rule for the keys of labels.
pub(super) const KEY_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
     (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// Whether a text can be the key of a label.
pub(super) fn is_label_key(key: &str) -> bool {
    let (prefix, short) =
        key.rsplit_once('/').map_or((None, key), |(prefix, short)| (Some(prefix), short));
    is_label(short) && !short.is_empty() && prefix.is_none_or(|prefix| is_dns_name(prefix, true))
}

fn is_label(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
