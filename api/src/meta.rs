//! What every resource has: a kind, a key, metadata.
//!
//! Timestamps stay strings (RFC 3339) as the API server wrote them; revisions are opaque.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::Value;

use crate::wire::null_as_default;

/// Where a kind lives in the API: `/apis/<group>/<version>/[namespaces/<ns>/]<plural>`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KindInfo {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// API version, such as `v1` or `v3`.
    pub version: &'static str,
    /// CamelCase kind, such as `IPPool`.
    pub kind: &'static str,
    /// Lower-case plural used in URLs, such as `ippools`.
    pub plural: &'static str,
    /// Whether objects of this kind live in a namespace.
    pub scope: Scope,
}

impl KindInfo {
    /// Returns `v1` for the core group, `<group>/<version>` otherwise.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// Whether a kind is namespaced.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// Objects live in the cluster as a whole.
    Cluster,
    /// Objects live in a namespace.
    Namespaced,
}

/// The name of an object inside its kind.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Key {
    /// Namespace; `None` for cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Object name.
    pub name: String,
}

impl Key {
    /// Names a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self { namespace: None, name: name.into() }
    }

    /// Names an object in a namespace.
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Anything stored in the datastore with Kubernetes metadata.
pub trait Resource:
    Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Where the kind lives.
    const KIND: KindInfo;

    /// Returns the object's metadata.
    fn meta(&self) -> &ObjectMeta;

    /// Returns the object's metadata for changing.
    fn meta_mut(&mut self) -> &mut ObjectMeta;

    /// Returns the object's key.
    fn key(&self) -> Key {
        let meta = self.meta();
        Key { namespace: meta.namespace.clone(), name: meta.name.clone() }
    }
}

/// Standard object metadata; fields that Voile does not use are kept in `extra`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// Object name, unique within kind and namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Namespace; absent on cluster-scoped kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Set by the API server at creation; differs between an object and its re-creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Opaque revision for compare-and-swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Incremented by the API server when the spec changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// RFC 3339 time of creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// RFC 3339 time after which the object is to go; present while finalizers hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// Owners, for garbage collection by Kubernetes.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub owner_references: Vec<OwnerReference>,
    /// Finalizers.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub finalizers: Vec<String>,
    /// Everything else (`managedFields`, `generateName`, ...), untouched.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// An owner of an object.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// API version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// UID of the owner.
    pub uid: String,
    /// Everything else, untouched.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The `spec` of a kind that has one; gives the kind its name and status type.
pub trait Spec:
    Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Where the kind lives.
    const KIND: KindInfo;
    /// Type of the status; [`NoStatus`] where the kind has none.
    type Status: Clone
        + fmt::Debug
        + PartialEq
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static;
}

/// The status of a kind without one.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NoStatus {}

/// An object with metadata, a spec and perhaps a status: the shape of nearly every kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<S: Spec> {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: S,
    /// What was seen, if anyone wrote it.
    pub status: Option<S::Status>,
}

impl<S: Spec> Object<S> {
    /// Makes a cluster-scoped object that is not stored yet.
    pub fn new(name: impl Into<String>, spec: S) -> Self {
        Self {
            metadata: ObjectMeta { name: name.into(), ..ObjectMeta::default() },
            spec,
            status: None,
        }
    }

    /// Makes a namespaced object that is not stored yet.
    pub fn in_namespace(namespace: impl Into<String>, name: impl Into<String>, spec: S) -> Self {
        let mut object = Self::new(name, spec);
        object.metadata.namespace = Some(namespace.into());
        object
    }
}

impl<S: Spec> Resource for Object<S> {
    const KIND: KindInfo = S::KIND;

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireRef<'a, S: Spec> {
    api_version: String,
    kind: &'static str,
    metadata: &'a ObjectMeta,
    spec: &'a S,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: &'a Option<S::Status>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "S: Spec"))]
struct WireOwned<S: Spec> {
    #[serde(default)]
    metadata: ObjectMeta,
    // `spec: null` and a missing spec both read as `{}`: whether that is acceptable is the spec's own affair.
    #[serde(default)]
    spec: Option<S>,
    #[serde(default)]
    status: Option<S::Status>,
}

impl<S: Spec> Serialize for Object<S> {
    fn serialize<Ser: Serializer>(&self, serializer: Ser) -> Result<Ser::Ok, Ser::Error> {
        WireRef {
            api_version: S::KIND.api_version(),
            kind: S::KIND.kind,
            metadata: &self.metadata,
            spec: &self.spec,
            status: &self.status,
        }
        .serialize(serializer)
    }
}

impl<'de, S: Spec> Deserialize<'de> for Object<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireOwned::<S>::deserialize(deserializer)?;
        let spec = match wire.spec {
            Some(spec) => spec,
            None => S::deserialize(Value::Object(serde_json::Map::new()))
                .map_err(|error| serde::de::Error::custom(format!("spec: {error}")))?,
        };
        Ok(Self { metadata: wire.metadata, spec, status: wire.status })
    }
}
