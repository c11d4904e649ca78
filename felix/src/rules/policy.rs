//! A rule of a policy as rules of nf_tables: lookups in sets, never one rule per peer.
//!
//! All conditions of a rule must hold. A condition that has alternatives (pods or prefixes, numbered or named ports)
//! multiplies the rule, at most by two each; families are told apart because their addresses are different fields.

use super::{Families, member_set, nets_set};
use crate::{
    calc::{
        members::{MemberIndex, SetSpec},
        model::{Action, Entity, Icmp, Peers, Policy, PolicyId, Ports, Rule},
        ranges::{NetSet, is_everything_v4, is_everything_v6},
    },
    nft::{self, Element, Expr, Family, Field, Log, Operand, Test, Value, Verdict},
};

/// What rendering needs to know besides the policy.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Families in use.
    pub families: Families,
    /// The sets: only whether they hold prefixes matters here.
    pub members: &'a MemberIndex,
}

/// Conditions that must all hold; each is a list of alternatives, each of which is a list of expressions.
type Factors = Vec<Vec<Vec<Expr>>>;

/// The rules of a policy in a direction, without anything at the end.
#[must_use]
pub fn render(context: Context<'_>, id: &PolicyId, rules: &[Rule]) -> Vec<nft::Rule> {
    rules.iter().flat_map(|rule| render_rule(context, id, rule)).collect()
}

/// The sets that a policy's rules refer to.
pub fn sets(policy: &Policy) -> impl Iterator<Item = SetSpec> {
    policy.all_rules().flat_map(SetSpec::of_rule)
}

fn render_rule(context: Context<'_>, id: &PolicyId, rule: &Rule) -> Vec<nft::Rule> {
    let families: Vec<Option<Family>> = if by_family(rule) {
        let wanted = context.families.iter();
        wanted.filter(|one| rule.family.is_none_or(|only| only == *one)).map(Some).collect()
    } else {
        vec![None]
    };
    let mut out = Vec::new();
    for family in families {
        let Some(factors) = factors(context, rule, family) else { continue };
        for exprs in product(&factors) {
            out.push(finish(id, rule, with_family(exprs, family)));
        }
    }
    out
}

/// Whether the rule reads differently in IPv4 and IPv6.
fn by_family(rule: &Rule) -> bool {
    let entity = |entity: &Entity| {
        let ports = entity.ports.iter().chain(&entity.not_ports);
        entity.peers.is_some()
            || entity.not_peers.is_some()
            || entity.nets.is_some()
            || !entity.not_nets.is_empty()
            || entity.service.is_some()
            || ports.into_iter().any(|ports| !ports.named.is_empty())
    };
    rule.family.is_some() || entity(&rule.source) || entity(&rule.destination)
}

fn finish(id: &PolicyId, rule: &Rule, mut exprs: Vec<Expr>) -> nft::Rule {
    exprs.push(Expr::Counter);
    let comment = format!("{id} {}", rule.origin);
    let verdict = match rule.action {
        Action::Allow => Verdict::Accept,
        Action::Deny => Verdict::Drop,
        Action::Pass => Verdict::Return,
        Action::Log => {
            exprs.push(Expr::Log(Log::new(1, format!("L|{comment}"))));
            return nft::Rule::statements(exprs).comment(comment);
        }
    };
    nft::Rule::new(exprs, verdict).comment(comment)
}

