//! Whatever happens in between, in the end a peer has exactly what follows from the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::super::*;
use crate::{
    AddPathMode, Asn, Families, Family, PeerConfig, PeerType, RouterId,
    attr::{
        AsPath, Context, PathAttributes, decode, decode_next_hop, encode_block,
        encode_mp_reach_head,
    },
    filter::{Action, Filter, Policy, PrefixOperator, Rule},
    update_group::outgoing,
    wire::{
        AddPath, Capabilities, Item, Kind, MAX_EXTENDED_MESSAGE, Open, Refresh, encode_prefix,
        encode_route_refresh, keepalive, next_frame,
        update::{Parts, attributes},
        write_message,
    },
};

const LOCAL_AS: Asn = Asn(65000);
const PEERS: usize = 6;

/// The far end of a session.
struct Far {
    config: PeerConfig,
    four_octet_as: bool,
    add_path: AddPathMode,
    connection: Option<ConnectionId>,
    /// Bytes that arrived and are no whole message yet.
    stream: Vec<u8>,
    table: BTreeMap<Item, PathAttributes>,
    end_of_rib: Vec<Family>,
    markers: Vec<Refresh>,
    /// What it announced.
    sent: BTreeSet<(Prefix, u32)>,
}

struct World {
    speaker: Speaker,
    now: Instant,
    peers: Vec<Far>,
    ready: BTreeSet<ConnectionId>,
}

fn address(index: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(index + 2).unwrap()).into()
}

fn own(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::from([10, 0, 0, 1]),
        Family::Ipv6 => "2001:db8::1".parse().unwrap(),
    }
}

fn prefix(number: u8) -> Prefix {
    let text = match number % 2 {
        0 => format!("10.{number}.0.0/16"),
        _ => format!("2001:db8:{number:x}::/48"),
    };
    text.parse().unwrap()
}

/// Two clients and two others inside, two outside; ADD-PATH and two-octet numbers here and there.
fn far(index: usize) -> Far {
    let internal = index < 4;
    let asn = if internal { LOCAL_AS } else { Asn(u32::try_from(index).unwrap() * 70_000) };
    let four_octet_as = index != 3;
    let add_path = match index {
        0 | 4 => AddPathMode::Both,
        1 => AddPathMode::Send,
        2 => AddPathMode::Receive,
        _ => AddPathMode::None,
    };
    let config = PeerConfig {
        passive: true,
        route_reflector_client: index < 2,
        families: Families::BOTH,
        next_hop_ipv6: Some(own(Family::Ipv6)),
        graceful_restart: false,
        add_path: if index == 4 { AddPathMode::Send } else { AddPathMode::Both },
        ..PeerConfig::new(format!("p{index}"), address(index), asn)
    };
    Far {
        config,
        four_octet_as,
        add_path,
        connection: None,
        stream: Vec::new(),
        table: BTreeMap::new(),
        end_of_rib: Vec::new(),
        markers: Vec::new(),
        sent: BTreeSet::new(),
    }
}

impl Far {
    fn peer_type(&self) -> PeerType {
        self.config.peer_type(LOCAL_AS)
    }

    /// Says whether the far end takes several paths, and sends several.
    fn add_path(&self) -> (bool, bool) {
        let receives = matches!(self.add_path, AddPathMode::Receive | AddPathMode::Both);
        let sends = matches!(self.add_path, AddPathMode::Send | AddPathMode::Both);
        (receives, sends && self.config.add_path == AddPathMode::Both)
    }

    fn open(&self) -> Open {
        let mode = match self.add_path {
            AddPathMode::None => 0,
            AddPathMode::Receive => 1,
            AddPathMode::Send => 2,
            AddPathMode::Both => 3,
        };
        let add_path = [1, 2].map(|afi| AddPath { afi, safi: 1, mode });
        let IpAddr::V4(id) = self.config.address else { unreachable!() };
        Open {
            asn: self.config.asn,
            hold_time: 0,
            router_id: RouterId::from(id),
            capabilities: Capabilities {
                multiprotocol: vec![(1, 1), (2, 1)],
                route_refresh: true,
                enhanced_route_refresh: true,
                extended_message: self.config.address == address(2),
                four_octet_as: self.four_octet_as.then_some(self.config.asn),
                add_path: if mode == 0 { Vec::new() } else { add_path.into() },
                ..Capabilities::default()
            },
        }
    }

