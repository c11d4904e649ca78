use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn judge(rule: Rule, at: &str, attributes: &PathAttributes) -> Action {
    let filter = Arc::new(Filter { name: "test".into(), rules: vec![rule] });
    let policy = Policy { filters: vec![filter], default: Action::Reject };
    let subject = Subject {
        prefix: prefix(at),
        attributes,
        source: Source::Peers,
        peer_type: PeerType::External,
    };
    policy.judge(&subject).action
}

#[test]
fn prefix_operators() {
    use PrefixOperator::{Equal, In, NotEqual, NotIn};
    const CASES: [(PrefixOperator, &str, bool); 9] = [
        (Equal, "10.0.0.0/8", true),
        (Equal, "10.1.0.0/16", false),
        (NotEqual, "10.1.0.0/16", true),
        (In, "10.0.0.0/8", true),
        (In, "10.1.0.0/16", true),
        (In, "0.0.0.0/0", false),
        (NotIn, "11.0.0.0/8", true),
        (NotIn, "10.1.0.0/16", false),
        (NotIn, "2001:db8::/32", false),
    ];
    for (operator, at, accepted) in CASES {
        let rule = Rule::new(Action::Accept).with_prefix(operator, prefix("10.0.0.0/8"));
        let action = judge(rule, at, &PathAttributes::default());
        assert_eq!(action == Action::Accept, accepted, "{operator:?} {at}");
    }
}

#[test]
fn every_condition_must_hold() {
    let mut attributes = PathAttributes::default();
    attributes.communities.push(Community(1));
    attributes.as_path.0 = vec![Asn(1), Asn(2)];
    let any = Rule::new(Action::Accept);
    let both = Rule {
        communities: vec![
            AnyCommunity::Standard(Community(7)),
            AnyCommunity::Standard(Community(1)),
        ],
        as_path_prefix: vec![Asn(1)],
        ..any.clone()
    };
    assert_eq!(judge(both.clone(), "10.0.0.0/8", &attributes), Action::Accept);
    let other_path = Rule { as_path_prefix: vec![Asn(2)], ..both };
    assert_eq!(judge(other_path, "10.0.0.0/8", &attributes), Action::Reject);
    let internal = Rule { peer_type: Some(PeerType::Internal), ..any.clone() };
    assert_eq!(judge(internal, "10.0.0.0/8", &attributes), Action::Reject);
    let via = Rule { next_hop: Some(vec![prefix("10.1.0.0/16"), prefix("10.2.0.0/16")]), ..any };
    assert_eq!(judge(via.clone(), "10.0.0.0/8", &attributes), Action::Reject);
    for (address, verdict) in [([10, 2, 0, 1], Action::Accept), ([10, 3, 0, 1], Action::Reject)] {
        attributes.next_hop = Some(crate::attr::NextHop::from(std::net::IpAddr::from(address)));
        assert_eq!(judge(via.clone(), "10.0.0.0/8", &attributes), verdict);
    }
}

#[test]
fn the_verdict_names_the_rule() {
    let filter = Filter {
        name: "pools".into(),
        rules: vec![
            Rule { source: Some(Source::Local), ..Rule::new(Action::Accept) },
            Rule::new(Action::Reject),
        ],
    };
    let policy = Policy { filters: vec![Arc::new(filter)], default: Action::Accept };
    let attributes = PathAttributes::default();
    let subject = Subject {
        prefix: prefix("10.0.0.0/8"),
        attributes: &attributes,
        source: Source::Peers,
        peer_type: PeerType::Internal,
    };
    assert_eq!(policy.judge(&subject).why.to_string(), "rule 2 of filter pools");
}
