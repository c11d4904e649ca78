//! The readings of netgauze-bgp-pkt and bgpkit-parser.

use std::{collections::HashMap, net::IpAddr};

use bgpkit_parser::models::{
    Afi, AsnLength, AttributeValue, Community, MetaCommunity, NetworkPrefix, NextHopAddress,
    Origin, Safi,
};
use netgauze_bgp_pkt::{
    nlri::{Ipv4UnicastAddress, Ipv6UnicastAddress},
    path_attribute::{Aggregator, AsPath, MpReach, MpUnreach, PathAttributeValue},
    wire::deserializer::BgpParsingContext,
};
use netgauze_iana::address_family::AddressType;
use netgauze_parse_utils::{reader::SliceReader, traits::ParseFromWithOneInput as _};

use crate::reading::{Attributes, Reading, Route, Terms, Verdict};

/// What came of AGGREGATOR and AS4_AGGREGATOR.
#[derive(Default)]
struct Aggregated {
    asn: Option<u32>,
    has_as4: bool,
}

/// RFC 6793 §4.2.3, on paths of sequences.
fn merged(
    path: Vec<u32>,
    as4_path: Option<Vec<u32>>,
    terms: Terms,
    aggregated: Aggregated,
) -> Vec<u32> {
    // Only of both attributes together the old one can say that an old speaker aggregated.
    let is_of_old = aggregated.has_as4 && aggregated.asn.is_some_and(|asn| asn != 23456);
    match as4_path {
        Some(tail) if !terms.four_octets && !is_of_old && tail.len() <= path.len() => {
            let leading = path.len() - tail.len();
            path.into_iter().take(leading).chain(tail).collect()
        }
        _ => path,
    }
}

pub(crate) fn netgauze(terms: Terms, body: &[u8]) -> Verdict {
    let families = [AddressType::Ipv4Unicast, AddressType::Ipv6Unicast];
    let add_path: HashMap<_, _> = families.map(|family| (family, terms.add_path)).into();
    let mut context =
        BgpParsingContext::new(terms.four_octets, HashMap::new(), add_path, true, true, true, true);
    let mut reader = SliceReader::new(body);
    let update = netgauze_bgp_pkt::update::BgpUpdateMessage::parse(&mut reader, &mut context)
        .map_err(|error| error.to_string())?;
    let v4 = |each: &Ipv4UnicastAddress| {
        let net = each.network().address();
        Route::new(net.addr().into(), net.prefix_len(), each.path_id().unwrap_or(0))
    };
    let v6 = |each: &Ipv6UnicastAddress| {
        let net = each.network().address();
        Route::new(net.addr().into(), net.prefix_len(), each.path_id().unwrap_or(0))
    };
    let mut reading = Reading::default();
    reading.withdrawn.extend(update.withdraw_routes().iter().map(v4));
    let mut attributes = Attributes::default();
    let (mut reach, mut as4_path, mut aggregated) = (None, None, Aggregated::default());
    for attribute in update.path_attributes() {
        match attribute.value() {
            PathAttributeValue::Origin(origin) => attributes.origin = (*origin).into(),
            PathAttributeValue::AsPath(path) => attributes.as_path = sequence(path)?,
            PathAttributeValue::As4Path(path) => {
                let asns = path.segments().iter().flat_map(|segment| segment.as_numbers());
                as4_path = Some(asns.copied().collect());
            }
            PathAttributeValue::Aggregator(Aggregator::As2Aggregator(aggregator)) => {
                aggregated.asn = Some((*aggregator.asn()).into());
            }
            // It knows no AS4_AGGREGATOR.
            PathAttributeValue::UnknownAttribute(unknown) if unknown.code() == 18 => {
                aggregated.has_as4 = true;
            }
            PathAttributeValue::NextHop(next_hop) => {
                attributes.next_hop = Some(next_hop.next_hop().into());
            }
            PathAttributeValue::MultiExitDiscriminator(med) => attributes.med = Some(med.metric()),
            PathAttributeValue::LocalPreference(each) => {
                attributes.local_pref = Some(each.metric());
            }
            PathAttributeValue::Communities(each) => attributes
                .communities
                .extend(each.communities().iter().map(|community| community.value())),
            PathAttributeValue::LargeCommunities(each) => {
                attributes.large_communities.extend(
                    each.communities()
                        .iter()
                        .map(|each| [each.global_admin(), each.local_data1(), each.local_data2()]),
                );
            }
            PathAttributeValue::Originator(each) => attributes.originator = Some(each.id().into()),
            PathAttributeValue::ClusterList(each) => attributes
                .clusters
                .extend(each.cluster_list().iter().map(|cluster| u32::from(cluster.id()))),
            PathAttributeValue::MpReach(each) => reach = Some(each),
            PathAttributeValue::MpUnreach(MpUnreach::Ipv4Unicast { nlri }) => {
                reading.withdrawn.extend(nlri.iter().map(v4));
            }
            PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => {
                reading.withdrawn.extend(nlri.iter().map(v6));
            }
            _ => (),
        }
    }
    attributes.as_path = merged(attributes.as_path, as4_path, terms, aggregated);
    for route in update.nlri().iter().map(v4) {
        reading.announced.insert(route, attributes.clone());
    }
    let (routes, next_hop): (Vec<Route>, IpAddr) = match reach {
        Some(MpReach::Ipv4Unicast { next_hop, nlri, .. }) => {
            (nlri.iter().map(v4).collect(), *next_hop)
        }
        Some(MpReach::Ipv6Unicast { next_hop_global, nlri, .. }) => {
            (nlri.iter().map(v6).collect(), (*next_hop_global).into())
        }
        _ => return Ok(reading.settle(terms)),
    };
    attributes.next_hop = Some(next_hop);
    reading.announced.extend(routes.into_iter().map(|route| (route, attributes.clone())));
    Ok(reading.settle(terms))
}

