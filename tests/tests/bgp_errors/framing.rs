//! Errors in headers, and messages that a state does not expect (RFC 4271 §6.1, 6.5, RFC 6608, 8654, 2918, 7313).

use voile_tests::bgp::raw::{self, KEEPALIVE, NOTIFICATION, OPEN, UPDATE, hex};

use super::speaker::{Fixture, Side, capabilities};

/// How far the session has come when the bytes arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    OpenSent,
    OpenConfirm,
    Established,
}

struct Row {
    clause: &'static str,
    name: &'static str,
    at: At,
    bytes: Vec<u8>,
    /// Code, subcode and data; `None`: the session goes on.
    expected: Option<(u8, u8, Vec<u8>)>,
}

const MARKER: &str = "ffffffff ffffffff ffffffff ffffffff";

fn header(length: &str, kind: &str, body: usize) -> Vec<u8> {
    let mut bytes = hex(&format!("{MARKER} {length} {kind}"));
    bytes.extend(vec![0; body]);
    bytes
}

fn row(
    clause: &'static str,
    name: &'static str,
    at: At,
    bytes: Vec<u8>,
    expected: (u8, u8, &str),
) -> Row {
    let expected = Some((expected.0, expected.1, hex(expected.2)));
    Row { clause, name, at, bytes, expected }
}

fn goes_on(clause: &'static str, name: &'static str, bytes: Vec<u8>) -> Row {
    Row { clause, name, at: At::Established, bytes, expected: None }
}

fn headers() -> Vec<Row> {
    const C: &str = "4271 §6.1";
    let up = At::Established;
    vec![
        row(
            C,
            "marker with a zero",
            up,
            hex("ffffffff ffffffff ffffff00 ffffffff 0013 04"),
            (1, 1, ""),
        ),
        row(
            C,
            "marker in OpenSent",
            At::OpenSent,
            hex("00000000 00000000 00000000 00000000 001d 01"),
            (1, 1, ""),
        ),
        row(C, "length 18", up, header("0012", "04", 0), (1, 2, "0012")),
        row(C, "length 0", up, header("0000", "02", 0), (1, 2, "0000")),
        row(C, "length 4097", up, header("1001", "02", 0), (1, 2, "1001")),
        row(C, "length 65535", up, header("ffff", "02", 0), (1, 2, "ffff")),
        row(C, "KEEPALIVE of 20", up, header("0014", "04", 1), (1, 2, "0014")),
        row(C, "OPEN of 28", At::OpenSent, header("001c", "01", 9), (1, 2, "001c")),
        row(C, "UPDATE of 22", up, header("0016", "02", 3), (1, 2, "0016")),
        row(C, "NOTIFICATION of 20", up, header("0014", "03", 1), (1, 2, "0014")),
        row("2918 §3", "ROUTE-REFRESH of 22", up, header("0016", "05", 3), (1, 2, "0016")),
        row(C, "type 0", up, header("0013", "00", 0), (1, 3, "00")),
        row(C, "type 6", up, header("0013", "06", 0), (1, 3, "06")),
        row(C, "type 255", At::OpenSent, header("0013", "ff", 0), (1, 3, "ff")),
        row("8654 §4", "OPEN of 4097", At::OpenSent, header("1001", "01", 0), (1, 2, "1001")),
    ]
}

fn unexpected() -> Vec<Row> {
    const C: &str = "6608 §4";
    let open = Fixture::open(Side::External, 0, &[]);
    let keepalive = raw::message(KEEPALIVE, &[]);
    let update = raw::message(UPDATE, &[0; 4]);
    let refresh = raw::message(5, &hex("0001 00 01"));
    vec![
        row(C, "KEEPALIVE in OpenSent", At::OpenSent, keepalive, (5, 1, "")),
        row(C, "UPDATE in OpenSent", At::OpenSent, update.clone(), (5, 1, "")),
        row(C, "ROUTE-REFRESH in OpenSent", At::OpenSent, refresh.clone(), (5, 1, "")),
        row(C, "UPDATE in OpenConfirm", At::OpenConfirm, update, (5, 2, "")),
        row(C, "ROUTE-REFRESH in OpenConfirm", At::OpenConfirm, refresh, (5, 2, "")),
        row(C, "OPEN in OpenConfirm", At::OpenConfirm, open.clone(), (5, 2, "")),
        row(C, "OPEN in Established", At::Established, open, (5, 3, "")),
    ]
}

