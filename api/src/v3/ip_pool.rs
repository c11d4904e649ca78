//! Address pools and reservations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::Condition;
use crate::{
    kind::kind,
    wire::{empty_as_none, null_as_default},
};

kind!(
    /// A range of addresses that pods, tunnels or load balancers get theirs from.
    IpPool, IpPoolSpec, IpPoolStatus, "projectcalico.org", "v3", "IPPool", "ippools", Cluster
);

/// How a range of addresses is used.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = crate::crd::rules::IP_POOL))]
pub struct IpPoolSpec {
    /// The range; immutable. Read it with [`IpPoolSpec::net`].
    #[schemars(length(max = 48), extend("format" = "cidr", "x-kubernetes-validations" = crate::crd::rules::POOL_CIDR))]
    pub cidr: String,
    /// Whether traffic to pods of the pool is wrapped in VXLAN; excludes `ipip_mode`. Absent means `Never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan_mode: Option<EncapMode>,
    /// Whether traffic to pods of the pool is wrapped in IP-in-IP. Absent means `Never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipip_mode: Option<EncapMode>,
    /// Masquerade what pods of the pool send to addresses outside all pools.
    #[serde(default, skip_serializing_if = "crate::wire::is_false")]
    pub nat_outgoing: bool,
    /// Give out no new addresses; existing ones stay.
    #[serde(default, skip_serializing_if = "crate::wire::is_false")]
    pub disabled: bool,
    /// Keep the pool's blocks to the node-to-node mesh and out of every other BGP session.
    #[serde(rename = "disableBGPExport", default, skip_serializing_if = "crate::wire::is_false")]
    pub disable_bgp_export: bool,
    /// Prefix length of the blocks nodes claim; immutable. Absent means 26 for IPv4 and 122 for IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128), extend("x-kubernetes-validations" = crate::crd::rules::IMMUTABLE_BLOCK_SIZE))]
    pub block_size: Option<u8>,
    /// Nodes that may claim blocks.
    #[serde(default = "default_node_selector")]
    #[schemars(length(max = 1024))]
    pub node_selector: String,
    /// Namespaces whose pods may get an address; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 1024))]
    pub namespace_selector: Option<String>,
    /// What addresses may be used for; absent means workloads and tunnels.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_uses: Vec<AllowedUse>,
    /// Whether addresses are taken without being asked for by name.
    #[serde(default)]
    pub assignment_mode: AssignmentMode,
}

impl Default for IpPoolSpec {
    fn default() -> Self {
        Self {
            cidr: Default::default(),
            vxlan_mode: Default::default(),
            ipip_mode: Default::default(),
            nat_outgoing: Default::default(),
            disabled: Default::default(),
            disable_bgp_export: Default::default(),
            block_size: Default::default(),
            node_selector: default_node_selector(),
            namespace_selector: Default::default(),
            allowed_uses: Default::default(),
            assignment_mode: Default::default(),
        }
    }
}

/// What is known of a pool.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolStatus {
    /// `Allocatable` tells whether IPAM takes addresses from it; absent means yes.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

kind!(
    /// Addresses that automatic assignment leaves alone.
    IpReservation, IpReservationSpec, crate::NoStatus, "projectcalico.org", "v3", "IPReservation", "ipreservations", Cluster
);

/// Which addresses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpReservationSpec {
    /// Prefixes and single addresses.
    #[serde(
        rename = "reservedCIDRs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set", "items" = {"type": "string", "format": "cidr"}))]
    pub reserved_cidrs: Vec<String>,
}

/// What an address may be used for.
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
pub enum AllowedUse {
    /// Pods.
    #[default]
    Workload,
    /// Tunnel devices of nodes.
    Tunnel,
    /// Services.
    LoadBalancer,
}

/// Whether a pool is used without being asked for.
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
pub enum AssignmentMode {
    /// Yes.
    #[default]
    Automatic,
    /// Only when a pod or namespace names it.
    Manual,
}

/// When traffic is wrapped.
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
pub enum EncapMode {
    /// Never.
    #[default]
    Never,
    /// Always.
    Always,
    /// Between nodes of different subnets.
    CrossSubnet,
}

fn default_node_selector() -> String {
    "all()".to_owned()
}

impl IpPoolSpec {
    /// Returns the range.
    ///
    /// # Errors
    /// When `cidr` is no prefix or has host bits set.
    pub fn net(&self) -> Result<ipnet::IpNet, crate::net::CidrError> {
        crate::net::parse_cidr(&self.cidr)
    }
}
