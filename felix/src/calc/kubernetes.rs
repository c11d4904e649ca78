//! `networking.k8s.io/v1` NetworkPolicy in the engine's model.
//!
//! As Calico converts it (libcalico-go/lib/backend/k8s/conversion): tier `default`, order 1000, allow rules only. The
//! peers of a rule become one union, so that a rule costs the same however many peers it lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::{
    IntOrString, KubernetesNetworkPolicy, LabelSelector, NetworkPolicyPeer, NetworkPolicyPort,
    net::parse_net,
};

use super::{
    facts,
    model::{
        Action, Direction, Entity, Order, Peers, Policy, PolicyId, Ports, Rule, parse_protocol,
    },
    ranges::NetSet,
    selector::{LabelTerm, NamespaceTerm, Requirement, Selector},
};

/// Parses a policy. What can't be understood allows nothing and is noted.
pub(super) fn policy(id: &PolicyId, object: &KubernetesNetworkPolicy) -> Policy {
    let mut problems = Vec::new();
    let namespace = id.key.namespace.clone().unwrap_or_default();
    let spec = &object.spec;
    // A selector that can't be read selects the whole namespace: isolating too much is seen, too little is not.
    let subject = label_term(&spec.pod_selector).unwrap_or_else(|why| {
        problems.push(format!("spec.podSelector: {why}; every pod of the namespace is isolated"));
        LabelTerm::All
    });
    let (ingress, egress) = types(object);
    let ingress = ingress.then(|| {
        let rules = spec.ingress.iter().enumerate();
        rules
            .flat_map(|(index, rule)| {
                let origin = format!("ingress[{index}]");
                let from = (rule.from.as_slice(), Direction::Ingress);
                rules_of(&namespace, from, &rule.ports, &origin, &mut problems)
            })
            .collect()
    });
    let egress = egress.then(|| {
        let rules = spec.egress.iter().enumerate();
        rules
            .flat_map(|(index, rule)| {
                let origin = format!("egress[{index}]");
                let to = (rule.to.as_slice(), Direction::Egress);
                rules_of(&namespace, to, &rule.ports, &origin, &mut problems)
            })
            .collect()
    });
    Policy {
        id: id.clone(),
        tier: "default".to_owned(),
        order: Order(Some(1000.0)),
        subject: Arc::new(Selector::new(NamespaceTerm::Is(namespace), None, subject, true)),
        ingress,
        egress,
        problems,
    }
}

/// API: without `policyTypes`, ingress always, and egress if there are egress rules.
fn types(object: &KubernetesNetworkPolicy) -> (bool, bool) {
    let types = &object.spec.policy_types;
    if types.is_empty() {
        return (true, !object.spec.egress.is_empty());
    }
    let has = |wanted: &str| types.iter().any(|one| one == wanted);
    (has("Ingress"), has("Egress"))
}

fn rules_of(
    namespace: &str,
    (peers, direction): (&[NetworkPolicyPeer], Direction),
    ports: &[NetworkPolicyPort],
    origin: &str,
    problems: &mut Vec<String>,
) -> Vec<Rule> {
    let peers = (!peers.is_empty()).then(|| Arc::new(union(namespace, peers, origin, problems)));
    let services = by_protocol(ports, origin, problems);
    if ports.is_empty() {
        return vec![rule(origin, direction, peers, None, None)];
    }
    let rules = services.into_iter();
    rules
        .map(|(protocol, ports)| rule(origin, direction, peers.clone(), Some(protocol), ports))
        .collect()
}

fn rule(
    origin: &str,
    direction: Direction,
    peers: Option<Arc<Peers>>,
    protocol: Option<u8>,
    ports: Option<Ports>,
) -> Rule {
    let mut rule = Rule::any(Action::Allow, origin);
    rule.protocol = protocol;
    rule.destination = Entity { ports, ..Entity::default() };
    match direction {
        Direction::Ingress => rule.source.peers = peers,
        Direction::Egress => rule.destination.peers = peers,
    }
    rule
}

fn union(
    namespace: &str,
    peers: &[NetworkPolicyPeer],
    origin: &str,
    problems: &mut Vec<String>,
) -> Peers {
    let mut union = Peers::default();
    for (index, peer) in peers.iter().enumerate() {
        match selector_or_nets(namespace, peer, origin, problems) {
            Ok(Either::Selector(selector)) => {
                union.selectors.insert(Arc::new(selector));
            }
            Ok(Either::Nets(nets)) => union.nets = union.nets.union(&nets),
            Err(why) => problems
                .push(format!("spec.{origin}, peer {index}: {why}; the peer is not allowed")),
        }
    }
    union
}

