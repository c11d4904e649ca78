//! From what the cluster says about BGP to the speaker's configuration. Pure.
//!
//! Export follows Calico's order (`bird_ipam.cfg.template`): BGPFilters, pools with export disabled, then our own routes
//! inside pools; nothing else. Routes learned from peers are passed on only by route reflectors: a node is no transit.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use api::{BgpFilterRule, BgpFilterSpec, FilterAction, MatchOperator, RouteSource};
use bgp::{
    AddPathMode, Asn, Family, PeerConfig, PeerType, Prefix, RouterId, SpeakerConfig,
    config::NextHopMode,
    filter::{
        Action, AnyCommunity, Filter, LengthRange, Operation, Policy, PrefixMatch, PrefixOperator,
        Rule, Source,
    },
};

use crate::peering::{BgpView, Local, Origin, Peering, Problem, Subject, peerings};

/// LOCAL_PREF that stands for the normal kernel metric 1024 among Calico's nodes (v3.32 and later).
const CALICO_LOCAL_PREF: u32 = 2_147_483_647 - 1024;

/// Behind a problem that does not take sessions down.
const KEPT: &str = "; what runs stays as it was";

/// What the speaker shall do, where it comes from, and what could not be used.
#[derive(Clone, Debug)]
pub(crate) struct Spoken {
    /// For the speaker.
    pub(crate) config: SpeakerConfig,
    /// The sessions: where each comes from.
    pub(crate) peerings: Vec<Peering>,
    /// What cannot be used, and why.
    pub(crate) problems: Vec<Problem>,
}

/// Returns the speaker's configuration, once this node is known.
///
/// What cannot be understood any more stays as it was in `last`: a typo in a BGPPeer, a filter or a secret that was removed must not
/// take a session down that runs.
pub(crate) fn speaker_config(
    view: &BgpView,
    node_name: &str,
    last: Option<&Spoken>,
) -> Option<Spoken> {
    let local = view.local(node_name)?;
    let (wanted, mut problems) = peerings(view, node_name);
    let mut config = SpeakerConfig::new(Asn(local.asn), router_id(&local, node_name));
    config.cluster_id = match local.cluster_id.as_deref().map(str::parse::<RouterId>) {
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => {
            let reason = "RouteReflectorClusterID must look like an IPv4 address";
            problems.push(Problem::new(Subject::Other, reason));
            None
        }
        None => None,
    };
    let advertisements = advertisements(view, &mut problems);
    let mut peerings = Vec::new();
    for peering in wanted {
        match peer_config(view, &local, &peering, &advertisements) {
            Ok(peer) => {
                config.peers.push(peer);
                peerings.push(peering);
            }
            Err(reason) => problems.push(Problem::new(peering.subject(), reason)),
        }
    }
    let mut spoken = Spoken { config, peerings, problems };
    if let Some(last) = last {
        spoken.keep(last);
    }
    let restart = spoken.peerings.iter().filter_map(|peer| peer.restart_seconds).max();
    if let Some(seconds) = restart {
        spoken.config.restart_time = Duration::from_secs(u64::from(seconds));
    }
    Some(spoken)
}

impl Spoken {
    /// Takes over the sessions that only a problem prevents, and says so in it.
    fn keep(&mut self, last: &Self) {
        for peering in &last.peerings {
            let taken =
                |other: &Peering| other.address == peering.address || other.name == peering.name;
            if self.peerings.iter().any(taken) {
                continue;
            }
            let Some(problem) = self.problems.iter_mut().find(|each| each.prevents(peering)) else {
                continue;
            };
            let mut before = last.config.peers.iter();
            let Some(config) = before.find(|peer| peer.name == peering.name) else { continue };
            if !problem.reason.ends_with(KEPT) {
                problem.reason.push_str(KEPT);
            }
            self.config.peers.push(config.clone());
            self.peerings.push(peering.clone());
        }
    }
}

