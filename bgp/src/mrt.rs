//! The table as an MRT dump (RFC 6396 §4.3, TABLE_DUMP_V2; RFC 8050 for path identifiers), for the tools that read those.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    attr::{PathAttributes, encode_block, encode_next_hop, flag},
    snapshot::{PathSnapshot, RibEntry, Snapshot},
    types::{Asn, Family, RouterId},
    wire::{Item, encode_prefix, update::MP_REACH},
};

const TABLE_DUMP_V2: u16 = 13;
const PEER_INDEX_TABLE: u16 = 1;
const RIB_IPV4_UNICAST: u16 = 2;
const RIB_IPV6_UNICAST: u16 = 4;
/// The same with path identifiers (RFC 8050 §4).
const RIB_IPV4_UNICAST_ADDPATH: u16 = 8;
const RIB_IPV6_UNICAST_ADDPATH: u16 = 10;
/// Bits of a peer's type: its address is IPv6, its AS number has four octets.
const PEER_IPV6: u8 = 1;
const PEER_AS4: u8 = 2;

/// Returns the file: all paths that policy let in. `since_epoch` is the wall time; the snapshot must have the table.
/// More than 65535 peers or paths of one prefix do not exist in the format: what is beyond is left out.
pub fn table_dump(snapshot: &Snapshot, since_epoch: Duration) -> Bytes {
    let mut out = BytesMut::new();
    let time = u32::try_from(since_epoch.as_secs()).unwrap_or(u32::MAX);
    let mut peers = BTreeMap::new();
    record(&mut out, time, PEER_INDEX_TABLE, |out| {
        out.put_u32(snapshot.router_id.0);
        // No name of the view.
        out.put_u16(0);
        out.put_u16(u16::try_from(snapshot.peers.len()).unwrap_or(u16::MAX).saturating_add(1));
        // The first one stands for what is originated here.
        let own = IpAddr::from(Ipv4Addr::from(snapshot.router_id.0));
        put_peer(out, snapshot.router_id, own, snapshot.local_as);
        for (peer, index) in snapshot.peers.iter().zip(1..=u16::MAX.saturating_sub(1)) {
            // Without a session there is no identifier.
            put_peer(out, peer.router_id.unwrap_or(RouterId(0)), peer.address, peer.asn);
            peers.insert(peer.name.as_str(), index);
        }
    });
    for (entry, sequence) in snapshot.rib.iter().zip(0_u32..) {
        let paths = usable(entry, &peers);
        let add_path = paths.iter().any(|(_, path)| path.path_id != 0);
        let kind = match (entry.prefix.family(), add_path) {
            (Family::Ipv4, false) => RIB_IPV4_UNICAST,
            (Family::Ipv6, false) => RIB_IPV6_UNICAST,
            (Family::Ipv4, true) => RIB_IPV4_UNICAST_ADDPATH,
            (Family::Ipv6, true) => RIB_IPV6_UNICAST_ADDPATH,
        };
        if !paths.is_empty() {
            record(&mut out, time, kind, |out| {
                put_entry(out, sequence, entry, (&paths, add_path), time);
            });
        }
    }
    out.freeze()
}

fn usable<'a>(entry: &'a RibEntry, peers: &BTreeMap<&str, u16>) -> Vec<(u16, &'a PathSnapshot)> {
    let accepted = entry
        .paths
        .iter()
        .filter(|path| !matches!(path.usage, crate::snapshot::Usage::Rejected(_)));
    let numbered = accepted.filter_map(|path| match &path.peer {
        None => Some((0, path)),
        Some(name) => peers.get(name.as_str()).map(|index| (*index, path)),
    });
    numbered.take(usize::from(u16::MAX)).collect()
}

/// Time, type, subtype, length, then what `body` appends.
fn record(out: &mut BytesMut, time: u32, subtype: u16, body: impl FnOnce(&mut BytesMut)) {
    out.put_u32(time);
    out.put_u16(TABLE_DUMP_V2);
    out.put_u16(subtype);
    let field = out.len();
    out.put_u32(0);
    let start = out.len();
    body(out);
    let length = u32::try_from(out.len().saturating_sub(start)).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(field..start) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn put_peer(out: &mut BytesMut, id: RouterId, address: IpAddr, asn: Asn) {
    match address {
        IpAddr::V4(address) => {
            out.put_u8(PEER_AS4);
            out.put_u32(id.0);
            out.put_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.put_u8(PEER_AS4 | PEER_IPV6);
            out.put_u32(id.0);
            out.put_slice(&address.octets());
        }
    }
    out.put_u32(asn.0);
}

fn put_entry(
    out: &mut BytesMut,
    sequence: u32,
    entry: &RibEntry,
    (paths, add_path): (&[(u16, &PathSnapshot)], bool),
    time: u32,
) {
    out.put_u32(sequence);
    encode_prefix(&Item { prefix: entry.prefix, path_id: 0 }, false, out);
    out.put_u16(u16::try_from(paths.len()).unwrap_or(u16::MAX));
    for (peer, path) in paths {
        out.put_u16(*peer);
        // When it came is not remembered.
        out.put_u32(time);
        if add_path {
            out.put_u32(path.path_id);
        }
        let block = block(entry.prefix.family(), &path.attributes);
        out.put_u16(u16::try_from(block.len()).unwrap_or(u16::MAX));
        out.put_slice(&block);
    }
}

/// RFC 6396 §4.3.4: four-octet AS numbers; of MP_REACH_NLRI only the next hop.
fn block(family: Family, attributes: &PathAttributes) -> BytesMut {
    let mut block = BytesMut::new();
    encode_block(attributes, family, true, &mut block);
    if let Some(next_hop) = &attributes.next_hop
        && (family == Family::Ipv6 || next_hop.address.is_ipv6())
    {
        let mut octets = BytesMut::new();
        encode_next_hop(next_hop, &mut octets);
        let length = u8::try_from(octets.len()).unwrap_or(0);
        block.put_slice(&[flag::OPTIONAL, MP_REACH, length.saturating_add(1), length]);
        block.put_slice(&octets);
    }
    block
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{LocalRoute, Speaker, SpeakerConfig};

    #[test]
    fn a_dump_byte_by_byte() {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let now = Instant::now();
        let mut speaker = Speaker::new(SpeakerConfig::new(Asn(65001), RouterId(1)), 1, now);
        let next_hop = Some(IpAddr::from([192, 0, 2, 1]));
        let route = LocalRoute { next_hop, ..LocalRoute::default() };
        speaker.originate("10.1.0.0/16".parse().unwrap(), route);
        assert!(speaker.poll_output().is_none());
        let dump = table_dump(&speaker.snapshot(true), Duration::from_secs(0x0102_0304));
        let hex: String = dump.iter().map(|byte| format!("{byte:02x}")).collect();
        let peers = "01020304 000d 0001 00000015 00000001 0000 0001 02 00000001 00000001 0000fde9";
        let entry = "01020304 000d 0002 0000001f 00000000 10 0a01 0001 \
                     0000 01020304 000e 40010100 400200 400304 c0000201";
        let expected: String = format!("{peers}{entry}").split_whitespace().collect();
        assert_eq!(hex, expected);
    }
}
