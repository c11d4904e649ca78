//! The configuration file, and what it means to the speaker.

mod bmp;
mod filter;
mod peer;
mod problem;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow};
use bgp::{
    Asn, Community, LargeCommunity, LocalRoute, Prefix, RouterId, SpeakerConfig, config::BGP_PORT,
};
use serde::Deserialize;
use toml::Spanned;

use self::{
    bmp::BmpSection,
    filter::FilterSection,
    peer::{Meaning, PeerSection, Surroundings},
    problem::Problems,
};
use crate::fields::{Network, Seconds, Text};

/// Metric of routes in the kernel, as Calico uses it.
const METRIC: u32 = 1024;
/// Twelve bits (RFC 4724 §3).
const LONGEST_RESTART: u64 = 4095;

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
    peer: Vec<Spanned<PeerSection>>,
    #[serde(default)]
    filter: Vec<FilterSection>,
    #[serde(default)]
    bmp: Vec<BmpSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RouterSection {
    r#as: Spanned<Text<Asn>>,
    router_id: Spanned<Text<RouterId>>,
    cluster_id: Option<Text<RouterId>>,
    listen: Option<Vec<Text<SocketAddr>>>,
    max_paths: Option<Spanned<usize>>,
    multipath_relax: Option<bool>,
    restart_time: Option<Spanned<Seconds>>,
    deferral_time: Option<Seconds>,
    ebgp_requires_policy: Option<bool>,
    #[serde(default)]
    install_routes: bool,
    follow_next_hops: Option<bool>,
    #[serde(default)]
    redistribute_connected: bool,
    metric: Option<u32>,
    status_socket: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct NetworkSection {
    prefix: Network,
    #[serde(default)]
    communities: Vec<Text<Community>>,
    #[serde(default)]
    large_communities: Vec<Text<LargeCommunity>>,
    med: Option<u32>,
    local_pref: Option<u32>,
}

/// Reads a file. An error names the file, and the line and field if it has one.
pub(crate) fn read(path: &Path) -> anyhow::Result<Config> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
        anyhow!("{}: line {line} is not UTF-8 text; save the file as UTF-8", path.display())
    })?;
    let config = parse(&text, &own_addresses()).with_context(|| path.display().to_string())?;
    bgp::driver::check(&config.speaker).with_context(|| path.display().to_string())?;
    let peers = config.speaker.peers.iter();
    let templates = config.speaker.groups.iter().map(|group| &group.template);
    for peer in peers.chain(templates) {
        peer::warn_without_policy(peer, config.speaker.local_as);
    }
    Ok(config)
}

/// The addresses of this machine; none if they cannot be read, because that only weakens a check.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let addresses = interfaces.filter_map(|interface| interface.address);
    addresses
        .filter_map(|address| match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
            (None, Some(v6)) => Some(IpAddr::V6(v6.ip())),
            (None, None) => None,
        })
        .collect()
}

/// Reads the text of a file on a machine with these addresses.
pub(crate) fn parse(text: &str, own: &[IpAddr]) -> anyhow::Result<Config> {
    let file: File = toml::from_str(text)?;
    let mut problems = Problems::new(text);
    let mut filters = BTreeMap::new();
    for section in file.filter {
        let (place, name) = (section.name.span(), section.name.get_ref().clone());
        let filter = Arc::new(filter::filter(section, &mut problems));
        if filters.insert(name.clone(), filter).is_some() {
            problems.add(&place, "filter", format!("two filters are called '{name}'"));
        }
    }
    let speaker = router(&file.router, &mut problems);
    let listen = match &file.router.listen {
        Some(listen) => listen.iter().map(|address| address.0).collect(),
        None => bgp::driver::Options::on_port(BGP_PORT).listen,
    };
    let install_routes = file.router.install_routes;
    let mut config = Config {
        speaker: SpeakerConfig {
            follow_next_hops: file.router.follow_next_hops.unwrap_or(install_routes),
            ..speaker
        },
        networks: file.network.into_iter().map(network).collect(),
        listen,
        install_routes,
        redistribute_connected: file.router.redistribute_connected,
        metric: file.router.metric.unwrap_or(METRIC),
        status_socket: file.router.status_socket,
    };
    config.speaker.collectors = bmp::collectors(file.bmp, &config.speaker, &mut problems);
    let around = Surroundings {
        filters: &filters,
        local_as: config.speaker.local_as,
        requires_policy: file.router.ebgp_requires_policy.unwrap_or(true),
    };
    let mut taken = Taken::default();
    for section in file.peer {
        let place = section.span();
        let Some(meaning) = peer::peer(section, &around, &mut problems) else { continue };
        if let Err(what) = taken.check(&meaning, &config.listen, own) {
            problems.add(&place, &format!("peer '{}'", meaning.name()), what);
        }
        match meaning {
            Meaning::Peer(peer) => config.speaker.peers.push(peer),
            Meaning::Group(group) => config.speaker.groups.push(group),
        }
    }
    problems.or(config)
}

