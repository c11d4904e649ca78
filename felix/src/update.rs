//! What the engine is told: objects of the API as they come and go, and the endpoints that the CNI server made here.
//!
//! Updates may come in any order and more than once; `None` deletes. Nothing is written to the kernel before
//! [`Update::InSync`].

use std::{fmt, net::IpAddr, sync::Arc};

use api::{
    BlockAffinity, EndpointSlice, GlobalNetworkPolicy, GlobalNetworkSet, IpPool, Key,
    KubernetesNetworkPolicy, Namespace, NetworkPolicy, NetworkSet, Pod, Service, ServiceAccount,
    Tier,
};

/// One thing that became known.
#[derive(Clone, Debug)]
pub enum Update {
    /// A pod.
    Pod(Key, Option<Arc<Pod>>),
    /// A namespace.
    Namespace(Key, Option<Arc<Namespace>>),
    /// A service account.
    ServiceAccount(Key, Option<Arc<ServiceAccount>>),
    /// A policy of Kubernetes.
    KubernetesNetworkPolicy(Key, Option<Arc<KubernetesNetworkPolicy>>),
    /// A policy of Calico's API.
    NetworkPolicy(Key, Option<Arc<NetworkPolicy>>),
    /// A cluster-wide policy of Calico's API.
    GlobalNetworkPolicy(Key, Option<Arc<GlobalNetworkPolicy>>),
    /// A tier.
    Tier(Key, Option<Arc<Tier>>),
    /// A set of prefixes in a namespace.
    NetworkSet(Key, Option<Arc<NetworkSet>>),
    /// A set of prefixes of the cluster.
    GlobalNetworkSet(Key, Option<Arc<GlobalNetworkSet>>),
    /// A service.
    Service(Key, Option<Arc<Service>>),
    /// Backends of a service.
    EndpointSlice(Key, Option<Arc<EndpointSlice>>),
    /// An address pool.
    IpPool(Key, Option<Arc<IpPool>>),
    /// A block that belongs to a node.
    BlockAffinity(Key, Option<Arc<BlockAffinity>>),
    /// A pod interface on this node.
    LocalEndpoint(EndpointId, Option<LocalEndpoint>),
    /// Everything that exists has been told.
    InSync,
}

/// Which interface of which sandbox: what a CNI runtime names in ADD and DEL.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EndpointId {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

/// A pod's interface on this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalEndpoint {
    /// The pod.
    pub pod: Key,
    /// UID of the pod, if the runtime told it: a pod of the same name may follow with other labels.
    pub pod_uid: Option<String>,
    /// Name of the host side of the veth.
    pub host_interface: String,
    /// Addresses of the pod.
    pub addresses: Vec<IpAddr>,
    /// MAC address of the pod's side, if known.
    pub mac: Option<[u8; 6]>,
}
