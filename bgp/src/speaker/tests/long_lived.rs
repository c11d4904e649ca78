//! Long-lived graceful restart (RFC 9494): r1 helps r0, r2 watches.

use std::time::Duration;

use super::lab::{Lab, config, mesh_configs, peer};
use crate::{Community, LocalRoute, Prefix, SpeakerConfig, State, attr::PathAttributes};

fn long_lived() -> Lab {
    let mut configs = mesh_configs(&[1, 2, 3], &[(0, 1), (1, 2)]);
    configs[0].peers[0].long_lived_stale_time = Some(Duration::from_secs(3600));
    configs[2].peers[0].graceful_restart = false;
    let mut lab = Lab::new(configs);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    lab
}

fn attributes(lab: &mut Lab, index: usize) -> PathAttributes {
    lab.speaker(index).snapshot(true).rib[0].paths[0].attributes.clone()
}

fn again(restarting: bool) -> SpeakerConfig {
    let mut peer = peer(1, 2);
    peer.long_lived_stale_time = Some(Duration::from_secs(3600));
    let mut config = SpeakerConfig { restarting, ..config(0, 1) };
    config.peers.push(peer);
    config
}

#[test]
fn stale_routes_live_on_as_the_last_choice_and_are_hidden_from_those_who_do_not_know() {
    let mut lab = long_lived();
    lab.kill(0);
    lab.run(110);
    // Restart time: nobody is told.
    assert_eq!((lab.fibs[1].len(), lab.fibs[2].len()), (1, 1));
    assert!(!attributes(&mut lab, 1).has(Community::LLGR_STALE));
    lab.run(20);
    assert_eq!(lab.fibs[1].len(), 1);
    assert!(attributes(&mut lab, 1).has(Community::LLGR_STALE));
    assert_eq!(lab.fibs[2].len(), 0);
    lab.run(3400);
    assert_eq!(lab.fibs[1].len(), 1);
    lab.run(300);
    assert_eq!(lab.fibs[1].len(), 0);
}

#[test]
fn they_are_ordinary_again_when_the_peer_is_back() {
    let mut lab = long_lived();
    lab.kill(0);
    lab.run(1000);
    lab.start(0, again(true));
    lab.originate(0, "10.1.0.0/16");
    lab.run(20);
    assert!(!attributes(&mut lab, 1).has(Community::LLGR_STALE));
    assert_eq!((lab.fibs[1].len(), lab.fibs[2].len()), (1, 1));
    lab.run(4000);
    assert_eq!(lab.fibs[1].len(), 1);
    assert!(lab.peer(1, 0).stale.is_empty());
}

#[test]
fn a_peer_that_did_not_go_on_forwarding_loses_them_at_once() {
    let mut lab = long_lived();
    lab.kill(0);
    lab.run(1000);
    assert_eq!(lab.fibs[1].len(), 1);
    lab.start(0, again(false));
    lab.run_for(Duration::from_secs(10));
    assert_eq!(lab.fibs[1].len(), 0);
}

#[test]
fn no_llgr_ends_with_the_restart_time() {
    let mut lab = long_lived();
    let prefix: Prefix = "10.2.0.0/16".parse().unwrap();
    let route = LocalRoute { communities: vec![Community::NO_LLGR], ..LocalRoute::default() };
    lab.speaker(0).originate(prefix, route);
    lab.run(1);
    assert_eq!(lab.fibs[1].len(), 2);
    lab.kill(0);
    lab.run(130);
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.1\n");
}

/// Unlike within the restart time (RFC 9494 §4.2), and the timer is that of the first loss.
#[test]
fn a_second_loss_does_not_flush_them() {
    let mut lab = long_lived();
    lab.kill(0);
    lab.run(1000);
    lab.start(0, again(true));
    while lab.state(1, 0) != State::Established {
        lab.run_for(Duration::from_millis(1));
    }
    lab.kill(0);
    lab.run(200);
    assert_eq!(lab.fibs[1].len(), 1);
    lab.run(2700);
    assert_eq!(lab.fibs[1].len(), 0);
}

#[test]
fn changed_import_policy_does_not_make_them_young_again() {
    let mut lab = long_lived();
    lab.kill(0);
    lab.run(1000);
    let mut config = lab.speaker(1).config().clone();
    config.peers[0].allow_own_as = 1;
    let now = lab.now;
    lab.speaker(1).configure(config, now);
    lab.run(1);
    assert!(attributes(&mut lab, 1).has(Community::LLGR_STALE));
}

/// What it says the last time counts.
#[test]
fn a_peer_that_came_back_without_has_the_restart_time() {
    let mut lab = long_lived();
    lab.kill(0);
    lab.run(1000);
    let mut config = again(true);
    config.peers[0].long_lived_stale_time = Some(Duration::ZERO);
    lab.start(0, config);
    while lab.state(1, 0) != State::Established {
        lab.run_for(Duration::from_millis(1));
    }
    lab.kill(0);
    lab.run(200);
    assert_eq!(lab.fibs[1].len(), 0);
}
