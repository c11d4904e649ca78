//! Who this node peers with, and why: from BGPConfiguration, BGPPeers and Nodes. Pure.
//!
//! Rules follow Calico's confd (`confd/pkg/backends/calico/bgp_processor.go`): the mesh among nodes without a
//! route-reflector cluster id, BGPPeers by node, by selector or for all, and the reverse direction of selector peerings.

mod annotations;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use api::{BgpConfigurationSpec, BgpPeer, BgpPeerSpec, Node, Resource as _, Selector};
use bgp::config::Blackhole;
use ipnet::IpNet;

/// What the cluster says about BGP.
#[derive(Clone, Debug, Default)]
pub(crate) struct BgpView {
    /// BGPConfiguration `default`, if there is one.
    pub(crate) default: Option<BgpConfigurationSpec>,
    /// The annotations of it.
    pub(crate) annotations: BTreeMap<String, String>,
    /// BGPPeers by name.
    pub(crate) peers: BTreeMap<String, BgpPeer>,
    /// Nodes by name.
    pub(crate) nodes: BTreeMap<String, Node>,
    /// BGPFilters by name.
    pub(crate) filters: BTreeMap<String, api::BgpFilterSpec>,
    /// Pools by name.
    pub(crate) pools: BTreeMap<String, api::IpPoolSpec>,
    /// Passwords by `<secret name>/<key>`, as far as they are known.
    pub(crate) passwords: BTreeMap<String, String>,
    /// Networks that the interfaces of this node are on.
    pub(crate) links: BTreeMap<String, Vec<bgp::Prefix>>,
}

/// Where a peering comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    /// The full mesh.
    Mesh,
    /// A BGPPeer for some nodes.
    Node,
    /// A BGPPeer for all nodes.
    Global,
}

/// One session to have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Peering {
    /// Name shown to people: the BGPPeer's, or the node's in the mesh; see [`name`].
    pub(crate) name: String,
    /// Where it comes from.
    pub(crate) origin: Origin,
    /// BGPPeer that asks for it.
    pub(crate) resource: Option<String>,
    /// Address of the peer.
    pub(crate) address: IpAddr,
    /// Port of the peer.
    pub(crate) port: u16,
    /// AS of the peer.
    pub(crate) peer_as: u32,
    /// Our AS towards the peer.
    pub(crate) local_as: u32,
    /// Address to connect from.
    pub(crate) source: Option<IpAddr>,
    /// Router that the node reaches the peer by, if nothing else says so.
    pub(crate) reachable_by: Option<IpAddr>,
    /// Wait for the peer to connect.
    pub(crate) passive: bool,
    /// TCP MD5 password.
    pub(crate) password: Option<String>,
    /// Our clients, when we reflect.
    pub(crate) route_reflector_client: bool,
    /// How often our own AS may be in a path.
    pub(crate) allow_own_as: u8,
    /// GTSM: hops that the peer may be away.
    pub(crate) ttl_security: Option<u8>,
    /// Seconds a peer keeps our routes while we restart.
    pub(crate) restart_seconds: Option<u16>,
    /// Seconds between keepalives.
    pub(crate) keepalive_seconds: Option<u16>,
    /// Filters by name.
    pub(crate) filters: Vec<String>,
    /// Which routes with BLACKHOLE are honoured (RFC 7999): none in the mesh, where nobody means the other nodes.
    pub(crate) blackhole: Blackhole,
    /// Whether and how BFD watches the path.
    pub(crate) bfd: Option<bgp::bfd::Config>,
    /// Keep next hops as they are towards this peer.
    pub(crate) next_hop_keep: bool,
    /// Always set our own next hop towards this peer.
    pub(crate) next_hop_self: bool,
}

/// Something that cannot be used, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Problem {
    /// What has it.
    pub(crate) of: Subject,
    /// Why, in words.
    pub(crate) reason: String,
}

/// What a problem is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Subject {
    /// A BGPPeer by name.
    BgpPeer(String),
    /// The full mesh, by BGPConfiguration `default`.
    Mesh,
    /// Anything else: the reason says what.
    Other,
}

impl Problem {
    pub(crate) fn new(of: Subject, reason: impl Into<String>) -> Self {
        Self { of, reason: reason.into() }
    }

