//! The few protobuf bodies that typed clients send: kubectl's creators (`create namespace`, `auth can-i`, ...), calicoctl's
//! changes of nodes, the options of deletions.
//!
//! Messages hold the fields that those clients set, numbered as in Kubernetes' `generated.proto` files.

use std::collections::BTreeMap;

use base64::Engine as _;
use prost::Message;
use serde_json::{Value, json};

use super::status::Failure;

const MAGIC: &[u8] = b"k8s\0";

/// Declares a message: `Name { number kind field: Type, ... }`.
macro_rules! message {
    ($name:ident { $($(#[$attribute:meta])* $field:ident : $type:ty),* $(,)? }) => {
        #[derive(Clone, PartialEq, Message)]
        struct $name { $($(#[$attribute])* $field: $type),* }
    };
}

message!(TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String
});
message!(Unknown { #[prost(message, tag = "1")] kind: Option<TypeMeta>, #[prost(bytes = "vec", tag = "2")] raw: Vec<u8> });
message!(ObjectMeta {
    #[prost(string, tag = "1")] name: String,
    #[prost(string, tag = "2")] generate_name: String,
    #[prost(string, tag = "3")] namespace: String,
    #[prost(string, tag = "5")] uid: String,
    #[prost(string, tag = "6")] resource_version: String,
    #[prost(string, repeated, tag = "14")] finalizers: Vec<String>,
    #[prost(btree_map = "string, string", tag = "11")] labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")] annotations: BTreeMap<String, String>,
});
message!(OnlyMeta { #[prost(message, tag = "1")] metadata: Option<ObjectMeta> });
message!(ConfigMap {
    #[prost(message, tag = "1")] metadata: Option<ObjectMeta>,
    #[prost(btree_map = "string, string", tag = "2")] data: BTreeMap<String, String>,
    #[prost(btree_map = "string, bytes", tag = "3")] binary_data: BTreeMap<String, Vec<u8>>,
});
message!(Secret {
    #[prost(message, tag = "1")] metadata: Option<ObjectMeta>,
    #[prost(btree_map = "string, bytes", tag = "2")] data: BTreeMap<String, Vec<u8>>,
    #[prost(string, tag = "3")] kind: String,
});
message!(IntOrString {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int32, tag = "2")]
    number: i32,
    #[prost(string, tag = "3")]
    text: String,
});
message!(ServicePort {
    #[prost(string, tag = "1")] name: String,
    #[prost(string, tag = "2")] protocol: String,
    #[prost(int32, tag = "3")] port: i32,
    #[prost(message, tag = "4")] target: Option<IntOrString>,
    #[prost(int32, tag = "5")] node_port: i32,
});
message!(ServiceSpec {
    #[prost(message, repeated, tag = "1")] ports: Vec<ServicePort>,
    #[prost(btree_map = "string, string", tag = "2")] selector: BTreeMap<String, String>,
    #[prost(string, tag = "3")] cluster_ip: String,
    #[prost(string, tag = "4")] kind: String,
    #[prost(string, tag = "10")] external_name: String,
});
message!(Service {
    #[prost(message, tag = "1")] metadata: Option<ObjectMeta>,
    #[prost(message, tag = "2")] spec: Option<ServiceSpec>,
});
message!(Taint {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(string, tag = "3")]
    effect: String,
});
message!(NodeSpec {
    #[prost(string, tag = "1")] pod_cidr: String,
    #[prost(string, repeated, tag = "7")] pod_cidrs: Vec<String>,
    #[prost(string, tag = "3")] provider: String,
    #[prost(bool, tag = "4")] unschedulable: bool,
    #[prost(message, repeated, tag = "5")] taints: Vec<Taint>,
});
message!(Node {
    #[prost(message, tag = "1")] metadata: Option<ObjectMeta>,
    #[prost(message, tag = "2")] spec: Option<NodeSpec>,
});
message!(Preconditions {
    #[prost(string, optional, tag = "1")] uid: Option<String>,
    #[prost(string, optional, tag = "2")] resource_version: Option<String>,
});
message!(DeleteOptions {
    #[prost(int64, optional, tag = "1")] grace: Option<i64>,
    #[prost(message, tag = "2")] preconditions: Option<Preconditions>,
    #[prost(string, repeated, tag = "5")] dry_run: Vec<String>,
});
message!(ResourceAttributes {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    verb: String,
    #[prost(string, tag = "3")]
    group: String,
    #[prost(string, tag = "5")]
    resource: String,
});
message!(ReviewSpec { #[prost(message, tag = "1")] resource: Option<ResourceAttributes> });
message!(Review { #[prost(message, tag = "2")] spec: Option<ReviewSpec> });
message!(ContainerPort {
    #[prost(int32, tag = "3")]
    port: i32
});
message!(Container {
    #[prost(string, tag = "1")] name: String,
    #[prost(string, tag = "2")] image: String,
    #[prost(string, repeated, tag = "3")] command: Vec<String>,
    #[prost(string, repeated, tag = "4")] args: Vec<String>,
    #[prost(message, repeated, tag = "6")] ports: Vec<ContainerPort>,
});
message!(PodSpec { #[prost(message, repeated, tag = "2")] containers: Vec<Container> });
message!(PodTemplate {
    #[prost(message, tag = "1")] metadata: Option<ObjectMeta>,
    #[prost(message, tag = "2")] spec: Option<PodSpec>,
});
message!(LabelSelector { #[prost(btree_map = "string, string", tag = "1")] labels: BTreeMap<String, String> });
message!(DeploymentSpec {
    #[prost(int32, tag = "1")] replicas: i32,
    #[prost(message, tag = "2")] selector: Option<LabelSelector>,
    #[prost(message, tag = "3")] template: Option<PodTemplate>,
});
message!(Deployment {
    #[prost(message, tag = "1")] metadata: Option<ObjectMeta>,
    #[prost(message, tag = "2")] spec: Option<DeploymentSpec>,
});

/// Whether a body is Kubernetes' protobuf, whatever its content type says.
pub(super) fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

/// Decodes a body into the JSON that it stands for.
pub(super) fn to_json(body: &[u8]) -> Result<Value, Failure> {
    let malformed = |error: prost::DecodeError| {
        Failure::bad_request(format!("cannot decode protobuf body: {error}"))
    };
    let unknown = Unknown::decode(body.strip_prefix(MAGIC).unwrap_or(body)).map_err(malformed)?;
    let kind = unknown.kind.unwrap_or_default();
    let raw = unknown.raw.as_slice();
    let mut object = match kind.kind.as_str() {
        "Namespace" | "ServiceAccount" => {
            json!({"metadata": meta(OnlyMeta::decode(raw).map_err(malformed)?.metadata)})
        }
        "ConfigMap" => {
            let map = ConfigMap::decode(raw).map_err(malformed)?;
            json!({"metadata": meta(map.metadata), "data": map.data, "binaryData": base64(&map.binary_data)})
        }
        "Secret" => {
            let secret = Secret::decode(raw).map_err(malformed)?;
            json!({"metadata": meta(secret.metadata), "data": base64(&secret.data), "type": secret.kind})
        }
        "Service" => service(Service::decode(raw).map_err(malformed)?),
        "Deployment" => deployment(Deployment::decode(raw).map_err(malformed)?),
        "SelfSubjectAccessReview" => review(Review::decode(raw).map_err(malformed)?),
        "Node" => node(Node::decode(raw).map_err(malformed)?),
        "DeleteOptions" => delete_options(DeleteOptions::decode(raw).map_err(malformed)?),
        other => {
            return Err(Failure::media_type(format!(
                "the lab's API server reads no protobuf {other}: send JSON, for instance with `kubectl create -f`"
            )));
        }
    };
    drop_empty(&mut object);
    let map = super::value::object_at(&mut object, &[]);
    map.insert("apiVersion".to_owned(), kind.api_version.into());
    map.insert("kind".to_owned(), kind.kind.into());
    Ok(object)
}

/// No message here has a status: what is stored stays, also when a client writes labels through the status.
pub(super) fn keep_status(object: &mut Value, stored: &Value) {
    if let Some(status) = stored.get("status") {
        super::value::object_at(object, &[]).insert("status".to_owned(), status.clone());
    }
}

fn meta(meta: Option<ObjectMeta>) -> Value {
    let meta = meta.unwrap_or_default();
    json!({
        "name": meta.name, "generateName": meta.generate_name, "namespace": meta.namespace,
        "labels": meta.labels, "annotations": meta.annotations, "finalizers": meta.finalizers,
        "uid": meta.uid, "resourceVersion": meta.resource_version,
    })
}

fn node(node: Node) -> Value {
    let spec = node.spec.unwrap_or_default();
    let taint =
        |taint: &Taint| json!({"key": taint.key, "value": taint.value, "effect": taint.effect});
    json!({"metadata": meta(node.metadata), "spec": {
        "podCIDR": spec.pod_cidr, "podCIDRs": spec.pod_cidrs, "providerID": spec.provider,
        "unschedulable": Some(true).filter(|_| spec.unschedulable),
        "taints": spec.taints.iter().map(taint).collect::<Vec<_>>(),
    }})
}

fn delete_options(options: DeleteOptions) -> Value {
    let preconditions = options.preconditions.unwrap_or_default();
    json!({
        "gracePeriodSeconds": options.grace, "dryRun": options.dry_run,
        "preconditions": {
            "uid": preconditions.uid, "resourceVersion": preconditions.resource_version,
        },
    })
}

fn base64(data: &BTreeMap<String, Vec<u8>>) -> BTreeMap<&String, String> {
    data.iter()
        .map(|(key, bytes)| (key, base64::engine::general_purpose::STANDARD.encode(bytes)))
        .collect()
}

fn service(service: Service) -> Value {
    let spec = service.spec.unwrap_or_default();
    let ports: Vec<Value> = spec
        .ports
        .iter()
        .map(|port| {
            let target = port.target.clone().unwrap_or_default();
            let target = if target.kind == 1 { json!(target.text) } else { json!(target.number) };
            let node_port = Some(port.node_port).filter(|port| *port != 0);
            json!({
                "name": port.name, "protocol": port.protocol, "port": port.port, "nodePort": node_port,
                "targetPort": Some(target).filter(|target| *target != 0),
            })
        })
        .collect();
    json!({"metadata": meta(service.metadata), "spec": {
        "ports": ports, "selector": spec.selector, "clusterIP": spec.cluster_ip, "type": spec.kind,
        "externalName": spec.external_name,
    }})
}

fn deployment(deployment: Deployment) -> Value {
    let spec = deployment.spec.unwrap_or_default();
    let template = spec.template.unwrap_or_default();
    let containers: Vec<Value> = template
        .spec
        .unwrap_or_default()
        .containers
        .into_iter()
        .map(|c| {
            let ports: Vec<Value> = c.ports.iter().map(|port| json!({"containerPort": port.port})).collect();
            json!({"name": c.name, "image": c.image, "command": c.command, "args": c.args, "ports": ports})
        })
        .collect();
    json!({"metadata": meta(deployment.metadata), "spec": {
        "replicas": spec.replicas,
        "selector": {"matchLabels": spec.selector.unwrap_or_default().labels},
        "template": {"metadata": meta(template.metadata), "spec": {"containers": containers}},
    }})
}

fn review(review: Review) -> Value {
    let asked = review.spec.unwrap_or_default().resource.unwrap_or_default();
    json!({"spec": {"resourceAttributes": {
        "namespace": asked.namespace, "verb": asked.verb, "group": asked.group, "resource": asked.resource,
    }}})
}

/// Drops what protobuf cannot tell from "not set".
fn drop_empty(value: &mut Value) {
    if let Value::Array(list) = value {
        list.iter_mut().for_each(drop_empty);
        return;
    }
    let Value::Object(map) = value else { return };
    map.retain(|key, inner| {
        drop_empty(inner);
        match inner {
            Value::Null => false,
            Value::String(text) => !text.is_empty() || map_keeps_empty(key),
            Value::Array(list) => !list.is_empty(),
            Value::Object(fields) => !fields.is_empty() || key == "metadata",
            _ => true,
        }
    });
}

/// Empty texts are values in the maps that users fill; there, keys are theirs and not these field names.
fn map_keeps_empty(key: &str) -> bool {
    !matches!(
        key,
        "name"
            | "generateName"
            | "namespace"
            | "uid"
            | "resourceVersion"
            | "podCIDR"
            | "providerID"
            | "type"
            | "clusterIP"
            | "externalName"
            | "protocol"
            | "verb"
            | "group"
            | "resource"
            | "image"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(kind: &str, message: &impl Message) -> Vec<u8> {
        let kind = TypeMeta { api_version: "v1".to_owned(), kind: kind.to_owned() };
        let unknown = Unknown { kind: Some(kind), raw: message.encode_to_vec() };
        [MAGIC, &unknown.encode_to_vec()].concat()
    }

    #[test]
    fn options_of_a_deletion_are_kept() {
        let preconditions =
            Preconditions { uid: Some("u".to_owned()), resource_version: Some("7".to_owned()) };
        let options = DeleteOptions {
            grace: Some(0),
            preconditions: Some(preconditions),
            dry_run: vec!["All".to_owned()],
        };
        let expected = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "dryRun": ["All"],
            "preconditions": {"uid": "u", "resourceVersion": "7"},
        });
        assert_eq!(to_json(&body("DeleteOptions", &options)), Ok(expected));
    }

    #[test]
    fn a_node_is_what_an_update_of_it_needs() {
        let metadata = ObjectMeta {
            name: "n1".to_owned(),
            uid: "u".to_owned(),
            resource_version: "7".to_owned(),
            annotations: BTreeMap::from([("a".to_owned(), String::new())]),
            ..ObjectMeta::default()
        };
        let spec = NodeSpec { unschedulable: true, ..NodeSpec::default() };
        let node = Node { metadata: Some(metadata), spec: Some(spec) };
        let expected = json!({
            "apiVersion": "v1", "kind": "Node", "spec": {"unschedulable": true},
            "metadata": {"name": "n1", "uid": "u", "resourceVersion": "7", "annotations": {"a": ""}},
        });
        assert_eq!(to_json(&body("Node", &node)), Ok(expected.clone()));
        let mut put = expected;
        keep_status(&mut put, &json!({"status": {"phase": "x"}, "spec": {}}));
        assert_eq!(put.pointer("/status/phase"), Some(&json!("x")));
        assert_eq!(put.pointer("/spec/unschedulable"), Some(&json!(true)));
        assert!(to_json(&body("Lease", &node)).is_err(), "what it does not know it refuses");
    }
}
