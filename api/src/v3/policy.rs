//! Policies of Calico's API: tiers, and ordered rules for what selectors select.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::Condition;
use super::rule::{Action, Rule};
use crate::{
    kind::kind,
    wire::{empty_as_none, null_as_default},
};

kind!(
    /// Policies that are looked at together, before those of the next tier.
    Tier, TierSpec, TierStatus, "projectcalico.org", "v3", "Tier", "tiers", Cluster
);

/// Where a tier stands and how it ends.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TierSpec {
    /// Lower comes first; absent comes last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// What becomes of traffic that policies of the tier select and no rule decides: `Deny` or `Pass`.
    #[serde(default = "default_default_action")]
    #[schemars(extend("enum" = serde_json::Value::Null))]
    pub default_action: Action,
}

impl Default for TierSpec {
    fn default() -> Self {
        Self { order: Default::default(), default_action: default_default_action() }
    }
}

/// What is known of a tier.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TierStatus {
    /// `Ready` tells whether it is in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

kind!(
    /// Rules for pods and network sets of one namespace.
    NetworkPolicy, NetworkPolicySpec, crate::NoStatus, "projectcalico.org", "v3", "NetworkPolicy", "networkpolicies", Namespaced
);

/// Whom it applies to, and its rules.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = crate::crd::rules::NETWORK_POLICY))]
pub struct NetworkPolicySpec {
    /// Tier it belongs to.
    #[serde(default = "default_tier")]
    pub tier: String,
    /// Lower comes first; absent comes last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// Pods it applies to; absent means every pod of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Service accounts whose pods it applies to.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 1024))]
    pub service_account_selector: Option<String>,
    /// Directions; absent means those that have rules, and ingress if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub types: Vec<PolicyType>,
    /// Rules for what comes in; the first that decides wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "atomic"))]
    pub ingress: Vec<Rule>,
    /// Rules for what goes out.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "atomic"))]
    pub egress: Vec<Rule>,
    /// Hints to the data plane.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub performance_hints: Vec<PerformanceHint>,
}

impl Default for NetworkPolicySpec {
    fn default() -> Self {
        Self {
            tier: default_tier(),
            order: Default::default(),
            selector: Default::default(),
            service_account_selector: Default::default(),
            types: Default::default(),
            ingress: Default::default(),
            egress: Default::default(),
            performance_hints: Default::default(),
        }
    }
}

kind!(
    /// Rules for pods of all namespaces and for host endpoints.
    GlobalNetworkPolicy, GlobalNetworkPolicySpec, crate::NoStatus, "projectcalico.org", "v3", "GlobalNetworkPolicy", "globalnetworkpolicies", Cluster
);

/// Whom it applies to, and its rules.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = crate::crd::rules::GLOBAL_NETWORK_POLICY))]
pub struct GlobalNetworkPolicySpec {
    /// Tier it belongs to.
    #[serde(default = "default_tier")]
    pub tier: String,
    /// Lower comes first; absent comes last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// Pods and host endpoints it applies to; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Namespaces whose pods it applies to; present excludes host endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 1024))]
    pub namespace_selector: Option<String>,
    /// Service accounts whose pods it applies to.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 1024))]
    pub service_account_selector: Option<String>,
    /// Directions; absent means those that have rules, and ingress if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub types: Vec<PolicyType>,
    /// Rules for what comes in; the first that decides wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "atomic"))]
    pub ingress: Vec<Rule>,
    /// Rules for what goes out.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "atomic"))]
    pub egress: Vec<Rule>,
    /// Enforce before connection tracking, at host endpoints.
    #[serde(default, skip_serializing_if = "crate::wire::is_false")]
    pub do_not_track: bool,
    /// Enforce before destination NAT, at host endpoints; ingress only.
    #[serde(rename = "preDNAT", default, skip_serializing_if = "crate::wire::is_false")]
    pub pre_dnat: bool,
    /// Enforce on what host endpoints forward too.
    #[serde(default, skip_serializing_if = "crate::wire::is_false")]
    pub apply_on_forward: bool,
    /// Hints to the data plane.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub performance_hints: Vec<PerformanceHint>,
}

impl Default for GlobalNetworkPolicySpec {
    fn default() -> Self {
        Self {
            tier: default_tier(),
            order: Default::default(),
            selector: Default::default(),
            namespace_selector: Default::default(),
            service_account_selector: Default::default(),
            types: Default::default(),
            ingress: Default::default(),
            egress: Default::default(),
            do_not_track: Default::default(),
            pre_dnat: Default::default(),
            apply_on_forward: Default::default(),
            performance_hints: Default::default(),
        }
    }
}

/// A hint to the data plane.
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
pub enum PerformanceHint {
    /// Prepare the policy before a pod needs it.
    #[default]
    AssumeNeededOnEveryNode,
}

/// A direction.
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
pub enum PolicyType {
    /// What comes in.
    #[default]
    Ingress,
    /// What goes out.
    Egress,
}

const fn default_default_action() -> Action {
    Action::Deny
}

fn default_tier() -> String {
    "default".to_owned()
}
