//! Members that leave for another group, because policy for them changed: what they may have is listed first, a few slots
//! at a time. Until then changes of the table are noted for them as for those that read too slowly.

use super::{Heritage, UpdateGroup, pending::Slots};
use crate::{
    rib::{PeerId, Rib, SlotId},
    wire::Item,
};

/// A member on its way out: it gets nothing from this group any more.
#[derive(Debug)]
pub(super) struct Leaver {
    pub(super) peer: PeerId,
    /// Slots whose announcement it may have, and that are not listed yet.
    has: Slots,
    had: Heritage,
}

impl UpdateGroup {
    /// A peer goes to another group. Returns what it takes there, if that is known at once; otherwise ask
    /// [`UpdateGroup::take_left`] after flushes.
    pub(crate) fn begin_leaving(&mut self, peer: PeerId) -> Option<Heritage> {
        if let Some(joiner) = self.joiners.iter_mut().find(|joiner| joiner.peer == peer) {
            let had = std::mem::take(&mut joiner.had);
            self.leave(peer);
            return Some(had);
        }
        let member = self.members.get(&peer)?;
        let items = self.forgotten(peer, member);
        let (begins, refresh) = member.open_refresh();
        let behind = member.behind.as_ref();
        let has = behind.map_or_else(|| self.announced.without(peer), |behind| behind.has.clone());
        self.leave(peer);
        self.leavers.push_back(Leaver { peer, has, had: Heritage { items, begins, refresh } });
        None
    }

    pub(crate) fn is_leaving(&self, peer: PeerId) -> bool {
        self.leavers.iter().any(|leaver| leaver.peer == peer)
    }

    /// Tells those who leave that a slot changes; `before` is what was announced of it so far.
    pub(super) fn note_leaving(
        &mut self,
        id: SlotId,
        before: impl Iterator<Item = (PeerId, Item)> + Clone,
    ) {
        for leaver in self.leavers.iter_mut().filter_map(|leaver| leaver.holds(id)) {
            let others = before.clone().filter(|(source, _)| *source != leaver.peer);
            others.for_each(|(_, item)| leaver.had.items.push(&item));
        }
    }

    /// Lists what the first of those who leave may have, as far as one step goes.
    pub(super) fn list_leaving(&mut self, rib: &Rib) {
        let Self { leavers, announced, limits, .. } = self;
        let Some(leaver) = leavers.front_mut() else { return };
        for id in leaver.has.take(limits.step) {
            let Some(prefix) = rib.prefix(id) else { continue };
            let told = announced.get(id).filter(|told| told.source != leaver.peer);
            told.for_each(|told| leaver.had.items.push(&Item { prefix, path_id: told.path_id }));
        }
    }

    /// Returns who has left, with what it takes to its next group.
    pub(crate) fn take_left(&mut self) -> Option<(PeerId, Heritage)> {
        let left = self.leavers.pop_front_if(|leaver| leaver.has.is_empty())?;
        Some((left.peer, left.had))
    }
}

impl Leaver {
    /// Says whether the slot was still to be listed; it is not any more.
    fn holds(&mut self, id: SlotId) -> Option<&mut Self> {
        self.has.remove(id).then_some(self)
    }
}
