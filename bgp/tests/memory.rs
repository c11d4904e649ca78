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
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// What allocators, tables that grow by doubling and logs may add.
const SLACK: usize = 256 << 10;

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
}

impl Bench {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let now = Instant::now();
        let mut config = SpeakerConfig::new(Asn(65001), RouterId::from(OURS));
        let mut peer = PeerConfig::new("peer", THEIRS.into(), Asn(65002));
        peer.passive = true;
        peer.families = Families::BOTH;
        config.peers = vec![peer];
        let mut bench = Self { speaker: Speaker::new(config, 1, now), now };
        bench.drain();
        bench
    }

    fn drain(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            if let Output::TransmitReady(connection) = output {
                while !self.speaker.transmit(connection, 1 << 16).is_empty() {}
            }
        }
    }

    fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.speaker.handle_received(connection, bytes, self.now);
        self.drain();
    }

    fn accept(&mut self) -> ConnectionId {
        let connection = self.speaker.handle_accepted(OURS.into(), THEIRS.into(), self.now);
        self.drain();
        connection.unwrap()
    }

    fn establish(&mut self) -> ConnectionId {
        let connection = self.accept();
        // Both families, four-octet AS numbers, extended messages, route refresh.
        let capabilities =
            [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 65, 4, 0, 0, 0xfd, 0xea, 6, 0, 2, 0, 70, 0];
        let length = u8::try_from(capabilities.len()).unwrap();
        let mut body = vec![4, 0xfd, 0xea, 0, 90, 10, 0, 0, 2, length + 2, 2, length];
        body.extend(capabilities);
        self.receive(connection, &message(1, &body));
        self.receive(connection, &message(4, &[]));
        assert_eq!(self.state(), State::Established);
        connection
    }

    fn state(&self) -> State {
        self.speaker.snapshot(false).peers.first().unwrap().state
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
    assert_eq!(bench.state(), State::Established);
}

/// One test: the allocator counts for the whole program.
#[test]
fn what_a_peer_can_make_us_keep_is_bounded() {
    let mut bench = Bench::new();
    let connection = bench.establish();
    bounded("new attributes for the same routes", |round| churn(&mut bench, connection, round));

    bounded("requests to send everything again", |_| {
        for _ in 0..2000 {
            bench.receive(connection, &message(5, &[0, 1, 0, 1]));
        }
    });

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
            assert_eq!(snapshot.peers.len(), 1);
            let again = bench.accept();
            bench.receive(again, &[0; 40]);
            bench.speaker.handle_closed(again, "closed", bench.now);
            bench.now += Duration::from_secs(61);
            bench.speaker.handle_timeout(bench.now);
            bench.drain();
        }
    });
}
