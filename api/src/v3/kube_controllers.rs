//! Settings of Calico's kube-controllers. Voile's own housekeeping follows them where it does the same.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::Toggle;
use crate::{
    kind::kind,
    wire::{empty_as_none, null_as_default},
};

kind!(
    /// Settings of the controllers; the object is called `default`.
    KubeControllersConfiguration, KubeControllersConfigurationSpec, KubeControllersConfigurationStatus, "projectcalico.org", "v3", "KubeControllersConfiguration", "kubecontrollersconfigurations", Cluster
);

/// Settings.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeControllersConfigurationSpec {
    /// Log level; absent means `Info`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_severity_screen: Option<ControllersLogLevel>,
    /// Whether readiness is served.
    #[serde(default = "default_health_checks")]
    pub health_checks: Toggle,
    /// Interval of etcd compaction; not used with the Kubernetes datastore.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub etcd_v3_compaction_period: Option<String>,
    /// Port of metrics; absent means 9094, 0 means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub prometheus_metrics_port: Option<u16>,
    /// Port of profiles; absent means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535), extend("x-voile-format" = "int32"))]
    pub debug_profile_port: Option<u16>,
    /// Which controllers run, and how.
    pub controllers: Controllers,
}

impl Default for KubeControllersConfigurationSpec {
    fn default() -> Self {
        Self {
            log_severity_screen: Default::default(),
            health_checks: default_health_checks(),
            etcd_v3_compaction_period: Default::default(),
            prometheus_metrics_port: Default::default(),
            debug_profile_port: Default::default(),
            controllers: Default::default(),
        }
    }
}

/// Controllers; absent means that it does not run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controllers {
    /// Looks after nodes and leaked addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeController>,
    /// Copies Kubernetes policies (etcd only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<ReconcilerConfig>,
    /// Copies pod labels (etcd only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_endpoint: Option<ReconcilerConfig>,
    /// Copies service accounts (etcd only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ReconcilerConfig>,
    /// Copies namespaces (etcd only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<ReconcilerConfig>,
    /// Gives load balancer services their addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancerController>,
    /// Renames policies stored under old names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationController>,
}

/// Looks after nodes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeController {
    /// Interval of full checks; absent means `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub reconciler_period: Option<String>,
    /// Copy node labels (etcd only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_labels: Option<Toggle>,
    /// Host endpoints made by the controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_endpoint: Option<AutoHostEndpoint>,
    /// How long an address without a pod is kept; absent means `15m`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub leak_grace_period: Option<String>,
}

/// Host endpoints for every node.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoHostEndpoint {
    /// Whether to make them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_create: Option<Toggle>,
    /// Whether to make the `*` endpoint: `Enabled` (the default) or `Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub create_default_host_endpoint: Option<String>,
    /// Further endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub templates: Vec<HostEndpointTemplate>,
}

/// How a host endpoint is made.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostEndpointTemplate {
    /// Part of its name.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 253))]
    pub generate_name: Option<String>,
    /// Interfaces with an address in these.
    #[serde(
        rename = "interfaceCIDRs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub interface_cidrs: Vec<String>,
    /// Interfaces whose name matches this regular expression.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub interface_pattern: Option<String>,
    /// Labels.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Nodes that get one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub node_selector: Option<String>,
}

/// A controller with an interval only.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconcilerConfig {
    /// Interval of full checks; absent means `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub reconciler_period: Option<String>,
}

/// Gives services their addresses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerController {
    /// To which services.
    #[serde(rename = "assignIPs", default)]
    pub assign_ips: AssignIps,
}

/// Renames policies.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationController {
    /// Whether it runs.
    #[serde(default = "default_policy_name_migrator")]
    pub policy_name_migrator: Toggle,
}

impl Default for MigrationController {
    fn default() -> Self {
        Self { policy_name_migrator: default_policy_name_migrator() }
    }
}

/// What the controllers run with.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeControllersConfigurationStatus {
    /// Environment variables that override the settings.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub environment_vars: BTreeMap<String, String>,
    /// Settings in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_config: Option<KubeControllersConfigurationSpec>,
}

/// Which services get an address.
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
pub enum AssignIps {
    /// All load balancer services.
    #[default]
    AllServices,
    /// Those that ask for it.
    RequestedServicesOnly,
}

/// Log level.
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
pub enum ControllersLogLevel {
    /// Nothing.
    None,
    /// Everything.
    Debug,
    /// What happened.
    #[default]
    Info,
    /// What may go wrong.
    Warning,
    /// What went wrong.
    Error,
    /// Why it ended.
    Fatal,
    /// Why it broke.
    Panic,
}

const fn default_health_checks() -> Toggle {
    Toggle::Enabled
}

const fn default_policy_name_migrator() -> Toggle {
    Toggle::Enabled
}
