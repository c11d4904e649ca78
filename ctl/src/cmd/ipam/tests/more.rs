use expect_test::expect;
use serde_json::json;
use store::memory::MemoryStore;

use super::cluster;
use crate::testing::{block, node, pod, put, run};

/// `cluster`, with damage of several kinds.
async fn damaged() -> MemoryStore {
    let store = cluster().await;
    node(&store, "worker-3", 3).await;
    block(&store, "10.244.0.96/27", Some("gone"), &[("shop/never", "gone")]).await;
    block(&store, "10.244.1.0/26", Some("worker-3"), &[("shop/leak", "worker-3")]).await;
    let orphan = json!({"metadata": {"name": "orphan"}, "spec": {"handleID": "orphan", "block": {"10.244.0.0/26": 1}, "deleted": false}});
    put::<api::IpamHandle>(&store, orphan).await;
    let pending = json!({
        "metadata": {"name": "worker-3-10-244-2-0-26"},
        "spec": {"cidr": "10.244.2.0/26", "node": "worker-3", "type": "host", "state": "pending", "deleted": false},
    });
    put::<api::BlockAffinity>(&store, pending).await;
    store
}

#[tokio::test(start_paused = true)]
async fn repair_mends_what_can_be_mended_and_tells_the_rest() {
    let store = damaged().await;
    expect![[r#"
        released 10.244.1.0
        released 10.244.0.96
        took block 10.244.0.96/27 from its node
        took block 10.244.0.64/26 from its node
        deleted affinity worker-3-10-244-2-0-26
        mended handle orphan
        Check complete; found 0 problems.
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "check", "--repair"]).await);
    expect![[r#"
        Check complete; found 0 problems.
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "check"]).await);
}

