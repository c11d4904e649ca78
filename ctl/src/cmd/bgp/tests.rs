use api::Resource as _;
use expect_test::expect;
use serde_json::json;
use store::{ListOptions, Store as _, memory::MemoryStore};

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

/// A daemon that answers what it is asked with the same words.
fn daemon(
    store: &MemoryStore,
    answer: impl Fn(&api::BgpQuerySpec) -> Option<String> + Send + 'static,
) {
    let store = store.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            let listing = store.list::<api::BgpQuery>(&ListOptions::consistent()).await.unwrap();
            for query in listing.items.iter().filter(|query| query.status.is_none()) {
                let status = match answer(&query.spec) {
                    Some(answer) => json!({"answeredAt": FRESH, "answer": answer}),
                    None => {
                        json!({"answeredAt": FRESH, "error": "there is no path to 10.9.0.0/16"})
                    }
                };
                let patch = json!({"status": status});
                // It may be gone.
                drop(store.patch::<api::BgpQuery>(&query.key(), Some("status"), &patch).await);
            }
        }
    });
}

const ROUTE: &str = r#"{"prefix":"10.244.7.0/24","paths":[{"peer":"tor-a","address":"10.0.1.1","pathId":0,"usage":"best",
    "why":"only path","stale":false,"import":"accepted: rule 1 of filter uplinks","changes":[],"received":{"origin":"igp",
    "asPath":"65001","nextHop":"10.0.1.1","med":null,"localPref":null,"communities":[],"originatorId":null,"clusterList":[]},
    "accepted":null}],"announcements":[{"peer":"tor-a","path":0,"pathId":0,"told":false,
    "why":"it is from this peer (split horizon)","changes":[],"attributes":null}],
    "kernel":{"state":"installed","nextHops":["10.0.1.1"],"why":null}}"#;

#[tokio::test]
async fn a_route_is_explained_by_every_node_that_answers() {
    let store = cluster().await;
    daemon(&store, |question| {
        assert_eq!(question.destination.as_deref(), Some("10.244.7.9"));
        (question.node == "worker-1").then(|| ROUTE.to_owned())
    });
    expect![[r#"
        worker-1: 10.244.7.0/24
        1.  from tor-a (10.0.1.1): BEST
            route:  via 10.0.1.1, AS path 65001
            why:    only path
            import: accepted: rule 1 of filter uplinks
        kernel:   installed via 10.0.1.1
        told:
          tor-a  no   it is from this peer (split horizon)

        worker-2: there is no path to 10.9.0.0/16

        worker-3: its daemon does not report, so it would not answer

        worker-4: its daemon never reported
        exit code 1
    "#]]
    .assert_eq(&run(&store, &["bgp", "route", "10.244.7.9"]).await);
    let one =
        run(&store, &["bgp", "route", "10.244.7.9", "--node", "worker-1", "-o", "json"]).await;
    assert!(one.contains(r#""state": "installed""#) && one.ends_with("exit code 0\n"), "{one}");
    let left = store.list::<api::BgpQuery>(&ListOptions::consistent()).await.unwrap();
    assert!(left.items.is_empty(), "questions are left behind");
    let nobody = run(&store, &["bgp", "route", "10.244.7.9", "--node", "worker-9"]).await;
    assert!(nobody.contains("there is no node 'worker-9'"), "{nobody}");
}

#[tokio::test]
async fn neighbors_show_the_history_of_sessions() {
    let store = cluster().await;
    daemon(&store, |question| {
        assert_eq!(question.peer.as_deref(), Some("tor-a"));
        let counters =
            json!({"opens": 1, "updates": 2, "notifications": 0, "keepalives": 3, "refreshes": 0});
        let peer = json!({
            "name": "tor-a", "address": "10.0.1.1", "as": 65001, "type": "eBGP", "state": "Active",
            "sinceSeconds": 300, "flaps": 1, "lastError": "nothing listens on 10.0.1.1:179",
            "history": [{"secondsAgo": 300, "from": "Connect", "to": "Active",
                "cause": "nothing listens on 10.0.1.1:179", "times": 12}],
            "routerId": null, "localAddress": null, "families": [], "holdTimeSeconds": null,
            "gracefulRestart": false, "stale": [], "bfd": null, "sent": counters, "received": counters,
            "prefixesReceived": 0, "nearLimit": false, "prefixesAccepted": 0, "prefixesAdvertised": 0,
            "treatedAsWithdraw": 0, "discardedAttributes": 0,
        });
        Some(json!([peer]).to_string())
    });
    expect![[r#"
        worker-2/10.0.1.1
        name:               tor-a
        address:            10.0.1.1
        AS:                 65001
        type:               eBGP
        state:              Active for 5m00s
        lost:               once
        last error:         nothing listens on 10.0.1.1:179
        router id:          -
        local address:      -
        families:           -
        hold time:          -
        graceful restart:   no
        stale:              -
        BFD:                -
        prefixes:           0 received, 0 accepted, 0 installed, 0 blackholed, 0 advertised
        sent:               2 UPDATE, 3 KEEPALIVE, 1 OPEN, 0 NOTIFICATION, 0 ROUTE-REFRESH
        received:           2 UPDATE, 3 KEEPALIVE, 1 OPEN, 0 NOTIFICATION, 0 ROUTE-REFRESH
        errors (RFC 7606):  0 updates treated as withdraw, 0 attributes discarded, 0 routes ignored
        history:
            5m00s ago  Connect -> Active: nothing listens on 10.0.1.1:179 (12 times)
        exit code 1
    "#]]
    .assert_eq(&run(&store, &["bgp", "neighbors", "worker-2/tor-a"]).await);
}
