use expect_test::expect;
use serde_json::json;
use store::memory::MemoryStore;

use crate::testing::{block, node, pod, pool, report, run, session};

async fn cluster() -> MemoryStore {
    let store = MemoryStore::new();
    node(&store, "worker-1", 1).await;
    node(&store, "worker-2", 2).await;
    pool(&store).await;
    pod(&store, "shop/web-1", json!({}), "10.244.0.0", "worker-1").await;
    block(&store, "10.244.0.0/26", Some("worker-1"), &[("shop/web-1", "worker-1")]).await;
    let up = session("tor-a", "10.0.1.1", "Established", "2026-11-21T07:00:00Z", None);
    report(&store, "worker-1", "2026-11-24T08:59:50Z", json!([up])).await;
    store
}

#[tokio::test(start_paused = true)]
async fn status_is_one_page_with_every_problem() {
    let store = cluster().await;
    expect![[r#"
        NODE       REPORT    VERSION   ASN     SESSIONS   BGP-ROUTES   BLOCKS   PODS   POLICIES
        worker-1   10s ago   0.1.0     64601   1/1        4            1        2      1
        worker-2   MISSING   -         -       0/0        0            0        0      0

        1 block, addresses in use: 1, policies: 0, pods: 1
        1 problem:
          worker-2: its daemon never reported; look at the log of voile-node on it (is it running, does it reach the API server?)
        exit code 1
    "#]].assert_eq(&run(&store, &["status"]).await);
    report(&store, "worker-2", "2026-11-24T08:59:59Z", json!([])).await;
    expect![[r#"
        NODE       REPORT    VERSION   ASN     SESSIONS   BGP-ROUTES   BLOCKS   PODS   POLICIES
        worker-1   10s ago   0.1.0     64601   1/1        4            1        2      1
        worker-2   1s ago    0.1.0     64601   0/0        4            0        2      1

        1 block, addresses in use: 1, policies: 0, pods: 1
        no problems
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["status"]).await);
}

#[tokio::test(start_paused = true)]
async fn version_names_each_daemons() {
    expect![[r#"
        COMPONENT                VERSION
        voilectl                 0.1.0
        voile-node on worker-1   0.1.0
        voile-node on worker-2   (no report)
        exit code 0
    "#]]
    .assert_eq(&run(&cluster().await, &["version"]).await);
}
