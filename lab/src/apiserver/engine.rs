//! What a write does: checks, defaults, revisions, finalizers, namespaces, CRDs. Pure but for the objects it holds:
//! time and randomness come with each request.

use std::{fmt, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    checks, defaults,
    deletion::{
        DeleteOptions, Deleted, check_preconditions, finalizers, grace_seconds, is_released,
        mark_deleted, seconds,
    },
    kinds::{Registry, Resource},
    schema::{self, Strictness},
    status::{Failure, FieldError},
    storage::{ObjectKey, Storage, key_of},
    value::{at, default_to, items, object_at, shorten_numbers, text},
};

/// Checks an object of a kind beyond its schema; the others of its kind and namespace are there to compare with.
pub type Admission =
    fn(kind: &str, object: &Value, others: &mut dyn Iterator<Item = &Value>) -> Vec<FieldError>;

/// All state of the server.
pub(super) struct Engine {
    pub(super) registry: Registry,
    pub(super) storage: Storage,
    pub(super) admission: Admission,
    pub(super) service_ranges: Vec<IpNet>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("revision", &self.storage.revision()).finish_non_exhaustive()
    }
}

/// What to do about unknown fields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Validation {
    Ignore,
    Warn,
    Strict,
}

/// What comes with a write besides the object.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) now: Timestamp,
    /// A fresh random UUID.
    pub(super) uid: String,
    pub(super) validation: Validation,
    pub(super) dry_run: bool,
    /// The body of a patch, which errors about its fields quote.
    pub(super) patch: Option<String>,
    pub(super) warnings: Vec<String>,
}

/// Which part of an object an update writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    Main,
    Status,
}

impl Engine {
    /// Reads one object.
    pub(super) fn get(&self, resource: &Resource, key: &ObjectKey) -> Result<Arc<Value>, Failure> {
        let found = self.storage.get(&resource.collection(), key);
        found.cloned().ok_or_else(|| Failure::not_found(&resource.group, &resource.plural, &key.1))
    }

