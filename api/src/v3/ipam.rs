//! IPAM as Calico stores it: who owns which block, and which address belongs to whom.
//!
//! Fields are present or absent in JSON exactly as Calico writes them (`ipamblocks.go`), since both may work on one pool.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::Toggle;
use crate::{kind::kind, wire::null_as_default};

kind!(
    /// How addresses are assigned in the cluster; the object is called `default`.
    IpamConfiguration, IpamConfigurationSpec, crate::NoStatus, "projectcalico.org", "v3", "IPAMConfiguration", "ipamconfigurations", Cluster
);

/// Rules of assignment.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamConfigurationSpec {
    /// Never borrow an address from another node's block.
    #[serde(default)]
    pub strict_affinity: bool,
    /// Blocks a node may own; 0 means 20.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000000), extend("x-voile-format" = "int32"))]
    pub max_blocks_per_host: u32,
    /// Whether nodes may claim further blocks.
    #[serde(default = "default_auto_allocate_blocks")]
    pub auto_allocate_blocks: bool,
    /// Seconds a released address rests before it is used again; 0 or absent means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1200), extend("x-voile-format" = "int32"))]
    pub ip_cooldown_seconds: Option<u32>,
    /// Whether a virtual machine keeps its address when its pod is replaced.
    #[serde(rename = "kubeVirtVMAddressPersistence", skip_serializing_if = "Option::is_none")]
    pub kube_virt_vm_address_persistence: Option<Toggle>,
}

impl Default for IpamConfigurationSpec {
    fn default() -> Self {
        Self {
            strict_affinity: Default::default(),
            max_blocks_per_host: Default::default(),
            auto_allocate_blocks: default_auto_allocate_blocks(),
            ip_cooldown_seconds: Default::default(),
            kube_virt_vm_address_persistence: Default::default(),
        }
    }
}

kind!(
    /// A block of addresses: the truth about who has which.
    IpamBlock, IpamBlockSpec, crate::NoStatus, "projectcalico.org", "v3", "IPAMBlock", "ipamblocks", Cluster
);

/// The addresses of a block.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamBlockSpec {
    /// The block; the object is named after it (`10-244-0-0-26`).
    #[schemars(extend("format" = "cidr"))]
    pub cidr: String,
    /// Owner, `host:<node>` or `virtual:<name>`; absent means nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^(host|virtual):[a-zA-Z0-9\.\-_]+$"))]
    pub affinity: Option<String>,
    /// When the owner claimed it, RFC 3339; blocks younger than a minute are not reclaimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub affinity_claim_time: Option<String>,
    /// One entry for each address: absent is free, else an index into `attributes`.
    #[serde(deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub allocations: Vec<Option<u32>>,
    /// Free ordinals, first in first out, so that an address rests as long as possible.
    #[serde(deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub unallocated: Vec<u32>,
    /// Who the addresses belong to; several addresses may share an entry.
    #[serde(deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub attributes: Vec<AllocationAttribute>,
    /// Grows by one with every write; starts at the UnixNano of creation.
    #[serde(default)]
    #[schemars(extend("x-voile-format" = "int64"))]
    pub sequence_number: u64,
    /// The sequence number at which each ordinal was assigned, so that a late release can't free its next owner.
    #[serde(default, deserialize_with = "null_as_default")]
    #[schemars(extend("default" = serde_json::Value::Null, "additionalProperties" = {"type": "integer", "x-voile-format": "int64"}))]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// Being deleted: treat as absent and finish the deletion.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub deleted: bool,
    /// Deprecated, always written and never read.
    pub strict_affinity: bool,
}

/// Who an address belongs to.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AllocationAttribute {
    /// Handle it is released by.
    #[serde(rename = "handle_id", skip_serializing_if = "Option::is_none")]
    pub handle_id: Option<String>,
    /// Owner: `pod`, `namespace`, `node`, `type`, `timestamp` and more.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub secondary: BTreeMap<String, String>,
    /// Another owner, during live migration.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub alternate_owner_attrs: BTreeMap<String, String>,
    /// When it was released and began to cool down, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub released_at: Option<String>,
}

kind!(
    /// A claim of a node on a block; only confirmed claims count.
    BlockAffinity, BlockAffinitySpec, crate::NoStatus, "projectcalico.org", "v3", "BlockAffinity", "blockaffinities", Cluster
);

/// Who claims which block.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockAffinitySpec {
    /// The block.
    #[schemars(extend("format" = "cidr"))]
    pub cidr: String,
    /// The node, or the virtual owner's name.
    pub node: String,
    /// `host` or `virtual`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub affinity_type: Option<String>,
    /// How far the claim has come.
    pub state: AffinityState,
    /// Being deleted: treat as absent and finish the deletion.
    #[serde(default)]
    pub deleted: bool,
}

kind!(
    /// An index for releasing by handle: which blocks have addresses of it. The blocks are the truth.
    IpamHandle, IpamHandleSpec, crate::NoStatus, "projectcalico.org", "v3", "IPAMHandle", "ipamhandles", Cluster
);

/// Where a handle has addresses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamHandleSpec {
    /// The handle; the object's name is this in lower case.
    #[serde(rename = "handleID")]
    pub handle_id: String,
    /// Block CIDR to number of addresses.
    #[serde(deserialize_with = "null_as_default")]
    pub block: BTreeMap<String, u32>,
    /// Being deleted: treat as absent and finish the deletion.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub deleted: bool,
}

/// How far a claim of a block has come.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
)]
pub enum AffinityState {
    /// Written by old versions: the same as confirmed.
    #[serde(rename = "")]
    Unset,
    /// The node owns the block.
    #[serde(rename = "confirmed")]
    Confirmed,
    /// Claimed; the block may belong to someone else yet.
    #[default]
    #[serde(rename = "pending")]
    Pending,
    /// Being given back.
    #[serde(rename = "pendingDeletion")]
    PendingDeletion,
}

const fn default_auto_allocate_blocks() -> bool {
    true
}