/// `None` when the rule can't match in this family.
fn factors(context: Context<'_>, rule: &Rule, family: Option<Family>) -> Option<Factors> {
    let mut factors: Factors = Vec::new();
    if let Some(protocol) = rule.protocol {
        factors.push(vec![vec![Expr::l4proto(protocol)]]);
    }
    if let Some(protocol) = rule.not_protocol {
        factors.push(vec![vec![Expr::ne(Field::L4Proto, Value::L4Proto(protocol))]]);
    }
    if let Some(icmp) = rule.icmp {
        factors.push(vec![icmp_exprs(icmp)]);
    }
    if let Some(icmp) = rule.not_icmp {
        factors.push(not_icmp(icmp));
    }
    for side in [Side::Source, Side::Destination] {
        let entity = match side {
            Side::Source => &rule.source,
            Side::Destination => &rule.destination,
        };
        if let Some(family) = family {
            addresses(context, entity, side, family, &mut factors)?;
        }
        ports(entity, side, family, rule.protocol, &mut factors);
    }
    Some(factors)
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

impl Side {
    const fn addr(self, family: Family) -> Field {
        match (self, family) {
            (Self::Source, Family::V4) => Field::Ip4Saddr,
            (Self::Source, Family::V6) => Field::Ip6Saddr,
            (Self::Destination, Family::V4) => Field::Ip4Daddr,
            (Self::Destination, Family::V6) => Field::Ip6Daddr,
        }
    }

    const fn port(self) -> Field {
        match self {
            Self::Source => Field::ThSport,
            Self::Destination => Field::ThDport,
        }
    }
}

fn addresses(
    context: Context<'_>,
    entity: &Entity,
    side: Side,
    family: Family,
    factors: &mut Factors,
) -> Option<()> {
    let field = side.addr(family);
    if let Some(peers) = &entity.peers {
        let alternatives = one_of_peers(context, peers, field, family);
        if alternatives.is_empty() {
            return None;
        }
        factors.push(alternatives);
    }
    if let Some(nets) = &entity.nets {
        factors.push(vec![in_nets(nets, field, family, Test::Is)?]);
    }
    if let Some(peers) = &entity.not_peers {
        factors.push(vec![none_of_peers(context, peers, field, family)?]);
    }
    if !entity.not_nets.is_empty() {
        factors.push(vec![in_nets(&entity.not_nets, field, family, Test::Not)?]);
    }
    if let Some(wanted) = &entity.service {
        let set = member_set(&SetSpec::Service(wanted.clone()), family);
        let fields: &[Field] =
            if wanted.ports { &[field, Field::L4Proto, side.port()] } else { &[field] };
        factors.push(vec![vec![Expr::in_set(fields, set)]]);
    }
    Some(())
}

fn one_of_peers(
    context: Context<'_>,
    peers: &Peers,
    field: Field,
    family: Family,
) -> Vec<Vec<Expr>> {
    let mut alternatives = Vec::new();
    if !peers.selectors.is_empty() {
        let spec = SetSpec::Selectors(peers.selectors.clone());
        alternatives.push(vec![Expr::in_set(&[field], member_set(&spec, family))]);
        if has_nets(context, &spec, family) {
            alternatives.push(vec![Expr::in_set(&[field], nets_set(&spec, family))]);
        }
    }
    alternatives.extend(in_nets(&peers.nets, field, family, Test::Is));
    alternatives
}

fn none_of_peers(
    context: Context<'_>,
    peers: &Peers,
    field: Field,
    family: Family,
) -> Option<Vec<Expr>> {
    let mut exprs = in_nets(&peers.nets, field, family, Test::Not)?;
    if !peers.selectors.is_empty() {
        let spec = SetSpec::Selectors(peers.selectors.clone());
        exprs.push(Expr::not_in_set(&[field], member_set(&spec, family)));
        if has_nets(context, &spec, family) {
            exprs.push(Expr::not_in_set(&[field], nets_set(&spec, family)));
        }
    }
    Some(exprs)
}

/// Whether the prefixes of a set are worth a rule in a family.
fn has_nets(context: Context<'_>, spec: &SetSpec, family: Family) -> bool {
    context.members.get(spec).is_some_and(|set| !elements(set.nets(), family).is_empty())
}

/// The test of an address against prefixes; `None` when it can't hold.
fn in_nets(nets: &NetSet, field: Field, family: Family, test: Test) -> Option<Vec<Expr>> {
    let everything = match family {
        Family::V4 => is_everything_v4(nets),
        Family::V6 => is_everything_v6(nets),
    };
    let elements = elements(nets, family);
    // A prefix of length zero is no test at all: interval sets can't hold it well, and it would cost a lookup.
    let holds_always = if test == Test::Is { everything } else { elements.is_empty() };
    let holds_never = if test == Test::Is { elements.is_empty() } else { everything };
    if holds_never {
        return None;
    }
    if holds_always {
        return Some(Vec::new());
    }
    Some(vec![Expr::of(field, test, single(nets, family).unwrap_or(Operand::OneOf(elements)))])
}

/// A lone range as a plain comparison.
fn single(nets: &NetSet, family: Family) -> Option<Operand> {
    let (from, to) = match family {
        Family::V4 if nets.v4().len() == 1 => {
            nets.v4().next().map(|(from, to)| (Value::Ipv4(from), Value::Ipv4(to)))?
        }
        Family::V6 if nets.v6().len() == 1 => {
            nets.v6().next().map(|(from, to)| (Value::Ipv6(from), Value::Ipv6(to)))?
        }
        _ => return None,
    };
    if from == to {
        return Some(Operand::Is(from));
    }
    Some(prefix(&from, &to).map_or(Operand::Between(from, to), Operand::Within))
}

fn prefix(from: &Value, to: &Value) -> Option<ipnet::IpNet> {
    let (addr, len, last): (std::net::IpAddr, u32, std::net::IpAddr) = match (from, to) {
        (Value::Ipv4(from), Value::Ipv4(to)) => {
            ((*from).into(), (u32::from(*from) ^ u32::from(*to)).leading_zeros(), (*to).into())
        }
        (Value::Ipv6(from), Value::Ipv6(to)) => {
            ((*from).into(), (u128::from(*from) ^ u128::from(*to)).leading_zeros(), (*to).into())
        }
        _ => return None,
    };
    let net = ipnet::IpNet::new(addr, u8::try_from(len).ok()?).ok()?;
    (net.network() == addr && net.broadcast() == last).then_some(net)
}

/// The ranges of a family as set elements.
#[must_use]
pub fn elements(nets: &NetSet, family: Family) -> Vec<Element> {
    match family {
        Family::V4 => nets
            .v4()
            .map(|(from, to)| Element::range(&[Value::Ipv4(from)], &[Value::Ipv4(to)]))
            .collect(),
        Family::V6 => nets
            .v6()
            .map(|(from, to)| Element::range(&[Value::Ipv6(from)], &[Value::Ipv6(to)]))
            .collect(),
    }
}

fn ports(
    entity: &Entity,
    side: Side,
    family: Option<Family>,
    protocol: Option<u8>,
    factors: &mut Factors,
) {
    if let Some(ports) = &entity.ports {
        let mut alternatives = Vec::new();
        alternatives.extend(numbered(ports, side, Test::Is));
        alternatives.extend(named(ports, side, family, protocol, Test::Is));
        factors.push(alternatives.into_iter().map(|expr| vec![expr]).collect());
    }
    if let Some(ports) = &entity.not_ports {
        let mut exprs = Vec::new();
        exprs.extend(numbered(ports, side, Test::Not));
        exprs.extend(named(ports, side, family, protocol, Test::Not));
        factors.push(vec![exprs]);
    }
}

fn numbered(ports: &Ports, side: Side, test: Test) -> Option<Expr> {
    let operand = match ports.ranges.as_slice() {
        [] => return None,
        [(from, to)] if from == to => Operand::Is(Value::Port(*from)),
        [(from, to)] => Operand::Between(Value::Port(*from), Value::Port(*to)),
        many => Operand::OneOf(
            many.iter()
                .map(|(from, to)| Element::range(&[Value::Port(*from)], &[Value::Port(*to)]))
                .collect(),
        ),
    };
    Some(Expr::of(side.port(), test, operand))
}

fn named(
    ports: &Ports,
    side: Side,
    family: Option<Family>,
    protocol: Option<u8>,
    test: Test,
) -> Vec<Expr> {
    let (Some(family), Some(protocol)) = (family, protocol) else { return Vec::new() };
    let fields = [side.addr(family), side.port()];
    let lookup = |name: &String| {
        let set = member_set(&SetSpec::NamedPort { name: name.clone(), protocol }, family);
        match test {
            Test::Is => Expr::in_set(&fields, set),
            Test::Not => Expr::not_in_set(&fields, set),
        }
    };
    ports.named.iter().map(lookup).collect()
}

fn icmp_exprs(icmp: Icmp) -> Vec<Expr> {
    let (kind, code) = icmp_fields(icmp);
    let mut exprs = vec![Expr::eq(kind.0, kind.1)];
    if let Some((field, value)) = code {
        exprs.push(Expr::eq(field, value));
    }
    exprs
}

/// Not (type and code) is: another type, or this type with another code. The protocol was tested before.
fn not_icmp(icmp: Icmp) -> Vec<Vec<Expr>> {
    let (kind, code) = icmp_fields(icmp);
    let mut alternatives = vec![vec![Expr::ne(kind.0, kind.1.clone())]];
    if let Some((field, value)) = code {
        alternatives.push(vec![Expr::eq(kind.0, kind.1), Expr::ne(field, value)]);
    }
    alternatives
}

type Compared = (Field, Value);

const fn icmp_fields(icmp: Icmp) -> (Compared, Option<Compared>) {
    if icmp.v6 {
        let code = match icmp.code {
            Some(code) => Some((Field::Icmpv6Code, Value::Icmpv6Type(code))),
            None => None,
        };
        ((Field::Icmpv6Type, Value::Icmpv6Type(icmp.kind)), code)
    } else {
        let code = match icmp.code {
            Some(code) => Some((Field::IcmpCode, Value::IcmpType(code))),
            None => None,
        };
        ((Field::IcmpType, Value::IcmpType(icmp.kind)), code)
    }
}

/// Every choice of one alternative per condition.
fn product(factors: &Factors) -> Vec<Vec<Expr>> {
    let mut rules: Vec<Vec<Expr>> = vec![Vec::new()];
    for alternatives in factors {
        rules = rules
            .iter()
            .flat_map(|exprs| {
                alternatives.iter().map(move |more| {
                    let mut exprs = exprs.clone();
                    exprs.extend(more.iter().cloned());
                    exprs
                })
            })
            .collect();
    }
    rules
}

/// Adds a test of the family where no address field implies it.
fn with_family(mut exprs: Vec<Expr>, family: Option<Family>) -> Vec<Expr> {
    let Some(family) = family else { return exprs };
    let implied = exprs.iter().any(|expr| match expr {
        Expr::Match(one) => one.fields.iter().any(|field| {
            matches!(field, Field::Ip4Saddr | Field::Ip4Daddr | Field::Ip6Saddr | Field::Ip6Daddr)
        }),
        _ => false,
    });
    if !implied {
        exprs.insert(0, Expr::family(family));
    }
    exprs
}
