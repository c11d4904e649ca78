//! Parts of FelixConfiguration: ranges, ports, and the words its settings take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wire::empty_as_none;

/// Routing tables, both ends included.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = crate::crd::rules::ROUTE_TABLE_RANGE))]
pub struct RouteTableRange {
    /// First.
    pub min: i64,
    /// Last.
    pub max: i64,
}

/// A port of a host endpoint.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailsafePort {
    /// `tcp` or `udp`; absent means `tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub protocol: Option<String>,
    /// Port.
    pub port: u16,
    /// Only to or from this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub net: Option<String>,
}

/// Another timeout of the watchdog.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthTimeoutOverride {
    /// Part of the daemon.
    pub name: String,
    /// The timeout.
    pub timeout: String,
}

/// Source/destination check of AWS.
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
pub enum AwsSrcDstCheck {
    /// Leave it.
    #[default]
    DoNothing,
    /// Switch it on.
    Enable,
    /// Switch it off.
    Disable,
}

/// Where programs are attached.
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
pub enum BpfAttachType {
    /// Traffic control.
    #[serde(rename = "TC")]
    Tc,
    /// TCX.
    #[default]
    #[serde(rename = "TCX")]
    Tcx,
    /// Netkit.
    Netkit,
}

/// Which connections are balanced in `connect`.
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
pub enum BpfConnectTimeLoadBalancing {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// All.
    Enabled,
    /// None.
    Disabled,
}

/// Log level of connection tracking.
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
pub enum BpfConntrackLogLevel {
    /// Off.
    #[default]
    Off,
    /// Debug.
    Debug,
}

/// Who cleans the tracking table.
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
pub enum BpfConntrackMode {
    /// Detected.
    #[default]
    Auto,
    /// The agent.
    Userspace,
    /// A program in the kernel.
    #[serde(rename = "BPFProgram")]
    BpfProgram,
}

/// Hardening of the kernel's compiler.
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
pub enum BpfJitHardening {
    /// Relaxed where possible.
    #[default]
    Auto,
    /// Left alone.
    Strict,
}

/// Source address of hosts in the overlay.
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
pub enum BpfOverlayHostSourceIp {
    /// Of the tunnel.
    #[default]
    TunnelAddress,
    /// Of the host.
    HostAddress,
}

/// How staged policies are evaluated.
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
pub enum FlowLogsPolicyEvaluationMode {
    /// Not.
    #[default]
    None,
    /// While a flow lives.
    Continuous,
}

/// Flavour of iptables.
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
pub enum IptablesBackend {
    /// Legacy.
    Legacy,
    /// On nftables.
    #[serde(rename = "NFT")]
    Nft,
    /// Detected.
    #[default]
    Auto,
}

/// Whom ARP and NDP are answered for.
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
pub enum LocalSubnetL2Reachability {
    /// Nobody.
    #[default]
    Disabled,
    /// Pods and load balancers.
    PodsAndLoadBalancers,
}

/// What outgoing NAT leaves alone.
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
pub enum NatOutgoingExclusions {
    /// Addresses of pools.
    #[default]
    #[serde(rename = "IPPoolsOnly")]
    IpPoolsOnly,
    /// Addresses of nodes too.
    #[serde(rename = "IPPoolsAndHostIPs")]
    IpPoolsAndHostIps,
}

/// Which flows use the fast path.
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
pub enum NftablesFlowTableOffload {
    /// All.
    All,
    /// None.
    #[default]
    Disabled,
}

/// Whether nftables is used.
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
pub enum NftablesMode {
    /// No.
    Disabled,
    /// Yes.
    Enabled,
    /// As kube-proxy does.
    #[default]
    Auto,
}

/// Whether clients need a certificate.
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
pub enum MetricsClientAuth {
    /// A valid one.
    #[default]
    RequireAndVerifyClientCert,
    /// Any.
    RequireAnyClientCert,
    /// A valid one, if any.
    VerifyClientCertIfGiven,
    /// No.
    NoClientCert,
}
