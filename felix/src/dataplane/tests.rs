mod world;

use std::sync::Arc;

use api::{Key, KubernetesNetworkPolicy};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use self::world::world;
use super::*;
use crate::{
    nft::{Hook, text},
    testing::{self, cases, fake},
};

fn engine(updates: impl IntoIterator<Item = Update>) -> (Felix, Table, Flush) {
    let mut felix = Felix::new(Config::new("node-1"));
    let mut table = Table::new("voile");
    for update in updates {
        felix.on_update(update);
    }
    felix.on_update(Update::InSync);
    let flush = felix.flush(&mut table);
    (felix, table, flush)
}

fn policy(value: Json) -> Update {
    let (key, value) = testing::object::<KubernetesNetworkPolicy>(value);
    Update::KubernetesNetworkPolicy(key, value)
}

/// Everything in a table, in an order of its own.
fn contents(table: &Table) -> String {
    let mut out = String::new();
    for set in table.sets() {
        out.push_str(&format!("{set:?}\n"));
    }
    for map in table.maps() {
        out.push_str(&format!("{map:?}\n"));
    }
    for chain in table.chains() {
        out.push_str(&format!("{chain:?}\n"));
    }
    out
}

/// What the kernel would say about a packet from pod to pod: combined, ingress, egress.
fn verdicts(table: &Table, pods: &[(String, String, String)], one: &cases::Expected) -> [bool; 3] {
    let (source, destination) = (&pods[one.source], &pods[one.destination]);
    let mut packet = fake::Packet::new(
        source.2.parse().unwrap(),
        destination.2.parse().unwrap(),
        one.protocol,
        one.port,
    );
    packet.iif = testing::interface(&source.0, &source.1);
    packet.oif = testing::interface(&destination.0, &destination.1);
    assert!(fake::passes(table, Hook::Prerouting, None, &packet), "own address");
    let forward = |priority| fake::passes(table, Hook::Forward, priority, &packet);
    [forward(None), forward(Some(1)), forward(Some(0))]
}

/// All endpoints local: the rendered table must say what the truth tables say, also when each step of a case is
/// reached from the one before.
#[test]
fn the_rendered_table_says_what_the_truth_tables_say() {
    let files = match cases::files() {
        Ok(files) => files,
        Err(why) => return println!("skipped: {why}"),
    };
    for file in files {
        let mut verdicts_seen = 0;
        for steps in cases::read(&file) {
            let mut felix = Felix::new(Config::new("node-1"));
            let mut table = Table::new("voile");
            let mut known: Vec<Update> = Vec::new();
            felix.on_update(Update::InSync);
            for step in steps {
                for update in gone(&known, &step) {
                    felix.on_update(update);
                }
                known = step.updates.iter().chain(&step.endpoints).cloned().collect();
                for update in &known {
                    felix.on_update(update.clone());
                }
                let flush = felix.flush(&mut table);
                assert_eq!(flush.ready.len(), step.pods.len());
                let (_, fresh, _) = engine(known.clone());
                assert_eq!(contents(&table), contents(&fresh), "{}", step.name);
                for one in &step.expected {
                    verdicts_seen += 1;
                    if one.source != one.destination {
                        let found = verdicts(&table, &step.pods, one);
                        assert_eq!(found, one.verdicts, "{}\n{}", step.name, text::render(&table));
                    }
                }
            }
        }
        println!("{}: {verdicts_seen} verdicts", file.display());
        assert_eq!(verdicts_seen, 123_669);
    }
}

/// Deletions of what a step no longer has.
fn gone(known: &[Update], step: &cases::Step) -> Vec<Update> {
    let now: Vec<String> = step.updates.iter().chain(&step.endpoints).map(name).collect();
    known.iter().filter(|update| !now.contains(&name(update))).map(deleted).collect()
}

fn name(update: &Update) -> String {
    format!("{:?}", deleted(update))
}

