//! For tests: the truth tables of the conformance suite, and a table run by hand on one packet.

pub(crate) mod cases;
pub(crate) mod fake;

use std::{net::IpAddr, sync::Arc};

use api::{Key, Namespace, Pod, Resource};
use serde_json::{Value, json};

use crate::update::{EndpointId, LocalEndpoint, Update};

/// A namespace with labels.
pub(crate) fn namespace(name: &str, labels: &Value) -> Update {
    let object: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap();
    Update::Namespace(Key::cluster(name), Some(Arc::new(object)))
}

/// A pod with labels, an address and ports (`[{name, port, protocol}]`).
pub(crate) fn pod(namespace: &str, name: &str, labels: &Value, ip: &str, ports: &Value) -> Update {
    let ports: Vec<Value> = ports
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            json!({
                "name": port["name"], "containerPort": port["port"], "protocol": port["protocol"]
            })
        })
        .collect();
    let object: Pod = serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "spec": { "containers": [{ "name": "main", "ports": ports }] },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] },
    }))
    .unwrap();
    Update::Pod(Key::namespaced(namespace, name), Some(Arc::new(object)))
}

/// The interface of a pod.
pub(crate) fn interface(namespace: &str, name: &str) -> String {
    format!("cali{}-{name}", namespace.get(..3).unwrap_or(namespace))
}

/// A local endpoint of a pod.
pub(crate) fn endpoint(namespace: &str, name: &str, ip: &str) -> Update {
    let id = EndpointId {
        container_id: format!("sandbox-{namespace}-{name}"),
        ifname: "eth0".to_owned(),
    };
    let endpoint = LocalEndpoint {
        pod: Key::namespaced(namespace, name),
        pod_uid: None,
        host_interface: interface(namespace, name),
        addresses: vec![ip.parse::<IpAddr>().unwrap()],
        mac: None,
    };
    Update::LocalEndpoint(id, Some(endpoint))
}

/// An object from JSON, for the update of its kind.
pub(crate) fn object<R: Resource>(value: Value) -> (Key, Option<Arc<R>>) {
    let object: R = serde_json::from_value(value).unwrap();
    (object.key(), Some(Arc::new(object)))
}
