//! What is fuzzed: functions over bytes, shared by `cargo test` and by `bgp/fuzz`.
//!
//! A target returns or panics. Everything goes through the public doors of the speaker, on virtual time.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use bgp::{
    AddPathMode, Asn, ConnectionId, Families, LocalRoute, Output, PeerConfig, Prefix, RouterId,
    Speaker, SpeakerConfig, State,
    snapshot::Usage,
    wire::{self, Open},
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

fn epoch() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time; never read again")]
    Instant::now()
}

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn address(peer: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, peer).into()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let body = body.get(..4000).unwrap_or(body);
    let mut bytes = vec![0xff; 16];
    bytes.extend(u16::try_from(19 + body.len()).unwrap_or(19).to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

/// A speaker with passive peers 2, 3, ...: even ones are external, odd ones internal.
struct Bench {
    speaker: Speaker,
    now: Instant,
    /// What was sent over each connection.
    sent: BTreeMap<ConnectionId, Vec<u8>>,
    fib: BTreeMap<Prefix, Vec<IpAddr>>,
}

const fn asn(peer: u8) -> u32 {
    if peer.is_multiple_of(2) { 65000 + peer as u32 } else { 65001 }
}

impl Bench {
    fn new(peers: u8) -> Self {
        let now = epoch();
        let mut config = SpeakerConfig::new(Asn(65001), RouterId::from(OURS));
        config.peers = (2..2 + peers)
            .map(|peer| {
                let mut config = PeerConfig::new(peer.to_string(), address(peer), Asn(asn(peer)));
                config.passive = true;
                config.families = Families::BOTH;
                config.next_hop_ipv6 = "fd00::1".parse().ok();
                config.route_reflector_client = peer == 3;
                if peer == 4 {
                    config.add_path = AddPathMode::Both;
                    config.long_lived_stale_time = Some(Duration::from_secs(3600));
                    config.max_prefixes = Some(3);
                }
                config
            })
            .collect();
        let mut speaker = Speaker::new(config, 1, now);
        speaker.originate("10.1.0.0/16".parse().expect("a prefix"), LocalRoute::default());
        let (sent, fib) = (BTreeMap::new(), BTreeMap::new());
        let mut bench = Self { speaker, now, sent, fib };
        bench.drain();
        bench
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.speaker.poll_output() {
            outputs += 1;
            assert!(outputs < 100_000, "outputs without end");
            match output {
                Output::TransmitReady(connection) => loop {
                    let messages = self.speaker.transmit(connection, 1 << 16);
                    if messages.is_empty() {
                        break;
                    }
                    let sent = self.sent.entry(connection).or_default();
                    messages.iter().for_each(|message| sent.extend_from_slice(message));
                },
                Output::Close { connection, last } => {
                    let sent = self.sent.entry(connection).or_default();
                    last.iter().for_each(|message| sent.extend_from_slice(message));
                }
                Output::Fib(update) => {
                    let hops: Vec<IpAddr> =
                        update.route.next_hops().iter().map(|hop| hop.address).collect();
                    if hops.is_empty() {
                        self.fib.remove(&update.prefix);
                    } else {
                        self.fib.insert(update.prefix, hops);
                    }
                }
                _ => (),
            }
        }
    }

    fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.speaker.handle_received(connection, bytes, self.now);
        self.drain();
    }

    fn accept(&mut self, peer: u8) -> Option<ConnectionId> {
        let accepted = self.speaker.handle_accepted(OURS.into(), address(peer), self.now);
        self.drain();
        accepted
    }

    fn open(peer: u8) -> Vec<u8> {
        Self::open_with(peer, 0)
    }

    /// An OPEN with more capabilities, one for each bit of `more`.
    fn open_with(peer: u8, more: u8) -> Vec<u8> {
        const MORE: [&[u8]; 6] = [
            // Graceful restart: before, and after a restart; forwarding preserved for IPv4 only or for both.
            &[64, 10, 0x40, 120, 0, 1, 1, 0x80, 0, 2, 1, 0x80],
            &[64, 6, 0xc0, 120, 0, 1, 1, 0x80],
            // The same for an hour more.
            &[71, 14, 0, 1, 1, 0x80, 0, 14, 16, 0, 2, 1, 0x80, 0, 14, 16],
            // ADD-PATH both ways.
            &[69, 8, 0, 1, 1, 3, 0, 2, 1, 3],
            // IPv4 over IPv6.
            &[5, 6, 0, 1, 0, 1, 0, 2],
            // A role.
            &[9, 1, 3],
        ];
        let mut capabilities =
            vec![2, 26, 1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 70, 0, 6, 0, 65, 4];
        capabilities.extend(asn(peer).to_be_bytes());
        for (bit, capability) in MORE.iter().enumerate() {
            if more >> bit & 1 == 1 {
                capabilities.extend_from_slice(capability);
            }
        }
        let mut body = vec![4];
        body.extend(u16::try_from(asn(peer)).unwrap_or(23456).to_be_bytes());
        body.extend([0, 90, 10, 0, 0, peer]);
        let size = u8::try_from(capabilities.len().saturating_sub(2)).unwrap_or(0);
        if let Some(length) = capabilities.get_mut(1) {
            *length = size;
        }
        body.push(u8::try_from(capabilities.len()).unwrap_or(0));
        body.extend(capabilities);
        message(1, &body)
    }

    fn establish(&mut self, peer: u8) -> ConnectionId {
        let connection = self.accept(peer).expect("a known peer");
        self.receive(connection, &Self::open(peer));
        self.receive(connection, &message(4, &[]));
        let snapshot = self.speaker.snapshot(false);
        let name = peer.to_string();
        let state = snapshot.peers.iter().find(|each| each.name == name).map(|each| each.state);
        assert_eq!(state, Some(State::Established), "peer {peer} with its usual OPEN");
        connection
    }

    fn is_up(&self, peer: u8) -> bool {
        let name = peer.to_string();
        let peers = self.speaker.snapshot(false).peers;
        peers.iter().any(|each| each.name == name && each.state == State::Established)
    }

    /// Nothing about the state contradicts itself.
    fn check(&self) {
        let snapshot = self.speaker.snapshot(true);
        assert_eq!(snapshot.prefixes, snapshot.rib.len());
        for entry in &snapshot.rib {
            assert!(!entry.paths.is_empty(), "{} without paths", entry.prefix);
            let best = entry.paths.iter().filter(|path| matches!(path.usage, Usage::Best(_)));
            assert!(best.count() <= 1, "two best paths of {}", entry.prefix);
        }
        for peer in &snapshot.peers {
            assert!(peer.prefixes_accepted <= peer.prefixes_received);
            if peer.state != State::Established && peer.stale.is_empty() {
                assert_eq!(peer.prefixes_received, 0, "routes of {} stayed", peer.name);
            }
        }
    }
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

/// UPDATE bodies from an external and an internal peer, through the table, to an observer of ours: what we write can be
/// read, and the observer ends up with what we say we announced to it.
pub(crate) fn table(input: &[u8]) {
    let mut bench = Bench::new(4);
    let sources = [bench.establish(2), bench.establish(3)];
    let watched = bench.establish(5);
    for (index, body) in pieces(input).take(40).enumerate() {
        if let Some(connection) = sources.get(index % 2) {
            bench.receive(*connection, &message(2, body));
        }
    }
    bench.check();
    let stream = bench.sent.get(&watched).cloned().unwrap_or_default();
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
/// same one is best for the same reason, and the same ones are used.
pub(crate) fn decision(input: &[u8]) {
    let paths: Vec<&[u8]> = pieces(input).take(5).collect();
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
                bench.receive(*connection, &path_update(2 + index, &[7, 1, 2, 3, 4]));
            }
            bench.receive(*connection, &path_update(2 + index, path));
        }
        bench.check();
        let snapshot = bench.speaker.snapshot(true);
        let entry =
            snapshot.rib.into_iter().find(|entry| entry.prefix.to_string() == "10.7.0.0/16");
        let mut usages: Vec<(Option<String>, Usage)> = entry
            .map(|entry| entry.paths.into_iter().map(|path| (path.peer, path.usage)).collect())
            .unwrap_or_default();
        usages.sort();
        results.push((usages, bench.fib));
    }
    assert!(results.windows(2).all(|pair| pair.first() == pair.last()), "{results:#?}");
}

