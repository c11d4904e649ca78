//! The kinds of Kubernetes itself that Voile reads: only the fields it uses.
//!
//! Writing an object back with missing fields is the store's affair: it merges into what the server sent.

mod flat;
mod machine;
mod network_policy;
mod node;
mod pod;
mod service;

pub use flat::{ConfigMap, EndpointSlice, Secret, ServiceAccount};
pub use machine::{
    MigrationState, VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceSpec,
    VirtualMachineInstanceStatus, VirtualMachineSpec,
};
pub use network_policy::{
    IpBlock, KubernetesNetworkPolicy, KubernetesNetworkPolicySpec, LabelSelector,
    LabelSelectorRequirement, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort,
};
pub use node::{
    Lease, LeaseSpec, Namespace, NamespaceSpec, NamespaceStatus, Node, NodeAddress, NodeSpec,
    NodeStatus, Taint,
};
pub use pod::{Container, ContainerPort, EnvVar, Pod, PodCondition, PodIp, PodSpec, PodStatus};
pub use service::{
    ClientIpConfig, Endpoint, EndpointConditions, EndpointPort, LoadBalancerIngress,
    LoadBalancerStatus, ObjectReference, Service, ServicePort, ServiceSpec, ServiceStatus,
    SessionAffinityConfig,
};
