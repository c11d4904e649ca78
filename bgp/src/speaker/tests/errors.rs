use proptest::prelude::*;

use super::lab::Lab;
use crate::{Role, State, snapshot::Usage};

/// An UPDATE with these attributes and prefixes, in hexadecimal.
fn update(withdrawn: &str, attributes: &str, nlri: &str) -> Vec<u8> {
    let [withdrawn, attributes, nlri] = [withdrawn, attributes, nlri].map(bytes);
    let length = u16::try_from(23 + withdrawn.len() + attributes.len() + nlri.len()).unwrap();
    let mut message = vec![0xff; 16];
    message.extend(length.to_be_bytes());
    message.push(2);
    message.extend(u16::try_from(withdrawn.len()).unwrap().to_be_bytes());
    message.extend(withdrawn);
    message.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    message.extend(attributes);
    message.extend(nlri);
    message
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

const GOOD: &str = "40010100 40020602 01000000 02 400304 0a000002";

#[test]
fn an_error_in_the_attributes_withdraws_what_was_there() {
    let mut lab = Lab::pair(1, 2);
    lab.run(5);
    lab.inject(0, &update("", GOOD, "10 0a01 10 0a02"));
    assert_eq!(lab.fibs[0].len(), 2);
    // ORIGIN 9, for one of them.
    lab.inject(0, &update("", "40010109 40020602 01000000 02 400304 0a000002", "10 0a01"));
    assert_eq!(lab.fib(0), "10.2.0.0/16 via 10.0.0.2\n");
    assert_eq!(lab.state(0, 1), State::Established);
    assert_eq!(lab.peer(0, 1).treated_as_withdraw, 1);
}

#[test]
fn an_announcement_wins_over_a_withdrawal_in_one_message() {
    let mut lab = Lab::pair(1, 2);
    lab.run(5);
    lab.inject(0, &update("10 0a01", GOOD, "10 0a01"));
    assert_eq!(lab.fibs[0].len(), 1);
    lab.inject(0, &update("10 0a01", "", ""));
    assert_eq!(lab.fibs[0].len(), 0);
}

/// RFC 4271 §6.3, 7606 §7.2: routes of a peer that hides itself count as withdrawn, unless it is a route server.
#[test]
fn a_path_must_begin_with_the_as_of_the_peer() {
    let mut lab = Lab::pair(1, 2);
    lab.run(5);
    lab.inject(0, &update("", GOOD, "10 0a01 10 0a02"));
    for path in ["400206 02010000 0003", "40020a 02020000 0003 0000 0002", "400200"] {
        lab.inject(0, &update("", &format!("40010100 {path} 400304 0a000002"), "10 0a01"));
        assert_eq!(lab.fib(0), "10.2.0.0/16 via 10.0.0.2\n", "{path}");
        assert_eq!(lab.state(0, 1), State::Established);
        let rib = lab.speaker(0).snapshot(true).rib;
        let why = "the path does not begin with the AS of the peer";
        assert_eq!(rib[0].paths[0].usage, Usage::Rejected(why), "{path}");
    }
    let mut config = lab.speaker(0).config().clone();
    config.peers[0].enforce_first_as = false;
    let now = lab.now;
    lab.speaker(0).configure(config, now);
    lab.run(1);
    assert_eq!(lab.fibs[0].len(), 2);
    assert_eq!(lab.state(0, 1), State::Established);
}

#[test]
fn a_route_server_and_internal_peers_need_not_show_themselves() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        let client = peer.name == "r1";
        peer.role = Some(if client { Role::RouteServerClient } else { Role::RouteServer });
    });
    lab.run(5);
    lab.inject(0, &update("", "40010100 400206 02010000 0003 400304 0a000002", "10 0a01"));
    assert_eq!(lab.fibs[0].len(), 1);
    let mut lab = Lab::pair(1, 1);
    lab.run(5);
    let local_pref = "400504 00000064";
    let attributes = format!("40010100 400206 02010000 0003 400304 0a000002 {local_pref}");
    lab.inject(0, &update("", &attributes, "10 0a01"));
    assert_eq!(lab.fibs[0].len(), 1);
}

#[test]
fn what_cannot_be_delimited_ends_the_session() {
    for (attributes, nlri, error) in [
        (GOOD, "21 0a010203 04", "sent 3/10 invalid network field"),
        ("80 0e 03 000201", "", "sent 3/9 optional attribute error"),
        ("80 0f 03 000201 80 0f 03 000201", "", "sent 3/1 malformed attribute list"),
        // Whose routes these are nobody can tell: they must not stay as they were.
        ("80 0e 40 0002 01 10 20010db8", "10 0a01", "sent 3/1 malformed attribute list"),
        (&format!("{GOOD} 40 7f 00"), "10 0a01", "sent 3/2 unrecognized well-known attribute"),
    ] {
        let mut lab = Lab::pair(1, 2);
        lab.run(5);
        lab.inject(0, &update("", attributes, nlri));
        assert_eq!(lab.peer(0, 1).last_error.as_deref(), Some(error));
    }
}

#[test]
fn families_that_were_not_negotiated_are_ignored() {
    let mut lab = Lab::pair(1, 2);
    lab.run(5);
    let reach = "800e 1e 0002 01 10 20010db8000000000000000000000002 00 40 20010db800010000";
    lab.inject(0, &update("", &format!("{reach} {GOOD}"), ""));
    assert_eq!(lab.speaker(0).snapshot(true).prefixes, 0);
    assert_eq!(lab.state(0, 1), State::Established);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Nothing that arrives can make the speaker panic, and it is usable afterwards.
    #[test]
    fn no_bytes_harm_the_speaker(
        body in proptest::collection::vec(any::<u8>(), 0..80),
        kind in 0_u8..7,
        flips in proptest::collection::vec((0_usize..64, any::<u8>()), 0..4),
    ) {
        let mut lab = Lab::pair(1, 2);
        lab.run(2);
        let mut good = update("10 0a01", &format!("{GOOD} c00804 00010002"), "10 0a01");
        for (at, value) in flips {
            if let Some(byte) = good.get_mut(19 + at) {
                *byte = value;
            }
        }
        lab.inject(0, &good);
        lab.run(100);
        let mut raw = vec![0xff; 16];
        raw.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
        raw.push(kind);
        raw.extend(body);
        if lab.state(0, 1) == State::Established {
            lab.inject(0, &raw);
        }
        lab.run(120);
        prop_assert_eq!(lab.state(0, 1), State::Established);
    }
}
