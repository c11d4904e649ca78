//! Members that walk through the table alone: those who joined late or want everything again, and those who read too slowly.
//!
//! Who reads too slowly leaves the log, and nothing is kept for it but marks on slots: what it may have, and what it has yet
//! to hear of. What goes is noted once, when it may have had it. So a member that reads nothing at all costs no more than the
//! table that it was told, and others do not wait for it.

use std::collections::VecDeque;

use super::{
    Table, UpdateGroup,
    batch::Batch,
    log::{Audience, Segment, Writer},
    member::{Member, Sweep, withdrawn},
    pack::end_of_rib,
    pending::Slots,
    withdraw,
};
use crate::{
    rib::{PeerId, SlotId},
    types::Families,
    wire::{Item, Refresh, encode_route_refresh},
};

/// A member that left the log.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// Slots whose announcement it may have.
    pub(super) has: Slots,
    /// The part of the log that it missed: what is withdrawn there it may have.
    missed: VecDeque<Segment>,
}

impl Behind {
    pub(super) fn missed(&self) -> impl Iterator<Item = &Segment> {
        self.missed.iter()
    }
}

/// The place in the log of one who left it: it holds up nobody.
const NOWHERE: u64 = u64::MAX;

impl UpdateGroup {
    /// Members too far behind leave the log.
    pub(super) fn rescue(&mut self) {
        if self.log.len() < self.limits.lag {
            return;
        }
        let (start, end, families) = (self.log.start(), self.log.end(), self.key.families);
        let Self { log, members, stragglers, announced, walk, marked, .. } = self;
        for (peer, member) in members.iter_mut().filter(|(_, member)| member.cursor == start) {
            // An End-of-RIB that is skipped comes after the walk.
            let unmarked = walk.is_some() || marked.is_some_and(|marked| member.cursor < marked);
            let end_of_rib = if unmarked { families } else { Families::NONE };
            member.begin_sweep(&Sweep { whole: true, families, end_of_rib, ..Sweep::default() });
            member.cursor = NOWHERE;
            stragglers.insert(*peer);
            let missed = (start..end).filter_map(|number| log.get(number));
            let missed = missed.filter(|segment| segment.audience.includes(*peer));
            member.behind =
                Some(Behind { has: announced.without(*peer), missed: missed.cloned().collect() });
        }
        self.trim();
    }

    /// Tells those who left the log, or are leaving, that a slot changes; `before` is what was announced of it so far.
    pub(super) fn note_behind(
        &mut self,
        id: SlotId,
        before: impl Iterator<Item = (PeerId, Item)> + Clone,
    ) {
        self.note_leaving(id, before.clone());
        for peer in &self.stragglers {
            let Some(member) = self.members.get_mut(peer) else { continue };
            let Some(behind) = &mut member.behind else { continue };
            if behind.has.remove(id) {
                let others = before.clone().filter(|(source, _)| source != peer);
                others.for_each(|(_, item)| member.leftovers.push(&item));
            }
            member.begin_sweep(&Sweep::default()).add(id);
        }
    }

    /// Counts the octets that wait for a member: the log's, and what is noted.
    #[cfg(test)]
    pub(crate) fn kept_for(&self, peer: PeerId) -> usize {
        let Some(member) = self.members.get(&peer) else { return 0 };
        let log = (member.cursor..self.log.end()).filter_map(|number| self.log.get(number));
        let missed = member.behind.iter().flat_map(Behind::missed);
        let segments = member.private.iter().chain(log).chain(missed);
        segments.map(|segment| segment.bytes.len()).sum::<usize>() + member.leftovers.len()
    }

    /// Says whether a member's own walk can go on: what it has not yet been announced comes when the common one is over.
    pub(super) fn may_sweep(&self, member: &Member) -> bool {
        let Some(behind) = &member.behind else { return self.walk.is_none() };
        let pending =
            member.sweep.as_ref().is_some_and(|sweep| sweep.whole || !sweep.pending.is_empty());
        self.walk.is_none() || pending || !behind.missed.is_empty() || !member.leftovers.is_empty()
    }

