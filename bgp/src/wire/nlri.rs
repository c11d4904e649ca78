//! Prefixes on the wire, with path identifiers where ADD-PATH was agreed (RFC 7911 §3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use super::reader::{Reader, Truncated};
use crate::types::{Family, Prefix};

/// A prefix and which of its paths is meant; 0 without ADD-PATH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Item {
    pub(crate) prefix: Prefix,
    pub(crate) path_id: u32,
}

impl AsRef<Self> for Item {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// A list of prefixes that was checked: iterating it cannot fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nlri<'a> {
    family: Family,
    add_path: bool,
    bytes: &'a [u8],
}

/// A prefix is longer than its family allows or than the bytes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedNlri;

impl<'a> Nlri<'a> {
    pub(crate) const fn empty(family: Family) -> Self {
        Self { family, add_path: false, bytes: &[] }
    }

    pub(crate) fn check(
        family: Family,
        add_path: bool,
        bytes: &'a [u8],
    ) -> Result<Self, MalformedNlri> {
        let longest = match family {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        };
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            if add_path {
                reader.u32().map_err(|Truncated| MalformedNlri)?;
            }
            let length = reader.u8().map_err(|Truncated| MalformedNlri)?;
            if length > longest {
                return Err(MalformedNlri);
            }
            reader.take(usize::from(length.div_ceil(8))).map_err(|Truncated| MalformedNlri)?;
        }
        Ok(Self { family, add_path, bytes })
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Item> + use<'a> {
        let Self { family, add_path, bytes } = *self;
        let mut reader = Reader::new(bytes);
        std::iter::from_fn(move || {
            let path_id = if add_path { reader.u32().ok()? } else { 0 };
            Some(Item { prefix: next_prefix(family, &mut reader)?, path_id })
        })
    }
}

#[inline]
fn next_prefix(family: Family, reader: &mut Reader<'_>) -> Option<Prefix> {
    let length = reader.u8().ok()?;
    let significant = reader.take(usize::from(length.div_ceil(8))).ok()?;
    match family {
        Family::Ipv4 => {
            // Written out: copying so little is dearer than everything else here.
            let octets = match *significant {
                [] => [0, 0, 0, 0],
                [a] => [a, 0, 0, 0],
                [a, b] => [a, b, 0, 0],
                [a, b, c] => [a, b, c, 0],
                [a, b, c, d] => [a, b, c, d],
                _ => return None,
            };
            Prefix::v4(Ipv4Addr::from(octets), length)
        }
        Family::Ipv6 => {
            let mut octets = [0; 16];
            octets.get_mut(..significant.len())?.copy_from_slice(significant);
            Prefix::v6(Ipv6Addr::from(octets), length)
        }
    }
}

/// Returns how many bytes the prefix takes.
pub(crate) fn encoded_length(prefix: &Prefix, add_path: bool) -> usize {
    let identifier = if add_path { 4 } else { 0 };
    usize::from(prefix.length().div_ceil(8)).saturating_add(1).saturating_add(identifier)
}

pub(crate) fn encode(item: &Item, add_path: bool, out: &mut BytesMut) {
    let Item { prefix, path_id } = item;
    if add_path {
        out.put_u32(*path_id);
    }
    let length = usize::from(prefix.length().div_ceil(8)).saturating_add(1);
    match prefix.address() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            out.put_slice([prefix.length(), a, b, c, d].get(..length).unwrap_or_default());
        }
        IpAddr::V6(address) => {
            let mut bytes = [prefix.length(); 17];
            if let Some(place) = bytes.last_chunk_mut::<16>() {
                *place = address.octets();
            }
            out.put_slice(bytes.get(..length).unwrap_or_default());
        }
    }
}
