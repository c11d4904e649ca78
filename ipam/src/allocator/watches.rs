//! What the allocator watches: small kinds whole, the node's claims, and of every block in the cluster a summary.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::{
    BlockAffinity, BlockAffinitySpec, IpPool, IpReservation, IpamBlock, IpamConfiguration,
    IpamConfigurationSpec, Key, Node,
};
use futures::{FutureExt, StreamExt};
use store::{
    ListOptions, Store,
    informer::{Cache, Change, FollowOptions, follow},
};
use tokio::{sync::watch, task::AbortHandle};

use crate::{
    AssignError, affinity,
    pool::{Pool, Reservations},
    space::Space,
};

#[derive(Clone)]
pub(super) struct Watches {
    pub(super) pools: Cache<IpPool>,
    reservations: Cache<IpReservation>,
    configuration: Cache<IpamConfiguration>,
    node: Cache<Node>,
    affinities: Cache<BlockAffinity>,
    blocks: Arc<BlockWatch>,
    ready_within: Duration,
}

impl Watches {
    pub(super) fn new(store: &impl Store, node: &str, ready_within: Duration) -> Self {
        let own = ListOptions::cached().label(affinity::HOST_LABEL, affinity::host_hash(node));
        let this = ListOptions::cached().field("metadata.name", node);
        Self {
            pools: Cache::follow(store.clone(), FollowOptions::default()),
            reservations: Cache::follow(store.clone(), FollowOptions::default()),
            configuration: Cache::follow(store.clone(), FollowOptions::default()),
            node: Cache::follow(store.clone(), FollowOptions::new(this)),
            affinities: Cache::follow(store.clone(), FollowOptions::new(own).keep_raw()),
            blocks: Arc::new(BlockWatch::new(store.clone())),
            ready_within,
        }
    }

    pub(super) async fn ready(&self) -> Result<(), AssignError> {
        let all = async {
            self.pools.wait_synced().await;
            self.reservations.wait_synced().await;
            self.configuration.wait_synced().await;
            self.node.wait_synced().await;
            self.affinities.wait_synced().await;
            self.blocks.wait(|_| true).await;
        };
        tokio::time::timeout(self.ready_within, all)
            .await
            .map_err(|_| AssignError::NotReady("pools and blocks are not read yet"))
    }

    pub(super) fn reservations(&self) -> Reservations {
        let list = self.reservations.list();
        Reservations::read(list.iter().map(|stored| &***stored))
    }

    pub(super) fn configuration(&self) -> IpamConfigurationSpec {
        let stored = self.configuration.get(&Key::cluster("default"));
        stored.map(|stored| stored.spec.clone()).unwrap_or_default()
    }

    pub(super) fn node_labels(&self) -> BTreeMap<String, String> {
        self.node.list().first().map(|node| node.metadata.labels.clone()).unwrap_or_default()
    }

    pub(super) fn readable_pools(&self) -> Vec<Pool> {
        self.pools.list().iter().filter_map(|stored| Pool::read(stored).ok()).collect()
    }

    /// Returns the claims of this node, as far as they were seen.
    pub(super) fn claims(&self) -> Vec<BlockAffinitySpec> {
        let claims = self.affinities.list().iter().map(|one| one.spec.clone()).collect();
        #[cfg(test)]
        looks::saw_claims(&claims);
        claims
    }

    /// Looks at the blocks of the cluster, as far as they were seen.
    pub(super) fn space<T: Debug>(&self, look: impl FnOnce(&Space) -> T) -> T {
        let seen = look(&self.blocks.space.read().unwrap_or_else(PoisonError::into_inner));
        #[cfg(test)]
        looks::saw_blocks(&seen);
        seen
    }

    /// Waits until the blocks are as wanted. `false`: not within `patience`.
    pub(super) async fn space_becomes(
        &self,
        wanted: impl Fn(&Space) -> bool,
        patience: Duration,
    ) -> bool {
        let wanted = |space: &Space| {
            let holds = wanted(space);
            #[cfg(test)]
            looks::saw_blocks(&holds);
            holds
        };
        tokio::time::timeout(patience, self.blocks.wait(wanted)).await.is_ok()
    }
}

/// Follows every block and keeps summaries: whole blocks of a large cluster would not fit into a node's daemon.
struct BlockWatch {
    space: Arc<RwLock<Space>>,
    /// Goes up with every change; 0 until the first list is in.
    version: watch::Receiver<u64>,
    task: AbortHandle,
}

