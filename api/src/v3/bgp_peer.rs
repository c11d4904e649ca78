//! BGP peers: routers and route reflectors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bgp_configuration::BgpPassword;
use crate::{
    kind::kind,
    wire::{empty_as_none, null_as_default},
};

kind!(
    /// A BGP session, or with a selector many of them.
    BgpPeer, BgpPeerSpec, crate::NoStatus, "projectcalico.org", "v3", "BGPPeer", "bgppeers", Cluster
);

/// Who peers with whom.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = crate::crd::rules::BGP_PEER))]
pub struct BgpPeerSpec {
    /// The one node it applies to; without `node` and `node_selector` all of them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Nodes it applies to.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 1024))]
    pub node_selector: Option<String>,
    /// Address of the peer, with a port as `192.0.2.1:179` or `[2001:db8::1]:179`.
    #[serde(
        rename = "peerIP",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    #[schemars(length(max = 64))]
    pub peer_ip: Option<String>,
    /// AS number of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64), extend("x-voile-format" = "int64"))]
    pub as_number: Option<u32>,
    /// AS number to show to this peer, instead of the node's own.
    #[serde(rename = "localASNumber", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64), extend("x-voile-format" = "int64"))]
    pub local_as_number: Option<u32>,
    /// Nodes to peer with, instead of `peer_ip` and `as_number`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 1024))]
    pub peer_selector: Option<String>,
    /// Deprecated: the same as `next_hop_mode` `Keep`.
    #[serde(default, skip_serializing_if = "crate::wire::is_false")]
    pub keep_original_next_hop: bool,
    /// Next hop in what is advertised; absent means `Auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop_mode: Option<NextHopMode>,
    /// TCP MD5 password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<BgpPassword>,
    /// Local address of the session; absent means `UseNodeIP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_address: Option<SourceAddress>,
    /// Graceful restart time to advertise, such as `120s`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub max_restart_time: Option<String>,
    /// Interval of KEEPALIVE, such as `20s`; absent means a third of the hold time.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub keepalive_time: Option<String>,
    /// How often the own AS number may be in a received path; absent means never.
    #[serde(rename = "numAllowedLocalASNumbers", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-voile-format" = "int32"))]
    pub num_allowed_local_as_numbers: Option<u32>,
    /// Hops to the peer for RFC 5082; 1 means directly connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<u32>,
    /// Gateway on the node's network through which the peer is reached.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 64))]
    pub reachable_by: Option<String>,
    /// BGPFilters to apply, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub filters: Vec<String>,
    /// Pods of the node to peer with.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 1024))]
    pub local_workload_selector: Option<String>,
    /// Whether the selected peers get the session automatically: `Auto` (the default) or `Manual`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub reverse_peering: Option<String>,
}

/// Next hop in what is advertised.
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
pub enum NextHopMode {
    /// As RFC 4271 has it.
    #[default]
    Auto,
    /// The own address always.
    #[serde(rename = "Self")]
    SelfNode,
    /// The next hop received.
    Keep,
}

/// Local address of a session.
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
pub enum SourceAddress {
    /// The node's address.
    #[default]
    #[serde(rename = "UseNodeIP")]
    UseNodeIp,
    /// The kernel's choice.
    None,
}