fn sequence(path: &AsPath) -> Result<Vec<u32>, String> {
    Ok(match path {
        AsPath::As2PathSegments(segments) => {
            segments.iter().flat_map(|each| each.as_numbers()).map(|asn| u32::from(*asn)).collect()
        }
        AsPath::As4PathSegments(segments) => {
            segments.iter().flat_map(|each| each.as_numbers()).copied().collect()
        }
    })
}

pub(crate) fn bgpkit(terms: Terms, body: &[u8]) -> Verdict {
    let length = if terms.four_octets { AsnLength::Bits32 } else { AsnLength::Bits16 };
    let bytes = bytes::Bytes::copy_from_slice(body);
    let update = bgpkit_parser::parser::bgp::messages::parse_bgp_update_message(
        bytes,
        terms.add_path,
        &length,
    );
    let update = update.map_err(|error| error.to_string())?;
    if let Some(warning) = update.attributes.validation_warnings().first() {
        return Err(warning.to_string());
    }
    let route = |each: &NetworkPrefix| {
        Route::new(each.prefix.addr(), each.prefix.prefix_len(), each.path_id.unwrap_or(0))
    };
    let mut reading = Reading::default();
    reading.withdrawn.extend(update.withdrawn_prefixes.iter().map(route));
    let found = &update.attributes;
    let path = |path: Option<&bgpkit_parser::models::AsPath>| {
        path.map(|path| {
            path.iter_segments()
                .flat_map(|each| each.iter())
                .map(|asn| asn.to_u32())
                .collect::<Vec<u32>>()
        })
    };
    let mut aggregated = Aggregated::default();
    for value in found.iter() {
        match value {
            AttributeValue::Aggregator { asn, .. } => aggregated.asn = Some(asn.to_u32()),
            AttributeValue::As4Aggregator { .. } => aggregated.has_as4 = true,
            _ => (),
        }
    }
    let mut attributes = Attributes {
        origin: match found.origin() {
            Origin::IGP => 0,
            Origin::EGP => 1,
            Origin::INCOMPLETE => 2,
        },
        as_path: merged(
            path(found.as_path()).unwrap_or_default(),
            path(found.as4_path()),
            terms,
            aggregated,
        ),
        next_hop: found.next_hop(),
        med: found.multi_exit_discriminator(),
        local_pref: found.local_preference(),
        originator: found.origin_id().map(u32::from),
        clusters: found.clusters().unwrap_or_default().to_vec(),
        ..Attributes::default()
    };
    for community in found.iter_communities() {
        match community {
            MetaCommunity::Plain(community) => {
                attributes.communities.insert(match community {
                    Community::NoExport => 0xffff_ff01,
                    Community::NoAdvertise => 0xffff_ff02,
                    Community::NoExportSubConfed => 0xffff_ff03,
                    Community::Custom(asn, value) => asn.to_u32() << 16 | u32::from(value),
                });
            }
            MetaCommunity::Large(each) => {
                let [first, second] = each.local_data;
                attributes.large_communities.insert([each.global_admin, first, second]);
            }
            _ => (),
        }
    }
    for prefix in &update.announced_prefixes {
        reading.announced.insert(route(prefix), attributes.clone());
    }
    let ours = |afi, safi| matches!(afi, Afi::Ipv4 | Afi::Ipv6) && safi == Safi::Unicast;
    if let Some(unreach) = found.get_unreachable_nlri()
        && ours(unreach.afi, unreach.safi)
    {
        reading.withdrawn.extend(unreach.prefixes.iter().map(route));
    }
    if let Some(reach) = found.get_reachable_nlri()
        && ours(reach.afi, reach.safi)
    {
        attributes.next_hop = reach.next_hop.as_ref().map(NextHopAddress::addr);
        for prefix in &reach.prefixes {
            reading.announced.insert(route(prefix), attributes.clone());
        }
    }
    Ok(reading.settle(terms))
}
