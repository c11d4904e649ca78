//! `projectcalico.org/v3` policies and tiers in the engine's model.
//!
//! What can't be understood fails closed: an Allow or Log rule is left out, a Deny or Pass rule denies everything, a
//! policy whose selector can't be read denies whatever its readable parts still select. A policy of the cluster without a
//! readable part that limits it is left out and reported: denying every pod would turn a typo into an outage (ADR 9).

use std::{collections::BTreeSet, sync::Arc};

use api::{
    EntityRule, GlobalNetworkPolicy, Key, NetworkPolicy, PolicyType, Port, Protocol,
    net::PortMeaning,
};

use super::{
    facts,
    model::{
        Action, Direction, Entity, ICMP, ICMPV6, Icmp, Order, Peers, Policy, PolicyId, Ports, Rule,
        ServiceMatch, Tier, has_ports,
    },
    ranges::NetSet,
    selector::{AccountTerm, LabelTerm, NamespaceTerm, Selector},
};
use crate::nft::Family;

/// Parses a tier. The default action is Deny (api: tier.go).
pub(super) fn tier(object: &api::Tier) -> Tier {
    Tier {
        order: Order(object.spec.order),
        pass_by_default: object.spec.default_action == api::Action::Pass,
    }
}

/// Parses a policy of a namespace.
pub(super) fn policy(id: &PolicyId, object: &NetworkPolicy) -> Policy {
    let spec = &object.spec;
    let namespace = id.key.namespace.clone().unwrap_or_default();
    let mut parse = Parse { namespace: Some(namespace.clone()), problems: Vec::new() };
    let subject = parse.subject(
        NamespaceTerm::Is(namespace),
        spec.selector.as_deref(),
        spec.service_account_selector.as_deref(),
    );
    let directions = types(&spec.types, !spec.ingress.is_empty(), !spec.egress.is_empty());
    let ingress = parse.rules(&spec.ingress, Direction::Ingress);
    let egress = parse.rules(&spec.egress, Direction::Egress);
    parse.finish(id, (&spec.tier, spec.order), subject, directions, (ingress, egress))
}

/// Parses a policy of the cluster; `None` when it is about hosts only.
pub(super) fn global_policy(id: &PolicyId, object: &GlobalNetworkPolicy) -> Option<Policy> {
    let spec = &object.spec;
    // Both are about host endpoints, before and instead of the workload rules.
    if spec.do_not_track || spec.pre_dnat {
        return None;
    }
    let mut parse = Parse { namespace: None, problems: Vec::new() };
    let namespaces = match spec.namespace_selector.as_deref().filter(|text| !text.is_empty()) {
        None => NamespaceTerm::Any,
        Some(text) => parse.namespaces(text).unwrap_or_else(|why| {
            parse.problems.push(format!("spec.namespaceSelector: {why}"));
            match LabelTerm::readable_part(text) {
                LabelTerm::All => NamespaceTerm::Any,
                part => NamespaceTerm::Labels(part),
            }
        }),
    };
    let subject = parse.subject(
        namespaces,
        spec.selector.as_deref(),
        spec.service_account_selector.as_deref(),
    );
    let directions = types(&spec.types, !spec.ingress.is_empty(), !spec.egress.is_empty());
    if subject.broken && subject.selector.selects_everything() {
        let left_out = "nothing that limits the policy can be read, so it is not enforced at all";
        parse.problems.push(left_out.to_owned());
        return Some(parse.finish(
            id,
            (&spec.tier, spec.order),
            subject,
            (false, false),
            Default::default(),
        ));
    }
    let ingress = parse.rules(&spec.ingress, Direction::Ingress);
    let egress = parse.rules(&spec.egress, Direction::Egress);
    Some(parse.finish(id, (&spec.tier, spec.order), subject, directions, (ingress, egress)))
}

/// Calico: without `types`, ingress if there are ingress rules or no egress rules, egress if there are egress rules.
fn types(types: &[PolicyType], ingress: bool, egress: bool) -> (bool, bool) {
    if types.is_empty() {
        return (ingress || !egress, egress);
    }
    (types.contains(&PolicyType::Ingress), types.contains(&PolicyType::Egress))
}

/// What is being parsed, with what was found wrong so far.
struct Parse {
    /// Namespace of the policy, if it has one.
    namespace: Option<String>,
    problems: Vec<String>,
}

/// Who a policy applies to.
struct Subject {
    selector: Selector,
    /// Some part could not be read: deny instead of applying the rules.
    broken: bool,
}

