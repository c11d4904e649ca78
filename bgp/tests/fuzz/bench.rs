//! A speaker among peers made of bytes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use bgp::{
    AddPathMode, Asn, ConnectionId, Families, LocalRoute, Output, PeerConfig, Prefix, RouterId,
    Speaker, SpeakerConfig, State, snapshot::Usage,
};

fn epoch() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time; never read again")]
    Instant::now()
}

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn address(peer: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, peer).into()
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let body = body.get(..4000).unwrap_or(body);
    let mut bytes = vec![0xff; 16];
    bytes.extend(u16::try_from(19 + body.len()).unwrap_or(19).to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

/// A speaker with passive peers 2, 3, ...: even ones are external, odd ones internal.
pub(crate) struct Bench {
    pub(crate) speaker: Speaker,
    pub(crate) now: Instant,
    /// What was sent over each connection.
    pub(crate) sent: BTreeMap<ConnectionId, Vec<u8>>,
    pub(crate) fib: BTreeMap<Prefix, Vec<IpAddr>>,
}

pub(crate) const fn asn(peer: u8) -> u32 {
    if peer.is_multiple_of(2) { 65000 + peer as u32 } else { 65001 }
}

impl Bench {
    pub(crate) fn new(peers: u8) -> Self {
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

    pub(crate) fn drain(&mut self) {
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

    pub(crate) fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.speaker.handle_received(connection, bytes, self.now);
        self.drain();
    }

    pub(crate) fn accept(&mut self, peer: u8) -> Option<ConnectionId> {
        let accepted = self.speaker.handle_accepted(OURS.into(), address(peer), self.now);
        self.drain();
        accepted
    }

    fn open(peer: u8) -> Vec<u8> {
        Self::open_with(peer, 0)
    }

    /// An OPEN with more capabilities, one for each bit of `more`.
    pub(crate) fn open_with(peer: u8, more: u8) -> Vec<u8> {
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

    pub(crate) fn establish(&mut self, peer: u8) -> ConnectionId {
        let connection = self.accept(peer).expect("a known peer");
        self.receive(connection, &Self::open(peer));
        self.receive(connection, &message(4, &[]));
        let snapshot = self.speaker.snapshot(false);
        let name = peer.to_string();
        let state = snapshot.peers.iter().find(|each| each.name == name).map(|each| each.state);
        assert_eq!(state, Some(State::Established), "peer {peer} with its usual OPEN");
        connection
    }

    pub(crate) fn is_up(&self, peer: u8) -> bool {
        let name = peer.to_string();
        let peers = self.speaker.snapshot(false).peers;
        peers.iter().any(|each| each.name == name && each.state == State::Established)
    }

    /// Nothing about the state contradicts itself.
    pub(crate) fn check(&self) {
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