    /// Whether it is the reason that a session cannot be made.
    pub(crate) fn prevents(&self, peering: &Peering) -> bool {
        self.of == peering.subject()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.of {
            Subject::BgpPeer(name) => write!(f, "BGPPeer {name}: ")?,
            Subject::Mesh => f.write_str("BGPConfiguration default: ")?,
            Subject::Other => {}
        }
        f.write_str(&self.reason)
    }
}

impl Peering {
    /// What asks for it.
    pub(crate) fn subject(&self) -> Subject {
        self.resource.clone().map_or(Subject::Mesh, Subject::BgpPeer)
    }
}

/// This node as BGP sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Local {
    /// Our AS number.
    pub(crate) asn: u32,
    /// IPv4 address of the node.
    pub(crate) ipv4: Option<IpAddr>,
    /// IPv6 address of the node.
    pub(crate) ipv6: Option<IpAddr>,
    /// Route-reflector cluster id, when we reflect.
    pub(crate) cluster_id: Option<String>,
}

/// Default AS number (`api/pkg/apis/projectcalico/v3/bgpconfig.go`).
const DEFAULT_AS: u32 = 64_512;
const BGP_PORT: u16 = 179;

const ASN: &str = "projectcalico.org/ASNumber";
const IPV4: &str = "projectcalico.org/IPv4Address";
const IPV6: &str = "projectcalico.org/IPv6Address";
const CLUSTER_ID: &str = "projectcalico.org/RouteReflectorClusterID";

impl BgpView {
    /// Returns what BGP must know of this node, once its Node object is known.
    pub(crate) fn local(&self, node_name: &str) -> Option<Local> {
        self.nodes.get(node_name).map(|node| self.describe(node))
    }

    /// Returns the names of the secrets that peers and the mesh need.
    pub(crate) fn wanted_secrets(&self) -> std::collections::BTreeSet<String> {
        let peers = self.peers.values().filter_map(|peer| peer.spec.password.as_ref());
        let mesh = self.default.as_ref().and_then(|default| default.node_mesh_password.as_ref());
        let references = peers.chain(mesh).filter_map(|password| password.secret_key_ref.as_ref());
        references.map(|reference| reference.name.clone()).collect()
    }

    fn describe(&self, node: &Node) -> Local {
        let annotation = |name: &str| node.metadata.annotations.get(name).map(String::as_str);
        let default = self.default.as_ref().and_then(|default| default.as_number);
        Local {
            asn: annotation(ASN)
                .and_then(|text| text.parse::<bgp::Asn>().ok())
                .map_or(default.unwrap_or(DEFAULT_AS), |asn| asn.0),
            ipv4: annotation(IPV4).and_then(address).or_else(|| internal_ip(node, true)),
            ipv6: annotation(IPV6).and_then(address).or_else(|| internal_ip(node, false)),
            cluster_id: annotation(CLUSTER_ID).filter(|id| !id.is_empty()).map(str::to_owned),
        }
    }

    fn mesh_enabled(&self) -> bool {
        self.default.as_ref().and_then(|default| default.node_to_node_mesh_enabled).unwrap_or(true)
    }

    fn listen_port(&self) -> u16 {
        self.default.as_ref().and_then(|default| default.listen_port).unwrap_or(BGP_PORT)
    }
}

/// Returns the sessions that this node shall have, in order of their names, and what could not be made sense of.
pub(crate) fn peerings(view: &BgpView, node_name: &str) -> (Vec<Peering>, Vec<Problem>) {
    let Some(me) = view.local(node_name) else {
        let reason = format!("node {node_name} does not exist in the API yet");
        return (Vec::new(), vec![Problem::new(Subject::Other, reason)]);
    };
    let mut problems = Vec::new();
    let mut found: BTreeMap<IpAddr, Peering> = BTreeMap::new();
    for (name, peer) in &view.peers {
        let mut problem =
            |reason| problems.push(Problem::new(Subject::BgpPeer(name.clone()), reason));
        match from_resource(view, node_name, &me, peer) {
            Ok(list) => {
                for peering in list {
                    // Two BGPPeers for one address: the first by name wins, the other is reported.
                    if let Some(other) = found.get(&peering.address)
                        && other.resource != peering.resource
                    {
                        problem(format!(
                            "{} is a peer already by BGPPeer {}",
                            peering.address,
                            other.resource.as_deref().unwrap_or("mesh"),
                        ));
                    } else {
                        found.insert(peering.address, peering);
                    }
                }
            }
            Err(reason) => problem(reason),
        }
    }
    if view.mesh_enabled() && me.cluster_id.is_none() {
        match mesh(view, node_name, &me) {
            Ok(list) => {
                for peering in list {
                    found.entry(peering.address).or_insert(peering);
                }
            }
            Err(reason) => problems.push(Problem::new(Subject::Mesh, reason)),
        }
    }
    let mut list: Vec<_> = found.into_values().collect();
    name(view, &mut list);
    (list, problems)
}

