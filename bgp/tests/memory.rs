//! What a peer can make us keep is bounded: whatever it sends, memory goes with the routes it has now, not with what it ever
//! said.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test: what fails here fails it, with the reason"
)]

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bgp::{
    Asn, ConnectionId, Families, Output, PeerConfig, RouterId, Speaker, SpeakerConfig, State,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Of the first peer; the others are behind it.
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PEERS: u8 = 3;
/// What allocators, tables that grow by doubling and logs may add.
const SLACK: usize = 256 << 10;

fn address(peer: u8) -> Ipv4Addr {
    let [a, b, c, d] = THEIRS.octets();
    Ipv4Addr::new(a, b, c, d + peer)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

struct Bench {
    speaker: Speaker,
    now: Instant,
    /// Who does not read.
    stuck: Option<ConnectionId>,
    /// Octets that were read.
    sent: usize,
}

impl Bench {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let now = Instant::now();
        let mut config = SpeakerConfig::new(Asn(65001), RouterId::from(OURS));
        let peer = |number: u8| PeerConfig {
            passive: true,
            families: Families::BOTH,
            ..PeerConfig::new(format!("peer{number}"), address(number).into(), Asn(65002))
        };
        config.peers = (0..PEERS).map(peer).collect();
        let mut bench = Self { speaker: Speaker::new(config, 1, now), now, stuck: None, sent: 0 };
        bench.drain();
        bench
    }

    fn drain(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            if let Output::TransmitReady(connection) = output
                && self.stuck != Some(connection)
            {
                self.read(connection);
            }
        }
    }

    fn read(&mut self, connection: ConnectionId) {
        loop {
            let messages = self.speaker.transmit(connection, 1 << 16);
            if messages.is_empty() {
                return;
            }
            self.sent += messages.iter().map(|bytes| bytes.len()).sum::<usize>();
        }
    }

    fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.speaker.handle_received(connection, bytes, self.now);
        self.drain();
    }

    fn accept(&mut self, peer: u8) -> ConnectionId {
        let connection = self.speaker.handle_accepted(OURS.into(), address(peer).into(), self.now);
        self.drain();
        connection.unwrap()
    }

    fn establish(&mut self, peer: u8) -> ConnectionId {
        let connection = self.accept(peer);
        // Both families, four-octet AS numbers, extended messages, route refresh.
        let capabilities =
            [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 65, 4, 0, 0, 0xfd, 0xea, 6, 0, 2, 0, 70, 0];
        let length = u8::try_from(capabilities.len()).unwrap();
        let [a, b, c, d] = address(peer).octets();
        let mut body = vec![4, 0xfd, 0xea, 0, 90, a, b, c, d, length + 2, 2, length];
        body.extend(capabilities);
        self.receive(connection, &message(1, &body));
        self.receive(connection, &message(4, &[]));
        assert_eq!(self.state(peer), State::Established);
        connection
    }

    fn state(&self, peer: u8) -> State {
        self.speaker.snapshot(false).peers.get(usize::from(peer)).unwrap().state
    }
}

/// Runs rounds of the same kind; the last ones must not need more than the first ones.
fn bounded(what: &str, mut round: impl FnMut(u32)) {
    let mut used = Vec::new();
    for number in 0..12 {
        round(number);
        used.push(MEMORY.current_usage());
    }
    eprintln!("{what}: {used:?}");
    let (early, late) = used.split_at(4);
    let most = |part: &[usize]| part.iter().copied().max().unwrap();
    assert!(most(late) <= most(early) + SLACK, "{what} grows: {used:?}");
}

/// 256 routes; each message has attributes that never were there before, of many kinds and sizes, also malformed ones.
fn churn(bench: &mut Bench, connection: ConnectionId, round: u32) {
    for number in 0..2000_u32 {
        let unique = (round * 2000 + number).to_be_bytes();
        let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 10, 2, 2, 0, 0, 0xfd, 0xea];
        attributes.extend(unique.map(|octet| octet | 1));
        attributes.extend([0x40, 3, 4, 10, 9, 9, 9]);
        let size = u16::try_from(4 * (1 + number % 300)).unwrap();
        attributes.extend([0xd0, 8]);
        attributes.extend(size.to_be_bytes());
        attributes.extend(unique.iter().cycle().take(size.into()));
        // Unknown and transitive: kept as it is.
        attributes.extend([0xc0, 0xfe, 4]);
        attributes.extend(unique);
        if number % 7 == 0 {
            attributes.extend([0x40, 6, 1, 0]);
        }
        if number % 11 == 0 {
            attributes.extend([0xc0, 32, 3, 1, 2, 3]);
        }
        let octet = unique.last().copied().unwrap_or(0);
        let mut body = if number % 3 == 0 { vec![0, 4, 24, 10, 8, octet] } else { vec![0, 0] };
        body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
        body.extend(attributes);
        body.extend([24, 10, 7, octet]);
        bench.receive(connection, &message(2, &body));
    }
    assert_eq!(bench.state(0), State::Established);
}

