//! UPDATE messages: as many prefixes as fit behind each set of attributes.

use bytes::{BufMut, BytesMut};

use crate::{
    attr::{NextHop, encode_mp_reach_head, flag},
    types::{Families, Family},
    wire::{HEADER, Item, Kind, encode_prefix, encoded_length, update::MP_UNREACH, write_message},
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
const LONGEST_ITEM: usize = 21;

/// How a group's messages look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packer {
    pub(crate) limit: usize,
    /// Families whose prefixes have path identifiers.
    pub(crate) add_path: Families,
}

/// Attributes as they go out, without those that depend on the prefixes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    pub(crate) family: Family,
    pub(crate) next_hop: Option<NextHop>,
    pub(crate) bytes: &'a [u8],
}

impl Block<'_> {
    /// Returns the next hop that goes into MP_REACH_NLRI: all but IPv4 over IPv4 (RFC 4760 §3, RFC 8950 §4).
    fn multiprotocol(&self) -> Option<NextHop> {
        let next_hop = self.next_hop?;
        let plain = self.family == Family::Ipv4 && next_hop.address.is_ipv4();
        (!plain).then_some(next_hop)
    }
}

impl Packer {
    /// Appends messages that announce the prefixes; returns how many.
    pub(crate) fn announce(
        &self,
        block: &Block<'_>,
        items: &[impl AsRef<Item>],
        out: &mut BytesMut,
    ) -> Result<u32, TooLong> {
        let fixed = HEADER.saturating_add(LENGTHS).saturating_add(block.bytes.len());
        let fixed = match block.multiprotocol() {
            None => fixed,
            Some(_) => fixed.saturating_add(LONG_HEADER).saturating_add(LONGEST_REACH_HEAD),
        };
        let room = self.limit.checked_sub(fixed).filter(|room| *room >= LONGEST_ITEM);
        let add_path = self.add_path.contains(block.family);
        let mut count: u32 = 0;
        for (chunk, length) in chunks(items, add_path, room.ok_or(TooLong)?) {
            announcement(block, chunk, length, add_path, out);
            count = count.saturating_add(1);
        }
        Ok(count)
    }

    /// Appends messages that withdraw the prefixes; returns how many.
    pub(crate) fn withdraw(
        &self,
        family: Family,
        items: &[impl AsRef<Item>],
        out: &mut BytesMut,
    ) -> u32 {
        let fixed = HEADER.saturating_add(LENGTHS).saturating_add(LONG_HEADER).saturating_add(3);
        let add_path = self.add_path.contains(family);
        let mut count: u32 = 0;
        let room = self.limit.saturating_sub(fixed).max(LONGEST_ITEM);
        for (chunk, length) in chunks(items, add_path, room) {
            withdrawal(family, chunk, length, add_path, out);
            count = count.saturating_add(1);
        }
        count
    }
}

/// Appends the message that says that the table is complete (RFC 4724 §2).
pub(crate) fn end_of_rib(family: Family, out: &mut BytesMut) {
    withdrawal::<Item>(family, &[], 0, false, out);
}

/// Cuts the list into pieces that take at most `room` bytes; with the bytes they take.
fn chunks<T: AsRef<Item>>(
    mut items: &[T],
    add_path: bool,
    room: usize,
) -> impl Iterator<Item = (&[T], usize)> {
    std::iter::from_fn(move || {
        let (mut size, mut count): (usize, usize) = (0, 0);
        for item in items {
            let length = encoded_length(&item.as_ref().prefix, add_path);
            if size.saturating_add(length) > room {
                break;
            }
            size = size.saturating_add(length);
            count = count.saturating_add(1);
        }
        let (chunk, rest) = items.split_at_checked(count)?;
        items = rest;
        (!chunk.is_empty()).then_some((chunk, size))
    })
}

fn put_length(out: &mut BytesMut, length: usize) {
    out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
}

fn put_items(items: &[impl AsRef<Item>], add_path: bool, out: &mut BytesMut) {
    items.iter().for_each(|item| encode_prefix(item.as_ref(), add_path, out));
}

fn announcement(
    block: &Block<'_>,
    items: &[impl AsRef<Item>],
    length: usize,
    add_path: bool,
    out: &mut BytesMut,
) {
    write_message(Kind::Update, out, |out| {
        out.put_u16(0);
        match block.multiprotocol() {
            Some(next_hop) => {
                // RFC 7606 §5.1: MP_REACH_NLRI comes first.
                let start = out.len();
                out.put_u16(0);
                encode_mp_reach_head(block.family, &next_hop, length, out);
                put_items(items, add_path, out);
                out.put_slice(block.bytes);
                let section = out.len().saturating_sub(start).saturating_sub(2);
                let section = u16::try_from(section).unwrap_or(u16::MAX);
                if let Some(field) = out.get_mut(start..start.saturating_add(2)) {
                    field.copy_from_slice(&section.to_be_bytes());
                }
            }
            None => {
                put_length(out, block.bytes.len());
                out.put_slice(block.bytes);
                put_items(items, add_path, out);
            }
        }
    });
}

fn withdrawal<T: AsRef<Item>>(
    family: Family,
    items: &[T],
    length: usize,
    add_path: bool,
    out: &mut BytesMut,
) {
    write_message(Kind::Update, out, |out| match family {
        Family::Ipv4 => {
            put_length(out, length);
            put_items(items, add_path, out);
            out.put_u16(0);
        }
        Family::Ipv6 => {
            let length = length.saturating_add(3);
            out.put_u16(0);
            put_length(out, length.saturating_add(LONG_HEADER));
            out.put_slice(&[flag::OPTIONAL | flag::EXTENDED_LENGTH, MP_UNREACH]);
            put_length(out, length);
            out.put_u16(family.afi());
            out.put_u8(1);
            put_items(items, add_path, out);
        }
    });
}
