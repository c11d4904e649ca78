//! A node's own report on its BGP speaker and routes, as Calico has it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::PeerOrigin;
use crate::{
    kind::kind,
    wire::{empty_as_none, null_as_default},
};

kind!(
    /// A request to a node to report, and its report.
    CalicoNodeStatus, CalicoNodeStatusSpec, CalicoNodeStatusStatus, "projectcalico.org", "v3", "CalicoNodeStatus", "caliconodestatuses", Cluster
);

/// Which node reports what.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CalicoNodeStatusSpec {
    /// The node.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub node: String,
    /// What to report.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub classes: Vec<NodeStatusClass>,
    /// Seconds between reports; absent means 10, 0 stops them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-voile-format" = "int32"))]
    pub update_period_seconds: Option<u32>,
}

/// The report.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CalicoNodeStatusStatus {
    /// When it was written, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(extend("nullable" = true, "format" = "date-time"))]
    pub last_updated: Option<String>,
    /// The speaker itself.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub agent: AgentStatus,
    /// Its sessions.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub bgp: BgpStatus,
    /// Its routes.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub routes: RouteStatus,
}

/// State of the speaker, which Calico has one of for each family.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// IPv4.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub bird_v4: BgpDaemonStatus,
    /// IPv6.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::Value::Null))]
    pub bird_v6: BgpDaemonStatus,
}

/// State of a speaker.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpDaemonStatus {
    /// Whether it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<BgpDaemonState>,
    /// Version.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub version: Option<String>,
    /// BGP identifier.
    #[serde(
        rename = "routerID",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub router_id: Option<String>,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub last_boot_time: Option<String>,
    /// When it took its last configuration.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub last_reconfiguration_time: Option<String>,
}

/// Sessions.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpStatus {
    /// IPv4 sessions that are up.
    pub number_established_v4: u32,
    /// IPv6 sessions that are up.
    pub number_established_v6: u32,
    /// IPv4 sessions that are not.
    pub number_not_established_v4: u32,
    /// IPv6 sessions that are not.
    pub number_not_established_v6: u32,
    /// IPv4 sessions.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub peers_v4: Vec<NodePeerStatus>,
    /// IPv6 sessions.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub peers_v6: Vec<NodePeerStatus>,
}

/// A session.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePeerStatus {
    /// Address of the peer.
    #[serde(
        rename = "peerIP",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub peer_ip: Option<String>,
    /// Why it exists.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<PeerOrigin>,
    /// State of RFC 4271, or `Close`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PeerState>,
    /// When it entered the state.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub since: Option<String>,
}

/// Routes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// IPv4 routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub routes_v4: Vec<NodeRoute>,
    /// IPv6 routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub routes_v6: Vec<NodeRoute>,
}

/// A route.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRoute {
    /// Whether it is in the kernel (FIB) or only known (RIB).
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub route_type: Option<RouteTableKind>,
    /// Prefix.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub destination: Option<String>,
    /// Next hop.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub gateway: Option<String>,
    /// Interface.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub interface: Option<String>,
    /// Where it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned_from: Option<RouteOrigin>,
}

/// Where a route came from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteOrigin {
    /// Which kind of source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_type: Option<RouteOriginType>,
    /// Address of the BGP peer.
    #[serde(
        rename = "peerIP",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub peer_ip: Option<String>,
}

/// A part of the report.
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
pub enum NodeStatusClass {
    /// The speaker.
    #[default]
    Agent,
    /// Sessions.
    #[serde(rename = "BGP")]
    Bgp,
    /// Routes.
    Routes,
}

/// Whether a speaker works.
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
pub enum BgpDaemonState {
    /// It does.
    Ready,
    /// It does not.
    #[default]
    NotReady,
}

/// State of a session.
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
pub enum PeerState {
    /// Idle.
    #[default]
    Idle,
    /// Connect.
    Connect,
    /// Active.
    Active,
    /// OpenSent.
    OpenSent,
    /// OpenConfirm.
    OpenConfirm,
    /// Established.
    Established,
    /// Shut down by configuration.
    Close,
}

/// Kind of source of a route.
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
pub enum RouteOriginType {
    /// The kernel.
    #[default]
    Kernel,
    /// Configuration.
    Static,
    /// An interface.
    Direct,
    /// The mesh.
    NodeMesh,
    /// A BGP peer.
    #[serde(rename = "BGPPeer")]
    BgpPeer,
}

/// Which table a route is in.
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
pub enum RouteTableKind {
    /// The kernel's.
    #[default]
    #[serde(rename = "FIB")]
    Fib,
    /// The speaker's.
    #[serde(rename = "RIB")]
    Rib,
}
