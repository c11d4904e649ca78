//! BLACKHOLE (RFC 7999): honoured where that was agreed, and nowhere else.

use std::sync::Arc;

use super::lab::{Lab, mesh_configs, prefix};
use crate::{
    Community, FibRoute, InterfaceDown, LocalRoute, PeerConfig,
    config::Blackhole,
    filter::{
        Action, AnyCommunity, Filter, LengthRange, Operation, Policy, PrefixMatch, PrefixOperator,
        Rule,
    },
    snapshot::{BlackholeState, FibState, ImportReason},
};

const VICTIM: &str = "10.1.7.7/32";

/// r0, a customer; r1, its provider; r2, another router of the provider; r3, another system.
fn lab(change: impl Fn(&mut PeerConfig)) -> Lab {
    let mut configs = mesh_configs(&[1, 2, 2, 3], &[(0, 1), (1, 2), (1, 3)]);
    change(&mut configs[1].peers[0]);
    let mut lab = Lab::new(configs);
    lab.originate(0, "10.1.0.0/16");
    tag(&mut lab, 0, VICTIM, &[Community::BLACKHOLE]);
    tag(&mut lab, 0, "10.2.7.7/32", &[Community::BLACKHOLE]);
    lab.run(5);
    lab
}

fn tag(lab: &mut Lab, index: usize, text: &str, communities: &[Community]) {
    let route = LocalRoute { communities: communities.to_vec(), ..LocalRoute::default() };
    lab.speaker(index).originate(prefix(text), route);
}

fn within(text: &str) -> Blackhole {
    Blackhole::Within(vec![prefix(text)])
}

/// What a customer may announce: no longer prefixes than 24 bits.
fn short() -> Policy {
    let lengths = LengthRange { min: Some(25), max: None };
    let long = PrefixMatch { operator: PrefixOperator::In, prefix: prefix("0.0.0.0/0"), lengths };
    let rule = Rule { prefix: Some(long), ..Rule::new(Action::Reject) };
    let filter = Filter { name: "short".into(), rules: vec![rule] };
    Policy { filters: vec![Arc::new(filter)], default: Action::Accept }
}

fn change(lab: &mut Lab, change: impl Fn(&mut PeerConfig)) {
    let mut config = lab.speaker(1).config().clone();
    change(&mut config.peers[0]);
    let now = lab.now;
    lab.speaker(1).configure(config, now);
    lab.run(1);
}

/// RFC 7999 §4.
#[test]
fn without_agreement_the_route_is_one_like_others() {
    let mut lab = lab(|_| ());
    let all = "10.1.0.0/16 via 10.0.0.1\n10.1.7.7/32 via 10.0.0.1\n10.2.7.7/32 via 10.0.0.1\n";
    assert_eq!(lab.fib(1), all);
    assert_eq!(lab.fibs[3].len(), 3);
    let route = lab.speaker(1).explain(&prefix(VICTIM)).unwrap();
    assert_eq!(route.paths[0].blackhole, Some(BlackholeState::NotAgreed));
    assert_eq!(lab.peer(1, 0).prefixes_blackholed, 0);
    let route = lab.speaker(1).explain(&prefix("10.1.0.0/16")).unwrap();
    assert_eq!(route.paths[0].blackhole, None);
}

/// RFC 7999 §3.3: what the peer may announce, and no more. §3.2: it stays in our system.
#[test]
fn what_was_agreed_is_dropped_and_stays_inside() {
    let mut lab = lab(|peer| peer.blackhole = within("10.1.0.0/16"));
    let expected = "10.1.0.0/16 via 10.0.0.1\n10.1.7.7/32 blackhole\n10.2.7.7/32 via 10.0.0.1\n";
    assert_eq!(lab.fib(1), expected);
    assert!(lab.fib(2).contains("10.1.7.7/32 via 10.0.0.1"), "{}", lab.fib(2));
    assert_eq!(lab.fib(3), "10.1.0.0/16 via 10.0.0.2\n10.2.7.7/32 via 10.0.0.2\n");
    let status = lab.peer(1, 0);
    assert_eq!((status.prefixes_blackholed, status.prefixes_installed), (1, 3));
    let route = lab.speaker(1).explain(&prefix(VICTIM)).unwrap();
    assert_eq!(route.fib, FibState::Told(FibRoute::Blackhole));
    assert_eq!(route.paths[0].blackhole, Some(BlackholeState::Honoured));
    let accepted = route.paths[0].accepted.as_ref().unwrap();
    assert_eq!(accepted.communities, [Community::BLACKHOLE, Community::NO_EXPORT]);
    let outside = route.announcements.iter().find(|each| each.peer == "r3").unwrap();
    assert_eq!(outside.reason, "carries no-export");
}

