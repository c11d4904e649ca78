//! Peers with many routes go, come back and restart: nobody waits for all of that at once.

use std::time::Duration;

use super::lab::{Lab, mesh_configs, prefix};
use crate::{
    ConnectionId, Output, Slice, State,
    filter::{Action, Filter, Policy, PrefixOperator, Rule},
    types::Family,
    wire::{Refresh, encode_route_refresh},
};

const ROUTES: u16 = 1000;

fn text(number: u16) -> String {
    let [high, low] = number.to_be_bytes();
    format!("10.{high}.{low}.0/24")
}

/// r0 between r1 and r3, which share the routes, and r2. It works in slices from now on. At most as many routes as there are
/// in all may come from a peer.
fn lab(graceful: bool, slice: usize) -> Lab {
    let mut configs = mesh_configs(&[1, 2, 3, 4], &[(0, 1), (0, 2), (0, 3)]);
    let peers = configs.iter_mut().flat_map(|config| &mut config.peers);
    peers.for_each(|peer| {
        peer.graceful_restart = graceful;
        peer.max_prefixes = Some(ROUTES.into());
    });
    let mut lab = Lab::new(configs);
    for number in 0..ROUTES {
        lab.originate(if number < ROUTES / 2 { 1 } else { 3 }, &text(number));
    }
    lab.run(5);
    assert_eq!((lab.fibs[0].len(), lab.fibs[2].len()), (1000, 1000));
    lab.work_in_slices(slice);
    lab
}

fn connection(lab: &mut Lab, peer: usize) -> ConnectionId {
    let speaker = lab.speaker(0);
    let id = speaker.peer_named(&format!("r{peer}")).unwrap();
    speaker.peers.get(&id).unwrap().established.unwrap()
}

/// An UPDATE of r1 with these routes.
fn update(numbers: std::ops::Range<u16>) -> Vec<u8> {
    let attributes =
        [[0x40, 1, 1, 0].as_slice(), &[0x40, 2, 6, 2, 1, 0, 0, 0, 2], &[0x40, 3, 4, 10, 0, 0, 2]];
    let attributes = attributes.concat();
    let mut body = vec![0, 0, 0, u8::try_from(attributes.len()).unwrap()];
    body.extend(attributes);
    for number in numbers {
        let [high, low] = number.to_be_bytes();
        body.extend([24, 10, high, low]);
    }
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(2);
    message.extend(body);
    message
}

/// Runs until a peer is back; r0 must still be busy with what was before.
fn await_return(lab: &mut Lab, peer: usize) {
    for _ in 0..4000 {
        if lab.state(0, peer) == State::Established {
            break;
        }
        lab.run_for(Duration::from_millis(1));
    }
    assert_eq!(lab.state(0, peer), State::Established);
    assert!(lab.speaker(0).rib.is_walking());
}

/// The prefixes that r0 and r2 use, as numbers: first and last of each row.
fn used(lab: &Lab) -> [String; 2] {
    [0, 2].map(|who| {
        let has = |number: u16| lab.fibs[who].contains_key(&prefix(&text(number)));
        let mut rows = String::new();
        for number in (0..2 * ROUTES).filter(|number| has(*number)) {
            if number == 0 || !has(number - 1) {
                rows += &format!(" {number}");
            }
            if !has(number + 1) {
                rows += &format!("-{number}");
            }
        }
        rows
    })
}

fn both(rows: &str) -> [String; 2] {
    [rows.to_owned(), rows.to_owned()]
}

#[test]
fn a_lost_peer_is_forgotten_in_slices_and_others_are_heard_meanwhile() {
    let mut lab = lab(false, 50);
    let (gone, other) = (connection(&mut lab, 1), connection(&mut lab, 2));
    let later = lab.now + Duration::from_secs(40);
    let now = lab.now;
    let speaker = lab.speaker(0);
    speaker.handle_closed(gone, "closed", now);
    // It counts at once.
    let snapshot = speaker.snapshot(true);
    assert_eq!(snapshot.rib.len(), 500);
    assert_eq!(speaker.explain(&prefix(&text(1))), None);
    let (mut told, mut slices, mut most, mut kept_alive) = (0, 0, 0, None);
    loop {
        match speaker.poll_slice() {
            Slice::Output(Output::Fib(update)) => {
                assert_eq!(update.route, crate::FibRoute::Absent);
                told += 1;
            }
            Slice::Output(Output::TransmitReady(ready)) => {
                let sent = speaker.transmit(ready, usize::MAX);
                let is_keepalive = |bytes: &bytes::Bytes| bytes.len() == 19;
                if ready == other && sent.iter().any(is_keepalive) {
                    kept_alive = Some(slices);
                }
                while !speaker.transmit(ready, usize::MAX).is_empty() {}
            }
            Slice::Output(_) => (),
            Slice::Worked => {
                slices += 1;
                most = most.max(std::mem::take(&mut told));
                // A keepalive is due, and is sent before the work is done.
                if slices == 3 {
                    speaker.handle_timeout(later);
                }
            }
            Slice::Idle => break,
        }
    }
    assert_eq!(most, 50);
    assert!(slices >= 10);
    assert_eq!(kept_alive, Some(3));
}

