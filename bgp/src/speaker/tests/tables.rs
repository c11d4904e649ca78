use std::{fmt::Write, time::Duration};

use expect_test::expect;

use super::lab::{Lab, mesh_configs, prefix};
use crate::{
    PeerAction, State,
    filter::{Action, Filter, Operation, Policy, PrefixOperator, Rule},
    snapshot::{LossCause, PolicySide, Table, TablePart, TableQuestion},
};

fn question(table: Table, policy: PolicySide, peer: Option<&str>) -> TableQuestion {
    let peer = peer.map(str::to_owned);
    TableQuestion { table, policy, peer, within: None, after: None, limit: 1000 }
}

fn tell(part: &TablePart) -> String {
    let mut text = String::new();
    for route in &part.routes {
        for path in &route.paths {
            let from = path.peer.as_deref().unwrap_or("local");
            let pref = path.accepted.as_ref().map(|accepted| accepted.local_pref);
            writeln!(
                text,
                "{} from {from}: {:?}, {:?}, preference {pref:?}",
                route.prefix, path.usage, path.import
            )
            .unwrap();
        }
        for each in &route.announcements {
            let path = each.attributes.as_ref().map(|attributes| attributes.as_path.to_string());
            writeln!(text, "{} to {}: {path:?}, {}", route.prefix, each.peer, each.reason).unwrap();
        }
        if let Some(fib) = &route.fib {
            writeln!(text, "{} kernel {fib:?}", route.prefix).unwrap();
        }
    }
    text
}

/// Speaker 1 hears from 0, which announces three prefixes, and tells 2: one is refused on the way in, one on the way out.
fn between() -> Lab {
    let mut configs = mesh_configs(&[1, 2, 3], &[(0, 1), (1, 2)]);
    let stop = |name: &str, text: &str| {
        let rule = Rule::new(Action::Reject).with_prefix(PrefixOperator::Equal, prefix(text));
        let prefer =
            Rule { operations: vec![Operation::SetLocalPref(50)], ..Rule::new(Action::Accept) };
        let filter = Filter { name: name.into(), rules: vec![rule, prefer] };
        Policy { filters: vec![filter.into()], default: Action::Accept }
    };
    configs[1].peers[0].import = stop("in", "10.1.0.0/16");
    configs[1].peers[1].export = stop("out", "10.2.0.0/16");
    let mut lab = Lab::new(configs);
    for number in 1..=3 {
        lab.originate(0, &format!("10.{number}.0.0/16"));
    }
    lab.run(5);
    lab
}