#[test]
fn the_other_router_inside_may_agree_as_well() {
    let mut configs = mesh_configs(&[1, 2, 2], &[(0, 1), (1, 2)]);
    configs[1].peers[0].blackhole = Blackhole::Accepted;
    configs[2].peers[0].blackhole = Blackhole::Accepted;
    let mut lab = Lab::new(configs);
    tag(&mut lab, 0, VICTIM, &[Community::BLACKHOLE]);
    lab.run(5);
    assert_eq!(lab.fib(1), "10.1.7.7/32 blackhole\n");
    assert_eq!(lab.fib(2), "10.1.7.7/32 blackhole\n");
    lab.withdraw(0, VICTIM);
    lab.run(1);
    assert_eq!((lab.fib(1), lab.fib(2)), (String::new(), String::new()));
}

#[test]
fn who_says_where_it_may_go_is_heard() {
    for scope in [Community::NO_ADVERTISE, Community::NO_EXPORT_SUBCONFED] {
        let mut lab = lab(|peer| peer.blackhole = within("10.1.0.0/16"));
        tag(&mut lab, 0, VICTIM, &[Community::BLACKHOLE, scope]);
        lab.run(1);
        // What we originate with such a community is told: it is for the receiver.
        assert!(lab.fib(1).contains("10.1.7.7/32 blackhole"), "{scope}");
        assert_eq!(lab.fib(2).contains("10.1.7.7/32"), scope != Community::NO_ADVERTISE);
        let route = lab.speaker(1).explain(&prefix(VICTIM)).unwrap();
        let accepted = route.paths[0].accepted.clone().unwrap();
        assert!(!accepted.has(Community::NO_EXPORT), "{scope}");
    }
}

/// Such long prefixes come in only as blackholes, and only where import policy was told so or the agreement names them.
#[test]
fn longer_prefixes_than_usual_need_an_agreement() {
    let longer = |lab: &Lab| lab.fib(1).replace("10.1.0.0/16 via 10.0.0.1\n", "");
    let mut lab = lab(|peer| peer.import = short());
    assert_eq!(longer(&lab), "");
    change(&mut lab, |peer| peer.blackhole = Blackhole::Accepted);
    assert_eq!(longer(&lab), "");
    change(&mut lab, |peer| peer.blackhole = within("10.1.0.0/16"));
    assert_eq!(longer(&lab), "10.1.7.7/32 blackhole\n");
    let route = lab.speaker(1).explain(&prefix(VICTIM)).unwrap();
    let rule = "agreed as a blackhole, otherwise rule 1 of filter short".to_owned();
    assert_eq!(route.paths[0].import, ImportReason::Changed(rule));
    // Without the community it is only a long prefix.
    tag(&mut lab, 0, VICTIM, &[]);
    lab.run(1);
    assert_eq!(longer(&lab), "");
}

#[test]
fn a_route_turns_into_a_blackhole_and_back() {
    let mut lab = lab(|peer| peer.blackhole = within("10.1.0.0/16"));
    tag(&mut lab, 0, VICTIM, &[]);
    lab.run(1);
    assert!(lab.fib(1).contains("10.1.7.7/32 via 10.0.0.1"));
    assert!(lab.fib(3).contains("10.1.7.7/32 via 10.0.0.2"));
    tag(&mut lab, 0, VICTIM, &[Community::BLACKHOLE]);
    lab.run(1);
    assert!(lab.fib(1).contains("10.1.7.7/32 blackhole"));
    assert!(!lab.fib(3).contains("10.1.7.7/32"));
    // The agreement ends: the session goes on.
    change(&mut lab, |peer| peer.blackhole = Blackhole::None);
    assert!(lab.fib(1).contains("10.1.7.7/32 via 10.0.0.1"));
    assert!(lab.fib(3).contains("10.1.7.7/32 via 10.0.0.2"));
    change(&mut lab, |peer| peer.blackhole = Blackhole::Accepted);
    assert!(lab.fib(1).contains("10.1.7.7/32 blackhole"));
    let status = lab.peer(1, 0);
    assert_eq!((status.prefixes_blackholed, status.prefixes_installed), (2, 3));
    assert!(!lab.tell().contains("Established ->"));
}