impl Drop for BlockWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl BlockWatch {
    fn new(store: impl Store) -> Self {
        let space = Arc::new(RwLock::new(Space::default()));
        let (told, version) = watch::channel(0);
        let task = tokio::spawn(run(store, Arc::clone(&space), told)).abort_handle();
        Self { space, version, task }
    }

    async fn wait(&self, wanted: impl Fn(&Space) -> bool) {
        let holds = |version: &u64| {
            *version > 0 && wanted(&self.space.read().unwrap_or_else(PoisonError::into_inner))
        };
        // The sender lives as long as the task, which lives as long as `self`.
        let _ = self.version.clone().wait_for(holds).await;
    }
}

async fn run(store: impl Store, space: Arc<RwLock<Space>>, told: watch::Sender<u64>) {
    let mut changes = pin!(follow::<IpamBlock>(store, FollowOptions::default()));
    let (mut synced, mut version) = (false, 0);
    while let Some(change) = changes.next().await {
        // All that is known of a new list is shown at once: it comes by name, and half of it would show a block without one that
        // was there before.
        let mut known = vec![change];
        while let Some(Some(change)) = changes.next().now_or_never() {
            known.push(change);
        }
        {
            let mut space = space.write().unwrap_or_else(PoisonError::into_inner);
            for change in known {
                synced |= matches!(change, Change::Synced);
                note(&mut space, change);
            }
        }
        version += 1;
        if synced {
            told.send_replace(version);
        }
    }
}

fn note(space: &mut Space, change: Change<IpamBlock>) {
    match change {
        Change::Applied(block) => space.put(&block),
        Change::Deleted(key, _) => space.remove(&key.name),
        Change::Synced => {}
        Change::Malformed { key, message } => {
            tracing::warn!(block = %key, message, "block cannot be read, its addresses are left alone");
            space.put_unreadable(&key.name);
        }
        Change::Disconnected { reason, retry_in } => {
            tracing::warn!(error = %reason, ?retry_in, "blocks are not watched");
        }
    }
}

/// What was seen of the watches: the model check has to know on what a decision depends.
#[cfg(test)]
pub(super) mod looks {
    use std::cell::RefCell;
    use std::fmt::Debug;

    /// Which watches were looked at, and what they said.
    #[derive(Clone, Debug, Default, Eq, PartialEq)]
    pub(in crate::allocator) struct Looks {
        pub(in crate::allocator) blocks: bool,
        pub(in crate::allocator) claims: bool,
        pub(in crate::allocator) seen: String,
        /// From where on it was seen after the program told all that it remembered.
        pub(in crate::allocator) since: usize,
    }

    thread_local! {
        static LOOKS: RefCell<Looks> = RefCell::default();
    }

    pub(super) fn saw_blocks(seen: &impl Debug) {
        note(seen, |looks| looks.blocks = true);
    }

    pub(in crate::allocator) fn saw_claims(seen: &impl Debug) {
        note(seen, |looks| looks.claims = true);
    }

    fn note(seen: &impl Debug, mark: impl FnOnce(&mut Looks)) {
        LOOKS.with_borrow_mut(|looks| {
            mark(looks);
            looks.seen.push_str(&format!("{seen:?};"));
        });
    }

    /// What was seen up to here, the program has told with everything else that it remembers.
    pub(crate) fn are_over() {
        LOOKS.with_borrow_mut(|looks| looks.since = looks.seen.len());
    }

    /// Returns what was seen since the last call.
    pub(in crate::allocator) fn take() -> Looks {
        LOOKS.take()
    }
}

#[cfg(test)]
mod tests {
    use store::memory::{Faults, MemoryStore};

    use super::*;
    use crate::{UnixNanos, block};

    #[tokio::test(start_paused = true)]
    async fn a_new_list_is_shown_at_once() {
        let store = MemoryStore::new();
        let watch = BlockWatch::new(store.clone());
        watch.wait(|_| true).await;
        store.set_faults(Faults { watch_lost: 1000, ..Faults::none() });
        let before = *watch.version.borrow();
        for number in 0..32 {
            let net = format!("10.0.{number}.0/26").parse().unwrap();
            store.create(&block::empty(&net, None, UnixNanos(1))).await.unwrap();
        }
        // It has to list again.
        store.compact();
        store.set_faults(Faults::none());
        let all = |space: &Space| space.inside(&"10.0.0.0/16".parse().unwrap()).count() == 32;
        watch.wait(all).await;
        assert_eq!(*watch.version.borrow() - before, 1);
    }
}