/// The IPv4 address of the node; without one, 31 bits of a hash of its name (RFC 6286 asks only for uniqueness in the AS).
fn router_id(local: &Local, node_name: &str) -> RouterId {
    if let Some(IpAddr::V4(address)) = local.ipv4 {
        return RouterId::from(address);
    }
    let fnv = |hash: u32, octet: &u8| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193);
    let hash = node_name.as_bytes().iter().fold(0x811c_9dc5, fnv);
    RouterId::from(Ipv4Addr::from(hash | 1))
}

fn peer_config(
    view: &BgpView,
    local: &Local,
    peer: &Peering,
    advertisements: &[Advertisement],
) -> Result<PeerConfig, String> {
    let mut config = PeerConfig::new(&peer.name, peer.address, Asn(peer.peer_as));
    config.port = peer.port;
    config.local_as = (peer.local_as != local.asn).then_some(Asn(peer.local_as));
    config.local_address = peer.source;
    config.passive = peer.passive;
    config.password.clone_from(&peer.password);
    config.ttl_security = peer.ttl_security;
    // All sessions of Calico's template are `multihop` with `gateway recursive`: next hops need not be on a shared network.
    config.multihop = true;
    config.keepalive_time =
        peer.keepalive_seconds.map(|seconds| Duration::from_secs(u64::from(seconds)));
    config.route_reflector_client = peer.route_reflector_client;
    config.allow_own_as = usize::from(peer.allow_own_as);
    config.blackhole = peer.blackhole.clone();
    config.bfd = peer.bfd;
    config.local_pref = CALICO_LOCAL_PREF;
    // Calico's BIRD has `add paths on` for every session: behind a reflector nodes share the load and fail over at once.
    config.add_path = AddPathMode::Both;
    config.next_hop = match (peer.next_hop_self, peer.next_hop_keep) {
        (true, _) => NextHopMode::Own,
        (false, true) => NextHopMode::Keep,
        (false, false) => NextHopMode::Auto,
    };
    let family = Family::of(&peer.address);
    let mut import = Vec::new();
    let mut export = Vec::new();
    for name in &peer.filters {
        let spec =
            view.filters.get(name).ok_or_else(|| format!("BGPFilter {name} does not exist"))?;
        import.push(Arc::new(filter(view, name, spec, family, false)?));
        export.push(Arc::new(filter(view, name, spec, family, true)?));
    }
    export.push(Arc::new(pools(view, local, peer, advertisements)));
    config.import = Policy { filters: import, default: Action::Accept };
    config.export = Policy { filters: export, default: Action::Reject };
    Ok(config)
}

/// Communities of what is announced within a prefix.
struct Advertisement {
    prefix: Prefix,
    communities: Vec<AnyCommunity>,
}

/// Reads `prefixAdvertisements` of a BGPConfiguration, whose communities are values or names; longest prefixes first.
fn advertisements(view: &BgpView, problems: &mut Vec<Problem>) -> Vec<Advertisement> {
    let Some(default) = &view.default else { return Vec::new() };
    let value = |text: &str| {
        let named = default.communities.iter().find(|each| each.name.as_deref() == Some(text));
        community(named.and_then(|each| each.value.as_deref()).unwrap_or(text))
    };
    let mut found = Vec::new();
    for (index, each) in default.prefix_advertisements.iter().enumerate() {
        let cidr = each.cidr.as_deref().unwrap_or_default();
        let prefix = cidr.parse().map_err(|error| format!("cidr: {error}"));
        let communities: Result<Vec<_>, String> =
            each.communities.iter().map(|text| value(text)).collect();
        match prefix.and_then(|prefix| Ok(Advertisement { prefix, communities: communities? })) {
            Ok(advertisement) => found.push(advertisement),
            // No session depends on it.
            Err(reason) => problems.push(Problem::new(
                Subject::Other,
                format!("BGPConfiguration default: prefixAdvertisements[{index}]: {reason}"),
            )),
        }
    }
    found.sort_by_key(|each| std::cmp::Reverse(each.prefix.length()));
    found
}