impl Parse {
    fn subject(
        &mut self,
        namespaces: NamespaceTerm,
        selector: Option<&str>,
        accounts: Option<&str>,
    ) -> Subject {
        let mut broken = !self.problems.is_empty();
        let mut term = |field: &str, text: Option<&str>| {
            let text = text.unwrap_or_default();
            LabelTerm::calico(text).unwrap_or_else(|why| {
                self.problems.push(format!("spec.{field}: {why}; what the rest selects is denied"));
                broken = true;
                LabelTerm::readable_part(text)
            })
        };
        let labels = term("selector", selector);
        let accounts = accounts.filter(|text| !text.is_empty()).map(|text| AccountTerm {
            names: BTreeSet::new(),
            labels: term("serviceAccountSelector", Some(text)),
        });
        Subject { selector: Selector::new(namespaces, accounts, labels, false), broken }
    }

    fn finish(
        self,
        id: &PolicyId,
        (tier, order): (&str, Option<f64>),
        subject: Subject,
        (ingress, egress): (bool, bool),
        (ingress_rules, egress_rules): (Vec<Rule>, Vec<Rule>),
    ) -> Policy {
        let rules = |applies: bool, rules: Vec<Rule>| {
            let denied = vec![Rule::any(Action::Deny, "unreadable selector")];
            applies.then_some(if subject.broken { denied } else { rules })
        };
        Policy {
            id: id.clone(),
            tier: if tier.is_empty() { "default" } else { tier }.to_owned(),
            order: Order(order),
            ingress: rules(ingress, ingress_rules),
            egress: rules(egress, egress_rules),
            subject: Arc::new(subject.selector),
            problems: self.problems,
        }
    }

    fn rules(&mut self, rules: &[api::Rule], direction: Direction) -> Vec<Rule> {
        let mut out = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let origin = format!("{direction}[{index}]");
            let action = match rule.action {
                api::Action::Allow => Action::Allow,
                api::Action::Deny => Action::Deny,
                api::Action::Log => Action::Log,
                api::Action::Pass => Action::Pass,
            };
            match self.rule(rule, action, &origin, direction) {
                Ok(rule) => out.push(rule),
                Err(why) if matches!(action, Action::Allow | Action::Log) => {
                    self.problems.push(format!("spec.{origin}: {why}; the rule is left out"));
                }
                Err(why) => {
                    self.problems.push(format!("spec.{origin}: {why}; the rule denies everything"));
                    out.push(Rule::any(Action::Deny, origin));
                }
            }
        }
        out
    }

    fn rule(
        &self,
        rule: &api::Rule,
        action: Action,
        origin: &str,
        direction: Direction,
    ) -> Result<Rule, String> {
        if rule.http.is_some() {
            return Err("http: matching requests is not supported".to_owned());
        }
        let protocol = rule.protocol.as_ref().map(protocol).transpose()?;
        let mut out = Rule::any(action, origin);
        out.family = match rule.ip_version {
            None => None,
            Some(4) => Some(Family::V4),
            Some(6) => Some(Family::V6),
            Some(other) => return Err(format!("ipVersion: {other} is neither 4 nor 6")),
        };
        out.protocol = protocol;
        out.not_protocol = rule.not_protocol.as_ref().map(self::protocol).transpose()?;
        out.icmp = rule.icmp.as_ref().map(|one| icmp(one, protocol)).transpose()?;
        out.not_icmp = rule.not_icmp.as_ref().map(|one| icmp(one, protocol)).transpose()?;
        if let Some(source) = &rule.source {
            // On the source of ingress only the address of a backend counts (felix/calc/rule_scanner.go).
            out.source = self.entity(source, protocol, false).map_err(in_field("source"))?;
        }
        if let Some(destination) = &rule.destination {
            let with_ports = direction == Direction::Egress;
            out.destination =
                self.entity(destination, protocol, with_ports).map_err(in_field("destination"))?;
        }
        Ok(out)
    }

    fn entity(
        &self,
        entity: &EntityRule,
        protocol: Option<u8>,
        service_ports: bool,
    ) -> Result<Entity, String> {
        let mut out = Entity::default();
        if let Some(selector) = self.peers(entity)? {
            out.peers = Some(Arc::new(selector));
        }
        if let Some(text) = entity.not_selector.as_deref().filter(|text| !text.is_empty()) {
            let labels = LabelTerm::calico(text).map_err(in_field("notSelector"))?;
            out.not_peers =
                Some(Arc::new(one(Selector::new(NamespaceTerm::Any, None, labels, false))));
        }
        if !entity.nets.is_empty() {
            out.nets = Some(nets(&entity.nets, "nets")?);
        }
        out.not_nets = nets(&entity.not_nets, "notNets")?;
        out.ports = ports(&entity.ports, protocol).map_err(in_field("ports"))?;
        out.not_ports = ports(&entity.not_ports, protocol).map_err(in_field("notPorts"))?;
        if let Some(service) = &entity.services {
            let name = service.name.clone().ok_or("services.name: is missing")?;
            let namespace = service
                .namespace
                .clone()
                .or_else(|| self.namespace.clone())
                .ok_or("services.namespace: needed in a GlobalNetworkPolicy")?;
            let service = Key::namespaced(namespace, name);
            out.service = Some(ServiceMatch { service, ports: service_ports });
        }
        Ok(out)
    }

    /// Selector, namespace selector and service accounts as one selector
    /// (libcalico-go/lib/backend/syncersv1/updateprocessors/rules.go).
    fn peers(&self, entity: &EntityRule) -> Result<Option<Peers>, String> {
        let selector = entity.selector.as_deref().filter(|text| !text.is_empty());
        let namespaces = entity.namespace_selector.as_deref().filter(|text| !text.is_empty());
        let accounts = entity.service_accounts.as_ref();
        if selector.is_none() && namespaces.is_none() && accounts.is_none() {
            return Ok(None);
        }
        let namespace = match (namespaces, &self.namespace) {
            (Some(text), _) => self.namespaces(text).map_err(in_field("namespaceSelector"))?,
            (None, Some(own)) => NamespaceTerm::Is(own.clone()),
            (None, None) => NamespaceTerm::Any,
        };
        let labels =
            LabelTerm::calico(selector.unwrap_or_default()).map_err(in_field("selector"))?;
        let accounts = accounts
            .map(|accounts| {
                let text = accounts.selector.as_deref().unwrap_or_default();
                Ok::<_, String>(AccountTerm {
                    names: accounts.names.iter().cloned().collect(),
                    labels: LabelTerm::calico(text)
                        .map_err(in_field("serviceAccounts.selector"))?,
                })
            })
            .transpose()?;
        Ok(Some(one(Selector::new(namespace, accounts, labels, false))))
    }

    #[expect(clippy::unused_self, reason = "reads as the other parsers do")]
    fn namespaces(&self, text: &str) -> Result<NamespaceTerm, String> {
        if text.trim() == "global()" {
            return Ok(NamespaceTerm::None);
        }
        LabelTerm::calico(text).map(NamespaceTerm::Labels)
    }
}

