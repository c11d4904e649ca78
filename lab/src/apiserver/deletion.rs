//! When a deleted object really goes: finalizers, grace periods, preconditions.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    kinds::Resource,
    status::Failure,
    value::{at, items, object_at, text},
};

/// Options of a delete.
#[derive(Clone, Debug, Default)]
pub(super) struct DeleteOptions {
    pub(super) grace_seconds: Option<i64>,
    pub(super) uid: Option<String>,
    pub(super) revision: Option<String>,
}

/// What became of a deleted object.
#[derive(Debug)]
pub(super) enum Deleted {
    Gone(Arc<Value>),
    Waiting(Arc<Value>),
}

/// What holds an object back.
pub(super) fn finalizers(object: &Value) -> &[Value] {
    items(object, &["metadata", "finalizers"])
}

/// Whether nothing holds an object back that was marked as deleted.
pub(super) fn is_released(resource: &Resource, object: &Value) -> bool {
    let grace = at(object, &["metadata", "deletionGracePeriodSeconds"]).as_i64().unwrap_or(0);
    finalizers(object).is_empty()
        && !resource.is("", "namespaces")
        && (grace == 0 || !resource.is("", "pods"))
}

/// Whether the object is the one that the client means.
pub(super) fn check_preconditions(
    resource: &Resource,
    before: &Value,
    options: &DeleteOptions,
) -> Result<(), Failure> {
    let name = text(before, &["metadata", "name"]);
    let stored = |field: &str| text(before, &["metadata", field]).to_owned();
    let check = |what: &str, wanted: &Option<String>, found: String| match wanted {
        Some(wanted) if *wanted != found => {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            );
            Err(Failure::conflict(&resource.group, &resource.plural, name, &why))
        }
        _ => Ok(()),
    };
    check("UID", &options.uid, stored("uid"))?;
    check("ResourceVersion", &options.revision, stored("resourceVersion"))
}

/// How long a kubelet may take to stop a pod: nothing else has a grace period.
pub(super) fn grace_seconds(resource: &Resource, before: &Value, options: &DeleteOptions) -> i64 {
    let runs = resource.is("", "pods")
        && !text(before, &["spec", "nodeName"]).is_empty()
        && !matches!(text(before, &["status", "phase"]), "Succeeded" | "Failed");
    if !runs {
        return 0;
    }
    let usual = at(before, &["spec", "terminationGracePeriodSeconds"]).as_i64().unwrap_or(30);
    let asked = options.grace_seconds.unwrap_or(usual).max(0);
    // A later delete can only shorten what an earlier one granted.
    at(before, &["metadata", "deletionGracePeriodSeconds"])
        .as_i64()
        .map_or(asked, |granted| granted.min(asked))
}

/// Says in the object when it is to go.
pub(super) fn mark_deleted(object: &mut Value, grace: i64, now: Timestamp) {
    let metadata = object_at(object, &["metadata"]);
    let marked = metadata.contains_key("deletionTimestamp");
    if marked && metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64) == Some(grace) {
        return;
    }
    let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    metadata.insert("deletionTimestamp".to_owned(), seconds(end).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
}

/// RFC 3339 in whole seconds, as Kubernetes writes it.
pub(super) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
