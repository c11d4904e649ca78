//! The table in nft's own syntax: for `voilectl policy render`, for tests, for people.
//!
//! The output is accepted by `nft -f` and always the same for the same table.

use std::fmt::{self, Write};

use super::{
    element::{Element, KeyType, Value},
    expr::{CtState, Expr, Family, Field, Match, Operand, RateUnit, Reject, Source, Test},
    ir::{Base, Chain, ChainKind, Hook, MapData, MapValue, Policy, Rule, Verdict},
    plan::Batch,
    table::Table,
};

/// Renders the whole table, in name order.
#[must_use]
pub fn render(table: &Table) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = write_table(&mut out, table);
    out
}

/// Renders one rule on one line.
#[must_use]
pub fn rule(rule: &Rule) -> String {
    let mut out = String::new();
    let _ = write_rule(&mut out, rule);
    out
}

/// Renders the steps of a transaction, one per line, with the number of members or rules instead of those.
#[must_use]
pub fn summary(batch: &Batch) -> String {
    use super::plan::Op;
    let mut out = String::new();
    for op in &batch.ops {
        let count = match op {
            Op::DeleteElements(_, _, members) | Op::AddElements(_, _, members) => members.len(),
            Op::DeleteMapElements(_, _, members) => members.len(),
            Op::AddMapElements(_, _, _, members) => members.len(),
            Op::AddRules(chain) => chain.rules.len(),
            _ => 0,
        };
        let _ = write!(out, "{} {}", op.verb(), op.subject());
        let _ = if count > 0 { writeln!(out, " ({count})") } else { writeln!(out) };
    }
    out
}

fn write_table(out: &mut String, table: &Table) -> fmt::Result {
    writeln!(out, "table inet {} {{", table.name())?;
    for set in table.sets() {
        writeln!(out, "\tset {} {{", set.name)?;
        writeln!(out, "\t\ttype {}", types(&set.key))?;
        if set.interval {
            writeln!(out, "\t\tflags interval")?;
        }
        let members: Vec<String> = set.elements.iter().map(|el| element(&set.key, el)).collect();
        write_members(out, &members)?;
        writeln!(out, "\t}}\n")?;
    }
    for map in table.maps() {
        writeln!(out, "\tmap {} {{", map.name)?;
        match &map.data {
            MapData::Verdict => writeln!(out, "\t\ttype {} : verdict", types(&map.key))?,
            MapData::Values(data) => {
                writeln!(out, "\t\ttype {} : {}", types(&map.key), types(data))?
            }
        }
        let member = |(key, value): (&Element, &MapValue)| {
            let value = match (value, &map.data) {
                (MapValue::Verdict(to), _) => verdict(to),
                (MapValue::Data(data), MapData::Values(kinds)) => element(kinds, data),
                (MapValue::Data(_), MapData::Verdict) => "?".to_owned(),
            };
            format!("{} : {value}", element(&map.key, key))
        };
        let members: Vec<String> = map.elements.iter().map(member).collect();
        write_members(out, &members)?;
        writeln!(out, "\t}}\n")?;
    }
    for chain in table.chains() {
        write_chain(out, chain)?;
    }
    writeln!(out, "}}")
}

fn write_members(out: &mut String, members: &[String]) -> fmt::Result {
    match members {
        [] => Ok(()),
        [first, rest @ ..] => {
            write!(out, "\t\telements = {{ {first}")?;
            for member in rest {
                write!(out, ",\n\t\t\t     {member}")?;
            }
            writeln!(out, " }}")
        }
    }
}

fn write_chain(out: &mut String, chain: &Chain) -> fmt::Result {
    writeln!(out, "\tchain {} {{", chain.name)?;
    if let Some(base) = &chain.base {
        writeln!(out, "\t\t{}", base_line(base))?;
    }
    for each in &chain.rules {
        write!(out, "\t\t")?;
        write_rule(out, each)?;
        writeln!(out)?;
    }
    writeln!(out, "\t}}\n")
}

fn base_line(base: &Base) -> String {
    let kind = match base.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    };
    let policy = match base.policy {
        Policy::Accept => "accept",
        Policy::Drop => "drop",
    };
    let hook = hook(base.hook);
    format!("type {kind} hook {hook} priority {}; policy {policy};", base.priority)
}

/// Name of a hook in nft's syntax.
#[must_use]
pub const fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