#[test]
fn tables_show_both_sides_of_policy() {
    let mut lab = between();
    let mut show =
        |table, policy, peer| tell(&lab.speaker(1).table(&question(table, policy, peer)).unwrap());
    expect![[r#"
        10.1.0.0/16 from r0: Rejected("import policy"), Rejected("rule 1 of filter in"), preference None
        10.2.0.0/16 from r0: Best(OnlyPath), Changed("rule 2 of filter in"), preference Some(Some(50))
        10.3.0.0/16 from r0: Best(OnlyPath), Changed("rule 2 of filter in"), preference Some(Some(50))
    "#]].assert_eq(&show(Table::AdjIn, PolicySide::Pre, Some("r0")));
    expect![[r#"
        10.2.0.0/16 from r0: Best(OnlyPath), Changed("rule 2 of filter in"), preference Some(Some(50))
        10.3.0.0/16 from r0: Best(OnlyPath), Changed("rule 2 of filter in"), preference Some(Some(50))
    "#]].assert_eq(&show(Table::AdjIn, PolicySide::Post, Some("10.0.0.1")));
    expect![[r#"
        10.2.0.0/16 from r0: Best(OnlyPath), Changed("rule 2 of filter in"), preference Some(Some(50))
        10.2.0.0/16 kernel Told(Via([FibNextHop { address: 10.0.0.1, interface: None }]))
        10.3.0.0/16 from r0: Best(OnlyPath), Changed("rule 2 of filter in"), preference Some(Some(50))
        10.3.0.0/16 kernel Told(Via([FibNextHop { address: 10.0.0.1, interface: None }]))
    "#]].assert_eq(&show(Table::Loc, PolicySide::Post, None));
    expect![[r#"
        10.3.0.0/16 from r0: Best(OnlyPath), Changed("rule 2 of filter in"), preference Some(Some(50))
        10.3.0.0/16 to r2: Some("2 1"), rule 2 of filter out
    "#]].assert_eq(&show(Table::AdjOut, PolicySide::Post, Some("r2")));
    expect![[r#"
        10.2.0.0/16 from r0: Best(OnlyPath), Changed("rule 2 of filter in"), preference Some(Some(50))
        10.2.0.0/16 to r2: None, rejected by export policy: rule 1 of filter out
        10.3.0.0/16 from r0: Best(OnlyPath), Changed("rule 2 of filter in"), preference Some(Some(50))
        10.3.0.0/16 to r2: Some("2 1"), rule 2 of filter out
    "#]].assert_eq(&show(Table::AdjOut, PolicySide::Pre, Some("r2")));
    assert_eq!(show(Table::AdjIn, PolicySide::Pre, Some("r2")), "");
    assert_eq!(show(Table::AdjOut, PolicySide::Post, Some("r0")), "");
    let nobody = question(Table::AdjIn, PolicySide::Pre, Some("r9"));
    assert!(lab.speaker(1).table(&nobody).is_none());
}

#[test]
fn parts_of_a_table_are_the_table() {
    let mut lab = between();
    for number in 0..50 {
        lab.originate(0, &format!("10.100.{number}.0/24"));
    }
    lab.run(1);
    let mut asked = question(Table::Loc, PolicySide::Post, None);
    let whole = lab.speaker(1).table(&asked).unwrap();
    assert_eq!((whole.routes.len(), whole.next), (52, None));
    asked.limit = 7;
    let mut parts = Vec::new();
    loop {
        let part = lab.speaker(1).table(&asked).unwrap();
        assert!(part.routes.len() <= 7);
        parts.extend(part.routes);
        asked.after = part.next;
        if part.next.is_none() {
            break;
        }
    }
    assert_eq!(parts, whole.routes);
    asked.within = Some(prefix("10.100.0.0/19"));
    asked.limit = 1000;
    assert_eq!(lab.speaker(1).table(&asked).unwrap().routes.len(), 32);
}

#[test]
fn with_add_path_every_path_told_is_shown() {
    let mut lab = Lab::two_paths_told();
    let asked = question(Table::AdjOut, PolicySide::Post, Some("r3"));
    let told = lab.speaker(2).table(&asked).unwrap();
    let told: Vec<u32> = told.routes[0].announcements.iter().map(|each| each.path_id).collect();
    let asked = question(Table::AdjIn, PolicySide::Pre, Some("r2"));
    let heard = lab.speaker(3).table(&asked).unwrap();
    let mut heard: Vec<u32> = heard.routes[0].paths.iter().map(|path| path.path_id).collect();
    heard.sort_unstable();
    assert_eq!(told.len(), 2);
    assert_eq!(told, heard);
}

#[test]
fn who_looks_on_hears_what_happens_until_it_asks_no_more() {
    let mut lab = between();
    let ask = |lab: &mut Lab, within: Option<&str>| {
        let now = lab.now;
        let within = within.map(prefix);
        lab.speaker(1).happenings("me", within, now).unwrap()
    };
    assert_eq!(ask(&mut lab, None), Default::default());
    lab.originate(0, "10.4.0.0/16");
    lab.originate(0, "10.5.0.0/16");
    lab.run(1);
    lab.withdraw(0, "10.5.0.0/16");
    lab.withdraw(0, "10.3.0.0/16");
    lab.run(1);
    let happened = ask(&mut lab, None);
    let routes: Vec<(String, bool)> =
        happened.routes.iter().map(|(prefix, best)| (prefix.to_string(), best.is_some())).collect();
    let gone = |text: &str| (text.to_owned(), false);
    let there = ("10.4.0.0/16".to_owned(), true);
    assert_eq!(routes, [gone("10.3.0.0/16"), there, gone("10.5.0.0/16")]);
    assert!(happened.sessions.is_empty() && !happened.missed);
    let now = lab.now;
    lab.speaker(1).operate("10.0.0.1", &PeerAction::reset("x"), now).unwrap();
    lab.run(5);
    let sessions = ask(&mut lab, None).sessions;
    let first = &sessions[0].1;
    assert_eq!((first.peer.as_str(), first.from), ("r0", State::Established));
    assert_eq!(first.cause, "reset by the operator");
    assert_eq!(sessions.last().unwrap().1.to, State::Established);
    assert_eq!(lab.peer(1, 0).losses.get(&LossCause::Local), Some(&1));
    // Nobody asks for a minute: nothing is remembered any more, and the next question is a first one.
    lab.run(120);
    lab.originate(0, "10.6.0.0/16");
    lab.run(1);
    assert_eq!(ask(&mut lab, None), Default::default());
}

#[test]
fn what_is_remembered_for_those_who_look_on_is_bounded() {
    let mut lab = between();
    let now = lab.now;
    let _ = lab.speaker(1).happenings("me", None, now).unwrap();
    for number in 0..(1_u32 << 16) + 10 {
        let address = std::net::Ipv4Addr::from(0x0a64_0000 + (number << 8));
        let prefix = crate::Prefix::new(address.into(), 24).unwrap();
        lab.speaker(1).originate(prefix, crate::LocalRoute::default());
        if number % 1000 == 0 {
            while lab.speaker(1).poll_output().is_some() {}
        }
    }
    while lab.speaker(1).poll_output().is_some() {}
    let happened = lab.speaker(1).happenings("me", None, now).unwrap();
    assert!(happened.missed);
    // As many may look on as there is room for, and no more.
    let more = (0..20)
        .filter(|number| lab.speaker(1).happenings(&number.to_string(), None, now).is_some());
    assert_eq!(more.count(), 15);
    let later = now + Duration::from_secs(61);
    assert!(lab.speaker(1).happenings("new", None, later).is_some());
}

#[test]
fn a_peer_gets_everything_again_when_the_operator_wants_it() {
    let mut lab = between();
    let before = lab.peer(1, 0).received.updates;
    let now = lab.now;
    lab.speaker(0).operate("r1", &PeerAction::RefreshOut, now).unwrap();
    lab.run(1);
    assert!(lab.peer(1, 0).received.updates > before);
    assert_eq!(lab.peer(1, 0).flaps, 0);
    let down = lab.speaker(0).operate("r9", &PeerAction::RefreshOut, now);
    assert_eq!(down, Err("there is no peer 'r9'".to_owned()));
}
