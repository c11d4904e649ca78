//! UPDATE messages: as many prefixes as fit behind each set of attributes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    attr::{PathAttributes, encode_block, encode_mp_reach_head, flag},
    types::{Family, Prefix},
    wire::{HEADER, Kind, encode_prefix, encoded_length, message, update::MP_UNREACH},
};

/// The attributes leave no room for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Two length fields follow the header.
const LENGTHS: usize = 4;
/// Flags, code and length of an attribute with extended length.
const LONG_HEADER: usize = 4;
/// AFI, SAFI, next hop length, next hop of 16 or 32 octets, reserved.
const LONGEST_REACH_HEAD: usize = 37;
const LONGEST_PREFIX: usize = 17;

/// How a group's messages look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packer {
    pub(crate) four_octet_as: bool,
    pub(crate) limit: usize,
}

impl Packer {
    pub(crate) fn announce(
        &self,
        family: Family,
        attributes: &PathAttributes,
        prefixes: &[Prefix],
    ) -> Result<Vec<Bytes>, TooLong> {
        let mut block = BytesMut::new();
        encode_block(attributes, family, self.four_octet_as, &mut block);
        let fixed = HEADER.saturating_add(LENGTHS).saturating_add(block.len());
        let fixed = match family {
            Family::Ipv4 => fixed,
            Family::Ipv6 => fixed.saturating_add(LONG_HEADER).saturating_add(LONGEST_REACH_HEAD),
        };
        let room = self.limit.checked_sub(fixed).filter(|room| *room >= LONGEST_PREFIX);
        let chunks = chunks(prefixes, room.ok_or(TooLong)?);
        Ok(chunks.map(|chunk| announcement(family, attributes, &block, chunk)).collect())
    }

    pub(crate) fn withdraw(&self, family: Family, prefixes: &[Prefix]) -> Vec<Bytes> {
        let fixed = HEADER.saturating_add(LENGTHS).saturating_add(LONG_HEADER).saturating_add(3);
        chunks(prefixes, self.limit.saturating_sub(fixed).max(LONGEST_PREFIX))
            .map(|chunk| withdrawal(family, chunk))
            .collect()
    }
}

/// Returns the message that says that the table is complete (RFC 4724 §2).
pub(crate) fn end_of_rib(family: Family) -> Bytes {
    withdrawal(family, &[])
}

/// Cuts the list into pieces that take at most `room` bytes.
fn chunks(mut prefixes: &[Prefix], room: usize) -> impl Iterator<Item = &[Prefix]> {
    std::iter::from_fn(move || {
        let mut size: usize = 0;
        let fitting = prefixes.iter().take_while(|prefix| {
            size = size.saturating_add(encoded_length(prefix));
            size <= room
        });
        let (chunk, rest) = prefixes.split_at_checked(fitting.count())?;
        prefixes = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn encode_all(prefixes: &[Prefix]) -> BytesMut {
    let mut out = BytesMut::with_capacity(prefixes.len().saturating_mul(5));
    prefixes.iter().for_each(|prefix| encode_prefix(prefix, &mut out));
    out
}

fn put_length(out: &mut BytesMut, length: usize) {
    out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
}

fn announcement(
    family: Family,
    attributes: &PathAttributes,
    block: &[u8],
    prefixes: &[Prefix],
) -> Bytes {
    let nlri = encode_all(prefixes);
    message(Kind::Update, |out| {
        out.put_u16(0);
        match (family, &attributes.next_hop) {
            (Family::Ipv6, Some(next_hop)) => {
                // RFC 7606 §5.1: MP_REACH_NLRI comes first.
                let mut reach = BytesMut::new();
                encode_mp_reach_head(family, next_hop, nlri.len(), &mut reach);
                let length = reach.len().saturating_add(nlri.len()).saturating_add(block.len());
                put_length(out, length);
                out.put_slice(&reach);
                out.put_slice(&nlri);
                out.put_slice(block);
            }
            _ => {
                put_length(out, block.len());
                out.put_slice(block);
                out.put_slice(&nlri);
            }
        }
    })
}

fn withdrawal(family: Family, prefixes: &[Prefix]) -> Bytes {
    let nlri = encode_all(prefixes);
    message(Kind::Update, |out| match family {
        Family::Ipv4 => {
            put_length(out, nlri.len());
            out.put_slice(&nlri);
            out.put_u16(0);
        }
        Family::Ipv6 => {
            let length = nlri.len().saturating_add(3);
            out.put_u16(0);
            put_length(out, length.saturating_add(LONG_HEADER));
            out.put_slice(&[flag::OPTIONAL | flag::EXTENDED_LENGTH, MP_UNREACH]);
            put_length(out, length);
            out.put_u16(family.afi());
            out.put_u8(1);
            out.put_slice(&nlri);
        }
    })
}
