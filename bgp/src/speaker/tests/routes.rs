use expect_test::expect;
use proptest::prelude::*;

use super::lab::{Lab, address, mesh_configs, prefix};
use crate::{
    Families, LocalRoute, Prefix, RouterId, SpeakerConfig,
    attr::Community,
    snapshot::{Snapshot, Usage},
};

#[test]
fn routes_go_through_a_chain_of_systems_and_back_out() {
    let mut lab = Lab::mesh(&[1, 2, 3], &[(0, 1), (1, 2)]);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.2\n");
    let rib = lab.speaker(2).snapshot(true).rib;
    assert_eq!(rib[0].paths[0].attributes.as_path.to_string(), "2 1");
    lab.withdraw(0, "10.1.0.0/16");
    lab.run(1);
    assert_eq!(lab.fib(2), "");
    assert_eq!(lab.speaker(2).snapshot(true).prefixes, 0);
    assert_eq!(lab.speaker(1).snapshot(true).prefixes, 0);
}

#[test]
fn equal_paths_share_the_load() {
    let mut lab = Lab::mesh(&[1, 2, 3, 4], &[(0, 1), (0, 2), (1, 3), (2, 3)]);
    lab.originate(3, "10.3.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(0), "10.3.0.0/16 via 10.0.0.2 10.0.0.3\n");
    lab.cut(1, 3);
    lab.run(120);
    lab.run(120);
    assert_eq!(lab.fib(0), "10.3.0.0/16 via 10.0.0.3\n");
}

#[test]
fn an_internal_mesh_does_not_pass_on_what_it_learns_inside() {
    let mut lab = Lab::mesh(&[1, 1, 1, 9], &[(0, 1), (1, 2), (2, 3)]);
    lab.originate(0, "10.1.0.0/16");
    lab.originate(3, "10.9.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.1\n10.9.0.0/16 via 10.0.0.4\n");
    assert_eq!(lab.fib(0), "");
    assert_eq!(lab.peer(1, 0).prefixes_advertised, 0);
    assert_eq!(lab.peer(2, 1).prefixes_advertised, 1);
}

/// The middle one reflects between two clients.
fn reflection() -> Vec<SpeakerConfig> {
    let mut configs = mesh_configs(&[1, 1, 1], &[(0, 1), (1, 2)]);
    configs[1].peers.iter_mut().for_each(|peer| peer.route_reflector_client = true);
    configs
}

#[test]
fn a_reflector_passes_on_between_clients() {
    let configs = reflection();
    let mut lab = Lab::new(configs);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.1\n");
    let rib = lab.speaker(2).snapshot(true).rib;
    let attributes = &rib[0].paths[0].attributes;
    assert_eq!(attributes.originator_id.unwrap().to_string(), "10.0.0.1");
    assert_eq!(attributes.cluster_list.len(), 1);
}

#[test]
fn a_client_that_is_back_under_another_identifier_is_named_by_that() {
    let configs = reflection();
    let router_id = RouterId::from(std::net::Ipv4Addr::new(10, 0, 0, 99));
    let again = SpeakerConfig { router_id, restarting: true, ..configs[0].clone() };
    let mut lab = Lab::new(configs);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    let originator = |lab: &mut Lab| {
        let rib = lab.speaker(2).snapshot(true).rib;
        rib[0].paths[0].attributes.originator_id.unwrap().to_string()
    };
    assert_eq!(originator(&mut lab), "10.0.0.1");
    lab.kill(0);
    lab.run(1);
    lab.start(0, again);
    lab.originate(0, "10.1.0.0/16");
    lab.run(20);
    assert_eq!(originator(&mut lab), "10.0.0.99");
}

/// RFC 4456 §8: what has our cluster in its list is a loop, and what had is none any more.
#[test]
fn another_cluster_hears_what_was_a_loop() {
    let mut configs = reflection();
    let own = configs[2].cluster_id;
    configs[2].cluster_id = Some(configs[1].router_id);
    let mut lab = Lab::new(configs);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(2), "");
    let shared = lab.speaker(2).config().clone();
    lab.configure(2, SpeakerConfig { cluster_id: own, ..shared.clone() });
    lab.run(1);
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.1\n");
    lab.configure(2, shared);
    lab.run(1);
    assert_eq!(lab.fib(2), "");
}

