use expect_test::expect;
use store::memory::MemoryStore;

use crate::testing::{node, run};

/// Writes a manifest to a file of its own and runs a command with it.
async fn with(store: &MemoryStore, verb: &str, manifest: &str) -> String {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), manifest).unwrap();
    let path = file.path().to_str().unwrap();
    run(store, &[verb, "-f", path]).await.replace(path, "file.yaml")
}

const POOL: &str = "
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool-1}
spec: {cidr: 10.244.0.0/16, natOutgoing: true}
";

#[tokio::test]
async fn the_verbs_in_the_life_of_a_pool() {
    let store = MemoryStore::new();
    let mut told = String::new();
    for verb in ["replace", "create", "create", "apply", "replace", "delete", "delete"] {
        told.push_str(&format!("{verb}: {}", with(&store, verb, POOL).await));
    }
    expect![[r#"
        replace: error: file.yaml, document 1: IPPool pool-1 not found
        exit code 2
        create: IPPool/pool-1 created
        exit code 0
        create: error: file.yaml, document 1: IPPool pool-1 already exists
        exit code 2
        apply: IPPool/pool-1 configured
        exit code 0
        replace: IPPool/pool-1 replaced
        exit code 0
        delete: IPPool/pool-1 deleted
        exit code 0
        delete: error: IPPool pool-1 not found
        exit code 2
    "#]]
    .assert_eq(&told);
}

#[tokio::test]
async fn nothing_is_sent_when_one_document_is_wrong() {
    let store = MemoryStore::new();
    let bad = "
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool-2}
spec: {cidr: 10.244.0.1/16, natOutgoin: true}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {asNumber: many}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: default.p, namespace: x}
spec: {selector: \"app = 'web'\"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
";
    expect![[r#"
        error: nothing was sent:
          file.yaml, document 2: spec.cidr: `10.244.0.1/16` has host bits set: write 10.244.0.0/16
          file.yaml, document 2: spec.natOutgoin: unknown field; is it misspelt?
          file.yaml, document 3: spec.asNumber: must be of type integer
          file.yaml, document 4: spec.selector: expected a label, all(), has(label), '!' or '(', found '=' at position 4
          file.yaml, document 5: kind Deployment of apps/v1 is not one that voilectl handles; use kubectl
        exit code 2
    "#]].assert_eq(&with(&store, "apply", &format!("{POOL}---{bad}")).await);
    expect![[r#"
        no ippools found
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["get", "ippools"]).await);
}

#[tokio::test]
async fn apply_keeps_what_others_wrote() {
    let store = MemoryStore::new();
    node(&store, "worker-1", 1).await;
    let manifest = "{apiVersion: v1, kind: Node, metadata: {name: worker-1, labels: {rack: r1}}}";
    expect![[r#"
        Node/worker-1 configured
        exit code 0
    "#]]
    .assert_eq(&with(&store, "apply", manifest).await);
    expect![[r#"
        apiVersion: v1
        kind: Node
        metadata:
          name: worker-1
          labels:
            kubernetes.io/hostname: worker-1
            rack: r1
          annotations:
            projectcalico.org/ASNumber: '64601'
            projectcalico.org/IPv4Address: 10.0.0.1/32
            projectcalico.org/IPv6Address: fd00::1/128
          uid: 00000000-0000-4000-8000-000000000002
          creationTimestamp: 2026-01-01T00:00:00Z
          generation: 1
          resourceVersion: '3'
        spec: {}
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["get", "node", "worker-1", "-o", "yaml"]).await);
}

#[tokio::test]
async fn labels_and_patches() {
    let store = MemoryStore::new();
    node(&store, "worker-1", 1).await;
    let mut told = String::new();
    for line in [
        &["label", "node", "worker-1", "rack=r2", "kubernetes.io/hostname-"][..],
        &["label", "node", "worker-1", "rack"],
        &["patch", "node", "worker-1", "--patch", "{spec: {unschedulable: true}}"],
        &["patch", "node", "worker-1", "--patch", "[]"],
        &["patch", "node", "worker-9", "--patch", "{}"],
        &["delete", "node"],
        &["delete", "node", "worker-9", "--ignore-not-found"],
    ] {
        told.push_str(&format!("{}: {}", line.join(" "), run(&store, line).await));
    }
    expect![[r#"
        label node worker-1 rack=r2 kubernetes.io/hostname-: Node/worker-1 labeled
        exit code 0
        label node worker-1 rack: error: 'rack' is no label: write key=value to set it, key- to remove it
        exit code 2
        patch node worker-1 --patch {spec: {unschedulable: true}}: Node/worker-1 patched
        exit code 0
        patch node worker-1 --patch []: error: the patch must be an object, such as '{"spec":{"disabled":true}}'
        exit code 2
        patch node worker-9 --patch {}: error: Node worker-9 not found
        exit code 2
        delete node: error: nothing to delete: give KIND NAME, or -f FILE
        exit code 2
        delete node worker-9 --ignore-not-found: exit code 0
    "#]].assert_eq(&told);
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Node",
          "metadata": {
            "name": "worker-1",
            "labels": {
              "rack": "r2"
            },
            "annotations": {
              "projectcalico.org/ASNumber": "64601",
              "projectcalico.org/IPv4Address": "10.0.0.1/32",
              "projectcalico.org/IPv6Address": "fd00::1/128"
            },
            "uid": "00000000-0000-4000-8000-000000000002",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "generation": 2,
            "resourceVersion": "4"
          },
          "spec": {
            "unschedulable": true
          }
        }
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["get", "node", "worker-1", "-o", "json"]).await);
}

#[tokio::test]
async fn pools_that_overlap_are_refused() {
    let store = MemoryStore::new();
    with(&store, "create", POOL).await;
    let small = POOL.replace("pool-1", "pool-2").replace("10.244.0.0/16", "10.244.128.0/20");
    let mut told = String::new();
    for verb in ["create", "apply", "validate"] {
        told.push_str(&format!("{verb}: {}", with(&store, verb, &small).await));
    }
    let both = format!("{POOL}---{small}");
    told.push_str(&format!("both: {}", with(&store, "validate", &both).await));
    let moved = POOL.replace("10.244.0.0/16", "10.245.0.0/16");
    let swap = format!("{moved}---{}", small.replace("128.0/20", "0.0/16"));
    told.push_str(&format!("swap: {}", with(&store, "apply", &swap).await));
    let line = ["patch", "ippool", "pool-1", "--patch", "{spec: {cidr: 10.244.0.0/20}}"];
    told.push_str(&format!("patch: {}", run(&store, &line).await));
    expect![[r#"
        create: error: nothing was sent:
          file.yaml, document 1: spec.cidr: overlaps 10.244.0.0/16 of pool pool-1: choose another range
        exit code 2
        apply: error: nothing was sent:
          file.yaml, document 1: spec.cidr: overlaps 10.244.0.0/16 of pool pool-1: choose another range
        exit code 2
        validate: IPPool/pool-2 valid
        exit code 0
        both: error: nothing was sent:
          file.yaml, document 1: spec.cidr: overlaps 10.244.128.0/20 of pool pool-2: choose another range
          file.yaml, document 2: spec.cidr: overlaps 10.244.0.0/16 of pool pool-1: choose another range
        exit code 2
        swap: IPPool/pool-1 configured
        IPPool/pool-2 created
        exit code 0
        patch: error: nothing was sent:
          spec.cidr: overlaps 10.244.0.0/16 of pool pool-2: choose another range
        exit code 2
    "#]].assert_eq(&told);
}

#[tokio::test]
async fn a_patch_is_judged_before_it_is_sent() {
    let store = MemoryStore::new();
    with(&store, "create", POOL).await;
    let mut told = String::new();
    for patch in
        ["{spec: {blockSize: 99}}", "{spec: {blokSize: 26}}", "{spec: {nodeSelector: 'a =='}}"]
    {
        let line = ["patch", "ippool", "pool-1", "--patch", patch];
        told.push_str(&run(&store, &line).await);
    }
    expect![[r#"
        error: nothing was sent:
          spec.blockSize: must be from 20 to 32 for this cidr
        exit code 2
        error: nothing was sent:
          spec.blokSize: unknown field; is it misspelt?
        exit code 2
        error: nothing was sent:
          spec.nodeSelector: expected a value in quotes, such as 'web' at position 4
        exit code 2
    "#]]
    .assert_eq(&told);
}
