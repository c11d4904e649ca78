mod more;

use expect_test::expect;
use serde_json::json;
use store::memory::MemoryStore;

use crate::testing::{block, node, pod, pool, put, run};

async fn cluster() -> MemoryStore {
    let store = MemoryStore::new();
    node(&store, "worker-1", 1).await;
    node(&store, "worker-2", 2).await;
    pool(&store).await;
    let v6 = json!({"metadata": {"name": "pool-6"}, "spec": {"cidr": "fd00:10:244::/48"}});
    put::<api::IpPool>(&store, v6).await;
    let reservation = json!({"metadata": {"name": "r"}, "spec": {"reservedCIDRs": ["10.244.9.0/24", "10.244.9.7", "192.0.2.0/24"]}});
    put::<api::IpReservation>(&store, reservation).await;
    pod(&store, "shop/web-1", json!({}), "10.244.0.0", "worker-1").await;
    pod(&store, "shop/web-2", json!({}), "10.244.0.1", "worker-2").await;
    block(
        &store,
        "10.244.0.0/26",
        Some("worker-1"),
        &[("shop/web-1", "worker-1"), ("shop/web-2", "worker-2")],
    )
    .await;
    block(&store, "10.244.0.64/26", Some("worker-2"), &[]).await;
    store
}

#[tokio::test(start_paused = true)]
async fn show_counts_as_calicoctl_does() {
    let store = cluster().await;
    expect![[r#"
        GROUPING   CIDR               IPS TOTAL   IPS IN USE   IPS RESERVED   IPS FREE
        IP Pool    10.244.0.0/16      65536       2 (0%)       256 (0%)       65278 (100%)
        IP Pool    fd00:10:244::/48   ~2^80       0 (0%)       0 (0%)         ~2^80 (100%)
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "show"]).await);
    expect![[r#"
        GROUPING   CIDR               IPS TOTAL   IPS IN USE   IPS RESERVED   IPS FREE       OWNER
        IP Pool    10.244.0.0/16      65536       2 (0%)       256 (0%)       65278 (100%)   -
        Block      10.244.0.0/26      64          2 (3%)       0 (0%)         62 (97%)       worker-1
        Block      10.244.0.64/26     64          0 (0%)       0 (0%)         64 (100%)      worker-2
        IP Pool    fd00:10:244::/48   ~2^80       0 (0%)       0 (0%)         ~2^80 (100%)   -
        exit code 0
    "#]].assert_eq(&run(&store, &["ipam", "show", "--show-blocks"]).await);
    expect![[r#"
        no IP pools; create one: voilectl apply -f pool.yaml
        exit code 0
    "#]]
    .assert_eq(&run(&MemoryStore::new(), &["ipam", "show"]).await);
}

#[tokio::test(start_paused = true)]
async fn show_ip_names_the_owner() {
    let store = cluster().await;
    expect![[r#"
        IP 10.244.0.1 is in use by pod shop/web-2
        Pool:   pool-1 (10.244.0.0/16)
        Block:  10.244.0.0/26 of worker-1
        Handle: k8s-pod-network.web-2
          namespace: shop
          node: worker-2
          pod: web-2
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "show", "--ip", "10.244.0.1"]).await);
    expect![[r#"
        IP 10.244.0.70 is not assigned
        Pool:   pool-1 (10.244.0.0/16)
        Block:  10.244.0.64/26 of worker-2
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "show", "--ip", "10.244.0.70"]).await);
    expect![[r#"
        error: 192.0.2.1 is in no IP pool; `voilectl get ippools` lists them
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["ipam", "show", "--ip", "192.0.2.1"]).await);
}

#[tokio::test(start_paused = true)]
async fn borrowed_addresses_name_both_nodes() {
    let store = cluster().await;
    expect![[r#"
        IP           BORROWING-NODE   BLOCK           BLOCK OWNER   TYPE   ALLOCATED-TO
        10.244.0.1   worker-2         10.244.0.0/26   worker-1      pod    pod shop/web-2
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "show", "--show-borrowed"]).await);
}

