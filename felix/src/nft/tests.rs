mod fake;

use std::net::Ipv4Addr;

use expect_test::expect;
use proptest::prelude::*;

use self::fake::Kernel;
use super::*;

fn addr(last: u8) -> Element {
    Element::new(&[Ipv4Addr::new(10, 0, 0, last).into()])
}

fn accept_from(set: &str) -> Rule {
    Rule::new(vec![Expr::in_set(&[Field::Ip4Saddr], set.into())], Verdict::Accept)
}

fn commit(table: &mut Table, kernel: &mut Kernel) -> usize {
    let Some(batch) = table.plan() else { return 0 };
    kernel.commit(&batch).unwrap_or_else(|error| panic!("{error}\n{}", text::summary(&batch)));
    table.committed();
    batch.ops.len()
}

#[test]
fn a_plan_brings_referents_before_references_and_takes_them_after() {
    let mut table = Table::new("t");
    table.put_set(Set::exact("s".into(), &[KeyType::Ipv4]).with([addr(1), addr(2)]));
    table.put_chain(Chain::new("ep".into(), vec![accept_from("s")]));
    let key = Element::ifname("cali1");
    let to_ep = Verdict::Goto("ep".into());
    table.put_map(Map::verdict("m".into(), &[KeyType::Ifname]).with([(key.clone(), to_ep.into())]));
    let plan = table.plan().unwrap();
    expect![[r#"
        create table
        create chain ep
        create set s
        create map m
        add members to set s (2)
        write rules of chain ep (1)
        add members to map m (1)
    "#]]
    .assert_eq(&text::summary(&plan));
    table.committed();
    assert_eq!(table.plan(), None);
    table.map_remove(&"m".into(), &key);
    table.remove_chain(&"ep".into());
    table.remove_set(&"s".into());
    expect![[r#"
        flush chain ep
        remove members of map m (1)
        delete set s
        delete chain ep
    "#]]
    .assert_eq(&text::summary(&table.plan().unwrap()));
}

#[test]
fn changes_that_cancel_out_write_nothing() {
    let mut table = Table::new("t");
    table.put_set(Set::exact("s".into(), &[KeyType::Ipv4]).with([addr(1)]));
    table.put_chain(Chain::new("c".into(), vec![accept_from("s")]));
    table.committed();
    assert!(table.insert_element(&"s".into(), addr(2)));
    assert!(table.remove_element(&"s".into(), &addr(2)));
    assert!(!table.insert_element(&"s".into(), addr(1)));
    table.put_chain(Chain::new("c".into(), vec![]));
    table.put_chain(Chain::new("c".into(), vec![accept_from("s")]));
    table.remove_set(&"s".into());
    table.put_set(Set::exact("s".into(), &[KeyType::Ipv4]).with([addr(1)]));
    assert_eq!(table.plan(), None);
}

#[test]
fn names_are_made_legal_without_collisions() {
    assert_eq!(ChainName::new("pol/default/web.1_a-b").as_str(), "pol/default/web.1_a-b");
    let (a, b) = (SetName::new("app == 'x'"), SetName::new("app == 'y'"));
    assert_ne!(a, b);
    assert!(a.as_str().starts_with("app_____x_-"), "{a}");
    assert!(MapName::new("1x").as_str().starts_with("n1x-"));
    assert!(ChainName::new("ä".repeat(300)).as_str().len() <= 127);
}

#[test]
fn the_fingerprint_sees_every_part_of_a_rule() {
    let rule = accept_from("s");
    let variants = [
        rule.clone(),
        accept_from("t"),
        rule.clone().comment("c"),
        Rule { verdict: Some(Verdict::Drop), ..rule.clone() },
        Rule { verdict: None, ..rule },
    ];
    let prints: std::collections::BTreeSet<_> = variants.iter().map(Fingerprint::of).collect();
    assert_eq!(prints.len(), variants.len());
}

/// A change of what is wanted, or something that happens to the kernel.
#[derive(Clone, Debug)]
enum Step {
    /// Chain, its set, and the chain it jumps to (always a later one: no loops).
    Chain(u8, u8, bool),
    NoChain(u8),
    Set(u8, bool, Vec<u8>),
    Insert(u8, u8),
    Remove(u8, u8),
    Point(u8, u8),
    Unpoint(u8),
    Commit,
    Restart,
    Vandalism(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0..4_u8;
    prop_oneof![
        (n(), n(), any::<bool>()).prop_map(|(c, s, jump)| Step::Chain(c, s, jump)),
        n().prop_map(Step::NoChain),
        (n(), any::<bool>(), prop::collection::vec(0..6_u8, 0..4))
            .prop_map(|(s, interval, members)| Step::Set(s, interval, members)),
        (n(), 0..6_u8).prop_map(|(s, m)| Step::Insert(s, m)),
        (n(), 0..6_u8).prop_map(|(s, m)| Step::Remove(s, m)),
        (n(), n()).prop_map(|(k, c)| Step::Point(k, c)),
        n().prop_map(Step::Unpoint),
        Just(Step::Commit),
        Just(Step::Restart),
        n().prop_map(Step::Vandalism),
    ]
}

fn chain_name(number: u8) -> ChainName {
    ChainName::new(format!("c{number}"))
}

fn set_name(number: u8) -> SetName {
    SetName::new(format!("s{number}"))
}

/// All sets, and a verdict map, are always wanted; chains may go only when nothing wanted refers to them.
fn fresh() -> Table {
    let mut table = Table::new("t");
    for number in 0..4 {
        table.put_set(Set::exact(set_name(number), &[KeyType::Ipv4]));
    }
    table.put_map(Map::verdict("m".into(), &[KeyType::Ifname]));
    table
}

fn is_referred(table: &Table, name: &ChainName) -> bool {
    let jumps = table.chains().flat_map(|chain| &chain.rules);
    let values = table.maps().flat_map(|map| map.elements.into_values()).collect::<Vec<_>>();
    let to =
        |verdict: &Verdict| matches!(verdict, Verdict::Jump(to) | Verdict::Goto(to) if to == name);
    jumps.filter_map(|rule| rule.verdict.as_ref()).any(to)
        || values.iter().any(|value| matches!(value, MapValue::Verdict(verdict) if to(verdict)))
}

fn perform(step: Step, table: &mut Table, kernel: &mut Kernel) {
    let key = |number: u8| Element::ifname(format!("cali{number}"));
    match step {
        Step::Chain(chain, set, jump) => {
            let mut rules = vec![accept_from(set_name(set).as_str())];
            if jump && chain < 3 && table.chain(&chain_name(chain + 1)).is_some() {
                rules.push(Rule::always(Verdict::Jump(chain_name(chain + 1))));
            }
            table.put_chain(Chain::new(chain_name(chain), rules));
        }
        Step::NoChain(chain) if !is_referred(table, &chain_name(chain)) => {
            table.remove_chain(&chain_name(chain));
        }
        Step::NoChain(_) => {}
        Step::Set(set, interval, members) => {
            let empty = if interval { Set::interval } else { Set::exact };
            let members = members.into_iter().map(addr);
            table.put_set(empty(set_name(set), &[KeyType::Ipv4]).with(members));
        }
        Step::Insert(set, member) => {
            table.insert_element(&set_name(set), addr(member));
        }
        Step::Remove(set, member) => {
            table.remove_element(&set_name(set), &addr(member));
        }
        Step::Point(from, chain) if table.chain(&chain_name(chain)).is_some() => {
            table.map_insert(&"m".into(), key(from), Verdict::Goto(chain_name(chain)));
        }
        Step::Point(..) => {}
        Step::Unpoint(from) => {
            table.map_remove(&"m".into(), &key(from));
        }
        Step::Commit => {
            commit(table, kernel);
        }
        Step::Restart => table.adopt(kernel.actual.clone()),
        Step::Vandalism(number) => {
            kernel.vandalize(number);
            table.adopt(kernel.actual.clone());
        }
    }
}

proptest! {
    #[test]
    fn any_history_ends_as_starting_from_scratch(steps in prop::collection::vec(step(), 0..40)) {
        let (mut table, mut kernel) = (fresh(), Kernel::default());
        for each in steps {
            perform(each, &mut table, &mut kernel);
        }
        commit(&mut table, &mut kernel);
        prop_assert_eq!(table.plan(), None);
        let mut scratch = Table::new("t");
        for chain in table.chains() {
            scratch.put_chain(chain.clone());
        }
        for set in table.sets() {
            scratch.put_set(set);
        }
        for map in table.maps() {
            scratch.put_map(map);
        }
        let mut other = Kernel::default();
        commit(&mut scratch, &mut other);
        prop_assert_eq!(&kernel.actual, &other.actual);
        scratch.adopt(kernel.actual.clone());
        prop_assert_eq!(scratch.plan(), None);
    }
}
