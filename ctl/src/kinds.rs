//! The kinds that can be named on the command line, and the columns of their tables.

use serde_json::Value;

/// A column: header, JSON pointer (RFC 6901) into the object, and whether only `-o wide` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Header.
    pub header: &'static str,
    /// JSON pointer.
    pub pointer: &'static str,
    /// Only with `-o wide`.
    pub wide: bool,
}

const fn column(header: &'static str, pointer: &'static str) -> Column {
    Column { header, pointer, wide: false }
}

const fn wide(header: &'static str, pointer: &'static str) -> Column {
    Column { header, pointer, wide: true }
}

macro_rules! kinds {
    ($($variant:ident, $type:ty, [$($alias:literal),*], [$($column:expr),* $(,)?];)*) => {
        /// A kind that the command line knows.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Kind {
            $(#[doc = concat!("`", stringify!($variant), "`.")] $variant,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns where the kind lives in the API.
            #[must_use]
            pub fn info(self) -> api::KindInfo {
                match self {
                    $(Self::$variant => <$type as api::Resource>::KIND,)*
                }
            }

            /// Returns the short names people type.
            #[must_use]
            pub fn aliases(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => &[$($alias),*],)*
                }
            }

            /// Returns the columns of its table after NAME.
            #[must_use]
            pub fn columns(self) -> &'static [Column] {
                match self {
                    $(Self::$variant => const { &[$($column),*] },)*
                }
            }
        }

        /// Runs `$body` with `$R` as the Rust type of a [`Kind`].
        macro_rules! with_kind {
            ($kind:expr, $R:ident => $body:expr) => {
                match $kind {
                    $($crate::kinds::Kind::$variant => { type $R = $type; $body })*
                }
            };
        }
    };
}

kinds! {
    Node, api::Node, ["no"], [
        column("ASN", "/metadata/annotations/projectcalico.org~1ASNumber"),
        column("IPV4", "/metadata/annotations/projectcalico.org~1IPv4Address"),
        column("IPV6", "/metadata/annotations/projectcalico.org~1IPv6Address"),
    ];
    Pod, api::Pod, ["po", "workloadendpoint", "workloadendpoints", "wep", "weps"], [
        column("NODE", "/spec/nodeName"),
        column("PHASE", "/status/phase"),
        column("NETWORKS", "/metadata/annotations/cni.projectcalico.org~1podIPs"),
    ];
    Namespace, api::Namespace, ["ns"], [column("PHASE", "/status/phase")];
    KubernetesNetworkPolicy, api::KubernetesNetworkPolicy, ["knp", "kubernetesnetworkpolicy", "kubernetesnetworkpolicies"], [
        column("TYPES", "/spec/policyTypes"),
    ];
    IpPool, api::IpPool, ["ipp", "pool", "pools"], [
        column("CIDR", "/spec/cidr"),
        column("SELECTOR", "/spec/nodeSelector"),
        wide("BLOCKSIZE", "/spec/blockSize"),
        wide("NAT", "/spec/natOutgoing"),
        wide("IPIPMODE", "/spec/ipipMode"),
        wide("VXLANMODE", "/spec/vxlanMode"),
        wide("DISABLED", "/spec/disabled"),
        wide("DISABLEBGPEXPORT", "/spec/disableBGPExport"),
        wide("ASSIGNMENTMODE", "/spec/assignmentMode"),
    ];
    IpReservation, api::IpReservation, [], [column("CIDRS", "/spec/reservedCIDRs")];
    IpamConfiguration, api::IpamConfiguration, ["ipamconfig"], [
        column("STRICTAFFINITY", "/spec/strictAffinity"),
        column("MAXBLOCKSPERHOST", "/spec/maxBlocksPerHost"),
    ];
    IpamBlock, api::IpamBlock, ["block", "blocks"], [
        column("CIDR", "/spec/cidr"),
        column("AFFINITY", "/spec/affinity"),
    ];
    BlockAffinity, api::BlockAffinity, ["affinity", "affinities"], [
        column("CIDR", "/spec/cidr"),
        column("NODE", "/spec/node"),
        column("STATE", "/spec/state"),
    ];
    IpamHandle, api::IpamHandle, ["handle", "handles"], [column("HANDLEID", "/spec/handleID")];
    BgpConfiguration, api::BgpConfiguration, ["bgpconfig", "bgpconfigs"], [
        column("LOGSEVERITY", "/spec/logSeverityScreen"),
        column("MESHENABLED", "/spec/nodeToNodeMeshEnabled"),
        column("ASNUMBER", "/spec/asNumber"),
    ];
    BgpPeer, api::BgpPeer, ["peer", "peers"], [
        column("PEERIP", "/spec/peerIP"),
        column("NODE", "/spec/node"),
        column("ASN", "/spec/asNumber"),
        wide("NODESELECTOR", "/spec/nodeSelector"),
        wide("PEERSELECTOR", "/spec/peerSelector"),
    ];
    BgpFilter, api::BgpFilter, [], [];
    CalicoNodeStatus, api::CalicoNodeStatus, [], [column("NODE", "/spec/node")];
    FelixConfiguration, api::FelixConfiguration, ["felixconfig"], [];
    NetworkPolicy, api::NetworkPolicy, ["np", "netpol", "cnp", "caliconetworkpolicy"], [
        column("TIER", "/spec/tier"),
        wide("ORDER", "/spec/order"),
        wide("SELECTOR", "/spec/selector"),
    ];
    GlobalNetworkPolicy, api::GlobalNetworkPolicy, ["gnp", "cgnp"], [
        column("TIER", "/spec/tier"),
        wide("ORDER", "/spec/order"),
        wide("SELECTOR", "/spec/selector"),
    ];
    StagedNetworkPolicy, api::StagedNetworkPolicy, ["snp", "scnp"], [column("TIER", "/spec/tier")];
    StagedGlobalNetworkPolicy, api::StagedGlobalNetworkPolicy, ["sgnp"], [column("TIER", "/spec/tier")];
    StagedKubernetesNetworkPolicy, api::StagedKubernetesNetworkPolicy, ["sknp"], [];
    Tier, api::Tier, [], [column("ORDER", "/spec/order"), column("DEFAULTACTION", "/spec/defaultAction")];
    NetworkSet, api::NetworkSet, ["netset"], [column("NETS", "/spec/nets")];
    GlobalNetworkSet, api::GlobalNetworkSet, ["gns"], [column("NETS", "/spec/nets")];
    HostEndpoint, api::HostEndpoint, ["hep", "heps"], [
        column("NODE", "/spec/node"),
        column("INTERFACE", "/spec/interfaceName"),
        column("IPS", "/spec/expectedIPs"),
    ];
    ClusterInformation, api::ClusterInformation, ["clusterinfo"], [
        column("GUID", "/spec/clusterGUID"),
        column("READY", "/spec/datastoreReady"),
    ];
    KubeControllersConfiguration, api::KubeControllersConfiguration, ["kcc"], [];
    NodeNetworkState, api::NodeNetworkState, ["nns"], [
        column("ASN", "/status/bgp/localAs"),
        column("ENDPOINTS", "/status/policy/localEndpoints"),
    ];
    BgpQuery, api::BgpQuery, [], [
        column("NODE", "/spec/node"),
        column("DESTINATION", "/spec/destination"),
        column("PEER", "/spec/peer"),
    ];
}

