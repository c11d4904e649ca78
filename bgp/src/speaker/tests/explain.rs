use std::fmt::Write;

use expect_test::expect;

use super::lab::{Lab, mesh_configs, prefix};
use crate::{
    FibOutcome,
    filter::{Action, Filter, Operation, Policy, PrefixOperator, Rule},
    snapshot::{FibState, RouteExplanation},
};

fn tell(route: &RouteExplanation) -> String {
    let mut text = format!("{}\n", route.prefix);
    for path in &route.paths {
        let peer = path.peer.as_deref().unwrap_or("local");
        writeln!(text, "{peer} {}: {:?}, {:?}", path.path_id, path.usage, path.import).unwrap();
    }
    for each in &route.announcements {
        let path = each.attributes.as_ref().map(|attributes| attributes.as_path.to_string());
        writeln!(
            text,
            "to {} path {:?}: {path:?}, {}, {}",
            each.peer, each.path, each.told, each.reason
        )
        .unwrap();
    }
    writeln!(text, "{:?}", route.fib).unwrap();
    text
}

#[test]
fn a_route_has_all_its_reasons() {
    // 0 and 1 both reach 3 through 2; 2 is in between and has rules.
    let mut configs = mesh_configs(&[1, 2, 3, 4], &[(0, 2), (1, 2), (2, 3)]);
    let changes = Rule {
        operations: vec![Operation::SetLocalPref(50)],
        ..Rule::new(Action::Accept).with_prefix(PrefixOperator::In, prefix("10.0.0.0/8"))
    };
    let slow = Filter { name: "backup".into(), rules: vec![changes] };
    configs[2].peers[1].import.filters.push(slow.into());
    let stops = Rule::new(Action::Reject).with_prefix(PrefixOperator::Equal, prefix("10.2.0.0/16"));
    let secret = Filter { name: "secret".into(), rules: vec![stops] };
    configs[2].peers[2].export = Policy { filters: vec![secret.into()], default: Action::Accept };
    let mut lab = Lab::new(configs);
    for speaker in [0, 1] {
        lab.originate(speaker, "10.1.0.0/16");
        lab.originate(speaker, "10.2.0.0/16");
    }
    lab.run(5);
    expect![[r#"
        10.1.0.0/16
        r0 0: Best(LocalPref), Accepted("no rule matched")
        r1 0: Lost(LocalPref), Changed("rule 1 of filter backup")
        to r0 path Some(0): None, false, it is from this peer (split horizon)
        to r1 path Some(0): Some("3 1"), true, no rule matched
        to r3 path Some(0): Some("3 1"), true, no rule matched
        Told(Via([FibNextHop { address: 10.0.0.1, interface: None }]))
    "#]]
    .assert_eq(&tell(&lab.speaker(2).explain(&prefix("10.1.0.0/16")).unwrap()));
    let now = lab.now;
    let outcome = |refused: Option<&str>| {
        let prefix = prefix("10.1.0.0/16");
        vec![FibOutcome { prefix, refused: refused.map(str::to_owned) }]
    };
    lab.speaker(2).handle_fib_outcomes(outcome(None), now);
    let kernel = |lab: &mut Lab| lab.speaker(2).explain(&prefix("10.1.0.0/16")).unwrap().fib;
    assert!(matches!(kernel(&mut lab), FibState::Installed(_)));
    lab.speaker(2).handle_fib_outcomes(outcome(Some("no such gateway")), now);
    assert!(matches!(kernel(&mut lab), FibState::Refused { why, .. } if why == "no such gateway"));
    assert_eq!(lab.speaker(2).snapshot(false).routes_refused, 1);
    // Of the two prefixes that r0 is the best for, the kernel has one; r1 is only the second choice.
    let r0 = lab.peer(2, 0);
    assert_eq!((r0.prefixes_accepted, r0.prefixes_installed), (2, 1));
    let r1 = lab.peer(2, 1);
    assert_eq!((r1.prefixes_accepted, r1.prefixes_installed), (2, 0));
    let address = "10.1.2.3".parse().unwrap();
    assert_eq!(lab.speaker(2).longest_match(address), Some(prefix("10.1.0.0/16")));
    let hidden = tell(&lab.speaker(2).explain(&prefix("10.2.0.0/16")).unwrap());
    let line =
        "to r3 path Some(0): None, false, rejected by export policy: rule 1 of filter secret";
    assert!(hidden.contains(line), "{hidden}");
    let own = tell(&lab.speaker(0).explain(&prefix("10.1.0.0/16")).unwrap());
    assert!(own.contains("local 0: Best(OnlyPath), Local") && own.contains("Local\n"), "{own}");
    assert!(lab.speaker(0).explain(&prefix("10.9.0.0/16")).is_none());
    // What is gone is not refused any more, even if the answer is late.
    lab.withdraw(0, "10.1.0.0/16");
    lab.withdraw(1, "10.1.0.0/16");
    lab.run(1);
    lab.speaker(2).handle_fib_outcomes(outcome(Some("no such gateway")), now);
    assert_eq!(lab.speaker(2).snapshot(false).routes_refused, 0);
    assert_eq!(lab.speaker(2).longest_match(address), None);
}

#[test]
fn paths_are_ranked_one_below_the_other() {
    // The same route over three ways: one longer, one with another identifier only, one that is refused.
    let mut configs = mesh_configs(
        &[1, 2, 3, 9, 4, 7],
        &[(0, 1), (0, 2), (0, 3), (0, 5), (1, 4), (2, 4), (3, 4), (4, 5)],
    );
    configs[4].peers[0].import.filters.push(
        Filter {
            name: "longer".into(),
            rules: vec![Rule {
                operations: vec![Operation::PrependAsPath(vec![crate::Asn(2), crate::Asn(2)])],
                ..Rule::new(Action::Accept)
            }],
        }
        .into(),
    );
    configs[4].peers[2].import = Policy::absent();
    let mut lab = Lab::new(configs);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    let route = lab.speaker(4).explain(&prefix("10.1.0.0/16")).unwrap();
    let mut text = String::new();
    for path in &route.paths {
        writeln!(text, "{:?} {:?} {:?}", path.peer, path.usage, path.rank).unwrap();
        writeln!(text, "  {:?}", path.import).unwrap();
    }
    expect![[r#"
        Some("r2") Best(RouterId) Some(Rank { step: RouterId, compared: Some(("10.0.0.3", "10.0.0.6")) })
          Accepted("no rule matched")
        Some("r5") Multipath Some(Rank { step: RouterId, compared: Some(("10.0.0.6", "10.0.0.3")) })
          Accepted("no rule matched")
        Some("r1") Lost(AsPathLength) Some(Rank { step: AsPathLength, compared: Some(("4", "2")) })
          Changed("rule 1 of filter longer")
        Some("r3") Rejected("import policy") None
          Rejected("no policy is configured (RFC 8212)")
    "#]].assert_eq(&text);
}

#[test]
fn with_add_path_every_path_is_told() {
    let mut lab = Lab::two_paths_told();
    let paths = lab.speaker(3).explain(&prefix("10.1.0.0/16")).unwrap().paths;
    let mut seen: Vec<_> =
        paths.iter().map(|path| (path.path_id, path.received.as_path.to_string())).collect();
    seen.sort();
    let routes: Vec<&str> = seen.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(routes.len(), 2, "{seen:?}");
    assert!(routes.contains(&"3 1") && routes.contains(&"3 2"), "{seen:?}");
    assert_ne!(seen[0].0, seen[1].0);
    lab.withdraw(0, "10.1.0.0/16");
    lab.run(1);
    let left = lab.speaker(3).explain(&prefix("10.1.0.0/16")).unwrap().paths;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].received.as_path.to_string(), "3 2");
    lab.withdraw(1, "10.1.0.0/16");
    lab.run(1);
    assert!(lab.speaker(3).explain(&prefix("10.1.0.0/16")).is_none());
}
