//! Our own reading, through the public doors of the speaker: a session, the message, and what is in the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use bgp::{
    AddPathMode, Asn, ConnectionId, Families, Output, PathAttributes, PeerConfig, RouterId,
    Speaker, SpeakerConfig, State, attr::Origin,
};

use crate::reading::{Attributes, Reading, Route, Terms, Verdict};

pub(crate) const OUR_AS: u32 = 65001;
pub(crate) const THEIR_AS: u16 = 65002;
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// MED of what was there before the message.
const BEFORE: u32 = 0xfeed_beef;

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

struct Session {
    speaker: Speaker,
    connection: ConnectionId,
    now: Instant,
}

impl Session {
    fn new(terms: Terms) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let now = Instant::now();
        let asn = if terms.internal { OUR_AS } else { THEIR_AS.into() };
        let mut config = SpeakerConfig::new(Asn(OUR_AS), RouterId::from(OURS));
        let mut peer = PeerConfig::new("peer", THEIRS.into(), Asn(asn));
        peer.passive = true;
        peer.families = Families::BOTH;
        peer.extended_next_hop = true;
        if terms.add_path {
            peer.add_path = AddPathMode::Receive;
        }
        config.peers = vec![peer];
        let mut speaker = Speaker::new(config, 1, now);
        while speaker.poll_output().is_some() {}
        let connection = speaker.handle_accepted(OURS.into(), THEIRS.into(), now).unwrap();
        let mut session = Self { speaker, connection, now };
        session.receive(&open(terms, asn));
        session.receive(&message(4, &[]));
        assert_eq!(session.peer().state, State::Established);
        session
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.speaker.handle_received(self.connection, bytes, self.now);
        while let Some(output) = self.speaker.poll_output() {
            if let Output::TransmitReady(connection) = output {
                while !self.speaker.transmit(connection, 1 << 16).is_empty() {}
            }
        }
    }

    fn paths(&self) -> BTreeMap<Route, PathAttributes> {
        let mut found = BTreeMap::new();
        for entry in self.speaker.snapshot(true).rib {
            for path in self.speaker.explain(&entry.prefix).unwrap().paths {
                let prefix = entry.prefix;
                let route = Route::new(prefix.address(), prefix.length(), path.path_id);
                found.insert(route, path.received);
            }
        }
        found
    }

    fn peer(&self) -> bgp::snapshot::PeerSnapshot {
        self.speaker.snapshot(false).peers.pop().unwrap()
    }
}

/// Both families, IPv6 next hops for IPv4, and what the terms say.
fn open(terms: Terms, asn: u32) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 5, 6, 0, 1, 0, 1, 0, 2];
    if terms.four_octets {
        capabilities.extend([65, 4]);
        capabilities.extend(asn.to_be_bytes());
    }
    if terms.add_path {
        capabilities.extend([69, 8, 0, 1, 1, 2, 0, 2, 1, 2]);
    }
    let length = u8::try_from(capabilities.len()).unwrap();
    let mut body = vec![4];
    body.extend(u16::try_from(asn).unwrap().to_be_bytes());
    body.extend([0, 90]);
    body.extend(THEIRS.octets());
    body.extend([length + 2, 2, length]);
    body.extend(capabilities);
    message(1, &body)
}

/// Appends a route as NLRI.
pub(crate) fn put_route(route: &Route, add_path: bool, out: &mut Vec<u8>) {
    if add_path {
        out.extend(route.path_id.to_be_bytes());
    }
    out.push(route.length);
    let octets = usize::from(route.length.div_ceil(8));
    match route.address {
        IpAddr::V4(address) => out.extend(&address.octets()[..octets]),
        IpAddr::V6(address) => out.extend(&address.octets()[..octets]),
    }
}

/// Returns an UPDATE that announces one route, marked.
fn before(terms: Terms, route: &Route) -> Vec<u8> {
    let mut attributes = vec![0x40, 1, 1, 0];
    match (terms.internal, terms.four_octets) {
        (true, _) => attributes.extend([0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100]),
        (false, true) => {
            attributes.extend([0x40, 2, 6, 2, 1, 0, 0]);
            attributes.extend(THEIR_AS.to_be_bytes());
        }
        (false, false) => {
            attributes.extend([0x40, 2, 4, 2, 1]);
            attributes.extend(THEIR_AS.to_be_bytes());
        }
    }
    attributes.extend([0x80, 4, 4]);
    attributes.extend(BEFORE.to_be_bytes());
    let mut nlri = Vec::new();
    put_route(route, terms.add_path, &mut nlri);
    if route.address.is_ipv4() {
        attributes.extend([0x40, 3, 4, 10, 9, 9, 9]);
    } else {
        let length = u8::try_from(21 + nlri.len()).unwrap();
        attributes.extend([0x80, 14, length, 0, 2, 1, 16, 0x20, 1, 0x0d, 0xb8]);
        attributes.extend([0; 11]);
        attributes.extend([9, 0]);
        attributes.append(&mut nlri);
    }
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    message(2, &body)
}

/// Our verdict, and whether it took attributes away (RFC 7606 §2, "attribute discard").
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    pub(crate) discarded: bool,
}

/// Reads an UPDATE. Of the known routes it is seen whether the message withdraws them.
pub(crate) fn read(terms: Terms, body: &[u8], known: &BTreeSet<Route>) -> Judgement {
    let mut session = Session::new(terms);
    for route in known {
        session.receive(&before(terms, route));
    }
    assert_eq!(session.paths().len(), known.len(), "the known routes are good ones");
    session.receive(&message(2, body));
    let peer = session.peer();
    let discarded = peer.discarded_attributes > 0;
    let verdict = if peer.state != State::Established {
        Err(peer.last_error.unwrap_or_default())
    } else if peer.treated_as_withdraw > 0 {
        Err("treated as withdraw".to_owned())
    } else {
        let mut reading = Reading { withdrawn: known.clone(), ..Reading::default() };
        for (route, received) in session.paths() {
            reading.withdrawn.remove(&route);
            if received.med != Some(BEFORE) {
                reading.announced.insert(route, attributes(&received));
            }
        }
        Ok(reading)
    };
    Judgement { verdict, discarded }
}

fn attributes(received: &PathAttributes) -> Attributes {
    Attributes {
        origin: match received.origin {
            Origin::Igp => 0,
            Origin::Egp => 1,
            Origin::Incomplete => 2,
        },
        as_path: received.as_path.0.iter().map(|asn| asn.0).collect(),
        next_hop: received.next_hop.map(|next_hop| next_hop.address),
        med: received.med,
        local_pref: received.local_pref,
        communities: received.communities.iter().map(|community| community.0).collect(),
        large_communities: received
            .large_communities
            .iter()
            .map(|each| [each.global, each.local_1, each.local_2])
            .collect(),
        originator: received.originator_id.map(|id| id.0),
        clusters: received.cluster_list.iter().map(|id| id.0).collect(),
    }
}
