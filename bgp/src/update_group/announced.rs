//! What a group has announced: for each slot whose path it was.
//!
//! A member that is itself the source did not get the message, so this tells exactly who has what (RFC 4271 §9.2:
//! never back to where it came from). No attributes are kept: they follow from the table and the rules.

use hashbrown::HashMap;

use super::pending::Slots;
use crate::{
    attr::AttrId,
    rib::{PeerId, SlotId},
    types::Family,
};

/// A path that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The identifier it was announced under; 0 without ADD-PATH.
    pub(super) path_id: u32,
    pub(super) source: PeerId,
    /// Known with ADD-PATH only: one changed path must not repeat the others.
    pub(super) set: Option<AttrId>,
}

#[derive(Debug, Default)]
pub(super) struct Announced {
    /// Per slot: 0, or the number of the source plus one.
    plain: Vec<u32>,
    /// For families with ADD-PATH.
    many: HashMap<SlotId, Vec<Told>>,
    by_source: Vec<Counts>,
    total: Counts,
}

/// How many are announced of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    ipv4: usize,
    ipv6: usize,
}

impl Counts {
    const fn of(&mut self, family: Family) -> &mut usize {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}

impl Announced {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Lists what was announced of a slot.
    pub(super) fn get(&self, id: SlotId) -> impl Iterator<Item = Told> {
        let source = self.plain.get(id.index()).and_then(|word| word.checked_sub(1));
        let plain = source.map(|source| Told { path_id: 0, source: PeerId(source), set: None });
        let many = if self.many.is_empty() { None } else { self.many.get(&id) };
        plain.into_iter().chain(many.into_iter().flatten().copied())
    }

    fn count(&mut self, source: PeerId, family: Family, present: bool) {
        let index = source.index();
        if self.by_source.len() <= index {
            self.by_source.resize(index.saturating_add(1), Counts::default());
        }
        let counts = self.by_source.get_mut(index).into_iter().chain([&mut self.total]);
        for count in counts.map(|counts| counts.of(family)) {
            *count = if present { count.saturating_add(1) } else { count.saturating_sub(1) };
        }
    }

    /// Takes note of the one path that is announced without ADD-PATH; returns the source of the one before.
    pub(super) fn replace(
        &mut self,
        id: SlotId,
        family: Family,
        source: Option<PeerId>,
    ) -> Option<PeerId> {
        let index = id.index();
        if self.plain.len() <= index {
            // There was nothing, and there is nothing.
            source?;
            self.plain.resize(index.saturating_add(1), 0);
        }
        let place = self.plain.get_mut(index)?;
        let new = source.map_or(0, |source| source.0.saturating_add(1));
        let before = std::mem::replace(place, new).checked_sub(1).map(PeerId);
        if before != source {
            before.into_iter().for_each(|before| self.count(before, family, false));
            source.into_iter().for_each(|source| self.count(source, family, true));
        }
        before
    }

    /// Takes note of the paths that are announced with ADD-PATH.
    pub(super) fn set_many(&mut self, id: SlotId, family: Family, told: Vec<Told>) {
        for new in &told {
            self.count(new.source, family, true);
        }
        let old = if told.is_empty() { self.many.remove(&id) } else { self.many.insert(id, told) };
        for old in old.into_iter().flatten() {
            self.count(old.source, family, false);
        }
    }

    /// Takes note that one path was not announced after all. Others of its slot were.
    pub(super) fn forget(&mut self, id: SlotId, family: Family, path_id: u32) {
        let told = self.many.get(&id);
        let mut others = told.cloned().unwrap_or_default();
        others.retain(|told| told.path_id != path_id);
        self.replace(id, family, None);
        self.set_many(id, family, others);
    }

    /// Returns the slots of which something was announced that is not from this peer. All at once: a million of them are a
    /// look at four megabytes in a row, a millisecond.
    pub(super) fn without(&self, peer: PeerId) -> Slots {
        let mut slots = Slots::default();
        for (word, id) in self.plain.iter().zip(0..) {
            if word.checked_sub(1).is_some_and(|source| PeerId(source) != peer) {
                slots.add(SlotId(id));
            }
        }
        let many = self.many.iter();
        let many = many.filter(|(_, told)| told.iter().any(|told| told.source != peer));
        many.for_each(|(id, _)| slots.add(*id));
        slots
    }

    /// Counts what a member has of a family.
    pub(super) fn total_for(&self, peer: PeerId, family: Family) -> usize {
        let mut own = self.by_source.get(peer.index()).copied().unwrap_or_default();
        let mut total = self.total;
        total.of(family).saturating_sub(*own.of(family))
    }
}