    /// Creates an object.
    pub(super) fn create(
        &mut self,
        resource: &Resource,
        namespace: &str,
        mut object: Value,
        context: &mut Context,
    ) -> Result<Arc<Value>, Failure> {
        self.decode(resource, &mut object, context)?;
        if !text(&object, &["metadata", "resourceVersion"]).is_empty() {
            return Err(Failure::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        place_in_namespace(&mut object, namespace)?;
        self.check_namespace(resource, &object)?;
        stamp_new(resource, &mut object, context);
        let key = key_of(&object);
        if let Some(found) = self.storage.get(&resource.collection(), &key) {
            let going = !text(found, &["metadata", "deletionTimestamp"]).is_empty();
            return Err(Failure::exists(&resource.group, &resource.plural, &key.1, going));
        }
        if resource.has_status() && !resource.is("", "nodes") && !resource.is("", "pods") {
            object_at(&mut object, &[]).shift_remove("status");
        }
        self.complete(resource, &mut object, None)?;
        self.validate(resource, &object, None)?;
        warn_of_idle_kinds(resource, context);
        if context.dry_run {
            return Ok(Arc::new(object));
        }
        let stored = self.storage.put(&resource.collection(), key, object);
        self.after_create(resource, &stored, context);
        Ok(stored)
    }

    /// Replaces an object or its status.
    pub(super) fn update(
        &mut self,
        resource: &Resource,
        key: &ObjectKey,
        mut object: Value,
        part: Part,
        context: &mut Context,
    ) -> Result<Arc<Value>, Failure> {
        let before = self.get(resource, key)?;
        self.decode(resource, &mut object, context)?;
        place_in_namespace(&mut object, &key.0)?;
        let name = text(&object, &["metadata", "name"]);
        if name != key.1 {
            return Err(Failure::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                key.1
            )));
        }
        check_revision(resource, &before, &object)?;
        keep_system_fields(&mut object, &before, resource, part);
        self.complete(resource, &mut object, Some(&before))?;
        if part == Part::Main
            && has_generation(resource)
            && substance(&object) != substance(&before)
        {
            let generation =
                at(&before, &["metadata", "generation"]).as_i64().unwrap_or(0).saturating_add(1);
            object_at(&mut object, &["metadata"])
                .insert("generation".to_owned(), generation.into());
        }
        self.validate(resource, &object, Some(&before))?;
        if object == *before || context.dry_run {
            return Ok(Arc::new(object));
        }
        if !text(&object, &["metadata", "deletionTimestamp"]).is_empty()
            && is_released(resource, &object)
        {
            self.storage.put(&resource.collection(), key.clone(), object);
            return Ok(self.remove(resource, key).unwrap_or(before));
        }
        let stored = self.storage.put(&resource.collection(), key.clone(), object);
        self.mirror_event(resource, &stored);
        if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
            self.registry.define(&stored);
        }
        Ok(stored)
    }

    /// Deletes an object, or marks it when something must happen first.
    pub(super) fn delete(
        &mut self,
        resource: &Resource,
        key: &ObjectKey,
        options: &DeleteOptions,
        context: &Context,
    ) -> Result<Deleted, Failure> {
        let before = self.get(resource, key)?;
        check_preconditions(resource, &before, options)?;
        if context.dry_run {
            return Ok(Deleted::Gone(before));
        }
        let grace = grace_seconds(resource, &before, options);
        let waits =
            grace > 0 || !finalizers(&before).is_empty() || self.is_full_namespace(resource, key);
        if !waits {
            let removed = self.remove(resource, key).unwrap_or(before);
            return Ok(Deleted::Gone(removed));
        }
        let mut object = Value::clone(&before);
        mark_deleted(&mut object, grace, context.now);
        if resource.is("", "namespaces") {
            object_at(&mut object, &["status"]).insert("phase".to_owned(), "Terminating".into());
        }
        let marked = if object == *before {
            before
        } else {
            self.storage.put(&resource.collection(), key.clone(), object)
        };
        if resource.is("", "namespaces") {
            self.empty_namespace(&key.1, context);
            if self.storage.get("/namespaces", key).is_none() {
                return Ok(Deleted::Gone(marked));
            }
        }
        Ok(Deleted::Waiting(marked))
    }

    fn is_full_namespace(&self, resource: &Resource, key: &ObjectKey) -> bool {
        resource.is("", "namespaces")
            && self
                .storage
                .collections()
                .iter()
                .any(|c| self.storage.list(c, None).any(|(k, _)| k.0 == key.1))
    }

    /// Deletes everything in a namespace; what has finalizers or runs on a node stays until it is released.
    fn empty_namespace(&mut self, namespace: &str, context: &Context) {
        let resources: Vec<Arc<Resource>> =
            self.registry.all().filter(|r| r.namespaced).cloned().collect();
        for resource in resources {
            let inside: Vec<ObjectKey> = self
                .storage
                .list(&resource.collection(), None)
                .filter(|(key, _)| key.0 == namespace)
                .map(|(key, _)| key.clone())
                .collect();
            for key in inside {
                // It was there a line above, and without preconditions nothing else can fail.
                let _ = self.delete(&resource, &key, &DeleteOptions::default(), context);
            }
        }
        self.finish_namespace(namespace);
    }

    fn finish_namespace(&mut self, namespace: &str) {
        let key = (String::new(), namespace.to_owned());
        let Some(resource) = self.registry.find("", "v1", "namespaces").cloned() else { return };
        let terminating = self.storage.get("/namespaces", &key).is_some_and(|found| {
            !text(found, &["metadata", "deletionTimestamp"]).is_empty()
                && finalizers(found).is_empty()
        });
        if terminating && !self.is_full_namespace(&resource, &key) {
            self.storage.remove("/namespaces", &key);
        }
    }

    fn remove(&mut self, resource: &Resource, key: &ObjectKey) -> Option<Arc<Value>> {
        let removed = self.storage.remove(&resource.collection(), key)?;
        if resource.is("apiextensions.k8s.io", "customresourcedefinitions")
            && let Some(collection) = self.registry.undefine(&removed)
        {
            let left: Vec<ObjectKey> =
                self.storage.list(&collection, None).map(|(key, _)| key.clone()).collect();
            for key in left {
                self.storage.remove(&collection, &key);
            }
        }
        if !key.0.is_empty() {
            self.finish_namespace(&key.0);
        }
        Some(removed)
    }

    /// Brings a body into the kind's shape, or says what in it does not fit.
    fn decode(
        &self,
        resource: &Resource,
        object: &mut Value,
        context: &mut Context,
    ) -> Result<(), Failure> {
        let api_version = resource.api_version();
        shorten_numbers(object);
        let map = object_at(object, &[]);
        default_to(map, "apiVersion", api_version.clone());
        default_to(map, "kind", resource.kind.clone());
        let (sent_version, sent_kind) = (text(object, &["apiVersion"]), text(object, &["kind"]));
        if sent_version != api_version || sent_kind != resource.kind {
            return Err(Failure::bad_request(format!(
                "the API version in the data ({sent_version}, Kind={sent_kind}) does not match the expected API version \
                 ({api_version}, Kind={})",
                resource.kind
            )));
        }
        object_at(object, &["metadata"]).shift_remove("managedFields");
        let Some(schema) = self.registry.schema(resource) else { return Ok(()) };
        let schemas = &self.registry.schemas;
        let cannot = |why: String| {
            Failure::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: {why}",
                resource.version,
                kind = resource.kind
            ))
        };
        if !resource.is_custom()
            && let Some(why) = schema::decode_error(schemas, schema, object)
        {
            return Err(cannot(why));
        }
        let mut unknown = Vec::new();
        schema::prune(schemas, schema, object, "", &mut unknown);
        let unknown: Vec<String> =
            unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
        match context.validation {
            Validation::Strict if !unknown.is_empty() => {
                let why = format!("strict decoding error: {}", unknown.join(", "));
                return Err(match &context.patch {
                    Some(patch) => {
                        let quoted = Value::from(patch.as_str());
                        Failure::invalid("", "", "", &[FieldError::value("patch", &quoted, &why)])
                    }
                    None => cannot(why),
                });
            }
            Validation::Ignore => {}
            _ => context.warnings.extend(unknown),
        }
        schema::fill_defaults(schemas, schema, object);
        Ok(())
    }

    fn check_namespace(&self, resource: &Resource, object: &Value) -> Result<(), Failure> {
        let (namespace, name) = key_of(object);
        if !resource.namespaced {
            return Ok(());
        }
        let key = (String::new(), namespace);
        let Some(found) = self.storage.get("/namespaces", &key) else {
            return Err(Failure::not_found("", "namespaces", &key.1));
        };
        if text(found, &["metadata", "deletionTimestamp"]).is_empty() {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            key.1
        );
        Err(Failure::forbidden(&resource.group, &resource.plural, &name, &why))
    }

    /// Adds what the server decides.
    fn complete(
        &self,
        resource: &Resource,
        object: &mut Value,
        before: Option<&Value>,
    ) -> Result<(), Failure> {
        if !resource.is_custom() {
            defaults::fill(resource, object);
        }
        if resource.is("", "services") {
            defaults::allocate(object, before, &self.storage, &self.service_ranges)?;
        }
        if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
            complete_crd(object);
        }
        Ok(())
    }

    fn validate(
        &self,
        resource: &Resource,
        object: &Value,
        before: Option<&Value>,
    ) -> Result<(), Failure> {
        let mut errors = defaults::check_metadata(resource, object);
        if let Some(schema) = self.registry.schema(resource) {
            let strictness =
                if resource.is_custom() { Strictness::Full } else { Strictness::BuiltIn };
            errors.extend(schema::validate(&self.registry.schemas, schema, object, strictness));
        }
        if errors.is_empty() {
            errors = checks::check(resource, object, before);
        }
        if errors.is_empty() {
            let (own, collection) = (key_of(object), resource.collection());
            let others = self.storage.list(&collection, None);
            let mut others =
                others.filter(|(key, _)| key.0 == own.0 && key.1 != own.1).map(|(_, o)| &**o);
            errors = (self.admission)(&resource.kind, object, &mut others);
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(Failure::invalid(
            &resource.group,
            &resource.kind,
            text(object, &["metadata", "name"]),
            &errors,
        ))
    }

    /// Events of `events.k8s.io` are seen in the core group too, where kubectl looks for them.
    fn mirror_event(&mut self, resource: &Resource, stored: &Value) {
        if resource.is("events.k8s.io", "events") {
            let event = defaults::core_event(stored);
            self.storage.put("/events", key_of(&event), event);
        }
    }

    fn after_create(&mut self, resource: &Resource, stored: &Value, context: &Context) {
        self.mirror_event(resource, stored);
        if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
            self.registry.define(stored);
        }
        // A real cluster's controller-manager makes each namespace's default account.
        if resource.is("", "namespaces") {
            let namespace = text(stored, &["metadata", "name"]).to_owned();
            let mut uid = context.uid.clone();
            uid.replace_range(0..1, "f");
            let account = json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {
                    "name": "default", "namespace": namespace, "uid": uid,
                    "creationTimestamp": at(stored, &["metadata", "creationTimestamp"]),
                },
            });
            self.storage.put("/serviceaccounts", key_of(&account), account);
        }
    }
}