/// Rules that attach communities to routes within a pool: those of every advertisement that a route is within.
fn marked(pool: Prefix, advertisements: &[Advertisement]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for each in advertisements {
        let prefix = match (pool.contains(&each.prefix), each.prefix.contains(&pool)) {
            (true, _) => each.prefix,
            (false, true) => pool,
            (false, false) => continue,
        };
        let covering = advertisements.iter().filter(|other| other.prefix.contains(&prefix));
        let communities = covering.flat_map(|other| other.communities.iter().copied());
        rules.push(Rule {
            operations: communities.map(Operation::AddCommunity).collect(),
            ..Rule::new(Action::Accept).with_prefix(PrefixOperator::In, prefix)
        });
    }
    rules
}

/// What a node announces unless a BGPFilter decided before.
fn pools(
    view: &BgpView,
    local: &Local,
    peer: &Peering,
    advertisements: &[Advertisement],
) -> Filter {
    let mut rules = Vec::new();
    if local.cluster_id.is_none() {
        rules.push(Rule { source: Some(Source::Peers), ..Rule::new(Action::Reject) });
    }
    for pool in view.pools.values() {
        let Ok(prefix) = pool.cidr.parse::<Prefix>() else { continue };
        let hidden = pool.disable_bgp_export && peer.origin != Origin::Mesh;
        let action = if hidden { Action::Reject } else { Action::Accept };
        if !hidden {
            rules.extend(marked(prefix, advertisements));
        }
        rules.push(Rule::new(action).with_prefix(PrefixOperator::In, prefix));
    }
    Filter { name: "IPPools".to_owned(), rules }
}

fn filter(
    view: &BgpView,
    name: &str,
    spec: &BgpFilterSpec,
    family: Family,
    export: bool,
) -> Result<Filter, String> {
    let rules = match (export, family) {
        (false, Family::Ipv4) => &spec.import_v4,
        (false, Family::Ipv6) => &spec.import_v6,
        (true, Family::Ipv4) => &spec.export_v4,
        (true, Family::Ipv6) => &spec.export_v6,
    };
    let rules = rules.iter().enumerate().map(|(index, spec)| {
        rule(view, spec).map_err(|reason| {
            let direction = if export { "export" } else { "import" };
            format!("BGPFilter {name} {direction} rule {index}: {reason}")
        })
    });
    Ok(Filter { name: format!("BGPFilter {name}"), rules: rules.collect::<Result<_, _>>()? })
}

/// Networks of the interfaces that a pattern of BIRD's fits: `*` stands for any text, `?` for one character.
fn networks(view: &BgpView, pattern: &str) -> Vec<Prefix> {
    let fitting = view.links.iter().filter(|(name, _)| fits(pattern.as_bytes(), name.as_bytes()));
    fitting.flat_map(|(_, networks)| networks.iter().copied()).collect()
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, _) => name.is_empty(),
        (Some((b'*', rest)), None) => fits(rest, name),
        (Some((b'*', rest)), Some((_, tail))) => fits(rest, name) || fits(pattern, tail),
        (Some((b'?', rest)), Some((_, tail))) => fits(rest, tail),
        (Some((own, rest)), Some((other, tail))) => own == other && fits(rest, tail),
        (Some(_), None) => false,
    }
}

