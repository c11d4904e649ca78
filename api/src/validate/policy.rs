//! Policies of Calico's API and their rules.

use super::Findings;
use crate::{
    Action, EntityRule, GlobalNetworkPolicySpec, Icmp, NetworkPolicySpec, PolicyType, Port,
    Protocol, Rule, TierSpec,
};

pub(super) const PROTOCOL_HINT: &str =
    "is no protocol: write TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number from 1 to 255";

/// Built-in tiers: name, order, default action.
const BUILT_IN: [(&str, f64, Action); 3] = [
    ("kube-admin", 1_000.0, Action::Pass),
    ("default", 1_000_000.0, Action::Deny),
    ("kube-baseline", 10_000_000.0, Action::Pass),
];

#[derive(Clone, Copy, Eq, PartialEq)]
enum Direction {
    Ingress,
    Egress,
}

pub(super) fn tier(name: &str, spec: &TierSpec, found: &mut Findings) {
    if !matches!(spec.default_action, Action::Deny | Action::Pass) {
        let given = format!("{:?}", spec.default_action);
        found.add("spec.defaultAction", "must be one of Deny, Pass", given);
    }
    let Some((_, order, action)) = BUILT_IN.iter().find(|(built_in, ..)| *built_in == name) else {
        return;
    };
    if spec.order != Some(*order) {
        found.add("spec.order", format!("must be {order} in the built-in tier {name}"), spec.order);
    }
    if spec.default_action != *action {
        let message = format!("must be {action:?} in the built-in tier {name}");
        found.add("spec.defaultAction", message, format!("{:?}", spec.default_action));
    }
}

pub(super) fn namespaced(spec: &NetworkPolicySpec, found: &mut Findings) {
    found.plain_selector("spec.selector", spec.selector.as_deref());
    found.plain_selector("spec.serviceAccountSelector", spec.service_account_selector.as_deref());
    rules(&spec.ingress, &spec.egress, found);
}

pub(super) fn global(spec: &GlobalNetworkPolicySpec, found: &mut Findings) {
    found.plain_selector("spec.selector", spec.selector.as_deref());
    found.plain_selector("spec.namespaceSelector", spec.namespace_selector.as_deref());
    found.plain_selector("spec.serviceAccountSelector", spec.service_account_selector.as_deref());
    rules(&spec.ingress, &spec.egress, found);
    if spec.do_not_track && spec.pre_dnat {
        found.add("spec.preDNAT", "excludes doNotTrack: make two policies", true);
    }
    if spec.pre_dnat && (!spec.egress.is_empty() || spec.types.contains(&PolicyType::Egress)) {
        found.add("spec.preDNAT", "is for ingress only: remove egress and the type Egress", true);
    }
    for (set, field) in [(spec.pre_dnat, "spec.preDNAT"), (spec.do_not_track, "spec.doNotTrack")] {
        if set && !spec.apply_on_forward {
            found.add(field, "needs applyOnForward: true", true);
        }
    }
}

fn rules(ingress: &[Rule], egress: &[Rule], found: &mut Findings) {
    for (index, one) in ingress.iter().enumerate() {
        rule(&format!("spec.ingress[{index}]"), one, Direction::Ingress, found);
    }
    for (index, one) in egress.iter().enumerate() {
        rule(&format!("spec.egress[{index}]"), one, Direction::Egress, found);
    }
}

fn rule(at: &str, rule: &Rule, direction: Direction, found: &mut Findings) {
    for (name, protocol) in [("protocol", &rule.protocol), ("notProtocol", &rule.not_protocol)] {
        if let Some(protocol) = protocol
            && protocol.number().is_none()
        {
            found.add(format!("{at}.{name}"), PROTOCOL_HINT, protocol.to_string());
        }
    }
    icmp(at, rule, found);
    if let Some(source) = &rule.source {
        let services = direction == Direction::Ingress;
        entity(&format!("{at}.source"), source, (services, rule.protocol.as_ref()), found);
    }
    if let Some(destination) = &rule.destination {
        let services = direction == Direction::Egress;
        entity(
            &format!("{at}.destination"),
            destination,
            (services, rule.protocol.as_ref()),
            found,
        );
    }
    if rule.http.is_some() {
        if rule.action != Action::Allow {
            found.add(format!("{at}.http"), "can only be allowed: set action to Allow", "");
        }
        if rule.protocol.as_ref().is_some_and(|protocol| protocol.number() != Some(6)) {
            found.add(format!("{at}.http"), "runs on TCP: set protocol to TCP", "");
        }
    }
}

