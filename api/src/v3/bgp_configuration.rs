//! BGP for the whole cluster (`default`) or one node (`node.<name>`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ProgramClusterRoutes, Toggle};
use crate::{
    kind::kind,
    wire::{empty_as_none, null_as_default},
};

kind!(
    /// BGP settings of the cluster, or with the name `node.<node>` of one node.
    BgpConfiguration, BgpConfigurationSpec, crate::NoStatus, "projectcalico.org", "v3", "BGPConfiguration", "bgpconfigurations", Cluster
);

/// BGP settings; absent means the default.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = crate::crd::rules::BGP_CONFIGURATION))]
pub struct BgpConfigurationSpec {
    /// Log level of the speaker.
    #[serde(default = "default_log_severity_screen")]
    #[schemars(regex(pattern = r"^(?i)(Trace|Debug|Info|Warning|Error|Fatal)?$"))]
    pub log_severity_screen: String,
    /// Whether every node peers with every other; absent means yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// AS number of nodes without one of their own; absent means 64512.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64), extend("x-voile-format" = "int64"))]
    pub as_number: Option<u32>,
    /// TCP port; absent means 179.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub listen_port: Option<u16>,
    /// Where the speaker listens; absent means every address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_mode: Option<BindMode>,
    /// Service cluster ranges to advertise.
    #[serde(
        rename = "serviceClusterIPs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub service_cluster_ips: Vec<ServiceCidr>,
    /// External service addresses to advertise.
    #[serde(
        rename = "serviceExternalIPs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub service_external_ips: Vec<ServiceCidr>,
    /// Load balancer ranges to advertise.
    #[serde(
        rename = "serviceLoadBalancerIPs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub service_load_balancer_ips: Vec<ServiceCidr>,
    /// Advertise load balancer ranges as wholes or as single addresses.
    #[serde(default = "default_service_load_balancer_aggregation")]
    pub service_load_balancer_aggregation: Toggle,
    /// Names for communities that `prefix_advertisements` may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(max = 500), extend("x-kubernetes-list-type" = "atomic"))]
    pub communities: Vec<NamedCommunity>,
    /// Communities to attach to prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(max = 500), extend("x-kubernetes-list-type" = "atomic"))]
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// TCP MD5 password of the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<BgpPassword>,
    /// Graceful restart time of the mesh, such as `120s`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub node_mesh_max_restart_time: Option<String>,
    /// Interfaces whose addresses and routes the speaker leaves alone; `*` is a wildcard.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub ignored_interfaces: Vec<String>,
    /// Address that local pods peer with over IPv4.
    #[serde(
        rename = "localWorkloadPeeringIPV4",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub local_workload_peering_ipv4: Option<String>,
    /// Address that local pods peer with over IPv6.
    #[serde(
        rename = "localWorkloadPeeringIPV6",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub local_workload_peering_ipv6: Option<String>,
    /// Kernel metric of routes; absent means 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483646))]
    pub ipv4_normal_route_priority: Option<u32>,
    /// Kernel metric of IPv6 routes; absent means 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483646))]
    pub ipv6_normal_route_priority: Option<u32>,
    /// Which routes to other nodes' blocks the speaker writes to the kernel; absent means `EnabledNoEncapOnly`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_cluster_routes: Option<ProgramClusterRoutes>,
}

impl Default for BgpConfigurationSpec {
    fn default() -> Self {
        Self {
            log_severity_screen: default_log_severity_screen(),
            node_to_node_mesh_enabled: Default::default(),
            as_number: Default::default(),
            listen_port: Default::default(),
            bind_mode: Default::default(),
            service_cluster_ips: Default::default(),
            service_external_ips: Default::default(),
            service_load_balancer_ips: Default::default(),
            service_load_balancer_aggregation: default_service_load_balancer_aggregation(),
            communities: Default::default(),
            prefix_advertisements: Default::default(),
            node_mesh_password: Default::default(),
            node_mesh_max_restart_time: Default::default(),
            ignored_interfaces: Default::default(),
            local_workload_peering_ipv4: Default::default(),
            local_workload_peering_ipv6: Default::default(),
            ipv4_normal_route_priority: Default::default(),
            ipv6_normal_route_priority: Default::default(),
            program_cluster_routes: Default::default(),
        }
    }
}

/// A range of service addresses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct ServiceCidr {
    /// The range.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(extend("format" = "cidr"))]
    pub cidr: Option<String>,
}

/// A community with a name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct NamedCommunity {
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// `aa:nn`, or `aa:nn:mm` for a large community.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 40), regex(pattern = r"^(\d+):(\d+)$|^(\d+):(\d+):(\d+)$"))]
    pub value: Option<String>,
}

/// Communities for what lies in a prefix.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct PrefixAdvertisement {
    /// The prefix.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(extend("format" = "cidr"))]
    pub cidr: Option<String>,
    /// Values or names from `communities`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub communities: Vec<String>,
}

/// Where a TCP MD5 password is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpPassword {
    /// Key of a secret in the namespace of the node daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeySelector>,
}

/// A key of a secret.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct SecretKeySelector {
    /// The secret.
    #[serde(default)]
    pub name: String,
    /// The key.
    pub key: String,
    /// Whether it may be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// Where the BGP speaker listens.
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
pub enum BindMode {
    /// Every address.
    #[default]
    None,
    /// The address of the node only.
    #[serde(rename = "NodeIP")]
    NodeIp,
}

fn default_log_severity_screen() -> String {
    "Info".to_owned()
}

const fn default_service_load_balancer_aggregation() -> Toggle {
    Toggle::Enabled
}
