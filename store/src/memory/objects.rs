//! The objects and their history: pure, on JSON.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use api::{Key, KindInfo};
use serde_json::{Map, Value, json};

use crate::{DeletePreconditions, ListOptions, StoreError};

/// Group and plural: what identifies a kind in a URL.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct KindId {
    group: &'static str,
    plural: &'static str,
}

impl KindId {
    pub(super) fn of(kind: &KindInfo) -> Self {
        Self { group: kind.group, plural: kind.plural }
    }
}

/// Which objects a list or watch is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
    fields: BTreeMap<String, String>,
}

impl Selection {
    pub(super) fn of(options: &ListOptions) -> Self {
        Self {
            namespace: options.namespace.clone(),
            labels: options.labels.clone(),
            fields: options.fields.clone(),
        }
    }

    fn matches(&self, key: &Key, object: &Value) -> bool {
        let in_namespace = self.namespace.is_none() || self.namespace == key.namespace;
        let labels = object.pointer("/metadata/labels");
        let label = |name: &str| labels.and_then(|labels| labels.get(name)).and_then(Value::as_str);
        let field = |path: &str| {
            let pointer = format!("/{}", path.replace('.', "/"));
            object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        in_namespace
            && self.labels.iter().all(|(name, value)| label(name) == Some(value))
            && self.fields.iter().all(|(path, value)| field(path) == *value)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ChangeKind {
    Applied,
    Deleted,
}

/// A change as one watch sees it.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) kind: ChangeKind,
    pub(super) object: Arc<Value>,
}

/// Why a request cannot be served, without the words around it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum WriteError {
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid(String),
}

impl WriteError {
    pub(super) fn explain(self, kind: &KindInfo, key: &Key) -> StoreError {
        let (kind, key) = (kind.kind, key.to_string());
        match self {
            Self::NotFound => StoreError::NotFound { kind, key },
            Self::AlreadyExists => StoreError::AlreadyExists { kind, key },
            Self::Conflict => StoreError::Conflict { kind, key },
            Self::Gone => StoreError::Gone,
            Self::Invalid(message) => {
                StoreError::Invalid { message: format!("{kind} {key:?} is invalid: {message}") }
            }
        }
    }
}

#[derive(Debug)]
struct Event {
    revision: u64,
    kind: KindId,
    key: Key,
    before: Option<Arc<Value>>,
    after: Option<Arc<Value>>,
    /// The last state with the revision of its deletion, as an API server sends it.
    farewell: Option<Arc<Value>>,
}

/// Events kept for watches that are behind.
const HISTORY: usize = 100_000;

#[derive(Debug)]
pub(super) struct Objects {
    kinds: BTreeMap<KindId, BTreeMap<Key, Arc<Value>>>,
    history: VecDeque<Event>,
    revision: u64,
    horizon: u64,
}

impl Objects {
    pub(super) fn new() -> Self {
        Self { kinds: BTreeMap::new(), history: VecDeque::new(), revision: 1, horizon: 1 }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The oldest revision from which a watch can start.
    pub(super) fn horizon(&self) -> u64 {
        self.horizon
    }

    pub(super) fn compact(&mut self) {
        self.history.clear();
        self.horizon = self.revision;
    }

    pub(super) fn get(&self, kind: &KindId, key: &Key) -> Option<Arc<Value>> {
        self.kinds.get(kind)?.get(key).cloned()
    }

    /// Lists the objects as they were at `revision`, by undoing the later part of the history.
    pub(super) fn list_at(
        &self,
        kind: &KindId,
        selection: &Selection,
        revision: u64,
    ) -> Vec<Arc<Value>> {
        let mut undone: BTreeMap<&Key, Option<&Arc<Value>>> = BTreeMap::new();
        for event in self.history.iter().rev().take_while(|event| event.revision > revision) {
            if event.kind == *kind {
                undone.insert(&event.key, event.before.as_ref());
            }
        }
        let current = self.kinds.get(kind).into_iter().flatten();
        let mut objects: BTreeMap<&Key, &Arc<Value>> =
            current.filter(|(key, _)| !undone.contains_key(key)).collect();
        objects.extend(undone.into_iter().filter_map(|(key, object)| Some((key, object?))));
        let chosen = objects.into_iter().filter(|(key, object)| selection.matches(key, object));
        chosen.map(|(_, object)| Arc::clone(object)).collect()
    }

    /// Returns the first change after `after` that this watch sees, and the revision reached.
    pub(super) fn next_change(
        &self,
        kind: &KindId,
        selection: &Selection,
        after: u64,
    ) -> Result<(Option<Change>, u64), WriteError> {
        if after < self.horizon {
            return Err(WriteError::Gone);
        }
        let start = self.history.partition_point(|event| event.revision <= after);
        for event in self.history.range((Bound::Included(start), Bound::Unbounded)) {
            if event.kind != *kind {
                continue;
            }
            let chosen = |object: &Option<Arc<Value>>| {
                object.clone().filter(|object| selection.matches(&event.key, object))
            };
            let change = match (chosen(&event.before), chosen(&event.after)) {
                (_, Some(object)) => Change { kind: ChangeKind::Applied, object },
                // Gone, or changed so that the selection leaves it out.
                (Some(before), None) => {
                    let object = event.farewell.clone().unwrap_or(before);
                    Change { kind: ChangeKind::Deleted, object }
                }
                (None, None) => continue,
            };
            return Ok((Some(change), event.revision));
        }
        Ok((None, self.revision))
    }

    pub(super) fn create(
        &mut self,
        kind: &KindInfo,
        key: &Key,
        mut body: Value,
    ) -> Result<Arc<Value>, WriteError> {
        let id = KindId::of(kind);
        if key.name.is_empty() {
            return Err(WriteError::Invalid("metadata.name: Required value".to_owned()));
        }
        if self.get(&id, key).is_some() {
            return Err(WriteError::AlreadyExists);
        }
        if let Some(body) = body.as_object_mut() {
            // A sub-resource is not written by a create.
            body.shift_remove("status");
        }
        let revision = self.revision + 1;
        let meta = metadata(&mut body);
        meta.insert("uid".to_owned(), json!(format!("00000000-0000-4000-8000-{revision:012x}")));
        meta.insert("creationTimestamp".to_owned(), json!("2026-01-01T00:00:00Z"));
        meta.insert("generation".to_owned(), json!(1));
        Ok(self.put(id, key, None, Some(body)))
    }

    pub(super) fn update(
        &mut self,
        kind: &KindInfo,
        key: &Key,
        body: Value,
        subresource: Option<&str>,
    ) -> Result<Arc<Value>, WriteError> {
        let id = KindId::of(kind);
        let before = self.get(&id, key).ok_or(WriteError::NotFound)?;
        let based_on = body.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        match based_on {
            None | Some("") => {
                let message = "metadata.resourceVersion: must be specified for an update";
                return Err(WriteError::Invalid(message.to_owned()));
            }
            based_on if based_on != revision_of(&before) => return Err(WriteError::Conflict),
            Some(_) => {}
        }
        let uid = |object: &Value| object.pointer("/metadata/uid").cloned();
        if uid(&body).is_some_and(|uid_sent| Some(uid_sent) != uid(&before)) {
            return Err(WriteError::Conflict);
        }
        Ok(self.replace(id, kind, key, &before, body, subresource))
    }

    pub(super) fn patch(
        &mut self,
        kind: &KindInfo,
        key: &Key,
        patch: &Value,
        subresource: Option<&str>,
    ) -> Result<Arc<Value>, WriteError> {
        let id = KindId::of(kind);
        let before = self.get(&id, key).ok_or(WriteError::NotFound)?;
        let wanted = patch.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        if wanted.is_some() && wanted != revision_of(&before) {
            return Err(WriteError::Conflict);
        }
        let mut body = before.as_ref().clone();
        merge_patch(&mut body, patch);
        Ok(self.replace(id, kind, key, &before, body, subresource))
    }

    pub(super) fn delete(
        &mut self,
        kind: &KindInfo,
        key: &Key,
        preconditions: &DeletePreconditions,
    ) -> Result<Arc<Value>, WriteError> {
        let id = KindId::of(kind);
        let before = self.get(&id, key).ok_or(WriteError::NotFound)?;
        let uid = before.pointer("/metadata/uid").and_then(Value::as_str);
        let uid_differs = preconditions.uid.as_deref().is_some_and(|wanted| Some(wanted) != uid);
        let moved_on = preconditions
            .revision
            .as_ref()
            .is_some_and(|wanted| Some(wanted.as_str()) != revision_of(&before));
        if uid_differs || moved_on {
            return Err(WriteError::Conflict);
        }
        if !has_finalizers(&before) {
            return Ok(self.put(id, key, Some(before), None));
        }
        let mut body = before.as_ref().clone();
        metadata(&mut body)
            .entry("deletionTimestamp")
            .or_insert_with(|| json!("2026-01-01T00:00:00Z"));
        Ok(self.put(id, key, Some(before), Some(body)))
    }

    fn replace(
        &mut self,
        id: KindId,
        kind: &KindInfo,
        key: &Key,
        before: &Arc<Value>,
        mut body: Value,
        subresource: Option<&str>,
    ) -> Arc<Value> {
        match subresource {
            Some(_) => body = with_status_of(kind, before, &body),
            None => set_or_remove(&mut body, "status", before.get("status").cloned()),
        }
        keep_server_fields(&mut body, before);
        if body == **before {
            // The API server does not write, nor tell the watches, when nothing changes.
            return Arc::clone(before);
        }
        if without_meta_and_status(&body) != without_meta_and_status(before) {
            let generation = before.pointer("/metadata/generation").and_then(Value::as_u64);
            let next = generation.unwrap_or_default() + 1;
            metadata(&mut body).insert("generation".to_owned(), json!(next));
        }
        let leaves =
            body.pointer("/metadata/deletionTimestamp").is_some() && !has_finalizers(&body);
        self.put(id, key, Some(Arc::clone(before)), (!leaves).then_some(body))
    }

    /// Stores or removes, and remembers it in the history. Returns the object, or its last state.
    fn put(
        &mut self,
        kind: KindId,
        key: &Key,
        before: Option<Arc<Value>>,
        after: Option<Value>,
    ) -> Arc<Value> {
        self.revision += 1;
        let stamp = |mut object: Value| {
            let version = json!(self.revision.to_string());
            metadata(&mut object).insert("resourceVersion".to_owned(), version);
            Arc::new(object)
        };
        let deleted = after.is_none();
        let after = after.map(&stamp);
        let farewell = match &before {
            Some(before) if deleted => Some(stamp(before.as_ref().clone())),
            _ => None,
        };
        let result = after.clone().or_else(|| farewell.clone()).unwrap_or_default();
        let objects = self.kinds.entry(kind.clone()).or_default();
        match &after {
            Some(after) => objects.insert(key.clone(), Arc::clone(after)),
            None => objects.remove(key),
        };
        let revision = self.revision;
        self.history.push_back(Event { revision, kind, key: key.clone(), before, after, farewell });
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.horizon = oldest.revision;
        }
        result
    }
}

fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let meta = &mut object["metadata"];
    if !meta.is_object() {
        *meta = json!({});
    }
    match meta {
        Value::Object(meta) => meta,
        _ => unreachable!("made an object just above"),
    }
}