    /// An UPDATE with one prefix: announced with attributes that depend on `variant`, or withdrawn.
    fn update(&self, prefix: Prefix, path_id: u32, variant: Option<u8>) -> BytesMut {
        let add_path = self.add_path().1;
        let family = prefix.family();
        let item = Item { prefix, path_id };
        let mut nlri = BytesMut::new();
        encode_prefix(&item, add_path, &mut nlri);
        let mut section = BytesMut::new();
        let (mut withdrawn, mut announced) = (BytesMut::new(), BytesMut::new());
        if let Some(variant) = variant {
            let external = self.peer_type() == PeerType::External;
            let mut as_path = AsPath(vec![Asn(90_000); usize::from(variant % 3)]);
            if external {
                as_path.prepend(self.config.asn);
            }
            let next_hop = match family {
                Family::Ipv4 => self.config.address,
                Family::Ipv6 => format!("2001:db8::1:{variant:x}").parse().unwrap(),
            };
            let attributes = PathAttributes {
                as_path,
                next_hop: Some(next_hop.into()),
                med: (variant.is_multiple_of(2)).then_some(u32::from(variant)),
                local_pref: (!external).then_some(100 + u32::from(variant / 8)),
                ..PathAttributes::default()
            };
            if family == Family::Ipv6 {
                encode_mp_reach_head(family, &next_hop.into(), nlri.len(), &mut section);
                section.put_slice(&nlri);
            } else {
                announced = nlri;
            }
            encode_block(&attributes, family, self.four_octet_as, &mut section);
        } else if family == Family::Ipv4 {
            withdrawn = nlri;
        } else {
            section.put_slice(&[0x80, 15, u8::try_from(nlri.len() + 3).unwrap(), 0, 2, 1]);
            section.put_slice(&nlri);
        }
        let mut out = BytesMut::new();
        write_message(Kind::Update, &mut out, |out| {
            out.put_u16(u16::try_from(withdrawn.len()).unwrap());
            out.put_slice(&withdrawn);
            out.put_u16(u16::try_from(section.len()).unwrap());
            out.put_slice(&section);
            out.put_slice(&announced);
        });
        out
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.stream.extend_from_slice(bytes);
        let stream = std::mem::take(&mut self.stream);
        let mut rest = stream.as_slice();
        while let Some(frame) = next_frame(rest, MAX_EXTENDED_MESSAGE).unwrap() {
            match frame.kind {
                Kind::Update => self.learn(frame.body),
                Kind::RouteRefresh => self.markers.push(match frame.body[2] {
                    1 => Refresh::Begin,
                    2 => Refresh::End,
                    _ => Refresh::Request,
                }),
                Kind::Notification => panic!("{:?}", frame.body),
                _ => (),
            }
            rest = &rest[frame.length()..];
        }
        self.stream = rest.to_vec();
    }

    fn learn(&mut self, body: &[u8]) {
        let add_path = if self.add_path().0 { Families::BOTH } else { Families::NONE };
        let parts = Parts::find(body, add_path).unwrap();
        if let Some(family) = parts.end_of_rib() {
            self.end_of_rib.push(family);
            return;
        }
        let gone = parts.withdrawn.iter();
        for item in gone.chain(parts.unreach.iter().flat_map(|unreach| unreach.nlri.iter())) {
            self.table.remove(&item);
        }
        if !parts.announces() {
            return;
        }
        let context = Context { peer_type: self.peer_type(), four_octet_as: self.four_octet_as };
        let decoded = decode(parts.section, context).unwrap();
        assert_eq!(decoded.faults, [], "{:?}", attributes(parts.section).count());
        let mut attributes = decoded.attributes;
        let announced = match parts.reach {
            Some(reach) => {
                attributes.next_hop = decode_next_hop(reach.next_hop);
                reach.nlri
            }
            None => parts.announced,
        };
        for item in announced.iter() {
            self.table.insert(item, attributes.clone());
        }
    }
}

