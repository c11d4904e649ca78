//! Groups of settings that Voile does not use but keeps.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::Toggle;
use super::felix_types::{
    BpfAttachType, BpfConnectTimeLoadBalancing, BpfConntrackLogLevel, BpfConntrackMode,
    BpfJitHardening, BpfOverlayHostSourceIp, IptablesBackend,
};
use crate::{
    net::Port,
    wire::{empty_as_none, null_as_default},
};

/// The eBPF data plane of Calico. Voile has none; the settings are kept for stock clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FelixBpf {
    /// Attach type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_attach_type: Option<BpfAttachType>,
    /// Ctlb log filter.
    #[serde(
        rename = "bpfCTLBLogFilter",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub bpf_ctlb_log_filter: Option<String>,
    /// Connect time load balancing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_connect_time_load_balancing: Option<BpfConnectTimeLoadBalancing>,
    /// Connect time load balancing enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_connect_time_load_balancing_enabled: Option<bool>,
    /// Conntrack log level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_conntrack_log_level: Option<BpfConntrackLogLevel>,
    /// Conntrack mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_conntrack_mode: Option<BpfConntrackMode>,
    /// Conntrack timeouts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_conntrack_timeouts: Option<BpfConntrackTimeouts>,
    /// Dsr optout cidrs.
    #[serde(
        rename = "bpfDSROptoutCIDRs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub bpf_dsr_optout_cidrs: Vec<String>,
    /// Data iface pattern.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub bpf_data_iface_pattern: Option<String>,
    /// Disable gro for ifaces.
    #[serde(
        rename = "bpfDisableGROForIfaces",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub bpf_disable_gro_for_ifaces: Option<String>,
    /// Disable unprivileged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_disable_unprivileged: Option<bool>,
    /// Enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_enabled: Option<bool>,
    /// Enforce rpf.
    #[serde(
        rename = "bpfEnforceRPF",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    #[schemars(regex(pattern = r"^(?i)(Disabled|Strict|Loose)?$"))]
    pub bpf_enforce_rpf: Option<String>,
    /// Exclude cidrs from nat.
    #[serde(
        rename = "bpfExcludeCIDRsFromNAT",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub bpf_exclude_cidrs_from_nat: Vec<String>,
    /// Export buffer size mb.
    #[serde(rename = "bpfExportBufferSizeMB", skip_serializing_if = "Option::is_none")]
    pub bpf_export_buffer_size_mb: Option<i32>,
    /// Ext to service connmark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_ext_to_service_connmark: Option<i32>,
    /// External service mode.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Tunnel|DSR)?$"))]
    pub bpf_external_service_mode: Option<String>,
    /// Force track packets from ifaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub bpf_force_track_packets_from_ifaces: Vec<String>,
    /// Host conntrack bypass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_host_conntrack_bypass: Option<bool>,
    /// Host networked nat without ctlb.
    #[serde(rename = "bpfHostNetworkedNATWithoutCTLB", skip_serializing_if = "Option::is_none")]
    pub bpf_host_networked_nat_without_ctlb: Option<Toggle>,
    /// Ip frag timeout.
    #[serde(
        rename = "bpfIPFragTimeout",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub bpf_ip_frag_timeout: Option<String>,
    /// Ip fragment reassembly enabled.
    #[serde(rename = "bpfIPFragmentReassemblyEnabled", skip_serializing_if = "Option::is_none")]
    pub bpf_ip_fragment_reassembly_enabled: Option<bool>,
    /// Jit hardening.
    #[serde(rename = "bpfJITHardening", skip_serializing_if = "Option::is_none")]
    pub bpf_jit_hardening: Option<BpfJitHardening>,
    /// Kube proxy healthz port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_kube_proxy_healthz_port: Option<i32>,
    /// Kube proxy iptables cleanup enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_kube_proxy_iptables_cleanup_enabled: Option<bool>,
    /// Kube proxy min sync period.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub bpf_kube_proxy_min_sync_period: Option<String>,
    /// L3 iface pattern.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub bpf_l3_iface_pattern: Option<String>,
    /// Log filters.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub bpf_log_filters: BTreeMap<String, String>,
    /// Log level.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Off|Info|Debug)?$"))]
    pub bpf_log_level: Option<String>,
    /// Maglev max endpoints per service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_maglev_max_endpoints_per_service: Option<i32>,
    /// Maglev max services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_maglev_max_services: Option<i32>,
    /// Map size conntrack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_conntrack: Option<i32>,
    /// Map size conntrack cleanup queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub bpf_map_size_conntrack_cleanup_queue: Option<i32>,
    /// Map size conntrack scaling.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Disabled|DoubleIfFull)?$"))]
    pub bpf_map_size_conntrack_scaling: Option<String>,
    /// Map size ip sets.
    #[serde(rename = "bpfMapSizeIPSets", skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_ip_sets: Option<i32>,
    /// Map size if state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_if_state: Option<i32>,
    /// Map size nat affinity.
    #[serde(rename = "bpfMapSizeNATAffinity", skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_nat_affinity: Option<i32>,
    /// Map size nat backend.
    #[serde(rename = "bpfMapSizeNATBackend", skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_nat_backend: Option<i32>,
    /// Map size nat frontend.
    #[serde(rename = "bpfMapSizeNATFrontend", skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_nat_frontend: Option<i32>,
    /// Map size per cpu conntrack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_per_cpu_conntrack: Option<i32>,
    /// Map size route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_route: Option<i32>,
    /// Overlay host source ip.
    #[serde(rename = "bpfOverlayHostSourceIP", skip_serializing_if = "Option::is_none")]
    pub bpf_overlay_host_source_ip: Option<BpfOverlayHostSourceIp>,
    /// Psnat ports.
    #[serde(rename = "bpfPSNATPorts", skip_serializing_if = "Option::is_none")]
    pub bpf_psnat_ports: Option<Port>,
    /// Policy debug enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_policy_debug_enabled: Option<bool>,
    /// Profiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_profiling: Option<Toggle>,
    /// Redirect to peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_redirect_to_peer: Option<Toggle>,
}

