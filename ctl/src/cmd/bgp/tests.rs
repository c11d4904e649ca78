use expect_test::expect;
use serde_json::json;
use store::memory::MemoryStore;

use crate::testing::{node, report, run, session};

const FRESH: &str = "2026-11-24T08:59:50Z";

async fn cluster() -> MemoryStore {
    let store = MemoryStore::new();
    for (number, name) in ["worker-1", "worker-2", "worker-3", "worker-4"].iter().enumerate() {
        node(&store, name, u32::try_from(number).unwrap() + 1).await;
    }
    let up = session("tor-a", "10.0.1.1", "Established", "2026-11-21T07:00:00Z", None);
    let cause = "sent OPEN Message Error/Bad Peer AS: peer says 65011, configured 65001";
    let down = session("tor-a", "10.0.1.1", "Active", "2026-11-24T08:55:00Z", Some(cause));
    let plain = session(
        "10.0.1.2",
        "10.0.1.2",
        "Established",
        "2026-11-24T08:59:15Z",
        Some("hold timer expired"),
    );
    report(&store, "worker-1", FRESH, json!([up.clone(), plain])).await;
    report(&store, "worker-2", FRESH, json!([down])).await;
    report(&store, "worker-3", "2026-11-24T08:56:48Z", json!([up])).await;
    store
}

#[tokio::test]
async fn summary_shows_every_session_and_the_cause_of_each_failure() {
    let store = cluster().await;
    expect![[r#"
        NODE       PEER               LOCAL-AS   PEER-AS   STATE                 UP      RCV   ACC   ADV   GR      LAST-ERROR
        worker-1   10.0.1.1 (tor-a)   64601      65001     Established           3d02h   4     4     12    ready   -
        worker-1   10.0.1.2           64601      65001     Established           45s     4     4     12    ready   hold timer expired
        worker-2   10.0.1.1 (tor-a)   64601      65001     Active                -       0     0     0     -       sent OPEN Message Error/Bad Peer AS: peer says 65011, configured 65001
        worker-3   10.0.1.1 (tor-a)   64601      65001     Established (stale)   3d02h   4     4     12    ready   -
        worker-4   -                  -          -         (no report)           -       -     -     -     -       -
        2/4 established
        worker-2: 10.0.1.1 (tor-a) is Active for 5m00s: sent OPEN Message Error/Bad Peer AS: peer says 65011, configured 65001 -> voilectl get bgppeer tor-a -o yaml
        worker-3: last report is 3m12s old, its sessions are not known now; look at the log of voile-node on it (is it running, does it reach the API server?)
        worker-4: its daemon never reported; look at the log of voile-node on it (is it running, does it reach the API server?)
        exit code 1
    "#]].assert_eq(&run(&store, &["bgp", "summary"]).await);
}

#[tokio::test]
async fn failed_leaves_out_what_works() {
    let store = cluster().await;
    expect![[r#"
        NODE       PEER               LOCAL-AS   PEER-AS   STATE    UP   RCV   ACC   ADV   GR   LAST-ERROR
        worker-2   10.0.1.1 (tor-a)   64601      65001     Active   -    0     0     0     -    sent OPEN Message Error/Bad Peer AS: peer says 65011, configured 65001
        worker-2: 10.0.1.1 (tor-a) is Active for 5m00s: sent OPEN Message Error/Bad Peer AS: peer says 65011, configured 65001 -> voilectl get bgppeer tor-a -o yaml
        exit code 1
    "#]].assert_eq(&run(&store, &["bgp", "summary", "--failed", "--node", "worker-2"]).await);
    expect![[r#"
        every session is established
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["bgp", "summary", "--failed", "--node", "worker-1"]).await);
}

#[tokio::test]
async fn wide_and_json_have_everything() {
    let store = cluster().await;
    expect![[r#"
        NODE       PEER               LOCAL-AS   PEER-AS   STATE         UP      RCV   ACC   ADV   GR      INST   FAMILIES       BFD   TYPE       LAST-ERROR
        worker-1   10.0.1.1 (tor-a)   64601      65001     Established   3d02h   4     4     12    ready   4      ipv4-unicast   -     NodePeer   -
        worker-1   10.0.1.2           64601      65001     Established   45s     4     4     12    ready   4      ipv4-unicast   -     NodePeer   hold timer expired
        2/2 established
        exit code 0
    "#]].assert_eq(&run(&store, &["bgp", "summary", "--node", "worker-1", "-o", "wide"]).await);
    expect![[r#"
        [
          {
            "node": "worker-4",
            "report": "missing",
            "sessions": []
          }
        ]
        exit code 1
    "#]]
    .assert_eq(&run(&store, &["bgp", "summary", "--node", "worker-4", "-o", "json"]).await);
}

#[tokio::test]
async fn unknown_nodes_and_empty_clusters_say_so() {
    let store = cluster().await;
    expect![[r#"
        error: there is no node 'worker-9'; there are worker-1, worker-2, worker-3, worker-4
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["bgp", "summary", "--node", "worker-9"]).await);
    expect![[r#"
        no BGP sessions; a BGPPeer or the node-to-node mesh makes them
        exit code 0
    "#]]
    .assert_eq(&run(&MemoryStore::new(), &["bgp", "summary"]).await);
}
