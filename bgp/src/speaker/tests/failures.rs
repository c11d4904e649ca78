//! Failures of graceful restart that operators of other speakers met, each as a story that must end well here.

use std::{collections::BTreeSet, time::Duration};

use super::lab::{Lab, address, config, mesh_configs, peer, prefix};
use crate::{
    Asn, Families, PeerGroup, RouterId, Shutdown, SpeakerConfig, State, bfd,
    config::{AcceptedAs, Members},
    wire::{self, Capabilities, GracefulRestart, GracefulRestartFamily, Open},
};

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

/// The routes in the kernel tell who was up: a peer that was down before, and that we only wait for, holds up nobody.
#[test]
fn a_passive_peer_that_was_down_before_is_not_waited_for() {
    let mut lab = Lab::mesh(&[1, 2, 3], &[(0, 1), (0, 2)]);
    lab.originate(1, "10.1.0.0/16");
    lab.kill(2);
    lab.run(5);
    let mut configuration = SpeakerConfig { restarting: true, ..lab.speaker(0).config().clone() };
    configuration.peers[1].passive = true;
    for (via, complete) in [
        (Some(vec![address(1)]), true),
        // Nothing is known, the dead one carried traffic, or somebody who is no peer did.
        (None, false),
        (Some(vec![address(1), address(2)]), false),
        (Some(vec![address(7)]), false),
    ] {
        lab.kill(0);
        configuration.forwarding_via = via.map(BTreeSet::from_iter);
        lab.start(0, configuration.clone());
        lab.fibs[0].clear();
        lab.run(3);
        assert_eq!(lab.state(0, 1), State::Established);
        assert_eq!(lab.complete[0], complete, "{:?}", configuration.forwarding_via);
        assert_eq!(lab.fibs[0].len(), usize::from(complete));
        lab.run(20);
        assert!(lab.complete[0]);
        assert_eq!(lab.fib(0), "10.1.0.0/16 via 10.0.0.2\n");
    }
}

/// A member of a range that carried traffic is waited for although nobody knows it yet; one that did not is not.
#[test]
fn a_member_of_a_range_is_waited_for_if_it_carried_traffic() {
    let range = |carried: bool| {
        let mut config = SpeakerConfig { restarting: true, ..config(0, 1) };
        config.groups.push(PeerGroup {
            name: "rack".into(),
            members: Members::Range(prefix("10.0.0.0/24")),
            asns: AcceptedAs::External,
            limit: 10,
            template: peer(0, 0),
        });
        config.forwarding_via = Some(if carried { [address(1)].into() } else { BTreeSet::new() });
        config
    };
    for carried in [true, false] {
        let mut other = config(1, 2);
        other.peers.push(peer(0, 1));
        let mut lab = Lab::new(vec![range(carried), other]);
        lab.originate(1, "10.1.0.0/16");
        lab.latency.insert((1, 0), Duration::from_millis(500));
        // Somebody else's words make the restart look at who is missing.
        let now = lab.now;
        lab.speaker(0).configure(range(carried), now);
        lab.run_for(Duration::from_millis(400));
        assert!(!lab.complete[0]);
        lab.run(5);
        assert!(lab.complete[0]);
        assert_eq!(lab.fibs[0].len(), 1);
    }
}

/// Flags of both sides in every OPEN: R only while it restarts, F for every family (calico#9575: wrong on a fifth of the
/// nodes).
#[test]
fn the_flags_of_a_restart_say_what_is_true() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        peer.families = Families::BOTH;
        peer.next_hop_ipv6 = Some("fd00::1".parse().unwrap());
    });
    let flags = |lab: &mut Lab, of: usize, seen_by: usize| {
        let speaker = lab.speaker(seen_by);
        let id = speaker.peer_named(&format!("r{of}")).unwrap();
        let connection = speaker.peers.get(&id).unwrap().established.unwrap();
        let open = speaker.connections.get(&connection).unwrap().their_open.clone().unwrap();
        let graceful = open.capabilities.graceful_restart.unwrap();
        (graceful.restarting, graceful.families(), graceful.forwarding())
    };
    lab.run(5);
    assert_eq!(flags(&mut lab, 0, 1), (false, Families::BOTH, Families::NONE));
    let configuration = SpeakerConfig { restarting: true, ..lab.speaker(0).config().clone() };
    lab.kill(0);
    lab.start(0, configuration);
    lab.run(5);
    assert_eq!(flags(&mut lab, 0, 1), (true, Families::BOTH, Families::BOTH));
    // The one that did not restart went on forwarding, too, and does not say that it restarted.
    assert_eq!(flags(&mut lab, 1, 0), (false, Families::BOTH, Families::BOTH));
    // The session breaks when the restart is over.
    lab.cut(0, 1);
    lab.run(200);
    lab.mend(0, 1);
    lab.run(60);
    assert_eq!(lab.state(0, 1), State::Established);
    assert_eq!(flags(&mut lab, 0, 1), (false, Families::BOTH, Families::BOTH));
}

