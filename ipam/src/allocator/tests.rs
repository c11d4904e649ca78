use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use api::{
    BlockAffinity, IpPool, IpPoolSpec, IpamBlock, IpamConfiguration, IpamConfigurationSpec,
    IpamHandle, Node, Pod, Resource,
};
use proptest::prelude::*;
use store::memory::{Faults, MemoryStore, Verb};
use store::random::Random;
use store::{ListOptions, Store};

use super::{Allocator, Options};
use crate::{AssignRequest, AutoAssign, Clock, Family, Owner, UnixNanos, check};

fn clock() -> Clock {
    let now = Arc::new(AtomicU64::new(1_790_000_000_000_000_000));
    Clock::new(move || UnixNanos(now.fetch_add(1_000_000, Ordering::Relaxed)))
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
    };
    check::check(&state).iter().map(ToString::to_string).collect()
}

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

#[tokio::test(start_paused = true)]
async fn a_full_pool_borrows_unless_affinity_is_strict_and_then_says_why_not() {
    let store = cluster("10.0.0.0/29", 30, &["n1", "n2", "n3"]).await;
    let nodes = ["n1", "n2", "n3"].map(|node| (node, allocator(&store, node)));
    nodes[0].1.auto_assign(request("n1", "a")).await.unwrap();
    nodes[1].1.auto_assign(request("n2", "b")).await.unwrap();
    let borrowed = nodes[2].1.auto_assign(request("n3", "c")).await.unwrap();
    assert_eq!(borrowed.len(), 1);
    let spec = IpamConfigurationSpec { strict_affinity: true, ..Default::default() };
    store.create(&IpamConfiguration::new("default", spec)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let error = nodes[2].1.auto_assign(request("n3", "d")).await.unwrap_err();
    assert_eq!(error.to_string(), "no IPv4 address: pool pool has no free block");
    assert!(!error.is_temporary());
    assert_eq!(findings(&store).await, [""; 0]);
    for (_, ipam) in &nodes {
        for handle in ["a", "b", "c"] {
            ipam.release_by_handle(handle).await.unwrap();
        }
    }
    assert_eq!(findings(&store).await, [""; 0]);
    assert!(all::<IpamHandle>(&store).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_block_that_overlaps_one_of_another_size_is_refused() {
    let store = cluster("10.0.0.0/24", 26, &["n1", "n2"]).await;
    let (one, two) = (allocator(&store, "n1"), allocator(&store, "n2"));
    one.claim_block("10.0.0.64/26".parse().unwrap()).await.unwrap();
    let mut pool = store.get::<IpPool>(&api::Key::cluster("pool")).await.unwrap();
    pool.spec.block_size = Some(28);
    store.update(&pool).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let error = two.claim_block("10.0.0.80/28".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("someone else"), "{error}");
    for number in 0..13 {
        two.auto_assign(AutoAssign { num4: 10, ..request("n2", &format!("h{number}")) })
            .await
            .unwrap();
    }
    assert_eq!(findings(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn certain_addresses_and_annotations_are_honoured() {
    let store = cluster("10.0.0.0/24", 26, &["n1"]).await;
    let ipam = allocator(&store, "n1");
    let ask = |handle: &str, annotation: (&str, &str)| AssignRequest {
        handle: handle.to_owned(),
        owner: Owner::default().with("node", "n1"),
        pod_annotations: BTreeMap::from([(annotation.0.to_owned(), annotation.1.to_owned())]),
        ..AssignRequest::default()
    };
    let fixed = ("cni.projectcalico.org/ipAddrs", r#"["10.0.0.77"]"#);
    let got = ipam.assign_for_pod(ask("a", fixed)).await.unwrap();
    assert_eq!(got, ["10.0.0.77".parse::<IpAddr>().unwrap()]);
    let mut story = String::new();
    for annotation in [
        fixed,
        ("cni.projectcalico.org/ipAddrs", r#"["10.9.0.1"]"#),
        ("cni.projectcalico.org/ipAddrs", "10.0.0.1"),
        ("cni.projectcalico.org/ipv4pools", r#"["nowhere"]"#),
        ("cni.projectcalico.org/ipFamilies", r#"["IPv6"]"#),
    ] {
        let error = ipam.assign_for_pod(ask("b", annotation)).await.unwrap_err();
        story.push_str(&format!("{error}\n"));
    }
    expect_test::expect![[r#"
        address 10.0.0.77 cannot be taken: 10.0.0.77 is in use
        address 10.9.0.1 is in no pool
        annotation cni.projectcalico.org/ipAddrs: "10.0.0.1" is not a JSON list of strings: invalid type: floating point `10.0`, expected a sequence at line 1 column 4
        no IPv4 address: pool nowhere does not exist
        no IPv6 address: there are no pools of this family
    "#]]
    .assert_eq(&story);
    assert_eq!(findings(&store).await, [""; 0]);
}

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
    for block in all::<IpamBlock>(&store).await {
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
