//! The chains the kernel calls by itself, and the maps they look into.

use super::{from_endpoint, hairpin, own_addresses, suffix, to_endpoint};
use crate::nft::{
    Base, Chain, ChainName, CtState, Element, Expr, Family, Field, Hook, KeyType, Map, Rule, Set,
    Table, Value, Verdict,
};

/// Neighbour discovery and listener reports that a pod must be able to send (RFC 4861, RFC 2710, RFC 3810):
/// reports and done, router solicitation, neighbour solicitation and advertisement, version 2 reports.
const DISCOVERY: [u8; 6] = [131, 132, 133, 135, 136, 143];

/// Puts what does not depend on any endpoint or policy.
pub fn put(table: &mut Table, prefix: &str) {
    for family in [Family::V4, Family::V6] {
        let addr = match family {
            Family::V4 => KeyType::Ipv4,
            Family::V6 => KeyType::Ipv6,
        };
        put_missing_set(table, Set::exact(own_addresses(family), &[KeyType::Ifname, addr]));
    }
    put_missing_set(table, Set::exact(hairpin(), &[KeyType::Ifname, KeyType::Ifname]));
    for name in [from_endpoint(), to_endpoint()] {
        if table.map(&name).is_none() {
            table.put_map(Map::verdict(name, &[KeyType::Ifname]));
        }
    }
    let pods = format!("{prefix}*");
    table.put_chain(Chain::base(
        ChainName::new("anti-spoofing"),
        Base::filter(Hook::Prerouting, -300),
        anti_spoofing(&pods),
    ));
    table.put_chain(Chain::base(
        ChainName::new("forward-egress"),
        Base::filter(Hook::Forward, 0),
        forward(&pods, Field::IifName),
    ));
    table.put_chain(Chain::base(
        ChainName::new("forward-ingress"),
        Base::filter(Hook::Forward, 1),
        forward(&pods, Field::OifName),
    ));
    table.put_chain(Chain::base(
        ChainName::new("input"),
        Base::filter(Hook::Input, 0),
        input(&pods),
    ));
}

fn put_missing_set(table: &mut Table, set: Set) {
    if !table.has_set(&set.name) {
        table.put_set(set);
    }
}

/// Before connection tracking, so that a forged packet can't pass as part of an established flow either.
fn anti_spoofing(pods: &str) -> Vec<Rule> {
    let own = |family, field| {
        Rule::new(
            vec![Expr::in_set(&[Field::IifName, field], own_addresses(family))],
            Verdict::Accept,
        )
        .comment(format!("own {} address", suffix(family)))
    };
    vec![
        Rule::new(vec![not_from(pods)], Verdict::Accept).comment("not from a pod"),
        own(Family::V4, Field::Ip4Saddr),
        own(Family::V6, Field::Ip6Saddr),
        discovery(true),
        dhcp(true),
        Rule::new(vec![Expr::Counter], Verdict::Drop).comment("source is not the pod's address"),
    ]
}

fn forward(pods: &str, side: Field) -> Vec<Rule> {
    let map = if side == Field::IifName { from_endpoint() } else { to_endpoint() };
    let of_pod = if side == Field::IifName { Expr::iifname(pods) } else { Expr::oifname(pods) };
    vec![
        connection_state(),
        Rule::new(
            vec![Expr::in_set(&[Field::IifName, Field::OifName], hairpin())],
            Verdict::Accept,
        )
        .comment("a pod always reaches itself"),
        Rule::statements(vec![Expr::Vmap(vec![side], map)]),
        Rule::new(vec![of_pod, Expr::Counter], Verdict::Drop).comment("endpoint is not known yet"),
    ]
}

fn input(pods: &str) -> Vec<Rule> {
    vec![
        Rule::new(vec![not_from(pods)], Verdict::Accept).comment("not from a pod"),
        connection_state(),
        discovery(false),
        dhcp(false),
        Rule::statements(vec![Expr::Vmap(vec![Field::IifName], from_endpoint())]),
        Rule::new(vec![Expr::Counter], Verdict::Drop).comment("endpoint is not known yet"),
    ]
}

fn connection_state() -> Rule {
    Rule::statements(vec![Expr::ct_state_vmap(&[
        (CtState::ESTABLISHED, Verdict::Accept),
        (CtState::RELATED, Verdict::Accept),
        (CtState::INVALID, Verdict::Drop),
    ])])
}

fn not_from(pods: &str) -> Expr {
    match Expr::iifname(pods) {
        Expr::Match(mut one) => {
            one.test = crate::nft::Test::Not;
            Expr::Match(one)
        }
        other => other,
    }
}

/// Neighbour discovery from link-local or unspecified addresses; the source was checked when it is checked here.
fn discovery(check_source: bool) -> Rule {
    let types = DISCOVERY.iter().map(|kind| Element::new(&[Value::Icmpv6Type(*kind)])).collect();
    let link_local = Element::range(
        &[Value::Ipv6([0xfe80, 0, 0, 0, 0, 0, 0, 0].into())],
        &[Value::Ipv6([0xfebf, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff].into())],
    );
    let unspecified = Element::new(&[Value::Ipv6(std::net::Ipv6Addr::UNSPECIFIED)]);
    let mut exprs = vec![Expr::l4proto(58)];
    if check_source {
        exprs.push(Expr::one_of(Field::Ip6Saddr, vec![unspecified, link_local]));
    }
    exprs.push(Expr::one_of(Field::Icmpv6Type, types));
    Rule::new(exprs, Verdict::Accept).comment("neighbour discovery")
}

/// A pod asking for an address (RFC 2131 section 4.1), as some virtual machines in pods do.
fn dhcp(check_source: bool) -> Rule {
    let mut exprs = Vec::new();
    if check_source {
        exprs.push(Expr::eq(Field::Ip4Saddr, Value::Ipv4(std::net::Ipv4Addr::UNSPECIFIED)));
    } else {
        exprs.push(Expr::family(Family::V4));
    }
    exprs.push(Expr::l4proto(17));
    exprs.push(Expr::port(Field::ThSport, 68, 68));
    exprs.push(Expr::port(Field::ThDport, 67, 67));
    Rule::new(exprs, Verdict::Accept).comment("DHCP")
}