fn rule(view: &BgpView, spec: &BgpFilterRule) -> Result<Rule, String> {
    let mut rule = Rule::new(match spec.action {
        FilterAction::Accept => Action::Accept,
        FilterAction::Reject => Action::Reject,
    });
    rule.prefix = match (&spec.cidr, spec.match_operator) {
        (None, None) if spec.prefix_length.is_some() => {
            return Err("prefixLength needs cidr and matchOperator".to_owned());
        }
        (None, None) => None,
        (Some(cidr), Some(operator)) => Some(PrefixMatch {
            prefix: cidr.parse().map_err(|error| format!("cidr: {error}"))?,
            operator: match operator {
                MatchOperator::Equal => PrefixOperator::Equal,
                MatchOperator::NotEqual => PrefixOperator::NotEqual,
                MatchOperator::In => PrefixOperator::In,
                MatchOperator::NotIn => PrefixOperator::NotIn,
            },
            lengths: spec.prefix_length.as_ref().map_or_else(LengthRange::default, |range| {
                LengthRange { min: range.min, max: range.max }
            }),
        }),
        _ => return Err("cidr and matchOperator go together".to_owned()),
    };
    // The interface of a route is the one towards its next hop. Our own blocks have none (Calico: blackholes).
    rule.next_hop = spec.interface.as_deref().map(|pattern| networks(view, pattern));
    rule.source = spec.source.map(|source| match source {
        RouteSource::RemotePeers => Source::Peers,
    });
    rule.peer_type = spec.peer_type.map(|kind| match kind {
        api::PeerType::Ebgp => PeerType::External,
        api::PeerType::Ibgp => PeerType::Internal,
    });
    if let Some(communities) = &spec.communities {
        rule.communities =
            communities.values.iter().map(|text| community(text)).collect::<Result<_, _>>()?;
    }
    rule.as_path_prefix = spec.as_path_prefix.iter().copied().map(Asn).collect();
    rule.local_pref = spec.priority.map(local_pref);
    for operation in &spec.operations {
        if let Some(add) = &operation.add_community {
            rule.operations.push(Operation::AddCommunity(community(&add.value)?));
        }
        if let Some(prepend) = &operation.prepend_as_path {
            let path = prepend.prefix.iter().copied().map(Asn).collect();
            rule.operations.push(Operation::PrependAsPath(path));
        }
        if let Some(priority) = &operation.set_priority {
            rule.operations.push(Operation::SetLocalPref(local_pref(priority.value)));
        }
    }
    Ok(rule)
}

/// Calico carries the kernel metric over BGP as 2^31 - 1 minus it.
fn local_pref(priority: u32) -> u32 {
    2_147_483_647_u32.saturating_sub(priority)
}

