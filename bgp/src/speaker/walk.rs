//! Everything that a peer has in the table goes, becomes stale or is judged anew: a slice at a time.

use super::Speaker;
use crate::rib::{PeerId, Retire, Review, Rib, Task};

impl Speaker {
    pub(super) fn retire(&mut self, id: PeerId, retire: Retire) {
        self.order(id, Task::Retire(retire));
    }

    pub(super) fn order(&mut self, id: PeerId, task: Task) {
        // A peer that orders faster than its walks go, with marker after marker (RFC 7313 §4), waits for its own.
        while self.rib.walks_of(id) >= Rib::MOST_WALKS {
            self.walk_on();
        }
        self.rib.order(id, task);
    }

    /// Does one slice.
    pub(super) fn walk_on(&mut self) {
        let Some(Review { source, task, paths }) = self.rib.walk_on(self.slice) else { return };
        match task {
            Task::Reimport => self.reimport(source, &paths),
            Task::BeginLongLived(families) => self.begin_long_lived(families, &paths),
            Task::Retire(_) | Task::Tidy => (),
        }
    }
}
