use std::time::Duration;

use expect_test::expect;

use super::lab::{Lab, config, peer};
use crate::{Families, Shutdown, SpeakerConfig, State};

fn restarting(asn: u32, neighbour: u32) -> SpeakerConfig {
    let mut config = SpeakerConfig { restarting: true, ..config(0, asn) };
    config.peers.push(peer(1, neighbour));
    config
}

#[test]
fn routes_survive_a_restart_of_the_peer() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(0, "10.1.0.0/16");
    lab.originate(0, "10.2.0.0/16");
    lab.run(5);
    lab.tell();
    lab.shutdown(0, Shutdown::Restart);
    lab.run(10);
    assert_eq!(lab.fibs[1].len(), 2);
    assert!(lab.peer(1, 0).stale.ipv4);
    lab.start(0, restarting(1, 2));
    // One of them did not come back.
    lab.originate(0, "10.1.0.0/16");
    lab.run(15);
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.1\n");
    assert!(lab.complete[0]);
    assert!(lab.peer(1, 0).stale.is_empty());
}

#[test]
fn a_crash_is_a_restart_too() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    lab.kill(0);
    lab.run(1);
    assert_eq!(lab.fibs[1].len(), 1);
    lab.start(0, restarting(1, 2));
    lab.originate(0, "10.1.0.0/16");
    lab.run(20);
    assert_eq!(lab.fibs[1].len(), 1);
    assert_eq!(lab.state(1, 0), State::Established);
    assert!(lab.peer(1, 0).stale.is_empty());
}

/// End-of-RIB must not overtake a table that takes several rounds of decisions.
#[test]
fn no_route_is_lost_while_a_large_table_comes_back() {
    let mut lab = Lab::pair(1, 2);
    let prefixes: Vec<String> = (0..20_000_u32)
        .map(|number| format!("10.{}.{}.0/24", number / 256, number % 256))
        .collect();
    prefixes.iter().for_each(|prefix| lab.originate(0, prefix));
    lab.run(5);
    assert_eq!(lab.fibs[1].len(), prefixes.len());
    lab.kill(0);
    lab.start(0, restarting(1, 2));
    prefixes.iter().for_each(|prefix| lab.originate(0, prefix));
    for _ in 0..200 {
        lab.run_for(Duration::from_millis(20));
        assert_eq!(lab.fibs[1].len(), prefixes.len());
    }
    assert!(lab.peer(1, 0).stale.is_empty());
    assert!(lab.complete[0]);
}

/// Of both families.
#[test]
fn stale_routes_end_with_the_restart_time() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        let own = if peer.name == "r1" { "fd00::1" } else { "fd00::2" };
        peer.next_hop_ipv6 = own.parse().ok();
        peer.families = Families::BOTH;
    });
    lab.originate(0, "10.1.0.0/16");
    lab.originate(0, "fd01::/64");
    lab.run(5);
    lab.kill(0);
    lab.run(118);
    assert_eq!(lab.fibs[1].len(), 2);
    lab.run(5);
    assert_eq!(lab.fib(1), "");
}

/// r0 dies and comes back as told; stops in the moment when r1 has the session, before the first word about routes.
fn back(config: SpeakerConfig) -> Lab {
    let mut lab = Lab::pair_with(1, 2, |peer| peer.passive = peer.name == "r0");
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    lab.kill(0);
    lab.run(1);
    assert_eq!((lab.fibs[1].len(), lab.state(1, 0)), (1, State::Active));
    lab.start(0, config);
    for _ in 0..20_000 {
        if lab.state(1, 0) == State::Established {
            return lab;
        }
        lab.run_for(Duration::from_millis(1));
    }
    unreachable!("r0 does not come back: {}", lab.tell());
}

/// Not only with End-of-RIB (RFC 4724 §4.2).
#[test]
fn forwarding_not_preserved_flushes_at_once() {
    let lab = back(SpeakerConfig { restarting: false, ..restarting(1, 2) });
    assert_eq!(lab.fib(1), "");
    let lab = back(restarting(1, 2));
    assert_eq!(lab.fibs[1].len(), 1);
}

/// RFC 4724 §4.2: what was stale already does not outlive a second loss.
#[test]
fn a_second_restart_before_end_of_rib_ends_what_was_stale() {
    let mut lab = back(restarting(1, 2));
    assert_eq!(lab.fibs[1].len(), 1);
    lab.kill(0);
    lab.run_for(Duration::from_millis(5));
    assert_eq!(lab.fib(1), "");
}

#[test]
fn without_graceful_restart_routes_go_with_the_session() {
    let mut lab = Lab::pair_with(1, 2, |peer| peer.graceful_restart = false);
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    lab.shutdown(0, Shutdown::Restart);
    lab.run(1);
    assert_eq!(lab.fibs[1].len(), 0);
    let story = lab.tell();
    assert!(story.contains("(received 6/4 administrative reset)"), "{story}");
}

/// The old connection is still there when the peer's new process connects (RFC 4724 §5).
#[test]
fn a_new_connection_replaces_an_established_session() {
    let mut lab = Lab::pair_with(1, 2, |peer| peer.passive = peer.name == "r0");
    lab.originate(0, "10.1.0.0/16");
    lab.run(10);
    lab.cut(0, 1);
    lab.kill(0);
    lab.mend(0, 1);
    lab.tell();
    lab.start(0, restarting(1, 2));
    lab.originate(0, "10.1.0.0/16");
    lab.run(1);
    assert_eq!(lab.fibs[1].len(), 1);
    expect![[r#"
        10s r0 r1: Idle -> Active (configured)
        10s r0 r1: Active -> Connect (connecting)
        10s r0 r1: Connect -> OpenSent (TCP connection established)
        10s r0 r1: OpenSent -> OpenConfirm (received OPEN)
        10s r1 r0: Established -> OpenConfirm (peer restarted)
        10s r1 r0: OpenConfirm -> Established (received KEEPALIVE)
        10s r0 r1: OpenConfirm -> Established (received KEEPALIVE)
        10s r0 restart complete
    "#]]
    .assert_eq(&lab.tell());
}

#[test]
fn a_restart_waits_for_end_of_rib_but_not_for_dead_peers() {
    let mut lab = Lab::mesh(&[1, 2, 3], &[(0, 1), (0, 2)]);
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    let configuration = SpeakerConfig { restarting: true, ..lab.speaker(0).config().clone() };
    lab.kill(2);
    lab.kill(0);
    lab.fibs[0].clear();
    lab.start(0, configuration);
    lab.run_for(Duration::from_millis(300));
    // r2 has refused once: not yet.
    assert!(!lab.complete[0]);
    assert!(lab.fibs[0].is_empty());
    lab.run(30);
    assert!(lab.complete[0]);
    assert_eq!(lab.fib(0), "10.1.0.0/16 via 10.0.0.2\n");
}

#[test]
fn two_restarting_speakers_do_not_wait_for_each_other() {
    let mut configs = vec![config(0, 1), config(1, 2)];
    configs[0].peers.push(peer(1, 2));
    configs[1].peers.push(peer(0, 1));
    configs.iter_mut().for_each(|config| config.restarting = true);
    let mut lab = Lab::new(configs);
    lab.originate(0, "10.1.0.0/16");
    lab.run(10);
    assert_eq!(lab.complete, [true, true]);
    assert_eq!(lab.fibs[1].len(), 1);
}