#[tokio::test(start_paused = true)]
#[expect(clippy::too_many_lines, reason = "the report is shown whole")]
async fn a_report_names_leaks_and_they_are_released_from_it() {
    let store = damaged().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (one, two) = (file("one.json"), file("two.json"));
    let information = json!({"metadata": {"name": "default"}, "spec": {"clusterGUID": "abc", "clusterType": "kdd", "datastoreReady": true}});
    put::<api::ClusterInformation>(&store, information).await;
    run(&store, &["ipam", "check", "-o", &one]).await;
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&one).unwrap()).unwrap();
    expect![[r#"
        {
          "version": "0.1.0",
          "clusterGUID": "abc",
          "datastoreLocked": false,
          "clusterInformationRevision": "26",
          "clusterType": "kdd",
          "allocations": {
            "10.244.0.0": [
              {
                "ip": "10.244.0.0",
                "handle": "k8s-pod-network.web-1",
                "pod": "web-1",
                "namespace": "shop",
                "node": "worker-1",
                "inUse": true,
                "owners": [
                  "pod shop/web-1"
                ]
              }
            ],
            "10.244.0.1": [
              {
                "ip": "10.244.0.1",
                "handle": "k8s-pod-network.web-2",
                "pod": "web-2",
                "namespace": "shop",
                "node": "worker-2",
                "inUse": true,
                "borrowed": true,
                "owners": [
                  "pod shop/web-2"
                ]
              }
            ],
            "10.244.0.96": [
              {
                "ip": "10.244.0.96",
                "handle": "k8s-pod-network.never",
                "pod": "never",
                "namespace": "shop",
                "node": "gone",
                "inUse": false,
                "owners": null
              }
            ],
            "10.244.1.0": [
              {
                "ip": "10.244.1.0",
                "handle": "k8s-pod-network.leak",
                "pod": "leak",
                "namespace": "shop",
                "node": "worker-3",
                "inUse": false,
                "owners": null
              }
            ]
          },
          "leakedHandles": [
            {
              "ID": "orphan",
              "UID": "00000000-0000-4000-8000-000000000018",
              "Revision": "24"
            }
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&report).unwrap());
    // Between the reports one leak is mended and another appears: only what is in both is released.
    block(&store, "10.244.3.0/26", Some("worker-3"), &[("shop/late", "worker-3")]).await;
    run(&store, &["ipam", "check", "-o", &two]).await;
    let release = ["ipam", "release", "--from-report", &one, "--from-report", &two];
    expect![[r#"
        error: the datastore is not locked; set datastoreReady: false in ClusterInformation default, or add --force: every address is checked against its handle and sequence number
        exit code 2
    "#]].assert_eq(&run(&store, &release).await);
    expect![[r#"
        released 10.244.0.96
        released 10.244.1.0
        2 addresses and 1 handle released, 0 changed since
        exit code 0
    "#]]
    .assert_eq(&run(&store, &[&release[..], &["--force"]].concat()).await);
    expect![[r#"
        error: -o FILE: only `ipam check` writes a report
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["get", "nodes", "-o", &one]).await.replace(&one, "FILE"));
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_split_while_the_datastore_is_locked() {
    let store = cluster().await;
    let split = ["ipam", "split", "4", "--name", "pool-1"];
    expect![[r#"
        error: the datastore is not locked; set datastoreReady: false in ClusterInformation default first, so that no address is assigned meanwhile
        exit code 2
    "#]].assert_eq(&run(&store, &split).await);
    let information = json!({"metadata": {"name": "default"}, "spec": {"datastoreReady": false}});
    put::<api::ClusterInformation>(&store, information).await;
    expect![[r#"
        error: 3 is not a power of two above 1
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["ipam", "split", "3", "--name", "pool-1"]).await);
    expect![[r#"
        error: 2048 parts of 10.244.0.0/16 would be smaller than its blocks (/26)
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["ipam", "split", "2048", "--cidr", "10.244.0.0/16"]).await);
    expect![[r#"
        IPPool/split-pool-1-0 created with 10.244.0.0/18
        IPPool/split-pool-1-1 created with 10.244.64.0/18
        IPPool/split-pool-1-2 created with 10.244.128.0/18
        IPPool/split-pool-1-3 created with 10.244.192.0/18
        IPPool/pool-1 deleted
        exit code 0
    "#]]
    .assert_eq(&run(&store, &split).await);
    expect![[r#"
        GROUPING   CIDR               IPS TOTAL   IPS IN USE   IPS RESERVED   IPS FREE
        IP Pool    10.244.0.0/18      16384       2 (0%)       256 (2%)       16126 (98%)
        IP Pool    10.244.64.0/18     16384       0 (0%)       0 (0%)         16384 (100%)
        IP Pool    10.244.128.0/18    16384       0 (0%)       0 (0%)         16384 (100%)
        IP Pool    10.244.192.0/18    16384       0 (0%)       0 (0%)         16384 (100%)
        IP Pool    fd00:10:244::/48   ~2^80       0 (0%)       0 (0%)         ~2^80 (100%)
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "show"]).await);
}

#[tokio::test(start_paused = true)]
async fn every_field_of_the_configuration_can_be_set() {
    let store = cluster().await;
    let line = [
        "ipam",
        "configure",
        "--kubevirt-ip-persistence",
        "Enabled",
        "--ip-cooldown-seconds",
        "30",
    ];
    expect![[r#"
        IPAMConfiguration/default configured: strictAffinity=false maxBlocksPerHost=0 ipCooldownSeconds=30 kubeVirtVMAddressPersistence=Enabled
        exit code 0
    "#]].assert_eq(&run(&store, &line).await);
    let line = ["ipam", "configure", "--auto-allocate-blocks", "false"];
    expect![[r#"
        error: strictAffinity=false needs autoAllocateBlocks=true, or nodes could borrow without owning a block
        exit code 2
    "#]].assert_eq(&run(&store, &line).await);
    expect![[r#"
        PROPERTY                       VALUE
        StrictAffinity                 false
        AutoAllocateBlocks             true
        MaxBlocksPerHost               20
        IPCooldownSeconds              30
        KubeVirtVMAddressPersistence   Enabled
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["ipam", "show", "--show-configuration"]).await);
}

#[tokio::test(start_paused = true)]
async fn a_map_shows_owners_fill_and_leaks() {
    let store = damaged().await;
    expect![[r#"
        pool pool-1 10.244.0.0/16, blocks of /26
        one cell is /25: 2 blocks
        10.244.0.0         +!- d!- - - - - - - - - - - - -
          ... 31 rows free

        CELL   OWNER      BLOCKS   IN USE   BORROWED   LEAKED
        a      gone       1        1        0          1
        b      worker-1   1        2        1          0
        c      worker-2   1        0        0          0
        d      worker-3   1        1        0          1
        a cell: owner and tenths in use (. none, * all); - free, + several owners, ~ nobody's, ! a leak
        exit code 0
    "#]].assert_eq(&run(&store, &["ipam", "map", "pool-1"]).await);
    // Blocks of /122 in a /48: more than anybody counts.
    let large = run(&store, &["ipam", "map", "pool-6"]).await;
    assert!(large.contains("2^"), "{large}");
    expect![[r#"
        error: there is no pool nowhere; `voilectl get ippools` lists them
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["ipam", "map", "nowhere"]).await);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_told_why_it_has_its_address_or_none() {
    let store = cluster().await;
    expect![[r#"
        pod shop/web-2 on node worker-2
        has 10.244.0.1 from pool pool-1, block 10.244.0.0/26 of worker-1: borrowed: its node had no free address
        IPv4: of the pools that are used without being asked for
          pool pool-1: the node's own block 10.244.0.64/26 has 64 free addresses
        IPv6: of the pools that are used without being asked for
          pool pool-6: the node would claim block fd00:10:244::2c:b32a:1080/122
        exit code 0
    "#]].assert_eq(&run(&store, &["ipam", "explain", "shop/web-2"]).await);
    let manual = json!({"metadata": {"name": "manual"}, "spec": {"cidr": "10.9.0.0/24", "assignmentMode": "Manual"}});
    put::<api::IpPool>(&store, manual).await;
    let off =
        json!({"metadata": {"name": "off"}, "spec": {"cidr": "10.8.0.0/24", "disabled": true}});
    put::<api::IpPool>(&store, off).await;
    pod(&store, "shop/none", json!({}), "", "worker-1").await;
    let key = api::Key::namespaced("shop", "none");
    let ask = |pools: &str| json!({"metadata": {"annotations": {"cni.projectcalico.org/ipv4pools": pools}}});
    for pools in [r#"["off","nowhere"]"#, r#"["manual"]"#, "off"] {
        use store::Store as _;
        store.patch::<api::Pod>(&key, None, &ask(pools)).await.unwrap();
        let told = run(&store, &["ipam", "explain", "shop/none"]).await;
        match pools {
            "off" => expect![[r#"
                pod shop/none on node worker-1
                gets no address: annotation cni.projectcalico.org/ipv4pools: "off" is not a JSON list of strings: expected value at line 1 column 1
                exit code 1
            "#]].assert_eq(&told),
            r#"["manual"]"# => expect![[r#"
                pod shop/none on node worker-1
                IPv4: only of manual, as annotated
                  pool manual: the node would claim block 10.9.0.64/26
                IPv6: of the pools that are used without being asked for
                  pool pool-6: the node would claim block fd00:10:244::2c:b32a:1040/122
                exit code 0
            "#]].assert_eq(&told),
            _ => expect![[r#"
                pod shop/none on node worker-1
                IPv4: only of off, nowhere, as annotated
                  pool off: is disabled
                  pool nowhere: does not exist
                IPv6: of the pools that are used without being asked for
                  pool pool-6: the node would claim block fd00:10:244::2c:b32a:1040/122
                a new address is refused: no IPv4
                exit code 1
            "#]].assert_eq(&told),
        }
    }
    expect![[r#"
        error: there is no pod shop/nobody; `kubectl get pods -A` lists them
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["ipam", "explain", "shop/nobody"]).await);
}
