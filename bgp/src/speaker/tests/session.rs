use std::time::Duration;

use expect_test::expect;

use super::lab::{Lab, config, peer};
use crate::{Shutdown, SpeakerConfig, State, filter::Policy};

#[test]
fn a_session_comes_up_and_stays() {
    let mut lab = Lab::pair_with(65001, 65002, |peer| peer.passive = peer.name == "r0");
    lab.run(600);
    expect![[r#"
        0s r0 r1: Idle -> Active (configured)
        0s r1 r0: Idle -> Active (configured)
        0s r0 r1: Active -> Connect (connecting)
        0s r1 r0: Active -> OpenSent (peer connected)
        0s r0 r1: Connect -> OpenSent (TCP connection established)
        0s r0 r1: OpenSent -> OpenConfirm (received OPEN)
        0s r1 r0: OpenSent -> OpenConfirm (received OPEN)
        0s r1 r0: OpenConfirm -> Established (received KEEPALIVE)
        0s r0 r1: OpenConfirm -> Established (received KEEPALIVE)
    "#]]
    .assert_eq(&lab.tell());
    let status = lab.peer(0, 1);
    assert!(status.graceful_restart);
    assert_eq!(status.hold_time, Some(Duration::from_secs(90)));
    // One per 22 to 30 seconds.
    assert!((19..=30).contains(&status.sent.keepalives), "{:?}", status.sent);
}

#[test]
fn hold_timer_expiry_notifies_then_retries() {
    let mut lab = Lab::pair_with(65001, 65001, |peer| {
        peer.passive = peer.name == "r0";
        peer.graceful_restart = false;
    });
    lab.run(1);
    lab.tell();
    lab.cut(0, 1);
    lab.run(95);
    lab.mend(0, 1);
    lab.run(20);
    assert_eq!(lab.state(0, 1), State::Established);
    assert!(lab.tell().contains(
        "r0 r1: Established -> Active (hold timer expired after 90 s: last message UPDATE 90 s ago)"
    ));
}

/// RFC 4271 §8.2.2, event 27: an UPDATE is a sign of life.
#[test]
fn updates_alone_keep_a_session_alive() {
    let mut lab = Lab::pair(65001, 65001);
    lab.run(1);
    lab.cut(0, 1);
    let end_of_rib = [&[0xff; 16][..], &[0, 23, 2, 0, 0, 0, 0]].concat();
    for _ in 0..5 {
        lab.run(60);
        assert_eq!(lab.state(0, 1), State::Established);
        lab.inject(0, &end_of_rib);
    }
    lab.run(89);
    assert_eq!(lab.state(0, 1), State::Established);
    lab.run(2);
    assert_ne!(lab.state(0, 1), State::Established);
}

/// RFC 4271 §4.2: of both the smaller one.
#[test]
fn the_smaller_hold_time_counts() {
    let mut lab = Lab::pair_with(65001, 65002, |peer| {
        peer.hold_time = if peer.name == "r0" { 30 } else { 60 };
    });
    lab.run(5);
    for (index, other) in [(0, 1), (1, 0)] {
        assert_eq!(lab.peer(index, other).hold_time, Some(Duration::from_secs(30)));
    }
}

#[test]
fn hold_time_zero_means_no_timers() {
    let mut lab = Lab::pair_with(65001, 65001, |peer| peer.hold_time = 0);
    lab.run(2);
    let before = lab.peer(0, 1).sent.keepalives;
    lab.cut(0, 1);
    lab.run(3600);
    assert_eq!(lab.state(0, 1), State::Established);
    assert_eq!(lab.peer(0, 1).sent.keepalives, before);
}

#[test]
fn delay_open_lets_the_other_side_speak_first() {
    let mut configs = vec![config(0, 65001), config(1, 65002)];
    configs[0].peers.push(peer(1, 65002));
    configs[0].peers[0].delay_open = Some(Duration::from_secs(5));
    configs[1].peers.push(peer(0, 65001));
    configs[1].peers[0].passive = true;
    let mut lab = Lab::new(configs);
    lab.run(1);
    assert_eq!(lab.state(0, 1), State::Established);
}

#[test]
fn the_wrong_as_is_refused_with_growing_waits() {
    let mut configs = vec![config(0, 65001), config(1, 65002)];
    configs[0].peers.push(peer(1, 65003));
    configs[1].peers.push(peer(0, 65001));
    configs[1].peers[0].passive = true;
    let mut lab = Lab::new(configs);
    lab.run(100);
    let story = lab.tell();
    assert!(
        story.contains(
            "r0 r1: OpenSent -> Idle (peer is AS 65002, configured 65003 (sent 2/2 bad peer AS))"
        ),
        "{story}"
    );
    assert!(story.contains("r1 r0: OpenConfirm -> Active (peer does not expect AS 65002 (received 2/2 bad peer AS))"), "{story}");
    let attempts = story.matches("r0 r1: Active -> Connect").count();
    assert!((5..=10).contains(&attempts), "{attempts}");
}

#[test]
fn an_unconfigured_neighbour_is_refused() {
    let mut configs = vec![config(0, 65001), config(1, 65002)];
    configs[0].peers.push(peer(1, 65002));
    let mut lab = Lab::new(configs);
    lab.run(30);
    assert_eq!(lab.speaker(1).snapshot(false).peers.len(), 0);
    assert_eq!(lab.peer(0, 1).last_error.as_deref(), Some("connection refused"));
}

#[test]
fn only_changed_peers_are_reset() {
    let mut lab = Lab::mesh(&[1, 2, 3], &[(0, 1), (0, 2)]);
    lab.run(5);
    lab.tell();
    let mut changed: SpeakerConfig = lab.speaker(0).config().clone();
    changed.peers[0].hold_time = 30;
    changed.peers[1].local_pref = 200;
    let now = lab.now;
    lab.speaker(0).configure(changed.clone(), now);
    lab.run(10);
    let story = lab.tell();
    assert!(story.contains("r0 r1: Established -> Active (configuration changed)"), "{story}");
    assert!(!story.contains("r2"), "{story}");
    assert_eq!(lab.state(0, 1), State::Established);
    changed.peers.remove(0);
    let now = lab.now;
    lab.speaker(0).configure(changed, now);
    lab.run(1);
    let story = lab.tell();
    assert!(story.contains("received 6/9 hard reset (6/3 peer de-configured)"), "{story}");
}

#[test]
fn a_final_shutdown_is_told() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    lab.shutdown(0, Shutdown::Final);
    lab.run(1);
    assert!(lab.fibs[1].is_empty());
    let story = lab.tell();
    assert!(story.contains("received 6/9 hard reset (6/2 administrative shutdown)"), "{story}");
}

#[test]
fn a_lost_link_ends_the_session_at_once() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(0), "10.1.0.0/16 via 10.0.0.2\n");
    lab.tell();
    let now = lab.now;
    let down = crate::InterfaceDown {
        interface: "eth0".into(),
        addresses: vec![super::lab::address(0)],
        networks: vec![super::lab::prefix("10.0.0.0/24")],
    };
    lab.cut(0, 1);
    lab.speaker(0).handle_interface_down(down, now);
    lab.run_for(Duration::from_millis(1));
    assert_eq!(lab.fib(0), "");
    expect![[r#"
           5s r0 r1: Established -> Active (interface eth0 is down)
    "#]]
    .assert_eq(&lab.tell());
    lab.mend(0, 1);
    let now = lab.now;
    lab.speaker(0).handle_interface_up("eth0", now);
    lab.run(2);
    assert_eq!(lab.state(0, 1), State::Established);
    assert_eq!(lab.fib(0), "10.1.0.0/16 via 10.0.0.2\n");
}

#[test]
fn keepalive_time_zero_is_not_silence() {
    let mut lab = Lab::pair_with(1, 2, |peer| peer.keepalive_time = Some(Duration::ZERO));
    lab.run(300);
    assert!(!lab.tell().contains("Established ->"));
}

/// It crashes over something that we announce, again and again.
#[test]
fn a_peer_that_comes_and_goes_is_given_more_and_more_time() {
    let mut configs = vec![config(0, 1), config(1, 2)];
    configs[0].peers.push(peer(1, 2));
    configs[1].peers.push(peer(0, 1));
    configs[1].peers[0].passive = true;
    let mut lab = Lab::new(configs.clone());
    let mut sessions = 0;
    for _ in 0..1200 {
        lab.run_for(Duration::from_millis(100));
        if lab.state(0, 1) == State::Established {
            sessions += 1;
            lab.kill(1);
            lab.start(1, configs[1].clone());
        }
    }
    assert!((4..=10).contains(&sessions), "{sessions}");
}

#[test]
fn capabilities_that_a_peer_refused_are_offered_again_after_the_next_session() {
    let mut lab = Lab::pair(65001, 65002);
    lab.run(60);
    assert!(lab.peer(0, 1).graceful_restart);
    // Unsupported Optional Parameter (RFC 5492 §3): the next attempt goes without.
    let mut refusal = vec![0xff; 16];
    refusal.extend([0, 21, 3, 2, 4]);
    lab.inject(0, &refusal);
    lab.run(120);
    assert_eq!(lab.state(0, 1), State::Established);
    assert!(!lab.peer(0, 1).graceful_restart);
    lab.cut(0, 1);
    lab.run(300);
    lab.mend(0, 1);
    lab.run(120);
    assert_eq!(lab.state(0, 1), State::Established);
    assert!(lab.peer(0, 1).graceful_restart);
}

/// Both sides get a new key, one after the other: routes stay where graceful restart was agreed upon, and only there.
#[test]
fn a_new_key_is_a_new_session_that_keeps_the_routes() {
    for graceful in [true, false] {
        let mut lab = Lab::pair_with(1, 2, |peer| {
            peer.graceful_restart = graceful;
            peer.password = Some("old".into());
        });
        lab.originate(0, "10.1.0.0/16");
        lab.originate(1, "10.2.0.0/16");
        lab.run(40);
        lab.tell();
        for side in [0, 1] {
            let mut changed = lab.speaker(side).config().clone();
            changed.peers[0].password = Some("new".into());
            // What else is new applies as well.
            changed.peers[0].import = if side == 0 { Policy::accept() } else { Policy::reject() };
            let now = lab.now;
            lab.speaker(side).configure(changed, now);
            let mut least = 1;
            for _ in 0..1000 {
                lab.run_for(Duration::from_millis(1));
                least = least.min(lab.fibs[0].len()).min(lab.fibs[1].len());
            }
            assert_eq!(least, usize::from(graceful && side == 0), "side {side}");
            lab.run(40);
            assert_eq!(lab.state(0, 1), State::Established);
            assert_eq!((lab.fibs[0].len(), lab.fibs[1].len()), (1, 1 - side));
            assert!(lab.peer(0, 1).stale.is_empty());
            let story = lab.tell();
            assert!(story.contains("Established -> Active (password changed)"), "{story}");
            assert_eq!(story.matches("Established ->").count(), 2, "{story}");
        }
    }
}

/// RFC 4271 §4.4: never more than one in a second, whatever an operator wishes or jitter does.
#[test]
fn keepalives_are_a_second_apart() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        peer.hold_time = 3;
        peer.keepalive_time = Some(Duration::from_millis(100));
    });
    lab.run(100);
    for (side, other) in [(0, 1), (1, 0)] {
        let sent = lab.peer(side, other).sent.keepalives;
        assert!((95..=101).contains(&sent), "{sent}");
        assert_eq!(lab.state(side, other), State::Established);
    }
}
