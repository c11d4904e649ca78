use std::time::Duration;

use super::lab::Lab;
use crate::{
    types::{Families, Family},
    wire::{Refresh, encode_route_refresh},
};

#[test]
fn a_refresh_sweeps_what_is_not_repeated() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(1, "10.1.0.0/16");
    lab.originate(1, "10.2.0.0/16");
    lab.run(5);
    // r1 loses its word about 10.2/16: it is cut off while it says so, as a bug would do.
    lab.inject(0, &encode_route_refresh(Family::Ipv4, Refresh::Begin));
    assert!(lab.speaker(0).snapshot(true).rib.iter().all(|entry| entry.paths[0].stale));
    assert_eq!(lab.fibs[0].len(), 2);
    lab.inject(0, &encode_route_refresh(Family::Ipv4, Refresh::End));
    assert_eq!(lab.fibs[0].len(), 0);
    // Asked, it sends everything between markers.
    let now = lab.now;
    lab.speaker(0).operate("r1", &crate::PeerAction::RefreshIn, now).unwrap();
    lab.run(1);
    assert_eq!(lab.fibs[0].len(), 2);
    assert!(lab.speaker(0).snapshot(true).rib.iter().all(|entry| !entry.paths[0].stale));
    assert_eq!((lab.peer(0, 1).received.refreshes, lab.peer(1, 0).received.refreshes), (4, 1));
}

/// RFC 2918 §4: of every family that is exchanged.
#[test]
fn a_refresh_repeats_both_families() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        let own = if peer.name == "r1" { "fd00::1" } else { "fd00::2" };
        peer.next_hop_ipv6 = own.parse().ok();
        peer.families = Families::BOTH;
    });
    lab.originate(1, "10.1.0.0/16");
    lab.originate(1, "fd01::/64");
    lab.run(5);
    let stale = |lab: &mut Lab| {
        let rib = lab.speaker(0).snapshot(true).rib;
        rib.iter().map(|entry| entry.paths[0].stale).collect::<Vec<_>>()
    };
    for family in Family::ALL {
        lab.inject(0, &encode_route_refresh(family, Refresh::Begin));
    }
    assert_eq!(stale(&mut lab), [true, true]);
    let now = lab.now;
    lab.speaker(0).operate("r1", &crate::PeerAction::RefreshIn, now).unwrap();
    lab.run(1);
    assert_eq!(stale(&mut lab), [false, false]);
}

#[test]
fn a_refresh_without_an_end_is_ended_after_ten_minutes() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    lab.inject(0, &encode_route_refresh(Family::Ipv4, Refresh::Begin));
    lab.run(595);
    assert_eq!(lab.fibs[0].len(), 1);
    lab.run(10);
    assert_eq!(lab.fibs[0].len(), 0);
}

#[test]
fn markers_out_of_place_change_nothing() {
    let mut lab = Lab::pair_with(1, 2, |peer| peer.families.ipv6 = false);
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    lab.inject(0, &encode_route_refresh(Family::Ipv4, Refresh::End));
    lab.inject(0, &encode_route_refresh(Family::Ipv6, Refresh::Begin));
    lab.inject(0, &encode_route_refresh(Family::Ipv6, Refresh::End));
    assert_eq!(lab.fib(0), "10.1.0.0/16 via 10.0.0.2\n");
}

/// A session that is lost in the middle of a refresh keeps its routes as any other does.
#[test]
fn a_restart_during_a_refresh_loses_nothing() {
    let mut lab = Lab::pair(1, 2);
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    lab.inject(0, &encode_route_refresh(Family::Ipv4, Refresh::Begin));
    lab.kill(1);
    lab.run_for(Duration::from_millis(100));
    assert_eq!(lab.fibs[0].len(), 1);
    assert!(lab.peer(0, 1).stale.ipv4);
}

#[test]
fn a_marker_of_the_wrong_length_ends_the_session_with_the_whole_message() {
    let mut lab = Lab::pair(1, 2);
    lab.run(5);
    lab.tell();
    let mut long = encode_route_refresh(Family::Ipv4, Refresh::Begin).to_vec();
    long[17] += 1;
    long.push(0);
    lab.inject(0, &long);
    lab.run(1);
    let story = lab.tell();
    assert!(story.contains("(sent 7/1 invalid message length)"), "{story}");
}