#[test]
fn the_best_path_decides_and_shares_no_load() {
    let mut configs = mesh_configs(&[1, 2, 1], &[(0, 1), (1, 2)]);
    configs[1].peers[0].blackhole = Blackhole::Accepted;
    let mut lab = Lab::new(configs);
    tag(&mut lab, 0, "10.9.0.0/24", &[Community::BLACKHOLE]);
    lab.originate(2, "10.9.0.0/24");
    lab.run(5);
    // r0 has the smaller identifier.
    assert_eq!(lab.fib(1), "10.9.0.0/24 blackhole\n");
    let installed = |lab: &mut Lab| (lab.peer(1, 0), lab.peer(1, 2));
    let (first, third) = installed(&mut lab);
    assert_eq!((first.prefixes_installed, third.prefixes_installed), (1, 0));
    let better =
        Rule { operations: vec![Operation::SetLocalPref(200)], ..Rule::new(Action::Accept) };
    let mut config = lab.speaker(1).config().clone();
    config.peers[1].import.filters =
        vec![Arc::new(Filter { name: "better".into(), rules: vec![better] })];
    let now = lab.now;
    lab.speaker(1).configure(config, now);
    lab.run(1);
    assert_eq!(lab.fib(1), "10.9.0.0/24 via 10.0.0.3\n");
    // Equal ones share the load, but nothing flows to a peer that wants it dropped.
    tag(&mut lab, 0, "10.9.0.0/24", &[]);
    lab.run(1);
    let mut config = lab.speaker(1).config().clone();
    config.peers[1].import.filters.clear();
    let now = lab.now;
    lab.speaker(1).configure(config, now);
    lab.run(1);
    assert_eq!(lab.fib(1), "10.9.0.0/24 via 10.0.0.1 10.0.0.3\n");
    let (first, third) = installed(&mut lab);
    assert_eq!((first.prefixes_installed, third.prefixes_installed), (1, 1));
    tag(&mut lab, 2, "10.9.0.0/24", &[Community::BLACKHOLE]);
    change(&mut lab, |peer| peer.blackhole = Blackhole::None);
    let mut config = lab.speaker(1).config().clone();
    config.peers[1].blackhole = Blackhole::Accepted;
    let now = lab.now;
    lab.speaker(1).configure(config, now);
    lab.run(1);
    assert_eq!(lab.fib(1), "10.9.0.0/24 via 10.0.0.1\n");
}

/// Our own name for it: policy attaches the well-known one.
#[test]
fn policy_may_attach_the_community() {
    let own = Community(2 << 16 | 666);
    let blackhole = Operation::AddCommunity(AnyCommunity::Standard(Community::BLACKHOLE));
    let rule = Rule {
        communities: vec![AnyCommunity::Standard(own)],
        operations: vec![blackhole],
        ..Rule::new(Action::Accept)
    };
    let filter = Arc::new(Filter { name: "rtbh".into(), rules: vec![rule] });
    let mut lab = lab(|peer| {
        peer.import.filters.push(Arc::clone(&filter));
        peer.blackhole = Blackhole::Accepted;
    });
    tag(&mut lab, 0, VICTIM, &[own]);
    lab.run(1);
    assert!(lab.fib(1).contains("10.1.7.7/32 blackhole"), "{}", lab.fib(1));
}

#[test]
fn what_is_dropped_needs_no_next_hop() {
    let mut configs = mesh_configs(&[2, 2], &[(0, 1)]);
    configs[1].peers[0].blackhole = within("10.1.0.0/16");
    let mut lab = Lab::new(configs);
    // A trigger router names a next hop that is nowhere.
    let route = LocalRoute {
        communities: vec![Community::BLACKHOLE],
        next_hop: Some("192.0.2.1".parse().unwrap()),
        ..LocalRoute::default()
    };
    lab.speaker(0).originate(prefix(VICTIM), route);
    let mut config = lab.speaker(0).config().clone();
    config.peers[0].next_hop = crate::config::NextHopMode::Keep;
    let now = lab.now;
    lab.speaker(0).configure(config, now);
    lab.run(5);
    assert_eq!(lab.fib(1), "10.1.7.7/32 blackhole\n");
    let down = InterfaceDown {
        interface: "eth1".into(),
        addresses: Vec::new(),
        networks: vec![prefix("192.0.2.0/24")],
    };
    let now = lab.now;
    lab.speaker(1).handle_interface_down(down, now);
    lab.run(1);
    assert_eq!(lab.fib(1), "10.1.7.7/32 blackhole\n");
}

#[cfg(feature = "report")]
#[test]
fn the_reason_is_said_in_words() {
    let mut lab = lab(|peer| peer.blackhole = within("10.1.0.0/16"));
    let now = lab.now;
    let outcome = crate::FibOutcome { prefix: prefix(VICTIM), refused: None };
    lab.speaker(1).handle_fib_outcomes(vec![outcome], now);
    let route = lab.speaker(1).explain(&prefix(VICTIM)).unwrap();
    let report = crate::report::RouteReport::from(&route);
    let why = "blackholed: community 65535:666 from 10.0.0.1, RFC 7999";
    assert_eq!(report.kernel.why.as_deref(), Some(why));
    let text = report.to_text(false);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains(&format!("kernel: {why} told:")), "{text}");
    assert!(text.contains("packets are dropped (BLACKHOLE, RFC 7999)"), "{text}");
    assert!(text.contains("community no-export added"), "{text}");
    let other = lab.speaker(1).explain(&prefix("10.2.7.7/32")).unwrap();
    let text = crate::report::RouteReport::from(&other).to_text(false);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("its BLACKHOLE is not agreed with this peer"), "{text}");
}