fn write_rule(out: &mut String, rule: &Rule) -> fmt::Result {
    let mut parts: Vec<String> = rule.exprs.iter().map(expr).collect();
    parts.extend(rule.verdict.as_ref().map(verdict));
    if let Some(comment) = &rule.comment {
        parts.push(format!("comment \"{}\"", comment.replace('"', "'")));
    }
    write!(out, "{}", parts.join(" "))
}

/// Renders a verdict.
#[must_use]
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

fn expr(expr: &Expr) -> String {
    match expr {
        Expr::Match(each) => matching(each),
        Expr::Vmap(keys, map) => format!("{} vmap @{map}", fields(keys)),
        Expr::AnonymousVmap(keys, entries) => {
            let kinds = key_types(keys);
            let entry = |(key, to): &(Element, Verdict)| {
                format!("{} : {}", element(&kinds, key), verdict(to))
            };
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{} vmap {{ {} }}", fields(keys), entries.join(", "))
        }
        Expr::Counter => "counter".to_owned(),
        Expr::Log(log) => {
            let (prefix, group) = (log.prefix.replace('"', "'"), log.group);
            let (snaplen, threshold) = (log.snaplen, log.queue_threshold);
            format!(
                "log prefix \"{prefix}\" group {group} snaplen {snaplen} queue-threshold {threshold}"
            )
        }
        Expr::Limit(limit) => {
            let over = if limit.over { "over " } else { "" };
            let unit = match limit.unit {
                RateUnit::Second => "second",
                RateUnit::Minute => "minute",
                RateUnit::Hour => "hour",
            };
            format!("limit rate {over}{}/{unit} burst {} packets", limit.rate, limit.burst)
        }
        Expr::Reject(Reject::AdminProhibited) => "reject with icmpx admin-prohibited".to_owned(),
        Expr::Reject(Reject::PortUnreachable) => "reject with icmpx port-unreachable".to_owned(),
        Expr::Reject(Reject::TcpReset) => "reject with tcp reset".to_owned(),
        Expr::SetMark(from) => format!("meta mark set {}", source(from)),
        Expr::MixMark { mask, xor } => {
            format!("meta mark set meta mark & 0x{mask:08x} ^ 0x{xor:08x}")
        }
        Expr::Dnat(family, from) => dnat(*family, from),
        Expr::Masquerade { random: true } => "masquerade fully-random".to_owned(),
        Expr::Masquerade { random: false } => "masquerade".to_owned(),
        Expr::Notrack => "notrack".to_owned(),
    }
}

fn dnat(family: Family, from: &Source) -> String {
    let family_name = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    match from {
        Source::Values(values) => {
            let parts: Vec<String> = values.iter().map(value).collect();
            match (family, parts.as_slice()) {
                (Family::V6, [addr, port]) => format!("dnat ip6 to [{addr}]:{port}"),
                _ => format!("dnat {family_name} to {}", parts.join(":")),
            }
        }
        Source::Map(keys, map) => {
            format!("dnat {family_name} addr . port to {} map @{map}", fields(keys))
        }
    }
}

fn source(from: &Source) -> String {
    match from {
        Source::Values(values) => values.iter().map(value).collect::<Vec<_>>().join(" . "),
        Source::Map(keys, map) => format!("{} map @{map}", fields(keys)),
    }
}

fn matching(each: &Match) -> String {
    let (left, kinds) = (fields(&each.fields), key_types(&each.fields));
    let is = each.test == Test::Is;
    let not = if is { "" } else { "!= " };
    match &each.operand {
        Operand::Is(Value::L4Proto(n)) if each.fields == [Field::NfProto] => {
            let family = match n {
                2 => "ipv4".to_owned(),
                10 => "ipv6".to_owned(),
                other => other.to_string(),
            };
            format!("{left} {not}{family}")
        }
        Operand::Is(Value::Number(2)) if each.fields == [Field::FibDaddrType] => {
            format!("{left} {not}local")
        }
        Operand::Is(single) => format!("{left} {not}{}", value(single)),
        Operand::Starts(start) => format!("{left} {not}\"{start}*\""),
        Operand::Within(net) => format!("{left} {not}{net}"),
        Operand::Between(from, to) => format!("{left} {not}{}-{}", value(from), value(to)),
        Operand::AnyBit(bits) => format!("{left} {not}{}", states(*bits)),
        Operand::Masked { mask, value } => {
            let operator = if is { "==" } else { "!=" };
            format!("{left} & 0x{mask:08x} {operator} 0x{value:08x}")
        }
        Operand::OneOf(elements) => {
            let list: Vec<String> = elements.iter().map(|each| element(&kinds, each)).collect();
            format!("{left} {not}{{ {} }}", list.join(", "))
        }
        Operand::In(set) => format!("{left} {not}@{set}"),
    }
}

