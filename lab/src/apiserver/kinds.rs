//! Which kinds are served: built-in ones from a real API server's own documents, custom ones from their CRDs.

use std::{collections::BTreeMap, io::Read as _, sync::Arc};

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

use super::{
    schema::{Schema, Schemas, without_zero_defaults},
    value::{at, items, text},
};

/// Discovery, schemas and columns of the built-in kinds, made by `lab/openapi/prune.py` from kube-apiserver 1.36.2.
const CORE: &[u8] = include_bytes!("../../openapi/core.json.gz");

/// Schema name of Kubernetes' object metadata.
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// A kind that is served.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) kind: String,
    pub(super) list_kind: String,
    pub(super) namespaced: bool,
    pub(super) verbs: Vec<String>,
    pub(super) short_names: Vec<String>,
    pub(super) categories: Vec<String>,
    pub(super) subresources: Vec<String>,
    /// Name of its schema among the OpenAPI documents.
    pub(super) schema_name: String,
    /// Schema of a custom resource; that of a built-in kind is in [`Registry::schemas`].
    custom: Option<Schema>,
    /// `columnDefinitions` of its table.
    pub(super) columns: Vec<Value>,
    /// JSON paths of a custom resource's columns.
    pub(super) column_paths: Vec<String>,
    pub(super) selectable: Vec<String>,
}

impl Resource {
    /// `v1`, `projectcalico.org/v3`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Under which name its objects are stored.
    pub(super) fn collection(&self) -> String {
        format!("{}/{}", self.group, self.plural)
    }

    pub(super) fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    /// Whether status is written only through its sub-resource.
    pub(super) fn has_status(&self) -> bool {
        self.subresources.iter().any(|name| name == "status")
    }

    /// Whether it is the built-in kind of that plural.
    pub(super) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

/// All kinds that are served now.
#[derive(Debug)]
pub(super) struct Registry {
    resources: BTreeMap<(String, String), Arc<Resource>>,
    /// Compiled schemas of built-in kinds.
    pub(super) schemas: Arc<Schemas>,
    /// The same, and those of custom resources, as documents.
    pub(super) documents: BTreeMap<String, Value>,
    /// Grows with each change of the kinds: part of the documents' hashes.
    pub(super) generation: u64,
}

impl Registry {
    /// The built-in kinds.
    pub(super) fn built_in() -> Self {
        let mut text = String::new();
        // The data is part of the program: a test reads it, so nothing can be wrong with it here.
        let read = GzDecoder::new(CORE).read_to_string(&mut text).is_ok();
        let core: Value =
            if read { serde_json::from_str(&text).unwrap_or_default() } else { Value::Null };
        let documents = at(&core, &["schemas"]).as_object().cloned().unwrap_or_default();
        let mut cleaned = Value::Object(documents.clone());
        without_zero_defaults(&mut cleaned);
        let mut schemas = Schemas::default();
        schemas.extend(cleaned.as_object().unwrap_or(&Map::new()));
        let resources = items(&core, &["resources"]).iter().map(|raw| Arc::new(built_in(raw)));
        Self {
            resources: resources.map(|r| ((r.group.clone(), r.plural.clone()), r)).collect(),
            schemas: Arc::new(schemas),
            documents: documents.into_iter().collect(),
            generation: 0,
        }
    }

    /// The kind at `/apis/<group>/<version>/<plural>`.
    pub(super) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources
            .get(&(group.to_owned(), plural.to_owned()))
            .filter(|found| found.version == version)
    }

    /// All kinds, by group and plural.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// Group and version pairs that are served; custom ones last, so that `networkpolicies` alone is the built-in kind.
    pub(super) fn group_versions(&self) -> Vec<(String, String)> {
        let mut pairs: Vec<_> =
            self.all().map(|r| (r.is_custom(), r.group.clone(), r.version.clone())).collect();
        pairs.sort();
        pairs.dedup();
        pairs.into_iter().map(|(_, group, version)| (group, version)).collect()
    }

    /// The compiled schema of a kind.
    pub(super) fn schema<'a>(&'a self, resource: &'a Resource) -> Option<&'a Schema> {
        resource.custom.as_ref().or_else(|| self.schemas.named(&resource.schema_name))
    }

    /// Serves (or serves anew) the storage version of a CustomResourceDefinition.
    pub(super) fn define(&mut self, crd: &Value) {
        let Some(resource) = custom(crd) else { return };
        self.generation += 1;
        self.documents.insert(resource.schema_name.clone(), custom_document(crd, &resource));
        self.documents.insert(format!("{}List", resource.schema_name), list_document(&resource));
        self.resources
            .insert((resource.group.clone(), resource.plural.clone()), Arc::new(resource));
    }

    /// Stops serving what a CustomResourceDefinition defined; returns its collection.
    pub(super) fn undefine(&mut self, crd: &Value) -> Option<String> {
        let key = (
            text(crd, &["spec", "group"]).to_owned(),
            text(crd, &["spec", "names", "plural"]).to_owned(),
        );
        let resource = self.resources.get(&key).filter(|found| found.is_custom())?;
        let collection = resource.collection();
        self.documents.remove(&resource.schema_name);
        self.documents.remove(&format!("{}List", resource.schema_name));
        self.generation += 1;
        self.resources.remove(&key);
        Some(collection)
    }
}