fn deleted(update: &Update) -> Update {
    match update {
        Update::Pod(key, _) => Update::Pod(key.clone(), None),
        Update::Namespace(key, _) => Update::Namespace(key.clone(), None),
        Update::KubernetesNetworkPolicy(key, _) => {
            Update::KubernetesNetworkPolicy(key.clone(), None)
        }
        Update::NetworkPolicy(key, _) => Update::NetworkPolicy(key.clone(), None),
        Update::GlobalNetworkPolicy(key, _) => Update::GlobalNetworkPolicy(key.clone(), None),
        Update::Tier(key, _) => Update::Tier(key.clone(), None),
        Update::NetworkSet(key, _) => Update::NetworkSet(key.clone(), None),
        Update::GlobalNetworkSet(key, _) => Update::GlobalNetworkSet(key.clone(), None),
        Update::EndpointSlice(key, _) => Update::EndpointSlice(key.clone(), None),
        Update::ServiceAccount(key, _) => Update::ServiceAccount(key.clone(), None),
        Update::LocalEndpoint(id, _) => Update::LocalEndpoint(id.clone(), None),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any order, with repetitions, detours through deletion, and flushes anywhere, ends in the table made in one go.
    #[test]
    fn any_order_ends_in_the_same_table(
        picks in prop::collection::vec((0usize..19, any::<bool>(), any::<bool>()), 0..60),
        order in Just((0usize..19).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let world = world();
        assert_eq!(world.len(), 19);
        let (_, wanted, wanted_flush) = engine(world.clone());
        let mut felix = Felix::new(Config::new("node-1"));
        let mut table = Table::new("voile");
        for (index, delete, flush) in picks {
            let update = &world[index];
            felix.on_update(if delete { deleted(update) } else { update.clone() });
            if flush {
                felix.on_update(Update::InSync);
                felix.flush(&mut table);
            }
        }
        for index in order {
            felix.on_update(world[index].clone());
        }
        felix.on_update(Update::InSync);
        let flush = felix.flush(&mut table);
        prop_assert_eq!(contents(&table), contents(&wanted));
        prop_assert_eq!(flush.ready, wanted_flush.ready);
        // And everything goes away again.
        for update in &world {
            felix.on_update(deleted(update));
        }
        felix.flush(&mut table);
        let (_, empty, _) = engine([]);
        prop_assert_eq!(contents(&table), contents(&empty));
    }
}

/// The renderer and the evaluator agree on a world with tiers, sets, services and named ports.
#[test]
fn the_rendered_table_says_what_the_model_says() {
    use crate::evaluate::{Flow, Model, Party};
    let (_, table, _) = engine(world());
    let model = Model::from_updates(world());
    let pods = [
        ("shop", "db", "10.244.0.1"),
        ("shop", "api", "10.244.0.2"),
        ("lab", "web", "10.244.0.3"),
        ("lab", "six", "fd00::1"),
    ];
    let outside =
        ["fd00::9", "192.0.2.1", "192.0.2.200", "198.51.100.9", "203.0.113.200", "10.244.9.9"];
    let addresses = pods.iter().map(|(_, _, ip)| *ip).chain(outside);
    let mut asked = 0;
    for source in addresses.clone() {
        for destination in addresses.clone() {
            for (protocol, port) in [
                (6, 22),
                (6, 25),
                (6, 500),
                (6, 5432),
                (6, 6005),
                (6, 8080),
                (17, 8080),
                (1, 0),
                (58, 0),
            ] {
                let (saddr, daddr): (std::net::IpAddr, std::net::IpAddr) =
                    (source.parse().unwrap(), destination.parse().unwrap());
                let mut packet = fake::Packet::new(saddr, daddr, protocol, port);
                if saddr.is_ipv4() != daddr.is_ipv4() {
                    continue;
                }
                for (namespace, name, ip) in pods {
                    if ip == source {
                        packet.iif = testing::interface(namespace, name);
                    }
                    if ip == destination {
                        packet.oif = testing::interface(namespace, name);
                    }
                }
                if packet.iif == "eth0" && packet.oif == "eth0" {
                    continue;
                }
                let decision = model.evaluate(&Flow {
                    source: Party::Address(saddr),
                    destination: Party::Address(daddr),
                    protocol,
                    source_port: Some(40_000),
                    destination_port: (port != 0).then_some(port),
                    icmp: (port == 0).then_some((8, 0)),
                });
                // A pod of another node is not enforced here.
                let egress = packet.iif == "eth0" || decision.egress.allowed;
                let ingress = packet.oif == "eth0" || decision.ingress.allowed;
                let found = fake::passes(&table, Hook::Forward, None, &packet);
                assert_eq!(found, egress && ingress, "{packet:?}\n{decision}");
                asked += 1;
            }
        }
    }
    assert!(asked > 200, "{asked}");
}

#[test]
fn an_endpoint_without_its_pod_is_closed_and_not_ready() {
    let endpoint = testing::endpoint("shop", "db", "10.244.0.1");
    let (mut felix, mut table, flush) = engine([endpoint.clone()]);
    assert_eq!(flush.ready.len(), 0);
    assert_eq!(flush.not_ready.values().collect::<Vec<_>>(), [&NotReady::PodUnknown]);
    let key = Element::ifname(testing::interface("shop", "db"));
    assert_eq!(table.map_value(&rules::to_endpoint(), &key), Some(&Verdict::Drop.into()));
    felix.on_update(testing::pod("shop", "db", &json!({}), "10.244.0.1", &json!([])));
    let flush = felix.flush(&mut table);
    assert_eq!(flush.ready.len(), 1);
    assert_eq!(table.map_value(&rules::to_endpoint(), &key), Some(&Verdict::Accept.into()));
    // The pod was replaced by one of the same name that this sandbox is not of.
    let mut replaced = match testing::pod("shop", "db", &json!({}), "10.244.0.1", &json!([])) {
        Update::Pod(_, Some(pod)) => Arc::unwrap_or_clone(pod),
        other => panic!("{other:?}"),
    };
    replaced.metadata.uid = Some("new".to_owned());
    let Update::LocalEndpoint(id, Some(mut old)) = endpoint else { panic!("an endpoint") };
    old.pod_uid = Some("old".to_owned());
    felix.on_update(Update::LocalEndpoint(id.clone(), Some(old)));
    let pod = Some(Arc::new(replaced));
    felix.on_update(Update::Pod(Key::namespaced("shop", "db"), pod));
    let flush = felix.flush(&mut table);
    assert_eq!(flush.not_ready.get(&id), Some(&NotReady::PodUnknown));
    assert_eq!(table.map_value(&rules::to_endpoint(), &key), Some(&Verdict::Drop.into()));
}

#[test]
fn nothing_is_written_before_everything_is_known() {
    let mut felix = Felix::new(Config::new("node-1"));
    let mut table = Table::new("voile");
    for update in world() {
        felix.on_update(update);
    }
    let flush = felix.flush(&mut table);
    assert_eq!((flush.ready.len(), flush.not_ready.len()), (0, 4));
    assert_eq!(table.chains().count(), 0);
    assert_eq!(flush.routes, RouteChanges::default());
}

#[test]
fn forged_sources_are_dropped_and_neighbour_discovery_is_not() {
    let (_, table, _) = engine(world());
    let db = testing::interface("shop", "db");
    let from = |source: &str, destination: &str, protocol: u8| {
        let mut packet =
            fake::Packet::new(source.parse().unwrap(), destination.parse().unwrap(), protocol, 80);
        packet.iif.clone_from(&db);
        packet.icmp = (135, 0);
        fake::passes(&table, Hook::Prerouting, None, &packet)
    };
    assert!(from("10.244.0.1", "10.244.0.2", 6));
    assert!(!from("10.244.0.2", "10.244.0.3", 6));
    assert!(from("fe80::1", "fe80::ecee:eeff:feee:eeee", 58));
    assert!(!from("fe80::1", "fe80::ecee:eeff:feee:eeee", 17));
    assert!(!from("fd00::1", "fd00::2", 58));
}

#[test]
fn routes_follow_endpoints_and_confirmed_blocks() {
    let block = |name: &str, cidr: &str, state: &str, node: &str| {
        let (key, value) = testing::object::<api::BlockAffinity>(json!({
            "metadata": { "name": name },
            "spec": { "node": node, "cidr": cidr, "state": state, "deleted": false },
        }));
        Update::BlockAffinity(key, value)
    };
    let (_, _, flush) = engine([
        testing::endpoint("shop", "db", "10.244.0.1"),
        block("a", "10.244.0.0/26", "confirmed", "node-1"),
        block("b", "10.244.0.64/26", "pending", "node-1"),
        block("c", "10.244.0.128/26", "confirmed", "node-2"),
        block("d", "10.244.7.7/32", "confirmed", "node-1"),
    ]);
    let shown: Vec<String> = flush
        .routes
        .added
        .iter()
        .map(|route| format!("{} {:?}", route.prefix, route.target))
        .collect();
    assert_eq!(shown, ["10.244.0.0/26 Blackhole", "10.244.0.1/32 Device(\"calisho-db\")"]);
}

#[test]
fn a_bad_selector_closes_what_it_may_select_and_is_reported() {
    let (key, bad) = testing::object::<api::NetworkPolicy>(json!({
        "metadata": { "name": "typo", "namespace": "shop" },
        "spec": { "selector": "app = = 'x'", "types": ["Ingress"], "ingress": [{ "action": "Allow" }] },
    }));
    let updates = world().into_iter().chain([Update::NetworkPolicy(key, bad)]);
    let (felix, table, _) = engine(updates);
    assert_eq!(felix.problems().len(), 1, "{:?}", felix.problems());
    let mut packet =
        fake::Packet::new("198.18.0.1".parse().unwrap(), "10.244.0.2".parse().unwrap(), 6, 8080);
    packet.oif = testing::interface("shop", "api");
    assert!(!fake::passes(&table, Hook::Forward, None, &packet));
    packet.destination = "10.244.0.3".parse().unwrap();
    packet.oif = testing::interface("lab", "web");
    assert!(fake::passes(&table, Hook::Forward, None, &packet));
}

#[test]
fn a_bad_selector_of_the_cluster_closes_what_its_readable_part_selects_and_never_everything() {
    // (selector, namespaceSelector, whether shop/api is closed, whether lab/web is closed)
    const CASES: [(&str, &str, bool, bool); 8] = [
        ("app = = 'x'", "", false, false),
        ("app == 'api' && role = 'x'", "", true, false),
        ("app == 'api' || role = 'x'", "", false, false),
        ("app == 'api' && (role = 'x'", "", false, false),
        ("app == 'api", "", false, false),
        ("role = 'x'", "projectcalico.org/name == 'shop'", true, false),
        ("app == 'api'", "projectcalico.org/name = 'lab'", true, false),
        ("", "projectcalico.org/name = 'lab'", false, false),
    ];
    for (selector, namespaces, shop, lab) in CASES {
        let (key, bad) = testing::object::<api::GlobalNetworkPolicy>(json!({
            "metadata": { "name": "typo" },
            "spec": {
                "selector": selector, "namespaceSelector": namespaces,
                "types": ["Ingress"], "ingress": [{ "action": "Allow" }],
            },
        }));
        let labels = |name: &str| json!({ "projectcalico.org/name": name });
        let updates = [
            testing::namespace("shop", &labels("shop")),
            testing::namespace("lab", &labels("lab")),
            testing::pod("shop", "api", &json!({ "app": "api" }), "10.244.0.2", &json!([])),
            testing::endpoint("shop", "api", "10.244.0.2"),
            testing::pod("lab", "web", &json!({ "app": "web" }), "10.244.0.3", &json!([])),
            testing::endpoint("lab", "web", "10.244.0.3"),
            Update::GlobalNetworkPolicy(key, bad),
        ];
        let (felix, table, _) = engine(updates);
        let case = format!("selector {selector}, namespaceSelector {namespaces}");
        assert!(!felix.problems().is_empty(), "{case}");
        let closed = |namespace: &str, name: &str, address: &str| {
            let source = "198.18.0.1".parse().unwrap();
            let mut packet = fake::Packet::new(source, address.parse().unwrap(), 6, 8080);
            packet.oif = testing::interface(namespace, name);
            !fake::passes(&table, Hook::Forward, None, &packet)
        };
        assert_eq!(closed("shop", "api", "10.244.0.2"), shop, "shop/api with {case}");
        assert_eq!(closed("lab", "web", "10.244.0.3"), lab, "lab/web with {case}");
    }
}

fn seed_pods() -> Vec<Update> {
    let none = json!([]);
    vec![
        testing::namespace("default", &json!({})),
        testing::pod("default", "db-0", &json!({ "app": "database" }), "10.244.0.1", &none),
        testing::pod("default", "api-0", &json!({ "app": "backend" }), "10.244.0.2", &none),
        testing::endpoint("default", "db-0", "10.244.0.1"),
    ]
}

/// The rules and sets that are not the same for everyone.
fn shown(updates: impl IntoIterator<Item = Update>) -> String {
    let (_, table, _) = engine(seed_pods().into_iter().chain(updates));
    let mut own = Table::new("voile");
    for chain in table.chains().filter(|chain| chain.base.is_none()) {
        own.put_chain(chain.clone());
    }
    for set in table.sets().filter(|set| set.name.as_str().starts_with("pods-")) {
        own.put_set(set);
    }
    for map in table.maps() {
        own.put_map(map);
    }
    text::render(&own)
}

#[test]
fn default_deny_ingress_renders() {
    let deny = policy(json!({
        "metadata": { "name": "default-deny", "namespace": "default" },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress"] },
    }));
    expect_test::expect![[r#"
        table inet voile {
        	map from_endpoint {
        		type ifname : verdict
        		elements = { "calidef-db-0" : accept }
        	}

        	map to_endpoint {
        		type ifname : verdict
        		elements = { "calidef-db-0" : jump group-ingress-7c5cda83486b67eff24b }
        	}

        	chain group-ingress-7c5cda83486b67eff24b {
        		jump knp/default/default-deny/ingress comment "knp default/default-deny"
        		counter drop comment "end of tier default"
        	}

        	chain knp/default/default-deny/ingress {
        	}

        }
    "#]]
    .assert_eq(&shown([deny]));
}

#[test]
fn the_database_policy_renders() {
    let db = policy(json!({
        "metadata": { "name": "db-policy", "namespace": "default" },
        "spec": {
            "podSelector": { "matchLabels": { "app": "database" } },
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{ "podSelector": { "matchLabels": { "app": "backend" } } }],
                "ports": [{ "protocol": "TCP", "port": 5432 }],
            }],
        },
    }));
    expect_test::expect![[r#"
        table inet voile {
        	set pods-b3b55797d2fe8e3376f1-v4 {
        		type ipv4_addr
        		elements = { 10.244.0.2 }
        	}

        	map from_endpoint {
        		type ifname : verdict
        		elements = { "calidef-db-0" : accept }
        	}

        	map to_endpoint {
        		type ifname : verdict
        		elements = { "calidef-db-0" : jump group-ingress-bd337fa161090d5ae50d }
        	}

        	chain group-ingress-bd337fa161090d5ae50d {
        		jump knp/default/db-policy/ingress comment "knp default/db-policy"
        		counter drop comment "end of tier default"
        	}

        	chain knp/default/db-policy/ingress {
        		meta l4proto tcp ip saddr @pods-b3b55797d2fe8e3376f1-v4 th dport 5432 counter accept comment "knp default/db-policy ingress[0]"
        	}

        }
    "#]].assert_eq(&shown([db]));
}

#[test]
fn the_egress_policy_renders() {
    let egress = policy(json!({
        "metadata": { "name": "egress-policy", "namespace": "default" },
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{
                "to": [{ "ipBlock": { "cidr": "10.0.0.0/8" } }],
                "ports": [{ "protocol": "TCP", "port": 443 }],
            }],
        },
    }));
    expect_test::expect![[r#"
        table inet voile {
        	map from_endpoint {
        		type ifname : verdict
        		elements = { "calidef-db-0" : jump group-egress-5055517247d91ada9405 }
        	}

        	map to_endpoint {
        		type ifname : verdict
        		elements = { "calidef-db-0" : accept }
        	}

        	chain group-egress-5055517247d91ada9405 {
        		jump knp/default/egress-policy/egress comment "knp default/egress-policy"
        		counter drop comment "end of tier default"
        	}

        	chain knp/default/egress-policy/egress {
        		meta l4proto tcp ip daddr 10.0.0.0/8 th dport 443 counter accept comment "knp default/egress-policy egress[0]"
        	}

        }
    "#]].assert_eq(&shown([egress]));
}

#[test]
fn the_chains_the_kernel_calls_render() {
    let (_, table, _) = engine([]);
    expect_test::expect![[r#"
        table inet voile {
        	set hairpin {
        		type ifname . ifname
        	}

        	set own_addresses_v4 {
        		type ifname . ipv4_addr
        	}

        	set own_addresses_v6 {
        		type ifname . ipv6_addr
        	}

        	map from_endpoint {
        		type ifname : verdict
        	}

        	map to_endpoint {
        		type ifname : verdict
        	}

        	chain anti-spoofing {
        		type filter hook prerouting priority -300; policy accept;
        		iifname != "cali*" accept comment "not from a pod"
        		iifname . ip saddr @own_addresses_v4 accept comment "own v4 address"
        		iifname . ip6 saddr @own_addresses_v6 accept comment "own v6 address"
        		meta l4proto ipv6-icmp ip6 saddr { ::, fe80::-febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff } icmpv6 type { 131, 132, 133, 135, 136, 143 } accept comment "neighbour discovery"
        		ip saddr 0.0.0.0 meta l4proto udp th sport 68 th dport 67 accept comment "DHCP"
        		counter drop comment "source is not the pod's address"
        	}

        	chain forward-egress {
        		type filter hook forward priority 0; policy accept;
        		ct state vmap { established : accept, related : accept, invalid : drop }
        		iifname . oifname @hairpin accept comment "a pod always reaches itself"
        		iifname vmap @from_endpoint
        		iifname "cali*" counter drop comment "endpoint is not known yet"
        	}

        	chain forward-ingress {
        		type filter hook forward priority 1; policy accept;
        		ct state vmap { established : accept, related : accept, invalid : drop }
        		iifname . oifname @hairpin accept comment "a pod always reaches itself"
        		oifname vmap @to_endpoint
        		oifname "cali*" counter drop comment "endpoint is not known yet"
        	}

        	chain input {
        		type filter hook input priority 0; policy accept;
        		iifname != "cali*" accept comment "not from a pod"
        		ct state vmap { established : accept, related : accept, invalid : drop }
        		meta l4proto ipv6-icmp icmpv6 type { 131, 132, 133, 135, 136, 143 } accept comment "neighbour discovery"
        		meta nfproto ipv4 meta l4proto udp th sport 68 th dport 67 accept comment "DHCP"
        		iifname vmap @from_endpoint
        		counter drop comment "endpoint is not known yet"
        	}

        }
    "#]].assert_eq(&text::render(&table));
}

/// A packet that entered a base chain before a transaction may find an endpoint's new chain in the map, and that chain is
/// empty for it: the kernel takes rules by the generation in which the packet came, and elements by the present one.
#[test]
fn a_chain_that_is_still_empty_lets_nothing_through() {
    let deny = policy(json!({
        "metadata": { "name": "default-deny", "namespace": "default" },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"] },
    }));
    let (_, mut table, _) = engine(seed_pods().into_iter().chain([deny]));
    let names: Vec<ChainName> = table
        .chains()
        .filter(|chain| chain.base.is_none())
        .map(|chain| chain.name.clone())
        .collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let _ = table.put_chain(Chain::new(name, Vec::new()));
    }
    let (pod, stranger) = ("10.244.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
    let interface = || "calidef-db-0".to_owned();
    let to = fake::Packet { oif: interface(), ..fake::Packet::new(stranger, pod, 17, 53) };
    let from = fake::Packet { iif: interface(), ..fake::Packet::new(pod, stranger, 17, 53) };
    for (hook, packet) in [(Hook::Forward, &to), (Hook::Forward, &from), (Hook::Input, &from)] {
        assert!(!fake::passes(&table, hook, None, packet), "{hook:?} {packet:?}");
    }
}
