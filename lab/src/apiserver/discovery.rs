//! Discovery: which groups, versions and kinds there are, in the old form and the aggregated one.

use serde_json::{Value, json};

use super::kinds::{Registry, Resource};

/// `/api` in the old form.
pub(super) fn api_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis` in the old form.
pub(super) fn group_list(registry: &Registry) -> Value {
    let pairs = registry.group_versions();
    let groups: Vec<Value> = pairs
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, version)| api_group(group, version))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub(super) fn group(registry: &Registry, name: &str) -> Option<Value> {
    let (group, version) =
        registry.group_versions().into_iter().find(|(group, _)| group == name)?;
    let mut answer = api_group(&group, &version);
    let map = super::value::object_at(&mut answer, &[]);
    map.insert("kind".to_owned(), json!("APIGroup"));
    map.insert("apiVersion".to_owned(), json!("v1"));
    Some(answer)
}

fn api_group(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub(super) fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let served: Vec<_> =
        registry.all().filter(|r| r.group == group && r.version == version).collect();
    let api_version = served.first()?.api_version();
    let mut resources = Vec::new();
    for resource in served {
        resources.push(json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs, "shortNames": resource.short_names,
            "categories": resource.categories,
        }));
        for sub in &resource.subresources {
            resources.push(json!({
                "name": format!("{}/{sub}", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "kind": resource.kind, "verbs": sub_verbs(sub),
            }));
        }
    }
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}),
    )
}

/// `/api` (core group) and `/apis` (all others) in the aggregated form, `apidiscovery.k8s.io/v2`.
pub(super) fn aggregated(registry: &Registry, core: bool) -> Value {
    let items: Vec<Value> = registry
        .group_versions()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, version)| {
            let served = registry.all().filter(|r| r.group == group && r.version == version);
            let resources: Vec<Value> =
                served.map(|resource| aggregated_resource(resource)).collect();
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            json!({
                "metadata": metadata,
                "versions": [{"version": version, "resources": resources, "freshness": "Current"}],
            })
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|sub| json!({"subresource": sub, "responseKind": kind, "verbs": sub_verbs(sub)}))
        .collect();
    json!({
        "resource": resource.plural, "responseKind": kind, "singularResource": resource.singular,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "verbs": resource.verbs, "shortNames": resource.short_names, "categories": resource.categories,
        "subresources": subresources,
    })
}

fn sub_verbs(sub: &str) -> &'static [&'static str] {
    match sub {
        "status" => &["get", "patch", "update"],
        "exec" => &["create", "get"],
        _ => &["get"],
    }
}

/// `/version`: the version whose schemas are served.
pub(super) fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.2+voile-lab", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
    })
}
