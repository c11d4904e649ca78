//! What the API server checks beyond types: rules in CEL, and patterns too long for an attribute.
//!
//! Calico enforces the same conditions; the words are ours. Every text and list that a rule reads has a bound in the
//! schema, since the API server refuses rules that could cost too much.

use schemars::Schema;
use serde::Serialize;
use serde_json::{Value, json};

/// One entry of `x-kubernetes-validations`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Rule {
    /// Expression in CEL; true means fine.
    pub rule: &'static str,
    /// What to tell who breaks it.
    pub message: &'static str,
}

const fn rule(rule: &'static str, message: &'static str) -> Rule {
    Rule { rule, message }
}

macro_rules! u16_pattern {
    () => {
        "([0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
    };
}

macro_rules! u32_pattern {
    () => {
        concat!(
            "([0-9]|[1-9][0-9]{1,8}|[1-3][0-9]{9}|4[0-1][0-9]{8}|42[0-8][0-9]{7}|429[0-3][0-9]{6}|4294[0-8][0-9]{5}",
            "|42949[0-5][0-9]{4}|429496[0-6][0-9]{3}|4294967[0-1][0-9]{2}|42949672[0-8][0-9]|429496729[0-5])"
        )
    };
}

/// A community, `aa:nn` in 16 bits each or `aa:nn:mm` in 32 bits each.
pub(crate) const COMMUNITY: &str = concat!(
    "^(",
    u16_pattern!(),
    ":",
    u16_pattern!(),
    "|",
    u32_pattern!(),
    ":",
    u32_pattern!(),
    ":",
    u32_pattern!(),
    ")$"
);

/// The type of a condition: a word, perhaps with a DNS prefix.
pub(crate) const CONDITION_TYPE: &str = concat!(
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?",
    "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
);

/// Items of a list of communities.
pub(crate) fn community_items() -> Value {
    json!({"type": "string", "maxLength": 32, "pattern": COMMUNITY})
}

/// An AS number. Calico's schema says `int32`, which makes the API server refuse half of the four-octet numbers, the
/// private ones of RFC 6996 among them; a wider format takes all that a stock client writes.
pub(crate) fn as_number() -> Value {
    json!({"type": "integer", "x-voile-format": "int64", "minimum": 0, "maximum": 4_294_967_295_i64})
}

pub(crate) const POOL_CIDR: &[Rule] = &[rule(
    "self == oldSelf",
    "cidr can't be changed: make a new pool, disable this one and move the pods",
)];

pub(crate) const IMMUTABLE_BLOCK_SIZE: &[Rule] = &[rule(
    "self == oldSelf",
    "blockSize can't be changed: make a new pool with another block size",
)];

pub(crate) const IP_POOL: &[Rule] = &[
    rule("isCIDR(self.cidr)", "cidr must be an address and a prefix length, such as 10.244.0.0/16"),
    rule(
        "!isCIDR(self.cidr) || cidr(self.cidr) == cidr(self.cidr).masked()",
        "cidr has bits set after its prefix length: write the network's own address",
    ),
    rule(
        "!isCIDR(self.cidr) || !cidr(self.cidr).ip().isLinkLocalUnicast()",
        "cidr must not be link-local: addresses of pods must be routable",
    ),
    rule(
        "!has(self.ipipMode) || self.ipipMode == 'Never' || !has(self.vxlanMode) || self.vxlanMode == 'Never'",
        "ipipMode and vxlanMode exclude each other: set one of them to Never",
    ),
    rule(
        "!has(self.ipipMode) || self.ipipMode == 'Never' || !isCIDR(self.cidr) || cidr(self.cidr).ip().family() == 4",
        "ipipMode must be Never for an IPv6 pool",
    ),
    rule(
        "!has(self.blockSize) || !isCIDR(self.cidr) || cidr(self.cidr).ip().family() == 6 \
         || (self.blockSize >= 20 && self.blockSize <= 32)",
        "blockSize of an IPv4 pool must be from 20 to 32",
    ),
    rule(
        "!has(self.blockSize) || !isCIDR(self.cidr) || cidr(self.cidr).ip().family() == 4 \
         || (self.blockSize >= 116 && self.blockSize <= 128)",
        "blockSize of an IPv6 pool must be from 116 to 128",
    ),
    rule(
        "!has(self.blockSize) || !isCIDR(self.cidr) || cidr(self.cidr).prefixLength() <= self.blockSize",
        "the pool is smaller than one block: shorten cidr's prefix or raise blockSize",
    ),
    rule(
        "has(self.blockSize) || !isCIDR(self.cidr) \
         || cidr(self.cidr).prefixLength() <= (cidr(self.cidr).ip().family() == 4 ? 26 : 122)",
        "the pool is smaller than one block of the default size (26, or 122 for IPv6): set blockSize",
    ),
    rule(
        "!has(oldSelf.blockSize) || has(self.blockSize)",
        "blockSize can't be removed: make a new pool with another block size",
    ),
    rule(
        "!has(self.allowedUses) || !('LoadBalancer' in self.allowedUses) || self.allowedUses.size() == 1",
        "allowedUses LoadBalancer can't be combined with other uses: make a pool of its own",
    ),
    rule(
        "!has(self.allowedUses) || !('LoadBalancer' in self.allowedUses) \
         || ((!has(self.ipipMode) || self.ipipMode == 'Never') && (!has(self.vxlanMode) || self.vxlanMode == 'Never'))",
        "a pool for load balancers can't have ipipMode or vxlanMode",
    ),
    rule(
        "!has(self.allowedUses) || !('LoadBalancer' in self.allowedUses) || !has(self.disableBGPExport) || !self.disableBGPExport",
        "a pool for load balancers can't have disableBGPExport: its addresses are reached by BGP",
    ),
    rule(
        "!has(self.allowedUses) || !('LoadBalancer' in self.allowedUses) || !has(self.nodeSelector) \
         || self.nodeSelector == '' || self.nodeSelector == 'all()'",
        "a pool for load balancers belongs to no node: nodeSelector must be all()",
    ),
];

