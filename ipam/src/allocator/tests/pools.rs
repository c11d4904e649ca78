//! Which pools and addresses a request gets, and what it is told when it gets none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use api::{
    IpPool, IpPoolSpec, IpReservation, IpReservationSpec, IpamBlock, IpamConfiguration,
    IpamConfigurationSpec, IpamHandle, Key, Node, NodeSpec,
};
use store::Store;
use store::memory::{Faults, MemoryStore, Verb};

use super::{Options, all, allocator, cluster, configure, findings, request, settle};
use crate::{Allocator, AssignRequest, AutoAssign, Clock, Family, Owner, UnixNanos};

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
    assert_eq!(
        error.to_string(),
        "no IPv4 address: pool pool has no free block, and strictAffinity forbids to borrow from other nodes"
    );
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
    let mut pool = store.get::<IpPool>(&Key::cluster("pool")).await.unwrap();
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
        ("cni.projectcalico.org/floatingIPs", r#"["10.0.0.9"]"#),
        ("cni.projectcalico.org/ipAddrsNoIpam", r#"["ten"]"#),
    ] {
        let error = ipam.assign_for_pod(ask("b", annotation)).await.unwrap_err();
        story.push_str(&format!("{error}\n"));
    }
    expect_test::expect![[r#"
        address 10.0.0.77 cannot be taken: 10.0.0.77 is in use
        address 10.9.0.1 is in no pool; `voilectl get ippools` lists them
        annotation cni.projectcalico.org/ipAddrs: "10.0.0.1" is not a JSON list of strings: invalid type: floating point `10.0`, expected a sequence at line 1 column 4
        no IPv4 address: pool nowhere does not exist
        no IPv6 address: there are no pools of this family
        annotation cni.projectcalico.org/floatingIPs: floating IPs are not supported; remove the annotation
        annotation cni.projectcalico.org/ipAddrsNoIpam: "ten" is not an address
    "#]]
    .assert_eq(&story);
    let unmanaged = ("cni.projectcalico.org/ipAddrsNoIpam", r#"["192.0.2.9"]"#);
    let got = ipam.assign_for_pod(ask("c", unmanaged)).await.unwrap();
    assert_eq!(got, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
    assert!(ipam.release_by_handle("c").await.unwrap().is_empty());
    assert_eq!(findings(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_filled_to_the_last_address_and_then_says_so() {
    let store = cluster("10.0.0.0/26", 26, &["n1"]).await;
    let off = IpPoolSpec { cidr: "10.1.0.0/16".to_owned(), disabled: true, ..Default::default() };
    store.create(&IpPool::new("spare", off)).await.unwrap();
    let reserved = IpReservationSpec { reserved_cidrs: vec!["10.0.0.32/31".to_owned()] };
    store.create(&IpReservation::new("r", reserved)).await.unwrap();
    let ipam = allocator(&store, "n1");
    let mut story = String::new();
    for number in 0..64 {
        match ipam.auto_assign(request("n1", &format!("h{number}"))).await {
            Ok(_) => {}
            Err(error) => story.push_str(&format!("{number}: {error}\n")),
        }
    }
    expect_test::expect![[r#"
        62: no IPv4 address: pool spare is disabled; pool pool has no free block, and no address to borrow: 62 of 64 addresses in 1 blocks are in use, 2 are reserved
        63: no IPv4 address: pool spare is disabled; pool pool has no free block, and no address to borrow: 62 of 64 addresses in 1 blocks are in use, 2 are reserved
    "#]]
    .assert_eq(&story);
    // Reserved addresses are there for those who ask for them.
    let wanted = vec!["10.0.0.33".parse().unwrap()];
    ipam.assign_ip(request("n1", "asked"), wanted.clone()).await.unwrap();
    assert!(ipam.assign_ip(request("n1", "late"), wanted).await.is_err());
    assert_eq!(findings(&store).await, [""; 0]);
    ipam.release_by_handle("h7").await.unwrap();
    let again = ipam.auto_assign(request("n1", "again")).await.unwrap();
    assert_eq!(again[0].to_string(), "10.0.0.7/26");
}

#[tokio::test(start_paused = true)]
async fn a_node_claims_blocks_up_to_its_limit_and_does_not_borrow_beyond() {
    let store = cluster("10.0.0.0/28", 30, &["n1", "n2"]).await;
    configure(&store, |spec| {
        spec.strict_affinity = false;
        spec.max_blocks_per_host = 2;
    })
    .await;
    let (one, two) = (allocator(&store, "n1"), allocator(&store, "n2"));
    two.auto_assign(request("n2", "x")).await.unwrap();
    one.auto_assign(AutoAssign { num4: 8, ..request("n1", "a") }).await.unwrap();
    let error = one.auto_assign(request("n1", "b")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no IPv4 address: pool pool is at the node's limit, see maxBlocksPerHost (2 blocks)"
    );
    configure(&store, |spec| {
        spec.strict_affinity = true;
        spec.auto_allocate_blocks = false;
    })
    .await;
    let three = allocator(&store, "n3");
    let error = three.auto_assign(request("n3", "c")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no IPv4 address: pool pool may claim no blocks, see autoAllocateBlocks, and strictAffinity forbids to borrow from other nodes"
    );
    assert_eq!(all::<IpamHandle>(&store).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn released_addresses_rest_as_long_as_configured() {
    let store = cluster("10.0.0.0/31", 31, &["n1"]).await;
    configure(&store, |spec| spec.ip_cooldown_seconds = Some(30)).await;
    let start = tokio::time::Instant::now();
    let clock = Clock::new(move || {
        let passed = u64::try_from(start.elapsed().as_nanos()).unwrap();
        UnixNanos(1_790_000_000_000_000_000 + passed)
    });
    let ipam =
        Allocator::with_options(store.clone(), "n1", Options { clock, ..Options::default() });
    let first = ipam.auto_assign(request("n1", "a")).await.unwrap();
    ipam.auto_assign(request("n1", "b")).await.unwrap();
    assert_eq!(ipam.release_by_handle("a").await.unwrap(), [first[0].addr()]);
    assert!(all::<IpamHandle>(&store).await.iter().all(|one| one.spec.handle_id == "b"));
    assert!(ipam.release_ip(first[0].addr(), None, None).await.unwrap().is_empty());
    let error = ipam.auto_assign(request("n1", "c")).await.unwrap_err();
    assert!(error.to_string().contains("2 of 2 addresses in 1 blocks are in use"), "{error}");
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(ipam.auto_assign(request("n1", "c")).await.unwrap(), first);
    assert_eq!(findings(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_address_is_released_only_while_it_is_the_allocation_that_is_meant() {
    let store = cluster("10.0.0.0/31", 31, &["n1"]).await;
    let ipam = allocator(&store, "n1");
    let address = ipam.auto_assign(request("n1", "a")).await.unwrap()[0].addr();
    let sequence = |block: &IpamBlock| crate::block::sequence_of(&block.spec, address);
    let before = sequence(&all::<IpamBlock>(&store).await[0]);
    assert!(ipam.release_ip(address, Some("b"), None).await.unwrap().is_empty());
    assert_eq!(ipam.release_ip(address, Some("a"), before).await.unwrap(), [address]);
    ipam.assign_ip(request("n1", "a"), vec![address]).await.unwrap();
    assert!(ipam.release_ip(address, Some("a"), before).await.unwrap().is_empty());
    let now = sequence(&all::<IpamBlock>(&store).await[0]);
    assert_ne!(before, now);
    assert_eq!(ipam.release_ip(address, Some("a"), now).await.unwrap(), [address]);
    assert_eq!(findings(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_block_leaves_a_node_that_its_pool_no_longer_selects() {
    let store = cluster("10.0.0.0/24", 28, &["n1"]).await;
    let ipam = allocator(&store, "n1");
    ipam.auto_assign(AutoAssign { num4: 17, ..request("n1", "a") }).await.unwrap();
    ipam.auto_assign(request("n1", "b")).await.unwrap();
    let mut pool = store.get::<IpPool>(&Key::cluster("pool")).await.unwrap();
    pool.spec.node_selector = "rack == 'r1'".to_owned();
    store.update(&pool).await.unwrap();
    settle().await;
    ipam.release_by_handle("a").await.unwrap();
    settle().await;
    let error = ipam.auto_assign(request("n1", "c")).await.unwrap_err();
    assert_eq!(error.to_string(), "no IPv4 address: pool pool does not select this node");
    assert_eq!(all::<IpamBlock>(&store).await.len(), 1, "the one with an address stays");
    let mut node = store.get::<Node>(&Key::cluster("n1")).await.unwrap();
    node.metadata.labels.insert("rack".to_owned(), "r1".to_owned());
    store.update(&node).await.unwrap();
    settle().await;
    ipam.auto_assign(request("n1", "c")).await.unwrap();
    assert_eq!(ipam.ensure_block(Family::V4).await.unwrap().prefix_len(), 28);
    assert_eq!(findings(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_block_of_a_pool_for_other_nodes_stays_while_pods_that_name_the_pool_wait_for_it() {
    for seed in 0..40 {
        let store = MemoryStore::new();
        let spec = IpPoolSpec {
            cidr: "10.0.0.0/24".to_owned(),
            block_size: Some(28),
            node_selector: "rack == 'other'".to_owned(),
            ..IpPoolSpec::default()
        };
        store.create(&IpPool::new("pool", spec)).await.unwrap();
        store.create(&Node::new("n1", NodeSpec::default())).await.unwrap();
        let ipam = allocator(&store, "n1");
        ipam.release_by_handle("none").await.unwrap();
        store.set_faults(Faults { seed, latency: Duration::from_millis(9), ..Faults::none() });
        let assign = async |after: u64, handle: &str| {
            tokio::time::sleep(Duration::from_millis(after)).await;
            let named = AutoAssign { pools4: vec!["pool".to_owned()], ..request("n1", handle) };
            ipam.auto_assign(named).await.unwrap()
        };
        tokio::join!(assign(0, "a"), assign(15, "b"), assign(25, "c"), assign(35, "d"));
        assert_eq!(store.count::<IpamBlock>(Verb::Create), 1, "seed {seed}");
    }
}
