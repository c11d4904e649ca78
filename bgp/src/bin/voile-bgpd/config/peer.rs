//! `[[peer]]`: a router by its address, routers by a range, or the router on an interface.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bgp::{
    AddPathMode, Asn, Families, Family, PeerConfig, PeerGroup, PeerType, Role, bfd,
    config::{AcceptedAs, AoAlgorithm, AoKey, Blackhole, Members, NextHopMode},
    filter::{Filter, Policy},
};
use serde::Deserialize;
use toml::Spanned;

use super::{filter::ActionName, problem::Problems};
use crate::fields::{AsField, HoldTime, Network, Seconds, Text};

/// Members of a range, unless said otherwise.
const LIMIT: usize = 100;

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FamilyName {
    Ipv4,
    Ipv6,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NextHopName {
    Auto,
    #[serde(rename = "self")]
    Own,
    Keep,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AddPathName {
    None,
    Receive,
    Send,
    Both,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RoleName {
    Provider,
    RsServer,
    RsClient,
    Customer,
    Peer,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AoName {
    #[default]
    HmacSha1,
    AesCmac,
}

/// A key of TCP-AO; `id` stands for both numbers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct AoSection {
    id: Option<u8>,
    send_id: Option<u8>,
    receive_id: Option<u8>,
    #[serde(default)]
    algorithm: AoName,
    secret: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum BfdField {
    Switch(bool),
    Settings(BfdSection),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct BfdSection {
    interval: Option<Seconds>,
    min_tx: Option<Seconds>,
    min_rx: Option<Seconds>,
    multiplier: Option<u8>,
    #[serde(default)]
    multi_hop: bool,
    #[serde(default)]
    strict: bool,
}

/// `true`, or the prefixes that the peer may ask to be dropped.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "true, false, or a list of prefixes")]
enum BlackholeField {
    Switch(bool),
    Within(Vec<Network>),
}

impl From<&BlackholeField> for Blackhole {
    fn from(field: &BlackholeField) -> Self {
        match field {
            BlackholeField::Switch(false) => Self::None,
            BlackholeField::Switch(true) => Self::Accepted,
            BlackholeField::Within(networks) => {
                Self::Within(networks.iter().map(|network| network.0).collect())
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PeerSection {
    name: Option<String>,
    address: Option<Spanned<Text<IpAddr>>>,
    range: Option<Spanned<Network>>,
    interface: Option<Spanned<String>>,
    r#as: Spanned<AsField>,
    limit: Option<Spanned<usize>>,
    port: Option<Spanned<u16>>,
    local_as: Option<Spanned<Text<Asn>>>,
    local_address: Option<Spanned<Text<IpAddr>>>,
    #[serde(default)]
    passive: bool,
    #[serde(default)]
    shutdown: bool,
    #[serde(default)]
    graceful_shutdown: bool,
    password: Option<Spanned<String>>,
    tcp_ao: Option<Spanned<Vec<AoSection>>>,
    ttl_security: Option<Spanned<u8>>,
    ttl: Option<Spanned<u8>>,
    families: Option<Spanned<Vec<FamilyName>>>,
    hold_time: Option<HoldTime>,
    keepalive_time: Option<Seconds>,
    connect_retry: Option<Seconds>,
    delay_open: Option<Seconds>,
    idle_hold: Option<Seconds>,
    idle_hold_max: Option<Seconds>,
    graceful_restart: Option<bool>,
    stale_time: Option<Seconds>,
    long_lived_stale_time: Option<Seconds>,
    extended_message: Option<bool>,
    add_path: Option<AddPathName>,
    extended_next_hop: Option<bool>,
    role: Option<Spanned<RoleName>>,
    #[serde(default)]
    role_strict: bool,
    bfd: Option<Spanned<BfdField>>,
    local_pref: Option<u32>,
    next_hop: Option<NextHopName>,
    next_hop_ipv4: Option<Text<Ipv4Addr>>,
    next_hop_ipv6: Option<Text<Ipv6Addr>>,
    route_reflector_client: Option<Spanned<bool>>,
    allow_own_as: Option<usize>,
    enforce_first_as: Option<bool>,
    blackhole: Option<Spanned<BlackholeField>>,
    #[serde(default)]
    multihop: bool,
    max_prefixes: Option<Spanned<usize>>,
    max_prefixes_warning: Option<Spanned<u8>>,
    max_prefixes_wait: Option<Seconds>,
    import: Option<Vec<Spanned<String>>>,
    export: Option<Vec<Spanned<String>>>,
    import_default: Option<ActionName>,
    export_default: Option<ActionName>,
}

/// What a section means.
#[derive(Debug)]
pub(super) enum Meaning {
    Peer(PeerConfig),
    Group(PeerGroup),
}

impl Meaning {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Peer(peer) => &peer.name,
            Self::Group(group) => &group.name,
        }
    }
}

/// What a section is read with.
pub(super) struct Surroundings<'a> {
    pub(super) filters: &'a BTreeMap<String, Arc<Filter>>,
    pub(super) local_as: Asn,
    pub(super) requires_policy: bool,
}

/// Reads a section; nothing if there is no way to say what it means.
pub(super) fn peer(
    section: Spanned<PeerSection>,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Option<Meaning> {
    let place = section.span();
    let section = section.into_inner();
    let (name, address, members) = identity(&section, &place, problems)?;
    let field = |field: &str| format!("peer '{name}', {field}");
    let local_as = section.local_as.as_ref().map_or(around.local_as, |asn| asn.get_ref().0);
    let accepted = &section.r#as.get_ref().0;
    let asn = match accepted {
        AcceptedAs::Ranges(ranges) => match ranges.as_slice() {
            [(first, last)] if first == last => Some(*first),
            _ => None,
        },
        AcceptedAs::Internal => Some(local_as),
        AcceptedAs::External => None,
    };
    if members.is_none() && asn.is_none() {
        let what = "a peer with an address has one AS number; several are for range and interface";
        problems.add(&section.r#as.span(), &field("as"), what);
    }
    let internal = asn == Some(local_as);
    let mut config = PeerConfig::new(&name, address, asn.unwrap_or(Asn(0)));
    if matches!(members, Some(Members::Interface(_))) {
        config.families = Families::BOTH;
    }
    apply(&section, &mut config);
    keys(&section, &mut config, problems);
    policies(&section, &mut config, internal, around, problems);
    check(&section, &config, internal, problems);
    check_routes(&section, &config, problems);
    let Some(members) = members else {
        if let Some(limit) = &section.limit {
            problems.add(&limit.span(), &field("limit"), "only a range has a limit");
        }
        return Some(Meaning::Peer(config));
    };
    let limit = match &members {
        Members::Range(_) => section.limit.map_or(LIMIT, Spanned::into_inner),
        Members::Interface(_) => 1,
    };
    let asns = accepted.clone();
    Some(Meaning::Group(PeerGroup { name, members, asns, limit, template: config }))
}

/// Which of the three kinds it is, and what it is called.
fn identity(
    section: &PeerSection,
    place: &Range<usize>,
    problems: &mut Problems<'_>,
) -> Option<(String, IpAddr, Option<Members>)> {
    let named = |other: String| section.name.clone().unwrap_or(other);
    match (&section.address, &section.range, &section.interface) {
        (Some(address), None, _) => {
            let address = address.get_ref().0;
            Some((named(address.to_string()), address, None))
        }
        (None, Some(range), _) => {
            let prefix = range.get_ref().0;
            let members = Members::Range(prefix);
            Some((named(prefix.to_string()), prefix.address(), Some(members)))
        }
        (None, None, Some(interface)) => {
            let interface = interface.get_ref().clone();
            let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            Some((named(interface.clone()), unspecified, Some(Members::Interface(interface))))
        }
        (Some(_), Some(range), _) => {
            problems.add(&range.span(), "peer", "address and range exclude each other");
            None
        }
        (None, None, None) => {
            problems.add(place, "peer", "one of address, range and interface is needed");
            None
        }
    }
}

fn replace<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn apply(section: &PeerSection, peer: &mut PeerConfig) {
    let inner = |value: &Option<Spanned<u8>>| value.as_ref().map(|each| *each.get_ref());
    peer.local_as = section.local_as.as_ref().map(|asn| asn.get_ref().0);
    peer.local_address = section.local_address.as_ref().map(|address| address.get_ref().0);
    peer.interface = section.interface.as_ref().map(|name| name.get_ref().clone());
    peer.passive = section.passive;
    peer.multihop = section.multihop;
    replace(&mut peer.blackhole, section.blackhole.as_ref().map(|each| each.get_ref().into()));
    peer.shutdown = section.shutdown;
    peer.graceful_shutdown = section.graceful_shutdown;
    peer.password = section.password.as_ref().map(|password| password.get_ref().clone());
    peer.ttl_security = inner(&section.ttl_security);
    peer.ttl = inner(&section.ttl);
    peer.route_reflector_client =
        section.route_reflector_client.as_ref().is_some_and(|each| *each.get_ref());
    peer.max_prefixes = section.max_prefixes.as_ref().map(|most| *most.get_ref());
    replace(&mut peer.max_prefixes_warning, inner(&section.max_prefixes_warning));
    if let Some(wait) = section.max_prefixes_wait {
        peer.max_prefixes_wait = (!wait.0.is_zero()).then_some(wait.0);
    }
    peer.keepalive_time = section.keepalive_time.map(|time| time.0);
    peer.delay_open = section.delay_open.map(|time| time.0);
    peer.long_lived_stale_time = section.long_lived_stale_time.map(|time| time.0);
    peer.next_hop_ipv4 = section.next_hop_ipv4.as_ref().map(|address| address.0.into());
    peer.next_hop_ipv6 = section.next_hop_ipv6.as_ref().map(|address| address.0.into());
    peer.role = section.role.as_ref().map(|role| (*role.get_ref()).into());
    peer.role_strict = section.role_strict;
    peer.bfd = section.bfd.as_ref().and_then(|field| bfd_config(*field.get_ref()));
    replace(&mut peer.port, section.port.as_ref().map(|port| *port.get_ref()));
    replace(&mut peer.hold_time, section.hold_time.map(|time| time.0));
    replace(&mut peer.connect_retry, section.connect_retry.map(|time| time.0));
    replace(&mut peer.idle_hold, section.idle_hold.map(|time| time.0));
    replace(&mut peer.idle_hold_max, section.idle_hold_max.map(|time| time.0));
    replace(&mut peer.stale_time, section.stale_time.map(|time| time.0));
    replace(&mut peer.graceful_restart, section.graceful_restart);
    replace(&mut peer.extended_message, section.extended_message);
    replace(&mut peer.extended_next_hop, section.extended_next_hop);
    replace(&mut peer.add_path, section.add_path.map(AddPathMode::from));
    replace(&mut peer.local_pref, section.local_pref);
    replace(&mut peer.allow_own_as, section.allow_own_as);
    replace(&mut peer.enforce_first_as, section.enforce_first_as);
    replace(&mut peer.next_hop, section.next_hop.map(NextHopMode::from));
    replace(&mut peer.families, section.families.as_ref().map(|names| families(names.get_ref())));
}

/// RFC 5925 §3.1: a number names one key of a connection.
fn keys(section: &PeerSection, peer: &mut PeerConfig, problems: &mut Problems<'_>) {
    let Some(list) = &section.tcp_ao else { return };
    let field = format!("peer '{}', tcp-ao", peer.name);
    let mut wrong = |what: &str| problems.add(&list.span(), &field, what);
    if list.get_ref().is_empty() {
        wrong("at least one key is needed; leave it out for none");
    }
    if section.password.is_some() {
        wrong("TCP-AO takes the place of TCP MD5; remove password");
    }
    let (mut sent, mut received) = (BTreeSet::new(), BTreeSet::new());
    for key in list.get_ref() {
        let (send, receive) = (key.send_id.or(key.id), key.receive_id.or(key.id));
        let (Some(send_id), Some(receive_id)) = (send, receive) else {
            wrong("a key needs an id, or send-id and receive-id");
            continue;
        };
        if !sent.insert(send_id) || !received.insert(receive_id) {
            wrong("two keys have the same id");
        }
        let length = key.secret.len();
        if !(1..=80).contains(&length) {
            wrong(&format!("a secret has 1 to 80 octets, these are {length}"));
        }
        let algorithm = match key.algorithm {
            AoName::HmacSha1 => AoAlgorithm::HmacSha1,
            AoName::AesCmac => AoAlgorithm::AesCmac,
        };
        peer.tcp_ao.push(AoKey { send_id, receive_id, algorithm, secret: key.secret.clone() });
    }
}

fn bfd_config(field: BfdField) -> Option<bfd::Config> {
    let section = match field {
        BfdField::Switch(false) => return None,
        BfdField::Switch(true) => return Some(bfd::Config::default()),
        BfdField::Settings(section) => section,
    };
    let usual = bfd::Timing::default();
    let seconds = |own: Option<Seconds>, usual: Duration| {
        own.or(section.interval).map_or(usual, |time| time.0)
    };
    let timing = bfd::Timing {
        desired_min_tx: seconds(section.min_tx, usual.desired_min_tx),
        required_min_rx: seconds(section.min_rx, usual.required_min_rx),
        detect_multiplier: section.multiplier.unwrap_or(usual.detect_multiplier),
    };
    Some(bfd::Config { timing, multi_hop: section.multi_hop, strict: section.strict })
}

/// RFC 8212: between systems nothing is exchanged unless a policy says what.
fn policies(
    section: &PeerSection,
    peer: &mut PeerConfig,
    internal: bool,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) {
    let name = peer.name.clone();
    let mut policy =
        |names: &Option<Vec<Spanned<String>>>, default: Option<ActionName>, direction: &str| {
            if names.is_none() && default.is_none() && !internal && around.requires_policy {
                return Policy::absent();
            }
            let mut filters = Vec::new();
            for wanted in names.iter().flatten() {
                match around.filters.get(wanted.get_ref()) {
                    Some(filter) => filters.push(Arc::clone(filter)),
                    None => problems.add(
                        &wanted.span(),
                        &format!("peer '{name}', {direction}"),
                        format!("there is no filter '{}'", wanted.get_ref()),
                    ),
                }
            }
            Policy { filters, default: default.unwrap_or(ActionName::Accept).into() }
        };
    peer.import = policy(&section.import, section.import_default, "import");
    peer.export = policy(&section.export, section.export_default, "export");
}

/// What concerns routes rather than the session.
fn check_routes(section: &PeerSection, peer: &PeerConfig, problems: &mut Problems<'_>) {
    let field = |field: &str| format!("peer '{}', {field}", peer.name);
    let mut wrong = |place: Range<usize>, name: &str, what: &str| {
        problems.add(&place, &field(name), what);
    };
    if let Some(field) = section.blackhole.as_ref().filter(
        |each| matches!(each.get_ref(), BlackholeField::Within(networks) if networks.is_empty()),
    ) {
        wrong(field.span(), "blackhole", "the list is empty; leave it out to honour none");
    }
    if section.multihop
        && let Some(hops) = section.ttl_security.as_ref().filter(|hops| *hops.get_ref() == 1)
    {
        wrong(hops.span(), "ttl-security", "1 is the link; with multihop the peer is further away");
    }
    if let Some(most) = section.max_prefixes.as_ref().filter(|most| *most.get_ref() == 0) {
        wrong(most.span(), "max-prefixes", "0 would end every session; leave it out for no limit");
    }
    if let Some(percent) =
        section.max_prefixes_warning.as_ref().filter(|each| *each.get_ref() > 100)
    {
        wrong(percent.span(), "max-prefixes-warning", "it is a percentage");
    }
}

fn check(section: &PeerSection, peer: &PeerConfig, internal: bool, problems: &mut Problems<'_>) {
    let field = |field: &str| format!("peer '{}', {field}", peer.name);
    let mut wrong = |place: Range<usize>, name: &str, what: &str| {
        problems.add(&place, &field(name), what);
    };
    if let Some(password) = &section.password
        && !(1..=80).contains(&password.get_ref().len())
    {
        let length = password.get_ref().len();
        wrong(
            password.span(),
            "password",
            &format!("TCP MD5 takes 1 to 80 octets, these are {length}"),
        );
    }
    if let Some(port) = section.port.as_ref().filter(|port| *port.get_ref() == 0) {
        wrong(port.span(), "port", "0 is no port; leave it out for 179");
    }
    if let Some(local) = &section.local_address
        && section.address.is_some()
    {
        if local.get_ref().0.is_ipv4() != peer.address.is_ipv4() {
            wrong(local.span(), "local-address", "it is of another family than the peer's address");
        } else if local.get_ref().0 == peer.address {
            wrong(local.span(), "local-address", "it is the peer's own address");
        }
    }
    if let Some(asn) = section.local_as.as_ref().filter(|asn| asn.get_ref().0.0 == 0) {
        wrong(asn.span(), "local-as", "AS 0 belongs to nobody (RFC 7607)");
    }
    if let Some(address) = &section.address {
        let link_local =
            matches!(peer.address, IpAddr::V6(address) if address.is_unicast_link_local());
        if link_local && section.interface.is_none() {
            wrong(address.span(), "address", "a link-local address needs an interface");
        }
        if peer.address.is_unspecified() || peer.address.is_multicast() {
            wrong(address.span(), "address", "it is no address of a router");
        }
    }
    for (hops, name) in [(&section.ttl_security, "ttl-security"), (&section.ttl, "ttl")] {
        if let Some(hops) = hops.as_ref().filter(|hops| *hops.get_ref() == 0) {
            wrong(hops.span(), name, "0 reaches nobody; 1 is the link");
        }
    }
    if let (Some(ttl), Some(_)) = (&section.ttl, &section.ttl_security) {
        wrong(ttl.span(), "ttl", "ttl-security sends with 255 always; remove one of the two");
    }
    if let Some(names) = section.families.as_ref().filter(|names| names.get_ref().is_empty()) {
        wrong(names.span(), "families", "at least one of ipv4 and ipv6 is needed");
    }
    if let Some(role) = section.role.as_ref().filter(|_| internal) {
        wrong(role.span(), "role", "roles are for peers of another AS (RFC 9234)");
    }
    if let Some(client) = section.route_reflector_client.as_ref().filter(|each| *each.get_ref())
        && !internal
    {
        wrong(client.span(), "route-reflector-client", "clients are in our own AS (RFC 4456)");
    }
    if let (Some(field), Some(bfd)) = (&section.bfd, peer.bfd) {
        let timing = bfd.timing;
        if timing.detect_multiplier == 0 {
            wrong(field.span(), "bfd", "multiplier must be at least 1");
        }
        if timing.desired_min_tx < Duration::from_millis(1) {
            wrong(field.span(), "bfd", "intervals are at least 0.001 seconds");
        }
    }
}

fn families(names: &[FamilyName]) -> Families {
    let families = names.iter().map(|name| match name {
        FamilyName::Ipv4 => Family::Ipv4,
        FamilyName::Ipv6 => Family::Ipv6,
    });
    families.collect()
}

impl From<NextHopName> for NextHopMode {
    fn from(name: NextHopName) -> Self {
        match name {
            NextHopName::Auto => Self::Auto,
            NextHopName::Own => Self::Own,
            NextHopName::Keep => Self::Keep,
        }
    }
}

impl From<AddPathName> for AddPathMode {
    fn from(name: AddPathName) -> Self {
        match name {
            AddPathName::None => Self::None,
            AddPathName::Receive => Self::Receive,
            AddPathName::Send => Self::Send,
            AddPathName::Both => Self::Both,
        }
    }
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Provider => Self::Provider,
            RoleName::RsServer => Self::RouteServer,
            RoleName::RsClient => Self::RouteServerClient,
            RoleName::Customer => Self::Customer,
            RoleName::Peer => Self::Peer,
        }
    }
}

/// Says that a peer of another AS exchanges nothing, for the log.
pub(super) fn warn_without_policy(peer: &PeerConfig, local_as: Asn) {
    let external = peer.peer_type(local_as) == PeerType::External;
    for (policy, direction) in [(&peer.import, "import"), (&peer.export, "export")] {
        if external && *policy == Policy::absent() {
            tracing::warn!(peer = %peer.name, "no {direction} policy: nothing passes (RFC 8212); write \
                {direction} or {direction}-default, or ebgp-requires-policy = false under [router]");
        }
    }
}