fn community(text: &str) -> Result<AnyCommunity, String> {
    if let Ok(standard) = text.parse() {
        return Ok(AnyCommunity::Standard(standard));
    }
    text.parse()
        .map(AnyCommunity::Large)
        .map_err(|_| format!("'{text}' is no community; write aa:nn or aa:nn:mm"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_node_announces_its_own_blocks_and_is_no_transit() {
        let node = json!({"metadata": {"name": "n1", "annotations": {"projectcalico.org/IPv4Address": "10.0.0.1/24"}}, "spec": {}});
        let peer = json!({"metadata": {"name": "leaf"}, "spec": {"peerIP": "10.1.1.1", "asNumber": 65101, "filters": ["no"]}});
        let mut view = BgpView::default();
        view.nodes.insert("n1".into(), serde_json::from_value(node).unwrap());
        view.peers.insert("leaf".into(), serde_json::from_value(peer).unwrap());
        view.pools
            .insert("p".into(), serde_json::from_value(json!({"cidr": "10.244.0.0/16"})).unwrap());
        let Spoken { config, problems, .. } = speaker_config(&view, "n1", None).unwrap();
        assert!(config.peers.is_empty());
        assert_eq!(lines(&problems), ["BGPPeer leaf: BGPFilter no does not exist"]);

        view.filters.insert("no".into(), BgpFilterSpec::default());
        let Spoken { config, problems, .. } = speaker_config(&view, "n1", None).unwrap();
        assert_eq!(problems, []);
        let export = &config.peers[0].export;
        assert_eq!(export.default, Action::Reject);
        let rules = &export.filters[1].rules;
        assert_eq!(rules[0].source, Some(Source::Peers));
        assert_eq!(rules[0].action, Action::Reject);
        assert_eq!(rules[1].action, Action::Accept);
    }

    #[test]
    fn what_cannot_be_understood_any_more_takes_no_session_down() {
        let node = |name: &str, address: &str| json!({"metadata": {"name": name, "annotations": {"projectcalico.org/IPv4Address": address}}, "spec": {}});
        let tor = |spec: serde_json::Value| -> api::BgpPeer {
            serde_json::from_value(json!({"metadata": {"name": "tor"}, "spec": spec})).unwrap()
        };
        let mut view = BgpView::default();
        for (name, address) in [("n1", "10.0.0.1/24"), ("n2", "10.0.0.2/24")] {
            view.nodes.insert(name.into(), serde_json::from_value(node(name, address)).unwrap());
        }
        view.peers.insert("tor".into(), tor(json!({"peerIP": "10.1.1.1", "asNumber": 65101})));
        let good = speaker_config(&view, "n1", None).unwrap();
        let names = |spoken: &Spoken| -> Vec<String> {
            spoken.config.peers.iter().map(|peer| peer.name.clone()).collect()
        };
        assert_eq!(names(&good), ["n2", "tor"]);

        // A filter that does not exist, a secret that cannot be read, an address that is none: of a BGPPeer and of the mesh.
        let secret = json!({"secretKeyRef": {"name": "no", "key": "k"}});
        for broken in [
            json!({"peerIP": "10.1.1.1", "asNumber": 65101, "filters": ["no"]}),
            json!({"peerIP": "10.1.1.1", "asNumber": 65101, "password": secret}),
            json!({"peerIP": "10.1.1", "asNumber": 65101}),
        ] {
            view.peers.insert("tor".into(), tor(broken));
            let kept = speaker_config(&view, "n1", Some(&good)).unwrap();
            assert_eq!(names(&kept), ["n2", "tor"]);
            assert_eq!(kept.config.peers[1], good.config.peers[1]);
            let [problem] = &lines(&kept.problems)[..] else { panic!("{:?}", kept.problems) };
            assert!(problem.starts_with("BGPPeer tor: ") && problem.ends_with(KEPT), "{problem}");
            // Without a past there is nothing to keep, and nothing is promised.
            let fresh = speaker_config(&view, "n1", None).unwrap();
            assert_eq!(names(&fresh), ["n2"]);
            assert!(!lines(&fresh.problems)[0].contains(KEPT));
        }
        let mesh = json!({"nodeMeshPassword": secret});
        view.default = Some(serde_json::from_value(mesh).unwrap());
        let kept = speaker_config(&view, "n1", Some(&good)).unwrap();
        assert_eq!(names(&kept), ["n2", "tor"]);
        assert_eq!(kept.problems.len(), 2);

        // What is taken back on purpose goes, whatever else is wrong.
        view.peers.remove("tor");
        assert_eq!(names(&speaker_config(&view, "n1", Some(&kept)).unwrap()), ["n2"]);
    }

    #[test]
    fn a_rule_for_an_interface_is_about_next_hops_on_its_networks() {
        let node = json!({"metadata": {"name": "n1", "annotations": {"projectcalico.org/IPv4Address": "10.0.0.1/24"}}, "spec": {}});
        let peer = json!({"metadata": {"name": "leaf"}, "spec": {"peerIP": "10.1.1.1", "asNumber": 65101, "filters": ["f"]}});
        let filter = json!({
            "importV4": [{"interface": "eth1", "action": "Reject"}, {"interface": "bond?.1*", "action": "Reject"}],
            "exportV4": [{"interface": "*", "action": "Reject"}],
        });
        let mut view = BgpView::default();
        view.nodes.insert("n1".into(), serde_json::from_value(node).unwrap());
        view.peers.insert("leaf".into(), serde_json::from_value(peer).unwrap());
        view.filters.insert("f".into(), serde_json::from_value(filter).unwrap());
        view.pools
            .insert("p".into(), serde_json::from_value(json!({"cidr": "10.244.0.0/16"})).unwrap());
        for (name, network) in [
            ("eth0", "10.0.0.0/24"),
            ("eth1", "10.1.1.0/24"),
            ("bond0.100", "10.2.0.0/24"),
            ("bond0", "10.3.0.0/24"),
        ] {
            view.links.insert(name.into(), vec![network.parse().unwrap()]);
        }
        let Spoken { config, problems, .. } = speaker_config(&view, "n1", None).unwrap();
        assert_eq!(problems, []);
        let verdict = |policy: &Policy, next_hop: Option<[u8; 4]>| {
            let next_hop = next_hop.map(|each| bgp::attr::NextHop::from(IpAddr::from(each)));
            let attributes = bgp::PathAttributes { next_hop, ..bgp::PathAttributes::default() };
            let subject = bgp::filter::Subject {
                prefix: "10.244.0.0/26".parse().unwrap(),
                attributes: &attributes,
                source: if next_hop.is_some() { Source::Peers } else { Source::Local },
                peer_type: PeerType::External,
            };
            policy.judge(&subject).action
        };
        let (import, export) = (&config.peers[0].import, &config.peers[0].export);
        assert_eq!(verdict(import, Some([10, 1, 1, 1])), Action::Reject);
        assert_eq!(verdict(import, Some([10, 2, 0, 7])), Action::Reject);
        assert_eq!(verdict(import, Some([10, 0, 0, 7])), Action::Accept);
        assert_eq!(verdict(import, Some([10, 3, 0, 7])), Action::Accept);
        assert_eq!(verdict(export, None), Action::Accept);
    }

    #[test]
    fn communities_go_with_every_prefix_advertisement_that_covers_a_route() {
        let node = json!({"metadata": {"name": "n1", "annotations": {"projectcalico.org/IPv4Address": "10.0.0.1/24"}}, "spec": {}});
        let peer = json!({"metadata": {"name": "leaf"}, "spec": {"peerIP": "10.1.1.1", "asNumber": 65101}});
        let configuration = json!({
            "communities": [{"name": "pods", "value": "64512:100"}],
            "prefixAdvertisements": [
                {"cidr": "10.0.0.0/8", "communities": ["pods"]},
                {"cidr": "10.244.7.0/24", "communities": ["64512:1:7"]},
                {"cidr": "192.168.0.0/16", "communities": ["64512:9"]},
                {"cidr": "10.244.8.0/24", "communities": ["nobody"]},
            ],
        });
        let mut view = BgpView {
            default: Some(serde_json::from_value(configuration).unwrap()),
            ..BgpView::default()
        };
        view.nodes.insert("n1".into(), serde_json::from_value(node).unwrap());
        view.peers.insert("leaf".into(), serde_json::from_value(peer).unwrap());
        view.pools
            .insert("p".into(), serde_json::from_value(json!({"cidr": "10.244.0.0/16"})).unwrap());
        let Spoken { config, problems, .. } = speaker_config(&view, "n1", None).unwrap();
        assert_eq!(
            lines(&problems),
            [
                "BGPConfiguration default: prefixAdvertisements[3]: 'nobody' is no community; write aa:nn or aa:nn:mm"
            ]
        );
        let attached = |text: &str| {
            let attributes = bgp::PathAttributes::default();
            let subject = bgp::filter::Subject {
                prefix: text.parse().unwrap(),
                attributes: &attributes,
                source: Source::Local,
                peer_type: PeerType::External,
            };
            let verdict = config.peers[0].export.judge(&subject);
            let mut changed = attributes.clone();
            verdict.operations.iter().for_each(|operation| operation.apply(&mut changed));
            let standard = changed.communities.iter().map(ToString::to_string);
            let large = changed.large_communities.iter().map(ToString::to_string);
            (verdict.action, standard.chain(large).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(attached("10.244.7.64/26"), (Action::Accept, "64512:100 64512:1:7".into()));
        assert_eq!(attached("10.244.9.0/26"), (Action::Accept, "64512:100".into()));
        assert_eq!(attached("192.168.1.0/24"), (Action::Reject, String::new()));
    }
}
