//! `voile.dev/v1` NodeNetworkState: what a node's daemon does right now, for people and tools to read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PeerOrigin, kind::kind, wire::null_as_default};

kind!(
    /// State of the network on one node, named after the node; only the node's daemon writes its status.
    NodeNetworkState, NodeNetworkStateSpec, NodeNetworkStateStatus, "voile.dev", "v1", "NodeNetworkState",
    "nodenetworkstates", Cluster
);

/// Nothing is wanted: the object only reports.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NodeNetworkStateSpec {}

/// The report.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeNetworkStateStatus {
    /// When it was written, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub updated_at: Option<String>,
    /// The daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon: Option<DaemonState>,
    /// BGP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bgp: Option<BgpState>,
    /// Addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamState>,
    /// Policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyState>,
    /// Routes that Voile wrote to the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<RouteCounts>,
}

/// The daemon.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonState {
    /// Version.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub version: String,
    /// When it started, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub started_at: Option<String>,
    /// Process.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub pid: u32,
}

/// The BGP speaker.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpState {
    /// AS number of the node.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub local_as: u32,
    /// BGP identifier.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub router_id: String,
    /// Sessions.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub peers: Vec<PeerStatus>,
    /// What of the configuration cannot be used, and why; the first of them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub problems: Vec<String>,
}

/// A BGP session.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// What it is called: a node, or the BGPPeer it comes from.
    pub name: String,
    /// Address of the peer.
    pub address: String,
    /// AS number shown to the peer.
    pub local_as: u32,
    /// AS number of the peer.
    pub peer_as: u32,
    /// Why the session exists.
    #[serde(rename = "type")]
    pub peer_type: PeerOrigin,
    /// State of RFC 4271.
    pub state: String,
    /// When it entered the state, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
    /// Why it went down last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Negotiated address families, such as `ipv4-unicast`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub families: Vec<String>,
    /// Prefixes received.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub received: u64,
    /// Of these, prefixes that import filters let in.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub accepted: u64,
    /// Of these, prefixes in the kernel.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub installed: u64,
    /// Prefixes sent.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub advertised: u64,
    /// State of graceful restart with the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<String>,
    /// State of BFD with the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bfd: Option<String>,
}

/// Addresses of the node.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpamState {
    /// Blocks the node owns.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub blocks: Vec<String>,
}

/// Policy on the node.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyState {
    /// Pod interfaces.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub local_endpoints: u64,
    /// Policies that apply to them.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub policies: u64,
    /// Sets of addresses in the kernel.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub ip_sets: u64,
    /// Rules in the kernel.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub rules: u64,
    /// Grows with every write to the kernel.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub revision: u64,
    /// When it was written last, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_applied: Option<String>,
    /// How long that took, in microseconds.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub last_apply_micros: u64,
    /// Why the last write failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Objects that are not enforced as written, and why; the first of them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub problems: Vec<String>,
}

/// Numbers of routes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteCounts {
    /// Learned by BGP.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub bgp: u64,
    /// To local pods, and blackholes of blocks.
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub local: u64,
}
