//! Failures of graceful restart that operators of other speakers met, each as a story that must end well here.

use std::time::Duration;

use super::lab::{Lab, config, mesh_configs, peer};
use crate::{Families, Shutdown, SpeakerConfig, State};

fn again(asn: u32, neighbour: u32) -> SpeakerConfig {
    let mut config = SpeakerConfig { restarting: true, ..config(0, asn) };
    config.peers.push(peer(1, neighbour));
    config
}

/// A node waited four minutes for the End-of-RIB of a peer that was down as well, and announced nothing meanwhile.
#[test]
fn a_dead_peer_does_not_delay_the_others() {
    let mut lab = Lab::mesh(&[1, 2, 3], &[(0, 1), (0, 2)]);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    let configuration = SpeakerConfig { restarting: true, ..lab.speaker(0).config().clone() };
    lab.kill(2);
    lab.kill(0);
    lab.start(0, configuration);
    lab.originate(0, "10.1.0.0/16");
    lab.run(21);
    assert!(lab.complete[0]);
    assert!(lab.peer(1, 0).stale.is_empty(), "r1 has our routes and End-of-RIB");
    assert_eq!(lab.fibs[1].len(), 1);
}

/// The flag that says that forwarding went on was lost when the configuration was read again before peers were back, and
/// they dropped all routes.
#[test]
fn a_new_configuration_in_the_middle_of_a_restart_does_not_lose_the_forwarding_flag() {
    let mut lab = Lab::pair_with(1, 2, |peer| peer.passive = peer.name == "r0");
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    lab.kill(0);
    lab.cut(0, 1);
    lab.start(0, again(1, 2));
    lab.run(10);
    // The daemon's usual configuration says nothing about restarts.
    let now = lab.now;
    let usual = SpeakerConfig { restarting: false, ..again(1, 2) };
    lab.speaker(0).configure(usual, now);
    lab.mend(0, 1);
    // The route comes only later, as from a cluster's API.
    while lab.state(1, 0) != State::Established {
        lab.run_for(Duration::from_millis(1));
    }
    assert_eq!(lab.fibs[1].len(), 1);
}

/// A speaker that starts for the first time has nothing to preserve and waits for nobody.
#[test]
fn the_first_start_announces_at_once() {
    let mut lab = Lab::mesh(&[1, 2, 3], &[(0, 1), (0, 2)]);
    lab.kill(2);
    lab.originate(0, "10.1.0.0/16");
    lab.run(2);
    assert_eq!(lab.fibs[1].len(), 1);
}

/// A peer without the capability sends no End-of-RIB: waiting for it took six minutes.
#[test]
fn a_peer_without_graceful_restart_is_not_waited_for() {
    let mut configs = mesh_configs(&[1, 2], &[(0, 1)]);
    configs[1].peers[0].graceful_restart = false;
    let mut lab = Lab::new(configs);
    lab.run(5);
    lab.kill(0);
    lab.start(0, again(1, 2));
    lab.originate(0, "10.1.0.0/16");
    lab.run(3);
    assert!(lab.complete[0]);
    assert_eq!(lab.fibs[1].len(), 1);
}

/// After an upgrade the peer preserves one family only: routes of the other must not wait for its End-of-RIB.
#[test]
fn a_family_that_is_preserved_no_more_is_flushed_at_once() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        peer.families = Families::BOTH;
        peer.next_hop_ipv6 = Some("fd00::1".parse().unwrap());
    });
    lab.originate(0, "10.1.0.0/16");
    lab.originate(0, "fd01::/64");
    lab.run(5);
    assert_eq!(lab.fibs[1].len(), 2);
    lab.kill(0);
    lab.run(1);
    assert_eq!(lab.fibs[1].len(), 2);
    let only_ipv4 = again(1, 2);
    lab.start(0, only_ipv4);
    lab.originate(0, "10.1.0.0/16");
    while lab.state(1, 0) != State::Established {
        lab.run_for(Duration::from_millis(1));
    }
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.1\n");
    assert!(!lab.peer(1, 0).stale.ipv6);
}

/// Toggling the feature needs a new session: one, not one after the other.
#[test]
fn toggling_graceful_restart_resets_the_session_once() {
    let mut lab = Lab::pair(1, 2);
    lab.run(5);
    lab.tell();
    let mut changed = lab.speaker(0).config().clone();
    changed.peers[0].graceful_restart = false;
    for _ in 0..3 {
        let now = lab.now;
        lab.speaker(0).configure(changed.clone(), now);
        lab.run(20);
    }
    let story = lab.tell();
    assert_eq!(story.matches("r0 r1: Established ->").count(), 1, "{story}");
    assert!(!lab.peer(0, 1).graceful_restart);
}

/// An orderly stop sent a Cease, and peers dropped what they should have kept.
#[test]
fn a_planned_restart_closes_without_a_word_and_a_real_end_says_so() {
    for (kind, kept) in [(Shutdown::Restart, 1), (Shutdown::Final, 0)] {
        let mut lab = Lab::pair(1, 2);
        lab.originate(0, "10.1.0.0/16");
        lab.run(5);
        lab.shutdown(0, kind);
        lab.run(1);
        assert_eq!(lab.fibs[1].len(), kept, "{kind:?}");
        assert_eq!(lab.peer(1, 0).received.notifications, u64::from(kept == 0));
    }
}

/// Two restarts in a row delete what was stale, as RFC 4724 wants, but what the first one brought again is not stale.
#[test]
fn a_second_restart_keeps_what_the_first_one_brought_again() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    for _ in 0..3 {
        lab.kill(0);
        lab.start(0, again(1, 2));
        lab.originate(0, "10.1.0.0/16");
        for _ in 0..300 {
            lab.run_for(Duration::from_millis(10));
            assert_eq!(lab.fibs[1].len(), 1);
        }
        assert_eq!(lab.state(1, 0), State::Established);
    }
}