impl World {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let now = Instant::now();
        let peers: Vec<Far> = (0..PEERS).map(far).collect();
        let mut config = SpeakerConfig::new(LOCAL_AS, RouterId(1));
        config.peers.extend(peers.iter().map(|peer| peer.config.clone()));
        let mut speaker = Speaker::new(config, 1, now);
        // Everything happens with a few prefixes: late joiners walk in steps, slow ones lag.
        speaker.limits = Limits { lag: 600, enough: 200, step: 3 };
        Self { speaker, now, peers, ready: BTreeSet::new() }
    }

    fn connect(&mut self, index: usize) {
        if self.peers[index].connection.is_some() {
            return;
        }
        let peer = self.peers[index].config.address;
        let Some(connection) = self.speaker.handle_accepted(own(Family::Ipv4), peer, self.now)
        else {
            return;
        };
        let far = &mut self.peers[index];
        far.connection = Some(connection);
        far.stream.clear();
        far.table.clear();
        far.end_of_rib.clear();
        far.markers.clear();
        let open = far.open().encode();
        self.speaker.handle_received(connection, &open, self.now);
        self.speaker.handle_received(connection, &keepalive(), self.now);
        self.poll();
    }

    fn disconnect(&mut self, index: usize) {
        if let Some(connection) = self.peers[index].connection.take() {
            self.ready.remove(&connection);
            self.peers[index].sent.clear();
            self.speaker.handle_closed(connection, "gone", self.now);
            self.poll();
        }
    }

    fn announce(&mut self, index: usize, number: u8, variant: Option<u8>) {
        let far = &self.peers[index];
        let Some(connection) = far.connection else { return };
        let path_id = if far.add_path().1 { u32::from(variant.unwrap_or(number) % 3) } else { 0 };
        let prefix = prefix(number);
        let update = far.update(prefix, path_id, variant);
        self.speaker.handle_received(connection, &update, self.now);
        match variant {
            Some(_) => self.peers[index].sent.insert((prefix, path_id)),
            None => self.peers[index].sent.remove(&(prefix, path_id)),
        };
    }

    fn refresh(&mut self, index: usize) {
        if let Some(connection) = self.peers[index].connection {
            for family in Family::ALL {
                let request = encode_route_refresh(family, Refresh::Request);
                self.speaker.handle_received(connection, &request, self.now);
            }
        }
    }

    /// Another export policy: one prefix is not told any more.
    fn configure(&mut self, index: usize, number: u8) {
        let mut config = self.speaker.config().clone();
        let rule = Rule::new(Action::Reject).with_prefix(PrefixOperator::Equal, prefix(number));
        let filter = Filter { name: "one".into(), rules: vec![rule] };
        let filters = if number.is_multiple_of(3) { Vec::new() } else { vec![filter.into()] };
        config.peers[index].export = Policy { filters, default: Action::Accept };
        self.speaker.configure(config, self.now);
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            match output {
                Output::TransmitReady(connection) => drop(self.ready.insert(connection)),
                Output::Close { connection, .. } => {
                    let lost = self.peers.iter().any(|far| far.connection == Some(connection));
                    assert!(!lost, "a session was closed");
                }
                _ => (),
            }
        }
    }

    /// Delivers about `limit` bytes to one peer.
    fn deliver(&mut self, index: usize, limit: usize) -> bool {
        let Some(connection) = self.peers[index].connection else { return false };
        if !self.ready.contains(&connection) {
            return false;
        }
        let messages = self.speaker.transmit(connection, limit);
        if messages.is_empty() {
            self.ready.remove(&connection);
        }
        messages.iter().for_each(|bytes| self.peers[index].receive(bytes));
        true
    }

    fn settle(&mut self) {
        self.poll();
        while (0..PEERS).any(|index| self.deliver(index, 500)) {
            self.poll();
        }
    }

    /// What follows from the table for one peer: per prefix the attributes of all that it should have.
    fn expected(&self, index: usize) -> BTreeMap<Prefix, Vec<PathAttributes>> {
        let speaker = &self.speaker;
        let name = &self.peers[index].config.name;
        let (id, _) = speaker.peers.iter().find(|(_, peer)| peer.config.name == *name).unwrap();
        let key = speaker.group_key(*id).unwrap();
        let mut expected: BTreeMap<Prefix, Vec<PathAttributes>> = BTreeMap::new();
        for entry in speaker.rib.entries(&speaker.interner) {
            let used = entry.decision.iter().flat_map(|decision| &decision.used).take(1);
            let lost = entry.decision.iter().flat_map(|each| &each.lost).map(|(lost, _)| lost);
            let shared = entry.decision.iter().flat_map(|decision| &decision.used).skip(1);
            let several = self.peers[index].add_path().0;
            let others = lost.chain(shared).filter(|_| several);
            for number in used.chain(others) {
                let path = &entry.paths[*number];
                if path.key.source == *id {
                    continue;
                }
                let attributes = speaker.interner.attributes(path.accepted().unwrap());
                let sender = &speaker.senders[&path.key.source];
                if let Ok(out) =
                    outgoing(&key, &entry.prefix, std::borrow::Cow::Borrowed(&attributes), sender)
                {
                    expected.entry(entry.prefix).or_default().push(out);
                }
            }
        }
        expected
    }

    fn check(&self) {
        for (index, far) in self.peers.iter().enumerate() {
            if far.connection.is_none() {
                continue;
            }
            let mut got: BTreeMap<Prefix, Vec<PathAttributes>> = BTreeMap::new();
            for (item, attributes) in &far.table {
                got.entry(item.prefix).or_default().push(attributes.clone());
            }
            let mut expected = self.expected(index);
            for list in got.values_mut().chain(expected.values_mut()) {
                list.sort_by_key(|attributes| format!("{attributes:?}"));
            }
            assert_eq!(got, expected, "p{index}");
            let advertised = self.speaker.snapshot(false).peers[index].prefixes_advertised;
            assert_eq!(advertised, far.table.len(), "p{index}");
            assert!(Family::ALL.iter().all(|family| far.end_of_rib.contains(family)), "p{index}");
            let begun = far.markers.iter().filter(|marker| **marker == Refresh::Begin).count();
            let ended = far.markers.iter().filter(|marker| **marker == Refresh::End).count();
            assert!(begun >= ended && (begun == 0 || ended > 0), "{:?}", far.markers);
        }
        let received: usize =
            self.speaker.snapshot(false).peers.iter().map(|peer| peer.prefixes_received).sum();
        assert_eq!(received, self.peers.iter().map(|far| far.sent.len()).sum::<usize>());
    }

    /// The table; the paths of a prefix in any fixed order.
    fn choices(&self) -> Vec<(Prefix, Vec<String>)> {
        let rib = self.speaker.snapshot(true).rib;
        let lines = rib.into_iter().map(|entry| {
            let mut paths: Vec<String> =
                entry.paths.iter().map(|path| format!("{path:?}")).collect();
            paths.sort();
            (entry.prefix, paths)
        });
        lines.collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_peer_has_what_follows_from_the_table(
        steps in proptest::collection::vec((0_u8..16, 0..PEERS, 0_u8..12, 0_u8..24), 1..120),
    ) {
        let mut world = World::new();
        for (action, peer, number, variant) in steps {
            match action {
                0..=5 => world.announce(peer, number, Some(variant)),
                6 | 7 => world.announce(peer, number, None),
                8 | 9 => world.connect(peer),
                10 if variant < 6 => world.disconnect(peer),
                11 => world.refresh(peer),
                12 => world.configure(peer, number),
                13 => world.poll(),
                14 => drop(world.deliver(peer, usize::from(variant) + 1)),
                15 if variant < 3 => world.settle(),
                _ => (),
            }
        }
        world.settle();
        world.check();
    }

    /// The order in which peers speak does not matter.
    #[test]
    fn choices_do_not_depend_on_arrival(
        paths in proptest::collection::vec((0..PEERS, 0_u8..4, 0_u8..24), 1..40),
    ) {
        let mut last = BTreeMap::new();
        for (peer, number, variant) in paths {
            let path_id = if far(peer).add_path().1 { variant % 3 } else { 0 };
            last.insert((peer, number, path_id), variant);
        }
        let run = |order: &mut dyn Iterator<Item = ((usize, u8, u8), u8)>| {
            let mut world = World::new();
            (0..PEERS).for_each(|peer| world.connect(peer));
            for ((peer, number, _), variant) in order {
                world.announce(peer, number, Some(variant));
                if variant.is_multiple_of(4) {
                    world.poll();
                }
            }
            world.settle();
            world.check();
            world.choices()
        };
        let forwards = run(&mut last.clone().into_iter());
        let backwards = run(&mut last.into_iter().rev());
        prop_assert_eq!(forwards, backwards);
    }
}
