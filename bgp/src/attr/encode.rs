//! Attributes to the wire, in ascending order of their codes.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

use super::{Asn, LargeCommunity, NextHop, Origin, PathAttributes, UnknownAttribute, code, flag};
use crate::{types::Family, wire::update::MP_REACH};

/// Appends everything but the multiprotocol attributes; NEXT_HOP only if the routes are in the NLRI field.
pub(crate) fn encode_block(
    attributes: &PathAttributes,
    family: Family,
    four_octet_as: bool,
    out: &mut BytesMut,
) {
    const WELL_KNOWN: u8 = flag::TRANSITIVE;
    // RFC 4271 §5: once partial, always partial.
    let transitive = |code| flag::OPTIONAL | flag::TRANSITIVE | attributes.partial.flag(code);
    let origin = match attributes.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    attribute(out, WELL_KNOWN, code::ORIGIN, &[origin]);
    as_path(out, WELL_KNOWN, code::AS_PATH, &attributes.as_path.0, four_octet_as);
    if let (Family::Ipv4, Some(NextHop { address: IpAddr::V4(address), .. })) =
        (family, attributes.next_hop)
    {
        attribute(out, WELL_KNOWN, code::NEXT_HOP, &address.octets());
    }
    if let Some(med) = attributes.med {
        attribute(out, flag::OPTIONAL, code::MED, &med.to_be_bytes());
    }
    if let Some(local_pref) = attributes.local_pref {
        attribute(out, WELL_KNOWN, code::LOCAL_PREF, &local_pref.to_be_bytes());
    }
    if attributes.atomic_aggregate {
        attribute(out, WELL_KNOWN, code::ATOMIC_AGGREGATE, &[]);
    }
    if let Some(aggregator) = attributes.aggregator {
        let flags = transitive(code::AGGREGATOR);
        header(out, flags, code::AGGREGATOR, if four_octet_as { 8 } else { 6 });
        put_asn(out, aggregator.asn, four_octet_as);
        out.put_slice(&aggregator.router_id.octets());
    }
    let communities = attributes.communities.iter().map(|each| each.0.to_be_bytes());
    list(out, transitive(code::COMMUNITIES), code::COMMUNITIES, communities);
    if let Some(originator) = attributes.originator_id {
        attribute(out, flag::OPTIONAL, code::ORIGINATOR_ID, &originator.0.to_be_bytes());
    }
    let clusters = attributes.cluster_list.iter().map(|each| each.0.to_be_bytes());
    list(out, flag::OPTIONAL, code::CLUSTER_LIST, clusters);
    let extended = attributes.extended_communities.iter().map(|each| each.0);
    list(out, transitive(code::EXTENDED_COMMUNITIES), code::EXTENDED_COMMUNITIES, extended);
    if !four_octet_as {
        encode_four_octets(attributes, out);
    }
    let large = attributes.large_communities.iter().map(large_bytes);
    list(out, transitive(code::LARGE_COMMUNITIES), code::LARGE_COMMUNITIES, large);
    for UnknownAttribute { flags, code, value } in &attributes.unknown {
        attribute(out, *flags, *code, value);
    }
}

/// RFC 6793 §4.2.2: only if something did not fit.
fn encode_four_octets(attributes: &PathAttributes, out: &mut BytesMut) {
    let does_not_fit = |asn: &Asn| u16::try_from(asn.0).is_err();
    const TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;
    if attributes.as_path.0.iter().any(does_not_fit) {
        as_path(out, TRANSITIVE, code::AS4_PATH, &attributes.as_path.0, true);
    }
    if let Some(aggregator) = attributes.aggregator.filter(|each| does_not_fit(&each.asn)) {
        header(out, TRANSITIVE, code::AS4_AGGREGATOR, 8);
        put_asn(out, aggregator.asn, true);
        out.put_slice(&aggregator.router_id.octets());
    }
}

/// Appends MP_REACH_NLRI up to the prefixes, of which `nlri_length` bytes must follow.
pub(crate) fn encode_mp_reach_head(
    family: Family,
    next_hop: &NextHop,
    nlri_length: usize,
    out: &mut BytesMut,
) {
    let octets = next_hop_length(next_hop);
    let length = nlri_length.saturating_add(usize::from(octets)).saturating_add(5);
    header(out, flag::OPTIONAL | flag::EXTENDED_LENGTH, MP_REACH, length);
    out.put_u16(family.afi());
    out.put_slice(&[1, octets]);
    encode_next_hop(next_hop, out);
    out.put_u8(0);
}

const fn next_hop_length(next_hop: &NextHop) -> u8 {
    match (next_hop.address, next_hop.link_local) {
        (IpAddr::V4(_), None) => 4,
        (IpAddr::V4(_), Some(_)) => 20,
        (IpAddr::V6(_), None) => 16,
        (IpAddr::V6(_), Some(_)) => 32,
    }
}

/// Appends the octets of a next hop.
pub(crate) fn encode_next_hop(next_hop: &NextHop, out: &mut BytesMut) {
    match next_hop.address {
        IpAddr::V4(address) => out.put_slice(&address.octets()),
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
    if let Some(link_local) = next_hop.link_local {
        out.put_slice(&link_local.octets());
    }
}

pub(crate) fn header(out: &mut BytesMut, flags: u8, code: u8, length: usize) {
    match u8::try_from(length) {
        Ok(length) if flags & flag::EXTENDED_LENGTH == 0 => out.put_slice(&[flags, code, length]),
        _ => {
            out.put_slice(&[flags | flag::EXTENDED_LENGTH, code]);
            out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
        }
    }
}

fn attribute(out: &mut BytesMut, flags: u8, code: u8, value: &[u8]) {
    header(out, flags, code, value.len());
    out.put_slice(value);
}

fn list<const N: usize>(
    out: &mut BytesMut,
    flags: u8,
    code: u8,
    items: impl ExactSizeIterator<Item = [u8; N]>,
) {
    if items.len() > 0 {
        header(out, flags, code, items.len().saturating_mul(N));
        items.for_each(|item| out.put_slice(&item));
    }
}

fn large_bytes(community: &LargeCommunity) -> [u8; 12] {
    let mut bytes = [0; 12];
    let parts = [community.global, community.local_1, community.local_2];
    for (place, part) in bytes.chunks_exact_mut(4).zip(parts) {
        place.copy_from_slice(&part.to_be_bytes());
    }
    bytes
}

fn put_asn(out: &mut BytesMut, asn: Asn, four_octet_as: bool) {
    if four_octet_as {
        out.put_u32(asn.0);
    } else {
        out.put_u16(asn.two_octets());
    }
}

/// A segment holds at most 255.
fn as_path(out: &mut BytesMut, flags: u8, code: u8, path: &[Asn], four_octet_as: bool) {
    const SEGMENT: usize = 255;
    let numbers = path.len().saturating_mul(if four_octet_as { 4 } else { 2 });
    let heads = path.len().div_ceil(SEGMENT).saturating_mul(2);
    header(out, flags, code, numbers.saturating_add(heads));
    for segment in path.chunks(SEGMENT) {
        out.put_slice(&[2, u8::try_from(segment.len()).unwrap_or(u8::MAX)]);
        segment.iter().for_each(|asn| put_asn(out, *asn, four_octet_as));
    }
}