fn in_field(field: &'static str) -> impl Fn(String) -> String {
    move |why| format!("{field}: {why}")
}

fn one(selector: Selector) -> Peers {
    Peers { selectors: BTreeSet::from([Arc::new(selector)]), nets: NetSet::default() }
}

fn protocol(value: &Protocol) -> Result<u8, String> {
    value.number().ok_or_else(|| format!("protocol: `{value}` is not known"))
}

fn icmp(fields: &api::Icmp, protocol: Option<u8>) -> Result<Icmp, String> {
    let v6 = match protocol {
        Some(ICMP) => false,
        Some(ICMPV6) => true,
        _ => return Err("icmp: needs protocol ICMP or ICMPv6".to_owned()),
    };
    let kind = fields.icmp_type.ok_or("icmp: needs a type")?;
    Ok(Icmp { kind, code: fields.code, v6 })
}

fn nets(texts: &[impl ToString], field: &'static str) -> Result<NetSet, String> {
    let mut problems = Vec::new();
    let nets = facts::nets(texts, field, &mut problems);
    match problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(NetSet::new(&nets)),
    }
}

fn ports(list: &[Port], protocol: Option<u8>) -> Result<Option<Ports>, String> {
    if list.is_empty() {
        return Ok(None);
    }
    if !protocol.is_some_and(has_ports) {
        return Err("needs protocol TCP, UDP or SCTP".to_owned());
    }
    let (mut ranges, mut named) = (Vec::new(), BTreeSet::new());
    for port in list {
        match port.meaning().map_err(|why| why.to_string())? {
            PortMeaning::Range(range) => ranges.push((range.first, range.last)),
            PortMeaning::Name(name) => {
                named.insert(name.to_owned());
            }
        }
    }
    Ok(Some(Ports::new(ranges, named)))
}