#[test]
fn turning_reflection_on_announces_and_off_withdraws() {
    // r2 and r3 are told alike.
    let mut lab = Lab::mesh(&[1, 1, 1, 1], &[(0, 1), (1, 2), (1, 3)]);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    let mut config = lab.speaker(1).config().clone();
    for client in [true, false] {
        config.peers[0].route_reflector_client = client;
        let now = lab.now;
        lab.speaker(1).configure(config.clone(), now);
        lab.run(1);
        assert_eq!([2, 3].map(|who| !lab.fib(who).is_empty()), [client; 2]);
    }
}

#[test]
fn own_routes_win_and_stay_out_of_the_fib() {
    let mut configs = mesh_configs(&[1, 1], &[(0, 1)]);
    configs[1].peers[0].local_pref = 2_147_482_623;
    let mut lab = Lab::new(configs);
    lab.originate(0, "10.1.0.0/16");
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(0), "");
    let paths = lab.speaker(0).snapshot(true).rib.remove(0).paths;
    assert_eq!(paths[0].peer, None);
    assert_eq!(paths[1].usage, Usage::Lost(crate::Why::LocalOrigin));
    lab.withdraw(0, "10.1.0.0/16");
    lab.run(1);
    assert_eq!(lab.fib(0), "10.1.0.0/16 via 10.0.0.2\n");
}

#[test]
fn communities_travel_and_stop_routes() {
    let mut lab = Lab::mesh(&[1, 2, 3], &[(0, 1), (1, 2)]);
    let marked = |community| LocalRoute { communities: vec![community], ..LocalRoute::default() };
    let tagged: Community = "1:100".parse().unwrap();
    lab.speaker(0).originate(prefix("10.1.0.0/16"), marked(tagged));
    lab.speaker(0).originate(prefix("10.2.0.0/16"), marked(Community::NO_EXPORT));
    lab.run(5);
    expect!["10.1.0.0/16 via 10.0.0.1\n10.2.0.0/16 via 10.0.0.1\n"].assert_eq(&lab.fib(1));
    expect!["10.1.0.0/16 via 10.0.0.2\n"].assert_eq(&lab.fib(2));
    let rib = lab.speaker(2).snapshot(true).rib;
    assert_eq!(rib[0].paths[0].attributes.communities, [tagged]);
}

#[test]
fn ipv6_routes_over_an_ipv4_session() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        peer.families = Families::BOTH;
        let own = if peer.name == "r1" { "2001:db8::1" } else { "2001:db8::2" };
        peer.next_hop_ipv6 = Some(own.parse().unwrap());
    });
    lab.originate(0, "2001:db8:1::/48");
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    expect!["10.1.0.0/16 via 10.0.0.1\n2001:db8:1::/48 via 2001:db8::1\n"].assert_eq(&lab.fib(1));
    lab.withdraw(0, "2001:db8:1::/48");
    lab.run(1);
    expect!["10.1.0.0/16 via 10.0.0.1\n"].assert_eq(&lab.fib(1));
}

/// Stored once as bytes without MP_REACH_NLRI, and read again for policy, for loop checks and for the next peer.
#[test]
fn attributes_of_ipv6_routes_travel() {
    let mut configs = mesh_configs(&[1, 2, 1], &[(0, 1), (1, 2)]);
    for (config, own) in configs.iter_mut().zip(1..) {
        for peer in &mut config.peers {
            peer.families = Families::BOTH;
            peer.next_hop_ipv6 = Some(format!("2001:db8::{own}").parse().unwrap());
        }
    }
    let mut lab = Lab::new(configs);
    let tagged: Community = "1:100".parse().unwrap();
    let route = LocalRoute { communities: vec![tagged], med: Some(5), ..LocalRoute::default() };
    lab.speaker(0).originate(prefix("2001:db8:1::/48"), route);
    lab.run(5);
    let rib = lab.speaker(1).snapshot(true).rib;
    let attributes = &rib[0].paths[0].attributes;
    assert_eq!((attributes.as_path.to_string(), attributes.med), ("1".into(), Some(5)));
    assert_eq!(attributes.communities, [tagged]);
    let rib = lab.speaker(2).snapshot(true).rib;
    let path = &rib[0].paths[0];
    assert_eq!(path.attributes.as_path.to_string(), "2 1");
    assert_eq!(path.usage, Usage::Rejected("our own AS is in the path"));
}

