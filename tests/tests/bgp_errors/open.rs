//! OPEN: what is accepted and what is answered with which error (RFC 4271 §6.2, 5492, 6286, 6793, 7607, 9072).

use std::{net::Ipv4Addr, time::Duration};

use voile_tests::bgp::raw::{self, KEEPALIVE, NOTIFICATION, OPEN, hex, message};

use super::speaker::{Fixture, Side};

/// What an OPEN leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// A session with these families.
    Session(&'static str),
    /// NOTIFICATION with code, subcode and data.
    Error(u8, u8, Vec<u8>),
}

struct Row {
    clause: &'static str,
    name: &'static str,
    /// The body. `A` stands for the AS of the peer in two octets, `I` for its address, `C` for usual capabilities as
    /// one optional parameter, with its length.
    body: &'static str,
    external: Outcome,
    internal: Outcome,
}

fn row(clause: &'static str, name: &'static str, body: &'static str, both: Outcome) -> Row {
    Row { clause, name, body, external: both.clone(), internal: both }
}

fn session(families: &'static str) -> Outcome {
    Outcome::Session(families)
}

fn error(subcode: u8, data: &str) -> Outcome {
    Outcome::Error(2, subcode, hex(data))
}

fn values() -> Vec<Row> {
    let both = "ipv4 ipv6";
    vec![
        row("4271 §6.2", "usual", "04 A 005a I C", session(both)),
        row("4271 §6.2", "version 3", "03 A 005a I C", error(1, "0004")),
        row("4271 §6.2", "version 5", "05 A 005a I C", error(1, "0004")),
        row("4271 §6.2", "another AS", "04 fde7 005a I 00", error(2, "")),
        row(
            "6793 §4.1",
            "another AS in four octets",
            "04 A 005a I 08 02 06 41 04 0000fde7",
            error(2, ""),
        ),
        row("7607 §2", "AS 0", "04 0000 005a I 00", error(2, "")),
        row("7607 §2", "AS 0 in four octets", "04 A 005a I 08 02 06 41 04 00000000", error(2, "")),
        row("6793 §4.1", "four octets count", "04 5ba0 005a I C", session(both)),
        row("6286 §2.1", "identifier 0", "04 A 005a 00000000 C", error(3, "")),
        Row {
            internal: error(3, ""),
            ..row("6286 §2.2", "our own identifier", "04 A 005a 0a000001 C", session(both))
        },
        row("6286 §2.1", "identifier that is no address", "04 A 005a e0000001 C", session(both)),
        row("4271 §6.2", "hold time 1", "04 A 0001 I C", error(6, "")),
        row("4271 §6.2", "hold time 2", "04 A 0002 I C", error(6, "")),
        row("4271 §6.2", "hold time 3", "04 A 0003 I C", session(both)),
        row("4271 §6.2", "hold time 0", "04 A 0000 I C", session(both)),
        row("4271 §6.2", "hold time 65535", "04 A ffff I C", session(both)),
    ]
}

fn parameters() -> Vec<Row> {
    let v4 = "ipv4";
    let both = "ipv4 ipv6";
    vec![
        row("5492 §3", "no optional parameter", "04 A 005a I 00", session(v4)),
        row("5492 §4", "empty parameter", "04 A 005a I 02 02 00", session(v4)),
        row(
            "5492 §4",
            "capabilities in two parameters",
            "04 A 005a I 10 02 06 0104 0001 00 01 02 06 0104 0002 00 01",
            session(both),
        ),
        row(
            "5492 §4",
            "capabilities twice",
            "04 A 005a I 14 02 12 0104 0001 00 01 0104 0001 00 01 0104 0001 00 01",
            session(v4),
        ),
        row("5492 §3", "unknown capability", "04 A 005a I 05 02 03 7f 01 00", session(v4)),
        row(
            "5492 §4",
            "capability of a wrong length",
            "04 A 005a I 05 02 03 41 01 00",
            session(v4),
        ),
        row("4760 §8", "IPv6 alone", "04 A 005a I 08 02 06 0104 0002 00 01", session("ipv6")),
        row(
            "4760 §8",
            "a family that we do not know besides",
            "04 A 005a I 0e 02 0c 0104 0019 00 46 0104 0001 00 01",
            session(v4),
        ),
        row(
            "5492 §3",
            "no family in common",
            "04 A 005a I 08 02 06 0104 0019 00 46",
            error(7, "0104 0001 00 01 0104 0002 00 01"),
        ),
        row("4271 §6.2", "unknown parameter", "04 A 005a I 03 01 01 00", error(4, "")),
        row(
            "4271 §6.2",
            "parameters overrun the message",
            "04 A 005a I 09 02 06 0104 0001 00 01",
            error(0, ""),
        ),
        row(
            "4271 §6.2",
            "parameter overruns its section",
            "04 A 005a I 08 02 09 0104 0001 00 01",
            error(0, ""),
        ),
        row(
            "4271 §6.2",
            "capability overruns its parameter",
            "04 A 005a I 08 02 06 0109 0001 00 01",
            error(0, ""),
        ),
        row("4271 §6.2", "octets behind the parameters", "04 A 005a I 00 00", error(0, "")),
        row(
            "9072 §2",
            "extended form",
            "04 A 005a I ff ff 0009 02 0006 0104 0002 00 01",
            session("ipv6"),
        ),
        row(
            "9072 §2",
            "extended form with another length before it",
            "04 A 005a I 01 ff 0009 02 0006 0104 0002 00 01",
            session("ipv6"),
        ),
        row(
            "9072 §2",
            "extended form overruns the message",
            "04 A 005a I ff ff 0010 02 0006 0104 0002 00 01",
            error(0, ""),
        ),
        row("9072 §2", "extended form of nothing", "04 A 005a I ff ff 0000", session(v4)),
    ]
}