enum Either {
    Selector(Selector),
    Nets(NetSet),
}

fn selector_or_nets(
    namespace: &str,
    peer: &NetworkPolicyPeer,
    origin: &str,
    problems: &mut Vec<String>,
) -> Result<Either, String> {
    if let Some(block) = &peer.ip_block {
        let net = parse_net(&block.cidr).map_err(|why| format!("ipBlock.cidr: {why}"))?;
        let before = problems.len();
        let except = facts::nets(&block.except, &format!("spec.{origin}.ipBlock.except"), problems);
        if problems.len() > before {
            return Err("ipBlock.except can't be read".to_owned());
        }
        return Ok(Either::Nets(NetSet::new([&net]).minus(&NetSet::new(&except))));
    }
    if peer.pod_selector.is_none() && peer.namespace_selector.is_none() {
        return Err("has neither podSelector, namespaceSelector nor ipBlock".to_owned());
    }
    let namespaces = match &peer.namespace_selector {
        Some(selector) => NamespaceTerm::Labels(label_term(selector)?),
        None => NamespaceTerm::Is(namespace.to_owned()),
    };
    let labels = match &peer.pod_selector {
        Some(selector) => label_term(selector)?,
        None => LabelTerm::All,
    };
    Ok(Either::Selector(Selector::new(namespaces, None, labels, true)))
}

/// The ports of one protocol.
#[derive(Default)]
struct Group {
    any: bool,
    ranges: Vec<(u16, u16)>,
    names: BTreeSet<String>,
}

/// Ports grouped by protocol; `None` is every port of it.
fn by_protocol(
    ports: &[NetworkPolicyPort],
    origin: &str,
    problems: &mut Vec<String>,
) -> BTreeMap<u8, Option<Ports>> {
    let mut groups: BTreeMap<u8, Group> = BTreeMap::new();
    for (index, port) in ports.iter().enumerate() {
        match one_port(port) {
            Ok((protocol, parsed)) => {
                let group = groups.entry(protocol).or_default();
                match parsed {
                    OnePort::Any => group.any = true,
                    OnePort::Range(from, to) => group.ranges.push((from, to)),
                    OnePort::Name(name) => {
                        group.names.insert(name);
                    }
                }
            }
            Err(why) => problems
                .push(format!("spec.{origin}.ports[{index}]: {why}; the port is not allowed")),
        }
    }
    let ports = |group: Group| (!group.any).then(|| Ports::new(group.ranges, group.names));
    groups.into_iter().map(|(protocol, group)| (protocol, ports(group))).collect()
}

enum OnePort {
    Any,
    Range(u16, u16),
    Name(String),
}

fn one_port(port: &NetworkPolicyPort) -> Result<(u8, OnePort), String> {
    let text = port.protocol.as_deref().unwrap_or("TCP");
    let protocol =
        parse_protocol(text).ok_or_else(|| format!("protocol `{text}` is not TCP, UDP or SCTP"))?;
    let number = |value: i64| {
        u16::try_from(value).map_err(|_| format!("port {value} is not between 0 and 65535"))
    };
    let parsed = match &port.port {
        None => OnePort::Any,
        Some(IntOrString::String(name)) => OnePort::Name(name.clone()),
        Some(IntOrString::Int(from)) => {
            let from = number(*from)?;
            let to = match port.end_port {
                Some(to) => number(i64::from(to))?,
                None => from,
            };
            if to < from {
                return Err(format!("endPort {to} is below port {from}"));
            }
            OnePort::Range(from, to)
        }
    };
    Ok((protocol, parsed))
}

/// A Kubernetes label selector.
pub(super) fn label_term(selector: &LabelSelector) -> Result<LabelTerm, String> {
    let mut all: Vec<Requirement> = selector
        .match_labels
        .iter()
        .map(|(key, value)| Requirement::In(key.clone(), BTreeSet::from([value.clone()])))
        .collect();
    for one in &selector.match_expressions {
        let values: BTreeSet<String> = one.values.iter().cloned().collect();
        all.push(match one.operator.as_str() {
            "In" => Requirement::In(one.key.clone(), values),
            "NotIn" => Requirement::NotIn(one.key.clone(), values),
            "Exists" => Requirement::Exists(one.key.clone()),
            "DoesNotExist" => Requirement::DoesNotExist(one.key.clone()),
            other => return Err(format!("operator `{other}` is not known")),
        });
    }
    Ok(LabelTerm::kubernetes(all))
}