#[test]
fn a_peer_that_comes_back_meanwhile_keeps_what_it_announces_now() {
    let mut lab = lab(false, 1);
    lab.kill(1);
    lab.run_for(Duration::from_millis(5));
    assert_eq!(lab.peer(0, 1).prefixes_received, 0);
    assert!(lab.fibs[0].len() > 900);
    let config = mesh_configs(&[1, 2, 3, 4], &[(0, 1)]).remove(1);
    lab.start(1, config);
    // As many as it may, and others than before among them.
    (400..400 + ROUTES).for_each(|number| lab.originate(1, &text(number)));
    await_return(&mut lab, 1);
    lab.run(60);
    assert_eq!(lab.state(0, 1), State::Established, "{}", lab.tell());
    assert_eq!(lab.peer(0, 1).prefixes_received, 1000);
    assert_eq!(used(&lab), both(" 400-1399"));
}

#[test]
fn another_peer_that_goes_meanwhile_is_forgotten_too() {
    let mut lab = lab(false, 1);
    lab.kill(1);
    lab.run_for(Duration::from_millis(5));
    lab.kill(3);
    lab.run_for(Duration::from_millis(5));
    assert_eq!(lab.peer(0, 3).prefixes_received, 0);
    // They take turns.
    assert!(lab.fibs[0].len() > 900);
    lab.run_for(Duration::from_secs(1));
    assert_eq!(used(&lab)[0], " 51-499 549-999");
    lab.run(30);
    assert_eq!(used(&lab), both(""));
    assert_eq!(lab.speaker(0).snapshot(false).prefixes, 0);
}

#[test]
fn a_restart_is_marked_and_swept_in_slices_and_loses_nothing() {
    let mut lab = lab(true, 1);
    lab.kill(1);
    lab.run_for(Duration::from_millis(5));
    let stale = |lab: &mut Lab| {
        let rib = lab.speaker(0).snapshot(true).rib;
        rib.iter().filter(|entry| entry.paths.iter().any(|path| path.stale)).count()
    };
    assert_eq!(stale(&mut lab), 500);
    let mut config = mesh_configs(&[1, 2, 3, 4], &[(0, 1)]).remove(1);
    config.restarting = true;
    lab.start(1, config);
    (250..300).for_each(|number| lab.originate(1, &text(number)));
    await_return(&mut lab, 1);
    lab.run_for(Duration::from_millis(1));
    assert_eq!(lab.fibs[0].len(), 1000);
    lab.run(60);
    assert_eq!(used(&lab), both(" 250-299 500-999"));
    assert_eq!(stale(&mut lab), 0);
    assert_eq!(lab.peer(0, 1).prefixes_received, 50);
}

#[test]
fn a_refresh_is_marked_and_swept_in_slices() {
    let mut lab = lab(true, 1);
    // r1 repeats some, between markers that come faster than any walk.
    let (from, now) = (connection(&mut lab, 1), lab.now);
    let marker = |refresh| encode_route_refresh(Family::Ipv4, refresh);
    let mut bytes = marker(Refresh::Begin).to_vec();
    let repeated = update(100..150);
    bytes.extend(&repeated);
    bytes.extend(marker(Refresh::End));
    lab.speaker(0).handle_received(from, &bytes, now);
    assert_eq!(lab.peer(0, 1).prefixes_received, 50);
    assert!(lab.speaker(0).rib.is_walking());
    lab.run(30);
    assert_eq!(used(&lab), both(" 100-149 500-999"));
    // Markers without end are no way to make anybody wait or keep more and more.
    let round = [&marker(Refresh::Begin)[..], &repeated, &marker(Refresh::End)].concat();
    lab.speaker(0).handle_received(from, &round.repeat(500), now);
    lab.run(30);
    assert_eq!(lab.peer(0, 1).prefixes_received, 50);
    assert_eq!(lab.fibs[2].len(), 550);
}

#[test]
fn import_policy_is_applied_again_in_slices() {
    let mut lab = lab(true, 1);
    let rule = Rule::new(Action::Reject).with_prefix(PrefixOperator::In, prefix("10.1.0.0/16"));
    let filter = Filter { name: "f".into(), rules: vec![rule] };
    let mut config = lab.speaker(0).config().clone();
    config.peers[0].import =
        Policy { filters: vec![std::sync::Arc::new(filter)], default: Action::Accept };
    let now = lab.now;
    lab.speaker(0).configure(config, now);
    lab.run_for(Duration::from_millis(5));
    assert!(lab.fibs[0].len() > 900);
    lab.run(30);
    assert_eq!(used(&lab), both(" 0-255 500-999"));
    let peer = lab.peer(0, 1);
    assert_eq!((peer.prefixes_received, peer.prefixes_accepted), (500, 256));
}
