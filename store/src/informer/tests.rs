use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use api::{Key, KindInfo, Object, Spec};
use futures::StreamExt;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Cache, Change, FollowOptions, follow};
use crate::conformance::kinds::{Pool, PoolSpec, pool};
use crate::memory::{Faults, MemoryStore};
use crate::random::Random;
use crate::{DeletePreconditions, ListOptions, Store};

fn tell(change: &Change<Pool>) -> String {
    match change {
        Change::Applied(pool) => format!("+{} {}", pool.metadata.name, pool.spec.cidr),
        Change::Deleted(key, last) => format!("-{key} {}", last.is_some()),
        Change::Synced => "synced".to_owned(),
        Change::Malformed { key, .. } => format!("malformed {key}"),
        Change::Disconnected { reason, .. } => format!("disconnected: {reason}"),
    }
}

async fn change_cidr(store: &MemoryStore, name: &str, cidr: &str) {
    let mut pool = store.get::<Pool>(&Key::cluster(name)).await.unwrap();
    pool.spec.cidr = cidr.to_owned();
    store.update(&pool).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_gone_only_differences_are_told() {
    let store = MemoryStore::new();
    for name in ["a", "b", "c"] {
        store.create(&pool(name)).await.unwrap();
    }
    let mut changes = pin!(follow::<Pool>(store.clone(), FollowOptions::default()));
    let mut story = Vec::new();
    for _ in 0..4 {
        story.push(tell(&changes.next().await.unwrap()));
    }
    change_cidr(&store, "a", "10.9.0.0/16").await;
    store.delete::<Pool>(&Key::cluster("b"), &DeletePreconditions::default()).await.unwrap();
    store.compact();
    for _ in 0..2 {
        story.push(tell(&changes.next().await.unwrap()));
    }
    store.delete::<Pool>(&Key::cluster("c"), &DeletePreconditions::default()).await.unwrap();
    story.push(tell(&changes.next().await.unwrap()));
    expect_test::expect![[r#"
        [
            "+a 10.0.0.0/16",
            "+b 10.0.0.0/16",
            "+c 10.0.0.0/16",
            "synced",
            "-b false",
            "+a 10.9.0.0/16",
            "-c true",
        ]
    "#]]
    .assert_debug_eq(&story);
}

/// A type that reads no pool of ours.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct StrictSpec {
    cidr: u32,
}

impl Spec for StrictSpec {
    const KIND: KindInfo = PoolSpec::KIND;
    type Status = serde_json::Value;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_object_that_nobody_can_read_is_told() {
    let store = MemoryStore::new();
    let mut changes = pin!(follow::<Object<StrictSpec>>(store.clone(), FollowOptions::default()));
    let mut story = Vec::new();
    for is_compacted in [false, true] {
        store.create(&pool("a")).await.unwrap();
        let told = if is_compacted { 1 } else { 2 };
        for _ in 0..told {
            story.push(format!("{:?}", changes.next().await.unwrap()));
        }
        store.delete::<Pool>(&Key::cluster("a"), &DeletePreconditions::default()).await.unwrap();
        if is_compacted {
            store.compact();
        }
        story.push(format!("{:?}", changes.next().await.unwrap()));
    }
    expect_test::expect![[r#"
        Malformed { key: Key { namespace: None, name: "a" }, message: "cannot read IPPool a: invalid type: string \"10.0.0.0/16\", expected u32" }
        Synced
        Deleted(Key { namespace: None, name: "a" }, None)
        Malformed { key: Key { namespace: None, name: "a" }, message: "cannot read IPPool a: invalid type: string \"10.0.0.0/16\", expected u32" }
        Deleted(Key { namespace: None, name: "a" }, None)"#]].assert_eq(&story.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_and_survived() {
    let store = MemoryStore::with_faults(Faults { unavailable_before: 1000, ..Faults::none() });
    let mut changes = pin!(follow::<Pool>(store.clone(), FollowOptions::default()));
    let first = changes.next().await.unwrap();
    assert!(matches!(first, Change::Disconnected { .. }), "{first:?}");
    store.set_faults(Faults::none());
    store.create(&pool("a")).await.unwrap();
    assert_eq!(tell(&changes.next().await.unwrap()), "+a 10.0.0.0/16");
    assert_eq!(tell(&changes.next().await.unwrap()), "synced");
}

#[tokio::test(start_paused = true)]
async fn a_cache_says_when_it_is_complete() {
    let store = MemoryStore::new();
    store.create(&pool("a")).await.unwrap();
    let cache = Cache::<Pool>::follow(store.clone(), FollowOptions::default());
    cache.wait_synced().await;
    assert_eq!(cache.list().len(), 1);
    let mut status = cache.subscribe();
    store.create(&pool("b")).await.unwrap();
    status.wait_for(|_| cache.get(&Key::cluster("b")).is_some()).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever fails on the way, a follower ends with what is stored.
    #[test]
    fn a_follower_converges_under_every_fault(seed in any::<u64>(), steps in 1..60_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all().start_paused(true).build().unwrap();
        runtime.block_on(converges(seed, steps));
    }
}

async fn converges(seed: u64, steps: usize) {
    let store = MemoryStore::new();
    let options = FollowOptions::new(ListOptions::cached());
    let cache = Cache::<Pool>::follow(store.clone(), options);
    let mut random = Random::seeded(seed);
    for step in 0..steps {
        store.set_faults(Faults::none());
        let name = format!("p{}", random.below(5));
        let key = Key::cluster(name.clone());
        match random.below(5) {
            0 => drop(store.delete::<Pool>(&key, &DeletePreconditions::default()).await),
            1 => store.compact(),
            _ => match store.get::<Pool>(&key).await {
                Ok(mut pool) => {
                    pool.spec.cidr = format!("10.{step}.0.0/16");
                    store.update(&pool).await.unwrap();
                }
                Err(_) => drop(store.create(&pool(&name)).await.unwrap()),
            },
        }
        store.set_faults(Faults::everything(random.next_u64(), 300));
        if random.chance(500) {
            tokio::time::sleep(Duration::from_millis(random.below(2000))).await;
        }
    }
    store.set_faults(Faults::none());
    tokio::time::sleep(Duration::from_secs(120)).await;
    let stored = store.list::<Pool>(&ListOptions::consistent()).await.unwrap();
    let wanted: BTreeMap<_, _> = stored
        .items
        .iter()
        .map(|pool| (pool.metadata.name.clone(), pool.spec.cidr.clone()))
        .collect();
    let seen: BTreeMap<_, _> = cache
        .list()
        .iter()
        .map(|pool| (pool.metadata.name.clone(), pool.spec.cidr.clone()))
        .collect();
    assert_eq!(seen, wanted);
}
