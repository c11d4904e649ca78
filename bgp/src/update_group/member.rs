//! A member of a group: a place in the log, and what it gets besides.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

use super::{behind::Behind, log::Segment, pending::Slots};
use crate::{
    types::{Families, Family},
    wire::{
        HEADER, Item, Kind, Nlri, Refresh, decode_route_refresh, encode_prefix, encoded_length,
        next_frame, update::Parts,
    },
};

/// A walk through the table for one member: all of it, if it joined late, asked for a refresh or lagged too far behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sweep {
    /// All slots there are when it begins, besides those that are due already.
    pub(super) whole: bool,
    /// The slots that are due.
    pub(super) pending: Slots,
    pub(super) families: Families,
    /// Families whose End-of-RIB is due when the walk is over (RFC 4724 §2).
    pub(super) end_of_rib: Families,
    /// Families whose end of the refresh is to be marked (RFC 7313 §4).
    pub(super) refresh: Families,
}

#[derive(Debug, Default)]
pub(super) struct Member {
    /// What only this member gets, before the log goes on.
    pub(super) private: VecDeque<Segment>,
    /// Number of the next segment of the log.
    pub(super) cursor: u64,
    pub(super) sweep: Option<Sweep>,
    /// It left the log.
    pub(super) behind: Option<Behind>,
    /// What it may have and perhaps must forget: looked at when it walks, or when the common walk is over.
    pub(super) leftovers: Forgotten,
}

impl Member {
    /// Begins a walk, or adds to the one that it is on: that goes on where it is, or a peer that reads slowly while much
    /// changes would never see the end of the table.
    pub(super) fn begin_sweep(&mut self, wanted: &Sweep) -> &mut Slots {
        let sweep = self.sweep.get_or_insert_default();
        sweep.whole |= wanted.whole;
        sweep.families = sweep.families.or(wanted.families);
        sweep.end_of_rib = sweep.end_of_rib.or(wanted.end_of_rib);
        sweep.refresh = sweep.refresh.or(wanted.refresh);
        &mut sweep.pending
    }
}

impl Member {
    /// Returns the markers of refreshes that it did not get yet, and the families whose end it waits for.
    pub(super) fn open_refresh(&self) -> (Vec<Segment>, Families) {
        let mut begins = Vec::new();
        let mut families = self.sweep.as_ref().map_or(Families::NONE, |sweep| sweep.refresh);
        for segment in self.private.iter().filter(|segment| segment.messages == 0) {
            match decode_route_refresh(segment.bytes.get(HEADER..).unwrap_or_default()) {
                Ok(Some((_, Refresh::Begin))) => begins.push(segment.clone()),
                Ok(Some((family, Refresh::End))) => families.insert(family),
                _ => (),
            }
        }
        (begins, families)
    }
}

/// Lists what messages withdraw.
pub(super) fn withdrawn(segment: &Segment, add_path: Families) -> Vec<Item> {
    let mut gone = Vec::new();
    let mut stream = &*segment.bytes;
    while let Ok(Some(frame)) = next_frame(stream, usize::MAX) {
        if frame.kind == Kind::Update
            && let Ok(parts) = Parts::find(frame.body, add_path)
        {
            gone.extend(parts.withdrawn.iter());
            gone.extend(parts.unreach.iter().flat_map(|unreach| unreach.nlri.iter()));
        }
        stream = stream.get(frame.length()..).unwrap_or_default();
    }
    gone
}

/// What somebody may have and perhaps must forget, as on the wire: there may be a million of these.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forgotten {
    ipv4: BytesMut,
    ipv6: BytesMut,
}

impl Forgotten {
    pub(super) fn push(&mut self, item: &Item) {
        let list = match item.prefix.family() {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        };
        encode_prefix(item, true, list);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ipv4.len() + self.ipv6.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Item> {
        let lists = [(Family::Ipv4, &self.ipv4), (Family::Ipv6, &self.ipv6)];
        let lists = lists.into_iter().flat_map(|(family, list)| Nlri::check(family, true, list));
        lists.flat_map(|nlri| nlri.iter())
    }

    /// Takes some of one family.
    pub(super) fn take(&mut self, limit: usize) -> Vec<Item> {
        let taken: Vec<Item> = self.iter().take(limit).collect();
        let is_ipv4 = |item: &&Item| item.prefix.family() == Family::Ipv4;
        let length = |items: &mut dyn Iterator<Item = &Item>| -> usize {
            items.map(|item| encoded_length(&item.prefix, true)).sum()
        };
        let ipv4 = length(&mut taken.iter().filter(is_ipv4));
        let ipv6 = length(&mut taken.iter().filter(|item| !is_ipv4(item)));
        for (list, length) in [(&mut self.ipv4, ipv4), (&mut self.ipv6, ipv6)] {
            list.advance(length.min(list.len()));
            if list.is_empty() {
                *list = BytesMut::new();
            }
        }
        taken
    }
}
