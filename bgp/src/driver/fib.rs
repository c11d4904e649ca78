//! The mailbox of route changes: keyed by prefix, the newest wins, so a slow reader costs no memory without bound.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{FibRoute, FibUpdate, Prefix};

/// Changes since the last batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FibBatch {
    /// The new routes, in order of prefixes.
    pub updates: Vec<FibUpdate>,
    /// A restart is over with this batch: after applying it, sweep the kernel's routes that were never mentioned. Told
    /// at once on a start that is no restart.
    pub complete: bool,
    /// Next hops to watch from now on (true), or no more: answer with [`Handle::next_hops`](super::Handle::next_hops). One
    /// that is watched already is to be answered again.
    pub next_hops: Vec<(IpAddr, bool)>,
}

#[derive(Debug, Default)]
struct Mail {
    changes: BTreeMap<Prefix, FibRoute>,
    next_hops: BTreeMap<IpAddr, bool>,
    complete: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Mailbox {
    mail: Mutex<Mail>,
    arrived: Notify,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The speaker's end.
#[derive(Debug)]
pub(super) struct FibSender(Arc<Mailbox>);

/// The daemon's end.
#[derive(Debug)]
pub struct FibReceiver(Arc<Mailbox>);

pub(super) fn mailbox() -> (FibSender, FibReceiver) {
    let mailbox = Arc::new(Mailbox::default());
    (FibSender(Arc::clone(&mailbox)), FibReceiver(mailbox))
}

impl FibSender {
    pub(super) fn update(&self, update: FibUpdate) {
        self.0.lock().changes.insert(update.prefix, update.route);
        self.0.arrived.notify_one();
    }

    pub(super) fn follow(&self, next_hop: IpAddr, follow: bool) {
        self.0.lock().next_hops.insert(next_hop, follow);
        self.0.arrived.notify_one();
    }

    pub(super) fn complete(&self) {
        self.0.lock().complete = true;
        self.0.arrived.notify_one();
    }
}

impl Drop for FibSender {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.arrived.notify_one();
    }
}

impl FibReceiver {
    /// Waits for changes; `None` when the speaker is gone. Cancel-safe.
    pub async fn recv(&mut self) -> Option<FibBatch> {
        loop {
            if let Some(batch) = self.try_recv() {
                return Some(batch);
            }
            if self.0.lock().closed {
                return None;
            }
            self.0.arrived.notified().await;
        }
    }

    /// Takes the changes that are there.
    pub fn try_recv(&mut self) -> Option<FibBatch> {
        let mut mail = self.0.lock();
        if mail.changes.is_empty() && mail.next_hops.is_empty() && !mail.complete {
            return None;
        }
        let changes = std::mem::take(&mut mail.changes);
        let complete = std::mem::take(&mut mail.complete);
        let updates = changes.into_iter();
        let updates = updates.map(|(prefix, route)| FibUpdate { prefix, route }).collect();
        let next_hops = std::mem::take(&mut mail.next_hops).into_iter().collect();
        Some(FibBatch { updates, complete, next_hops })
    }
}
