//! Attributes from the wire, and what each error costs (RFC 7606 §7 and its successors).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Aggregator, AsPath, Community, ExtendedCommunity, LargeCommunity, NextHop, Origin,
    PathAttributes, UnknownAttribute, code, flag,
};
use crate::{
    types::{Asn, PeerType, RouterId},
    wire::{
        Notification, Reader,
        update::{MP_REACH, MP_UNREACH, RawAttribute, attributes},
    },
};

/// What the meaning of the bytes depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Context {
    pub(crate) peer_type: PeerType,
    pub(crate) four_octet_as: bool,
}

/// What an error costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// The attribute is ignored.
    Discard,
    /// The routes of the message count as withdrawn.
    Withdraw,
}

/// Something wrong with an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: u8,
    pub(crate) treatment: Treatment,
    pub(crate) why: &'static str,
}

/// The attributes as far as they could be read, and what was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) attributes: PathAttributes,
    pub(crate) faults: Vec<Fault>,
}

impl Decoded {
    /// Returns why the routes of the message count as withdrawn.
    pub(crate) fn withdraw(&self) -> Option<Fault> {
        self.faults.iter().find(|fault| fault.treatment == Treatment::Withdraw).copied()
    }
}

type Flaw = (Treatment, &'static str);
const WITHDRAW: Treatment = Treatment::Withdraw;
const DISCARD: Treatment = Treatment::Discard;

/// Reads the attributes of a message that announces routes. An error ends the session.
pub(crate) fn decode(section: &[u8], context: Context) -> Result<Decoded, Notification> {
    let mut reading = Reading::new(context);
    for attribute in attributes(section) {
        let Ok(attribute) = attribute else {
            reading.fault(0, (WITHDRAW, "an attribute overruns the section"));
            break;
        };
        reading.attribute(&attribute)?;
    }
    Ok(reading.finish())
}

/// Returns the next hop of MP_REACH_NLRI; its length was checked.
pub(crate) fn decode_next_hop(bytes: &[u8]) -> Option<NextHop> {
    let mut reader = Reader::new(bytes);
    if bytes.len() == 4 {
        return Some(IpAddr::V4(Ipv4Addr::from(reader.array::<4>().ok()?)).into());
    }
    let address = IpAddr::V6(Ipv6Addr::from(reader.array::<16>().ok()?));
    let second = reader.array::<16>().ok().map(Ipv6Addr::from);
    Some(NextHop { address, link_local: second.filter(Ipv6Addr::is_unicast_link_local) })
}

struct Reading {
    context: Context,
    /// One bit for each code.
    seen: [u64; 4],
    attributes: PathAttributes,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    faults: Vec<Fault>,
}

impl Reading {
    fn new(context: Context) -> Self {
        Self {
            context,
            seen: [0; 4],
            attributes: PathAttributes::default(),
            as4_path: None,
            as4_aggregator: None,
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, code: u8, (treatment, why): Flaw) {
        self.faults.push(Fault { code, treatment, why });
    }

    fn has_seen(&self, code: u8) -> bool {
        let word = self.seen.get(usize::from(code >> 6)).copied().unwrap_or(0);
        word >> (code & 63) & 1 == 1
    }

    fn attribute(&mut self, raw: &RawAttribute<'_>) -> Result<(), Notification> {
        if self.has_seen(raw.code) {
            // RFC 7606 §3 g.
            self.fault(raw.code, (DISCARD, "duplicate attribute"));
            return Ok(());
        }
        if let Some(word) = self.seen.get_mut(usize::from(raw.code >> 6)) {
            *word |= 1 << (raw.code & 63);
        }
        let Some(expected) = expected_flags(raw.code) else {
            return self.unknown(raw);
        };
        if raw.flags & (flag::OPTIONAL | flag::TRANSITIVE) != expected {
            self.fault(raw.code, (WITHDRAW, "flags do not fit the attribute"));
        } else if let Err(flaw) = self.known(raw) {
            self.fault(raw.code, flaw);
        } else if raw.flags & flag::PARTIAL != 0 {
            self.attributes.partial.insert(raw.code);
        }
        Ok(())
    }

    fn unknown(&mut self, raw: &RawAttribute<'_>) -> Result<(), Notification> {
        if raw.flags & flag::OPTIONAL == 0 {
            return Err(Notification::new(3, 2, raw.whole));
        }
        if raw.flags & flag::TRANSITIVE != 0 {
            self.attributes.unknown.push(UnknownAttribute {
                flags: flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL,
                code: raw.code,
                value: raw.value.to_vec(),
            });
        }
        Ok(())
    }

    fn known(&mut self, raw: &RawAttribute<'_>) -> Result<(), Flaw> {
        let value = raw.value;
        let external = self.context.peer_type == PeerType::External;
        let attributes = &mut self.attributes;
        match raw.code {
            code::ORIGIN => attributes.origin = origin(value)?,
            code::AS_PATH => attributes.as_path = as_path(value, self.context.four_octet_as)?,
            code::NEXT_HOP => attributes.next_hop = Some(next_hop(value)?),
            code::MED => attributes.med = Some(number(value)?),
            code::LOCAL_PREF if external => return Err((DISCARD, "from an external peer")),
            code::LOCAL_PREF => attributes.local_pref = Some(number(value)?),
            code::ATOMIC_AGGREGATE if value.is_empty() => attributes.atomic_aggregate = true,
            code::ATOMIC_AGGREGATE => return Err((DISCARD, "length is not 0")),
            code::AGGREGATOR => {
                attributes.aggregator = Some(aggregator(value, self.context.four_octet_as)?);
            }
            code::COMMUNITIES => {
                attributes.communities = list(value, |bytes| Community(u32::from_be_bytes(bytes)))?;
            }
            code::ORIGINATOR_ID | code::CLUSTER_LIST if external => {
                return Err((DISCARD, "from an external peer"));
            }
            code::ORIGINATOR_ID => attributes.originator_id = Some(RouterId(number(value)?)),
            code::CLUSTER_LIST => {
                attributes.cluster_list = list(value, |bytes| RouterId(u32::from_be_bytes(bytes)))?;
            }
            code::EXTENDED_COMMUNITIES => {
                attributes.extended_communities = list(value, ExtendedCommunity)?;
            }
            code::LARGE_COMMUNITIES => attributes.large_communities = list(value, large)?,
            code::AS4_PATH => self.as4_path = Some(as4_path(value)?),
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(value, true)?),
            // The prefixes were read before, with the parts of the message.
            MP_REACH | MP_UNREACH => (),
            // Not enabled for any peer (RFC 7311 §3.2).
            code::AIGP => return Err((DISCARD, "AIGP is not enabled")),
            code::IPV6_EXTENDED_COMMUNITIES => {
                list::<20, _>(value, |_| ())?;
                self.pass_on(raw);
            }
            // RFC 8669 §5: a segment routing domain ends where the AS does.
            code::PREFIX_SID if external => return Err((DISCARD, "from an external peer")),
            code::PREFIX_SID => {
                prefix_sid(value)?;
                self.pass_on(raw);
            }
            code::OTC => {
                number(value)?;
                self.pass_on(raw);
            }
            _ => self.pass_on(raw),
        }
        Ok(())
    }

    /// Keeps a known but unused transitive attribute as it came.
    fn pass_on(&mut self, raw: &RawAttribute<'_>) {
        self.attributes.unknown.push(UnknownAttribute {
            // RFC 4271 §4.3: the lower four bits are zero when sent.
            flags: raw.flags & (flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL),
            code: raw.code,
            value: raw.value.to_vec(),
        });
    }

    fn finish(mut self) -> Decoded {
        let required = [
            (code::ORIGIN, "ORIGIN is missing"),
            (code::AS_PATH, "AS_PATH is missing"),
            (code::LOCAL_PREF, "LOCAL_PREF is missing"),
        ];
        for (code, why) in required {
            let expected = code != code::LOCAL_PREF || self.context.peer_type == PeerType::Internal;
            if expected && !self.has_seen(code) {
                self.fault(code, (WITHDRAW, why));
            }
        }
        if !self.context.four_octet_as {
            self.merge_four_octets();
        }
        self.attributes.unknown.sort_by_key(|unknown| unknown.code);
        Decoded { attributes: self.attributes, faults: self.faults }
    }

    /// RFC 6793 §4.2.3: what an old speaker carried along unread.
    fn merge_four_octets(&mut self) {
        // Only both together say that an old speaker aggregated: its own number fits two octets.
        if let (Some(aggregator), Some(_)) = (self.attributes.aggregator, self.as4_aggregator) {
            if aggregator.asn != Asn::TRANS {
                return;
            }
            self.attributes.aggregator = self.as4_aggregator;
        }
        if let Some(AsPath(tail)) = self.as4_path.take() {
            let whole = &mut self.attributes.as_path.0;
            if let Some(leading) = whole.len().checked_sub(tail.len()) {
                whole.truncate(leading);
                whole.extend(tail);
            }
        }
    }
}

/// Returns the optional and transitive bits an attribute must have; `None` if we do not know it.
const fn expected_flags(code: u8) -> Option<u8> {
    const WELL_KNOWN: u8 = flag::TRANSITIVE;
    const TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;
    const NON_TRANSITIVE: u8 = flag::OPTIONAL;
    Some(match code {
        code::ORIGIN
        | code::AS_PATH
        | code::NEXT_HOP
        | code::LOCAL_PREF
        | code::ATOMIC_AGGREGATE => WELL_KNOWN,
        code::MED
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::AIGP
        | MP_REACH
        | MP_UNREACH => NON_TRANSITIVE,
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::IPV6_EXTENDED_COMMUNITIES
        | code::LARGE_COMMUNITIES
        | code::OTC
        | code::PREFIX_SID => TRANSITIVE,
        _ => return None,
    })
}

fn origin(value: &[u8]) -> Result<Origin, Flaw> {
    match value {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        [_] => Err((WITHDRAW, "ORIGIN is not 0, 1 or 2")),
        _ => Err((WITHDRAW, "length is not 1")),
    }
}

fn number(value: &[u8]) -> Result<u32, Flaw> {
    let octets = <[u8; 4]>::try_from(value).map_err(|_| (WITHDRAW, "length is not 4"))?;
    Ok(u32::from_be_bytes(octets))
}

fn next_hop(value: &[u8]) -> Result<NextHop, Flaw> {
    let octets = <[u8; 4]>::try_from(value).map_err(|_| (WITHDRAW, "length is not 4"))?;
    Ok(IpAddr::V4(Ipv4Addr::from(octets)).into())
}

/// A list that must not be empty, of items of one size (RFC 7606 §7.8, §7.14).
fn list<const N: usize, T>(value: &[u8], item: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Flaw> {
    let (chunks, rest) = value.as_chunks::<N>();
    if chunks.is_empty() || !rest.is_empty() {
        return Err((WITHDRAW, "length is not a multiple of the item size"));
    }
    Ok(chunks.iter().map(|chunk| item(*chunk)).collect())
}

fn large(bytes: [u8; 12]) -> LargeCommunity {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    LargeCommunity {
        global: u32::from_be_bytes([a, b, c, d]),
        local_1: u32::from_be_bytes([e, f, g, h]),
        local_2: u32::from_be_bytes([i, j, k, l]),
    }
}

fn aggregator(value: &[u8], four_octet_as: bool) -> Result<Aggregator, Flaw> {
    let malformed = |_| (DISCARD, "length does not fit");
    let mut reader = Reader::new(value);
    let asn = if four_octet_as {
        reader.u32().map_err(malformed)?
    } else {
        u32::from(reader.u16().map_err(malformed)?)
    };
    let router_id = Ipv4Addr::from(reader.array::<4>().map_err(malformed)?);
    if !reader.is_empty() {
        return Err((DISCARD, "length does not fit"));
    }
    // RFC 7607 §2.
    if asn == 0 {
        return Err((DISCARD, "AS 0"));
    }
    Ok(Aggregator { asn: Asn(asn), router_id })
}

/// RFC 8669 §3, §6: TLVs within bounds, and Label-Index (1) and Originator SRGB (3) of the lengths they have.
fn prefix_sid(value: &[u8]) -> Result<(), Flaw> {
    let malformed = (DISCARD, "malformed PREFIX_SID");
    let mut reader = Reader::new(value);
    while !reader.is_empty() {
        let kind = reader.u8().map_err(|_| malformed)?;
        let length = reader.long_block().map_err(|_| malformed)?.len();
        let fits = match kind {
            1 => length == 7,
            3 => length > 2 && length.saturating_sub(2).is_multiple_of(6),
            _ => true,
        };
        if !fits {
            return Err(malformed);
        }
    }
    Ok(())
}

const AS_SEQUENCE: u8 = 2;

fn as_path(value: &[u8], four_octet_as: bool) -> Result<AsPath, Flaw> {
    let overrun = |_| (WITHDRAW, "a segment overruns the attribute");
    let mut reader = Reader::new(value);
    // Room for one more: it will probably be prepended.
    let numbers = value.len() >> if four_octet_as { 2 } else { 1 };
    let mut path = Vec::with_capacity(numbers.saturating_add(1));
    while !reader.is_empty() {
        let (kind, count) = (reader.u8().map_err(overrun)?, reader.u8().map_err(overrun)?);
        match kind {
            AS_SEQUENCE => (),
            1 => return Err((WITHDRAW, "AS_SET (RFC 9774)")),
            3 | 4 => return Err((WITHDRAW, "confederation segment")),
            _ => return Err((WITHDRAW, "unknown segment type")),
        }
        if count == 0 {
            return Err((WITHDRAW, "empty segment"));
        }
        for _ in 0..count {
            let asn = if four_octet_as {
                reader.u32().map_err(overrun)?
            } else {
                u32::from(reader.u16().map_err(overrun)?)
            };
            if asn == 0 {
                return Err((WITHDRAW, "AS 0"));
            }
            path.push(Asn(asn));
        }
    }
    Ok(AsPath(path))
}

/// RFC 6793 §6: a malformed AS4_PATH is only discarded; confederation segments are dropped from it.
fn as4_path(value: &[u8]) -> Result<AsPath, Flaw> {
    let malformed = |_| (DISCARD, "malformed AS4_PATH");
    let mut reader = Reader::new(value);
    let mut path = Vec::new();
    while !reader.is_empty() {
        let (kind, count) = (reader.u8().map_err(malformed)?, reader.u8().map_err(malformed)?);
        if count == 0 || !matches!(kind, 2..=4) {
            return Err((DISCARD, "malformed AS4_PATH"));
        }
        for _ in 0..count {
            let asn = Asn(reader.u32().map_err(malformed)?);
            // RFC 7607 §2.
            if asn.0 == 0 {
                return Err((DISCARD, "AS 0 in AS4_PATH"));
            }
            if kind == AS_SEQUENCE {
                path.push(asn);
            }
        }
    }
    Ok(AsPath(path))
}
