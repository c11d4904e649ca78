//! Two connections between two speakers (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §5).

use std::net::{Ipv4Addr, TcpListener};

use voile_tests::{
    bgp::{
        Lan, Voile,
        raw::{self, KEEPALIVE, Message, OPEN, Raw, hex, message},
    },
    can_make_namespaces, skip,
};

use super::speaker::{Fixture, OUR_AS, Side};

const CEASE_COLLISION: [u8; 2] = [6, 7];

/// Both speakers have connected and nobody has said OPEN to ours yet.
struct Crossing {
    voile: Voile,
    /// The connection that ours opened.
    theirs: Raw,
    /// The connection that the test opened.
    own: Raw,
}

fn cross(test: &str) -> Option<Crossing> {
    if !can_make_namespaces() {
        skip(test, "needs root");
        return None;
    }
    let lan = Lan::new(2);
    let [ours, peer] = [1, 2].map(|host| Ipv4Addr::new(10, 0, 0, host));
    // The peer listens before the speaker starts: its first attempt succeeds.
    let listener = lan.host(2).run(|| TcpListener::bind((peer, 179))).unwrap();
    let body = format!(
        "[[peer]]\nname = \"peer\"\naddress = \"{peer}\"\nas = {}\nconnect-retry = 1\n",
        Side::External.asn()
    );
    let voile = Voile::start(&lan, 1, OUR_AS, &body);
    let (stream, _) = listener.accept().unwrap();
    let mut theirs = Raw::from_stream(stream);
    assert!(theirs.receive_kind(OPEN).is_some());
    let mut own = lan.host(2).run(|| Raw::connect(peer.into(), ours.into())).unwrap();
    assert!(own.receive_kind(OPEN).is_some());
    Some(Crossing { voile, theirs, own })
}

/// Sends OPENs over both connections, that over ours last, and returns what comes back over each.
fn collide(crossing: &mut Crossing, id: Ipv4Addr) -> [Message; 2] {
    let open = raw::open(Side::External.asn(), 90, id, &hex("0104 0001 00 01"));
    crossing.theirs.send(&open);
    let first = crossing.theirs.receive().unwrap();
    crossing.own.send(&open);
    let second = crossing.own.receive().unwrap();
    if second.kind == KEEPALIVE {
        assert_eq!(first.kind, KEEPALIVE, "the OPEN was accepted before the second one came");
        return [crossing.theirs.receive().unwrap(), second];
    }
    [first, second]
}

#[test]
fn the_connection_of_the_higher_identifier_lives() {
    // Ours is 10.0.0.1.
    if let Some(mut crossing) = cross("collision_ours") {
        let [theirs, own] = collide(&mut crossing, Ipv4Addr::new(9, 255, 255, 255));
        assert_eq!(theirs.kind, KEEPALIVE);
        assert_eq!(own.body, CEASE_COLLISION);
    }
    if let Some(mut crossing) = cross("collision_theirs") {
        let [theirs, own] = collide(&mut crossing, Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(theirs.body, CEASE_COLLISION);
        assert_eq!(own.kind, KEEPALIVE);
        crossing.own.send(&message(KEEPALIVE, &[]));
        crossing.voile.wait_established("peer");
    }
}

/// Equal identifiers: the higher AS (ours is 65001, the peer's 65002).
#[test]
fn between_equal_identifiers_the_higher_as_decides() {
    if let Some(mut crossing) = cross("collision_equal") {
        let [theirs, own] = collide(&mut crossing, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(theirs.body, CEASE_COLLISION);
        assert_eq!(own.kind, KEEPALIVE);
    }
}

#[test]
fn an_established_session_wins_without_graceful_restart() {
    let Some(fixture) = Fixture::start("collision_established", 1, "passive = true") else {
        return;
    };
    let name = Side::External.address(0).to_string();
    fixture.voile.wait_peer(&name, |_| true);
    let open = Fixture::open(Side::External, 0, &[]);
    let mut first = fixture.connect(Side::External, 0).establish(&open);
    let mut second = fixture.connect(Side::External, 0);
    second.send(&open);
    assert_eq!(second.receive_notification().unwrap().body, CEASE_COLLISION);
    first.send(&message(KEEPALIVE, &[]));
    let state = fixture.voile.peer(&name).unwrap();
    assert_eq!(state["state"], "Established");
}

/// With graceful restart a new OPEN means that the peer has restarted: its routes stay while it sends them again.
#[test]
fn a_restarted_peer_takes_its_session_over() {
    let Some(fixture) = Fixture::start("collision_restart", 1, "passive = true") else { return };
    let name = Side::External.address(0).to_string();
    fixture.voile.wait_peer(&name, |_| true);
    // Restart time 60, forwarding preserved; the second OPEN says that this is a restart.
    let open = |restarting: &str| {
        let capability = format!("0104 0001 00 01 4006 {restarting}03c 0001 01 80");
        Fixture::open(Side::External, 0, &hex(&capability))
    };
    let mut first = fixture.connect(Side::External, 0).establish(&open("0"));
    let attributes = hex("400101 00 400204 02 01 fdea 400304 0a090909");
    first.send(&raw::update(&[], &attributes, &hex("10 0a07 10 0a08")));
    let _ = fixture.voile.wait_route("10.8.0.0/16", &name);
    let mut second = fixture.connect(Side::External, 0).establish(&open("8"));
    let state = fixture.voile.wait_peer(&name, |peer| peer["state"] == "Established");
    assert_eq!(state["stale"][0], "ipv4", "{state:#}");
    assert_eq!(fixture.voile.paths("10.7.0.0/16").unwrap()[0]["stale"], true);
    second.send(&raw::update(&[], &attributes, &hex("10 0a07")));
    second.send(&raw::update(&[], &[], &[]));
    fixture.voile.wait_no_route("10.8.0.0/16");
    assert_eq!(fixture.voile.wait_route("10.7.0.0/16", &name)["stale"], false);
}