/// After an upgrade the peer preserves one family only, and says End-of-RIB for that one: nobody waits for the other.
#[test]
fn the_marker_of_a_family_that_is_not_preserved_is_not_waited_for() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        peer.families = Families::BOTH;
        peer.next_hop_ipv6 = Some("fd00::1".parse().unwrap());
    });
    lab.run(5);
    let configuration = SpeakerConfig { restarting: true, ..lab.speaker(0).config().clone() };
    lab.kill(1);
    lab.kill(0);
    lab.start(0, configuration);
    let mut open = Open {
        asn: Asn(2),
        hold_time: 90,
        router_id: RouterId(2),
        capabilities: Capabilities {
            multiprotocol: vec![(1, 1), (2, 1)],
            four_octet_as: Some(Asn(2)),
            ..Capabilities::default()
        },
    };
    open.capabilities.graceful_restart = Some(GracefulRestart {
        restarting: false,
        notification: false,
        restart_time: 120,
        families: vec![GracefulRestartFamily { afi: 1, safi: 1, forwarding: true }],
    });
    let now = lab.now;
    let connection = lab.speaker(0).handle_accepted(address(0), address(1), now).unwrap();
    let end_of_rib = [&[0xff; 16][..], &[0, 23, 2, 0, 0, 0, 0]].concat();
    for message in [open.encode(), wire::keepalive(), end_of_rib.into()] {
        lab.speaker(0).handle_received(connection, &message, now);
    }
    assert!(!lab.speaker(0).snapshot(false).restarting);
}

/// The FIB is emptied by somebody in the middle of a restart: what comes from peers then is told again in full.
#[test]
fn a_fib_that_was_flushed_during_a_restart_is_told_everything() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    lab.kill(0);
    lab.fibs[0].clear();
    lab.start(0, again(1, 2));
    lab.run(5);
    assert!(lab.complete[0]);
    assert_eq!(lab.fib(0), "10.1.0.0/16 via 10.0.0.2\n");
}

/// Two top-of-rack routers are reloaded one after the other, each without and with its forwarding: the node always has a
/// way out, and both in the end.
#[test]
fn two_routers_reloaded_in_sequence_never_leave_a_node_alone() {
    for preserved in [true, false] {
        let mut lab = Lab::mesh(&[1, 2, 2], &[(0, 1), (0, 2)]);
        let watch = |lab: &mut Lab, seconds: u64| {
            for _ in 0..seconds * 20 {
                lab.run_for(Duration::from_millis(50));
                let kept = lab.fibs[0].values().next().map_or(0, Vec::len);
                assert!(kept >= if preserved { 2 } else { 1 }, "{}", lab.fib(0));
            }
        };
        for router in [1, 2] {
            lab.originate(router, "0.0.0.0/0");
        }
        lab.run(5);
        assert_eq!(lab.fib(0), "0.0.0.0/0 via 10.0.0.2 10.0.0.3\n");
        for router in [1, 2] {
            let configuration =
                SpeakerConfig { restarting: preserved, ..lab.speaker(router).config().clone() };
            lab.shutdown(router, Shutdown::Restart);
            watch(&mut lab, 30);
            lab.start(router, configuration);
            lab.originate(router, "0.0.0.0/0");
            watch(&mut lab, 30);
        }
        assert_eq!(lab.fib(0), "0.0.0.0/0 via 10.0.0.2 10.0.0.3\n");
    }
}

