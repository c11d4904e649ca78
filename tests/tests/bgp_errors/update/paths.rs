//! Whose routes a message is about, and what two-octet speakers carried along.

use std::time::Duration;

use voile_tests::{
    bgp::raw::{self, KEEPALIVE, hex},
    wait_for,
};

use super::{
    super::speaker::{Fixture, Side, capabilities},
    NLRI, OLD, PREFIX, attributes,
};

/// Of several paths (RFC 7911) a malformed message takes exactly those that it names.
#[test]
fn treat_as_withdraw_knows_path_identifiers() {
    let more = "passive = true\nadd-path = \"receive\"";
    let Some(fixture) = Fixture::start("path_identifiers", 1, more) else { return };
    fixture.voile.wait_peer(&Side::External.address(0).to_string(), |_| true);
    for side in Side::BOTH {
        let mut own = capabilities(side);
        own.extend(hex("4508 0001 01 02 0002 01 02"));
        let mut raw = fixture.connect(side, 0).establish(&Fixture::open(side, 0, &own));
        let mut send = |text: &str, nlri: &str| {
            raw.send(&raw::update(&[], &attributes(text, side, true), &hex(nlri)));
        };
        // Paths 1 and 2, then 2 again, malformed, and something to wait for.
        send("O P N 800404 00000001 L", "00000001 10 0a07");
        send("O P N 800404 00000002 L", "00000002 10 0a07");
        send("400101 09 P N L", "00000002 10 0a07");
        send("O P N L", "00000001 10 0aff");
        let name = side.address(0).to_string();
        wait_for("the end of the messages", Duration::from_secs(60), || {
            let paths = fixture.voile.paths("10.255.0.0/16")?;
            let found = paths.iter().any(|path| path["peer"] == name.as_str());
            if found { Ok(()) } else { Err(format!("{paths:#?}")) }
        });
        let paths = fixture.voile.paths(PREFIX[0]).unwrap();
        let own: Vec<_> = paths.iter().filter(|path| path["peer"] == name.as_str()).collect();
        let meds: Vec<_> = own.iter().map(|path| &path["med"]).collect();
        assert_eq!(meds, [1], "{side:?}: {paths:#?}");
        assert_eq!(fixture.voile.peer(&name).unwrap()["treatedAsWithdraw"], 1);
        // The same for everything of a prefix that only the withdrawn field names.
        raw.send(&raw::update(&hex("00000001 10 0a07"), &[], &[]));
        wait_for("no path is left", Duration::from_secs(60), || {
            let paths = fixture.voile.paths(PREFIX[0])?;
            let left = paths.iter().any(|path| path["peer"] == name.as_str());
            if left { Err(format!("{paths:#?}")) } else { Ok(()) }
        });
    }
}

/// A peer of two-octet AS numbers: what it carried along unread is put together (RFC 6793 §4.2.3).
#[test]
fn four_octet_paths_are_put_together_from_old_speakers() {
    struct Case(&'static str, &'static str, &'static str);
    let cases = [
        Case(
            "AS4_PATH replaces the end",
            "O 400208 02 03 fdea 5ba0 5ba0 N c0110a 02 02 00010000 00010001",
            "65002 65536 65537",
        ),
        Case(
            "AS4_PATH longer than AS_PATH is ignored",
            "O 400204 02 01 fdea N c0110a 02 02 00010000 00010001",
            "65002",
        ),
        Case(
            "AGGREGATOR of two octets: AS4_PATH is ignored",
            "O 400206 02 02 fdea 5ba0 N c00706 fde8 0a000009 c01106 02 01 00010000 c01208 00010000 0a000009",
            "65002 23456",
        ),
        Case(
            "AGGREGATOR alone: AS4_PATH counts",
            "O 400206 02 02 fdea 5ba0 N c00706 fde8 0a000009 c01106 02 01 00010000",
            "65002 65536",
        ),
        Case(
            "AGGREGATOR of AS_TRANS: both count",
            "O 400206 02 02 fdea 5ba0 N c00706 5ba0 0a000009 c01106 02 01 00010000 c01208 00010000 0a000009",
            "65002 65536",
        ),
    ];
    let Some(fixture) = Fixture::start("four_octet_paths", cases.len(), "passive = true") else {
        return;
    };
    fixture.voile.wait_peer(&Side::External.address(0).to_string(), |_| true);
    for (number, Case(name, text, expected)) in cases.iter().enumerate() {
        let raw = fixture.connect(Side::External, number);
        let mut raw = raw.establish(&Fixture::open(Side::External, number, &hex(OLD)));
        raw.send(&raw::update(&[], &attributes(text, Side::External, false), &hex(NLRI)));
        let peer = Side::External.address(number).to_string();
        let path = wait_for("the route", Duration::from_secs(60), || {
            let paths = fixture.voile.paths(PREFIX[0])?;
            paths.into_iter().find(|path| path["peer"] == peer.as_str()).ok_or("no path".to_owned())
        });
        assert_eq!(path["asPath"], *expected, "{name}");
        raw.send(&raw::message(KEEPALIVE, &[]));
    }
}
