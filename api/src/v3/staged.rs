//! Staged policies: looked at and reported, never enforced.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{GlobalNetworkPolicySpec, NetworkPolicySpec};
use crate::{KubernetesNetworkPolicySpec, kind::kind};

kind!(
    /// A [`NetworkPolicy`](crate::NetworkPolicy) to be.
    StagedNetworkPolicy, StagedNetworkPolicySpec, crate::NoStatus, "projectcalico.org", "v3",
    "StagedNetworkPolicy", "stagednetworkpolicies", Namespaced
);
kind!(
    /// A [`GlobalNetworkPolicy`](crate::GlobalNetworkPolicy) to be.
    StagedGlobalNetworkPolicy, StagedGlobalNetworkPolicySpec, crate::NoStatus, "projectcalico.org", "v3",
    "StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", Cluster
);
kind!(
    /// A [`KubernetesNetworkPolicy`](crate::KubernetesNetworkPolicy) to be.
    StagedKubernetesNetworkPolicy, StagedKubernetesNetworkPolicySpec, crate::NoStatus, "projectcalico.org",
    "v3", "StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", Namespaced
);

/// A policy, and what it would do.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = crate::crd::rules::NETWORK_POLICY))]
pub struct StagedNetworkPolicySpec {
    /// What it would do to the policy of the same name.
    #[serde(default)]
    pub staged_action: StagedAction,
    /// The policy.
    #[serde(flatten)]
    pub policy: NetworkPolicySpec,
}

/// A policy, and what it would do.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = crate::crd::rules::GLOBAL_NETWORK_POLICY))]
pub struct StagedGlobalNetworkPolicySpec {
    /// What it would do to the policy of the same name.
    #[serde(default)]
    pub staged_action: StagedAction,
    /// The policy.
    #[serde(flatten)]
    pub policy: GlobalNetworkPolicySpec,
}

/// A policy, and what it would do.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StagedKubernetesNetworkPolicySpec {
    /// What it would do to the policy of the same name.
    #[serde(default)]
    pub staged_action: StagedAction,
    /// The policy.
    #[serde(flatten)]
    pub policy: KubernetesNetworkPolicySpec,
}

/// What a staged policy would do to the real one.
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
pub enum StagedAction {
    /// Create or replace it.
    #[default]
    Set,
    /// Delete it.
    Delete,
    /// Watch only.
    Learn,
    /// Nothing.
    Ignore,
}
