//! The verbs that change something: apply, create, replace, patch, delete, label, validate.

use anyhow::{Context as _, Result, bail};
use api::{Key, Resource, Scope};
use serde_json::{Map, Value, json};
use store::{DeletePreconditions, Store, StoreError};

use super::{
    Context, Outcome,
    get::{namespace, typed},
};
use crate::{
    cli::{DeleteArgs, FileArgs, LabelArgs, PatchArgs},
    kinds::{Kind, with_kind},
    manifest::{self, Document},
};

/// How a manifest meets what exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb {
    /// Create or change.
    Apply,
    /// Create only.
    Create,
    /// Change only.
    Replace,
}

/// Runs `apply`, `create` or `replace`. Every document is checked before the first is sent.
///
/// # Errors
/// The document, the field and the reason.
pub async fn files<S: Store>(context: &Context<S>, args: &FileArgs, verb: Verb) -> Result<Outcome> {
    let documents = manifest::read(&args.filename)?;
    let kinds = check_all(&documents)?;
    let pools = if kinds.contains(&Kind::IpPool) { pools(context).await? } else { Vec::new() };
    check_among(&documents, &pools)?;
    let mut text = String::new();
    for (document, kind) in documents.iter().zip(kinds) {
        let done = if args.dry_run {
            "valid (dry run)".to_owned()
        } else {
            with_kind!(kind, R => send::<S, R>(context, kind, &document.object, verb).await)
                .with_context(|| document.origin.clone())?
                .to_owned()
        };
        text.push_str(&format!("{}/{} {done}\n", kind.info().kind, name(&document.object)));
    }
    Ok(Outcome::ok(text))
}

/// Runs `validate`: needs no cluster.
///
/// # Errors
/// The document, the field and the reason.
pub fn validate(args: &FileArgs) -> Result<Outcome> {
    let documents = manifest::read(&args.filename)?;
    let kinds = check_all(&documents)?;
    check_among(&documents, &[])?;
    let lines = documents.iter().zip(kinds);
    Ok(Outcome::ok(
        lines
            .map(|(document, kind)| {
                format!("{}/{} valid\n", kind.info().kind, name(&document.object))
            })
            .collect::<String>(),
    ))
}

fn check_all(documents: &[Document]) -> Result<Vec<Kind>> {
    if documents.is_empty() {
        bail!("no object found in the files given");
    }
    let mut problems = Vec::new();
    let mut kinds = Vec::new();
    for document in documents {
        match Kind::of_manifest(&document.object) {
            Ok(kind) => {
                let errors = with_kind!(kind, R => complaints::<R>(kind, &document.object));
                problems.extend(errors.iter().map(|error| format!("{}: {error}", document.origin)));
                kinds.push(kind);
            }
            Err(error) => problems.push(format!("{}: {error}", document.origin)),
        }
    }
    refuse(&problems).map(|()| kinds)
}

fn refuse(problems: &[String]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    bail!("nothing was sent:\n  {}", problems.join("\n  "))
}

/// The pools of the cluster.
async fn pools<S: Store>(context: &Context<S>) -> Result<Vec<Value>> {
    let listing = context.list::<api::IpPool>().await?;
    Ok(listing.items.iter().map(|pool| typed(Kind::IpPool, pool.raw())).collect())
}

/// Checks documents against each other and against what is stored; what a document replaces does not count.
fn check_among(documents: &[Document], stored: &[Value]) -> Result<()> {
    let replaced = |object: &Value| documents.iter().any(|document| same(&document.object, object));
    let kept: Vec<&Value> = stored.iter().filter(|object| !replaced(object)).collect();
    let mut problems = Vec::new();
    for document in documents {
        let kind = kind_of(&document.object);
        let others = documents.iter().map(|other| &other.object).chain(kept.iter().copied());
        let others = others.filter(|other| kind_of(other) == kind);
        let errors = api::validate::check_among(kind, &document.object, others);
        problems.extend(errors.iter().map(|error| format!("{}: {error}", document.origin)));
    }
    refuse(&problems)
}