fn place_in_namespace(object: &mut Value, namespace: &str) -> Result<(), Failure> {
    let metadata = object_at(object, &["metadata"]);
    match metadata.get("namespace").and_then(Value::as_str).filter(|named| !named.is_empty()) {
        Some(named) if named != namespace => Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        _ if namespace.is_empty() => {
            metadata.shift_remove("namespace");
            Ok(())
        }
        _ => {
            metadata.insert("namespace".to_owned(), namespace.into());
            Ok(())
        }
    }
}

/// Kinds whose changes nobody acts on have no generation on a real server.
fn has_generation(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "" => matches!(resource.plural.as_str(), "pods" | "replicationcontrollers"),
        "coordination.k8s.io" | "events.k8s.io" => false,
        _ => true,
    }
}

fn stamp_new(resource: &Resource, object: &mut Value, context: &Context) {
    let metadata = object_at(object, &["metadata"]);
    let prefix = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default();
    if !prefix.is_empty() {
        let suffix: String = context.uid.chars().filter(|c| *c != '-').take(5).collect();
        let name = format!("{prefix}{suffix}");
        default_to(metadata, "name", name);
    }
    metadata.insert("uid".to_owned(), context.uid.clone().into());
    metadata.shift_remove("generation");
    if has_generation(resource) {
        metadata.insert("generation".to_owned(), 1.into());
    }
    metadata.insert("creationTimestamp".to_owned(), seconds(context.now).into());
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"]
    {
        metadata.shift_remove(field);
    }
}

