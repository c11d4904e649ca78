//! Settings of the node's data plane: 188 of them in Calico, all kept; what Voile does not use says so.
//!
//! Absent means the default. Durations are texts such as `90s`. Names: `default`, `node.<node>`, or any with `node_selector`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ProgramClusterRoutes, Toggle};
use super::felix_types::{
    AwsSrcDstCheck, FailsafePort, FlowLogsPolicyEvaluationMode, HealthTimeoutOverride,
    LocalSubnetL2Reachability, MetricsClientAuth, NatOutgoingExclusions, NftablesFlowTableOffload,
    NftablesMode, RouteTableRange,
};
use crate::{
    kind::kind,
    net::{IntOrString, Port},
    wire::{empty_as_none, null_as_default},
};

kind!(
    /// Settings of the data plane of all nodes, of one (`node.<node>`), or of those selected.
    FelixConfiguration, FelixConfigurationSpec, crate::NoStatus, "projectcalico.org", "v3", "FelixConfiguration", "felixconfigurations", Cluster
);

/// Settings; absent means the default.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = crate::crd::rules::FELIX_CONFIGURATION))]
pub struct FelixConfigurationSpec {
    /// Let pods send IP-in-IP; default false.
    #[serde(rename = "allowIPIPPacketsFromWorkloads", skip_serializing_if = "Option::is_none")]
    pub allow_ipip_packets_from_workloads: Option<bool>,
    /// Let pods send VXLAN; default false.
    #[serde(rename = "allowVXLANPacketsFromWorkloads", skip_serializing_if = "Option::is_none")]
    pub allow_vxlan_packets_from_workloads: Option<bool>,
    /// Set the source/destination check of the AWS interface; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws_src_dst_check: Option<AwsSrcDstCheck>,
    /// Where the cgroup file system is; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub cgroup_v2_path: Option<String>,
    /// Calico's place in the kernel chains; not used: Voile has a table of its own.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Insert|Append)?$"))]
    pub chain_insert_mode: Option<String>,
    /// External data plane program; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub dataplane_driver: Option<String>,
    /// A data plane loop silent for so long is unhealthy; default 90s.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub dataplane_watchdog_timeout: Option<String>,
    /// What becomes of traffic from pods to their own node: `Drop` (default), `Accept`, or `Return` to the host's own rules.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Drop|Accept|Return)?$"))]
    pub default_endpoint_to_host_action: Option<String>,
    /// Protocol number of routes to local pods; Voile uses 80 always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_route_protocol: Option<i32>,
    /// Source address in routes to local pods.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 45))]
    pub device_route_source_address: Option<String>,
    /// IPv6 source address in routes to local pods.
    #[serde(
        rename = "deviceRouteSourceAddressIPv6",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    #[schemars(length(max = 45))]
    pub device_route_source_address_ipv6: Option<String>,
    /// Keep packets that connection tracking calls invalid; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_conntrack_invalid_check: Option<bool>,
    /// Wait before reporting an endpoint; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub endpoint_reporting_delay: Option<String>,
    /// Report endpoints to the datastore; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_reporting_enabled: Option<bool>,
    /// Folder for files that a CNI plugin waits on; not used: Voile's plugin asks the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub endpoint_status_path_prefix: Option<String>,
    /// Other hosts that may send IP-in-IP; not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub external_nodes_list: Vec<String>,
    /// Ports of host endpoints that are always open; absent means SSH, DHCP, BGP, etcd, Typha and the API server.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub failsafe_inbound_host_ports: Vec<FailsafePort>,
    /// Ports that host endpoints may always reach; absent means DNS, DHCP, BGP, etcd, Typha and the API server.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub failsafe_outbound_host_ports: Vec<FailsafePort>,
    /// Force detected features; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(
        pattern = r"^([a-zA-Z0-9-_]+=(true|false|),)*([a-zA-Z0-9-_]+=(true|false|))?$"
    ))]
    pub feature_detect_override: Option<String>,
    /// Switch experimental features; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([a-zA-Z0-9-_]+=([^=]+),)*([a-zA-Z0-9-_]+=([^=]+))?$"))]
    pub feature_gates: Option<String>,
    /// Honour the floating address annotation; default `Disabled`.
    #[serde(rename = "floatingIPs", skip_serializing_if = "Option::is_none")]
    pub floating_ips: Option<Toggle>,
    /// Trace of flow logs; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_logs_collector_debug_trace: Option<bool>,
    /// Interval of flow logs; default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub flow_logs_flush_interval: Option<String>,
    /// Where flow logs go; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub flow_logs_goldmane_server: Option<String>,
    /// Serve flow logs on a local socket; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_logs_local_reporter: Option<Toggle>,
    /// Evaluate staged policies on flows; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_logs_policy_evaluation_mode: Option<FlowLogsPolicyEvaluationMode>,
    /// XDP without driver support; not used.
    #[serde(rename = "genericXDPEnabled", skip_serializing_if = "Option::is_none")]
    pub generic_xdp_enabled: Option<bool>,
    /// Go runtime; not used.
    #[serde(rename = "goGCThreshold", skip_serializing_if = "Option::is_none")]
    pub go_gc_threshold: Option<i32>,
    /// Go runtime; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go_max_procs: Option<i32>,
    /// Go runtime; not used.
    #[serde(rename = "goMemoryLimitMB", skip_serializing_if = "Option::is_none")]
    pub go_memory_limit_mb: Option<i32>,
    /// Serve liveness and readiness; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_enabled: Option<bool>,
    /// Address of the health server; default localhost.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub health_host: Option<String>,
    /// Port of the health server; default 9099.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_port: Option<i32>,
    /// Other timeouts for parts of the watchdog.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub health_timeout_overrides: Vec<HealthTimeoutOverride>,
    /// Interfaces left out of host endpoints; default `kube-ipvs0`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub interface_exclude: Option<String>,
    /// Prefix of pod interfaces on the host; default `cali`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub interface_prefix: Option<String>,
    /// Interval of full reads of interfaces; default 90s. Voile gets events and reads too.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub interface_refresh_interval: Option<String>,
    /// Whether to switch on forwarding; default `Enabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_forwarding: Option<Toggle>,
    /// Whether to make the tunnel device; absent means if a pool needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipip_enabled: Option<bool>,
    /// MTU of the IP-in-IP device; 0 means detect.
    #[serde(rename = "ipipMTU", skip_serializing_if = "Option::is_none")]
    pub ipip_mtu: Option<i32>,
    /// Interval of full reads of IP sets; not used: the sets are part of the table.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub ipsets_refresh_interval: Option<String>,
    /// Kernel metric during live migration; default 512.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_elevated_route_priority: Option<i32>,
    /// Kernel metric of routes; default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_normal_route_priority: Option<i32>,
    /// IPv6 kernel metric during live migration; default 512.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_elevated_route_priority: Option<i32>,
    /// IPv6 kernel metric of routes; default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_normal_route_priority: Option<i32>,
    /// Whether IPv6 is handled; default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_support: Option<bool>,
    /// Work together with Istio's ambient mode; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub istio_ambient_mode: Option<Toggle>,
    /// DSCP of ambient traffic; not used.
    #[serde(rename = "istioDSCPMark", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^.*"))]
    pub istio_dscp_mark: Option<IntOrString>,
    /// Ranges of node ports; default 30000:32767.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(length(max = 7))]
    pub kube_node_port_ranges: Vec<Port>,
    /// How long a migrated machine keeps its elevated priority.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))*$"))]
    pub live_migration_route_convergence_time: Option<String>,
    /// Answer ARP and NDP for pods and load balancers; default `Disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_subnet_l2_reachability: Option<LocalSubnetL2Reachability>,
    /// Interval of its full checks.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub local_subnet_l2_reachability_refresh_interval: Option<String>,
    /// Rate of the `Log` action, such as `100/second`; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^[1-9]\d{0,3}/(?:second|minute|hour|day)$"))]
    pub log_action_rate_limit: Option<String>,
    /// Burst of the `Log` action.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9999))]
    pub log_action_rate_limit_burst: Option<i32>,
    /// Debug logs of some files only; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub log_debug_filename_regex: Option<String>,
    /// Log file; not used: logs go to standard error.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub log_file_path: Option<String>,
    /// Prefix of `Log` lines; default `calico-packet`. `%t`, `%k`, `%n`, `%p` stand for tier, kind, name and policy.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([a-zA-Z0-9%: /_-])*$"))]
    pub log_prefix: Option<String>,
    /// Level of the log file; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Trace|Debug|Info|Warning|Error|Fatal)?$"))]
    pub log_severity_file: Option<String>,
    /// Level of logs; default `Info`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Trace|Debug|Info|Warning|Error|Fatal)?$"))]
    pub log_severity_screen: Option<String>,
    /// Level of syslog; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Trace|Debug|Info|Warning|Error|Fatal)?$"))]
    pub log_severity_sys: Option<String>,
    /// Members of an IP set; not used: nftables sets grow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ipset_size: Option<i32>,
    /// OpenStack metadata server; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub metadata_addr: Option<String>,
    /// OpenStack metadata port; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_port: Option<i32>,
    /// Interfaces whose smallest MTU counts for pods, a regular expression.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub mtu_iface_pattern: Option<String>,
    /// Source address of outgoing NAT; absent means masquerade.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 45))]
    pub nat_outgoing_address: Option<String>,
    /// What outgoing NAT leaves alone; default `IPPoolsOnly`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_outgoing_exclusions: Option<NatOutgoingExclusions>,
    /// Source ports of outgoing NAT; absent means the kernel's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_port_range: Option<Port>,
    /// Wait for the kernel; default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub netlink_timeout: Option<String>,
    /// After `Allow`: `Accept` (default) or `Return`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Accept|Return)?$"))]
    pub nftables_filter_allow_action: Option<String>,
    /// How `Deny` is done: `Drop` (default) or `Reject`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Drop|Reject)?$"))]
    pub nftables_filter_deny_action: Option<String>,
    /// Interfaces in the flow table, a regular expression.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub nftables_flow_table_data_iface_pattern: Option<String>,
    /// Forward established flows by the kernel's fast path.
    #[serde(default)]
    pub nftables_flow_table_offload: NftablesFlowTableOffload,
    /// After `Allow` before NAT: `Accept` (default) or `Return`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Accept|Return)?$"))]
    pub nftables_mangle_allow_action: Option<String>,
    /// Packet mark bits that may be used; default 0xffff0000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64), extend("x-voile-format" = "int64"))]
    pub nftables_mark_mask: Option<u32>,
    /// Whether nftables is used; Voile does always.
    #[serde(default)]
    pub nftables_mode: NftablesMode,
    /// Interval of full reads of the table; default 180s. Voile is told of foreign changes at once.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub nftables_refresh_interval: Option<String>,
    /// Nodes these settings apply to.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(length(max = 1024))]
    pub node_selector: Option<String>,
    /// OpenStack region; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub openstack_region: Option<String>,
    /// Folder of the policy sync socket; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub policy_sync_path_prefix: Option<String>,
    /// Which routes to other nodes' blocks the data plane writes; default `EnabledIPIPOnly`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_cluster_routes: Option<ProgramClusterRoutes>,
    /// Go runtime metrics; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_go_metrics_enabled: Option<bool>,
    /// CA of clients that read metrics.
    #[serde(
        rename = "prometheusMetricsCAFile",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub prometheus_metrics_ca_file: Option<String>,
    /// Certificate of the metrics server.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub prometheus_metrics_cert_file: Option<String>,
    /// Whether clients need a certificate; default `RequireAndVerifyClientCert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_metrics_client_auth: Option<MetricsClientAuth>,
    /// Serve metrics; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_metrics_enabled: Option<bool>,
    /// Address of the metrics server; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub prometheus_metrics_host: Option<String>,
    /// Key of the metrics server.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    pub prometheus_metrics_key_file: Option<String>,
    /// Port of the metrics server; default 9091.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_metrics_port: Option<i32>,
    /// Process metrics; default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_process_metrics_enabled: Option<bool>,
    /// WireGuard metrics; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_wire_guard_metrics_enabled: Option<bool>,
    /// Remove foreign routes on pod interfaces; default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_external_routes: Option<bool>,
    /// Interval of status reports (etcd only); not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub reporting_interval: Option<String>,
    /// Lifetime of status reports (etcd only); not used.
    #[serde(
        rename = "reportingTTL",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub reporting_ttl: Option<String>,
    /// Fail when no MTU file can be read; not used.
    #[serde(rename = "requireMTUFile", skip_serializing_if = "Option::is_none")]
    pub require_mtu_file: Option<bool>,
    /// Interval of full reads of routes; default 90s.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub route_refresh_interval: Option<String>,
    /// Where routes come from: `CalicoIPAM` (default) or `WorkloadIPs`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(WorkloadIPs|CalicoIPAM)?$"))]
    pub route_source: Option<String>,
    /// Write no routes at all; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_sync_disabled: Option<bool>,
    /// Deprecated: see `route_table_ranges`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_table_range: Option<RouteTableRange>,
    /// Kernel routing tables that may be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub route_table_ranges: Vec<RouteTableRange>,
    /// What becomes of packets to service addresses that nobody serves: `Drop` (default), `Reject` or `Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Drop|Reject|Disabled)?$"))]
    pub service_loop_prevention: Option<String>,
    /// Short-cut of sidecars; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sidecar_acceleration_enabled: Option<bool>,
    /// Report usage to the vendor; Voile never does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_reporting_enabled: Option<bool>,
    /// Wait before usage reports; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub usage_reporting_initial_delay: Option<String>,
    /// Interval of usage reports; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub usage_reporting_interval: Option<String>,
    /// Built-in data plane; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_internal_dataplane_driver: Option<bool>,
    /// Whether to make the VXLAN device; absent means if a pool needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan_enabled: Option<bool>,
    /// MTU of the VXLAN device; 0 means detect.
    #[serde(rename = "vxlanMTU", skip_serializing_if = "Option::is_none")]
    pub vxlan_mtu: Option<i32>,
    /// MTU of the IPv6 VXLAN device; 0 means detect.
    #[serde(rename = "vxlanMTUV6", skip_serializing_if = "Option::is_none")]
    pub vxlan_mtu_v6: Option<i32>,
    /// UDP port of VXLAN; default 4789.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan_port: Option<i32>,
    /// VXLAN network identifier; default 4096.
    #[serde(rename = "vxlanVNI", skip_serializing_if = "Option::is_none")]
    pub vxlan_vni: Option<i32>,
    /// Windows firewall; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows_manage_firewall_rules: Option<Toggle>,
    /// Whether pods may ask for foreign source addresses by annotation: `Disabled` (default) or `Any`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^(?i)(Disabled|Any)?$"))]
    pub workload_source_spoofing: Option<String>,
    /// Fast drops by XDP; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp_enabled: Option<bool>,
    /// Interval of full reads of XDP; not used.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_as_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\\.[0-9]+)?(ms|s|m|h))*$"))]
    pub xdp_refresh_interval: Option<String>,
    /// The eBPF data plane of Calico. Voile has none; the settings are kept for stock clients.
    #[serde(flatten)]
    pub bpf: super::felix_groups::FelixBpf,
    /// WireGuard between nodes. Voile has none yet; the settings are kept for stock clients.
    #[serde(flatten)]
    pub wireguard: super::felix_groups::FelixWireguard,
    /// iptables data plane of Calico. Voile has none; the settings are kept for stock clients.
    #[serde(flatten)]
    pub iptables: super::felix_groups::FelixIptables,
    /// Debugging aids of Calico.
    #[serde(flatten)]
    pub debug: super::felix_groups::FelixDebug,
}