/// Names and addresses that are in use.
#[derive(Debug, Default)]
struct Taken {
    names: BTreeSet<String>,
    peers: BTreeMap<(IpAddr, Option<String>), String>,
}

impl Taken {
    fn check(
        &mut self,
        meaning: &Meaning,
        listen: &[SocketAddr],
        own: &[IpAddr],
    ) -> Result<(), String> {
        if !self.names.insert(meaning.name().to_owned()) {
            return Err("two peers have this name; give them different ones".to_owned());
        }
        let Meaning::Peer(peer) = meaning else { return Ok(()) };
        let (address, port) = (peer.address, peer.port);
        let is_us = |socket: &SocketAddr| {
            let any = socket.ip().is_unspecified() && socket.is_ipv4() == address.is_ipv4();
            socket.port() == port && (socket.ip() == address || any && own.contains(&address))
        };
        if listen.iter().any(is_us) || peer.local_address == Some(address) {
            return Err(format!("{address} is an address of this router itself"));
        }
        let interface = peer.interface.clone().filter(|_| match address {
            IpAddr::V6(address) => address.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        });
        match self.peers.insert((address, interface), peer.name.clone()) {
            Some(other) => Err(format!("{address} is the address of peer '{other}' already")),
            None => Ok(()),
        }
    }
}

fn router(section: &RouterSection, problems: &mut Problems<'_>) -> SpeakerConfig {
    let (asn, router_id) = (section.r#as.get_ref().0, section.router_id.get_ref().0);
    match asn {
        Asn(0) => {
            problems.add(&section.r#as.span(), "router, as", "AS 0 belongs to nobody (RFC 7607)");
        }
        Asn::TRANS => {
            problems.add(&section.r#as.span(), "router, as", "AS 23456 is reserved (RFC 6793)");
        }
        _ => (),
    }
    if router_id.0 == 0 {
        let what = "0.0.0.0 is no identifier (RFC 6286); an address of this router is one";
        problems.add(&section.router_id.span(), "router, router-id", what);
    }
    let mut speaker = SpeakerConfig::new(asn, router_id);
    speaker.cluster_id = section.cluster_id.as_ref().map(|id| id.0);
    if let Some(paths) = &section.max_paths {
        speaker.max_paths = *paths.get_ref();
        if speaker.max_paths == 0 {
            problems.add(&paths.span(), "router, max-paths", "at least 1 path is needed");
        }
    }
    if let Some(relax) = section.multipath_relax {
        speaker.multipath_relax = relax;
    }
    if let Some(time) = &section.restart_time {
        speaker.restart_time = time.get_ref().0;
        if speaker.restart_time.as_secs() > LONGEST_RESTART {
            let what = "it is at most 4095 seconds (RFC 4724)";
            problems.add(&time.span(), "router, restart-time", what);
        }
    }
    if let Some(time) = section.deferral_time {
        speaker.deferral_time = time.0;
    }
    speaker
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