/// WireGuard between nodes. Voile has none yet; the settings are kept for stock clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FelixWireguard {
    /// Enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_enabled: Option<bool>,
    /// Enabled v6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_enabled_v6: Option<bool>,
    /// Host encryption enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_host_encryption_enabled: Option<bool>,
    /// Interface name.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub wireguard_interface_name: Option<String>,
    /// Interface name v6.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub wireguard_interface_name_v6: Option<String>,
    /// Keep alive.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub wireguard_keep_alive: Option<String>,
    /// Listening port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_listening_port: Option<i32>,
    /// Listening port v6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_listening_port_v6: Option<i32>,
    /// Mtu.
    #[serde(rename = "wireguardMTU", skip_serializing_if = "Option::is_none")]
    pub wireguard_mtu: Option<i32>,
    /// Mtu v6.
    #[serde(rename = "wireguardMTUV6", skip_serializing_if = "Option::is_none")]
    pub wireguard_mtu_v6: Option<i32>,
    /// Routing rule priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_routing_rule_priority: Option<i32>,
    /// Threading enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_threading_enabled: Option<bool>,
}

/// iptables data plane of Calico. Voile has none; the settings are kept for stock clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FelixIptables {
    /// Backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^(?i)(Auto|Legacy|NFT)?$"))]
    pub iptables_backend: Option<IptablesBackend>,
    /// Filter allow action.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Accept|Return)?$"))]
    pub iptables_filter_allow_action: Option<String>,
    /// Filter deny action.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Drop|Reject)?$"))]
    pub iptables_filter_deny_action: Option<String>,
    /// Lock probe interval.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub iptables_lock_probe_interval: Option<String>,
    /// Mangle allow action.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Accept|Return)?$"))]
    pub iptables_mangle_allow_action: Option<String>,
    /// Mark mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64), extend("x-voile-format" = "int64"))]
    pub iptables_mark_mask: Option<u32>,
    /// Nat outgoing interface filter.
    #[serde(
        rename = "iptablesNATOutgoingInterfaceFilter",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub iptables_nat_outgoing_interface_filter: Option<String>,
    /// Post write check interval.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub iptables_post_write_check_interval: Option<String>,
    /// Refresh interval.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub iptables_refresh_interval: Option<String>,
}

/// Debugging aids of Calico.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FelixDebug {
    /// Never drop log lines under load; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_disable_log_dropping: Option<bool>,
    /// Address of the debug server; default localhost.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub debug_host: Option<String>,
    /// File of a memory profile; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub debug_memory_profile_path: Option<String>,
    /// Port of the debug server; absent means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_port: Option<i32>,
    /// Test of the watchdog; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub debug_simulate_calc_graph_hang_after: Option<String>,
    /// Test of slow writes; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub debug_simulate_dataplane_apply_delay: Option<String>,
    /// Test of the watchdog; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub debug_simulate_dataplane_hang_after: Option<String>,
}

/// Timeouts of connection tracking; `Auto` means the kernel's.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BpfConntrackTimeouts {
    /// Creation grace period.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$"))]
    pub creation_grace_period: Option<String>,
    /// Generic timeout.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$"))]
    pub generic_timeout: Option<String>,
    /// Icmp timeout.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$"))]
    pub icmp_timeout: Option<String>,
    /// Tcp established.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$"))]
    pub tcp_established: Option<String>,
    /// Tcp fins seen.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$"))]
    pub tcp_fins_seen: Option<String>,
    /// Tcp reset seen.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$"))]
    pub tcp_reset_seen: Option<String>,
    /// Tcp syn sent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$"))]
    pub tcp_syn_sent: Option<String>,
    /// Udp timeout.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$"))]
    pub udp_timeout: Option<String>,
}
