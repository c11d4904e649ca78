//! What BFD does to sessions.

use expect_test::expect;

use super::lab::Lab;
use crate::{
    State,
    bfd::{self, Change, Diagnostic},
};

fn watched(strict: bool) -> Lab {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        peer.bfd = Some(bfd::Config { strict, ..bfd::Config::default() });
    });
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    lab.tell();
    lab
}

fn down(control_plane_independent: bool, administrative: bool) -> Change {
    Change {
        from: bfd::State::Up,
        to: bfd::State::Down,
        diagnostic: Diagnostic::DETECTION_TIME_EXPIRED,
        administrative,
        control_plane_independent,
    }
}

#[test]
fn the_driver_is_asked_as_the_configuration_changes() {
    let mut lab = watched(false);
    expect![[r#"
        r0 watches r1 at 10.0.0.2
        r1 watches r0 at 10.0.0.1
    "#]]
    .assert_eq(&lab.bfd.concat());
    lab.bfd.clear();
    let mut config = lab.speaker(0).config().clone();
    config.peers[0].shutdown = true;
    let now = lab.now;
    lab.speaker(0).configure(config.clone(), now);
    config.peers.clear();
    lab.speaker(0).configure(config, now);
    lab.run(1);
    expect![[r#"
        r0 forgets r1
    "#]]
    .assert_eq(&lab.bfd.concat());
}

/// RFC 5882 §4.3.2: the peer's BFD ends with its control plane, so it may only be restarting.
#[test]
fn a_failure_that_may_be_a_restart_keeps_the_routes() {
    let mut lab = watched(false);
    let now = lab.now;
    lab.cut(0, 1);
    lab.speaker(0).handle_bfd("r1", &down(false, false), now);
    lab.run(1);
    assert_eq!(lab.fibs[0].len(), 1);
    assert!(lab.peer(0, 1).stale.ipv4);
    expect![
        "5s r0 r1: Established -> Active (BFD session is down: control detection time expired)"
    ]
    .assert_eq(lab.tell().lines().next().unwrap());
}

/// A node that lost its power must not be kept by graceful restart.
#[test]
fn a_failure_of_forwarding_takes_the_routes_away() {
    for (strict, independent) in [(false, true), (true, false)] {
        let mut lab = watched(strict);
        let now = lab.now;
        lab.cut(0, 1);
        lab.speaker(0).handle_bfd("r1", &down(independent, false), now);
        lab.run(1);
        assert_eq!(lab.fibs[0].len(), 0);
        lab.mend(0, 1);
        lab.run(30);
        assert_eq!(lab.fibs[0].len(), 1);
        let cause = "received 6/9 hard reset (6/10 BFD down)";
        assert!(lab.peer(1, 0).history.iter().any(|each| each.cause == cause));
    }
}

#[test]
fn an_operators_wish_is_no_failure() {
    let mut lab = watched(true);
    let now = lab.now;
    lab.speaker(0).handle_bfd("r1", &down(true, true), now);
    lab.run(1);
    assert_eq!(lab.state(0, 1), State::Established);
    assert_eq!(lab.peer(0, 1).bfd, Some(bfd::State::Down));
    assert_eq!(lab.tell(), "\n");
}

/// A router that is shut down in order closes its sessions first.
#[test]
fn routes_that_are_kept_go_when_forwarding_ends() {
    for (strict, independent, left) in [(false, true, 0), (true, false, 0), (false, false, 1)] {
        let mut lab = watched(strict);
        lab.kill(1);
        lab.run(1);
        assert_eq!(lab.fibs[0].len(), 1);
        let now = lab.now;
        lab.speaker(0).handle_bfd("r1", &down(independent, false), now);
        lab.run(1);
        assert_eq!(lab.fibs[0].len(), left);
        assert_eq!(lab.peer(0, 1).stale.is_empty(), left == 0);
    }
}
