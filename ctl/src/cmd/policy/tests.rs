use expect_test::expect;
use serde_json::json;
use store::memory::MemoryStore;

use crate::testing::{pod, put, run};

async fn cluster() -> MemoryStore {
    let store = MemoryStore::new();
    for namespace in ["shop", "db"] {
        put::<api::Namespace>(&store, json!({"metadata": {"name": namespace}})).await;
    }
    pod(&store, "shop/web-1", json!({"app": "backend"}), "10.244.0.1", "worker-1").await;
    pod(&store, "db/pg-0", json!({"app": "database"}), "10.244.0.2", "worker-2").await;
    pod(&store, "db/app-0", json!({"app": "backend"}), "10.244.0.3", "worker-2").await;
    let db = json!({
        "metadata": {"name": "db-policy", "namespace": "db"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "database"}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "backend"}}}],
                "ports": [{"protocol": "TCP", "port": 5432}],
            }],
        },
    });
    put::<api::KubernetesNetworkPolicy>(&store, db).await;
    put::<api::Tier>(
        &store,
        json!({"metadata": {"name": "security"}, "spec": {"order": 100, "defaultAction": "Pass"}}),
    )
    .await;
    let early = json!({
        "metadata": {"name": "security.no-telnet"},
        "spec": {
            "tier": "security", "order": 10, "selector": "all()", "types": ["Egress"],
            "egress": [{"action": "Deny", "protocol": "TCP", "destination": {"ports": [23]}}, {"action": "Pass"}],
        },
    });
    put::<api::GlobalNetworkPolicy>(&store, early).await;
    store
}

