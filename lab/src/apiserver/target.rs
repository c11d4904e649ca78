//! What the path of a request names, and where a list goes on.

use std::sync::{Arc, PoisonError};

use base64::Engine as _;
use serde_json::json;

use super::{Shared, kinds::Resource, status::Failure, storage::ObjectKey};

/// What a path below a group and version names.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) resource: Arc<Resource>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl Target {
    /// Reads `[namespaces/<ns>/]<plural>[/<name>[/<subresource>]]`.
    pub(super) fn find(
        shared: &Arc<Shared>,
        group: &str,
        version: &str,
        path: &[&str],
    ) -> Option<Self> {
        let engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |plural: &str| engine.registry.find(group, version, plural).cloned();
        let own = |part: Option<&&str>| part.map(|part| (*part).to_owned());
        let (namespace, rest) = match path {
            // `/namespaces/x/status` is a part of the namespace, `/namespaces/x/pods` is inside.
            ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, path),
            ["namespaces", namespace, rest @ ..] => (Some((*namespace).to_owned()), rest),
            _ => (None, path),
        };
        let resource = find(rest.first()?)?;
        let fits = rest.len() <= 3 && (namespace.is_none() || resource.namespaced);
        let whole = rest.len() == 1 || namespace.is_some() || !resource.namespaced;
        (fits && whole).then(|| Self {
            resource,
            namespace,
            name: own(rest.get(1)),
            subresource: own(rest.get(2)),
        })
    }

    /// The object's key in its collection.
    pub(super) fn key(&self) -> ObjectKey {
        (self.namespace.clone().unwrap_or_default(), self.name.clone().unwrap_or_default())
    }
}

/// A token to continue a list after that key.
pub(super) fn write_continue(revision: u64, key: &ObjectKey) -> String {
    let token = json!([revision, key.0, key.1]).to_string();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token)
}

/// Reads what [`write_continue`] wrote.
pub(super) fn read_continue(token: &str) -> Result<(u64, ObjectKey), Failure> {
    let decoded =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
    serde_json::from_slice::<(u64, String, String)>(&decoded)
        .map(|(revision, namespace, name)| (revision, (namespace, name)))
        .map_err(|error| {
            Failure::bad_request(format!(
                "invalid continue token: continue key is not valid: {error}"
            ))
        })
}
