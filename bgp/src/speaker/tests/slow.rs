//! Peers that do not read, or ask for more than they read.

use std::time::Duration;

use super::lab::{Lab, mesh_configs, prefix};
use crate::{
    AddPathMode, Community, LocalRoute, SpeakerConfig, State,
    types::Family,
    update_group::Limits,
    wire::{Refresh, encode_route_refresh},
};

const COUNT: u32 = 1600;

/// A megabyte and a half of announcements: more than a group keeps for those who do not take it.
fn originate_much(lab: &mut Lab, index: usize) {
    for number in 0..COUNT {
        let communities = (0..240).map(|low| Community(number << 8 | low)).collect();
        let route = LocalRoute { communities, ..LocalRoute::default() };
        let text = format!("10.{}.{}.0/24", number / 256, number % 256);
        lab.speaker(index).originate(prefix(&text), route);
    }
}

/// r0 comes back from a restart; r1 and r2 get its table in one walk, but r1 stops reading before it begins. Nothing may
/// be lost on the way: End-of-RIB of one who was left behind comes after everything else.
#[test]
fn one_who_does_not_read_holds_up_nobody() {
    let mut lab = Lab::new(mesh_configs(&[1, 2, 3], &[(0, 1), (0, 2)]));
    originate_much(&mut lab, 0);
    lab.run(10);
    let count = usize::try_from(COUNT).unwrap();
    assert_eq!((lab.fibs[1].len(), lab.fibs[2].len()), (count, count));
    let again = SpeakerConfig { restarting: true, ..lab.speaker(0).config().clone() };
    lab.kill(0);
    lab.run(1);
    lab.start(0, again);
    lab.speaker(0).limits = Limits { lag: 1 << 20, enough: 1 << 18, step: 256 };
    originate_much(&mut lab, 0);
    // r2 is slower than r1, and r0 waits for it.
    lab.latency.insert((2, 0), Duration::from_millis(400));
    while lab.state(0, 1) != State::Established {
        lab.run_for(Duration::from_millis(1));
    }
    assert!(!lab.complete[0]);
    lab.stuck.insert((1, 0));
    lab.run(20);
    assert!(lab.peer(2, 0).stale.is_empty());
    assert_eq!(lab.fibs[2].len(), count);
    assert!(lab.peer(1, 0).stale.ipv4);
    lab.unstick(1, 0);
    for _ in 0..20 {
        lab.run_for(Duration::from_millis(1));
        assert_eq!(lab.fibs[1].len(), count);
    }
    assert!(lab.peer(1, 0).stale.is_empty());
}

#[test]
fn asking_again_and_again_without_reading_fills_no_memory() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    lab.stuck.insert((0, 1));
    for _ in 0..1000 {
        lab.inject(1, &encode_route_refresh(Family::Ipv4, Refresh::Request));
    }
    lab.unstick(0, 1);
    lab.run(1);
    // One beginning and one end.
    assert_eq!(lab.peer(0, 1).received.refreshes, 2);
    assert_eq!(lab.fib(0), "10.1.0.0/16 via 10.0.0.2\n");
}

/// r1 does not read at all while routes come that it never had, and go: nothing of that is kept for it, r2 hears of
/// everything, and r1 knows the truth as soon as it reads again.
#[test]
fn nothing_is_kept_for_one_who_does_not_read() {
    for add_path in [false, true] {
        let mut configs = mesh_configs(&[1, 2, 3], &[(0, 1), (0, 2)]);
        let peers = configs.iter_mut().flat_map(|config| &mut config.peers);
        let mode = if add_path { AddPathMode::Both } else { AddPathMode::None };
        peers.for_each(|peer| peer.add_path = mode);
        let mut lab = Lab::new(configs);
        lab.keep_little(Limits { lag: 4000, enough: 2000, step: 16 });
        let text = |round: u32, number: u32| format!("10.{round}.{number}.0/24");
        (0..200).for_each(|number| lab.originate(0, &text(0, number)));
        lab.run(10);
        assert_eq!(lab.fibs[1].len(), 200);
        lab.stuck.insert((1, 0));
        let mut kept = Vec::new();
        for round in 1..30 {
            (0..200).for_each(|number| lab.originate(0, &text(round, number)));
            if round > 1 {
                (0..200).for_each(|number| lab.withdraw(0, &text(round - 1, number)));
            }
            // Of what it has some go, some come back, some go again.
            for number in 0..100 {
                match (round + number) % 3 {
                    0 => lab.originate(0, &text(0, number)),
                    _ => lab.withdraw(0, &text(0, number)),
                }
            }
            lab.run(2);
            assert_eq!(lab.fibs[2].len(), lab.speaker(0).snapshot(false).prefixes);
            let id = lab.speaker(0).peer_named("r1").unwrap();
            kept.push(lab.speaker(0).groups[0].kept_for(id));
        }
        // What it had, twice: once from the part of the log that it missed.
        let most = kept.iter().skip(10).max().unwrap();
        assert!(*most <= 8000, "{kept:?}");
        lab.unstick(1, 0);
        lab.run(5);
        assert_eq!(lab.fibs[1], lab.fibs[2]);
        let id = lab.speaker(0).peer_named("r1").unwrap();
        assert_eq!(lab.speaker(0).groups[0].kept_for(id), 0);
    }
}