    /// One step of a member's own walk; the log is empty for it at this point. Returns the rest of the walk.
    pub(super) fn sweep_on(
        &mut self,
        peer: PeerId,
        mut sweep: Sweep,
        table: Table<'_>,
        writer: &mut Writer,
    ) -> Option<Sweep> {
        if std::mem::take(&mut sweep.whole) {
            sweep.pending.fill(table.rib.slots());
        }
        let forgotten = self.take_forgotten(peer);
        if !forgotten.is_empty() {
            self.make_forget(peer, forgotten, table, writer);
            return Some(sweep);
        }
        let slots = sweep.pending.take(self.limits.step);
        if slots.is_empty() {
            if self.walk.is_some() {
                return Some(sweep);
            }
            self.end_sweep(peer, &sweep, writer);
            return None;
        }
        let mut batch = Batch::new(&self.key, table, slots.len());
        let (mut told, mut skipped) = (Vec::new(), Vec::new());
        for id in slots {
            if self.announce_again(peer, id, (sweep.families, &mut skipped), &mut batch, table) {
                told.push(id);
            }
        }
        batch.write(&self.packer(), writer, |_| true);
        skipped.into_iter().for_each(|id| self.skipped.add(id));
        if let Some(behind) = self.members.get_mut(&peer).and_then(|each| each.behind.as_mut()) {
            told.into_iter().for_each(|id| behind.has.add(id));
        }
        Some(sweep)
    }

    /// Says whether there was something.
    fn announce_again(
        &self,
        peer: PeerId,
        id: SlotId,
        (families, skipped): (Families, &mut Vec<SlotId>),
        batch: &mut Batch<'_>,
        table: Table<'_>,
    ) -> bool {
        let Some(prefix) = table.rib.prefix(id) else { return false };
        let mut any = false;
        if !families.contains(prefix.family()) {
            return false;
        }
        for told in self.announced.get(id).filter(|told| told.source != peer) {
            let path = if self.key.add_path.contains(prefix.family()) {
                let mut paths = table.rib.usable_paths(id, table.interner);
                paths.find(|path| path.local_id() == told.path_id)
            } else {
                table.rib.chosen(id)
            };
            // What changed since then is yet to be announced to all.
            let Some(path) = path else {
                skipped.push(id);
                continue;
            };
            if path.key.source == peer {
                continue;
            }
            if let Some(bucket) = batch.export(&prefix, path, PeerId::LOCAL) {
                batch.announce(bucket, id, Item { prefix, path_id: told.path_id });
                any = true;
            }
        }
        any
    }

    /// Takes some of what a member may have and perhaps must forget.
    fn take_forgotten(&mut self, peer: PeerId) -> Vec<Item> {
        let (step, add_path) = (self.limits.step, self.key.add_path);
        let Some(member) = self.members.get_mut(&peer) else { return Vec::new() };
        if let Some(behind) = &mut member.behind {
            while let Some(segment) = behind.missed.pop_front() {
                let items = withdrawn(&segment, add_path);
                if !items.is_empty() {
                    return items;
                }
            }
        }
        member.leftovers.take(step)
    }

    fn make_forget(
        &mut self,
        peer: PeerId,
        items: Vec<Item>,
        table: Table<'_>,
        writer: &mut Writer,
    ) {
        let (told, gone): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| self.is_told(peer, item, table.rib));
        withdraw(&self.packer(), &gone, Audience::All, writer);
        let Some(member) = self.members.get_mut(&peer) else { return };
        if let Some(behind) = &mut member.behind {
            // It may have that still, when it goes.
            let slots = told.iter().filter_map(|item| table.rib.find(&item.prefix));
            slots.for_each(|id| behind.has.add(id));
        }
    }

    /// The member has heard of everything; from now on it hears of changes as the others do.
    fn end_sweep(&mut self, peer: PeerId, sweep: &Sweep, writer: &mut Writer) {
        for family in sweep.end_of_rib.iter() {
            writer.write(Audience::All, |out| {
                end_of_rib(family, out);
                1
            });
        }
        let end = self.log.end();
        let Some(member) = self.members.get_mut(&peer) else { return };
        if member.behind.take().is_some() {
            member.cursor = end;
            self.stragglers.remove(&peer);
        }
        member.private.extend(writer.finish());
        for family in sweep.refresh.iter() {
            let bytes = encode_route_refresh(family, Refresh::End);
            member.private.push_back(Segment { bytes, messages: 0, audience: Audience::All });
        }
    }
}
