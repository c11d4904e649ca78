//! The real engine, a real kernel, real packets.

use std::sync::Arc;

use api::KubernetesNetworkPolicy;
use serde_json::json;

use super::{
    addr, endpoint, id, isolated,
    packets::{connect, node},
    run, soon,
};
use crate::{
    dataplane::{Config as FelixConfig, Felix},
    driver::{Config, Handle, spawn},
    testing,
    update::Update,
};

fn start() -> Handle {
    spawn(Config::default(), Felix::new(FelixConfig::new("node-1"))).unwrap()
}

fn pods() -> Vec<Update> {
    let labels = [json!({"app": "client"}), json!({"app": "server"}), json!({"app": "other"})];
    let mut updates = vec![testing::namespace("default", &json!({}))];
    for (number, labels) in (1..).zip(&labels) {
        let (name, ip) = (format!("p{number}"), addr(number).to_string());
        updates.push(testing::pod("default", &name, labels, &ip, &json!([])));
        updates.push(endpoint(number));
    }
    updates
}

fn policy(from: &str) -> (api::Key, Option<Arc<KubernetesNetworkPolicy>>) {
    testing::object(json!({
        "metadata": { "name": "server", "namespace": "default" },
        "spec": {
            "podSelector": { "matchLabels": { "app": "server" } },
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{ "podSelector": { "matchLabels": { "app": from } } }],
                "ports": [{ "protocol": "TCP", "port": 80 }],
            }],
        },
    }))
}

async fn settle(handle: &Handle) {
    for number in [1, 2, 3] {
        handle.wait_endpoint(id(number), soon()).await.unwrap();
    }
    handle.wait_routes(&[addr(1), addr(2), addr(3)], soon()).await.unwrap();
}

#[test]
fn a_kubernetes_policy_decides_over_real_packets() {
    isolated(|| async {
        let (pods_here, _listeners) = node();
        let [client, server, other] = &pods_here[..] else { panic!() };
        let handle = start();
        let mut updates = pods();
        let (key, allow) = policy("client");
        updates.push(Update::KubernetesNetworkPolicy(key.clone(), allow.clone()));
        updates.push(Update::InSync);
        handle.updates(updates.clone()).await;
        settle(&handle).await;
        let first = handle.status().borrow().clone();
        println!("first programming: {} us, {:?}", first.last_apply_micros, first.table);
        connect(client, addr(2), 80).unwrap();
        connect(client, addr(2), 81).unwrap_err();
        connect(other, addr(2), 80).unwrap_err();
        connect(server, addr(3), 81).unwrap();

        handle.updates(vec![Update::KubernetesNetworkPolicy(key.clone(), policy("other").1)]).await;
        settle(&handle).await;
        // Endpoints unchanged are ready already: the commit is what to wait for.
        let mut status = handle.status();
        status.wait_for(|status| status.commits > first.commits).await.unwrap();
        println!("policy edit: {} us", status.borrow().last_apply_micros);
        connect(client, addr(2), 80).unwrap_err();
        connect(other, addr(2), 80).unwrap();

        handle.updates(vec![Update::KubernetesNetworkPolicy(key.clone(), allow)]).await;
        status.wait_for(|status| status.commits > first.commits + 1).await.unwrap();
        handle.shutdown().await;
        // Nobody is there: the kernel goes on.
        connect(client, addr(2), 80).unwrap();
        connect(other, addr(2), 80).unwrap_err();
        let before = run("nft -a list ruleset");

        let again = start();
        again.updates(updates).await;
        settle(&again).await;
        assert_eq!(again.status().borrow().commits, 0);
        assert_eq!(run("nft -a list ruleset"), before);
    });
}
