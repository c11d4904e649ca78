//! Small views of kinds that exist on every server of ours. They know few fields on purpose: the rest must survive.

use std::collections::BTreeMap;

use api::{KindInfo, NoStatus, Object, Resource, Scope, Spec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Store, StoreError};

/// Marks the kinds of the suite.
pub trait Labelled {}

impl<S: Spec> Labelled for Object<S> {}

/// The namespace that the suite uses.
pub const NAMESPACE: &str = "conf-ns";

/// What we know of an `IPPool` here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolSpec {
    /// Address space.
    pub cidr: String,
    /// An optional field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<String>,
}

impl Spec for PoolSpec {
    const KIND: KindInfo = KindInfo {
        group: "projectcalico.org",
        version: "v3",
        kind: "IPPool",
        plural: "ippools",
        scope: Scope::Cluster,
    };
    type Status = Value;
}

/// `IPPool` with few fields: cluster-scoped, with a status sub-resource.
pub type Pool = Object<PoolSpec>;

/// Makes a pool of that name.
#[must_use]
pub fn pool(name: &str) -> Pool {
    Object::new(name, PoolSpec { cidr: "10.0.0.0/16".to_owned(), node_selector: None })
}

/// `IPPool` with more fields than [`Pool`] knows.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WidePoolSpec {
    /// Address space.
    pub cidr: String,
    /// Unknown to [`PoolSpec`].
    pub nat_outgoing: bool,
    /// Unknown to [`PoolSpec`].
    pub block_size: u32,
}

impl Spec for WidePoolSpec {
    const KIND: KindInfo = PoolSpec::KIND;
    type Status = Value;
}

/// See [`WidePoolSpec`].
pub type WidePool = Object<WidePoolSpec>;

/// What an `IPAMBlock` must have for a server to take it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MiniBlockSpec {
    /// CIDR.
    pub cidr: String,
    /// `null` or an index.
    pub allocations: Vec<Option<u64>>,
    /// Free ordinals.
    pub unallocated: Vec<u64>,
    /// Attributes.
    pub attributes: Vec<Value>,
    /// Above 2^53 in practice.
    #[serde(default)]
    pub sequence_number: u64,
    /// Required by Calico's schema.
    #[serde(default)]
    pub strict_affinity: bool,
    /// Soft delete.
    #[serde(default)]
    pub deleted: bool,
    /// Ordinal to sequence number.
    #[serde(default)]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
}

impl Spec for MiniBlockSpec {
    const KIND: KindInfo = KindInfo {
        group: "projectcalico.org",
        version: "v3",
        kind: "IPAMBlock",
        plural: "ipamblocks",
        scope: Scope::Cluster,
    };
    type Status = NoStatus;
}

/// `IPAMBlock`: cluster-scoped, large numbers, nulls in lists.
pub type MiniBlock = Object<MiniBlockSpec>;

/// Makes a block of that name with that sequence number.
#[must_use]
pub fn mini_block(name: &str, sequence_number: u64) -> MiniBlock {
    MiniBlock::new(
        name,
        MiniBlockSpec {
            cidr: "10.0.0.0/30".to_owned(),
            allocations: vec![None, Some(0), None, None],
            unallocated: vec![0, 2, 3],
            attributes: vec![json!({"handle_id": "h", "secondary": {"node": "n"}})],
            sequence_number,
            strict_affinity: false,
            deleted: false,
            sequence_number_for_allocation: BTreeMap::from([("1".to_owned(), sequence_number)]),
        },
    )
}

/// What we know of a `Pod` here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MiniPodSpec {
    /// Where the pod runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Zero: without a kubelet nobody ends a grace period.
    pub termination_grace_period_seconds: u32,
    /// At least one.
    pub containers: Vec<Value>,
}

impl Spec for MiniPodSpec {
    const KIND: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        scope: Scope::Namespaced,
    };
    type Status = Value;
}

/// `Pod`: namespaced, with a status sub-resource and the field selector `spec.nodeName`.
pub type MiniPod = Object<MiniPodSpec>;

/// Makes a pod on a node.
#[must_use]
pub fn mini_pod(name: &str, node: &str) -> MiniPod {
    let containers = vec![json!({"name": "c", "image": "example.test/c"})];
    MiniPod::in_namespace(
        NAMESPACE,
        name,
        MiniPodSpec {
            node_name: Some(node.to_owned()),
            termination_grace_period_seconds: 0,
            containers,
        },
    )
}

/// What we know of a `Namespace` here.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct MiniNamespaceSpec {}

impl Spec for MiniNamespaceSpec {
    const KIND: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        scope: Scope::Cluster,
    };
    type Status = Value;
}

/// `Namespace`.
pub type MiniNamespace = Object<MiniNamespaceSpec>;

/// Makes sure that [`NAMESPACE`] exists.
pub(super) async fn make_namespace(store: &impl Store) {
    let namespace = MiniNamespace::new(NAMESPACE, MiniNamespaceSpec {});
    match store.create(&namespace).await {
        Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => panic!("namespace {}: {error}", namespace.key()),
    }
}