fn kind_of(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

fn same(one: &Value, other: &Value) -> bool {
    kind_of(one) == kind_of(other) && name(one) == name(other)
}

fn complaints<R: Resource>(kind: Kind, object: &Value) -> Vec<String> {
    let info = kind.info();
    let errors = api::validate::check(info.kind, object);
    let mut complaints: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match serde_path_to_error::deserialize::<_, R>(object) {
        Err(error) if complaints.is_empty() => {
            complaints.push(format!("{}: {}", error.path(), error.inner()));
        }
        // Of Kubernetes' core kinds our types have only what Voile uses.
        Ok(typed) if matches!(info.group, "projectcalico.org" | "networking.k8s.io") => {
            if let Ok(back) = serde_json::to_value(&typed) {
                unknown_fields(object, &back, "", &mut complaints);
            }
        }
        _ => {}
    }
    complaints
}

/// Lists the fields of a manifest that our type of the kind does not have.
fn unknown_fields(given: &Value, known: &Value, path: &str, complaints: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (field, value) in given {
                let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                match known.get(field) {
                    Some(known) => unknown_fields(value, known, &path, complaints),
                    // A default or empty value may be left out when written back.
                    None if path.starts_with("spec") && !is_empty(value) => {
                        complaints.push(format!("{path}: unknown field; is it misspelt?"));
                    }
                    None => {}
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                unknown_fields(given, known, &format!("{path}[{index}]"), complaints);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}

fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

async fn send<S: Store, R: Resource>(
    context: &Context<S>,
    kind: Kind,
    object: &Value,
    verb: Verb,
) -> Result<&'static str> {
    let mut wanted: R = serde_json::from_value(object.clone())?;
    forget_server_side(wanted.meta_mut());
    if kind.info().scope == Scope::Namespaced && wanted.meta().namespace.is_none() {
        wanted.meta_mut().namespace = Some("default".to_owned());
    }
    if verb != Verb::Replace {
        match context.store.create(&wanted).await {
            Ok(_) => return Ok("created"),
            Err(StoreError::AlreadyExists { .. }) if verb == Verb::Apply => {}
            Err(error) => return Err(error.into()),
        }
    }
    if verb == Verb::Apply && kind.info().group != "projectcalico.org" {
        // Kubernetes' own objects have other owners: what the manifest does not say stays.
        let patch = json!({"metadata": wanted.meta(), "spec": object.get("spec")});
        context.store.patch::<R>(&wanted.key(), None, &without_nulls(patch)).await?;
        return Ok("configured");
    }
    for _ in 0..5 {
        let mut stored = context.store.get::<R>(&wanted.key()).await?;
        let mut next = wanted.clone();
        keep_server_side(stored.meta(), next.meta_mut());
        *stored = next;
        match context.store.update(&stored).await {
            Ok(_) if verb == Verb::Replace => return Ok("replaced"),
            Ok(_) => return Ok("configured"),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("someone else keeps changing it; try again")
}

/// What `get -o yaml` printed can be applied again: the server's own fields are no wish.
fn forget_server_side(meta: &mut api::ObjectMeta) {
    meta.uid = None;
    meta.resource_version = None;
    meta.generation = None;
    meta.creation_timestamp = None;
    meta.extra.remove("managedFields");
}

/// In a merge patch (RFC 7386) null would delete.
fn without_nulls(mut patch: Value) -> Value {
    if let Some(fields) = patch.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    patch
}

/// Metadata that the server and other clients own stays; labels and annotations of the manifest are added.
fn keep_server_side(stored: &api::ObjectMeta, next: &mut api::ObjectMeta) {
    let mut kept = stored.clone();
    kept.labels.append(&mut next.labels);
    kept.annotations.append(&mut next.annotations);
    *next = kept;
}

/// Runs `patch`.
///
/// # Errors
/// A patch that is no JSON or YAML object, and whatever the API server answers.
pub async fn patch<S: Store>(context: &Context<S>, args: &PatchArgs) -> Result<Outcome> {
    let kind = Kind::find(&args.kind)?;
    let patch: Value =
        serde_norway::from_str(&args.patch).context("the patch is neither JSON nor YAML")?;
    if !patch.is_object() {
        bail!("the patch must be an object, such as '{{\"spec\":{{\"disabled\":true}}}}'");
    }
    let key =
        Key { namespace: namespace(kind, args.namespace.as_deref()), name: args.name.clone() };
    with_kind!(kind, R => check_patch::<S, R>(context, kind, &key, &patch).await)?;
    with_kind!(kind, R => context.store.patch::<R>(&key, None, &patch).await.map(drop))?;
    Ok(Outcome::ok(format!("{}/{} patched\n", kind.info().kind, args.name)))
}

/// Refuses a patch that makes something wrong which was not wrong before.
async fn check_patch<S: Store, R: Resource>(
    context: &Context<S>,
    kind: Kind,
    key: &Key,
    patch: &Value,
) -> Result<()> {
    let before = typed(kind, context.store.get::<R>(key).await?.raw());
    let mut after = before.clone();
    json_patch::merge(&mut after, patch);
    let known = complaints::<R>(kind, &before);
    let mut problems = complaints::<R>(kind, &after);
    if kind == Kind::IpPool {
        let pools = pools(context).await?;
        let errors = api::validate::check_among(kind.info().kind, &after, pools.iter());
        problems.extend(errors.iter().map(ToString::to_string));
    }
    problems.retain(|problem| !known.contains(problem));
    refuse(&problems)
}

/// Runs `label`.
///
/// # Errors
/// A label that is neither `key=value` nor `key-`, and whatever the API server answers.
pub async fn label<S: Store>(context: &Context<S>, args: &LabelArgs) -> Result<Outcome> {
    let kind = Kind::find(&args.kind)?;
    let mut labels = Map::new();
    for label in &args.labels {
        if let Some((key, value)) = label.split_once('=') {
            labels.insert(key.to_owned(), json!(value));
        } else if let Some(key) = label.strip_suffix('-') {
            labels.insert(key.to_owned(), Value::Null);
        } else {
            bail!("'{label}' is no label: write key=value to set it, key- to remove it");
        }
    }
    let key =
        Key { namespace: namespace(kind, args.namespace.as_deref()), name: args.name.clone() };
    let patch = json!({"metadata": {"labels": labels}});
    with_kind!(kind, R => context.store.patch::<R>(&key, None, &patch).await.map(drop))?;
    Ok(Outcome::ok(format!("{}/{} labeled\n", kind.info().kind, args.name)))
}

/// Runs `delete`.
///
/// # Errors
/// What does not exist (unless told to ignore it) and whatever the API server answers.
pub async fn delete<S: Store>(context: &Context<S>, args: &DeleteArgs) -> Result<Outcome> {
    let mut targets = Vec::new();
    for document in manifest::read(&args.filename)? {
        let kind = Kind::of_manifest(&document.object).with_context(|| document.origin.clone())?;
        let given = document.object.pointer("/metadata/namespace").and_then(Value::as_str);
        let key =
            Key { namespace: namespace(kind, given), name: name(&document.object).to_owned() };
        targets.push((kind, key));
    }
    if let Some(kind) = &args.kind {
        let kind = Kind::find(kind)?;
        let namespace = namespace(kind, args.namespace.as_deref());
        targets.extend(
            args.names
                .iter()
                .map(|name| (kind, Key { namespace: namespace.clone(), name: name.clone() })),
        );
    }
    if targets.is_empty() {
        bail!("nothing to delete: give KIND NAME, or -f FILE");
    }
    let mut text = String::new();
    for (kind, key) in targets {
        let preconditions = DeletePreconditions::default();
        let result = with_kind!(kind, R => context.store.delete::<R>(&key, &preconditions).await);
        match result {
            Ok(()) => text.push_str(&format!("{}/{key} deleted\n", kind.info().kind)),
            Err(StoreError::NotFound { .. }) if args.ignore_not_found => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Outcome::ok(text))
}

#[cfg(test)]
mod tests;
