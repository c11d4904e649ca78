//! What a real API server checks of built-in objects beyond their schemas, as far as people notice.

use serde_json::{Value, json};

use super::{
    defaults::is_dns_name,
    deletion::finalizers,
    kinds::Resource,
    status::FieldError,
    value::{at, items, text},
};

/// Kubernetes' rule for names that become host names or parts of one.
pub(super) const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
     alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// Checks an object that is written; `before` is what it replaces.
pub(super) fn check(
    resource: &Resource,
    object: &Value,
    before: Option<&Value>,
) -> Vec<FieldError> {
    let mut errors = before.map_or_else(Vec::new, |before| new_finalizers(object, before));
    if resource.is("", "pods") {
        errors.extend(containers(object));
        errors.extend(before.and_then(|before| pod_changes(object, before)));
    }
    if resource.is("", "services") {
        errors.extend(service_ports(object));
        errors.extend(before.and_then(|before| cluster_addresses(object, before)));
    }
    errors
}

/// Nothing may hold back an object that is on its way out (apimachinery `ValidateObjectMetaAccessorUpdate`).
fn new_finalizers(object: &Value, before: &Value) -> Vec<FieldError> {
    if text(before, &["metadata", "deletionTimestamp"]).is_empty() {
        return Vec::new();
    }
    let old = finalizers(before);
    let new: Vec<String> = finalizers(object)
        .iter()
        .filter(|finalizer| !old.contains(finalizer))
        .map(Value::to_string)
        .collect();
    if new.is_empty() {
        return Vec::new();
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        new.join(", ")
    );
    vec![FieldError::forbidden("metadata.finalizers", &why)]
}

fn containers(pod: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["containers", "initContainers"] {
        for (index, container) in items(pod, &["spec", list]).iter().enumerate() {
            let place = format!("spec.{list}[{index}]");
            let name = text(container, &["name"]);
            if !name.is_empty() && (name.len() > 63 || !is_dns_name(name, false)) {
                errors.push(FieldError::value(&format!("{place}.name"), &json!(name), LABEL_RULE));
            }
            if text(container, &["image"]).is_empty() {
                errors.push(FieldError::required(&format!("{place}.image")));
            }
        }
    }
    errors
}

/// Most of a pod stays as it was made (kubernetes `ValidatePodUpdate`). One exception more than a real server has: a pod
/// without a node may get one, which is how the lab binds pods.
fn pod_changes(object: &Value, before: &Value) -> Option<FieldError> {
    let mut free = vec!["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"];
    if text(before, &["spec", "nodeName"]).is_empty() {
        free.push("nodeName");
    }
    let fixed = |pod: &Value| {
        let mut spec = at(pod, &["spec"]).clone();
        let Some(map) = spec.as_object_mut() else { return spec };
        map.retain(|key, _| !free.contains(&key.as_str()));
        for list in ["containers", "initContainers"] {
            let containers = map.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
                container.shift_remove("image");
            }
        }
        spec
    };
    (fixed(object) != fixed(before)).then(|| {
        FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        )
    })
}

fn service_ports(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ports = items(service, &["spec", "ports"]);
    for (index, port) in ports.iter().enumerate() {
        for field in ["port", "targetPort"] {
            let number = at(port, &[field]);
            if number.as_i64().is_some_and(|number| !(1..=65_535).contains(&number)) {
                let why = "must be between 1 and 65535, inclusive";
                let place = format!("spec.ports[{index}].{field}");
                errors.push(FieldError::value(&place, number, why));
            }
        }
        if ports.len() > 1 && text(port, &["name"]).is_empty() {
            errors.push(FieldError::required(&format!("spec.ports[{index}].name")));
        }
    }
    errors
}

fn cluster_addresses(object: &Value, before: &Value) -> Option<FieldError> {
    let (new, old) = (at(object, &["spec", "clusterIPs"]), at(before, &["spec", "clusterIPs"]));
    let first = text(object, &["spec", "clusterIP"]);
    let moved = old.get(0).is_some_and(|old| {
        old != "None" && (new.get(0) != Some(old) || first != old.as_str().unwrap_or_default())
    });
    let external = [object, before].iter().any(|o| text(o, &["spec", "type"]) == "ExternalName");
    (moved && !external).then(|| {
        FieldError::value("spec.clusterIPs[0]", &json!([first]), "may not change once set")
    })
}