/// Calls sessions what people call the other end, and sorts them by that: `tor-a` for the BGPPeer that names an address, `reflectors/n7` for
/// the node that a BGPPeer's selector found, `n7` for a node of the mesh, and `n7/ipv6` for its other session. Calico's BIRD says
/// `Global_10_0_1_1`, which is the name of nothing that can be looked up.
fn name(view: &BgpView, list: &mut [Peering]) {
    let mut at = BTreeMap::new();
    for (name, node) in &view.nodes {
        let node = view.describe(node);
        at.extend(node.ipv4.into_iter().chain(node.ipv6).map(|address| (address, name.as_str())));
    }
    let mut taken = std::collections::BTreeSet::new();
    // BGPPeers first: what somebody wrote keeps its name, should a node have the same.
    list.sort_by_key(|each| (each.resource.is_none(), each.address));
    for peering in list.iter_mut() {
        let by_selector = |name: &String| {
            view.peers.get(name).is_some_and(|peer| peer.spec.peer_selector.is_some())
        };
        let node = at
            .get(&peering.address)
            .map_or_else(|| peering.address.to_string(), |name| (*name).to_owned());
        let family = if peering.address.is_ipv4() { "" } else { "/ipv6" };
        let mut name = match &peering.resource {
            Some(resource) if by_selector(resource) => format!("{resource}/{node}{family}"),
            Some(resource) => resource.clone(),
            None => format!("{node}{family}"),
        };
        if !taken.insert(name.clone()) {
            name = format!("{name}@{}", peering.address);
        }
        peering.name = name;
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
}

/// The sessions of the mesh; none without the password that it shall have.
fn mesh(view: &BgpView, node_name: &str, me: &Local) -> Result<Vec<Peering>, String> {
    let default = view.default.as_ref();
    let wanted = default.and_then(|default| default.node_mesh_password.as_ref());
    let password =
        password(view, wanted).map_err(|reason| format!("nodeMeshPassword: {reason}"))?;
    let restart = default.and_then(|default| default.node_mesh_max_restart_time.as_deref());
    let restart_seconds = seconds("nodeMeshMaxRestartTime", restart)?;
    let bfd = annotations::bfd(&view.annotations)?;
    let others = view.nodes.iter().filter(|(name, _)| name.as_str() != node_name);
    let sessions = others.flat_map(|(_, node)| {
        let other = view.describe(node);
        let reflector = other.cluster_id.is_some();
        let pairs = [(me.ipv4, other.ipv4), (me.ipv6, other.ipv6)];
        let password = password.clone();
        pairs.into_iter().filter(move |_| !reflector).filter_map(move |(mine, theirs)| {
            let (mine, theirs) = (mine?, theirs?);
            Some(Peering {
                // Calico's BIRD compares the addresses as strings to choose the passive side.
                passive: theirs.to_string() > mine.to_string(),
                password: password.clone(),
                restart_seconds,
                bfd,
                ..peering(view, Origin::Mesh, theirs, other.asn, me)
            })
        })
    });
    Ok(sessions.collect())
}

fn from_resource(
    view: &BgpView,
    node_name: &str,
    me: &Local,
    peer: &BgpPeer,
) -> Result<Vec<Peering>, String> {
    let spec = &peer.spec;
    if spec.local_workload_selector.is_some() {
        return Err("localWorkloadSelector is not supported yet".to_owned());
    }
    let mine = applies(spec, node_name, view)?;
    let mut list = Vec::new();
    if mine {
        for (address, port, peer_as, origin) in targets(view, node_name, me, spec)? {
            list.push(detail(view, me, peer, peering_at(origin, address, port, peer_as, me))?);
        }
    }
    // A node that a selector peering points at gets the reverse session, so that one BGPPeer describes both ends.
    if let Some(selector) = &spec.peer_selector
        && spec.reverse_peering.as_deref() != Some("Manual")
        && selects(selector, "peerSelector", view.nodes.get(node_name))?
    {
        for (name, node) in &view.nodes {
            if name != node_name && applies(spec, name, view)? {
                let other = view.describe(node);
                for address in common(me, &other) {
                    list.push(detail(
                        view,
                        me,
                        peer,
                        peering(view, Origin::Node, address, other.asn, me),
                    )?);
                }
            }
        }
    }
    list.dedup_by(|a, b| a.address == b.address);
    Ok(list)
}

fn targets(
    view: &BgpView,
    node_name: &str,
    me: &Local,
    spec: &BgpPeerSpec,
) -> Result<Vec<(IpAddr, u16, u32, Origin)>, String> {
    let global = spec.node.is_none() && spec.node_selector.is_none();
    let origin = if global { Origin::Global } else { Origin::Node };
    if let Some(selector) = &spec.peer_selector {
        let mut list = Vec::new();
        for (name, node) in &view.nodes {
            if name != node_name && selects(selector, "peerSelector", Some(node))? {
                let other = view.describe(node);
                list.extend(
                    common(me, &other)
                        .map(|address| (address, view.listen_port(), other.asn, origin)),
                );
            }
        }
        return Ok(list);
    }
    let text = spec.peer_ip.as_deref().ok_or("peerIP or peerSelector must be given")?;
    let (address, port) = endpoint(text).ok_or_else(|| {
        format!(
            "peerIP '{text}' is no address; write 10.0.0.1, 10.0.0.1:1790 or [2001:db8::1]:1790"
        )
    })?;
    let peer_as = spec.as_number.ok_or("asNumber must be given with peerIP")?;
    Ok(vec![(address, port.unwrap_or(BGP_PORT), peer_as, origin)])
}

fn detail(view: &BgpView, me: &Local, peer: &BgpPeer, base: Peering) -> Result<Peering, String> {
    let spec = &peer.spec;
    let reflected = view
        .nodes
        .values()
        .map(|node| view.describe(node))
        .find(|node| node.ipv4 == Some(base.address) || node.ipv6 == Some(base.address));
    let client = me.cluster_id.is_some()
        && base.peer_as == me.asn
        && reflected.is_none_or(|other| other.cluster_id != me.cluster_id);
    let local_as = spec.local_as_number.unwrap_or(me.asn);
    let small = |name: &str, value: Option<u32>| match value.map(u8::try_from) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(_)) => Err(format!("{name} must be at most 255")),
    };
    Ok(Peering {
        resource: Some(peer.meta().name.clone()),
        local_as,
        source: match spec.source_address {
            Some(api::SourceAddress::None) => None,
            Some(api::SourceAddress::UseNodeIp) | None => base.source,
        },
        reachable_by: reachable_by(spec, base.address)?,
        password: password(view, spec.password.as_ref())?,
        route_reflector_client: client,
        allow_own_as: small("numAllowedLocalASNumbers", spec.num_allowed_local_as_numbers)?
            .unwrap_or(0),
        ttl_security: small("ttlSecurity", spec.ttl_security)?,
        restart_seconds: seconds("maxRestartTime", spec.max_restart_time.as_deref())?,
        keepalive_seconds: seconds("keepaliveTime", spec.keepalive_time.as_deref())?,
        filters: spec.filters.clone(),
        blackhole: annotations::blackhole(&peer.meta().annotations)?,
        bfd: annotations::bfd(&peer.meta().annotations)?,
        next_hop_keep: spec.keep_original_next_hop && base.peer_as != local_as
            || spec.next_hop_mode == Some(api::NextHopMode::Keep),
        next_hop_self: spec.next_hop_mode == Some(api::NextHopMode::SelfNode),
        ..base
    })
}