/// Graceful restart hides a dead node: BFD knows better, and its word counts at once.
#[test]
fn a_dead_node_is_given_up_when_bfd_says_so() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        peer.bfd = Some(bfd::Config { strict: true, ..bfd::Config::default() });
    });
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    lab.cut(0, 1);
    let now = lab.now;
    let down = bfd::Change {
        from: bfd::State::Up,
        to: bfd::State::Down,
        diagnostic: bfd::Diagnostic::DETECTION_TIME_EXPIRED,
        administrative: false,
        control_plane_independent: false,
    };
    lab.speaker(0).handle_bfd("r1", &down, now);
    lab.run_for(Duration::from_millis(1));
    assert_eq!(lab.fibs[0].len(), 0);
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

/// A chain r0 - r1 - r2, all of which may go at any moment: what r2 sends to r0's network always finds a way.
fn chain() -> Lab {
    let mut lab = Lab::mesh(&[1, 2, 3], &[(0, 1), (1, 2)]);
    // Far enough away that a session is up long before its first route comes.
    lab.latency.insert((0, 1), Duration::from_millis(50));
    lab.originate(0, "10.1.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.2\n");
    lab
}

fn configuration_after_a_crash(lab: &mut Lab, index: usize, former: &[usize]) -> SpeakerConfig {
    let forwarding_via = former.iter().map(|peer| address(*peer)).collect();
    SpeakerConfig {
        restarting: true,
        forwarding_via: Some(forwarding_via),
        ..lab.speaker(index).config().clone()
    }
}

fn watch(lab: &mut Lab, time: Duration) {
    let end = lab.now + time;
    while lab.now < end {
        lab.run_for(Duration::from_millis(2));
        for index in [1, 2] {
            assert_eq!(lab.fibs[index].len(), 1, "r{index} lost the route: {}", lab.tell());
        }
    }
}

/// A leaf came back while a node was away for a moment, told the others its End-of-RIB without the node's block, and they
/// dropped what they had.
#[test]
fn a_restart_waits_for_a_neighbour_that_restarts_as_well() {
    for pause in [0, 300, 1_200, 5_000] {
        let mut lab = chain();
        let node = configuration_after_a_crash(&mut lab, 0, &[1]);
        let leaf = configuration_after_a_crash(&mut lab, 1, &[0]);
        lab.kill(1);
        lab.kill(0);
        lab.start(1, leaf);
        watch(&mut lab, Duration::from_millis(pause));
        lab.start(0, node);
        lab.originate(0, "10.1.0.0/16");
        watch(&mut lab, Duration::from_secs(30));
        assert!(lab.complete[0] && lab.complete[1]);
        assert!(lab.peer(2, 1).stale.is_empty());
    }
}

/// All three at once, and the middle first: nobody waits for ever, nothing is lost.
#[test]
fn a_chain_that_restarts_as_a_whole_loses_nothing() {
    let mut lab = chain();
    let configs = [(0, vec![1]), (1, vec![0]), (2, vec![1])]
        .map(|(index, former)| configuration_after_a_crash(&mut lab, index, &former));
    for index in 0..3 {
        lab.kill(index);
    }
    for (index, config) in [1, 2, 0].into_iter().zip([1, 2, 0].map(|index| configs[index].clone()))
    {
        lab.start(index, config);
        if index == 0 {
            lab.originate(0, "10.1.0.0/16");
        }
        watch(&mut lab, Duration::from_millis(200));
    }
    watch(&mut lab, Duration::from_secs(30));
    assert_eq!(lab.complete, [true; 3]);
}

/// What a restarting speaker announces of its own before its time is taken back when it ends before its time.
#[test]
fn an_early_announcement_that_ended_meanwhile_is_withdrawn() {
    let mut lab = chain();
    let leaf = configuration_after_a_crash(&mut lab, 1, &[0, 2]);
    lab.kill(1);
    lab.kill(0);
    lab.start(1, leaf);
    lab.originate(1, "10.9.0.0/16");
    lab.run(2);
    assert!(!lab.complete[1]);
    assert_eq!(lab.fibs[2].len(), 2, "{}", lab.fib(2));
    lab.withdraw(1, "10.9.0.0/16");
    lab.run(25);
    assert!(lab.complete[1]);
    assert!(!lab.fib(2).contains("10.9.0.0/16"), "{}", lab.fib(2));
}
