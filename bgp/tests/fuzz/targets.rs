//! What is fuzzed: functions over bytes, shared by `cargo test` and by `bgp/fuzz`.
//!
//! A target returns or panics. Everything goes through the public doors of the speaker, on virtual time.

mod bench;
mod heard;
mod oracle;

use std::time::Duration;

use bgp::{
    ConnectionId, State,
    snapshot::Usage,
    wire::{self, Open},
};

use self::{
    bench::{Bench, message},
    heard::Heard,
    oracle::Route,
};

/// A target and the name of its corpus.
pub(crate) type Target = (&'static str, fn(&[u8]));

pub(crate) const TARGETS: [Target; 4] =
    [("decode", decode), ("table", table), ("session", session), ("decision", decision)];

/// Any bytes: frames are cut off, OPENs read and written again.
pub(crate) fn decode(input: &[u8]) {
    let mut rest = input;
    while let Ok(Some(frame)) = wire::next_frame(rest, wire::MAX_EXTENDED_MESSAGE) {
        if let Ok(open) = Open::decode(frame.body) {
            let encoded = open.encode();
            let again = wire::next_frame(&encoded, wire::MAX_MESSAGE);
            if let Ok(Some(again)) = again {
                let decoded = Open::decode(again.body).expect("our own OPEN is readable");
                assert_eq!(decoded.asn, open.asn);
                assert_eq!(decoded.router_id, open.router_id);
                assert_eq!(decoded.hold_time, open.hold_time);
                assert_eq!(decoded.capabilities.families(), open.capabilities.families());
            }
        }
        let _ = wire::decode_route_refresh(frame.body);
        rest = rest.get(frame.length()..).unwrap_or_default();
    }
    let _ = Open::decode(input);
}

/// Cuts the input into pieces: a length octet, then so many octets.
fn pieces(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let (length, tail) = rest.split_first()?;
        let (piece, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        Some(piece)
    })
}

/// UPDATE bodies from an external and an internal peer, through the table, to others: what we write can be read, another
/// speaker ends up with what we say we announced to it, and everybody is told what the rules want, whenever it comes.
pub(crate) fn table(input: &[u8]) {
    let mut bench = Bench::new(6);
    let sources = [bench.establish(2), bench.establish(3)];
    let early = bench.establish(5);
    for (index, body) in pieces(input).take(40).enumerate() {
        if let Some(connection) = sources.get(index % 2) {
            bench.receive(*connection, &message(2, body));
        }
    }
    bench.check();
    // The first one of its kind, and one that finds a peer of its kind.
    let (first, late) = (bench.establish(6), bench.establish(7));
    for (peer, connection) in [(5, early), (6, first), (7, late)] {
        let stream = bench.sent.get(&connection).cloned().unwrap_or_default();
        let mut heard = Heard::default();
        heard.read(&stream, peer != 5);
        heard.check(&bench, peer);
    }
    let stream = bench.sent.get(&early).cloned().unwrap_or_default();
    let mut observer = Observer::new();
    observer.read(&stream);
    let snapshot = bench.speaker.snapshot(true);
    let advertised = snapshot.peers.iter().find(|peer| peer.name == "5");
    let advertised = advertised.map_or(0, |peer| peer.prefixes_advertised);
    assert_eq!(observer.prefixes(), advertised, "the observer has what we announced");
}

/// Another speaker of ours that is told everything as an internal peer.
struct Observer {
    bench: Bench,
    connection: ConnectionId,
}

impl Observer {
    fn new() -> Self {
        // Seen from there the first speaker is peer 3.
        let mut bench = Bench::new(2);
        let connection = bench.establish(3);
        Self { bench, connection }
    }

    fn read(&mut self, stream: &[u8]) {
        let mut rest = stream;
        while let Ok(Some(frame)) = wire::next_frame(rest, wire::MAX_EXTENDED_MESSAGE) {
            // Its OPEN and the like were for another session.
            if frame.kind == wire::Kind::Update {
                let bytes = rest.get(..frame.length()).unwrap_or_default();
                self.bench.receive(self.connection, bytes);
            }
            rest = rest.get(frame.length()..).unwrap_or_default();
        }
        assert!(rest.is_empty(), "we wrote something that is no message");
        let snapshot = self.bench.speaker.snapshot(false);
        let peer = snapshot.peers.iter().find(|peer| peer.name == "3").expect("the first speaker");
        assert_eq!(peer.state, State::Established, "{:?}", peer.last_error);
        assert_eq!(peer.treated_as_withdraw, 0, "we wrote malformed attributes");
        assert_eq!(peer.discarded_attributes, 0, "we wrote attributes to be discarded");
    }

    fn prefixes(&self) -> usize {
        let snapshot = self.bench.speaker.snapshot(false);
        snapshot.peers.iter().find(|peer| peer.name == "3").map_or(0, |peer| peer.prefixes_received)
    }
}

fn first(bytes: &[u8]) -> u8 {
    bytes.first().copied().unwrap_or(0)
}

