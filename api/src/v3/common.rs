//! What several kinds share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A condition in an object's status (Kubernetes `metav1.Condition`).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which condition.
    #[serde(rename = "type")]
    #[schemars(length(max = 316), extend("pattern" = crate::crd::rules::CONDITION_TYPE))]
    pub condition_type: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Generation of the object that it was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "x-voile-format" = "int64"))]
    pub observed_generation: Option<i64>,
    /// When `status` changed last, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Why, one word.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    )]
    pub reason: String,
    /// Why, for people.
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// A switch.
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
pub enum Toggle {
    /// On.
    Enabled,
    /// Off.
    #[default]
    Disabled,
}

/// Which routes to other nodes' blocks somebody writes to the kernel.
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
pub enum ProgramClusterRoutes {
    /// All of them.
    Enabled,
    /// None.
    #[default]
    Disabled,
    /// Those of IP-in-IP pools.
    #[serde(rename = "EnabledIPIPOnly")]
    EnabledIpipOnly,
    /// Those of pools without a tunnel.
    EnabledNoEncapOnly,
}

/// Why a session exists.
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
pub enum PeerOrigin {
    /// The mesh of nodes.
    #[default]
    NodeMesh,
    /// A BGPPeer for this node.
    NodePeer,
    /// A BGPPeer for all nodes.
    GlobalPeer,
}

/// Whether a condition holds.
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
pub enum ConditionStatus {
    /// It does.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    #[default]
    Unknown,
}
