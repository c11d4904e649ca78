//! A table run by hand on one packet: what the kernel would do with it.

use std::net::IpAddr;

use crate::nft::{
    Chain, ChainName, CtState, Element, Expr, Field, Hook, KeyType, MapValue, Match, Operand, Rule,
    Table, Test, Value, Verdict,
};

/// A packet, as the hooks see it.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) iif: String,
    pub(crate) oif: String,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) icmp: (u8, u8),
    pub(crate) ct: CtState,
}

impl Packet {
    /// The first packet of a flow.
    pub(crate) fn new(source: IpAddr, destination: IpAddr, protocol: u8, dport: u16) -> Self {
        Self {
            iif: "eth0".to_owned(),
            oif: "eth0".to_owned(),
            source,
            destination,
            protocol,
            sport: 40_000,
            dport,
            icmp: (8, 0),
            ct: CtState::NEW,
        }
    }

    fn load(&self, field: Field) -> Option<Value> {
        let ports = matches!(self.protocol, 6 | 17 | 132 | 136);
        Some(match (field, self.source, self.destination) {
            (Field::IifName, ..) => Value::Ifname(self.iif.clone()),
            (Field::OifName, ..) => Value::Ifname(self.oif.clone()),
            (Field::NfProto, ..) => Value::L4Proto(if self.source.is_ipv4() { 2 } else { 10 }),
            (Field::L4Proto, ..) => Value::L4Proto(self.protocol),
            (Field::Ip4Saddr, IpAddr::V4(addr), _) => Value::Ipv4(addr),
            (Field::Ip4Daddr, _, IpAddr::V4(addr)) => Value::Ipv4(addr),
            (Field::Ip6Saddr, IpAddr::V6(addr), _) => Value::Ipv6(addr),
            (Field::Ip6Daddr, _, IpAddr::V6(addr)) => Value::Ipv6(addr),
            (Field::ThSport, ..) if ports => Value::Port(self.sport),
            (Field::ThDport, ..) if ports => Value::Port(self.dport),
            (Field::IcmpType, ..) if self.protocol == 1 => Value::IcmpType(self.icmp.0),
            (Field::IcmpCode, ..) if self.protocol == 1 => Value::IcmpType(self.icmp.1),
            (Field::Icmpv6Type, ..) if self.protocol == 58 => Value::Icmpv6Type(self.icmp.0),
            (Field::Icmpv6Code, ..) if self.protocol == 58 => Value::Icmpv6Type(self.icmp.1),
            (Field::CtState, ..) => Value::CtState(self.ct.0),
            _ => return None,
        })
    }

    fn key(&self, fields: &[Field]) -> Option<Element> {
        let values: Option<Vec<Value>> = fields.iter().map(|field| self.load(*field)).collect();
        Some(Element::new(&values?))
    }
}

/// What a chain said.
enum Outcome {
    Accept,
    Drop,
    /// Fell off its end or returned.
    Back,
}

/// Whether the base chains of a hook let the packet through; optionally only those of a priority.
pub(crate) fn passes(table: &Table, hook: Hook, priority: Option<i32>, packet: &Packet) -> bool {
    let mut bases: Vec<(i32, &Chain)> = table
        .chains()
        .filter_map(|chain| {
            let base = chain.base.filter(|base| base.hook == hook)?;
            priority.is_none_or(|only| only == base.priority).then_some((base.priority, chain))
        })
        .collect();
    assert!(!bases.is_empty(), "no base chain at {hook:?}");
    bases.sort_by_key(|(priority, _)| *priority);
    bases.into_iter().all(|(_, chain)| !matches!(run(table, chain, packet), Outcome::Drop))
}

fn run(table: &Table, chain: &Chain, packet: &Packet) -> Outcome {
    for rule in &chain.rules {
        match apply(table, rule, packet) {
            None | Some(Verdict::Continue) => {}
            Some(Verdict::Accept) => return Outcome::Accept,
            Some(Verdict::Drop) => return Outcome::Drop,
            Some(Verdict::Return) => return Outcome::Back,
            Some(Verdict::Goto(name)) => return run(table, named(table, &name), packet),
            Some(Verdict::Jump(name)) => match run(table, named(table, &name), packet) {
                Outcome::Back => {}
                done => return done,
            },
        }
    }
    Outcome::Back
}

fn named<'a>(table: &'a Table, name: &ChainName) -> &'a Chain {
    table.chain(name).unwrap_or_else(|| panic!("chain {name} is not in the table"))
}

/// The verdict of a rule; `None` when a match failed or it has none.
fn apply(table: &Table, rule: &Rule, packet: &Packet) -> Option<Verdict> {
    for expr in &rule.exprs {
        match expr {
            Expr::Match(one) => {
                if !matches(table, one, packet) {
                    return None;
                }
            }
            Expr::Vmap(fields, name) => {
                assert!(table.map(name).is_some(), "map {name} is not in the table");
                let key = packet.key(fields)?;
                let value = table.map_value(name, &key)?;
                let MapValue::Verdict(verdict) = value else { panic!("no verdict map") };
                return Some(verdict.clone());
            }
            Expr::AnonymousVmap(fields, entries) => {
                let key = packet.key(fields)?;
                let found = entries.iter().find(|(element, _)| *element == key);
                return found.map(|(_, verdict)| verdict.clone());
            }
            Expr::Counter | Expr::Log(_) => {}
            other => panic!("{other:?} is not expected in policy"),
        }
    }
    rule.verdict.clone()
}

fn matches(table: &Table, one: &Match, packet: &Packet) -> bool {
    // A field that the packet does not have ends the rule, also in a negated match.
    let Some(key) = packet.key(&one.fields) else { return false };
    if one.fields.iter().any(|field| matches!(field, Field::ThSport | Field::ThDport)) {
        assert!(
            matches!(packet.protocol, 6 | 17 | 132 | 136),
            "a port was compared before the protocol was"
        );
    }
    let found = match &one.operand {
        Operand::Is(value) => Element::new(std::slice::from_ref(value)) == key,
        Operand::Starts(start) => key.start().starts_with(start.as_bytes()),
        Operand::Within(net) => holds(&Element::prefix(*net), &key),
        Operand::Between(from, to) => {
            holds(&Element::range(std::slice::from_ref(from), std::slice::from_ref(to)), &key)
        }
        Operand::AnyBit(bits) => packet.ct.0 & bits != 0,
        Operand::OneOf(elements) => elements.iter().any(|element| holds(element, &key)),
        Operand::In(name) => {
            let set = table.set(name).unwrap_or_else(|| panic!("set {name} is not in the table"));
            let types: Vec<KeyType> = one.fields.iter().map(|field| field.key_type()).collect();
            assert_eq!(set.key, types, "set {name} has another key");
            set.elements.iter().any(|element| holds(element, &key))
        }
        Operand::Masked { .. } => panic!("marks are not expected in policy"),
    };
    found == (one.test == Test::Is)
}

fn holds(element: &Element, key: &Element) -> bool {
    match element.end() {
        None => element.start() == key.start(),
        Some(end) => element.start() <= key.start() && key.start() <= end,
    }
}
