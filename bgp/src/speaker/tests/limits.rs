//! Too many prefixes, shutting down gracefully, operators' commands.

use std::time::Duration;

use super::lab::{Lab, address, mesh_configs, prefix};
use crate::{AddPathMode, Community, LocalRoute, PeerAction, State, filter::Action};

fn limited(wait: Option<Duration>) -> Lab {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        peer.max_prefixes = Some(4);
        peer.max_prefixes_wait = wait;
    });
    (1..=4).for_each(|number| lab.originate(1, &format!("10.{number}.0.0/16")));
    lab.run(5);
    lab
}

#[test]
fn too_many_prefixes_end_the_session_for_a_while() {
    let mut lab = limited(Some(Duration::from_secs(60)));
    assert_eq!(lab.fibs[0].len(), 4);
    lab.originate(1, "10.5.0.0/16");
    lab.run(1);
    assert_eq!(lab.state(0, 1), State::Idle);
    assert_eq!(lab.fibs[0].len(), 0);
    let cause = "received 6/9 hard reset (6/1 maximum number of prefixes reached)";
    assert!(lab.peer(1, 0).history.iter().any(|each| each.cause == cause));
    lab.withdraw(1, "10.5.0.0/16");
    lab.run(50);
    assert_eq!(lab.state(0, 1), State::Idle);
    lab.run(30);
    assert_eq!(lab.fibs[0].len(), 4);
}

#[test]
fn without_a_wait_only_the_operator_brings_it_back() {
    let mut lab = limited(None);
    lab.originate(1, "10.5.0.0/16");
    lab.run(100_000);
    assert_eq!(lab.state(0, 1), State::Idle);
    lab.withdraw(1, "10.5.0.0/16");
    let now = lab.now;
    lab.speaker(0).operate("r1", &PeerAction::reset(""), now).unwrap();
    let nobody = lab.speaker(0).operate("r7", &PeerAction::reset(""), now);
    assert_eq!(nobody, Err("there is no peer 'r7'".to_owned()));
    lab.run(20);
    assert_eq!(lab.fibs[0].len(), 4);
}

#[test]
fn a_warning_comes_once_before_the_limit() {
    let mut lab = limited(None);
    // 3 of 4 are 75 %.
    assert!(lab.peer(0, 1).near_limit);
    lab.withdraw(1, "10.1.0.0/16");
    lab.withdraw(1, "10.2.0.0/16");
    lab.run(1);
    lab.originate(1, "10.4.0.0/16");
    lab.run(1);
    assert!(!lab.peer(0, 1).near_limit);
}

#[test]
fn a_reset_tells_the_other_operator_why() {
    let mut lab = Lab::pair(1, 2);
    lab.run(5);
    let now = lab.now;
    lab.speaker(0).operate("r1", &PeerAction::reset("cable moves"), now).unwrap();
    lab.run(3);
    assert_eq!(
        lab.peer(1, 0).last_error.as_deref(),
        Some("received 6/9 hard reset (6/4 administrative reset \"cable moves\")")
    );
    assert_eq!(lab.state(0, 1), State::Established);
}

