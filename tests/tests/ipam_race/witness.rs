//! Watches the blocks without the proxy, and keeps every change of an address's owner with how far the journal was then.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex},
};

use api::IpamBlock;
use futures::StreamExt as _;
use store::{
    informer::{Change, FollowOptions, follow},
    kube::KubeStore,
};
use tokio::{runtime::Handle, sync::watch, task::AbortHandle};

use crate::judge::{Seen, Stored};

/// The watch, and what it saw.
pub(crate) struct Witness {
    saw: Arc<Mutex<Saw>>,
    task: AbortHandle,
}

/// Changes so far, and every block as it is now.
#[derive(Default)]
struct Saw {
    changes: Vec<Seen>,
    blocks: BTreeMap<String, BTreeMap<IpAddr, String>>,
}

impl Witness {
    /// Starts, and returns when it sees.
    pub(crate) fn start(runtime: &Handle, store: KubeStore, journal: PathBuf) -> Self {
        let saw = Arc::new(Mutex::new(Saw::default()));
        let (ready, mut synced) = watch::channel(false);
        let task = runtime.spawn(run(store, journal, Arc::clone(&saw), ready)).abort_handle();
        runtime.block_on(async { synced.wait_for(|synced| *synced).await.map(drop) }).unwrap();
        Self { saw, task }
    }

    /// Who has which address now, as far as it has seen.
    pub(crate) fn stored(&self) -> Stored {
        let saw = self.saw.lock().unwrap();
        saw.blocks.values().flatten().map(|(address, owner)| (*address, owner.clone())).collect()
    }

    /// Ends, and returns every change that was seen.
    pub(crate) fn end(self) -> Vec<Seen> {
        assert!(!self.task.is_finished(), "the witness saw it all");
        self.task.abort();
        std::mem::take(&mut self.saw.lock().unwrap().changes)
    }
}

async fn run(store: KubeStore, journal: PathBuf, saw: Arc<Mutex<Saw>>, ready: watch::Sender<bool>) {
    let mut changes = pin!(follow::<IpamBlock>(store, FollowOptions::default()));
    while let Some(change) = changes.next().await {
        let (name, after) = match change {
            Change::Applied(block) => {
                let after = if block.spec.deleted { BTreeMap::new() } else { owners(&block) };
                (block.metadata.name.clone(), after)
            }
            Change::Deleted(key, _) => (key.name, BTreeMap::new()),
            Change::Synced => {
                ready.send_replace(true);
                continue;
            }
            Change::Malformed { key, message } => panic!("block {key}: {message}"),
            Change::Disconnected { reason, .. } => panic!("the witness is blind: {reason}"),
        };
        let length = std::fs::metadata(&journal).unwrap().len();
        let mut saw = saw.lock().unwrap();
        let before = saw.blocks.insert(name.clone(), after.clone()).unwrap_or_default();
        let mut addresses: Vec<&IpAddr> = before.keys().chain(after.keys()).collect();
        addresses.sort();
        addresses.dedup();
        let changed = addresses.into_iter().filter(|one| before.get(one) != after.get(one));
        saw.changes.extend(changed.map(|address| Seen {
            journal: length,
            block: name.clone(),
            address: *address,
            before: before.get(address).cloned(),
            after: after.get(address).cloned(),
        }));
    }
}

/// Who has which address of a block.
pub(crate) fn owners(block: &IpamBlock) -> BTreeMap<IpAddr, String> {
    let assigned = ipam::block::assigned(&block.spec);
    assigned
        .map(|(address, owner)| (address, owner.handle_id.clone().unwrap_or_default()))
        .collect()
}
