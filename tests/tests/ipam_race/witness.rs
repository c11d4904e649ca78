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

use crate::judge::Seen;

/// The watch, and what it saw.
pub(crate) struct Witness {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

impl Witness {
    /// Starts, and returns when it sees.
    pub(crate) fn start(runtime: &Handle, store: KubeStore, journal: PathBuf) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (ready, mut synced) = watch::channel(false);
        let task = runtime.spawn(run(store, journal, Arc::clone(&seen), ready)).abort_handle();
        runtime.block_on(async { synced.wait_for(|synced| *synced).await.map(drop) }).unwrap();
        Self { seen, task }
    }

    /// Ends, and returns everything that was seen.
    pub(crate) fn end(self) -> Vec<Seen> {
        self.task.abort();
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn run(
    store: KubeStore,
    journal: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    ready: watch::Sender<bool>,
) {
    let mut blocks: BTreeMap<String, BTreeMap<IpAddr, String>> = BTreeMap::new();
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
        let before = blocks.insert(name.clone(), after.clone()).unwrap_or_default();
        let mut addresses: Vec<&IpAddr> = before.keys().chain(after.keys()).collect();
        addresses.sort();
        addresses.dedup();
        let changed = addresses.into_iter().filter(|one| before.get(one) != after.get(one));
        seen.lock().unwrap().extend(changed.map(|address| Seen {
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
