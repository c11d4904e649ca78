use std::sync::Arc;

use super::lab::{Lab, prefix};
use crate::{
    Asn,
    config::NextHopMode,
    filter::{Action, AnyCommunity, Filter, Operation, Policy, PrefixOperator, Rule, Source},
    snapshot::Usage,
};

fn only(text: &str) -> Policy {
    let rule = Rule::new(Action::Accept).with_prefix(PrefixOperator::In, prefix(text));
    let filter = Filter { name: "only".into(), rules: vec![rule] };
    Policy { filters: vec![Arc::new(filter)], default: Action::Reject }
}

#[test]
fn import_policy_applies_to_what_is_there() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(0, "10.1.0.0/16");
    lab.originate(0, "10.2.0.0/16");
    lab.run(5);
    let mut config = lab.speaker(1).config().clone();
    config.peers[0].import = only("10.1.0.0/16");
    let now = lab.now;
    lab.speaker(1).configure(config.clone(), now);
    lab.run(1);
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.1\n");
    let status = lab.peer(1, 0);
    assert_eq!((status.prefixes_received, status.prefixes_accepted), (2, 1));
    let rib = lab.speaker(1).snapshot(true).rib;
    assert_eq!(rib[1].paths[0].usage, Usage::Rejected("import policy"));
    config.peers[0].import = Policy::accept();
    let now = lab.now;
    lab.speaker(1).configure(config, now);
    lab.run(1);
    assert_eq!(lab.fibs[1].len(), 2);
}

#[test]
fn export_policy_withdraws_and_announces_the_difference() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(0, "10.1.0.0/16");
    lab.originate(0, "10.2.0.0/16");
    lab.run(5);
    let mut config = lab.speaker(0).config().clone();
    for (policy, left) in [
        (only("10.1.0.0/16"), 1),
        (only("10.2.0.0/16"), 1),
        (Policy::reject(), 0),
        (Policy::accept(), 2),
    ] {
        config.peers[0].export = policy;
        let now = lab.now;
        lab.speaker(0).configure(config.clone(), now);
        lab.run(1);
        assert_eq!(lab.fibs[1].len(), left);
    }
    assert!(!lab.tell().contains("configuration changed"));
}

#[test]
fn operations_change_what_is_announced() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        let rule = Rule {
            source: Some(Source::Local),
            operations: vec![
                Operation::AddCommunity(AnyCommunity::Standard("1:7".parse().unwrap())),
                Operation::PrependAsPath(vec![Asn(100), Asn(101)]),
                Operation::SetMed(5),
            ],
            ..Rule::new(Action::Accept)
        };
        let filter = Filter { name: "mark".into(), rules: vec![rule] };
        peer.export = Policy { filters: vec![Arc::new(filter)], default: Action::Reject };
    });
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    let rib = lab.speaker(1).snapshot(true).rib;
    let attributes = &rib[0].paths[0].attributes;
    assert_eq!(attributes.as_path.to_string(), "1 100 101");
    assert_eq!(attributes.communities[0].to_string(), "1:7");
    assert_eq!(attributes.med, Some(5));
    // Its own routes do not come back.
    assert_eq!(lab.peer(1, 0).prefixes_advertised, 0);
}

#[test]
fn next_hop_own_changes_what_internal_peers_hear() {
    let mut configs = super::lab::mesh_configs(&[9, 1, 1], &[(0, 1), (1, 2)]);
    let mut lab = Lab::new(configs.clone());
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.1\n");
    configs[1].peers[1].next_hop = NextHopMode::Own;
    let now = lab.now;
    lab.speaker(1).configure(configs[1].clone(), now);
    lab.run(1);
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.2\n");
}

#[test]
fn local_pref_for_calico_reaches_internal_peers_only() {
    let mut lab = Lab::pair_with(1, 1, |peer| peer.local_pref = 2_147_482_623);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    let rib = lab.speaker(1).snapshot(true).rib;
    assert_eq!(rib[0].paths[0].attributes.local_pref, Some(2_147_482_623));
}

#[test]
fn own_as_in_the_path_is_a_loop_unless_allowed() {
    let mut lab = Lab::mesh(&[1, 2, 1], &[(0, 1), (1, 2)]);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(2), "");
    let mut config = lab.speaker(2).config().clone();
    config.peers[0].allow_own_as = 1;
    let now = lab.now;
    lab.speaker(2).configure(config, now);
    lab.run(1);
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.2\n");
}