const MILLION: u32 = 1_000_000;
/// Prefixes of a message.
const FULL: usize = 900;

fn prefixes(numbers: std::ops::Range<u32>) -> Vec<[u8; 4]> {
    let prefix = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        [24, 16 + a, b, c]
    };
    numbers.map(prefix).collect()
}

/// Announces, with attributes that follow from the round.
fn announce(bench: &mut Bench, from: ConnectionId, numbers: std::ops::Range<u32>, round: u32) {
    for (group, number) in prefixes(numbers).chunks(FULL).zip(0_u32..) {
        let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea];
        attributes.extend([0x40, 3, 4, 10, 0, 0, 2, 0xc0, 8, 8]);
        attributes.extend([round.to_be_bytes(), number.to_be_bytes()].concat());
        let mut body = vec![0, 0];
        body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
        body.extend(attributes);
        body.extend(group.concat());
        bench.receive(from, &message(2, &body));
    }
}

fn withdraw(bench: &mut Bench, from: ConnectionId, numbers: std::ops::Range<u32>) {
    for group in prefixes(numbers).chunks(FULL) {
        let mut body = u16::try_from(4 * group.len()).unwrap().to_be_bytes().to_vec();
        body.extend(group.concat());
        body.extend([0, 0]);
        bench.receive(from, &message(2, &body));
    }
}

/// A part of the table goes, comes back, and changes.
fn churn_table(bench: &mut Bench, from: ConnectionId, round: u32) {
    let first = round * 80_000;
    withdraw(bench, from, first..first + 40_000);
    announce(bench, from, first..first + 80_000, 100 + round);
}

/// A full table, one peer that reads, and one that came with it and never reads anything. For that one no more is kept than
/// a part of the log, a few octets of each prefix that it may have heard of, and marks.
fn deaf(bench: &mut Bench, from: ConnectionId) {
    let listener = bench.establish(1);
    announce(bench, from, 0..MILLION, 0);
    let table = MEMORY.current_usage();
    let deaf = bench.establish(2);
    bench.stuck = Some(deaf);
    let kept = || MEMORY.current_usage().saturating_sub(table);
    // Until it is left behind, and then all once more.
    (1..8).for_each(|round| announce(bench, from, 0..MILLION, round));
    bounded("a full table for one who does not read", |round| churn_table(bench, from, round));
    eprintln!("{} octets for one who does not read", kept());
    assert!(kept() <= 32 << 20, "{} octets are kept for one who does not read", kept());
    assert_eq!((bench.state(1), bench.state(2)), (State::Established, State::Established));
    // Late, but everything.
    bench.stuck = None;
    let before = bench.sent;
    bench.read(deaf);
    bench.drain();
    let received = bench.sent - before;
    assert!(received > 4 * usize::try_from(MILLION).unwrap(), "{received} octets");
    assert!(kept() <= 2 << 20, "{} octets are kept for one who has read everything", kept());
    withdraw(bench, from, 0..MILLION);
    for gone in [listener, deaf] {
        bench.speaker.handle_closed(gone, "closed", bench.now);
        bench.drain();
    }
}

/// One test: the allocator counts for the whole program.
#[test]
fn what_a_peer_can_make_us_keep_is_bounded() {
    let mut bench = Bench::new();
    let connection = bench.establish(0);
    bounded("new attributes for the same routes", |round| churn(&mut bench, connection, round));

    bounded("requests to send everything again", |_| {
        for _ in 0..2000 {
            bench.receive(connection, &message(5, &[0, 1, 0, 1]));
        }
    });

    deaf(&mut bench, connection);

    // The longest message, one octet at a time but for the last one.
    let mut long = message(2, &vec![0; 65000]);
    long.pop();
    let before = MEMORY.current_usage();
    long.chunks(97).for_each(|part| bench.receive(connection, part));
    let kept = MEMORY.current_usage().saturating_sub(before);
    assert!(kept <= 4 * 65535, "half a message is kept in {kept} octets");
    bench.receive(connection, &[0]);

    bounded("sessions that come and go", |_| {
        for _ in 0..200 {
            let snapshot = bench.speaker.snapshot(false);
            assert_eq!(snapshot.peers.len(), usize::from(PEERS));
            let again = bench.accept(0);
            bench.receive(again, &[0; 40]);
            bench.speaker.handle_closed(again, "closed", bench.now);
            bench.now += Duration::from_secs(61);
            bench.speaker.handle_timeout(bench.now);
            bench.drain();
        }
    });
}
