//! As much of BGP's encoding as a load generator needs, and nothing that a speaker would call parsing.

use std::net::Ipv4Addr;

/// Octets of a header (RFC 4271 section 4.1).
const HEADER: usize = 19;
/// Longest message without RFC 8654.
const LONGEST: usize = 4096;

/// A whole message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Message<'a> {
    /// OPEN with its body.
    Open(&'a [u8]),
    /// UPDATE with its body.
    Update(&'a [u8]),
    /// NOTIFICATION: code and subcode.
    Notification(u8, u8),
    /// KEEPALIVE.
    Keepalive,
    /// Everything else is of no interest here.
    Other,
}

/// Takes the first whole message off a buffer: `Ok(None)` when it has not arrived yet, an error when this is not BGP.
pub(crate) fn split(buffer: &[u8]) -> Result<Option<(Message<'_>, &[u8])>, String> {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    let [.., high, low, kind] = *header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !(HEADER..=LONGEST).contains(&length) {
        return Err(format!("it sent a message of {length} octets"));
    }
    let Some((message, rest)) = buffer.split_at_checked(length) else { return Ok(None) };
    let body = message.get(HEADER..).unwrap_or_default();
    let message = match kind {
        1 => Message::Open(body),
        2 => Message::Update(body),
        3 => {
            let octet = |index| body.get(index).copied().unwrap_or(0);
            Message::Notification(octet(0), octet(1))
        }
        4 => Message::Keepalive,
        _ => Message::Other,
    };
    Ok(Some((message, rest)))
}

/// Hold time of an OPEN's body.
pub(crate) fn hold_time(open: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*open.get(3)?, *open.get(4)?]))
}

/// The three parts of an UPDATE's body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Update<'a> {
    pub(crate) withdrawn: &'a [u8],
    pub(crate) attributes: &'a [u8],
    pub(crate) announced: &'a [u8],
}

impl<'a> Update<'a> {
    /// Cuts the body at its length fields.
    pub(crate) fn new(body: &'a [u8]) -> Option<Self> {
        let part = |bytes: &'a [u8]| {
            let (length, rest) = bytes.split_first_chunk::<2>()?;
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        };
        let (withdrawn, rest) = part(body)?;
        let (attributes, announced) = part(rest)?;
        Some(Self { withdrawn, attributes, announced })
    }

    /// The value of the attribute of this type.
    pub(crate) fn attribute(&self, wanted: u8) -> Option<&'a [u8]> {
        const EXTENDED_LENGTH: u8 = 0x10;
        let mut rest = self.attributes;
        loop {
            let ([flags, kind], tail) = rest.split_first_chunk::<2>()?;
            let (length, tail) = if flags & EXTENDED_LENGTH == 0 {
                let ([length], tail) = tail.split_first_chunk::<1>()?;
                (usize::from(*length), tail)
            } else {
                let (length, tail) = tail.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), tail)
            };
            let (value, tail) = tail.split_at_checked(length)?;
            if *kind == wanted {
                return Some(value);
            }
            rest = tail;
        }
    }
}

/// Walks a list of prefixes; `false` when it is malformed.
pub(crate) fn prefixes(mut list: &[u8], mut visit: impl FnMut(u32, u8)) -> bool {
    // Written out: millions of them are read while others wait for their turn.
    loop {
        let (length, address, rest) = match list {
            [] => return true,
            [length @ 0, rest @ ..] => (length, [0; 4], rest),
            [length @ 1..=8, a, rest @ ..] => (length, [*a, 0, 0, 0], rest),
            [length @ 9..=16, a, b, rest @ ..] => (length, [*a, *b, 0, 0], rest),
            [length @ 17..=24, a, b, c, rest @ ..] => (length, [*a, *b, *c, 0], rest),
            [length @ 25..=32, a, b, c, d, rest @ ..] => (length, [*a, *b, *c, *d], rest),
            _ => return false,
        };
        visit(u32::from_be_bytes(address), *length);
        list = rest;
    }
}

/// Appends a message; `body` appends what follows the header.
fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0xFF; 16]);
    out.extend([0, 0, kind]);
    body(out);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(start + 16..start + 18) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends an OPEN: IPv4 unicast, four-octet AS numbers, route refresh. No graceful restart: a session that ends takes
/// its routes along.
pub(crate) fn open(out: &mut Vec<u8>, asn: u32, hold_time: u16, id: Ipv4Addr) {
    const AS_TRANS: u16 = 23456;
    message(out, 1, |out| {
        out.push(4);
        out.extend(u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes());
        out.extend(hold_time.to_be_bytes());
        out.extend(id.octets());
        // One optional parameter (2, capabilities) of 14 octets.
        out.extend([16, 2, 14]);
        out.extend([1, 4, 0, 1, 0, 1, 2, 0, 65, 4]);
        out.extend(asn.to_be_bytes());
    });
}

