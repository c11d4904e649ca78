//! Ordered rules on imported and exported routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    kind::kind,
    wire::{empty_as_none, null_as_default},
};

kind!(
    /// Which routes to accept from and send to a peer.
    BgpFilter, BgpFilterSpec, crate::NoStatus, "projectcalico.org", "v3", "BGPFilter", "bgpfilters", Cluster
);

/// Rules by family and direction; the first that matches decides.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpFilterSpec {
    /// IPv4 routes received.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(transform = crate::crd::rules::ipv4_filter, extend("x-kubernetes-list-type" = "atomic"))]
    pub import_v4: Vec<BgpFilterRule>,
    /// IPv4 routes to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(transform = crate::crd::rules::ipv4_filter, extend("x-kubernetes-list-type" = "atomic"))]
    pub export_v4: Vec<BgpFilterRule>,
    /// IPv6 routes received.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(transform = crate::crd::rules::ipv6_filter, extend("x-kubernetes-list-type" = "atomic"))]
    pub import_v6: Vec<BgpFilterRule>,
    /// IPv6 routes to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(transform = crate::crd::rules::ipv6_filter, extend("x-kubernetes-list-type" = "atomic"))]
    pub export_v6: Vec<BgpFilterRule>,
}

/// All conditions that are present must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic", "x-kubernetes-validations" = crate::crd::rules::BGP_FILTER_RULE))]
pub struct BgpFilterRule {
    /// What becomes of the route.
    pub action: FilterAction,
    /// How the route relates to `cidr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,
    /// Prefix to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 18), extend("format" = "cidr"))]
    pub cidr: Option<String>,
    /// Length of the route's prefix; needs `cidr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLengthRange>,
    /// Where the route came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<RouteSource>,
    /// Interface of the route; `*` is a wildcard.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 15))]
    pub interface: Option<String>,
    /// Kind of session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<PeerType>,
    /// Communities the route must carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communities: Option<CommunityMatch>,
    /// AS numbers the path must begin with.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "items" = crate::crd::rules::as_number()))]
    pub as_path_prefix: Vec<u32>,
    /// Kernel metric the route must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483646))]
    pub priority: Option<u32>,
    /// What to change in an accepted route.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(min = 1, max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub operations: Vec<BgpFilterOperation>,
}

/// Bounds, both included.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct PrefixLengthRange {
    /// Shortest; absent means the length of `cidr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-voile-format" = "int32"))]
    pub min: Option<u8>,
    /// Longest; absent means 32 or 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-voile-format" = "int32"))]
    pub max: Option<u8>,
}

/// Communities to look for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct CommunityMatch {
    /// One community, `aa:nn` or `aa:nn:mm`.
    #[serde(deserialize_with = "null_as_default")]
    #[schemars(length(min = 1, max = 1), extend("x-kubernetes-list-type" = "atomic", "items" = crate::crd::rules::community_items()))]
    pub values: Vec<String>,
}

/// One change; exactly one field is set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct BgpFilterOperation {
    /// Attach a community.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_community: Option<AddCommunity>,
    /// Put AS numbers in front of the path.
    #[serde(rename = "prependASPath", skip_serializing_if = "Option::is_none")]
    pub prepend_as_path: Option<PrependAsPath>,
    /// Set the kernel metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_priority: Option<SetPriority>,
}

/// A community to attach.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct AddCommunity {
    /// `aa:nn` or `aa:nn:mm`.
    #[schemars(length(max = 32), extend("pattern" = crate::crd::rules::COMMUNITY))]
    pub value: String,
}

/// AS numbers to prepend.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct PrependAsPath {
    /// The numbers; the first becomes the leftmost.
    #[serde(deserialize_with = "null_as_default")]
    #[schemars(length(min = 1, max = 10), extend("x-kubernetes-list-type" = "atomic", "items" = crate::crd::rules::as_number()))]
    pub prefix: Vec<u32>,
}

/// A kernel metric.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct SetPriority {
    /// The metric.
    #[schemars(range(min = 1, max = 2147483646))]
    pub value: u32,
}

/// What becomes of a route.
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
pub enum FilterAction {
    /// It is taken.
    Accept,
    /// It is dropped.
    #[default]
    Reject,
}

/// How a prefix relates to another.
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
pub enum MatchOperator {
    /// It is the same.
    Equal,
    /// It is another.
    NotEqual,
    /// It lies in the other.
    #[default]
    In,
    /// It does not lie in the other.
    NotIn,
}

/// Kind of BGP session.
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
pub enum PeerType {
    /// Between two AS.
    #[default]
    #[serde(rename = "eBGP")]
    Ebgp,
    /// Inside one AS.
    #[serde(rename = "iBGP")]
    Ibgp,
}

/// Where a route came from.
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
pub enum RouteSource {
    /// A BGP peer.
    #[default]
    RemotePeers,
}
