use expect_test::expect;
use serde_json::json;
use store::memory::MemoryStore;

use crate::testing::{node, pod, pool, run};

async fn cluster() -> MemoryStore {
    let store = MemoryStore::new();
    node(&store, "worker-1", 1).await;
    node(&store, "worker-2", 2).await;
    pool(&store).await;
    pod(&store, "shop/web-1", json!({"app": "web"}), "10.244.0.1", "worker-1").await;
    pod(&store, "default/tool", json!({}), "10.244.0.2", "worker-1").await;
    store
}

#[tokio::test]
async fn tables_of_the_kinds_people_ask_for_most() {
    let store = cluster().await;
    expect![[r#"
        NAME       ASN     IPV4          IPV6
        worker-1   64601   10.0.0.1/32   fd00::1/128
        worker-2   64602   10.0.0.2/32   fd00::2/128
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["get", "nodes"]).await);
    expect![[r#"
        NAME     CIDR            SELECTOR   BLOCKSIZE   NAT   IPIPMODE   VXLANMODE   DISABLED   DISABLEBGPEXPORT   ASSIGNMENTMODE
        pool-1   10.244.0.0/16   all()      -           -     -          -           -          -                  Automatic
        exit code 0
    "#]].assert_eq(&run(&store, &["get", "ippools", "-o", "wide"]).await);
    expect![[r#"
        NAMESPACE   NAME    NODE       PHASE     NETWORKS
        default     tool    worker-1   Running   10.244.0.2/32
        shop        web-1   worker-1   Running   10.244.0.1/32
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["get", "wep", "-A"]).await);
    expect![[r#"
        NAME   NODE       PHASE     NETWORKS
        tool   worker-1   Running   10.244.0.2/32
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["get", "pods"]).await);
    expect![[r#"
        no bgppeers found
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["get", "bgppeers"]).await);
}

#[tokio::test]
async fn machine_formats_can_be_applied_again() {
    let store = cluster().await;
    expect![[r#"
        apiVersion: projectcalico.org/v3
        kind: IPPool
        metadata:
          name: pool-1
          uid: 00000000-0000-4000-8000-000000000004
          creationTimestamp: 2026-01-01T00:00:00Z
          generation: 1
          resourceVersion: '4'
        spec:
          cidr: 10.244.0.0/16
          nodeSelector: all()
          assignmentMode: Automatic
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["get", "ippool", "pool-1", "-o", "yaml"]).await);
    expect![[r#"
        nodes/worker-1
        nodes/worker-2
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["get", "nodes", "-o", "name"]).await);
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let store = cluster().await;
    expect![[r#"
        error: cannot get worker-9; `voilectl get nodes` lists what there is: Node worker-9 not found
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["get", "node", "worker-9"]).await);
    let text = run(&store, &["get", "frobs"]).await;
    assert!(text.starts_with("error: there is no kind 'frobs'; there are nodes, pods, "), "{text}");
}

#[tokio::test]
async fn every_kind_can_be_listed() {
    let store = MemoryStore::new();
    for kind in crate::kinds::Kind::ALL {
        let info = kind.info();
        let name = format!("{}.{}", info.plural, info.group);
        let name = name.trim_end_matches('.');
        assert_eq!(
            run(&store, &["get", name, "-A"]).await,
            format!("no {} found\nexit code 0\n", info.plural)
        );
    }
}