pub(crate) use with_kind;

impl Kind {
    /// Finds the kind that people mean: kind, plural, singular or short name, in any case.
    ///
    /// # Errors
    /// Names what exists when there is no such kind.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        let wanted = name.split('.').next().unwrap_or(name).to_ascii_lowercase();
        let group = name.split_once('.').map(|(_, group)| group);
        let fits = |kind: &&Self| {
            let info = kind.info();
            group.is_none_or(|group| group == info.group)
                && (info.plural == wanted
                    || info.kind.to_ascii_lowercase() == wanted
                    || kind.aliases().contains(&wanted.as_str()))
        };
        // `networkpolicy` means Calico's, as in calicoctl; the Kubernetes one is `networkpolicies.networking.k8s.io`.
        let found = Self::ALL
            .iter()
            .filter(fits)
            .max_by_key(|kind| kind.info().group == "projectcalico.org");
        found.copied().ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|kind| kind.info().plural).collect();
            anyhow::anyhow!("there is no kind '{name}'; there are {}", known.join(", "))
        })
    }

    /// Finds the kind of a manifest.
    ///
    /// # Errors
    /// Names apiVersion and kind when they are missing or not ours.
    pub fn of_manifest(object: &Value) -> anyhow::Result<Self> {
        let field = |name: &str| object.get(name).and_then(Value::as_str);
        let (Some(version), Some(kind)) = (field("apiVersion"), field("kind")) else {
            anyhow::bail!("apiVersion and kind must be given");
        };
        let fits = |candidate: &&Self| {
            let info = candidate.info();
            info.kind == kind && info.api_version() == version
        };
        Self::ALL.iter().find(fits).copied().ok_or_else(|| {
            anyhow::anyhow!(
                "kind {kind} of {version} is not one that voilectl handles; use kubectl"
            )
        })
    }
}

/// Shows what a pointer finds: strings bare, lists joined by commas, nothing as nothing.
#[must_use]
pub fn cell(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let texts: Vec<_> = items
                .iter()
                .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
                .collect();
            texts.join(",")
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_every_name_people_type() {
        for name in ["ippool", "IPPools", "ipp", "ippools.projectcalico.org"] {
            assert_eq!(Kind::find(name).unwrap(), Kind::IpPool, "{name}");
        }
        assert_eq!(Kind::find("networkpolicy").unwrap(), Kind::NetworkPolicy);
        let kubernetes = Kind::find("networkpolicies.networking.k8s.io").unwrap();
        assert_eq!(kubernetes, Kind::KubernetesNetworkPolicy);
        let error = Kind::find("ipool").unwrap_err().to_string();
        assert!(error.starts_with("there is no kind 'ipool'; there are nodes, pods"), "{error}");
    }

    #[test]
    fn names_are_not_ambiguous_within_a_group() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            for other in &Kind::ALL[index + 1..] {
                for alias in kind.aliases() {
                    assert!(!other.aliases().contains(alias), "{alias} is used twice");
                }
            }
        }
    }
}
