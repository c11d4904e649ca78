//! The core without sockets: how long a [`Speaker`] takes to import what peers send and to export it to all others, and
//! how much memory that needs. `cargo bench -p bgp -- dfz10 rr500` runs some of the scenarios, without names all.
//!
//! | Scenario | Peers | Prefixes of each | External |
//! |---|---|---|---|
//! | `dfz10` | 10 and a receiver | 100,000, seven to an UPDATE | yes |
//! | `dfz2` | 2 and a receiver | 500,000, seven to an UPDATE | yes |
//! | `dual` | 2 reflection clients with the same prefixes | 500,000, seven to an UPDATE | no |
//! | `rr500` | 500 reflection clients | 4 | no |
//! | `idle500` | 500, keepalives only | 0 | no |

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use bgp::{
    Asn, ConnectionId, Output, PeerConfig, RouterId, Speaker, SpeakerConfig,
    wire::{Capabilities, Open, keepalive},
};

/// Bytes that a peer sends at once.
const READ: usize = 64 << 10;
const WRITE: usize = 256 << 10;
const PER_UPDATE: u32 = 7;

struct Scenario {
    name: &'static str,
    senders: u32,
    prefixes: u32,
    internal: bool,
    receiver: bool,
    /// All senders have the same prefixes: every one of them asks for a decision.
    alike: bool,
}

const EXTERNAL: Scenario =
    Scenario { name: "", senders: 0, prefixes: 0, internal: false, receiver: true, alike: false };
const REFLECTED: Scenario = Scenario { internal: true, receiver: false, ..EXTERNAL };

const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "dfz10", senders: 10, prefixes: 100_000, ..EXTERNAL },
    Scenario { name: "dfz2", senders: 2, prefixes: 500_000, ..EXTERNAL },
    Scenario {
        name: "dual",
        senders: 2,
        prefixes: 500_000,
        receiver: true,
        alike: true,
        ..REFLECTED
    },
    Scenario { name: "rr500", senders: 500, prefixes: 4, ..REFLECTED },
    Scenario { name: "idle500", senders: 500, prefixes: 0, ..REFLECTED },
];

fn main() -> io::Result<()> {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for scenario in &SCENARIOS {
        if wanted.is_empty() || wanted.iter().any(|name| name == scenario.name) {
            run(scenario)?;
        }
    }
    Ok(())
}

fn run(scenario: &Scenario) -> io::Result<()> {
    let mut bench = Bench::new(scenario);
    bench.connect();
    let mut out = io::stdout().lock();
    write!(out, "{:8}", scenario.name)?;
    if scenario.prefixes == 0 {
        let time = bench.keepalives(100);
        return writeln!(out, " keepalive {:>8.3} us", time * 1e4 / f64::from(scenario.senders));
    }
    let streams: Vec<Vec<u8>> =
        (0..scenario.senders).map(|sender| announcements(scenario, sender)).collect();
    let before = memory();
    let announced = bench.feed(&streams);
    let bytes = bench.sent;
    let used = memory().saturating_sub(before);
    let gone: Vec<Vec<u8>> = vec![withdrawals(scenario, 0)];
    let withdrawn = bench.feed(&gone);
    let again = bench.feed(streams.get(..1).unwrap_or_default());
    writeln!(
        out,
        " announce {announced:>7.3} s  withdraw one {withdrawn:>7.3} s  again {again:>7.3} s  \
         {used:>7} KiB  sent {:>7} KiB, {} in all",
        bytes >> 10,
        bench.sent >> 10,
    )
}

/// Resident memory in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

struct Bench {
    speaker: Speaker,
    now: Instant,
    peers: Vec<(IpAddr, Asn)>,
    connections: Vec<ConnectionId>,
    sent: u64,
}

fn address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0002_u32.wrapping_add(index))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn clock() -> Instant {
    Instant::now()
}

impl Bench {
    fn new(scenario: &Scenario) -> Self {
        let local_as = Asn(65000);
        let mut config = SpeakerConfig::new(local_as, RouterId(1));
        let count = scenario.senders.saturating_add(u32::from(scenario.receiver));
        let mut peers = Vec::new();
        for index in 0..count {
            let asn = if scenario.internal { local_as } else { Asn(65001_u32.wrapping_add(index)) };
            let address = IpAddr::from(address(index));
            config.peers.push(PeerConfig {
                passive: true,
                route_reflector_client: scenario.internal,
                hold_time: 9,
                ..PeerConfig::new(format!("p{index}"), address, asn)
            });
            peers.push((address, asn));
        }
        let now = clock();
        let speaker = Speaker::new(config, 1, now);
        Self { speaker, now, peers, connections: Vec::new(), sent: 0 }
    }

