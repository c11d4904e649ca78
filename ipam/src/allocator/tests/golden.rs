//! What is stored in each situation, to the byte, but for what the server adds: stock clients read it.

use api::{BlockAffinity, IpamBlock, IpamHandle, Key, Resource};
use serde_json::Value;
use store::memory::MemoryStore;
use store::{ListOptions, Store};

use super::{allocator_at, cluster, configure, request};
use crate::{AutoAssign, Owner};

async fn dump<R: Resource>(store: &MemoryStore, text: &mut String) {
    for stored in store.list::<R>(&ListOptions::consistent()).await.unwrap().items {
        let mut raw: Value = stored.raw().clone();
        let metadata = raw["metadata"].as_object_mut().unwrap();
        for added in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
            metadata.remove(added);
        }
        text.push_str(&format!("{raw}\n"));
    }
}

async fn situation(store: &MemoryStore, name: &str, text: &mut String) {
    text.push_str(&format!("# {name}\n"));
    dump::<IpamBlock>(store, text).await;
    dump::<BlockAffinity>(store, text).await;
    dump::<IpamHandle>(store, text).await;
    text.push('\n');
}

#[tokio::test(start_paused = true)]
async fn blocks_claims_and_handles_are_stored_as_calico_stores_them() {
    let store = cluster("10.244.0.0/30", 31, &["node-1", "node-2"]).await;
    let six = api::IpPoolSpec {
        cidr: "fd00:10:244::/126".to_owned(),
        block_size: Some(127),
        ..api::IpPoolSpec::default()
    };
    store.create(&api::IpPool::new("six", six)).await.unwrap();
    let (one, two) = (allocator_at(&store, "node-1", 0), allocator_at(&store, "node-2", 61));
    let mut text = String::new();
    one.claim_block("10.244.0.0/31".parse().unwrap()).await.unwrap();
    situation(&store, "a claimed block", &mut text).await;
    let pod = AutoAssign {
        owner: Owner::pod("node-1", "shop", "web-1"),
        num6: 1,
        ..request("node-1", "k8s-pod-network.0A1b")
    };
    one.auto_assign(pod).await.unwrap();
    situation(&store, "a pod with an address of each family", &mut text).await;
    let tunnel = AutoAssign {
        owner: Owner::tunnel("node-2", "vxlanTunnelAddress"),
        intended_use: api::AllowedUse::Tunnel,
        ..request("node-2", "vxlan-tunnel-addr-node-2")
    };
    two.auto_assign(tunnel).await.unwrap();
    two.auto_assign(AutoAssign { num4: 2, ..request("node-2", "two") }).await.unwrap();
    situation(
        &store,
        "a tunnel, and a handle with addresses in two blocks, one of them borrowed",
        &mut text,
    )
    .await;
    two.release_by_handle("vxlan-tunnel-addr-node-2").await.unwrap();
    one.release_affinity("10.244.0.0/31".parse().unwrap()).await.unwrap();
    situation(&store, "a released address, and a block whose owner gave it up", &mut text).await;
    configure(&store, |spec| spec.ip_cooldown_seconds = Some(60)).await;
    two.release_by_handle("two").await.unwrap();
    situation(&store, "addresses that cool down", &mut text).await;
    expect_test::expect_file!["golden.txt"].assert_eq(&text);
    let block = store.get::<IpamBlock>(&Key::cluster("10-244-0-0-31")).await.unwrap();
    assert!(block.spec.sequence_number > 1 << 53, "does not fit into a float");
}