fn refreshes() -> Vec<Row> {
    let bad = raw::message(5, &hex("0001 01 01 00"));
    let data: String = bad.iter().map(|byte| format!("{byte:02x}")).collect();
    vec![
        goes_on("2918 §4", "ROUTE-REFRESH", raw::message(5, &hex("0001 00 01"))),
        goes_on(
            "2918 §4",
            "ROUTE-REFRESH of a family not negotiated",
            raw::message(5, &hex("0001 00 80")),
        ),
        goes_on("7313 §5", "ROUTE-REFRESH of subtype 9", raw::message(5, &hex("0001 09 01"))),
        goes_on(
            "5291 §6",
            "ROUTE-REFRESH with an outbound route filter",
            raw::message(5, &hex("0001 00 01 01 40 0000")),
        ),
        row("7313 §5", "begin of refresh of 24", At::Established, bad, (7, 1, &data)),
    ]
}

#[test]
fn errors_in_headers_and_states_are_answered_with_their_codes() {
    let rows: Vec<Row> = [headers(), unexpected(), refreshes()].into_iter().flatten().collect();
    let more = "passive = true\nextended-message = false";
    let Some(fixture) = Fixture::start("errors_in_headers", rows.len(), more) else { return };
    fixture.voile.wait_peer(&Side::External.address(0).to_string(), |_| true);
    let mut wrong = Vec::new();
    for side in Side::BOTH {
        for (number, row) in rows.iter().enumerate() {
            let mut raw = fixture.connect(side, number);
            let open = Fixture::open(side, number, &capabilities(side));
            match row.at {
                At::OpenSent => assert!(raw.receive_kind(OPEN).is_some()),
                At::OpenConfirm => {
                    raw.send(&open);
                    assert!(raw.receive_kind(KEEPALIVE).is_some());
                }
                At::Established => raw = raw.establish(&open),
            }
            raw.send(&row.bytes);
            let found = match row.expected {
                Some(_) => raw
                    .receive_kind(NOTIFICATION)
                    .map(|message| (message.body[0], message.body[1], message.body[2..].to_vec())),
                // Whatever comes next, the connection is still good for a second session-ending error.
                None => {
                    raw.send(&raw::message(9, &[]));
                    let answer = raw.receive_kind(NOTIFICATION).map(|message| message.body);
                    (answer != Some(vec![1, 3, 9])).then(|| (0, 0, answer.unwrap_or_default()))
                }
            };
            if found != row.expected {
                wrong.push(format!(
                    "{} [RFC {}], {side:?}: expected {:02x?}, found {found:02x?}",
                    row.name, row.clause, row.expected
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Who announced RFC 8654 takes 65,535 octets of UPDATE, also from a peer that did not; of OPEN and KEEPALIVE never.
#[test]
fn extended_messages_are_taken_once_we_announced_them() {
    let Some(fixture) = Fixture::start("extended_messages", 2, "passive = true") else { return };
    fixture.voile.wait_peer(&Side::External.address(0).to_string(), |_| true);
    let side = Side::External;
    // 16,000 communities.
    let mut attributes = hex("400101 00 400206 02 01 0000fdea 400304 0a090909 d008 fa00");
    for community in 0..16_000_u32 {
        attributes.extend((0xfdea_0000 | community).to_be_bytes());
    }
    for (number, announced) in ["0600", ""].into_iter().enumerate() {
        let mut own = capabilities(side);
        own.extend(hex(announced));
        let raw = fixture.connect(side, number);
        let mut raw = raw.establish(&Fixture::open(side, number, &own));
        // Each peer has a prefix of its own: those of the same AS path would share the load.
        raw.send(&raw::update(&[], &attributes, &[16, 10, u8::try_from(number).unwrap()]));
        let peer = side.address(number).to_string();
        let path = fixture.voile.wait_route(&format!("10.{number}.0.0/16"), &peer);
        assert_eq!(path["communities"].as_array().unwrap().len(), 16_000);
        raw.send(&header("1001", "04", 0));
        let end = raw.receive_notification().unwrap();
        assert_eq!(end.body, hex("01 02 1001"));
    }
}
