//! A table with one of everything, and nft as the judge.

use std::{net::Ipv4Addr, process::Command};

use kernel::NetNs;

use crate::{
    linux::nft::Nft,
    nft::{
        Base, Chain, CtState, Element, Expr, Family, Field, Hook, KeyType, Limit, Log, Map,
        MapValue, Operand, RateUnit, Reject, Rule, Set, Source, Table, Test, Value, Verdict,
    },
};

/// Runs in a fresh network namespace.
pub(super) fn isolated<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    NetNs::anonymous().unwrap().run(work).unwrap()
}

/// Runs nft in the namespace of this thread.
pub(super) fn nft(args: &[&str]) -> String {
    let output = Command::new("nft").args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Plans, commits, and says how many steps that took.
pub(super) fn sync(table: &mut Table, nft: &mut Nft) -> usize {
    let Some(batch) = table.plan() else { return 0 };
    nft.commit(&batch).unwrap_or_else(|error| panic!("{error}"));
    table.committed();
    batch.ops.len()
}

pub(super) fn v4(text: &str) -> Element {
    Element::new(&[text.parse::<Ipv4Addr>().unwrap().into()])
}

pub(super) fn net(text: &str) -> Element {
    Element::prefix(text.parse().unwrap())
}

/// One of everything.
pub(super) fn everything() -> Table {
    let mut table = Table::new("voile");
    table.put_set(
        Set::exact("s-pods".into(), &[KeyType::Ipv4]).with([v4("10.0.0.1"), v4("10.0.0.2")]),
    );
    table.put_set(Set::exact("s-ifs".into(), &[KeyType::Ifname]).with([Element::ifname("cali1")]));
    table.put_set(Set::interval("s-nets".into(), &[KeyType::Ipv4]).with([
        net("10.0.0.0/24"),
        net("10.0.1.0/25"),
        net("255.255.255.0/24"),
        v4("192.0.2.1"),
    ]));
    table.put_set(Set::interval("s-nets6".into(), &[KeyType::Ipv6]).with([net("fd00::/64")]));
    let tuple = [KeyType::Ipv4, KeyType::L4Proto, KeyType::Port];
    let flow = |a: &str, proto, port| {
        Element::new(&[
            a.parse::<Ipv4Addr>().unwrap().into(),
            Value::L4Proto(proto),
            Value::Port(port),
        ])
    };
    table.put_set(Set::exact("s-flows".into(), &tuple).with([flow("10.0.0.1", 6, 80)]));
    table.put_set(Set::interval("s-ranges".into(), &tuple).with([Element::range(
        &["10.1.0.0".parse::<Ipv4Addr>().unwrap().into(), Value::L4Proto(6), Value::Port(80)],
        &["10.1.0.255".parse::<Ipv4Addr>().unwrap().into(), Value::L4Proto(6), Value::Port(90)],
    )]));
    table.put_map(Map::verdict("m-to".into(), &[KeyType::Ifname]).with([
        (Element::ifname("cali1"), Verdict::Goto("ep-1".into()).into()),
        (Element::ifname("cali2"), Verdict::Accept.into()),
    ]));
    let service = Map::values("m-svc".into(), &tuple, &[KeyType::Mark]);
    table.put_map(service.with([(flow("10.96.0.1", 6, 443), MapValue::data(&[Value::Mark(7)]))]));
    let backends = Map::values(
        "m-backends".into(),
        &[KeyType::Mark, KeyType::Number],
        &[KeyType::Ipv4, KeyType::Port],
    );
    let backend = [Value::Ipv4(Ipv4Addr::new(10, 0, 0, 1)), Value::Port(6443)];
    table.put_map(
        backends
            .with([(Element::new(&[Value::Mark(7), Value::Number(0)]), MapValue::data(&backend))]),
    );
    table.put_chain(Chain::base("forward".into(), Base::filter(Hook::Forward, 0), forward()));
    table.put_chain(Chain::base("nat".into(), Base::nat(Hook::Prerouting, -100), services()));
    let masquerade = Base::nat(Hook::Postrouting, 110);
    table.put_chain(Chain::base(
        "nat-out".into(),
        masquerade,
        vec![Rule::statements(vec![
            Expr::in_set(&[Field::Ip4Saddr], "s-pods".into()),
            Expr::not_in_set(&[Field::Ip4Daddr], "s-nets".into()),
            Expr::Masquerade { random: true },
        ])],
    ));
    table.put_chain(Chain::new("ep-1".into(), endpoint()));
    table.put_chain(Chain::new("other".into(), vec![Rule::always(Verdict::Return)]));
    table
}

fn forward() -> Vec<Rule> {
    vec![
        Rule::statements(vec![Expr::ct_state_vmap(&[
            (CtState::ESTABLISHED, Verdict::Accept),
            (CtState::RELATED, Verdict::Accept),
            (CtState::INVALID, Verdict::Drop),
        ])]),
        Rule::statements(vec![Expr::Vmap(vec![Field::OifName], "m-to".into())]),
        Rule::new(vec![Expr::oifname("cali*"), Expr::Counter], Verdict::Drop).comment("unknown"),
    ]
}

fn services() -> Vec<Rule> {
    let key = vec![Field::Ip4Daddr, Field::L4Proto, Field::ThDport];
    vec![
        Rule::statements(vec![Expr::SetMark(Source::Map(key, "m-svc".into()))]),
        Rule::statements(vec![
            Expr::of(Field::Mark, Test::Not, Operand::Is(Value::Mark(0))),
            Expr::Dnat(
                Family::V4,
                Source::Map(vec![Field::Mark, Field::Random(64)], "m-backends".into()),
            ),
        ]),
        Rule::statements(vec![
            Expr::l4proto(6),
            Expr::port(Field::ThDport, 8080, 8080),
            Expr::dnat_to("10.0.0.1".parse().unwrap(), Some(80)),
        ]),
    ]
}

fn endpoint() -> Vec<Rule> {
    let ports = vec![
        Element::new(&[Value::Port(443)]),
        Element::range(&[Value::Port(80)], &[Value::Port(90)]),
        Element::range(&[Value::Port(85)], &[Value::Port(95)]),
    ];
    let protos = vec![Element::new(&[Value::L4Proto(6)]), Element::new(&[Value::L4Proto(17)])];
    let flow = [Field::Ip4Saddr, Field::L4Proto, Field::ThDport];
    let limit = Limit { rate: 5, unit: RateUnit::Second, burst: 10, over: false };
    vec![
        Rule::new(vec![Expr::in_set(&flow, "s-flows".into())], Verdict::Accept),
        Rule::new(vec![Expr::in_set(&flow, "s-ranges".into())], Verdict::Accept),
        Rule::new(vec![Expr::l4proto(6), Expr::one_of(Field::ThDport, ports)], Verdict::Accept),
        Rule::new(
            vec![Expr::one_of(Field::L4Proto, protos), Expr::port(Field::ThSport, 1, 1023)],
            Verdict::Jump("other".into()),
        ),
        Rule::new(vec![Expr::saddr("10.0.0.0/12".parse().unwrap(), Test::Not)], Verdict::Return),
        Rule::new(vec![Expr::daddr("fd00::/61".parse().unwrap(), Test::Is)], Verdict::Return),
        Rule::new(vec![Expr::daddr("fd00::1/128".parse().unwrap(), Test::Is)], Verdict::Continue),
        Rule::new(vec![Expr::in_set(&[Field::Ip6Saddr], "s-nets6".into())], Verdict::Accept),
        Rule::new(vec![Expr::in_set(&[Field::IifName], "s-ifs".into())], Verdict::Accept),
        Rule::new(vec![Expr::eq(Field::IcmpType, Value::IcmpType(8))], Verdict::Accept),
        Rule::new(
            vec![
                Expr::eq(Field::Icmpv6Type, Value::Icmpv6Type(1)),
                Expr::eq(Field::Icmpv6Code, Value::Icmpv6Type(3)),
            ],
            Verdict::Accept,
        ),
        Rule::new(
            vec![Expr::ct_state(CtState::ESTABLISHED.or(CtState::RELATED)), Expr::iifname("eth0")],
            Verdict::Accept,
        ),
        Rule::new(
            vec![Expr::of(Field::Mark, Test::Is, Operand::Masked { mask: 0xf0, value: 0x10 })],
            Verdict::Accept,
        ),
        Rule::new(vec![Expr::eq(Field::FibDaddrType, Value::Number(2))], Verdict::Accept),
        Rule::statements(vec![Expr::MixMark { mask: !0x8, xor: 0x8 }]),
        Rule::statements(vec![
            Expr::family(Family::V4),
            Expr::Limit(limit),
            Expr::Log(Log::new(1, "D|default/web|3")),
        ]),
        Rule::statements(vec![Expr::l4proto(6), Expr::Reject(Reject::TcpReset)]),
        Rule::statements(vec![Expr::Reject(Reject::AdminProhibited)]).comment("end of tier"),
    ]
}