#[tokio::test(start_paused = true)]
async fn configuration_is_shown_and_changed_with_calicoctls_rules() {
    let store = cluster().await;
    expect![[r#"
        error: --max-blocks-per-host needs --strictaffinity true, or nodes would borrow past the limit
        exit code 2
    "#]].assert_eq(&run(&store, &["ipam", "configure", "--max-blocks-per-host", "4"]).await);
    expect![[r#"
        IPAMConfiguration/default configured: strictAffinity=true maxBlocksPerHost=4
        exit code 0
    "#]]
    .assert_eq(
        &run(
            &store,
            &["ipam", "configure", "--strictaffinity", "true", "--max-blocks-per-host", "4"],
        )
        .await,
    );
    expect![[r#"
        PROPERTY                       VALUE
        StrictAffinity                 true
        AutoAllocateBlocks             true
        MaxBlocksPerHost               4
        IPCooldownSeconds              0
        KubeVirtVMAddressPersistence   Enabled
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "show", "--show-configuration"]).await);
}

#[tokio::test(start_paused = true)]
async fn release_refuses_what_a_pod_has_and_frees_what_nobody_has() {
    let store = cluster().await;
    expect![[r#"
        error: 10.244.0.1 belongs to pod shop/web-2, which exists; delete the pod instead
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["ipam", "release", "--ip", "10.244.0.1"]).await);
    assert_eq!(
        run(&store, &["delete", "pod", "web-2", "-n", "shop"]).await,
        "Pod/shop/web-2 deleted\nexit code 0\n"
    );
    expect![[r#"
        leaked addresses:
          10.244.0.1 is allocated to pod shop/web-2, which does not use it
        Check complete; found 1 problems.
        exit code 1
    "#]]
    .assert_eq(&run(&store, &["ipam", "check"]).await);
    expect![[r#"
        10.244.0.1 released; it belonged to pod shop/web-2
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "release", "--ip", "10.244.0.1"]).await);
    expect![[r#"
        10.244.0.1 is not assigned: nothing to release
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "release", "--ip", "10.244.0.1"]).await);
    expect![[r#"
        Check complete; found 0 problems.
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "check"]).await);
    expect![[r#"
        NAME                    HANDLEID
        k8s-pod-network.web-1   k8s-pod-network.web-1
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["get", "handles"]).await);
}

#[tokio::test(start_paused = true)]
async fn check_finds_what_does_not_agree() {
    let store = cluster().await;
    expect![[r#"
        Check complete; found 0 problems.
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "check"]).await);
    block(&store, "10.244.0.96/27", Some("gone"), &[("shop/never", "gone")]).await;
    pod(&store, "shop/stray", json!({}), "10.244.7.7", "worker-1").await;
    expect![[r#"
        overlapping blocks:
          blocks 10.244.0.64/26 and 10.244.0.96/27 overlap
        leaked addresses:
          10.244.0.96 is allocated to pod shop/never, which does not use it
        addresses in use and not allocated:
          10.244.7.7 is used by pod shop/stray and not allocated
        affinities:
          affinity gone-10-244-0-96-27 is of node gone, which does not exist
        Check complete; found 4 problems.
        exit code 1
    "#]]
    .assert_eq(&run(&store, &["ipam", "check"]).await);
    expect![[r#"
        [
          {
            "group": "overlapping blocks",
            "message": "blocks 10.244.0.64/26 and 10.244.0.96/27 overlap"
          },
          {
            "group": "leaked addresses",
            "message": "10.244.0.96 is allocated to pod shop/never, which does not use it"
          },
          {
            "group": "addresses in use and not allocated",
            "message": "10.244.7.7 is used by pod shop/stray and not allocated"
          },
          {
            "group": "affinities",
            "message": "affinity gone-10-244-0-96-27 is of node gone, which does not exist"
          }
        ]
        exit code 1
    "#]]
    .assert_eq(&run(&store, &["ipam", "check", "-o", "json"]).await);
}
