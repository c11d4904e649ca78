//! What a peer made of what we sent to it, read without any code of ours, beside what RFC 4271 §5 and §9.2, RFC 1997 and
//! RFC 4456 let it be told.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bgp::{Community, PathAttributes, Prefix, snapshot::Usage};

use super::bench::{Bench, asn};

/// Attributes by code: flags and value. NEXT_HOP is that of MP_REACH_NLRI where there is one.
type Attributes = BTreeMap<u8, (u8, Vec<u8>)>;

const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const MED: u8 = 4;
const LOCAL_PREF: u8 = 5;
const COMMUNITIES: u8 = 8;
const ORIGINATOR_ID: u8 = 9;
const CLUSTER_LIST: u8 = 10;

/// Families whose End-of-RIB came, and everything that was announced and not withdrawn.
#[derive(Default)]
pub(crate) struct Heard {
    routes: BTreeMap<Prefix, Attributes>,
    ended: [bool; 2],
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet))
}

/// Cuts off a length field of some octets and what it counts.
fn counted(bytes: &[u8], field: usize) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_at(field);
    rest.split_at(number(length))
}

fn prefixes(mut bytes: &[u8], is_ipv6: bool) -> Vec<Prefix> {
    let mut found = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (octets, rest) = rest.split_at(usize::from(length.div_ceil(8)));
        let mut whole = [0; 16];
        whole[..octets.len()].copy_from_slice(octets);
        let v4 = Ipv4Addr::from(<[u8; 4]>::try_from(&whole[..4]).unwrap());
        let address = if is_ipv6 { IpAddr::V6(Ipv6Addr::from(whole)) } else { IpAddr::V4(v4) };
        found.push(Prefix::new(address, *length).expect("a prefix of the family"));
        bytes = rest;
    }
    found
}

impl Heard {
    /// Reads all messages; `is_dump`: nothing but a table and its end.
    pub(crate) fn read(&mut self, mut stream: &[u8], is_dump: bool) {
        while !stream.is_empty() {
            let (message, rest) = stream.split_at(number(&stream[16..18]));
            stream = rest;
            if message[18] == 2 {
                self.update(&message[19..], is_dump);
            }
        }
        assert!(!is_dump || self.ended == [true; 2], "no End-of-RIB: {:?}", self.ended);
    }

    fn update(&mut self, body: &[u8], is_dump: bool) {
        let (withdrawn, rest) = counted(body, 2);
        let (mut section, nlri) = counted(rest, 2);
        let (gone, mut new) = (prefixes(withdrawn, false), prefixes(nlri, false));
        let mut attributes = Attributes::new();
        let mut is_end = body.len() == 4;
        let mut ends = 0;
        let mut gone_v6 = Vec::new();
        while let [flags, code, rest @ ..] = section {
            let (value, rest) = counted(rest, if flags & 0x10 == 0 { 1 } else { 2 });
            section = rest;
            match code {
                14 => {
                    let (next_hop, rest) = counted(&value[3..], 1);
                    attributes.insert(NEXT_HOP, (0x40, next_hop.to_vec()));
                    new.extend(prefixes(&rest[1..], value[..2] == [0, 2]));
                }
                15 => {
                    gone_v6 = prefixes(&value[3..], value[..2] == [0, 2]);
                    (is_end, ends) = (gone_v6.is_empty(), 1);
                }
                code => {
                    assert!(attributes.insert(*code, (*flags, value.to_vec())).is_none());
                }
            }
        }
        if is_end {
            self.ended[ends] = true;
            return;
        }
        for prefix in gone.iter().chain(&gone_v6) {
            assert!(!is_dump, "{prefix} is withdrawn from somebody new");
            assert!(self.routes.remove(prefix).is_some(), "{prefix} was never announced");
        }
        for prefix in new {
            let family = usize::from(prefix.address().is_ipv6());
            assert!(!(is_dump && self.ended[family]), "{prefix} comes after End-of-RIB");
            self.routes.insert(prefix, attributes.clone());
        }
    }