pub(crate) const BGP_CONFIGURATION: &[Rule] = &[
    rule(
        "!has(self.nodeMeshPassword) || !has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled",
        "nodeMeshPassword needs the mesh: remove it or set nodeToNodeMeshEnabled",
    ),
    rule(
        "!has(self.nodeMeshMaxRestartTime) || !has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled",
        "nodeMeshMaxRestartTime needs the mesh: remove it or set nodeToNodeMeshEnabled",
    ),
    rule(
        "!has(self.communities) || self.communities.size() == 0 \
         || (has(self.prefixAdvertisements) && self.prefixAdvertisements.size() > 0)",
        "communities only name values for prefixAdvertisements: add one or remove communities",
    ),
];

pub(crate) const BGP_PEER: &[Rule] = &[
    rule(
        "!has(self.node) || self.node == '' || !has(self.nodeSelector) || self.nodeSelector == ''",
        "node and nodeSelector exclude each other: remove one",
    ),
    rule(
        "!has(self.peerIP) || self.peerIP == '' || !has(self.peerSelector) || self.peerSelector == ''",
        "peerIP and peerSelector exclude each other: remove one",
    ),
    rule(
        "!has(self.asNumber) || self.asNumber == 0 || !has(self.peerSelector) || self.peerSelector == ''",
        "asNumber comes from the selected nodes: remove it or peerSelector",
    ),
    rule(
        "!has(self.peerIP) || self.peerIP == '' || (has(self.asNumber) && self.asNumber != 0)",
        "peerIP needs asNumber, the AS number of the peer",
    ),
    rule(
        "!has(self.reachableBy) || self.reachableBy == '' || (has(self.peerIP) && self.peerIP != '')",
        "reachableBy is the gateway to peerIP: add peerIP or remove it",
    ),
    rule(
        "!has(self.keepOriginalNextHop) || !self.keepOriginalNextHop || !has(self.nextHopMode)",
        "keepOriginalNextHop is the old form of nextHopMode Keep: use nextHopMode alone",
    ),
    rule(
        "!has(self.localWorkloadSelector) || self.localWorkloadSelector == '' \
         || ((!has(self.peerIP) || self.peerIP == '') && (!has(self.peerSelector) || self.peerSelector == ''))",
        "localWorkloadSelector excludes peerIP and peerSelector: make another BGPPeer for those",
    ),
    rule(
        "!has(self.localWorkloadSelector) || self.localWorkloadSelector == '' || (has(self.asNumber) && self.asNumber != 0)",
        "localWorkloadSelector needs asNumber, the AS number of the pods",
    ),
];

pub(crate) const BGP_FILTER_RULE: &[Rule] = &[
    rule(
        "has(self.cidr) == has(self.matchOperator)",
        "cidr and matchOperator need each other: add the missing one",
    ),
    rule("!has(self.prefixLength) || has(self.cidr)", "prefixLength needs cidr"),
    rule(
        "!has(self.operations) || self.action == 'Accept'",
        "operations change accepted routes only: set action to Accept",
    ),
];