/// The gateway to a peer that is on no network of the node; Calico adds a static route for it.
fn reachable_by(spec: &BgpPeerSpec, peer: IpAddr) -> Result<Option<IpAddr>, String> {
    let Some(text) = spec.reachable_by.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if spec.peer_ip.is_none() {
        return Err("reachableBy needs peerIP".to_owned());
    }
    match text.parse::<IpAddr>() {
        Ok(gateway) if gateway.is_ipv4() != peer.is_ipv4() => {
            Err(format!("reachableBy {gateway} is of another family than peerIP {peer}"))
        }
        Ok(gateway) if gateway == peer => {
            Err(format!("reachableBy {gateway} is the peer itself; name the router before it"))
        }
        Ok(gateway) => Ok(Some(gateway)),
        Err(_) => Err(format!("reachableBy '{text}' is no address; write one like 10.0.0.1")),
    }
}

fn peering(view: &BgpView, origin: Origin, address: IpAddr, peer_as: u32, me: &Local) -> Peering {
    peering_at(origin, address, view.listen_port(), peer_as, me)
}

fn peering_at(origin: Origin, address: IpAddr, port: u16, peer_as: u32, me: &Local) -> Peering {
    Peering {
        name: String::new(),
        origin,
        resource: None,
        address,
        port,
        peer_as,
        local_as: me.asn,
        // As Calico does; `sourceAddress: None` leaves it to the kernel.
        source: if address.is_ipv4() { me.ipv4 } else { me.ipv6 },
        reachable_by: None,
        passive: false,
        password: None,
        route_reflector_client: false,
        allow_own_as: 0,
        ttl_security: None,
        restart_seconds: None,
        keepalive_seconds: None,
        filters: Vec::new(),
        blackhole: Blackhole::None,
        bfd: None,
        next_hop_keep: false,
        next_hop_self: false,
    }
}