/// RFC 8326: r1 has two ways to r0's prefix; the one that is about to go is left before it goes.
#[test]
fn graceful_shutdown_moves_traffic_away_first() {
    let mut lab = Lab::mesh(&[1, 2, 3, 4], &[(0, 1), (0, 2), (1, 3), (2, 3)]);
    lab.originate(0, "10.0.0.0/16");
    lab.originate(3, "10.3.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(3), "10.0.0.0/16 via 10.0.0.2 10.0.0.3\n");
    lab.tell();
    let mut config = lab.speaker(0).config().clone();
    config.peers[0].graceful_shutdown = true;
    let now = lab.now;
    lab.speaker(0).configure(config, now);
    lab.run(1);
    // Both directions, r1 itself included, and no session was touched.
    assert_eq!(lab.fib(0), "10.3.0.0/16 via 10.0.0.3\n");
    let rib = lab.speaker(1).snapshot(true).rib;
    let path = rib[0].paths.iter().find(|path| path.peer.as_deref() == Some("r0")).unwrap();
    assert!(path.attributes.has(Community::GRACEFUL_SHUTDOWN));
    assert_eq!(path.attributes.local_pref, Some(0));
    assert_eq!(lab.fib(1).lines().next(), Some("10.0.0.0/16 via 10.0.0.4"));
    assert_eq!(lab.tell(), "\n");
}

#[test]
fn graceful_shutdown_inside_a_system_is_a_low_preference() {
    let mut lab = Lab::pair_with(1, 1, |peer| peer.graceful_shutdown = peer.name == "r1");
    lab.originate(0, "10.0.0.0/16");
    lab.run(5);
    let rib = lab.speaker(1).snapshot(true).rib;
    assert_eq!(rib[0].paths[0].attributes.local_pref, Some(0));
}

/// Waiting for the operator is not cut short by a link that was down, nor by another change of the configuration.
#[test]
fn only_an_answer_to_the_limit_ends_the_wait() {
    let mut lab = limited(None);
    lab.originate(1, "10.5.0.0/16");
    lab.run(5);
    assert_eq!(lab.state(0, 1), State::Idle);
    lab.tell();
    let now = lab.now;
    let down = crate::InterfaceDown {
        interface: "eth0".into(),
        addresses: vec![address(0)],
        networks: vec![prefix("10.0.0.0/24")],
    };
    lab.speaker(0).handle_interface_down(down, now);
    lab.speaker(0).handle_interface_up("eth0", now);
    let mut config = lab.speaker(0).config().clone();
    config.peers[0].local_pref = 77;
    lab.speaker(0).configure(config.clone(), now);
    lab.run(100);
    assert!(!lab.tell().contains("r0 r1"));
    config.peers[0].max_prefixes = Some(5);
    let now = lab.now;
    lab.speaker(0).configure(config, now);
    lab.run(10);
    assert_eq!(lab.fibs[0].len(), 5);
}

/// RFC 8654 §4: only if both sides said that they can read them.
#[test]
fn long_messages_go_only_to_whoever_takes_them() {
    let mut lab = Lab::pair_with(1, 2, |peer| peer.extended_message = peer.name == "r1");
    for number in 0..2000_u32 {
        lab.originate(0, &format!("10.{}.{}.0/24", number / 256, number % 256));
    }
    lab.run(5);
    assert_eq!((lab.state(1, 0), lab.fibs[1].len()), (State::Established, 2000));
}

/// One path that is too long for a peer says nothing about the others of its prefix (RFC 7911).
#[test]
fn a_path_that_is_too_long_leaves_the_others_alone() {
    let mut configs = mesh_configs(&[1, 2, 3, 4], &[(0, 2), (1, 2), (2, 3)]);
    configs[2].peers[2].add_path = AddPathMode::Send;
    configs[3].peers[0].add_path = AddPathMode::Receive;
    configs[3].peers[0].extended_message = false;
    let mut lab = Lab::new(configs);
    lab.originate(0, "10.1.0.0/16");
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    let paths = |lab: &mut Lab| {
        let rib = lab.speaker(3).snapshot(true).rib;
        rib.iter().map(|entry| entry.paths.len()).sum::<usize>()
    };
    assert_eq!(paths(&mut lab), 2);
    let communities = (0..1500).map(Community).collect();
    let long = LocalRoute { communities, ..LocalRoute::default() };
    lab.speaker(1).originate(prefix("10.1.0.0/16"), long);
    lab.run(5);
    assert_eq!(paths(&mut lab), 1);
    lab.withdraw(0, "10.1.0.0/16");
    lab.run(5);
    assert_eq!(paths(&mut lab), 0);
}

/// A peer that changes what nobody wants has us remember nothing.
#[test]
fn refused_routes_that_change_leave_no_attributes() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        if peer.name == "r1" {
            peer.import.default = Action::Reject;
        }
    });
    lab.run(5);
    for number in 0..100 {
        let route = LocalRoute { med: Some(number), ..LocalRoute::default() };
        lab.speaker(1).originate(prefix("10.1.0.0/16"), route);
        lab.run(1);
    }
    assert_eq!(lab.peer(0, 1).prefixes_received, 1);
    assert!(lab.speaker(0).interner.len() < 5, "{}", lab.speaker(0).interner.len());
}
