//! A member of a group: a place in the log, and what it gets besides.

use std::collections::{BTreeSet, VecDeque};

use super::{log::Segment, pending::Pending};
use crate::{
    types::Families,
    wire::{HEADER, Item, Kind, Refresh, decode_route_refresh, next_frame, update::Parts},
};

/// A walk through the table for one member: all of it, if it joined late or asked for a refresh; what changed meanwhile, if
/// it lagged too far behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sweep {
    /// All slots there are when it begins, besides those that are due already.
    pub(super) whole: bool,
    /// The slots that are due.
    pub(super) pending: Pending,
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
    /// What it may have and perhaps must forget: looked at when the walk is over.
    pub(super) leftovers: BTreeSet<Item>,
}

impl Member {
    /// Begins a walk, or adds to the one that it is on: that goes on where it is, or a peer that reads slowly while much
    /// changes would never see the end of the table.
    pub(super) fn begin_sweep(&mut self, wanted: &Sweep) -> &mut Pending {
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
    contents(segment, add_path).0
}

/// Lists what messages withdraw, and what they announce.
pub(super) fn contents(segment: &Segment, add_path: Families) -> (Vec<Item>, Vec<Item>) {
    let (mut gone, mut told) = (Vec::new(), Vec::new());
    let mut stream = &*segment.bytes;
    while let Ok(Some(frame)) = next_frame(stream, usize::MAX) {
        if frame.kind == Kind::Update
            && let Ok(parts) = Parts::find(frame.body, add_path)
        {
            gone.extend(parts.withdrawn.iter());
            gone.extend(parts.unreach.iter().flat_map(|unreach| unreach.nlri.iter()));
            told.extend(parts.announced.iter());
            told.extend(parts.reach.iter().flat_map(|reach| reach.nlri.iter()));
        }
        stream = stream.get(frame.length()..).unwrap_or_default();
    }
    (gone, told)
}