/// A script of connections, messages, closes and time: each piece is an action.
pub(crate) fn session(input: &[u8]) {
    let mut bench = Bench::new(3);
    let mut connections: Vec<(u8, ConnectionId)> = Vec::new();
    for piece in pieces(input).take(64) {
        let (&[action, choice], rest) = piece.split_first_chunk().unwrap_or((&[0, 0], &[]));
        let peer = 2 + choice % 3;
        let chosen = connections.get(usize::from(choice) % connections.len().max(1)).copied();
        match (action % 10, chosen) {
            (0, _) => connections.extend(bench.accept(peer).map(|connection| (peer, connection))),
            (1, Some((peer, connection))) => {
                bench.receive(connection, &Bench::open_with(peer, first(rest)));
            }
            (2, Some((_, connection))) => bench.receive(connection, &message(4, &[])),
            (3, Some((_, connection))) => bench.receive(connection, &message(2, rest)),
            (4, Some((_, connection))) => {
                let kind = first(rest) % 7;
                bench.receive(connection, &message(kind, rest.get(1..).unwrap_or_default()));
            }
            (5, Some((_, connection))) => bench.receive(connection, rest),
            (6, Some((_, connection))) => {
                bench.speaker.handle_closed(connection, "closed", bench.now);
                bench.drain();
                connections.retain(|(_, known)| *known != connection);
            }
            // Up to four minutes, or up to four hours: beyond every restart time.
            (7, _) => {
                let unit = if first(rest).is_multiple_of(2) { 1 } else { 60 };
                bench.now += Duration::from_secs(u64::from(choice) * unit);
            }
            (8, Some((peer, connection))) => {
                // A whole hello at once.
                let mut bytes = Bench::open_with(peer, first(rest));
                bytes.extend(message(4, &[]));
                bench.receive(connection, &bytes);
            }
            (9, _) => {
                let action = bgp::PeerAction::RefreshIn;
                // Its session may be down.
                drop(bench.speaker.operate(&peer.to_string(), &action, bench.now));
                bench.drain();
            }
            _ => (),
        }
        if bench.speaker.poll_timeout().is_some_and(|at| at <= bench.now) {
            bench.speaker.handle_timeout(bench.now);
            bench.drain();
        }
        assert!(connections.len() <= 64);
    }
    bench.check();
    // Whatever happened, after all waits and with nobody there a peer can come up again.
    for (_, connection) in connections {
        bench.speaker.handle_closed(connection, "closed", bench.now);
    }
    bench.drain();
    // Routes may live on for as long as 24 bits of seconds can say (RFC 9494 §3).
    for seconds in [[60; 8], [1 << 23; 8]].concat() {
        bench.now += Duration::from_secs(seconds);
        bench.speaker.handle_timeout(bench.now);
        bench.drain();
    }
    bench.check();
    assert_eq!(bench.speaker.snapshot(false).prefixes, 1, "only our own route is left");
    if !bench.is_up(2) {
        bench.establish(2);
    }
}

/// Paths of one prefix from several peers: whatever the order they come in, and whatever came and went before, the
/// same one is best for the same reason, and the same ones are used; and it is the one that the RFCs want.
pub(crate) fn decision(input: &[u8]) {
    let paths: Vec<Route> =
        pieces(input).take(5).zip(2..).map(|(shape, peer)| Route::shaped(peer, shape)).collect();
    let expected = oracle::best(&paths).map(|peer| peer.to_string());
    let mut results = Vec::new();
    for rotation in 0..=paths.len() {
        let mut bench = Bench::new(5);
        let sources: Vec<ConnectionId> = (2..7).map(|peer| bench.establish(peer)).collect();
        let mut order: Vec<usize> = (0..paths.len()).collect();
        if rotation == paths.len() {
            order.reverse();
        } else {
            order.rotate_left(rotation);
        }
        for index in order {
            let (Some(connection), Some(path)) = (sources.get(index), paths.get(index)) else {
                continue;
            };
            // Something else first, every other time.
            if rotation % 2 == 1 {
                bench.receive(*connection, &Route::shaped(path.peer, &[7, 1, 2, 3, 4]).update());
            }
            bench.receive(*connection, &path.update());
        }
        bench.check();
        let snapshot = bench.speaker.snapshot(true);
        let entry =
            snapshot.rib.into_iter().find(|entry| entry.prefix.to_string() == "10.7.0.0/16");
        let mut usages: Vec<(Option<String>, Usage)> = entry
            .map(|entry| entry.paths.into_iter().map(|path| (path.peer, path.usage)).collect())
            .unwrap_or_default();
        usages.sort();
        let best = usages.iter().find(|(_, usage)| matches!(usage, Usage::Best(_)));
        let best = best.and_then(|(peer, _)| peer.clone());
        assert_eq!(best, expected, "of {paths:#?}: {usages:#?}");
        results.push((usages, bench.fib));
    }
    assert!(results.windows(2).all(|pair| pair.first() == pair.last()), "{results:#?}");
}
