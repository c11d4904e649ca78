//! Claims: races, reclaiming, and what crashes or others left over.

use std::time::Duration;

use api::{
    AffinityState, BlockAffinity, IpPool, IpPoolSpec, IpamBlock, IpamBlockSpec, Key, KindInfo,
    Object, Spec,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use store::memory::{Faults, MemoryStore};
use store::{DeletePreconditions, Store};

use super::{all, allocator, allocator_at, cluster, configure, findings, request, settle};
use crate::{AutoAssign, Family};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

async fn owners(store: &MemoryStore) -> Vec<String> {
    let blocks = all::<IpamBlock>(store).await;
    let tell = |one: &IpamBlock| {
        format!("{} {}", one.spec.cidr, one.spec.affinity.as_deref().unwrap_or("nobody"))
    };
    blocks.iter().map(tell).collect()
}

#[tokio::test(start_paused = true)]
async fn an_empty_block_is_taken_from_a_node_that_has_had_it_for_a_minute() {
    let store = cluster("10.0.0.0/29", 30, &["n1", "n2", "n3"]).await;
    let (one, two) = (allocator_at(&store, "n1", 0), allocator_at(&store, "n2", 0));
    one.ensure_block(Family::V4).await.unwrap();
    two.auto_assign(request("n2", "b")).await.unwrap();
    let early = allocator_at(&store, "n3", 59);
    let error = early.ensure_block(Family::V4).await.unwrap_err();
    assert!(error.to_string().contains("has no free block"), "{error}");
    let late = allocator_at(&store, "n3", 61);
    let got = late.ensure_block(Family::V4).await.unwrap();
    settle().await;
    assert!(owners(&store).await.contains(&format!("{got} host:n3")));
    assert_eq!(findings(&store).await, [""; 0]);
    // The former owner notices, and borrows.
    let borrowed = one.auto_assign(request("n1", "a")).await.unwrap();
    assert_eq!(findings(&store).await, [""; 0]);
    assert!(borrowed[0].prefix_len() == 30);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_gets_an_address_while_it_is_reclaimed_stays() {
    for seed in 0..40 {
        let store = cluster("10.0.0.0/30", 30, &["n1", "n2"]).await;
        let one = allocator_at(&store, "n1", 0);
        one.ensure_block(Family::V4).await.unwrap();
        let two = allocator_at(&store, "n2", 90);
        two.release_by_handle("none").await.unwrap();
        store.set_faults(Faults { seed, latency: Duration::from_millis(9), ..Faults::none() });
        let assign = one.auto_assign(request("n1", "a"));
        let (assigned, taken) = tokio::join!(assign, two.ensure_block(Family::V4));
        store.set_faults(Faults::none());
        assert!(assigned.is_ok(), "borrowed at worst: {assigned:?}");
        settle().await;
        one.release_by_handle("none").await.unwrap();
        assert_eq!(findings(&store).await, [""; 0], "seed {seed}, taken: {taken:?}");
    }
}

/// calico#10778: stock Calico calls space free when no block of exactly that size is there.
#[tokio::test(start_paused = true)]
async fn two_nodes_that_claim_overlapping_blocks_at_once_do_not_both_get_them() {
    let mut both_lost = 0;
    for seed in 0..60 {
        let store = cluster("10.0.0.0/24", 26, &["n1", "n2"]).await;
        let small = IpPoolSpec {
            cidr: "10.0.0.0/24".to_owned(),
            block_size: Some(28),
            ..IpPoolSpec::default()
        };
        store.create(&IpPool::new("small", small)).await.unwrap();
        let (one, two) = (allocator(&store, "n1"), allocator(&store, "n2"));
        one.release_by_handle("none").await.unwrap();
        two.release_by_handle("none").await.unwrap();
        store.set_faults(Faults {
            seed,
            latency: Duration::from_millis(8),
            watch_lost: 100,
            stale_list: 500,
            ..Faults::none()
        });
        let claims = (one.claim_block(net("10.0.0.64/26")), two.claim_block(net("10.0.0.80/28")));
        let (first, second) = tokio::join!(claims.0, claims.1);
        store.set_faults(Faults::none());
        assert!(!(first.is_ok() && second.is_ok()), "seed {seed}");
        both_lost += u32::from(first.is_err() && second.is_err());
        assert_eq!(findings(&store).await, [""; 0], "seed {seed}");
    }
    assert!(both_lost < 60, "somebody wins at times");
}

/// Deletes the pool and makes it with blocks of another size.
async fn make_anew(store: &MemoryStore, cidr: &str, size: u8) {
    let key = Key::cluster("pool");
    store.delete::<IpPool>(&key, &DeletePreconditions::default()).await.unwrap();
    let spec =
        IpPoolSpec { cidr: cidr.to_owned(), block_size: Some(size), ..IpPoolSpec::default() };
    store.create(&IpPool::new("pool", spec)).await.unwrap();
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_another_block_size_over_living_blocks_overlaps_nothing() {
    let store = cluster("10.0.0.0/24", 26, &["n1", "n2", "n3"]).await;
    let nodes = ["n1", "n2"].map(|node| allocator(&store, node));
    for (ipam, node) in nodes.iter().zip(["n1", "n2"]) {
        ipam.auto_assign(AutoAssign { num4: 40, ..request(node, node) }).await.unwrap();
    }
    // The pool is deleted and comes back with smaller blocks, then with larger ones.
    for (round, size) in [(0, 29), (1, 25)] {
        make_anew(&store, "10.0.0.0/24", size).await;
        let third = allocator(&store, "n3");
        for number in 0..4 {
            let handle = format!("n3-{round}-{number}");
            let more = AutoAssign { num4: 9, ..request("n3", &handle) };
            let _ = third.auto_assign(more).await;
        }
        assert_eq!(findings(&store).await, [""; 0], "block size {size}");
    }
    assert!(all::<IpamBlock>(&store).await.len() > 3);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_another_node_took_lends_nothing_where_that_is_forbidden() {
    let mut taken = 0;
    for seed in 0..40 {
        let store = cluster("10.0.0.0/29", 30, &["n1", "n2"]).await;
        configure(&store, |spec| spec.strict_affinity = true).await;
        let ipam = allocator(&store, "n1");
        let own = ipam.auto_assign(request("n1", "a")).await.unwrap()[0].trunc();
        let mut block = store.get::<IpamBlock>(&Key::cluster(api::cidr_name(&own))).await.unwrap();
        block.spec.affinity = Some("host:n2".to_owned());
        block.spec.sequence_number += 1;
        // While the handle is being written.
        store.set_faults(Faults { seed, latency: Duration::from_millis(9), ..Faults::none() });
        let assign = ipam.auto_assign(request("n1", "b"));
        let (got, took) = tokio::join!(assign, store.update(&block));
        store.set_faults(Faults::none());
        let got = got.unwrap()[0].trunc();
        assert!(took.is_err() || got != own, "seed {seed}");
        taken += u32::from(took.is_ok());
    }
    assert!(
        0 < taken && taken < 40,
        "{taken}: at times the other node is faster, at times it is not"
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_is_released_where_a_block_of_another_size_was_before() {
    let store = cluster("10.0.0.0/30", 30, &["n1", "n2"]).await;
    let (one, two) = (allocator(&store, "n1"), allocator(&store, "n2"));
    let large = one.ensure_block(Family::V4).await.unwrap();
    // Who borrowed has a copy of the block still.
    two.auto_assign(request("n2", "a")).await.unwrap();
    one.release_by_handle("a").await.unwrap();
    one.release_affinity(large).await.unwrap();
    make_anew(&store, "10.0.0.0/30", 31).await;
    let got = one.auto_assign(request("n1", "b")).await.unwrap();
    settle().await;
    let address = got[0].addr();
    assert_eq!(two.release_ip(address, Some("b"), None).await.unwrap(), [address]);
    settle().await;
    assert_eq!(findings(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_a_former_life_left_half_way_is_finished() {
    let store = cluster("10.0.0.0/24", 28, &["n1", "n2"]).await;
    let other = allocator(&store, "n2");
    other.claim_block(net("10.0.0.48/28")).await.unwrap();
    let claim = |text: &str, change: fn(&mut BlockAffinity)| {
        let mut claim = crate::affinity::pending("n1", &net(text));
        change(&mut claim);
        claim
    };
    let block = |text: &str| {
        crate::block::empty(
            &net(text),
            Some("host:n1"),
            crate::UnixNanos(1_790_000_000_000_000_000),
        )
    };
    // Died after the claim was written, after the block, while ending, with the claim or the block lost, marked as deleted.
    store.create(&claim("10.0.0.0/28", |_| {})).await.unwrap();
    store.create(&claim("10.0.0.16/28", |_| {})).await.unwrap();
    store.create(&block("10.0.0.16/28")).await.unwrap();
    let ending = |claim: &mut BlockAffinity| claim.spec.state = AffinityState::PendingDeletion;
    store.create(&claim("10.0.0.32/28", ending)).await.unwrap();
    store.create(&block("10.0.0.32/28")).await.unwrap();
    store.create(&claim("10.0.0.48/28", |_| {})).await.unwrap();
    let confirmed = |claim: &mut BlockAffinity| claim.spec.state = AffinityState::Confirmed;
    store.create(&claim("10.0.0.64/28", confirmed)).await.unwrap();
    store.create(&block("10.0.0.80/28")).await.unwrap();
    let deleted = |claim: &mut BlockAffinity| claim.spec.deleted = true;
    store.create(&claim("10.0.0.96/28", deleted)).await.unwrap();
    store.create(&claim("10.0.0.128/28", deleted)).await.unwrap();
    store.create(&block("10.0.0.128/28")).await.unwrap();
    let mut gone = block("10.0.0.112/28");
    gone.spec.deleted = true;
    store.create(&gone).await.unwrap();
    let ipam = allocator(&store, "n1");
    ipam.release_by_handle("none").await.unwrap();
    settle().await;
    expect_test::expect![[r#"
        [
            "10.0.0.0/28 host:n1",
            "10.0.0.112/28 host:n1",
            "10.0.0.128/28 host:n1",
            "10.0.0.16/28 host:n1",
            "10.0.0.32/28 host:n1",
            "10.0.0.48/28 host:n2",
            "10.0.0.80/28 host:n1",
        ]
    "#]]
    .assert_debug_eq(&owners(&store).await);
    // What is marked as deleted is nobody's; whoever wants the place finishes the deletion.
    ipam.claim_block(net("10.0.0.112/28")).await.unwrap();
    let at = all::<IpamBlock>(&store).await;
    assert!(at.iter().all(|one| !one.spec.deleted));
    assert_eq!(findings(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_node_notices_what_others_do_to_its_blocks() {
    let store = cluster("10.0.0.0/29", 30, &["n1"]).await;
    let ipam = allocator(&store, "n1");
    ipam.auto_assign(AutoAssign { num4: 8, ..request("n1", "a") }).await.unwrap();
    // Somebody releases an address behind its back.
    let key = Key::cluster("10-0-0-4-30");
    let mut block = store.get::<IpamBlock>(&key).await.unwrap();
    let now = crate::block::Cooldown::none(crate::UnixNanos(1));
    let mut one = true;
    let mut left = Vec::new();
    for (address, _) in crate::block::assigned(&block.spec.clone()) {
        if std::mem::take(&mut one) {
            crate::block::release(&mut block.spec, now, |each, _| each == address);
        } else {
            left.push(address);
        }
    }
    block.spec.sequence_number += 1;
    store.update(&block).await.unwrap();
    settle().await;
    let got = ipam.auto_assign(request("n1", "b")).await.unwrap();
    assert!(net("10.0.0.4/30").contains(&got[0].addr()) && !left.contains(&got[0].addr()));
    // Somebody takes a whole block away.
    ipam.release_by_handle("a").await.unwrap();
    ipam.release_by_handle("b").await.unwrap();
    for key in ["10-0-0-0-30", "10-0-0-4-30"] {
        let none = DeletePreconditions::default();
        store.delete::<IpamBlock>(&Key::cluster(key), &none).await.unwrap();
    }
    settle().await;
    ipam.auto_assign(AutoAssign { num4: 5, ..request("n1", "c") }).await.unwrap();
    settle().await;
    ipam.release_by_handle("none").await.unwrap();
    assert_eq!(findings(&store).await, [""; 0]);
}

/// A block that no program of ours reads.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct OddSpec {
    cidr: String,
    allocations: String,
}

impl Spec for OddSpec {
    const KIND: KindInfo = IpamBlockSpec::KIND;
    type Status = serde_json::Value;
}

#[tokio::test(start_paused = true)]
async fn a_block_that_became_unreadable_stops_nobody() {
    let store = cluster("10.0.0.0/29", 30, &["n1"]).await;
    let ipam = allocator(&store, "n1");
    let full = ipam.auto_assign(AutoAssign { num4: 4, ..request("n1", "a") }).await.unwrap();
    let block = full[0].trunc();
    let name = api::cidr_name(&block);
    let none = DeletePreconditions::default();
    store.delete::<IpamBlock>(&Key::cluster(&name), &none).await.unwrap();
    let odd = OddSpec { cidr: block.to_string(), allocations: "?".to_owned() };
    store.create(&Object::new(&name, odd)).await.unwrap();
    settle().await;
    let got = ipam.auto_assign(request("n1", "b")).await.unwrap();
    assert!(!block.contains(&got[0].addr()), "{got:?}");
    ipam.release_by_handle("none").await.unwrap();
    // Its place is free again when it is gone.
    store.delete::<Object<OddSpec>>(&Key::cluster(&name), &none).await.unwrap();
    settle().await;
    let rest = ipam.auto_assign(AutoAssign { num4: 7, ..request("n1", "c") }).await.unwrap();
    assert!(rest.iter().any(|one| block.contains(&one.addr())));
}
