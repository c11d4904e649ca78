//! A small cluster with a bit of everything.

use serde_json::json;

use super::policy;
use crate::{testing, update::Update};

/// Pods, policies of both APIs, tiers, sets and a service.
pub(super) fn world() -> Vec<Update> {
    let mut all = things();
    all.extend(calico_policies());
    all
}

fn things() -> Vec<Update> {
    let none = json!([]);
    let web = json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]);
    let (tier_key, tier) = testing::object::<api::Tier>(
        json!({ "metadata": { "name": "security" }, "spec": { "order": 100.0 } }),
    );
    let (set_key, set) = testing::object::<api::GlobalNetworkSet>(json!({
        "metadata": { "name": "office", "labels": { "zone": "office" } },
        "spec": { "nets": ["198.51.100.0/24", "198.51.100.7/32", "203.0.113.0/25"] },
    }));
    let (slice_key, slice) = testing::object::<api::EndpointSlice>(json!({
        "metadata": {
            "name": "web-1", "namespace": "shop",
            "labels": { "kubernetes.io/service-name": "web" },
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.244.0.3"] }],
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    }));
    vec![
        testing::pod("lab", "six", &json!({ "app": "web" }), "fd00::1", &web),
        testing::endpoint("lab", "six", "fd00::1"),
        testing::namespace("shop", &json!({ "team": "blue" })),
        testing::namespace("lab", &json!({ "team": "red" })),
        testing::pod("shop", "db", &json!({ "app": "database" }), "10.244.0.1", &none),
        testing::pod("shop", "api", &json!({ "app": "backend" }), "10.244.0.2", &none),
        testing::pod("lab", "web", &json!({ "app": "web" }), "10.244.0.3", &web),
        testing::pod("lab", "other", &json!({ "app": "web" }), "10.244.9.9", &web),
        testing::endpoint("shop", "db", "10.244.0.1"),
        testing::endpoint("shop", "api", "10.244.0.2"),
        testing::endpoint("lab", "web", "10.244.0.3"),
        policy(json!({
            "metadata": { "name": "db", "namespace": "shop" },
            "spec": {
                "podSelector": { "matchLabels": { "app": "database" } },
                "ingress": [{
                    "from": [
                        { "podSelector": { "matchLabels": { "app": "backend" } } },
                        { "namespaceSelector": { "matchLabels": { "team": "red" } } },
                        { "ipBlock": { "cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"] } },
                    ],
                    "ports": [{ "port": 5432 }, { "port": 6000, "endPort": 6010 }],
                }],
            },
        })),
        policy(json!({
            "metadata": { "name": "web", "namespace": "lab" },
            "spec": { "podSelector": {}, "ingress": [{ "ports": [{ "port": "http" }] }] },
        })),
        Update::Tier(tier_key, tier),
        Update::GlobalNetworkSet(set_key, set),
        Update::EndpointSlice(slice_key, slice),
    ]
}

fn calico_policies() -> Vec<Update> {
    let gnp = |value| {
        let (key, value) = testing::object::<api::GlobalNetworkPolicy>(value);
        Update::GlobalNetworkPolicy(key, value)
    };
    let (np_key, np) = testing::object::<api::NetworkPolicy>(json!({
        "metadata": { "name": "peers", "namespace": "lab" },
        "spec": {
            "order": 7.0, "selector": "app == 'web'", "types": ["Ingress", "Egress"],
            "ingress": [
                { "action": "Allow", "protocol": "TCP", "source": { "selector": "app == 'web'" },
                  "destination": { "ports": ["http", 5432] } },
                { "action": "Deny", "protocol": "TCP",
                  "source": { "namespaceSelector": "team == 'blue'", "selector": "app == 'backend'",
                              "notNets": ["10.244.0.0/31"] },
                  "destination": { "notPorts": ["http", "1:30"] } },
                { "action": "Allow", "protocol": "ICMP", "icmp": { "type": 8 } },
                { "action": "Allow", "protocol": "ICMPv6", "notICMP": { "type": 8, "code": 1 } },
                { "action": "Log", "source": { "serviceAccounts": { "names": ["default"] } } },
            ],
            "egress": [
                { "action": "Allow", "source": { "serviceAccounts": { "names": ["default"] } },
                  "notProtocol": "UDP", "destination": { "notNets": ["192.0.2.0/25"] } },
                { "action": "Allow", "ipVersion": 6, "protocol": "UDP" },
            ],
        },
    }));
    vec![
        Update::NetworkPolicy(np_key, np),
        gnp(json!({
            "metadata": { "name": "office" },
            "spec": {
                "tier": "security", "order": 5.0, "selector": "has(app)", "types": ["Ingress"],
                "ingress": [
                    { "action": "Deny", "protocol": "TCP", "source": { "selector": "zone == 'office'" },
                      "destination": { "ports": [22] } },
                    { "action": "Pass" },
                ],
            },
        })),
        gnp(json!({
            "metadata": { "name": "no-mail" },
            "spec": {
                "tier": "security", "order": 6.0, "selector": "app == 'backend'", "types": ["Egress"],
                "egress": [
                    { "action": "Deny", "protocol": "TCP", "destination": { "ports": [25, "465:587"] } },
                    { "action": "Allow", "protocol": "TCP",
                      "destination": { "services": { "name": "web", "namespace": "shop" } } },
                    { "action": "Pass", "destination": { "notSelector": "app == 'web'" } },
                ],
            },
        })),
    ]
}