/// Appends a KEEPALIVE.
pub(crate) fn keepalive(out: &mut Vec<u8>) {
    message(out, 4, |_| ());
}

/// The attributes of one UPDATE.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    pub(crate) path: Vec<u32>,
    pub(crate) next_hop: [u8; 4],
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: Vec<u32>,
}

impl Attributes {
    fn encode(&self, out: &mut Vec<u8>) {
        let octet = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
        out.extend([0x40, 1, 1, 0]);
        if self.path.is_empty() {
            out.extend([0x40, 2, 0]);
        } else {
            let count = self.path.len();
            out.extend([0x40, 2, octet(2 + 4 * count), 2, octet(count)]);
            out.extend(self.path.iter().flat_map(|asn| asn.to_be_bytes()));
        }
        out.extend([0x40, 3, 4]);
        out.extend(self.next_hop);
        for (flags, kind, value) in [(0x80, 4, self.med), (0x40, 5, self.local_pref)] {
            if let Some(value) = value {
                out.extend([flags, kind, 4]);
                out.extend(value.to_be_bytes());
            }
        }
        if !self.communities.is_empty() {
            out.extend([0xC0, 8, octet(4 * self.communities.len())]);
            out.extend(self.communities.iter().flat_map(|community| community.to_be_bytes()));
        }
    }
}

fn counted(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0, 0]);
    body(out);
    let length = u16::try_from(out.len() - start - 2).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(start..start + 2) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn prefix(out: &mut Vec<u8>, address: u32, length: u8) {
    out.push(length);
    let octets = address.to_be_bytes();
    out.extend(octets.iter().take(usize::from(length.div_ceil(8))));
}

/// Appends an UPDATE that announces prefixes of one length.
pub(crate) fn announce(
    out: &mut Vec<u8>,
    attributes: &Attributes,
    prefixes: impl Iterator<Item = u32>,
    length: u8,
) {
    message(out, 2, |out| {
        out.extend([0, 0]);
        counted(out, |out| attributes.encode(out));
        prefixes.for_each(|address| prefix(out, address, length));
    });
}

/// Appends UPDATEs that withdraw prefixes of one length, as many in each as fit.
pub(crate) fn withdraw(out: &mut Vec<u8>, prefixes: &[u32], length: u8) {
    let room = (LONGEST - HEADER - 4) / 5;
    for chunk in prefixes.chunks(room) {
        message(out, 2, |out| {
            counted(out, |out| chunk.iter().for_each(|address| prefix(out, *address, length)));
            out.extend([0, 0]);
        });
    }
}

/// Appends an End-of-RIB of IPv4 unicast (RFC 4724 section 2).
pub(crate) fn end_of_rib(out: &mut Vec<u8>) {
    message(out, 2, |out| out.extend([0; 4]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_found_again() {
        let attributes = Attributes {
            path: vec![65001, 4_200_000_001],
            next_hop: [10, 0, 1, 1],
            med: Some(7),
            communities: vec![1, 2],
            ..Attributes::default()
        };
        let mut out = Vec::new();
        announce(&mut out, &attributes, [0x1000_0000, 0x1000_0100].into_iter(), 24);
        withdraw(&mut out, &[0x1000_0000], 24);
        keepalive(&mut out);
        let (Message::Update(body), rest) = split(&out).unwrap().unwrap() else { panic!() };
        let update = Update::new(body).unwrap();
        assert_eq!(
            update.attribute(2).unwrap().last_chunk(),
            Some(&4_200_000_001_u32.to_be_bytes())
        );
        assert_eq!(update.attribute(3).unwrap(), [10, 0, 1, 1]);
        let mut found = Vec::new();
        assert!(prefixes(update.announced, |address, length| found.push((address, length))));
        assert_eq!(found, [(0x1000_0000, 24), (0x1000_0100, 24)]);
        let (Message::Update(body), rest) = split(rest).unwrap().unwrap() else { panic!() };
        assert_eq!(Update::new(body).unwrap().withdrawn, [24, 16, 0, 0]);
        assert!(matches!(split(rest).unwrap().unwrap(), (Message::Keepalive, [])));
    }

    #[test]
    fn half_a_message_waits_and_nonsense_is_refused() {
        let mut out = Vec::new();
        open(&mut out, 65001, 90, Ipv4Addr::new(10, 0, 1, 1));
        let half = out.get(..out.len() - 1).unwrap();
        assert!(split(half).unwrap().is_none());
        let (Message::Open(body), []) = split(&out).unwrap().unwrap() else { panic!() };
        assert_eq!(hold_time(body), Some(90));
        split(&[0xFF; 30]).unwrap_err();
    }
}