pub(crate) const HOST_ENDPOINT: &[Rule] = &[
    rule(
        "has(self.node) && self.node != ''",
        "node must be the name of the node the interface is on",
    ),
    rule(
        "(has(self.interfaceName) && self.interfaceName != '') || (has(self.expectedIPs) && self.expectedIPs.size() > 0)",
        "interfaceName or expectedIPs must say which interface is meant",
    ),
];

pub(crate) const FELIX_CONFIGURATION: &[Rule] = &[
    rule(
        "!has(self.routeTableRange) || !has(self.routeTableRanges)",
        "routeTableRange is the old form of routeTableRanges: use routeTableRanges alone",
    ),
    rule(
        "!has(self.natOutgoingAddress) || self.natOutgoingAddress == '' \
         || (isIP(self.natOutgoingAddress) && ip(self.natOutgoingAddress).family() == 4)",
        "natOutgoingAddress must be an IPv4 address",
    ),
    rule(
        "!has(self.deviceRouteSourceAddress) || self.deviceRouteSourceAddress == '' \
         || (isIP(self.deviceRouteSourceAddress) && ip(self.deviceRouteSourceAddress).family() == 4)",
        "deviceRouteSourceAddress must be an IPv4 address",
    ),
    rule(
        "!has(self.deviceRouteSourceAddressIPv6) || self.deviceRouteSourceAddressIPv6 == '' \
         || (isIP(self.deviceRouteSourceAddressIPv6) && ip(self.deviceRouteSourceAddressIPv6).family() == 6)",
        "deviceRouteSourceAddressIPv6 must be an IPv6 address",
    ),
];

pub(crate) const ROUTE_TABLE_RANGE: &[Rule] = &[
    rule(
        "self.min >= 1 && self.max <= 4294967295",
        "routing tables are numbered from 1 to 4294967295",
    ),
    rule("self.min <= self.max", "max must not be below min"),
];

const NO_GLOBAL_SELECTOR: Rule = rule(
    "!has(self.selector) || !self.selector.contains('global()')",
    "global() is for the namespaceSelector of a rule only",
);
const NO_GLOBAL_ACCOUNT: Rule = rule(
    "!has(self.serviceAccountSelector) || !self.serviceAccountSelector.contains('global()')",
    "global() is for the namespaceSelector of a rule only",
);

pub(crate) const NETWORK_POLICY: &[Rule] = &[NO_GLOBAL_SELECTOR, NO_GLOBAL_ACCOUNT];

pub(crate) const GLOBAL_NETWORK_POLICY: &[Rule] = &[
    NO_GLOBAL_SELECTOR,
    NO_GLOBAL_ACCOUNT,
    rule(
        "!has(self.namespaceSelector) || !self.namespaceSelector.contains('global()')",
        "global() is for the namespaceSelector of a rule only",
    ),
    rule(
        "!has(self.doNotTrack) || !self.doNotTrack || !has(self.preDNAT) || !self.preDNAT",
        "doNotTrack and preDNAT exclude each other: make two policies",
    ),
    rule(
        "!has(self.preDNAT) || !self.preDNAT || ((!has(self.egress) || self.egress.size() == 0) \
         && (!has(self.types) || !('Egress' in self.types)))",
        "preDNAT is for ingress only: remove egress and the type Egress",
    ),
    rule(
        "!has(self.preDNAT) || !self.preDNAT || (has(self.applyOnForward) && self.applyOnForward)",
        "preDNAT needs applyOnForward: true",
    ),
    rule(
        "!has(self.doNotTrack) || !self.doNotTrack || (has(self.applyOnForward) && self.applyOnForward)",
        "doNotTrack needs applyOnForward: true",
    ),
];

const PORTS_NEED_PROTOCOL: &str =
    "ports need a protocol that has them: set protocol to TCP, UDP or SCTP";

pub(crate) const RULE: &[Rule] = &[
    rule(
        "!has(self.http) || self.action == 'Allow'",
        "http can only be allowed: set action to Allow",
    ),
    rule(
        "!has(self.http) || !has(self.protocol) || self.protocol == 'TCP' || self.protocol == 6",
        "http runs on TCP: set protocol to TCP",
    ),
    rule("!has(self.icmp) || has(self.protocol)", "icmp needs protocol ICMP or ICMPv6"),
    rule("!has(self.notICMP) || has(self.protocol)", "notICMP needs protocol ICMP or ICMPv6"),
    rule(
        "!has(self.source) || !has(self.source.ports) || self.source.ports.size() == 0 || has(self.protocol)",
        PORTS_NEED_PROTOCOL,
    ),
    rule(
        "!has(self.source) || !has(self.source.notPorts) || self.source.notPorts.size() == 0 || has(self.protocol)",
        PORTS_NEED_PROTOCOL,
    ),
    rule(
        "!has(self.destination) || !has(self.destination.ports) || self.destination.ports.size() == 0 || has(self.protocol)",
        PORTS_NEED_PROTOCOL,
    ),
    rule(
        "!has(self.destination) || !has(self.destination.notPorts) || self.destination.notPorts.size() == 0 \
         || has(self.protocol)",
        PORTS_NEED_PROTOCOL,
    ),
];

