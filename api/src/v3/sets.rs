//! Named addresses, host interfaces, and the cluster itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    kind::kind,
    net::Protocol,
    wire::{empty_as_none, null_as_default},
};

kind!(
    /// Addresses with labels, in a namespace.
    NetworkSet, NetworkSetSpec, crate::NoStatus, "projectcalico.org", "v3", "NetworkSet", "networksets", Namespaced
);

/// The addresses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSetSpec {
    /// Prefixes and addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub nets: Vec<String>,
}

kind!(
    /// Addresses with labels, of the whole cluster.
    GlobalNetworkSet, GlobalNetworkSetSpec, crate::NoStatus, "projectcalico.org", "v3", "GlobalNetworkSet", "globalnetworksets", Cluster
);

/// The addresses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GlobalNetworkSetSpec {
    /// Prefixes and addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub nets: Vec<String>,
}

kind!(
    /// An interface of a node that policies may apply to.
    HostEndpoint, HostEndpointSpec, crate::NoStatus, "projectcalico.org", "v3", "HostEndpoint", "hostendpoints", Cluster
);

/// Which interface.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = crate::crd::rules::HOST_ENDPOINT))]
pub struct HostEndpointSpec {
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// The interface; `*` means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 15))]
    pub interface_name: Option<String>,
    /// Addresses it has; finds the interface when no name is given.
    #[serde(
        rename = "expectedIPs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub expected_ips: Vec<String>,
    /// Profiles that apply after all policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub profiles: Vec<String>,
    /// Names for ports, which policies may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<EndpointPortName>,
}

/// A named port.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPortName {
    /// The name.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

kind!(
    /// The cluster's identity; the object is called `default`.
    ClusterInformation, ClusterInformationSpec, crate::NoStatus, "projectcalico.org", "v3", "ClusterInformation", "clusterinformations", Cluster
);

/// Who and what the cluster is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInformationSpec {
    /// Random identity, made once.
    #[serde(
        rename = "clusterGUID",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub cluster_guid: Option<String>,
    /// What it runs on, such as `k8s,bgp,kdd`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub cluster_type: Option<String>,
    /// Version of Calico. Voile leaves it empty, so that every calicoctl works.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub calico_version: Option<String>,
    /// False while the datastore is locked: no pod may be added then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datastore_ready: Option<bool>,
    /// Edition.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub variant: Option<String>,
}