#[tokio::test]
async fn show_lists_in_the_order_of_evaluation() {
    let store = cluster().await;
    expect![[r#"
        TIER       ORDER   KIND                  NAMESPACE/NAME       TYPES     SELECTOR                                PODS
        security   10      GlobalNetworkPolicy   security.no-telnet   Egress    [all()]                                 3 (db/app-0,db/pg-0,shop/web-1)
        default    1000    NetworkPolicy(k8s)    db/db-policy         Ingress   pods namespace db [app == 'database']   1 (db/pg-0)
        exit code 0
    "#]].assert_eq(&run(&store, &["policy", "show"]).await);
    expect![[r#"
        TIER       ORDER   KIND                  NAMESPACE/NAME       TYPES    SELECTOR   PODS
        security   10      GlobalNetworkPolicy   security.no-telnet   Egress   [all()]    3 (db/app-0,db/pg-0,shop/web-1)
        exit code 0
    "#]].assert_eq(&run(&store, &["policy", "show", "--pod", "shop/web-1", "-o", "wide"]).await);
    expect![[r#"
        gnp/security.no-telnet
        knp/db/db-policy
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["policy", "show", "-o", "name"]).await);
    expect![[r#"
        no policies: everything is allowed
        exit code 0
    "#]]
    .assert_eq(&run(&MemoryStore::new(), &["policy", "show"]).await);
}

#[tokio::test]
async fn a_selector_that_does_not_parse_is_a_finding() {
    let store = cluster().await;
    let broken = json!({
        "metadata": {"name": "default.broken", "namespace": "shop"},
        "spec": {"tier": "default", "selector": "app = 'x'", "types": ["Ingress"]},
    });
    put::<api::NetworkPolicy>(&store, broken).await;
    expect![[r#"
        TIER       ORDER   KIND                  NAMESPACE/NAME        TYPES     SELECTOR                                PODS
        security   10      GlobalNetworkPolicy   security.no-telnet    Egress    [all()]                                 3 (db/app-0,db/pg-0,shop/web-1)
        default    1000    NetworkPolicy(k8s)    db/db-policy          Ingress   pods namespace db [app == 'database']   1 (db/pg-0)
        default    -       NetworkPolicy         shop/default.broken   Ingress   namespace shop [all()]                  1 (shop/web-1)
        problem: NetworkPolicy shop/default.broken: spec.selector: selector `app = 'x'`: expected a label, all(), has(label), '!' or '(', found '=' at position 4; what the rest selects is denied
        exit code 1
    "#]].assert_eq(&run(&store, &["policy", "show"]).await);
}

#[tokio::test]
async fn explain_walks_both_sides() {
    let store = cluster().await;
    expect![[r#"
        VERDICT  DENIED at ingress of db/pg-0
        FLOW     TCP shop/web-1 -> db/pg-0 port 5432
        EGRESS   shop/web-1: selected by GlobalNetworkPolicy security.no-telnet
                 tier security
                   GlobalNetworkPolicy security.no-telnet
                     egress[0] Deny: no, destination port 5432 is not listed
                     egress[1] Pass: MATCHES
                 no tier decided -> allow
        INGRESS  db/pg-0: selected by NetworkPolicy(k8s) db/db-policy
                 tier default
                   NetworkPolicy(k8s) db/db-policy
                     ingress[0] Allow: no, source 10.244.0.1 is none of: pods namespace db [app == 'backend']
                 no rule matched; the end of tier default denies -> DENY
        FIX      NetworkPolicy(k8s) db/db-policy ingress[0]: the labels of shop/web-1 fit, but the selector means pods of namespace db only; for namespace shop add namespaceSelector kubernetes.io/metadata.name=shop
        exit code 1
    "#]].assert_eq(&run(&store, &["policy", "explain", "shop/web-1", "db/pg-0:5432"]).await);
    expect![[r#"
        VERDICT  ALLOWED
        FLOW     TCP db/app-0 -> db/pg-0 port 5432
        EGRESS   db/app-0: selected by GlobalNetworkPolicy security.no-telnet
                 tier security
                   GlobalNetworkPolicy security.no-telnet
                     egress[0] Deny: no, destination port 5432 is not listed
                     egress[1] Pass: MATCHES
                 no tier decided -> allow
        INGRESS  db/pg-0: selected by NetworkPolicy(k8s) db/db-policy
                 tier default
                   NetworkPolicy(k8s) db/db-policy
                     ingress[0] Allow: MATCHES
                 decided by the rule above -> allow
        exit code 0
    "#]]
    .assert_eq(&run(&store, &["policy", "explain", "db/app-0", "db/pg-0:5432"]).await);
    expect![[r#"
        VERDICT  DENIED at egress of shop/web-1
        FLOW     TCP shop/web-1 -> 192.0.2.9 port 23
        EGRESS   shop/web-1: selected by GlobalNetworkPolicy security.no-telnet
                 tier security
                   GlobalNetworkPolicy security.no-telnet
                     egress[0] Deny: MATCHES
                 decided by the rule above -> DENY
        INGRESS  192.0.2.9: not a pod, nothing to enforce -> allow
        exit code 1
    "#]]
    .assert_eq(&run(&store, &["policy", "explain", "shop/web-1", "192.0.2.9:23"]).await);
}

#[tokio::test]
async fn explain_in_json() {
    let store = cluster().await;
    expect![[r#"
        {
          "allowed": true,
          "verdict": "ALLOWED",
          "protocol": "TCP",
          "source": "10.244.0.3 (db/app-0)",
          "destination": "db/pg-0",
          "port": 5432,
          "egress": {
            "allowed": true,
            "pod": "db/app-0",
            "reason": "no tier decided",
            "policies": [
              {
                "tier": "security",
                "kind": "GlobalNetworkPolicy",
                "policy": "security.no-telnet",
                "rules": [
                  {
                    "rule": "egress[0]",
                    "action": "Deny",
                    "matches": false,
                    "why": "destination port 5432 is not listed"
                  },
                  {
                    "rule": "egress[1]",
                    "action": "Pass",
                    "matches": true,
                    "why": null
                  }
                ]
              }
            ]
          },
          "ingress": {
            "allowed": true,
            "pod": "db/pg-0",
            "reason": "knp db/db-policy ingress[0]: Allow",
            "policies": [
              {
                "tier": "default",
                "kind": "NetworkPolicy(k8s)",
                "policy": "db/db-policy",
                "rules": [
                  {
                    "rule": "ingress[0]",
                    "action": "Allow",
                    "matches": true,
                    "why": null
                  }
                ]
              }
            ]
          }
        }
        exit code 0
    "#]]
    .assert_eq(
        &run(&store, &["policy", "explain", "10.244.0.3", "db/pg-0:5432", "-o", "json"]).await,
    );
}

#[tokio::test]
async fn explain_refuses_what_it_cannot_place() {
    let store = cluster().await;
    let waiting =
        json!({"metadata": {"name": "new", "namespace": "shop"}, "status": {"phase": "Pending"}});
    put::<api::Pod>(&store, waiting).await;
    expect![[r#"
        error: pod shop/new has no address (phase Pending): there is no flow to judge yet
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["policy", "explain", "shop/new", "db/pg-0:5432"]).await);
    for line in [
        ["policy", "explain", "shop/web-9", "db/pg-0:5432"],
        ["policy", "explain", "web-1", "db/pg-0:5432"],
        ["policy", "explain", "shop/web-1", "db/pg-0:http"],
    ] {
        let text = run(&store, &line).await;
        assert!(text.starts_with("error: ") && text.ends_with("exit code 2\n"), "{text}");
    }
    expect![[r#"
        error: there is no pod shop/web-9; `voilectl get pods -A` lists them
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["policy", "explain", "shop/web-9", "db/pg-0"]).await);
    expect![[r#"
        error: 'web-1' is neither namespace/pod nor an address
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["policy", "explain", "web-1", "db/pg-0"]).await);
    expect![[r#"
        error: 'http' in 'db/pg-0:http' is no port; write a number from 1 to 65535
        exit code 2
    "#]]
    .assert_eq(&run(&store, &["policy", "explain", "shop/web-1", "db/pg-0:http"]).await);
    expect![[r#"
        error: 'tpc' is no protocol; write TCP, UDP, SCTP, ICMP, ICMPv6 or a number
        exit code 2
    "#]]
    .assert_eq(
        &run(&store, &["policy", "explain", "shop/web-1", "db/pg-0", "--protocol", "tpc"]).await,
    );
}
