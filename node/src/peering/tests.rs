//! Peerings as operators describe them.

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

fn node(name: &str, index: u8, labels: serde_json::Value, extra: serde_json::Value) -> Node {
    let mut annotations = json!({
        "projectcalico.org/IPv4Address": format!("10.0.0.{index}/24"),
        "projectcalico.org/IPv6Address": format!("fd00::{index}/64"),
    });
    for (key, value) in extra.as_object().unwrap() {
        annotations[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {},
    }))
    .unwrap()
}

fn view(configuration: serde_json::Value, peers: &[(&str, serde_json::Value)]) -> BgpView {
    let nodes = [
        node("n1", 9, json!({"rack": "a"}), json!({})),
        node("n2", 10, json!({"rack": "b"}), json!({"projectcalico.org/ASNumber": "65010"})),
        node(
            "rr",
            20,
            json!({"role": "rr"}),
            json!({"projectcalico.org/RouteReflectorClusterID": "224.0.0.1"}),
        ),
    ];
    let peer = |(name, spec): &(&str, serde_json::Value)| {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        ((*name).to_owned(), serde_json::from_value(object).unwrap())
    };
    BgpView {
        default: Some(serde_json::from_value(configuration).unwrap()),
        peers: peers.iter().map(peer).collect(),
        nodes: nodes.into_iter().map(|node| (node.metadata.name.clone(), node)).collect(),
        passwords: BTreeMap::from([("bgp/tor".to_owned(), "s3cret".to_owned())]),
        ..BgpView::default()
    }
}

fn check(view: &BgpView, node: &str, expected: Expect) {
    let (peerings, problems) = peerings(view, node);
    let mut text = String::new();
    for p in peerings {
        let mut flags = String::new();
        for (set, flag) in [
            (p.passive, " passive"),
            (p.password.is_some(), " md5"),
            (p.route_reflector_client, " rr-client"),
            (p.next_hop_self, " next-hop-self"),
        ] {
            flags.push_str(if set { flag } else { "" });
        }
        let mut source = p.source.map(|source| format!(" from {source}")).unwrap_or_default();
        if let Some(gateway) = p.reachable_by {
            source.push_str(&format!(" by {gateway}"));
        }
        text.push_str(&format!(
            "{} {}:{} AS{} as AS{}{source}{flags}\n",
            p.name, p.address, p.port, p.peer_as, p.local_as
        ));
    }
    for problem in problems {
        text.push_str(&format!("! {problem}\n"));
    }
    expected.assert_eq(&text);
}

