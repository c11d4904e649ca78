//! UPDATE: the parts of the message, found before any attribute is judged (RFC 7606 §3 j, §5).

use super::{
    Notification,
    nlri::{Item, MalformedNlri, Nlri},
    reader::{Reader, Truncated},
};
use crate::types::{Families, Family};

pub(crate) const MP_REACH: u8 = 14;
pub(crate) const MP_UNREACH: u8 = 15;
const EXTENDED_LENGTH: u8 = 0x10;

/// An attribute whose value nobody looked at yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawAttribute<'a> {
    pub(crate) flags: u8,
    pub(crate) code: u8,
    pub(crate) value: &'a [u8],
    /// Flags, code, length and value: what a NOTIFICATION shows (RFC 4271 §6.3).
    pub(crate) whole: &'a [u8],
}

/// An attribute runs past the end of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overrun {
    /// Which, as far as it can be told.
    code: Option<u8>,
}

/// Walks the attributes; the last item is an error if one overruns the section.
pub(crate) fn attributes(
    section: &[u8],
) -> impl Iterator<Item = Result<RawAttribute<'_>, Overrun>> {
    let mut reader = Reader::new(section);
    std::iter::from_fn(move || {
        if reader.is_empty() {
            return None;
        }
        let code = reader.rest().get(1).copied();
        let next = next_attribute(&mut reader).map_err(|Truncated| Overrun { code });
        if next.is_err() {
            reader = Reader::new(&[]);
        }
        Some(next)
    })
}

fn next_attribute<'a>(reader: &mut Reader<'a>) -> Result<RawAttribute<'a>, Truncated> {
    let start = reader.rest();
    let (flags, code) = (reader.u8()?, reader.u8()?);
    let value =
        if flags & EXTENDED_LENGTH == 0 { reader.short_block()? } else { reader.long_block()? };
    let length = start.len().saturating_sub(reader.rest().len());
    let whole = start.get(..length).unwrap_or(value);
    Ok(RawAttribute { flags, code, value, whole })
}

/// The announcing half of RFC 4760.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach<'a> {
    /// `None`: a family we do not route; nothing else of it was read.
    pub(crate) family: Option<Family>,
    /// 4, 16 or 32 octets, as the family wants.
    pub(crate) next_hop: &'a [u8],
    pub(crate) nlri: Nlri<'a>,
    /// The attribute as it came, for a NOTIFICATION.
    pub(crate) whole: &'a [u8],
}

/// The withdrawing half of RFC 4760.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreach<'a> {
    pub(crate) family: Option<Family>,
    pub(crate) nlri: Nlri<'a>,
}

/// An UPDATE taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) withdrawn: Nlri<'a>,
    pub(crate) section: &'a [u8],
    pub(crate) announced: Nlri<'a>,
    pub(crate) reach: Option<Reach<'a>>,
    pub(crate) unreach: Option<Unreach<'a>>,
    /// An attribute overruns the section: treat as withdraw.
    pub(crate) overrun: bool,
}

impl<'a> Parts<'a> {
    /// Finds the parts. Where the prefixes cannot be found, the session must end. Prefixes of the `add_path` families
    /// have path identifiers.
    pub(crate) fn find(body: &'a [u8], add_path: Families) -> Result<Self, Notification> {
        let malformed_list = |Truncated| Notification::new(3, 1, []);
        let malformed_nlri = |MalformedNlri| Notification::new(3, 10, []);
        let mut reader = Reader::new(body);
        let withdrawn = reader.long_block().map_err(malformed_list)?;
        let section = reader.long_block().map_err(malformed_list)?;
        let mut parts = Self {
            withdrawn: Nlri::check(Family::Ipv4, add_path.ipv4, withdrawn)
                .map_err(malformed_nlri)?,
            section,
            announced: Nlri::check(Family::Ipv4, add_path.ipv4, reader.rest())
                .map_err(malformed_nlri)?,
            reach: None,
            unreach: None,
            overrun: false,
        };
        for attribute in attributes(section) {
            match attribute {
                Ok(attribute) => parts.observe(attribute, add_path)?,
                // RFC 7606 §3 j: nobody knows which prefixes it was about.
                Err(Overrun { code: Some(MP_REACH | MP_UNREACH) }) => {
                    return Err(Notification::new(3, 1, []));
                }
                Err(Overrun { .. }) => parts.overrun = true,
            }
        }
        Ok(parts)
    }