    fn connect(&mut self) {
        let local = IpAddr::from(Ipv4Addr::new(10, 0, 0, 1));
        for (index, (address, asn)) in self.peers.clone().into_iter().enumerate() {
            let accepted = self.speaker.handle_accepted(local, address, self.now);
            let Some(connection) = accepted else { continue };
            let capabilities = Capabilities {
                multiprotocol: vec![(1, 1)],
                four_octet_as: Some(asn),
                ..Capabilities::default()
            };
            let router_id = RouterId(u32::try_from(index).unwrap_or(0).wrapping_add(100));
            let open = Open { asn, hold_time: 9, router_id, capabilities };
            self.speaker.handle_received(connection, &open.encode(), self.now);
            self.speaker.handle_received(connection, &keepalive(), self.now);
            self.connections.push(connection);
            self.drain();
        }
    }

    /// Takes everything out, as the driver does.
    fn drain(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            if let Output::TransmitReady(connection) = output {
                loop {
                    let batch = self.speaker.transmit(connection, WRITE);
                    if batch.is_empty() {
                        break;
                    }
                    let bytes = batch.iter().map(|bytes| bytes.len()).sum::<usize>();
                    self.sent = self.sent.wrapping_add(u64::try_from(bytes).unwrap_or(0));
                }
            }
        }
    }

    /// Sends the streams in turns of one read each; returns the seconds until everything went out.
    fn feed(&mut self, streams: &[Vec<u8>]) -> f64 {
        let start = clock();
        let mut chunks: Vec<_> = streams.iter().map(|stream| stream.chunks(READ)).collect();
        loop {
            let mut busy = false;
            for (chunks, connection) in chunks.iter_mut().zip(self.connections.clone()) {
                if let Some(chunk) = chunks.next() {
                    self.speaker.handle_received(connection, chunk, self.now);
                    busy = true;
                }
            }
            if !busy {
                return start.elapsed().as_secs_f64();
            }
            self.drain();
        }
    }

    /// Every peer sends a keepalive, `rounds` times; returns the seconds per round.
    fn keepalives(&mut self, rounds: u32) -> f64 {
        let start = clock();
        for _ in 0..rounds {
            for connection in self.connections.clone() {
                self.now += Duration::from_millis(3000) / 500;
                self.speaker.handle_received(connection, &keepalive(), self.now);
                self.drain();
                if self.speaker.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.speaker.handle_timeout(self.now);
                    self.drain();
                }
            }
        }
        start.elapsed().as_secs_f64() * 100.0 / f64::from(rounds)
    }
}

fn message(out: &mut Vec<u8>, withdrawn: &[u8], attributes: &[u8], announced: &[u8]) {
    let length = withdrawn.len().wrapping_add(attributes.len()).wrapping_add(announced.len());
    let field = |value: usize| u16::try_from(value).unwrap_or(0).to_be_bytes();
    out.extend([0xff; 16]);
    out.extend(field(length.wrapping_add(23)));
    out.push(2);
    out.extend(field(withdrawn.len()));
    out.extend(withdrawn);
    out.extend(field(attributes.len()));
    out.extend(attributes);
    out.extend(announced);
}

/// Prefixes of a sender, in the order of its table.
fn prefixes(scenario: &Scenario, sender: u32) -> impl Iterator<Item = [u8; 4]> {
    let first = if scenario.alike { 0 } else { sender.wrapping_mul(scenario.prefixes) };
    (first..first.wrapping_add(scenario.prefixes)).map(|number| {
        let [_, a, b, c] = number.wrapping_add(0x10_0000).to_be_bytes();
        [24, a.wrapping_add(16), b, c]
    })
}

fn announcements(scenario: &Scenario, sender: u32) -> Vec<u8> {
    let mut stream = Vec::new();
    let all: Vec<[u8; 4]> = prefixes(scenario, sender).collect();
    for (number, group) in (0_u32..).zip(all.chunks(usize::try_from(PER_UPDATE).unwrap_or(1))) {
        let mut attributes = vec![0x40, 1, 1, 0];
        if scenario.internal {
            attributes.extend([0x40, 2, 0]);
        } else {
            attributes.extend([0x40, 2, 18, 2, 4]);
            for asn in [65001_u32.wrapping_add(sender), 3356, number.wrapping_add(100_000), 64999] {
                attributes.extend(asn.to_be_bytes());
            }
        }
        attributes.extend([0x40, 3, 4]);
        attributes.extend(address(sender).octets());
        if scenario.internal {
            attributes.extend([0x40, 5, 4, 0, 0, 0, 100]);
        }
        attributes.extend([0xc0, 8, 4, 0xfd, 0xe9]);
        let [.., high, low] = number.to_be_bytes();
        attributes.extend([high, low]);
        message(&mut stream, &[], &attributes, &group.concat());
    }
    stream
}

fn withdrawals(scenario: &Scenario, sender: u32) -> Vec<u8> {
    let mut stream = Vec::new();
    let all: Vec<[u8; 4]> = prefixes(scenario, sender).collect();
    for group in all.chunks(900) {
        message(&mut stream, &group.concat(), &[], &[]);
    }
    stream
}
