use api::Resource as _;
use expect_test::expect;
use serde_json::{Value, json};
use store::{ListOptions, Store as _, memory::MemoryStore};

use crate::testing::{block, node, pool, report, run, session};

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
        prefixes:           0 received, 0 accepted, 0 advertised
        in use:             0 installed, 0 blackholed
        sent:               2 UPDATE, 3 KEEPALIVE, 1 OPEN, 0 NOTIFICATION, 0 ROUTE-REFRESH
        received:           2 UPDATE, 3 KEEPALIVE, 1 OPEN, 0 NOTIFICATION, 0 ROUTE-REFRESH
        last UPDATE:        -
        to be sent:         0 octets
        errors (RFC 7606):  0 updates treated as withdraw, 0 attributes discarded, 0 routes ignored
        history:
            5m00s ago  Connect -> Active: nothing listens on 10.0.1.1:179 (12 times)
        exit code 1
    "#]]
    .assert_eq(&run(&store, &["bgp", "neighbors", "worker-2/tor-a"]).await);
}

/// A part of a Loc-RIB: prefixes, each with the AS path of its best path; none: originated there.
fn part(routes: &[(&str, Option<&str>)], next: Option<&str>) -> String {
    let route = |(prefix, path): &(&str, Option<&str>)| {
        let attributes = json!({"origin": "igp", "asPath": path.unwrap_or(""), "nextHop": path.map(|_| "10.0.1.1"),
            "med": null, "localPref": null, "communities": ["65001:7"], "originatorId": null, "clusterList": []});
        let path = json!({"peer": path.map(|_| "tor-a"), "address": path.map(|_| "10.0.1.1"), "pathId": 0, "usage": "best",
            "why": "only path", "stale": false, "import": "accepted: no rule matched", "changes": [],
            "received": attributes, "accepted": attributes});
        let kernel = json!({"state": "installed", "nextHops": ["10.0.1.1"], "why": null});
        json!({"prefix": prefix, "paths": [path], "kernel": kernel})
    };
    let routes: Vec<Value> = routes.iter().map(route).collect();
    json!({"routes": routes, "next": next}).to_string()
}