#[test]
fn the_mesh_joins_nodes_that_do_not_reflect_and_strings_decide_who_waits() {
    // "10.0.0.9" is greater than "10.0.0.10" as a string: n1 connects, n2 waits.
    check(
        &view(json!({}), &[]),
        "n1",
        expect![[r#"
            n2 10.0.0.10:179 AS65010 as AS64512 from 10.0.0.9
            n2/ipv6 fd00::10:179 AS65010 as AS64512 from fd00::9
        "#]],
    );
}

#[test]
fn a_node_peers_with_its_leaf_only_when_the_mesh_is_off() {
    let leaf = json!({"node": "n1", "peerIP": "10.1.1.1", "asNumber": 65101, "password": {"secretKeyRef": {"name": "bgp", "key": "tor"}}});
    let view = view(json!({"nodeToNodeMeshEnabled": false, "asNumber": 64600}), &[("leaf1", leaf)]);
    check(
        &view,
        "n1",
        expect![[r#"
            leaf1 10.1.1.1:179 AS65101 as AS64600 from 10.0.0.9 md5
        "#]],
    );
    check(&view, "n2", expect![""]);
}

#[test]
fn selector_peerings_have_two_ends() {
    let reflector = json!({"nodeSelector": "!has(role)", "peerSelector": "role == 'rr'"});
    let view = view(json!({"nodeToNodeMeshEnabled": false}), &[("to-rr", reflector)]);
    check(
        &view,
        "n1",
        expect![[r#"
            to-rr/rr 10.0.0.20:179 AS64512 as AS64512 from 10.0.0.9
            to-rr/rr/ipv6 fd00::20:179 AS64512 as AS64512 from fd00::9
        "#]],
    );
    check(
        &view,
        "rr",
        expect![[r#"
            to-rr/n1 10.0.0.9:179 AS64512 as AS64512 from 10.0.0.20 rr-client
            to-rr/n1/ipv6 fd00::9:179 AS64512 as AS64512 from fd00::20 rr-client
            to-rr/n2 10.0.0.10:179 AS65010 as AS64512 from 10.0.0.20
            to-rr/n2/ipv6 fd00::10:179 AS65010 as AS64512 from fd00::20
        "#]],
    );
}

#[test]
fn nonsense_is_reported_and_costs_only_itself() {
    let peers = [
        ("a-good", json!({"peerIP": "10.1.1.1:1790", "asNumber": 65101})),
        ("b-again", json!({"peerIP": "10.1.1.1", "asNumber": 65102})),
        ("c-no-as", json!({"peerIP": "10.1.1.2"})),
        ("d-selector", json!({"nodeSelector": "rack ==", "peerIP": "10.1.1.3", "asNumber": 1})),
        ("e-address", json!({"peerIP": "leaf1", "asNumber": 1})),
        (
            "f-secret",
            json!({"peerIP": "10.1.1.4", "asNumber": 1, "password": {"secretKeyRef": {"name": "no", "key": "k"}}}),
        ),
    ];
    check(
        &view(json!({"nodeToNodeMeshEnabled": false}), &peers),
        "n1",
        expect![[r#"
            a-good 10.1.1.1:1790 AS65101 as AS64512 from 10.0.0.9
            ! BGPPeer b-again: 10.1.1.1 is a peer already by BGPPeer a-good
            ! BGPPeer c-no-as: asNumber must be given with peerIP
            ! BGPPeer d-selector: nodeSelector 'rack ==': expected a value in quotes, such as 'web' at position 7
            ! BGPPeer e-address: peerIP 'leaf1' is no address; write 10.0.0.1, 10.0.0.1:1790 or [2001:db8::1]:1790
            ! BGPPeer f-secret: password: secret no has no key k, or cannot be read
        "#]],
    );
}

#[test]
fn a_router_behind_a_gateway_is_reached_from_the_nodes_address_unless_the_peer_says_otherwise() {
    let peers = [
        ("a", json!({"peerIP": "10.9.0.1", "asNumber": 65101, "reachableBy": "10.0.0.254"})),
        ("b", json!({"peerIP": "10.9.0.2", "asNumber": 65101, "sourceAddress": "None"})),
        ("c", json!({"peerIP": "fd09::1", "asNumber": 65101, "sourceAddress": "UseNodeIP"})),
        ("d", json!({"peerIP": "10.9.0.4", "asNumber": 65101, "reachableBy": "fd00::1"})),
        ("e", json!({"peerIP": "10.9.0.5", "asNumber": 65101, "reachableBy": "10.9.0.5"})),
        ("f", json!({"peerIP": "10.9.0.6", "asNumber": 65101, "reachableBy": "leaf"})),
    ];
    check(
        &view(json!({"nodeToNodeMeshEnabled": false}), &peers),
        "n1",
        expect![[r#"
            a 10.9.0.1:179 AS65101 as AS64512 from 10.0.0.9 by 10.0.0.254
            b 10.9.0.2:179 AS65101 as AS64512
            c fd09::1:179 AS65101 as AS64512 from fd00::9
            ! BGPPeer d: reachableBy fd00::1 is of another family than peerIP 10.9.0.4
            ! BGPPeer e: reachableBy 10.9.0.5 is the peer itself; name the router before it
            ! BGPPeer f: reachableBy 'leaf' is no address; write one like 10.0.0.1
        "#]],
    );
}

/// RFC 7999 §4: nothing is dropped unless an operator said so for this very peer.
#[test]
fn blackholes_are_agreed_by_an_annotation() {
    let tor = json!({"peerIP": "10.1.1.1", "asNumber": 65101});
    let agreed = |text: Option<&str>| {
        let mut view = view(json!({}), &[("tor", tor.clone())]);
        let annotations = &mut view.peers.get_mut("tor").unwrap().metadata.annotations;
        annotations.extend(text.map(|text| ("voile.dev/blackhole".to_owned(), text.to_owned())));
        let (list, problems) = peerings(&view, "n1");
        let mesh = list.iter().filter(|peering| peering.origin == Origin::Mesh);
        assert!(mesh.clone().count() > 0);
        assert!(mesh.clone().all(|peering| peering.blackhole == Blackhole::None));
        let tor = list.iter().find(|peering| peering.resource.as_deref() == Some("tor"));
        tor.map(|tor| tor.blackhole.clone())
            .ok_or_else(|| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    let within = |networks: &[&str]| {
        Blackhole::Within(networks.iter().map(|text| text.parse().unwrap()).collect())
    };
    assert_eq!(agreed(None), Ok(Blackhole::None));
    assert_eq!(agreed(Some("false")), Ok(Blackhole::None));
    assert_eq!(agreed(Some("true")), Ok(Blackhole::Accepted));
    let list = "203.0.113.0/24, 2001:db8::/32";
    assert_eq!(agreed(Some(list)), Ok(within(&["203.0.113.0/24", "2001:db8::/32"])));
    let problem = agreed(Some("all")).unwrap_err();
    let expected = "BGPPeer tor: annotation voile.dev/blackhole: 'all' is no prefix";
    assert!(problem.starts_with(expected) && problem.contains("write true"), "{problem}");
}

/// Metrics, logs and `voilectl bgp` know a session by this; two must not have one name.
#[test]
fn a_bgppeer_with_the_name_of_a_node_keeps_it() {
    let tor = json!({"peerIP": "10.1.1.1", "asNumber": 65101});
    check(
        &view(json!({}), &[("n2", tor)]),
        "n1",
        expect![[r#"
        n2 10.1.1.1:179 AS65101 as AS64512 from 10.0.0.9
        n2/ipv6 fd00::10:179 AS65010 as AS64512 from fd00::9
        n2@10.0.0.10 10.0.0.10:179 AS65010 as AS64512 from 10.0.0.9
    "#]],
    );
}
