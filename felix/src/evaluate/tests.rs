use serde_json::json;

use super::*;
use crate::testing::{self, cases};

fn flow(pods: &[(String, String, String)], one: &cases::Expected) -> Flow {
    let party = |index: usize| {
        let (namespace, name, _) = &pods[index];
        Party::Pod(Key::namespaced(namespace, name))
    };
    Flow {
        source: party(one.source),
        destination: party(one.destination),
        protocol: one.protocol,
        source_port: None,
        destination_port: Some(one.port),
        icmp: None,
    }
}

#[test]
fn the_conformance_truth_tables_hold() {
    let files = match cases::files() {
        Ok(files) => files,
        Err(why) => return println!("skipped: {why}"),
    };
    for file in files {
        let mut verdicts = 0;
        for steps in cases::read(&file) {
            for step in steps {
                let model = Model::from_updates(step.updates.clone());
                assert_eq!(model.problems(), [], "{}", step.name);
                for one in &step.expected {
                    let flow = flow(&step.pods, one);
                    let decision = model.evaluate(&flow);
                    verdicts += 3;
                    if one.source == one.destination {
                        continue;
                    }
                    let found =
                        [decision.allowed, decision.ingress.allowed, decision.egress.allowed];
                    assert_eq!(found, one.verdicts, "{}: {flow:?}\n{decision}", step.name);
                }
            }
        }
        println!("{}: {} verdicts", file.display(), verdicts / 3);
        assert_eq!(verdicts / 3, 123_669);
    }
}

#[test]
fn an_explanation_names_the_rule_and_why_the_others_did_not_match() {
    let (key, policy) = testing::object(json!({
        "metadata": { "name": "db", "namespace": "shop" },
        "spec": {
            "podSelector": { "matchLabels": { "app": "database" } },
            "ingress": [
                { "from": [{ "ipBlock": { "cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"] } }] },
                {
                    "from": [{ "podSelector": { "matchLabels": { "app": "backend" } } }],
                    "ports": [{ "protocol": "TCP", "port": 5432 }],
                },
            ],
        },
    }));
    let none = json!([]);
    let model = Model::from_updates([
        testing::pod("shop", "db-0", &json!({ "app": "database" }), "10.244.0.1", &none),
        testing::pod("shop", "api-0", &json!({ "app": "backend" }), "10.244.0.2", &none),
        Update::KubernetesNetworkPolicy(key, policy),
    ]);
    let mut flow = Flow {
        source: Party::Pod(Key::namespaced("shop", "api-0")),
        destination: Party::Address("10.244.0.1".parse().unwrap()),
        protocol: 6,
        source_port: None,
        destination_port: Some(5432),
        icmp: None,
    };
    expect_test::expect![[r#"
        allowed
        egress of shop/api-0: allowed (no policy selects the pod in this direction)
        ingress of shop/db-0: allowed (knp shop/db ingress[1]: Allow)
          tier default: knp shop/db
            ingress[0] Allow: source 10.244.0.2 is none of: 192.0.2.0-192.0.2.127
            ingress[1] Allow: matches
    "#]]
    .assert_eq(&model.evaluate(&flow).to_string());
    flow.destination_port = Some(22);
    expect_test::expect![[r#"
        denied
        egress of shop/api-0: allowed (no policy selects the pod in this direction)
        ingress of shop/db-0: denied (no rule matched; end of tier default denies)
          tier default: knp shop/db
            ingress[0] Allow: source 10.244.0.2 is none of: 192.0.2.0-192.0.2.127
            ingress[1] Allow: destination port 22 is not listed
    "#]]
    .assert_eq(&model.evaluate(&flow).to_string());
}
