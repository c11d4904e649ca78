//! What an assignment costs, in requests and in time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use api::{IpamBlock, IpamHandle};
use store::Store as _;
use store::memory::{Faults, MemoryStore, Verb};
use tokio::time::Instant;

use super::{allocator, cluster, findings, request};
use crate::Family;

#[tokio::test(start_paused = true)]
async fn an_assignment_costs_two_writes_and_a_release_two() {
    let store = cluster("10.0.0.0/24", 26, &["n1"]).await;
    let ipam = allocator(&store, "n1");
    ipam.ensure_block(Family::V4).await.unwrap();
    store.forget_requests();
    let got = ipam.auto_assign(request("n1", "h1")).await.unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].prefix_len(), 26);
    let told = |store: &MemoryStore| {
        let requests = store.requests();
        requests.iter().map(|one| format!("{:?} {}", one.verb, one.kind)).collect::<Vec<_>>()
    };
    assert_eq!(told(&store), ["Create IPAMHandle", "Update IPAMBlock"]);
    store.forget_requests();
    assert_eq!(ipam.release_by_handle("h1").await.unwrap(), [got[0].addr()]);
    assert_eq!(told(&store), ["Update IPAMBlock", "Delete IPAMHandle"]);
    assert_eq!(findings(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_together_share_one_block_write() {
    let store = cluster("10.0.0.0/24", 26, &["n1"]).await;
    let ipam = allocator(&store, "n1");
    ipam.ensure_block(Family::V4).await.unwrap();
    store.forget_requests();
    let handles: Vec<_> = (0..60).map(|number| format!("h{number}")).collect();
    let asks = handles.iter().map(|handle| ipam.auto_assign(request("n1", handle)));
    let got = futures::future::join_all(asks).await;
    let unique: BTreeSet<IpAddr> = got.into_iter().map(|one| one.unwrap()[0].addr()).collect();
    assert_eq!(unique.len(), 60);
    assert_eq!(store.count::<IpamHandle>(Verb::Create), 60);
    assert!(store.count::<IpamBlock>(Verb::Update) <= 2);
    assert_eq!(findings(&store).await, [""; 0]);
}

/// About 5 ms for each call, as an API server takes.
fn slow(store: &MemoryStore) {
    store.set_faults(Faults { latency: Duration::from_millis(10), ..Faults::none() });
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_a_hundred_pods_takes_a_dozen_block_writes_and_half_a_second() {
    let store = cluster("10.0.0.0/16", 26, &["n1"]).await;
    slow(&store);
    let ipam = allocator(&store, "n1");
    ipam.ensure_block(Family::V4).await.unwrap();
    store.forget_requests();
    let start = Instant::now();
    // As they come: some at once, some while the first are being written.
    let asks = (0..100_u64).map(|number| {
        let ipam = ipam.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(number / 4)).await;
            ipam.auto_assign(request("n1", &format!("h{number}"))).await
        }
    });
    let got = futures::future::join_all(asks).await;
    let took = start.elapsed();
    let unique: BTreeSet<IpAddr> = got.into_iter().map(|one| one.unwrap()[0].addr()).collect();
    assert_eq!(unique.len(), 100);
    let writes = store.count::<IpamBlock>(Verb::Update) + store.count::<IpamBlock>(Verb::Create);
    assert!(writes <= 12, "{writes} block writes");
    assert_eq!(store.count::<IpamHandle>(Verb::Create), 100);
    let reads = store.requests().iter().filter(|one| !one.verb.writes()).count();
    assert_eq!(reads, 0, "{:?}", store.requests());
    assert!(took < Duration::from_millis(500), "{took:?}");
    store.set_faults(Faults::none());
    assert_eq!(findings(&store).await, [""; 0]);
}

/// Nobody waits for another's block to be written before its own handle is.
#[tokio::test(start_paused = true)]
async fn requests_that_come_one_after_the_other_do_not_wait_for_each_other() {
    let store = cluster("10.0.0.0/16", 26, &["n1"]).await;
    let ipam = allocator(&store, "n1");
    ipam.ensure_block(Family::V4).await.unwrap();
    // A handle and a block take 10 ms at most, and the block that is being written then 5 more.
    store.set_faults(Faults { latency: Duration::from_millis(5), ..Faults::none() });
    let asks = (0..40_u64).map(|number| {
        let ipam = ipam.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(number * 2)).await;
            let start = Instant::now();
            ipam.auto_assign(request("n1", &format!("h{number}"))).await.unwrap();
            start.elapsed()
        }
    });
    let slowest = futures::future::join_all(asks).await.into_iter().max().unwrap();
    assert!(slowest <= Duration::from_millis(16), "{slowest:?}");
}

/// One write of the handle, whatever the number of blocks.
#[tokio::test(start_paused = true)]
async fn a_handle_is_written_once_for_both_families() {
    let store = cluster("10.0.0.0/24", 26, &["n1"]).await;
    let six = api::IpPoolSpec { cidr: "fd00::/112".to_owned(), ..api::IpPoolSpec::default() };
    store.create(&api::IpPool::new("six", six)).await.unwrap();
    let ipam = allocator(&store, "n1");
    for family in [Family::V4, Family::V6] {
        ipam.ensure_block(family).await.unwrap();
    }
    store.forget_requests();
    let both = crate::AutoAssign { num6: 1, ..request("n1", "h") };
    assert_eq!(ipam.auto_assign(both).await.unwrap().len(), 2);
    assert_eq!(store.count::<IpamHandle>(Verb::Create), 1);
    assert_eq!(store.count::<IpamBlock>(Verb::Update), 2);
    assert_eq!(store.requests().len(), 3);
    assert_eq!(findings(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_nodes_that_claim_at_once_hardly_collide() {
    let nodes: Vec<String> = (0..200).map(|number| format!("node-{number}")).collect();
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let store = cluster("10.0.0.0/16", 26, &names).await;
    let allocators: Vec<_> = nodes.iter().map(|node| allocator(&store, node)).collect();
    for ipam in &allocators {
        // Nothing to release: the watches are ready when this is answered.
        ipam.release_by_handle("none").await.unwrap();
    }
    slow(&store);
    store.forget_requests();
    let claims = allocators.iter().map(|ipam| ipam.ensure_block(Family::V4));
    let claimed: BTreeSet<_> =
        futures::future::join_all(claims).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(claimed.len(), 200);
    let attempts = store.count::<IpamBlock>(Verb::Create);
    assert!(attempts < 300, "{attempts} attempts of 200 nodes");
    let reads = store.requests().into_iter().filter(|one| !one.verb.writes()).count();
    assert_eq!(reads, 0);
}