    fn observe(
        &mut self,
        attribute: RawAttribute<'a>,
        add_path: Families,
    ) -> Result<(), Notification> {
        // RFC 7606 §3 g: a second one of these makes the prefixes ambiguous.
        let duplicate = || Notification::new(3, 1, []);
        match attribute.code {
            MP_REACH if self.reach.is_some() => Err(duplicate()),
            MP_UNREACH if self.unreach.is_some() => Err(duplicate()),
            MP_REACH => {
                let reach = decode_reach(&attribute, add_path);
                self.reach = Some(reach.ok_or_else(|| Notification::new(3, 9, attribute.whole))?);
                Ok(())
            }
            MP_UNREACH => {
                let unreach = decode_unreach(attribute.value, add_path);
                self.unreach =
                    Some(unreach.ok_or_else(|| Notification::new(3, 9, attribute.whole))?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Lists all prefixes that the message names.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item> + use<'a> {
        let reach = self.reach.map(|reach| reach.nlri.iter());
        let unreach = self.unreach.map(|unreach| unreach.nlri.iter());
        let plain = self.withdrawn.iter().chain(self.announced.iter());
        plain.chain(unreach.into_iter().flatten()).chain(reach.into_iter().flatten())
    }

    /// Says whether the message announces routes of a family of ours.
    pub(crate) fn announces(&self) -> bool {
        !self.announced.is_empty() || self.reach.is_some_and(|reach| !reach.nlri.is_empty())
    }

    /// Returns the family whose table is complete (RFC 4724 §2).
    pub(crate) fn end_of_rib(&self) -> Option<Family> {
        if !self.withdrawn.is_empty() || self.announces() || self.reach.is_some() {
            return None;
        }
        match self.unreach {
            None => self.section.is_empty().then_some(Family::Ipv4),
            Some(unreach) => unreach.family.filter(|_| unreach.nlri.is_empty()),
        }
    }
}

fn decode_reach<'a>(attribute: &RawAttribute<'a>, add_path: Families) -> Option<Reach<'a>> {
    let mut reader = Reader::new(attribute.value);
    let (afi, safi) = (reader.u16().ok()?, reader.u8().ok()?);
    let next_hop = reader.short_block().ok()?;
    let _reserved = reader.u8().ok()?;
    let Some(family) = Family::from_wire(afi, safi) else {
        let nlri = Nlri::empty(Family::Ipv4);
        return Some(Reach { family: None, next_hop, nlri, whole: attribute.whole });
    };
    let fits = match family {
        // RFC 8950 §3; whether it was negotiated is the session's question.
        Family::Ipv4 => matches!(next_hop.len(), 4 | 16 | 32),
        // RFC 2545 §3: global, or global and link-local.
        Family::Ipv6 => matches!(next_hop.len(), 16 | 32),
    };
    let nlri = Nlri::check(family, add_path.contains(family), reader.rest()).ok()?;
    fits.then_some(Reach { family: Some(family), next_hop, nlri, whole: attribute.whole })
}

fn decode_unreach(value: &[u8], add_path: Families) -> Option<Unreach<'_>> {
    let mut reader = Reader::new(value);
    let (afi, safi) = (reader.u16().ok()?, reader.u8().ok()?);
    let Some(family) = Family::from_wire(afi, safi) else {
        return Some(Unreach { family: None, nlri: Nlri::empty(Family::Ipv4) });
    };
    let nlri = Nlri::check(family, add_path.contains(family), reader.rest()).ok()?;
    Some(Unreach { family: Some(family), nlri })
}