#[tokio::test]
async fn tables_come_part_by_part() {
    let store = cluster().await;
    daemon(&store, |question| {
        let table = question.table.as_ref().unwrap();
        assert_eq!((table.view, question.peer.as_deref()), (api::BgpTable::AdjIn, Some("tor-a")));
        assert_eq!(table.within.as_deref(), Some("10.244.0.0/16"));
        Some(match table.after.as_deref() {
            None => part(&[("10.244.1.0/26", Some("65001"))], Some("10.244.1.0/26")),
            Some("10.244.1.0/26") => part(&[("10.244.20.0/26", Some("65001 64602"))], None),
            other => panic!("{other:?}"),
        })
    });
    expect![[r#"
        NODE       PREFIX          PEER    NEXT HOP   AS PATH   MED   COMMUNITIES   IMPORT
        worker-1   10.244.1.0/26   tor-a   10.0.1.1   65001     -     65001:7       accepted: no rule matched
        worker-1   10.244.20.0/26   tor-a   10.0.1.1   65001 64602   -     65001:7       accepted: no rule matched
        exit code 0
    "#]]
        .assert_eq(&run(&store, &["bgp", "rib", "adj-in", "worker-1/tor-a", "10.244.0.0/16"]).await);
    let json =
        run(&store, &["bgp", "rib", "adj-in", "worker-1/tor-a", "10.244.0.0/16", "-o", "json"])
            .await;
    let json: Value = serde_json::from_str(json.strip_suffix("exit code 0\n").unwrap()).unwrap();
    assert_eq!(json[1]["prefix"], "10.244.20.0/26", "{json}");
    assert_eq!(json[0]["paths"][0]["received"]["asPath"], "65001", "{json}");
    let yaml =
        run(&store, &["bgp", "rib", "adj-in", "worker-1/tor-a", "10.244.0.0/16", "-o", "yaml"])
            .await;
    assert_eq!(yaml.matches("- node: worker-1").count(), 2, "{yaml}");
    let every =
        run(&store, &["bgp", "rib", "adj-in", "*/tor-a", "10.244.0.0/16", "-o", "name"]).await;
    assert!(
        every.starts_with("worker-1/10.244.1.0/26\nworker-1/10.244.20.0/26\nworker-2/"),
        "{every}"
    );
    let peer = run(&store, &["bgp", "rib", "adj-in", "tor-a"]).await;
    assert!(
        peer.contains("'tor-a' is a peer, not a node; for that peer of every node write '*/tor-a'"),
        "{peer}"
    );
}

#[tokio::test]
async fn differences_are_those_of_two_nodes_or_of_the_blocks() {
    let store = cluster().await;
    pool(&store).await;
    block(&store, "10.244.0.0/26", Some("worker-1"), &[]).await;
    block(&store, "10.244.0.64/26", Some("worker-2"), &[]).await;
    block(&store, "10.244.0.128/26", Some("worker-2"), &[]).await;
    daemon(&store, |question| {
        let shared = ("192.0.2.0/24", Some("65001 7"));
        Some(match question.node.as_str() {
            "worker-1" => {
                let own = ("10.244.0.0/26", None);
                let (other, stray) =
                    (("10.244.0.64/26", Some("65001 64602")), ("10.244.9.0/26", Some("65001")));
                part(&[own, other, ("10.244.0.70/32", Some("65001 64603")), stray, shared], None)
            }
            _ => {
                let (own, one) = (("10.244.0.64/26", None), ("10.244.0.0/26", Some("65001 64601")));
                part(&[one, own, ("192.0.2.0/24", Some("65002 7"))], None)
            }
        })
    });
    expect![[r#"
        PREFIX            worker-1        EXPECTED
        10.244.0.128/26   -               block of worker-2
        10.244.9.0/26     AS path 65001   -
        exit code 1
    "#]]
    .assert_eq(&run(&store, &["bgp", "diff", "worker-1"]).await);
    expect![[r#"
        PREFIX           worker-1              worker-2
        10.244.0.70/32   AS path 65001 64603   -
        10.244.9.0/26    AS path 65001         -
        192.0.2.0/24     AS path 65001 7       AS path 65002 7
        exit code 1
    "#]]
    .assert_eq(&run(&store, &["bgp", "diff", "worker-1", "worker-2"]).await);
    expect![[r#"
        no difference
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["bgp", "diff", "worker-1", "worker-1"]).await);
    let old = run(&store, &["bgp", "diff", "worker-1", "worker-3"]).await;
    assert!(old.contains("worker-3: its daemon does not report"), "{old}");
}

#[tokio::test]
async fn sessions_are_cleared_one_by_one_or_by_their_peer() {
    let store = cluster().await;
    daemon(&store, |question| {
        assert_eq!(question.peer.as_deref(), Some("tor-a"));
        let wanted = match question.node.as_str() {
            "worker-1" => (Some(api::BgpAction::Reset), Some("new card")),
            _ => (Some(api::BgpAction::RefreshOut), None),
        };
        ((question.action, question.text.as_deref()) == wanted).then(|| "{}".to_owned())
    });
    expect![[r#"
        worker-1/tor-a: session ended, begins anew
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["bgp", "clear", "worker-1/tor-a", "--text", "new card"]).await);
    let soft = run(&store, &["bgp", "clear", "worker-2/tor-a", "--soft", "out"]).await;
    assert_eq!(soft, "worker-2/tor-a: gets everything again\nexit code 0\n");
    let refused = run(&store, &["bgp", "refresh", "worker-2/tor-a"]).await;
    assert_eq!(refused, "worker-2: there is no path to 10.9.0.0/16\nexit code 1\n");
    let whole = run(&store, &["bgp", "clear", "worker-1"]).await;
    assert!(whole.contains("say which session: NODE/PEER"), "{whole}");
}

#[tokio::test]
async fn what_happens_is_shown_as_it_happens() {
    let store = cluster().await;
    let asked = std::sync::Mutex::new(0);
    daemon(&store, move |question| {
        let watch = question.watch.as_ref().unwrap();
        assert_eq!(watch.within.as_deref(), Some("10.244.0.0/16"));
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        let session = json!({"secondsAgo": 0, "peer": "tor-a", "address": "10.0.1.1", "from": "Established",
            "to": "Active", "cause": "hold timer expired"});
        Some(match *asked {
            1 => json!({"sessions": [session], "routes": [{"prefix": "10.244.1.0/26", "best": null}], "missed": false}),
            2 => json!({"sessions": [], "routes": [], "missed": true}),
            _ => json!({"sessions": [], "routes": [], "missed": false}),
        }.to_string())
    });
    let line = ["bgp", "monitor", "worker-1", "10.244.0.0/16", "--for", "1s"];
    let text = run(&store, &line).await;
    let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    let expected = [
        "worker-1 session tor-a: Established -> Active: hold timer expired",
        "worker-1 - 10.244.1.0/26: no path left",
        "worker-1 more changed than is remembered; look at the tables",
        "code 0",
    ];
    assert_eq!(lines, expected);
    let left = store.list::<api::BgpQuery>(&ListOptions::consistent()).await.unwrap();
    assert!(left.items.is_empty(), "questions are left behind");
}

/// What a daemon cannot use makes no session, so that no row of the table would tell of it.
#[tokio::test]
async fn what_nodes_cannot_use_is_said_once() {
    let store = MemoryStore::new();
    let unusable = "BGPPeer tor-a: BGPFilter no does not exist; what runs stays as it was";
    for number in 1..=5 {
        let name = format!("worker-{number}");
        node(&store, &name, number).await;
        let bgp =
            json!({"localAs": 64601, "routerId": "10.0.0.1", "peers": [], "problems": [unusable]});
        let object =
            json!({"metadata": {"name": name}, "status": {"updatedAt": FRESH, "bgp": bgp}});
        crate::testing::put::<api::NodeNetworkState>(&store, object).await;
    }
    expect![[r#"
        worker-1, worker-2, worker-3 and 2 more nodes: BGPPeer tor-a: BGPFilter no does not exist; what runs stays as it was
        exit code 1
    "#]].assert_eq(&run(&store, &["bgp", "summary"]).await);
    expect![[r#"
        worker-2: BGPPeer tor-a: BGPFilter no does not exist; what runs stays as it was
        exit code 1
    "#]]
    .assert_eq(&run(&store, &["bgp", "summary", "--node", "worker-2"]).await);
    expect![[r#"
        NODE       REPORT    VERSION   ASN     SESSIONS   BGP-ROUTES   BLOCKS   PODS   POLICIES
        worker-1   10s ago   -         64601   0/0        0            0        0      0
        worker-2   10s ago   -         64601   0/0        0            0        0      0
        worker-3   10s ago   -         64601   0/0        0            0        0      0
        worker-4   10s ago   -         64601   0/0        0            0        0      0
        worker-5   10s ago   -         64601   0/0        0            0        0      0

        0 blocks, addresses in use: 0, policies: 0, pods: 0
        1 problem:
          worker-1, worker-2, worker-3 and 2 more nodes: BGPPeer tor-a: BGPFilter no does not exist; what runs stays as it was
        exit code 1
    "#]].assert_eq(&run(&store, &["status"]).await);
}