fn check_revision(resource: &Resource, before: &Value, object: &Value) -> Result<(), Failure> {
    let name = text(before, &["metadata", "name"]);
    let sent = text(object, &["metadata", "resourceVersion"]);
    if sent.is_empty() && resource.is_custom() {
        let field = FieldError::invalid(
            "metadata.resourceVersion",
            "Invalid value: 0: must be specified for an update",
        );
        return Err(Failure::invalid(&resource.group, &resource.kind, name, &[field]));
    }
    let conflict = |why: &str| Err(Failure::conflict(&resource.group, &resource.plural, name, why));
    if !sent.is_empty() && sent != text(before, &["metadata", "resourceVersion"]) {
        return conflict(
            "the object has been modified; please apply your changes to the latest version and try again",
        );
    }
    let (sent, stored) = (text(object, &["metadata", "uid"]), text(before, &["metadata", "uid"]));
    if !sent.is_empty() && sent != stored {
        return conflict(&format!(
            "Precondition failed: UID in precondition: {sent}, UID in object meta: {stored}"
        ));
    }
    Ok(())
}

/// An update may not write what is the server's, nor the other part of the object.
fn keep_system_fields(object: &mut Value, before: &Value, resource: &Resource, part: Part) {
    if part == Part::Status {
        let sent = std::mem::replace(object, before.clone());
        set_or_remove(object_at(object, &[]), "status", at(&sent, &["status"]));
        // Labels and annotations pass with the status of a core kind, of no other
        // (kubernetes `pkg/registry/core/*/strategy.go`, apiextensions `customresource/status_strategy.go`).
        if resource.group.is_empty() {
            let metadata = object_at(object, &["metadata"]);
            for field in ["labels", "annotations", "finalizers"] {
                set_or_remove(metadata, field, at(&sent, &["metadata", field]));
            }
        }
        return;
    }
    if resource.has_status() {
        set_or_remove(object_at(object, &[]), "status", at(before, &["status"]));
    }
    let metadata = object_at(object, &["metadata"]);
    let system = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
    ];
    for field in system {
        set_or_remove(metadata, field, at(before, &["metadata", field]));
    }
}

fn set_or_remove(map: &mut Map<String, Value>, key: &str, value: &Value) {
    if value.is_null() {
        map.shift_remove(key);
    } else {
        map.insert(key.to_owned(), value.clone());
    }
}

/// Everything that `metadata.generation` counts the changes of.
fn substance(object: &Value) -> Vec<(&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    let mut fields: Vec<_> =
        fields.filter(|(key, _)| *key != "metadata" && *key != "status").collect();
    fields.sort_by_key(|(key, _)| *key);
    fields
}

fn complete_crd(object: &mut Value) {
    let group = text(object, &["spec", "group"]).to_owned();
    let kind = text(object, &["spec", "names", "kind"]).to_owned();
    let names = object_at(object, &["spec", "names"]);
    default_to(names, "singular", kind.to_lowercase());
    default_to(names, "listKind", format!("{kind}List"));
    default_to(object_at(object, &["spec"]), "conversion", json!({"strategy": "None"}));
    let versions: Vec<Value> = items(object, &["spec", "versions"])
        .iter()
        .filter(|version| version.get("storage") == Some(&Value::Bool(true)))
        .filter_map(|version| version.get("name").cloned())
        .collect();
    let accepted = at(object, &["spec", "names"]).clone();
    let created = at(object, &["metadata", "creationTimestamp"]).clone();
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": created,
        })
    };
    let status = object_at(object, &["status"]);
    status.insert("acceptedNames".to_owned(), accepted);
    status.insert("storedVersions".to_owned(), versions.into());
    default_to(
        status,
        "conditions",
        json!([
            condition("NamesAccepted", "NoConflicts", &format!("no conflicts found in {group}")),
            condition(
                "Established",
                "InitialNamesAccepted",
                "the initial names have been accepted"
            ),
        ]),
    );
}

fn warn_of_idle_kinds(resource: &Resource, context: &mut Context) {
    if resource.group == "apps" || resource.is("", "replicationcontrollers") {
        context.warnings.push(format!(
            "the lab runs no controllers: this {} is stored but makes no pods; create Pods instead",
            resource.kind
        ));
    }
}
