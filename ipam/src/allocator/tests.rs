//! The allocator against the reference datastore.

mod budget;
mod claims;
mod crashes;
mod golden;
mod machines;
mod model;
mod pools;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use api::{
    BlockAffinity, IpPool, IpPoolSpec, IpamBlock, IpamConfiguration, IpamConfigurationSpec,
    IpamHandle, Key, Node, Pod, Resource,
};
use store::memory::MemoryStore;
use store::{ListOptions, Store};

use super::{Allocator, Options};
use crate::{AutoAssign, Clock, Owner, UnixNanos, check};

fn clock() -> Clock {
    let now = Arc::new(AtomicU64::new(1_790_000_000_000_000_000));
    Clock::new(move || UnixNanos(now.fetch_add(1_000_000, Ordering::Relaxed)))
}

/// A node's allocator whose clock stands some seconds after the start.
fn allocator_at(store: &MemoryStore, node: &str, seconds: u64) -> Allocator<MemoryStore> {
    let now = UnixNanos(1_790_000_000_000_000_000 + seconds * 1_000_000_000);
    let options = Options { clock: Clock::new(move || now), ..Options::default() };
    Allocator::with_options(store.clone(), node, options)
}

/// Lets the watches see everything.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

async fn configure(store: &MemoryStore, change: impl FnOnce(&mut IpamConfigurationSpec)) {
    let key = Key::cluster("default");
    match store.get::<IpamConfiguration>(&key).await {
        Ok(mut stored) => {
            change(&mut stored.spec);
            store.update(&stored).await.unwrap();
        }
        Err(_) => {
            let mut spec = IpamConfigurationSpec::default();
            change(&mut spec);
            store.create(&IpamConfiguration::new("default", spec)).await.unwrap();
        }
    }
    settle().await;
}

fn allocator(store: &MemoryStore, node: &str) -> Allocator<MemoryStore> {
    let options = Options { clock: clock(), ready_within: Duration::from_secs(3600), tries: 30 };
    Allocator::with_options(store.clone(), node, options)
}

async fn cluster(pool: &str, block_size: u8, nodes: &[&str]) -> MemoryStore {
    let store = MemoryStore::new();
    let spec =
        IpPoolSpec { cidr: pool.to_owned(), block_size: Some(block_size), ..IpPoolSpec::default() };
    store.create(&IpPool::new("pool", spec)).await.unwrap();
    for node in nodes {
        store.create(&Node::new(*node, api::NodeSpec::default())).await.unwrap();
    }
    store
}

fn request(node: &str, handle: &str) -> AutoAssign {
    AutoAssign {
        handle: handle.to_owned(),
        owner: Owner::default().with("node", node),
        num4: 1,
        ..AutoAssign::default()
    }
}

async fn all<R: Resource>(store: &MemoryStore) -> Vec<R> {
    let listing = store.list::<R>(&ListOptions::consistent()).await.unwrap();
    listing.items.into_iter().map(store::Stored::into_inner).collect()
}

async fn findings(store: &MemoryStore) -> Vec<String> {
    let state = check::State {
        blocks: &all::<IpamBlock>(store).await,
        affinities: &all::<BlockAffinity>(store).await,
        handles: &all::<IpamHandle>(store).await,
        pools: &all::<IpPool>(store).await,
        pods: &all::<Pod>(store).await,
        nodes: &all::<Node>(store).await,
        services: &[],
    };
    check::check(&state).iter().map(ToString::to_string).collect()
}
