//! Attributes to the wire, in ascending order of their codes.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

use super::{Asn, NextHop, Origin, PathAttributes, UnknownAttribute, code, flag};
use crate::{types::Family, wire::update::MP_REACH};

/// Appends everything but the multiprotocol attributes; NEXT_HOP only if the routes are in the NLRI field.
pub(crate) fn encode_block(
    attributes: &PathAttributes,
    family: Family,
    four_octet_as: bool,
    out: &mut BytesMut,
) {
    const WELL_KNOWN: u8 = flag::TRANSITIVE;
    const TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;
    let origin = match attributes.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    attribute(out, WELL_KNOWN, code::ORIGIN, &[origin]);
    let path = as_path(&attributes.as_path.0, four_octet_as);
    attribute(out, WELL_KNOWN, code::AS_PATH, &path);
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
        let mut value = asn_bytes(aggregator.asn, four_octet_as);
        value.extend(aggregator.router_id.octets());
        attribute(out, TRANSITIVE, code::AGGREGATOR, &value);
    }
    let communities = attributes.communities.iter().flat_map(|each| each.0.to_be_bytes());
    list(out, TRANSITIVE, code::COMMUNITIES, communities.collect());
    if let Some(originator) = attributes.originator_id {
        attribute(out, flag::OPTIONAL, code::ORIGINATOR_ID, &originator.0.to_be_bytes());
    }
    let clusters = attributes.cluster_list.iter().flat_map(|each| each.0.to_be_bytes());
    list(out, flag::OPTIONAL, code::CLUSTER_LIST, clusters.collect());
    let extended = attributes.extended_communities.iter().flat_map(|each| each.0);
    list(out, TRANSITIVE, code::EXTENDED_COMMUNITIES, extended.collect());
    if !four_octet_as {
        encode_four_octets(attributes, out);
    }
    let large = attributes.large_communities.iter();
    let large = large.flat_map(|each| [each.global, each.local_1, each.local_2]);
    list(out, TRANSITIVE, code::LARGE_COMMUNITIES, large.flat_map(u32::to_be_bytes).collect());
    for UnknownAttribute { flags, code, value } in &attributes.unknown {
        attribute(out, *flags, *code, value);
    }
}

/// RFC 6793 §4.2.2: only if something did not fit.
fn encode_four_octets(attributes: &PathAttributes, out: &mut BytesMut) {
    let does_not_fit = |asn: &Asn| u16::try_from(asn.0).is_err();
    const TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;
    if attributes.as_path.0.iter().any(does_not_fit) {
        attribute(out, TRANSITIVE, code::AS4_PATH, &as_path(&attributes.as_path.0, true));
    }
    if let Some(aggregator) = attributes.aggregator.filter(|each| does_not_fit(&each.asn)) {
        let mut value = asn_bytes(aggregator.asn, true);
        value.extend(aggregator.router_id.octets());
        attribute(out, TRANSITIVE, code::AS4_AGGREGATOR, &value);
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

fn list(out: &mut BytesMut, flags: u8, code: u8, value: Vec<u8>) {
    if !value.is_empty() {
        attribute(out, flags, code, &value);
    }
}

fn asn_bytes(asn: Asn, four_octet_as: bool) -> Vec<u8> {
    if four_octet_as {
        asn.0.to_be_bytes().to_vec()
    } else {
        asn.two_octets().to_be_bytes().to_vec()
    }
}

/// A segment holds at most 255.
fn as_path(path: &[Asn], four_octet_as: bool) -> Vec<u8> {
    let mut value = Vec::with_capacity(path.len().saturating_mul(4).saturating_add(2));
    for segment in path.chunks(255) {
        value.extend([2, u8::try_from(segment.len()).unwrap_or(u8::MAX)]);
        for asn in segment {
            if four_octet_as {
                value.extend(asn.0.to_be_bytes());
            } else {
                value.extend(asn.two_octets().to_be_bytes());
            }
        }
    }
    value
}
