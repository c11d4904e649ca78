//! The configuration file, and what it means to the speaker.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use bgp::{
    Asn, Community, Families, LargeCommunity, LocalRoute, PeerConfig, PeerType, Prefix, RouterId,
    SpeakerConfig,
    config::{BGP_PORT, NextHopMode},
    filter::{
        Action, AnyCommunity, Filter, LengthRange, Operation, Policy, PrefixMatch, PrefixOperator,
        Rule, Source,
    },
};
use serde::Deserialize;

use crate::fields::{HoldTime, Seconds, Text};

/// Metric of routes in the kernel, as Calico uses it.
const METRIC: u32 = 1024;

/// What the file means.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) speaker: SpeakerConfig,
    pub(crate) networks: BTreeMap<Prefix, LocalRoute>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) install_routes: bool,
    pub(crate) redistribute_connected: bool,
    pub(crate) metric: u32,
    pub(crate) status_socket: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    router: RouterSection,
    #[serde(default)]
    network: Vec<NetworkSection>,
    #[serde(default)]
    peer: Vec<PeerSection>,
    #[serde(default)]
    filter: Vec<FilterSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RouterSection {
    r#as: Text<Asn>,
    router_id: Text<RouterId>,
    cluster_id: Option<Text<RouterId>>,
    listen: Option<Vec<Text<SocketAddr>>>,
    max_paths: Option<usize>,
    multipath_relax: Option<bool>,
    restart_time: Option<Seconds>,
    #[serde(default)]
    install_routes: bool,
    #[serde(default)]
    redistribute_connected: bool,
    metric: Option<u32>,
    status_socket: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct NetworkSection {
    prefix: Text<Prefix>,
    #[serde(default)]
    communities: Vec<Text<Community>>,
    #[serde(default)]
    large_communities: Vec<Text<LargeCommunity>>,
    med: Option<u32>,
    local_pref: Option<u32>,
}

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActionName {
    Accept,
    Reject,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PeerSection {
    name: Option<String>,
    address: Text<IpAddr>,
    r#as: Text<Asn>,
    port: Option<u16>,
    local_as: Option<Text<Asn>>,
    local_address: Option<Text<IpAddr>>,
    interface: Option<String>,
    #[serde(default)]
    passive: bool,
    #[serde(default)]
    shutdown: bool,
    password: Option<String>,
    ttl_security: Option<u8>,
    ttl: Option<u8>,
    families: Option<Vec<FamilyName>>,
    hold_time: Option<HoldTime>,
    keepalive_time: Option<Seconds>,
    connect_retry: Option<Seconds>,
    delay_open: Option<Seconds>,
    idle_hold: Option<Seconds>,
    idle_hold_max: Option<Seconds>,
    graceful_restart: Option<bool>,
    stale_time: Option<Seconds>,
    extended_message: Option<bool>,
    local_pref: Option<u32>,
    next_hop: Option<NextHopName>,
    next_hop_ipv4: Option<Text<std::net::Ipv4Addr>>,
    next_hop_ipv6: Option<Text<std::net::Ipv6Addr>>,
    #[serde(default)]
    route_reflector_client: bool,
    allow_own_as: Option<usize>,
    max_prefixes: Option<usize>,
    #[serde(default)]
    import: Vec<String>,
    #[serde(default)]
    export: Vec<String>,
    import_default: Option<ActionName>,
    export_default: Option<ActionName>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FilterSection {
    name: String,
    rule: Vec<RuleSection>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum MatchName {
    Equal,
    NotEqual,
    In,
    NotIn,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SourceName {
    Local,
    Peers,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PeerTypeName {
    External,
    Internal,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RuleSection {
    action: ActionName,
    prefix: Option<Text<Prefix>>,
    r#match: Option<MatchName>,
    min_length: Option<u8>,
    max_length: Option<u8>,
    source: Option<SourceName>,
    peer_type: Option<PeerTypeName>,
    #[serde(default)]
    communities: Vec<Text<Community>>,
    #[serde(default)]
    large_communities: Vec<Text<LargeCommunity>>,
    #[serde(default)]
    as_path_prefix: Vec<Text<Asn>>,
    #[serde(default)]
    add_communities: Vec<Text<Community>>,
    #[serde(default)]
    add_large_communities: Vec<Text<LargeCommunity>>,
    #[serde(default)]
    prepend_as_path: Vec<Text<Asn>>,
    set_local_pref: Option<u32>,
    set_med: Option<u32>,
}

/// Reads a file. An error names the file, and the line and field if it has one.
pub(crate) fn read(path: &Path) -> anyhow::Result<Config> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

pub(crate) fn parse(text: &str) -> anyhow::Result<Config> {
    let file: File = toml::from_str(text)?;
    let mut filters = BTreeMap::new();
    for section in file.filter {
        let name = section.name.clone();
        if filters.insert(name.clone(), Arc::new(filter(section))).is_some() {
            bail!("two filters are called '{name}'");
        }
    }
    let mut speaker = SpeakerConfig::new(file.router.r#as.0, file.router.router_id.0);
    apply_router(&file.router, &mut speaker);
    let mut names = BTreeSet::new();
    for section in file.peer {
        let peer = peer(section, &filters)?;
        if !names.insert(peer.name.clone()) {
            bail!("two peers are called '{}'; give them different names", peer.name);
        }
        speaker.peers.push(peer);
    }
    let listen = match file.router.listen {
        Some(listen) => listen.into_iter().map(|address| address.0).collect(),
        None => bgp::driver::Options::on_port(BGP_PORT).listen,
    };
    Ok(Config {
        speaker,
        networks: file.network.into_iter().map(network).collect(),
        listen,
        install_routes: file.router.install_routes,
        redistribute_connected: file.router.redistribute_connected,
        metric: file.router.metric.unwrap_or(METRIC),
        status_socket: file.router.status_socket,
    })
}

fn replace<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn apply_router(section: &RouterSection, speaker: &mut SpeakerConfig) {
    speaker.cluster_id = section.cluster_id.as_ref().map(|id| id.0);
    replace(&mut speaker.max_paths, section.max_paths);
    replace(&mut speaker.multipath_relax, section.multipath_relax);
    replace(&mut speaker.restart_time, section.restart_time.map(|time| time.0));
}

fn network(section: NetworkSection) -> (Prefix, LocalRoute) {
    let route = LocalRoute {
        communities: section.communities.into_iter().map(|each| each.0).collect(),
        large_communities: section.large_communities.into_iter().map(|each| each.0).collect(),
        med: section.med,
        local_pref: section.local_pref,
        ..LocalRoute::default()
    };
    (section.prefix.0, route)
}

fn peer(
    section: PeerSection,
    filters: &BTreeMap<String, Arc<Filter>>,
) -> anyhow::Result<PeerConfig> {
    let address = section.address.0;
    let name = section.name.unwrap_or_else(|| address.to_string());
    let policy = |names: &[String], default: Option<ActionName>, field: &str| {
        let found = names.iter().map(|wanted| {
            filters
                .get(wanted)
                .cloned()
                .with_context(|| format!("peer '{name}', {field}: there is no filter '{wanted}'"))
        });
        let default = default.unwrap_or(ActionName::Accept).into();
        anyhow::Ok(Policy { filters: found.collect::<Result<_, _>>()?, default })
    };
    let import = policy(&section.import, section.import_default, "import")?;
    let export = policy(&section.export, section.export_default, "export")?;
    if section.password.as_ref().is_some_and(|password| password.is_empty() || password.len() > 80)
    {
        bail!("peer '{name}', password: TCP MD5 takes 1 to 80 octets");
    }
    let mut peer = PeerConfig::new(name, address, section.r#as.0);
    peer.local_as = section.local_as.map(|asn| asn.0);
    peer.local_address = section.local_address.map(|address| address.0);
    peer.interface = section.interface;
    peer.passive = section.passive;
    peer.shutdown = section.shutdown;
    peer.password = section.password;
    peer.ttl_security = section.ttl_security;
    peer.ttl = section.ttl;
    peer.route_reflector_client = section.route_reflector_client;
    peer.max_prefixes = section.max_prefixes;
    peer.keepalive_time = section.keepalive_time.map(|time| time.0);
    peer.delay_open = section.delay_open.map(|time| time.0);
    peer.next_hop_ipv4 = section.next_hop_ipv4.map(|address| address.0.into());
    peer.next_hop_ipv6 = section.next_hop_ipv6.map(|address| address.0.into());
    (peer.import, peer.export) = (import, export);
    replace(&mut peer.port, section.port);
    replace(&mut peer.hold_time, section.hold_time.map(|time| time.0));
    replace(&mut peer.connect_retry, section.connect_retry.map(|time| time.0));
    replace(&mut peer.idle_hold, section.idle_hold.map(|time| time.0));
    replace(&mut peer.idle_hold_max, section.idle_hold_max.map(|time| time.0));
    replace(&mut peer.stale_time, section.stale_time.map(|time| time.0));
    replace(&mut peer.graceful_restart, section.graceful_restart);
    replace(&mut peer.extended_message, section.extended_message);
    replace(&mut peer.local_pref, section.local_pref);
    replace(&mut peer.allow_own_as, section.allow_own_as);
    replace(&mut peer.next_hop, section.next_hop.map(NextHopMode::from));
    replace(&mut peer.families, section.families.map(families));
    Ok(peer)
}

fn families(names: Vec<FamilyName>) -> Families {
    let families = names.into_iter().map(|name| match name {
        FamilyName::Ipv4 => bgp::Family::Ipv4,
        FamilyName::Ipv6 => bgp::Family::Ipv6,
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

impl From<ActionName> for Action {
    fn from(name: ActionName) -> Self {
        match name {
            ActionName::Accept => Self::Accept,
            ActionName::Reject => Self::Reject,
        }
    }
}

fn filter(section: FilterSection) -> Filter {
    Filter { name: section.name, rules: section.rule.into_iter().map(rule).collect() }
}

fn rule(section: RuleSection) -> Rule {
    let lengths = LengthRange { min: section.min_length, max: section.max_length };
    let operator = match section.r#match.unwrap_or(MatchName::In) {
        MatchName::Equal => PrefixOperator::Equal,
        MatchName::NotEqual => PrefixOperator::NotEqual,
        MatchName::In => PrefixOperator::In,
        MatchName::NotIn => PrefixOperator::NotIn,
    };
    let standard = |list: Vec<Text<Community>>| {
        list.into_iter().map(|each| AnyCommunity::Standard(each.0)).collect::<Vec<_>>()
    };
    let large = |list: Vec<Text<LargeCommunity>>| {
        list.into_iter().map(|each| AnyCommunity::Large(each.0)).collect::<Vec<_>>()
    };
    let added = [standard(section.add_communities), large(section.add_large_communities)];
    let mut operations: Vec<Operation> =
        added.into_iter().flatten().map(Operation::AddCommunity).collect();
    if !section.prepend_as_path.is_empty() {
        let path = section.prepend_as_path.into_iter().map(|asn| asn.0).collect();
        operations.push(Operation::PrependAsPath(path));
    }
    operations.extend(section.set_local_pref.map(Operation::SetLocalPref));
    operations.extend(section.set_med.map(Operation::SetMed));
    Rule {
        prefix: section.prefix.map(|prefix| PrefixMatch { operator, prefix: prefix.0, lengths }),
        source: section.source.map(|source| match source {
            SourceName::Local => Source::Local,
            SourceName::Peers => Source::Peers,
        }),
        peer_type: section.peer_type.map(|name| match name {
            PeerTypeName::External => PeerType::External,
            PeerTypeName::Internal => PeerType::Internal,
        }),
        communities: [standard(section.communities), large(section.large_communities)].concat(),
        as_path_prefix: section.as_path_prefix.into_iter().map(|asn| asn.0).collect(),
        operations,
        ..Rule::new(section.action.into())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn a_whole_file() {
        let config = parse(include_str!("../../../tests/interop/voile-bgpd.toml")).unwrap();
        assert_eq!(config.speaker.local_as, Asn(65001));
        assert_eq!(config.networks.len(), 2);
        assert_eq!(config.speaker.peers.len(), 3);
        assert_eq!(config.speaker.peers[0].export.filters.len(), 1);
    }

    #[test]
    fn errors_name_the_line_and_the_field() {
        expect![[r#"
            TOML parse error at line 3, column 13
              |
            3 | router-id = "10.0.0"
              |             ^^^^^^^^
            '10.0.0': invalid IPv4 address syntax
        "#]]
        .assert_eq(&error("[router]\nas = 65001\nrouter-id = \"10.0.0\"\n"));
        let head = "[router]\nas = 65001\nrouter-id = \"10.0.0.1\"\n";
        expect![[r#"
            TOML parse error at line 7, column 1
              |
            7 | hold-tim = 3
              | ^^^^^^^^
            unknown field `hold-tim`, expected one of `name`, `address`, `as`, `port`, `local-as`, `local-address`, `interface`, `passive`, `shutdown`, `password`, `ttl-security`, `ttl`, `families`, `hold-time`, `keepalive-time`, `connect-retry`, `delay-open`, `idle-hold`, `idle-hold-max`, `graceful-restart`, `stale-time`, `extended-message`, `local-pref`, `next-hop`, `next-hop-ipv4`, `next-hop-ipv6`, `route-reflector-client`, `allow-own-as`, `max-prefixes`, `import`, `export`, `import-default`, `export-default`
        "#]]
        .assert_eq(&error(&format!("{head}[[peer]]\naddress = \"10.0.0.2\"\nas = 1\nhold-tim = 3\n")));
        expect!["peer '10.0.0.2', import: there is no filter 'x'"].assert_eq(&error(&format!(
            "{head}[[peer]]\naddress = \"10.0.0.2\"\nas = 1\nimport = [\"x\"]\n"
        )));
    }
}