fn revision_of(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str)
}

fn has_finalizers(object: &Value) -> bool {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .is_some_and(|finalizers| !finalizers.is_empty())
}

fn set_or_remove(object: &mut Value, key: &str, value: Option<Value>) {
    if let Some(object) = object.as_object_mut() {
        match value {
            Some(value) => object.insert(key.to_owned(), value),
            None => object.shift_remove(key),
        };
    }
}

/// A write to `status` changes the status alone; built-in kinds also take labels and annotations that way, which is how
/// Calico annotates nodes and pods.
fn with_status_of(kind: &KindInfo, before: &Value, body: &Value) -> Value {
    let mut result = before.clone();
    set_or_remove(&mut result, "status", body.get("status").cloned());
    if kind.group.is_empty() {
        for field in ["labels", "annotations"] {
            let value = body.pointer(&format!("/metadata/{field}")).cloned();
            let meta = metadata(&mut result);
            match value {
                Some(value) => meta.insert(field.to_owned(), value),
                None => meta.shift_remove(field),
            };
        }
    }
    result
}

/// What a client cannot change.
fn keep_server_fields(body: &mut Value, before: &Value) {
    for field in ["uid", "creationTimestamp", "generation", "deletionTimestamp", "resourceVersion"]
    {
        let value = before.pointer(&format!("/metadata/{field}")).cloned();
        let meta = metadata(body);
        match value {
            Some(value) => meta.insert(field.to_owned(), value),
            None => meta.shift_remove(field),
        };
    }
}

fn without_meta_and_status(object: &Value) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"))
        .collect();
    fields.sort_by_key(|(key, _)| *key);
    fields
}

/// RFC 7386.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.shift_remove(key);
        } else {
            merge_patch(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}
