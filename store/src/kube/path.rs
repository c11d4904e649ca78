//! URL paths and queries of the Kubernetes API.

use std::collections::BTreeMap;
use std::fmt::Write;

use api::{Key, KindInfo, Scope};

use crate::{ListOptions, Revision};

/// Returns the path of a kind, or of one namespace of it.
pub(super) fn collection(kind: &KindInfo, namespace: Option<&str>) -> String {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    match namespace {
        Some(namespace) if kind.scope == Scope::Namespaced => {
            format!("{root}/namespaces/{}/{}", encode(namespace), kind.plural)
        }
        _ => format!("{root}/{}", kind.plural),
    }
}

/// Returns the path of one object or of its sub-resource.
pub(super) fn object(kind: &KindInfo, key: &Key, subresource: Option<&str>) -> String {
    let mut path = collection(kind, key.namespace.as_deref());
    path.push('/');
    path.push_str(&encode(&key.name));
    if let Some(subresource) = subresource {
        path.push('/');
        path.push_str(subresource);
    }
    path
}

pub(super) fn list_query(options: &ListOptions, limit: Option<u32>, next: Option<&str>) -> String {
    let mut query = selectors(options);
    // A continue token carries its own revision.
    if next.is_none() {
        if let Some(floor) = &options.not_older_than {
            query.push(("resourceVersion", floor.as_str().to_owned()));
            query.push(("resourceVersionMatch", "NotOlderThan".to_owned()));
        } else if options.cached {
            query.push(("resourceVersion", "0".to_owned()));
        }
    }
    query.extend(limit.map(|limit| ("limit", limit.to_string())));
    query.extend(next.map(|token| ("continue", token.to_owned())));
    render(&query)
}

pub(super) fn watch_query(options: &ListOptions, from: &Revision, seconds: u64) -> String {
    let mut query = selectors(options);
    query.push(("watch", "true".to_owned()));
    query.push(("allowWatchBookmarks", "true".to_owned()));
    query.push(("resourceVersion", from.as_str().to_owned()));
    query.push(("timeoutSeconds", seconds.to_string()));
    render(&query)
}

fn selectors(options: &ListOptions) -> Vec<(&'static str, String)> {
    let join = |pairs: &BTreeMap<String, String>| {
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    };
    [("labelSelector", &options.labels), ("fieldSelector", &options.fields)]
        .into_iter()
        .filter(|(_, pairs)| !pairs.is_empty())
        .map(|(name, pairs)| (name, join(pairs)))
        .collect()
}

fn render(query: &[(&str, String)]) -> String {
    let pairs: Vec<_> =
        query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Percent-encodes everything but the unreserved characters of RFC 3986 §2.3.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