fn icmp(at: &str, rule: &Rule, found: &mut Findings) {
    let number = rule.protocol.as_ref().and_then(Protocol::number);
    let fields: [(&str, Option<&Icmp>); 2] =
        [("icmp", rule.icmp.as_ref()), ("notICMP", rule.not_icmp.as_ref())];
    for (name, icmp) in fields {
        let Some(icmp) = icmp else { continue };
        if !matches!(number, Some(1 | 58)) {
            found.add(format!("{at}.{name}"), "needs protocol ICMP or ICMPv6", "");
        }
        if let (Some(code), None) = (icmp.code, icmp.icmp_type) {
            found.add(format!("{at}.{name}.code"), "needs a type", code);
        }
        let other = match (rule.ip_version, number) {
            (Some(4), Some(58)) => Some("ICMP"),
            (Some(6), Some(1)) => Some("ICMPv6"),
            _ => None,
        };
        if let Some(other) = other {
            found.add(
                format!("{at}.protocol"),
                format!("does not fit ipVersion: use {other}"),
                number,
            );
        }
    }
}

fn entity(
    at: &str,
    entity: &EntityRule,
    (services_allowed, protocol): (bool, Option<&Protocol>),
    found: &mut Findings,
) {
    found.nets(&format!("{at}.nets"), &entity.nets);
    found.nets(&format!("{at}.notNets"), &entity.not_nets);
    found.plain_selector(&format!("{at}.selector"), entity.selector.as_deref());
    found.plain_selector(&format!("{at}.notSelector"), entity.not_selector.as_deref());
    found.selector(&format!("{at}.namespaceSelector"), entity.namespace_selector.as_deref());
    if let Some(accounts) = &entity.service_accounts {
        let field = format!("{at}.serviceAccounts.selector");
        found.plain_selector(&field, accounts.selector.as_deref());
    }
    for (name, list) in [("ports", &entity.ports), ("notPorts", &entity.not_ports)] {
        ports(&format!("{at}.{name}"), list, protocol, found);
    }
    if entity.services.is_some() {
        services(at, entity, services_allowed, found);
    }
}

fn ports(field: &str, list: &[Port], protocol: Option<&Protocol>, found: &mut Findings) {
    for (index, port) in list.iter().enumerate() {
        if let Err(error) = port.meaning() {
            found.add(format!("{field}[{index}]"), error.to_string(), port.to_string());
        }
    }
    if !list.is_empty() && !protocol.is_some_and(Protocol::has_ports) {
        let message = "needs a protocol that has ports: set protocol to TCP, UDP or SCTP";
        found.add(field, message, list.len());
    }
}

fn services(at: &str, entity: &EntityRule, allowed: bool, found: &mut Findings) {
    let field = format!("{at}.services");
    if !allowed {
        let message = "is for the source of ingress and the destination of egress only";
        found.add(&*field, message, "");
    }
    if entity.services.as_ref().is_some_and(|services| services.name.is_none()) {
        found.add(format!("{field}.name"), "is missing: name a service", "");
    }
    let others = [
        ("nets", !entity.nets.is_empty()),
        ("notNets", !entity.not_nets.is_empty()),
        ("selector", entity.selector.is_some()),
        ("notSelector", entity.not_selector.is_some()),
        ("namespaceSelector", entity.namespace_selector.is_some()),
        ("serviceAccounts", entity.service_accounts.is_some()),
        ("ports", !entity.ports.is_empty()),
        ("notPorts", !entity.not_ports.is_empty()),
    ];
    for (name, _) in others.iter().filter(|(_, present)| *present) {
        found.add(
            format!("{at}.{name}"),
            "excludes services, which brings its own: remove one",
            "",
        );
    }
}
