//! OpenAPI documents, as much as kubectl reads: schemas for `explain` and patches, and the `fieldValidation` parameter
//! whose presence makes kubectl leave validation to the server.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::kinds::{Registry, Resource};

/// An OpenAPI v2 document in protobuf that says nothing but its version. kubectl reads v2 before it patches a custom
/// resource (in vain: those are patched by JSON merge) and fails without one.
pub(super) const EMPTY_V2_PROTOBUF: &[u8] = b"\x0a\x032.0";

/// The same in JSON.
pub(super) fn empty_v2() -> Value {
    json!({"swagger": "2.0", "info": {"title": "voile-lab", "version": "1.36"}, "paths": {}, "definitions": {}})
}

/// `/openapi/v3`: where each group and version's document is.
pub(super) fn index(registry: &Registry) -> Value {
    let paths: Map<String, Value> = registry
        .group_versions()
        .iter()
        .map(|(group, version)| {
            let path = base(group, version);
            let url = format!("/openapi/v3/{path}?hash={:016X}", registry.generation);
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3/apis/<group>/<version>`.
pub(super) fn document(registry: &Registry, path: &str) -> Option<Value> {
    let (group, version) = registry
        .group_versions()
        .into_iter()
        .find(|(group, version)| base(group, version) == path)?;
    let mut paths = Map::new();
    let mut wanted = Vec::new();
    for resource in registry.all().filter(|r| r.group == group && r.version == version) {
        let root = if resource.namespaced {
            format!("/{path}/namespaces/{{namespace}}/{}", resource.plural)
        } else {
            format!("/{path}/{}", resource.plural)
        };
        paths.insert(format!("{root}/{{name}}"), object_path(resource));
        paths.insert(root, collection_path(resource));
        wanted.push(resource.schema_name.clone());
        wanted.push(format!("{}List", resource.schema_name));
    }
    let schemas = reachable(registry, wanted);
    Some(json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "1.36"},
        "paths": paths, "components": {"schemas": schemas},
    }))
}

fn operation(resource: &Resource, action: &str, parameters: &[&str]) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    let schema = json!({"$ref": format!("#/components/schemas/{}", resource.schema_name)});
    json!({
        "operationId": format!("{action}{}{}", resource.group.replace('.', "_"), resource.kind),
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": resource.group, "version": resource.version, "kind": resource.kind},
    })
}

fn object_path(resource: &Resource) -> Value {
    let write = ["dryRun", "fieldManager", "fieldValidation"];
    let patch = ["dryRun", "fieldManager", "fieldValidation", "force"];
    json!({
        "get": operation(resource, "get", &[]), "put": operation(resource, "put", &write),
        "patch": operation(resource, "patch", &patch), "delete": operation(resource, "delete", &["dryRun"]),
    })
}

fn collection_path(resource: &Resource) -> Value {
    let list = [
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "watch",
        "resourceVersion",
        "timeoutSeconds",
    ];
    json!({
        "get": operation(resource, "list", &list),
        "post": operation(resource, "post", &["dryRun", "fieldManager", "fieldValidation"]),
    })
}

fn reachable(registry: &Registry, mut wanted: Vec<String>) -> BTreeMap<String, &Value> {
    let mut found = BTreeMap::new();
    while let Some(name) = wanted.pop() {
        if let Some(schema) = registry.documents.get(&name)
            && !found.contains_key(&name)
        {
            references(schema, &mut wanted);
            found.insert(name, schema);
        }
    }
    found
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner
                    .as_str()
                    .filter(|_| key == "$ref")
                    .and_then(|path| path.rsplit('/').next())
                {
                    Some(name) => found.push(name.to_owned()),
                    None => references(inner, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}
