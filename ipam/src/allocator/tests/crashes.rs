//! Nodes that crash anywhere, on a datastore that fails anywhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use api::{IpamHandle, Key};
use proptest::prelude::*;
use store::Store;
use store::memory::{Faults, MemoryStore};
use store::random::Random;

use super::{all, allocator, cluster, findings, request, settle};

/// One life of a node's allocator: it works until it is killed at some await point.
async fn live(
    store: &MemoryStore,
    node: &str,
    random: &mut Random,
    held: &mut BTreeMap<String, bool>,
) {
    let ipam = allocator(store, node);
    let budget = Duration::from_millis(random.below(400));
    let work = async {
        for _ in 0..6 {
            let handle = format!("{node}-{}", random.below(6));
            if held.contains_key(&handle) {
                // Unknown until it is answered.
                held.insert(handle.clone(), false);
                if ipam.release_by_handle(&handle).await.is_ok() {
                    held.remove(&handle);
                }
            } else {
                held.insert(handle.clone(), false);
                if ipam.auto_assign(request(node, &handle)).await.is_ok() {
                    held.insert(handle, true);
                }
            }
        }
    };
    let _ = tokio::time::timeout(budget, work).await;
}

/// A block's write may arrive after its handle was released: the address is there, the handle is not.
#[tokio::test(start_paused = true)]
async fn an_address_without_its_handle_is_released_from_the_nodes_own_blocks() {
    let store = cluster("10.0.0.0/27", 28, &["n1"]).await;
    let late = async |handle: &str| {
        let former = allocator(&store, "n1");
        let got = former.auto_assign(request("n1", handle)).await.unwrap();
        store.delete::<IpamHandle>(&Key::cluster(handle), &Default::default()).await.unwrap();
        got[0].addr()
    };
    let never_read = late("h1").await;
    let ipam = allocator(&store, "n1");
    assert_eq!(ipam.release_by_handle("h1").await.unwrap(), [never_read]);
    // And when this process has an older copy of the block.
    ipam.auto_assign(request("n1", "h2")).await.unwrap();
    let read_before = late("h3").await;
    settle().await;
    assert_eq!(ipam.release_by_handle("h3").await.unwrap(), [read_before]);
    assert_eq!(findings(&store).await, [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Nodes that crash anywhere, on a datastore that fails anywhere, never share an address; and once everything is
    /// released nothing is left over.
    #[test]
    fn crashes_and_faults_leave_nothing_wrong(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all().start_paused(true).build().unwrap();
        runtime.block_on(crashes(seed));
    }
}

async fn crashes(seed: u64) {
    let nodes = ["n1", "n2", "n3"];
    let store = cluster("10.0.0.0/27", 30, &nodes).await;
    let mut random = Random::seeded(seed);
    let faults =
        Faults { latency: Duration::from_millis(10), ..Faults::everything(random.next_u64(), 80) };
    store.set_faults(faults);
    let mut randoms = nodes.map(|_| Random::seeded(random.next_u64()));
    let mut held: [BTreeMap<String, bool>; 3] = Default::default();
    for _ in 0..4 {
        let lives = nodes.iter().zip(&mut randoms).zip(&mut held);
        let lives = lives.map(|((node, random), held)| live(&store, node, random, held));
        futures::future::join_all(lives).await;
    }
    store.set_faults(Faults::none());
    let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
    for block in all::<api::IpamBlock>(&store).await {
        assert_eq!(crate::block::defects(&block.spec), [""; 0]);
        for (address, owner) in crate::block::assigned(&block.spec) {
            let handle = owner.handle_id.clone().unwrap_or_default();
            assert!(owners.insert(address, handle).is_none(), "{address} is given twice");
        }
    }
    for (handle, _) in held.iter().flatten().filter(|(_, sure)| **sure) {
        assert!(owners.values().any(|owner| owner == handle), "{handle} lost its address");
    }
    // The runtime repeats DEL for everything that did not end well; a new life finishes claims.
    for (node, held) in nodes.iter().zip(&held) {
        let ipam = allocator(&store, node);
        for handle in held.iter().filter(|(_, sure)| !**sure).map(|(handle, _)| handle) {
            ipam.release_by_handle(handle).await.unwrap();
        }
        ipam.auto_assign(request(node, &format!("{node}-last"))).await.unwrap();
    }
    assert_eq!(findings(&store).await, [""; 0]);
}