fn strings(value: &Value, path: &[&str]) -> Vec<String> {
    items(value, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn built_in(raw: &Value) -> Resource {
    let owned = |key: &str| text(raw, &[key]).to_owned();
    let selectable: &[&str] = match owned("plural").as_str() {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "nodes" => &["spec.unschedulable"],
        "namespaces" => &["status.phase"],
        "secrets" => &["type"],
        "services" => &["spec.clusterIP", "spec.type"],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ => &[],
    };
    Resource {
        group: owned("group"),
        version: owned("version"),
        plural: owned("plural"),
        singular: owned("singular"),
        kind: owned("kind"),
        list_kind: format!("{}List", owned("kind")),
        namespaced: raw.get("namespaced") == Some(&Value::Bool(true)),
        verbs: strings(raw, &["verbs"]),
        short_names: strings(raw, &["shortNames"]),
        categories: strings(raw, &["categories"]),
        subresources: strings(raw, &["subresources"]),
        schema_name: owned("schema"),
        custom: None,
        columns: items(raw, &["columns"]).to_vec(),
        column_paths: Vec::new(),
        selectable: selectable.iter().map(|field| (*field).to_owned()).collect(),
    }
}

/// The version that is stored: the only one that the lab serves.
fn storage_version(crd: &Value) -> Option<&Value> {
    items(crd, &["spec", "versions"])
        .iter()
        .find(|version| version.get("storage") == Some(&Value::Bool(true)))
}

fn custom(crd: &Value) -> Option<Resource> {
    let version = storage_version(crd)?;
    let name = |key: &str| text(crd, &["spec", "names", key]).to_owned();
    let group = text(crd, &["spec", "group"]).to_owned();
    let kind = name("kind");
    let list_kind = Some(name("listKind"))
        .filter(|kind| !kind.is_empty())
        .unwrap_or_else(|| format!("{kind}List"));
    let reversed: Vec<&str> = group.rsplit('.').collect();
    let raw = at(version, &["schema", "openAPIV3Schema"]);
    let (columns, column_paths) = custom_columns(version);
    let verbs = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
    Some(Resource {
        version: text(version, &["name"]).to_owned(),
        plural: name("plural"),
        singular: Some(name("singular"))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| kind.to_lowercase()),
        list_kind,
        namespaced: text(crd, &["spec", "scope"]) == "Namespaced",
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        short_names: strings(crd, &["spec", "names", "shortNames"]),
        categories: strings(crd, &["spec", "names", "categories"]),
        subresources: version
            .pointer("/subresources/status")
            .map(|_| "status".to_owned())
            .into_iter()
            .collect(),
        schema_name: format!("{}.{}.{kind}", reversed.join("."), text(version, &["name"])),
        custom: Some(Schema::compile(&with_meta(raw))),
        columns,
        column_paths,
        selectable: items(version, &["selectableFields"])
            .iter()
            .map(|field| text(field, &["jsonPath"]).trim_start_matches('.').to_owned())
            .collect(),
        group,
        kind,
    })
}

/// The schema with the fields that every object has.
fn with_meta(raw: &Value) -> Value {
    let mut schema = raw.clone();
    let open = schema.get("properties").is_none();
    let map = super::value::object_at(&mut schema, &["properties"]);
    let string = || json!({"type": "string"});
    map.insert("apiVersion".to_owned(), string());
    map.insert("kind".to_owned(), string());
    map.insert(
        "metadata".to_owned(),
        json!({"allOf": [{"$ref": format!("#/components/schemas/{OBJECT_META}")}]}),
    );
    if open {
        super::value::object_at(&mut schema, &[])
            .insert("x-kubernetes-preserve-unknown-fields".to_owned(), Value::Bool(true));
    }
    schema
}

fn custom_columns(version: &Value) -> (Vec<Value>, Vec<String>) {
    let mut columns = vec![
        json!({"name": "Name", "type": "string", "format": "name", "description": "Name of the object.", "priority": 0}),
    ];
    let mut paths = vec![".metadata.name".to_owned()];
    let declared = items(version, &["additionalPrinterColumns"]);
    for column in declared {
        columns.push(json!({
            "name": text(column, &["name"]), "type": text(column, &["type"]), "format": text(column, &["format"]),
            "description": text(column, &["description"]), "priority": column.get("priority").cloned().unwrap_or(json!(0)),
        }));
        paths.push(text(column, &["jsonPath"]).to_owned());
    }
    if declared.is_empty() {
        columns.push(json!({"name": "Age", "type": "date", "format": "", "description": "Age of the object.", "priority": 0}));
        paths.push(".metadata.creationTimestamp".to_owned());
    }
    (columns, paths)
}

fn custom_document(crd: &Value, resource: &Resource) -> Value {
    let raw = storage_version(crd)
        .map_or(&Value::Null, |version| at(version, &["schema", "openAPIV3Schema"]));
    let mut document = with_meta(raw);
    super::value::object_at(&mut document, &[]).insert(
        "x-kubernetes-group-version-kind".to_owned(),
        json!([{"group": resource.group, "version": resource.version, "kind": resource.kind}]),
    );
    document
}

fn list_document(resource: &Resource) -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    json!({
        "type": "object", "required": ["items"],
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": reference(LIST_META),
            "items": {"type": "array", "items": reference(&resource.schema_name)},
        },
        "x-kubernetes-group-version-kind": [
            {"group": resource.group, "version": resource.version, "kind": resource.list_kind}
        ],
    })
}