fn key_types(fields: &[Field]) -> Vec<KeyType> {
    fields.iter().map(|field| field.key_type()).collect()
}

fn fields(fields: &[Field]) -> String {
    fields.iter().map(|each| field(*each)).collect::<Vec<_>>().join(" . ")
}

fn field(field: Field) -> String {
    match field {
        Field::IifName => "iifname",
        Field::OifName => "oifname",
        Field::NfProto => "meta nfproto",
        Field::L4Proto => "meta l4proto",
        Field::Mark => "meta mark",
        Field::Ip4Saddr => "ip saddr",
        Field::Ip4Daddr => "ip daddr",
        Field::Ip6Saddr => "ip6 saddr",
        Field::Ip6Daddr => "ip6 daddr",
        Field::ThSport => "th sport",
        Field::ThDport => "th dport",
        Field::IcmpType => "icmp type",
        Field::IcmpCode => "icmp code",
        Field::Icmpv6Type => "icmpv6 type",
        Field::Icmpv6Code => "icmpv6 code",
        Field::CtState => "ct state",
        Field::CtOriginalIp4Daddr => "ct original ip daddr",
        Field::CtOriginalDport => "ct original proto-dst",
        Field::FibDaddrType => "fib daddr type",
        Field::Random(modulus) => return format!("numgen random mod {modulus}"),
    }
    .to_owned()
}

fn types(kinds: &[KeyType]) -> String {
    let name = |kind: &KeyType| match kind {
        KeyType::Ifname => "ifname",
        KeyType::Ipv4 => "ipv4_addr",
        KeyType::Ipv6 => "ipv6_addr",
        KeyType::L4Proto => "inet_proto",
        KeyType::Port => "inet_service",
        KeyType::Mark | KeyType::Number => "mark",
        KeyType::CtState => "ct_state",
        KeyType::IcmpType => "icmp_type",
        KeyType::Icmpv6Type => "icmpv6_type",
    };
    kinds.iter().map(name).collect::<Vec<_>>().join(" . ")
}

/// Renders a key of a set or map whose parts have these types.
#[must_use]
pub fn element(kinds: &[KeyType], element: &Element) -> String {
    let split = |bytes: &[u8]| -> Vec<String> {
        let mut rest = bytes;
        let mut parts = Vec::new();
        for kind in kinds {
            let part = Value::read(*kind, rest).map_or_else(|| "?".to_owned(), |part| value(&part));
            parts.push(part);
            rest = rest.get(kind.padded_octets()..).unwrap_or_default();
        }
        parts
    };
    let from = split(element.start());
    let Some(to) = element.end().map(split) else { return from.join(" . ") };
    let part =
        |(from, to): (String, String)| if from == to { from } else { format!("{from}-{to}") };
    from.into_iter().zip(to).map(part).collect::<Vec<_>>().join(" . ")
}

fn value(value: &Value) -> String {
    match value {
        Value::Ifname(name) => format!("\"{name}\""),
        Value::Ipv4(addr) => addr.to_string(),
        Value::Ipv6(addr) => addr.to_string(),
        Value::L4Proto(number) => proto(*number),
        Value::IcmpType(number) | Value::Icmpv6Type(number) => number.to_string(),
        Value::Port(port) => port.to_string(),
        Value::Mark(mark) => format!("0x{mark:08x}"),
        Value::CtState(bits) => states(*bits),
        Value::Number(number) => number.to_string(),
    }
}

fn proto(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        136 => "udplite".to_owned(),
        other => other.to_string(),
    }
}

fn states(bits: u32) -> String {
    let names = [
        (CtState::INVALID, "invalid"),
        (CtState::ESTABLISHED, "established"),
        (CtState::RELATED, "related"),
        (CtState::NEW, "new"),
        (CtState::UNTRACKED, "untracked"),
    ];
    let set = names.iter().filter(|(state, _)| bits & state.0 != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}