#[test]
fn many_routes_are_packed() {
    let mut lab = Lab::pair(1, 2);
    lab.run(5);
    for third in 0..=255_u8 {
        for second in 0..40_u8 {
            lab.originate(0, &format!("10.{second}.{third}.0/24"));
        }
    }
    lab.run(5);
    assert_eq!(lab.fibs[1].len(), 40 * 256);
    assert_eq!(lab.peer(0, 1).prefixes_advertised, 40 * 256);
    let updates = lab.peer(0, 1).sent.updates;
    assert!(updates < 12, "{updates}");
    lab.cut(0, 1);
    lab.run(300);
    assert!(lab.fibs[1].is_empty());
    lab.mend(0, 1);
    lab.run(60);
    assert_eq!(lab.fibs[1].len(), 40 * 256);
}

#[test]
fn the_limit_of_prefixes_ends_the_session() {
    let mut lab = Lab::pair_with(1, 2, |peer| peer.max_prefixes = Some(2));
    for third in 0..3 {
        lab.originate(0, &format!("10.1.{third}.0/24"));
    }
    lab.run(5);
    assert!(lab.fibs[1].is_empty());
    let error = lab.peer(1, 0).last_error;
    assert_eq!(error.as_deref(), Some("peer announced more than 2 prefixes"));
    lab.withdraw(0, "10.1.0.0/24");
    lab.run(400);
    assert_eq!(lab.fibs[1].len(), 2);
}

/// What is chosen everywhere, without counters and times.
fn tables(lab: &mut Lab) -> Vec<Vec<(Prefix, Vec<crate::snapshot::PathSnapshot>)>> {
    let count = lab.speakers.len();
    (0..count)
        .map(|index| {
            let Snapshot { rib, .. } = lab.speaker(index).snapshot(true);
            rib.into_iter().map(|entry| (entry.prefix, entry.paths)).collect()
        })
        .collect()
}

const LINKS: [(usize, usize); 5] = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)];

#[derive(Clone, Debug)]
enum Step {
    Originate(usize, u8),
    Withdraw(usize, u8),
    Cut(usize),
    Mend(usize),
    Wait(u16),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_usize..4, 0_u8..3).prop_map(|(who, what)| Step::Originate(who, what)),
        (0_usize..4, 0_u8..3).prop_map(|(who, what)| Step::Withdraw(who, what)),
        (0_usize..5).prop_map(Step::Cut),
        (0_usize..5).prop_map(Step::Mend),
        (0_u16..20_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any history ends where a start from scratch ends.
    #[test]
    fn convergence_equals_from_scratch(
        steps in proptest::collection::vec(any_step(), 1..40),
        internal in any::<bool>(),
    ) {
        let asns: &[u32] = if internal { &[1, 1, 1, 2] } else { &[1, 2, 3, 4] };
        let mut lab = Lab::mesh(asns, &LINKS);
        let mut originated = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Originate(who, what) => {
                    lab.originate(who, &format!("10.{what}.0.0/16"));
                    originated.insert((who, what));
                }
                Step::Withdraw(who, what) => {
                    lab.withdraw(who, &format!("10.{what}.0.0/16"));
                    originated.remove(&(who, what));
                }
                Step::Cut(link) => lab.cut(LINKS[link].0, LINKS[link].1),
                Step::Mend(link) => lab.mend(LINKS[link].0, LINKS[link].1),
                Step::Wait(milliseconds) => {
                    lab.run_for(std::time::Duration::from_millis(milliseconds.into()));
                }
            }
        }
        for (a, b) in LINKS {
            lab.mend(a, b);
        }
        lab.run(900);
        let mut fresh = Lab::mesh(asns, &LINKS);
        for (who, what) in originated {
            fresh.originate(who, &format!("10.{what}.0.0/16"));
        }
        fresh.run(900);
        prop_assert_eq!(&lab.fibs, &fresh.fibs);
        prop_assert_eq!(tables(&mut lab), tables(&mut fresh));
        prop_assert_eq!(address(0), address(0));
    }
}
