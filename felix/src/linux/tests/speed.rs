//! Numbers, printed with `--nocapture`; the limits are loose, they catch a wrong order of growth only.

#![expect(clippy::disallowed_methods, reason = "measuring takes a clock")]

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::fixture::{isolated, sync};
use crate::{
    linux::nft::Nft,
    nft::{
        Base, Chain, ChainName, Element, Expr, Field, Hook, KeyType, Map, Rule, Set, Table, Value,
        Verdict,
    },
};

fn addr(n: u32) -> Element {
    Element::new(&[Ipv4Addr::from(0x0a00_0000 + n).into()])
}

fn endpoints(count: u32) -> Table {
    let mut table = Table::new("voile");
    let mut map = Map::verdict("to".into(), &[KeyType::Ifname]);
    for index in 0..count {
        let name = ChainName::new(format!("ep-{index}"));
        let rule = |port| {
            let exprs = vec![
                Expr::in_set(&[Field::Ip4Saddr], "pods".into()),
                Expr::l4proto(6),
                Expr::port(Field::ThDport, port, port),
            ];
            Rule::new(exprs, Verdict::Accept).comment(format!("policy {index} port {port}"))
        };
        table.put_chain(Chain::new(name.clone(), (1..=5).map(rule).collect()));
        map.elements.insert(Element::ifname(format!("cali{index}")), Verdict::Goto(name).into());
    }
    table.put_set(Set::exact("pods".into(), &[KeyType::Ipv4]).with((0..10_000).map(addr)));
    table.put_map(map);
    let lookup = Rule::statements(vec![Expr::Vmap(vec![Field::OifName], "to".into())]);
    table.put_chain(Chain::base("forward".into(), Base::filter(Hook::Forward, 0), vec![lookup]));
    table
}

fn timed<T>(label: &str, work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    let took = start.elapsed();
    println!("{label}: {:.3} ms", took.as_secs_f64() * 1e3);
    (result, took)
}

fn percentiles(label: &str, mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    let at = |share: usize| samples[(samples.len() * share / 100).min(samples.len() - 1)];
    println!("{label}: p50 {:?} p99 {:?} n {}", at(50), at(99), samples.len());
    at(50)
}

#[test]
fn a_thousand_endpoints_and_single_changes() {
    isolated(|| {
        let mut kernel = Nft::open().unwrap();
        let (mut table, _) = timed("build 1000 chains x 5 rules, 10k members", || endpoints(1000));
        let (_, initial) = timed("program them", || sync(&mut table, &mut kernel));
        let mut adds = Vec::new();
        for index in 0..500 {
            let start = Instant::now();
            table.insert_element(&"pods".into(), addr(20_000 + index));
            assert_eq!(sync(&mut table, &mut kernel), 1);
            adds.push(start.elapsed());
        }
        let add = percentiles("one member (insert, plan, commit, ack)", adds);
        let mut edits = Vec::new();
        for index in 0..100_u16 {
            let start = Instant::now();
            let exprs = vec![Expr::l4proto(17), Expr::port(Field::ThDport, index, index)];
            let rules = vec![Rule::new(exprs, Verdict::Accept); 5];
            table.put_chain(Chain::new(ChainName::new("ep-7"), rules));
            sync(&mut table, &mut kernel);
            edits.push(start.elapsed());
        }
        percentiles("rewrite of a chain of 5 rules", edits);
        let mut fresh = Table::new("voile");
        let (actual, read) = timed("read everything back", || kernel.read("voile").unwrap());
        timed("compare", || fresh.adopt(actual));
        assert!(initial < Duration::from_secs(3) && read < Duration::from_secs(3));
        assert!(add < Duration::from_millis(20));
    });
}

#[test]
fn a_hundred_thousand_members() {
    isolated(|| {
        let mut kernel = Nft::open().unwrap();
        let mut table = Table::new("voile");
        let key = [KeyType::Ipv4, KeyType::L4Proto, KeyType::Port];
        let member = |n: u32| {
            let addr = Ipv4Addr::from(0x0a00_0000 + n);
            Element::new(&[addr.into(), Value::L4Proto(6), Value::Port(80)])
        };
        table.put_set(Set::exact("flows".into(), &key).with((0..100_000).map(member)));
        timed("program 100k concatenated members", || sync(&mut table, &mut kernel));
        let (actual, _) = timed("read them back", || kernel.read("voile").unwrap());
        table.adopt(actual);
        assert!(table.plan().is_none());
        let ((), _) = timed("replace half of them", || {
            table.put_set(Set::exact("flows".into(), &key).with((50_000..150_000).map(member)));
            assert_eq!(sync(&mut table, &mut kernel), 2);
        });
    });
}