fn body(row: &Row, side: Side, number: usize) -> Vec<u8> {
    let asn = format!("{:04x}", side.asn());
    let address = side.address(number).octets().map(|octet| format!("{octet:02x}")).concat();
    let capabilities = format!("14 02 12 0104 0001 00 01 0104 0002 00 01 4104 0000{asn}");
    hex(&row.body.replace('A', &asn).replace('I', &address).replace('C', &capabilities))
}

#[test]
fn opens_are_judged_as_the_rfcs_say() {
    let rows: Vec<Row> = [values(), parameters()].into_iter().flatten().collect();
    let Some(fixture) = Fixture::start("opens", rows.len(), "passive = true") else { return };
    fixture.voile.wait_peer(&Side::External.address(0).to_string(), |_| true);
    let mut wrong = Vec::new();
    for side in Side::BOTH {
        for (number, row) in rows.iter().enumerate() {
            let expected = if side == Side::External { &row.external } else { &row.internal };
            let mut raw = fixture.connect(side, number);
            raw.send(&message(OPEN, &body(row, side, number)));
            assert!(raw.receive_kind(OPEN).is_some(), "{}: no OPEN came", row.name);
            let answer = raw.receive().expect("an answer to the OPEN");
            let found = if answer.kind == NOTIFICATION {
                Outcome::Error(answer.body[0], answer.body[1], answer.body[2..].to_vec())
            } else {
                assert_eq!(answer.kind, KEEPALIVE, "{}", row.name);
                raw.send(&message(KEEPALIVE, &[]));
                let name = side.address(number).to_string();
                let state = fixture.voile.wait_peer(&name, |peer| peer["state"] == "Established");
                let families = state["families"].as_array().unwrap();
                let names: Vec<&str> = families.iter().filter_map(|name| name.as_str()).collect();
                match names[..] {
                    ["ipv4"] => session("ipv4"),
                    ["ipv6"] => session("ipv6"),
                    _ => session("ipv4 ipv6"),
                }
            };
            if found != *expected {
                wrong.push(format!(
                    "{} [RFC {}], {side:?}: expected {expected:02x?}, found {found:02x?}",
                    row.name, row.clause
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// RFC 4271 §4.2, §6.5: hold time 0 means no timers at all; otherwise silence ends the session.
#[test]
fn hold_times_are_kept_or_off() {
    let Some(fixture) = Fixture::start("hold_times", 2, "passive = true\nhold-time = 3") else {
        return;
    };
    fixture.voile.wait_peer(&Side::External.address(0).to_string(), |_| true);
    let id = Ipv4Addr::new(9, 9, 9, 9);
    let quiet = fixture.connect(Side::External, 0);
    let mut quiet = quiet.establish(&raw::open(Side::External.asn(), 0, id, &[]));
    let watched = fixture.connect(Side::External, 1);
    let mut watched = watched.establish(&raw::open(Side::External.asn(), 90, id, &[]));
    // The other side's three seconds hold for both: keepalives come, and then the end.
    assert!(watched.receive_kind(KEEPALIVE).is_some());
    assert_eq!(watched.receive_notification().unwrap().body, [4, 0]);
    // Longer than the time in which the other session ended.
    quiet.patience(Duration::from_secs(1));
    while let Some(message) = quiet.receive() {
        assert_eq!(message.kind, raw::UPDATE, "a keepalive in a session without timers");
    }
    let name = Side::External.address(0).to_string();
    let state = fixture.voile.peer(&name).unwrap();
    assert_eq!(state["state"], "Established");
    assert_eq!(state["holdTimeSeconds"], 0);
}