    /// Compares with what the speaker's table says.
    pub(crate) fn check(&self, bench: &Bench, peer: u8) {
        let external = peer.is_multiple_of(2);
        let mut wanted = 0;
        for entry in bench.speaker.snapshot(true).rib {
            let best = entry.paths.iter().find(|path| matches!(path.usage, Usage::Best(_)));
            let heard = self.routes.get(&entry.prefix);
            let told =
                best.filter(|path| may_pass(&path.attributes, path.peer.is_some(), external));
            wanted += usize::from(told.is_some());
            assert_eq!(told.is_some(), heard.is_some(), "peer {peer} and {entry:#?}");
            let (Some(path), Some(heard)) = (told, heard) else { continue };
            let from = path.peer.as_ref().map(|name| name.parse::<u8>().unwrap());
            let expected = expected(&path.attributes, from, external);
            for (code, value) in expected {
                let found = heard.get(&code).map(|(_, value)| value.as_slice());
                assert_eq!(found, value.as_deref(), "attribute {code} of {entry:#?} to {peer}");
            }
            next_hop(heard, &path.attributes, from, &entry.prefix, external);
            unknown(heard, &path.attributes);
        }
        assert_eq!(self.routes.len(), wanted, "peer {peer} was told of what there is not");
    }
}

/// RFC 1997, and RFC 9494 §4.3: nobody here knows long-lived graceful restart.
fn may_pass(attributes: &PathAttributes, is_learned: bool, external: bool) -> bool {
    let has = |name: Community| attributes.communities.contains(&name);
    let inside = [Community::NO_EXPORT, Community::NO_EXPORT_SUBCONFED];
    let stays = has(Community::NO_ADVERTISE) || external && inside.into_iter().any(has);
    !(is_learned && stays || has(Community::LLGR_STALE))
}

/// The values of attributes, and those that must not be there.
fn expected(
    path: &PathAttributes,
    from: Option<u8>,
    external: bool,
) -> BTreeMap<u8, Option<Vec<u8>>> {
    let mut ases: Vec<u32> = path.as_path.0.iter().map(|asn| asn.0).collect();
    if external {
        ases.insert(0, 65001);
    }
    let segments = ases.chunks(255).flat_map(|segment| {
        let head = [2, u8::try_from(segment.len()).unwrap()];
        head.into_iter().chain(segment.iter().flat_map(|asn| asn.to_be_bytes()))
    });
    let four = |number: u32| number.to_be_bytes().to_vec();
    let list = |numbers: Vec<u32>| {
        (!numbers.is_empty()).then(|| numbers.into_iter().flat_map(u32::to_be_bytes).collect())
    };
    // RFC 4456 §8: who is inside stands for whoever brought the route in.
    let inside = from.filter(|peer| !external && asn(*peer) == 65001);
    let originator =
        inside.map(|peer| path.originator_id.map_or(0x0a00_0000 | u32::from(peer), |id| id.0));
    let clusters = inside.map(|_| {
        std::iter::once(0x0a00_0001).chain(path.cluster_list.iter().map(|id| id.0)).collect()
    });
    let med = path.med.filter(|_| !external || from.is_none());
    let communities = path.communities.iter().map(|each| each.0).collect();
    BTreeMap::from([
        (ORIGIN, Some(vec![path.origin as u8])),
        (AS_PATH, Some(segments.collect())),
        (MED, med.map(four)),
        (LOCAL_PREF, (!external).then(|| four(path.local_pref.unwrap_or(100)))),
        (COMMUNITIES, list(communities)),
        (ORIGINATOR_ID, originator.map(four)),
        (CLUSTER_LIST, clusters.and_then(list)),
    ])
}

/// RFC 4271 §5.1.3, RFC 4456 §10: ours towards other systems, the received one inside.
fn next_hop(
    heard: &Attributes,
    path: &PathAttributes,
    from: Option<u8>,
    prefix: &Prefix,
    external: bool,
) {
    let received = path.next_hop.map(|next_hop| next_hop.address);
    // What means nothing on another link is replaced.
    let received =
        received.filter(|each| !matches!(each, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    let own: IpAddr = match prefix.address() {
        IpAddr::V4(_) => [10, 0, 0, 1].into(),
        IpAddr::V6(_) => [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
    };
    let kept = received.filter(|_| !external && from.is_some()).unwrap_or(own);
    let kept = match kept {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    assert_eq!(heard[&NEXT_HOP].1, kept, "next hop of {prefix}");
}

/// RFC 4271 §5: what is not known is passed on, marked, if it is transitive.
fn unknown(heard: &Attributes, path: &PathAttributes) {
    for (code, (flags, value)) in heard.iter().filter(|(code, _)| **code > 40) {
        assert_eq!(flags & 0xe0, 0xe0, "unknown attribute {code} is passed on");
        assert!(path.unknown.iter().any(|each| each.code == *code && each.value == *value));
    }
    for each in path.unknown.iter().filter(|each| each.code > 40) {
        assert!(heard.contains_key(&each.code), "unknown attribute {} is gone", each.code);
    }
}