/// An announcement of 10.7.0.0/16 whose attributes follow from a few octets.
fn path_update(peer: usize, shape: &[u8]) -> Vec<u8> {
    let octet = |index: usize| shape.get(index).copied().unwrap_or(0);
    let peer = u8::try_from(peer).unwrap_or(0);
    let internal = !peer.is_multiple_of(2);
    let mut attributes = vec![0x40, 1, 1, octet(0) % 3];
    // Few AS numbers and lengths, so that paths are often equal.
    let mut path: Vec<u32> =
        (0..octet(1) % 3).map(|hop| 100 + u32::from(octet(2).wrapping_add(hop) % 3)).collect();
    if !internal {
        path.insert(0, asn(peer));
    }
    let length = u8::try_from(path.len()).unwrap_or(0);
    if length == 0 {
        attributes.extend([0x40, 2, 0]);
    } else {
        attributes.extend([0x40, 2, 2 + 4 * length, 2, length]);
        path.iter().for_each(|asn| attributes.extend(asn.to_be_bytes()));
    }
    attributes.extend([0x40, 3, 4, 10, 9, 9, octet(3) % 2 + 1]);
    if octet(4) & 1 == 1 {
        attributes.extend([0x80, 4, 4, 0, 0, 0, octet(4) % 3]);
    }
    if internal {
        attributes.extend([0x40, 5, 4, 0, 0, 0, 100 + octet(5) % 2]);
        if octet(6) & 1 == 1 {
            attributes.extend([0x80, 9, 4, 10, 8, 8, octet(6) % 4]);
            attributes.extend([0x80, 10, 4, 10, 8, 8, 8]);
        }
    }
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).unwrap_or(0).to_be_bytes());
    body.extend(attributes);
    body.extend([16, 10, 7]);
    message(2, &body)
}
