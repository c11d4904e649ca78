use std::time::Duration;

use futures::StreamExt;

use super::{Faults, MemoryStore, Verb};
use crate::conformance::{
    self,
    kinds::{Pool, pool},
};
use crate::{DeletePreconditions, ListOptions, Revision, Store, StoreError, WatchEvent};
use api::Key;

#[tokio::test]
async fn memory_passes_the_conformance_suite() {
    conformance::run(async || MemoryStore::new()).await;
}

#[tokio::test]
async fn a_compacted_watch_is_gone() {
    let store = MemoryStore::new();
    let from = store.list::<Pool>(&ListOptions::cached()).await.unwrap().revision;
    store.create(&pool("a")).await.unwrap();
    store.compact();
    let mut watch = store.watch::<Pool>(&ListOptions::cached(), &from).await.unwrap();
    assert!(matches!(watch.next().await, Some(Err(StoreError::Gone))));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_stale_list_is_a_past_state_from_which_a_watch_catches_up() {
    let store = MemoryStore::new();
    for name in ["a", "b", "c"] {
        store.create(&pool(name)).await.unwrap();
    }
    store.delete::<Pool>(&Key::cluster("a"), &DeletePreconditions::default()).await.unwrap();
    store.set_faults(Faults { seed: 3, stale_list: 1000, ..Faults::none() });
    let mut sizes = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let listing = store.list::<Pool>(&ListOptions::cached()).await.unwrap();
        sizes.insert(listing.items.len());
        let mut names: std::collections::BTreeSet<_> =
            listing.items.iter().map(|pool| pool.metadata.name.clone()).collect();
        let mut watch =
            store.watch::<Pool>(&ListOptions::cached(), &listing.revision).await.unwrap();
        while names.iter().ne(["b", "c"].iter()) {
            match watch.next().await.unwrap().unwrap() {
                WatchEvent::Applied(pool) => names.insert(pool.metadata.name.clone()),
                WatchEvent::Deleted(pool) => names.remove(&pool.metadata.name),
                other => panic!("unexpected {other:?}"),
            };
        }
    }
    assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_write_done() {
    let store = MemoryStore::with_faults(Faults { unavailable_after: 1000, ..Faults::none() });
    let error = store.create(&pool("a")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    store.set_faults(Faults::none());
    store.get::<Pool>(&Key::cluster("a")).await.unwrap();
    assert_eq!(store.count::<Pool>(Verb::Create), 1);
}

#[tokio::test(start_paused = true)]
async fn latency_takes_tokio_time() {
    let store =
        MemoryStore::with_faults(Faults { latency: Duration::from_secs(10), ..Faults::none() });
    let before = tokio::time::Instant::now();
    for _ in 0..10 {
        store.list::<Pool>(&ListOptions::cached()).await.unwrap();
    }
    assert!(before.elapsed() > Duration::from_secs(10));
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let store = MemoryStore::new();
    let mut pool = pool("a");
    pool.metadata.finalizers.push("example.test/hold".to_owned());
    store.create(&pool).await.unwrap();
    store.delete::<Pool>(&Key::cluster("a"), &DeletePreconditions::default()).await.unwrap();
    let mut held = store.get::<Pool>(&Key::cluster("a")).await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    held.metadata.finalizers.clear();
    store.update(&held).await.unwrap();
    let gone = store.get::<Pool>(&Key::cluster("a")).await.unwrap_err();
    assert!(matches!(gone, StoreError::NotFound { .. }));
}

#[tokio::test]
async fn a_foreign_revision_is_refused() {
    let store = MemoryStore::new();
    let result = store.watch::<Pool>(&ListOptions::cached(), &Revision::new("abc")).await;
    assert!(matches!(result.err(), Some(StoreError::Invalid { .. })));
}