fn applies(spec: &BgpPeerSpec, node_name: &str, view: &BgpView) -> Result<bool, String> {
    match (&spec.node, &spec.node_selector) {
        (Some(_), Some(_)) => Err("node and nodeSelector exclude each other".to_owned()),
        (Some(node), None) => Ok(node == node_name),
        (None, Some(selector)) => selects(selector, "nodeSelector", view.nodes.get(node_name)),
        (None, None) => Ok(true),
    }
}

fn selects(selector: &str, field: &str, node: Option<&Node>) -> Result<bool, String> {
    let parsed =
        Selector::parse(selector).map_err(|error| format!("{field} '{selector}': {error}"))?;
    Ok(node.is_some_and(|node| parsed.matches_labels(&node.metadata.labels)))
}

fn common<'a>(me: &'a Local, other: &'a Local) -> impl Iterator<Item = IpAddr> + 'a {
    let pairs = [(me.ipv4, other.ipv4), (me.ipv6, other.ipv6)];
    pairs.into_iter().filter_map(|(mine, theirs)| mine.and(theirs))
}

fn password(view: &BgpView, wanted: Option<&api::BgpPassword>) -> Result<Option<String>, String> {
    let Some(reference) = wanted.and_then(|password| password.secret_key_ref.as_ref()) else {
        return Ok(None);
    };
    let name = format!("{}/{}", reference.name, reference.key);
    match view.passwords.get(&name) {
        Some(password) => Ok(Some(password.clone())),
        None if reference.optional == Some(true) => Ok(None),
        None => Err(format!(
            "password: secret {} has no key {}, or cannot be read",
            reference.name, reference.key
        )),
    }
}

fn seconds(field: &str, text: Option<&str>) -> Result<Option<u16>, String> {
    let Some(text) = text else { return Ok(None) };
    let mut total = 0.0_f64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return Err(format!("{field} '{text}' is no duration; write 90s or 2m")),
        };
        let number: f64 = number.parse().map_err(|_| format!("{field} '{text}' is no duration"))?;
        total += number * factor;
        rest = tail;
    }
    if !(0.0..=4095.0).contains(&total) {
        return Err(format!("{field} '{text}' must be between 0 and 4095 seconds"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 4095, checked above"
    )]
    Ok(Some(total.round() as u16))
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpNet>().map(|net| net.addr()).or_else(|_| text.parse()).ok()
}

fn endpoint(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().map(|address| (address, None)).ok().or_else(|| {
        let socket: SocketAddr = text.parse().ok()?;
        Some((socket.ip(), Some(socket.port())))
    })
}

fn internal_ip(node: &Node, v4: bool) -> Option<IpAddr> {
    let addresses = node.status.as_ref()?.addresses.iter();
    let internal = addresses.filter(|address| address.address_type == "InternalIP");
    internal.filter_map(|entry| entry.address.parse::<IpAddr>().ok()).find(|ip| ip.is_ipv4() == v4)
}

#[cfg(test)]
mod tests;