pub(crate) const ENTITY_RULE: &[Rule] = &[
    rule(
        "!has(self.services) || (has(self.services.name) && self.services.name != '')",
        "services needs the name of a service",
    ),
    rule(
        "!has(self.services) || ((!has(self.ports) || self.ports.size() == 0) && (!has(self.notPorts) || self.notPorts.size() == 0))",
        "services brings its own ports: remove ports and notPorts",
    ),
    rule(
        "!has(self.services) || ((!has(self.nets) || self.nets.size() == 0) && (!has(self.notNets) || self.notNets.size() == 0))",
        "services brings its own addresses: remove nets and notNets",
    ),
    rule(
        "!has(self.services) || ((!has(self.selector) || self.selector == '') && (!has(self.notSelector) || self.notSelector == ''))",
        "services brings its own addresses: remove selector and notSelector",
    ),
    rule(
        "!has(self.services) || !has(self.namespaceSelector) || self.namespaceSelector == ''",
        "services has a namespace of its own: remove namespaceSelector",
    ),
    rule(
        "!has(self.services) || !has(self.serviceAccounts)",
        "services brings its own addresses: remove serviceAccounts",
    ),
];

pub(crate) const ICMP: &[Rule] =
    &[rule("!has(self.code) || has(self.type)", "an ICMP code needs its type")];

/// Rules on the whole object of a Tier: what the built-in ones must look like.
pub(crate) const TIER: &[Rule] = &[
    rule(
        "self.spec.defaultAction == 'Deny' || self.spec.defaultAction == 'Pass'",
        "spec.defaultAction must be Deny or Pass",
    ),
    rule(
        "self.metadata.name != 'default' || (has(self.spec.order) && self.spec.order == 1000000.0 \
         && self.spec.defaultAction == 'Deny')",
        "the tier default must have order 1000000 and defaultAction Deny",
    ),
    rule(
        "self.metadata.name != 'kube-admin' || (has(self.spec.order) && self.spec.order == 1000.0 \
         && self.spec.defaultAction == 'Pass')",
        "the tier kube-admin must have order 1000 and defaultAction Pass",
    ),
    rule(
        "self.metadata.name != 'kube-baseline' || (has(self.spec.order) && self.spec.order == 10000000.0 \
         && self.spec.defaultAction == 'Pass')",
        "the tier kube-baseline must have order 10000000 and defaultAction Pass",
    ),
];

/// Bounds of the IPv4 rules of a BGPFilter.
pub(crate) fn ipv4_filter(schema: &mut Schema) {
    bound_filter(schema, 18, 32);
}

/// Bounds of the IPv6 rules of a BGPFilter.
pub(crate) fn ipv6_filter(schema: &mut Schema) {
    bound_filter(schema, 43, 128);
}

fn bound_filter(schema: &mut Schema, text: u64, bits: u64) {
    let Some(properties) = schema.pointer_mut("/items/properties").and_then(Value::as_object_mut)
    else {
        return;
    };
    if let Some(cidr) = properties.get_mut("cidr").and_then(Value::as_object_mut) {
        cidr.insert("maxLength".to_owned(), text.into());
    }
    // An optional struct is `anyOf: [struct, null]` at this point.
    for at in ["/prefixLength/properties", "/prefixLength/anyOf/0/properties"] {
        let ends = properties_at(properties, at);
        for end in
            ends.into_iter().flat_map(|ends| ends.values_mut()).filter_map(Value::as_object_mut)
        {
            end.insert("minimum".to_owned(), 0.into());
            end.insert("maximum".to_owned(), bits.into());
            end.insert("x-voile-format".to_owned(), "int32".into());
        }
    }
}

fn properties_at<'a>(
    properties: &'a mut serde_json::Map<String, Value>,
    pointer: &str,
) -> Option<&'a mut serde_json::Map<String, Value>> {
    let (first, rest) = pointer.strip_prefix('/')?.split_once('/')?;
    properties.get_mut(first)?.pointer_mut(&format!("/{rest}"))?.as_object_mut()
}
