//! `EndpointSlice`s from Services and pods: one slice for each service and address family.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::{
    core::v1::{Pod, Service, ServicePort},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::cache::Cache;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// Runs until the lab ends.
pub async fn run(client: Client, mut services: Cache<Service>, mut pods: Cache<Pod>) {
    let mut written: BTreeMap<(String, String), Value> = BTreeMap::new();
    loop {
        let wanted = wanted(
            services.get().values().map(AsRef::as_ref),
            &pods.get().values().map(AsRef::as_ref).collect::<Vec<_>>(),
        );
        let gone: Vec<_> =
            written.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in gone {
            let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &key.0);
            // Deleted with its namespace or not: it is gone.
            drop(api.delete(&key.1, &DeleteParams::default()).await);
            written.remove(&key);
        }
        for (key, slice) in wanted {
            if written.get(&key) == Some(&slice) {
                continue;
            }
            match write(&client, &key.0, &key.1, &slice, written.contains_key(&key)).await {
                Ok(()) => drop(written.insert(key, slice)),
                Err(error) => tracing::warn!(slice = key.1, %error, "cannot write"),
            }
        }
        let going_on = tokio::select! {
            next = services.next() => next.is_some(),
            next = pods.next() => next.is_some(),
        };
        if !going_on {
            return;
        }
    }
}

async fn write(
    client: &Client,
    namespace: &str,
    name: &str,
    slice: &Value,
    exists: bool,
) -> kube::Result<()> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    if exists {
        // A merge patch replaces lists as a whole, as it must be here.
        return api.patch(name, &PatchParams::default(), &Patch::Merge(slice)).await.map(drop);
    }
    let object = serde_json::from_value(slice.clone()).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await.map(drop)
}

/// All slices that should be, by namespace and name.
fn wanted<'a>(
    services: impl Iterator<Item = &'a Service>,
    pods: &[&Pod],
) -> BTreeMap<(String, String), Value> {
    let mut slices = BTreeMap::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) else {
            continue;
        };
        let namespace = service.namespace().unwrap_or_default();
        let chosen: Vec<&Pod> = pods
            .iter()
            .copied()
            .filter(|pod| pod.namespace().unwrap_or_default() == namespace)
            .filter(|pod| selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value)))
            .collect();
        let families = spec.ip_families.clone().unwrap_or_else(|| vec!["IPv4".into()]);
        for family in families {
            let name = format!("{}-{}", service.name_any(), family.to_lowercase());
            let slice = slice(service, &family, &name, &chosen);
            slices.insert((namespace.clone(), name), slice);
        }
    }
    slices
}

fn slice(service: &Service, family: &str, name: &str, pods: &[&Pod]) -> Value {
    let endpoints: Vec<_> = pods.iter().filter_map(|pod| endpoint(pod, family)).collect();
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let ports: Vec<_> = ports
        .filter_map(|port| {
            let number = target(port, pods)?;
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            Some(json!({"name": port.name.as_deref().unwrap_or(""), "protocol": protocol, "port": number}))
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": service.namespace(),
            "labels": {"kubernetes.io/service-name": service.name_any(), MANAGED_BY: MANAGER},
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": service.name_any(),
                "uid": service.uid().unwrap_or_default(), "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": family, "endpoints": endpoints, "ports": ports,
    })
}

fn endpoint(pod: &Pod, family: &str) -> Option<Value> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let address = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| ip.ip.clone())
        .find(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() == (family == "IPv4")))?;
    let serving =
        status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Some(json!({
        "addresses": [address],
        "conditions": {"ready": serving && !terminating, "serving": serving, "terminating": terminating},
        "nodeName": pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        "targetRef": {
            "kind": "Pod", "name": pod.name_any(), "namespace": pod.namespace(), "uid": pod.uid(),
        },
    }))
}

/// The number behind `targetPort`: itself, the service's port, or a pod's port of that name.
fn target(port: &ServicePort, pods: &[&Pod]) -> Option<i32> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => pods
            .iter()
            .flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers))
            .flat_map(|container| container.ports.iter().flatten())
            .find(|candidate| candidate.name.as_ref() == Some(name))
            .map(|candidate| candidate.container_port),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_dual_stack_service_has_two_slices() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1"},
            "spec": {
                "selector": {"app": "web"}, "ipFamilies": ["IPv4", "IPv6"],
                "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "raw", "port": 9}],
            },
        }))
        .unwrap();
        let pod = |name: &str, extra: Value| -> Pod {
            let mut pod = json!({
                "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": "web"}},
                "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            });
            json_patch::merge(&mut pod, &extra);
            serde_json::from_value(pod).unwrap()
        };
        let pods = [
            pod("a", json!({"status": {"podIPs": [{"ip": "10.244.0.1"}, {"ip": "fd00::1"}]}})),
            pod("b", json!({"status": {"podIPs": [{"ip": "10.244.0.2"}], "conditions": []}})),
            pod(
                "c",
                json!({"metadata": {"labels": {"app": "other"}}, "status": {"podIPs": [{"ip": "10.244.0.3"}]}}),
            ),
            pod("d", json!({})),
        ];
        let slices = wanted([&service].into_iter(), &pods.iter().collect::<Vec<_>>());
        let mut out = String::new();
        for ((namespace, name), slice) in &slices {
            out += &format!("{namespace}/{name} {} {}\n", slice["addressType"], slice["ports"]);
            for endpoint in slice["endpoints"].as_array().unwrap() {
                out += &format!("  {} {}\n", endpoint["addresses"], endpoint["conditions"]);
            }
        }
        expect![[r#"
            shop/web-ipv4 "IPv4" [{"name":"http","protocol":"TCP","port":8080},{"name":"raw","protocol":"TCP","port":9}]
              ["10.244.0.1"] {"ready":true,"serving":true,"terminating":false}
              ["10.244.0.2"] {"ready":false,"serving":false,"terminating":false}
            shop/web-ipv6 "IPv6" [{"name":"http","protocol":"TCP","port":8080},{"name":"raw","protocol":"TCP","port":9}]
              ["fd00::1"] {"ready":true,"serving":true,"terminating":false}
        "#]].assert_eq(&out);
    }
}
