use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{check, check_among};

fn findings(kind: &str, spec: Value, expected: Expect) {
    let object = json!({"metadata": {"name": "x"}, "spec": spec});
    let text: Vec<String> = check(kind, &object).iter().map(ToString::to_string).collect();
    expected.assert_eq(&text.join("\n"));
}

#[test]
fn good_objects_have_no_findings() {
    let good = [
        ("IPPool", json!({"cidr": "10.244.0.0/16"})),
        ("IPPool", json!({"cidr": "fd00::/64", "blockSize": 122, "natOutgoing": true})),
        ("BGPPeer", json!({"peerIP": "192.0.2.1", "asNumber": 4_200_000_001_u32})),
        ("BGPPeer", json!({"peerSelector": "has(rr)", "nodeSelector": "all()"})),
        (
            "NetworkPolicy",
            json!({"ingress": [{"action": "Allow", "protocol": "TCP", "source": {"selector": "a == 'b'"}, "destination": {"ports": [80, "8000:9000", "http"]}}]}),
        ),
        (
            "GlobalNetworkPolicy",
            json!({"ingress": [{"action": "Deny", "source": {"namespaceSelector": "global()"}}]}),
        ),
        ("FelixConfiguration", json!({"natOutgoingAddress": "192.0.2.1", "bpfEnabled": false})),
        ("StagedKubernetesNetworkPolicy", json!({"podSelector": {}, "stagedAction": "Set"})),
        ("ClusterInformation", json!({"datastoreReady": true})),
    ];
    for (kind, spec) in good {
        findings(kind, spec, expect![""]);
    }
}

#[test]
fn pools() {
    findings("IPPool", json!({}), expect!["spec.cidr: is missing: add it"]);
    findings(
        "IPPool",
        json!({"cidr": "banana"}),
        expect![
            "spec.cidr: `banana` is no CIDR: write an address and a prefix length, such as 10.244.0.0/16"
        ],
    );
    findings(
        "IPPool",
        json!({"cidr": "10.244.0.1/16"}),
        expect!["spec.cidr: `10.244.0.1/16` has host bits set: write 10.244.0.0/16"],
    );
    findings(
        "IPPool",
        json!({"cidr": "10.0.0.0/28"}),
        expect![
            "spec.blockSize: the pool is smaller than one block of /26: shorten the prefix of cidr or set a blockSize of at least 28"
        ],
    );
    findings(
        "IPPool",
        json!({"cidr": "10.0.0.0/8", "blockSize": 33}),
        expect!["spec.blockSize: must be from 20 to 32 for this cidr"],
    );
    findings(
        "IPPool",
        json!({"cidr": "10.0.0.0/8", "ipipMode": "Sometimes"}),
        expect!["spec.ipipMode: must be one of Never, Always, CrossSubnet"],
    );
    findings(
        "IPPool",
        json!({"cidr": "10.0.0.0/8", "ipipMode": "Always", "vxlanMode": "CrossSubnet", "nodeSelector": "has("}),
        expect![[r#"
            spec.vxlanMode: excludes ipipMode: set one of them to Never
            spec.nodeSelector: expected a label, all(), has(label), '!' or '(', found the end at position 0"#]],
    );
}

#[test]
fn peers() {
    findings(
        "BGPPeer",
        json!({}),
        expect!["spec.peerIP: is missing: give peerIP, peerSelector or localWorkloadSelector"],
    );
    findings(
        "BGPPeer",
        json!({"peerIP": "192.0.2.300", "node": "a", "nodeSelector": "all()"}),
        expect![[r#"
        spec.nodeSelector: excludes node: remove one
        spec.peerIP: is no address: write 192.0.2.1, 192.0.2.1:179 or [2001:db8::1]:179
        spec.asNumber: is missing: give the AS number of the peer"#]],
    );
}

#[test]
fn rules() {
    findings(
        "NetworkPolicy",
        json!({"ingress": [{"action": "Allow", "destination": {"ports": ["9000:80", 70000, 80], "services": {"name": "x"}}}, {"protocol": "TPC"}]}),
        expect!["spec.ingress[1].action: is missing: add it"],
    );
    findings(
        "NetworkPolicy",
        json!({"ingress": [{"action": "Allow", "destination": {"ports": ["9000:80", 70000, 80]}, "source": {"nets": ["10.0.0.0/8", "x"]}}, {"action": "Log", "protocol": "TPC"}]}),
        expect![[r#"
        spec.ingress[0].source.nets[1]: `x` is no CIDR: write an address and a prefix length, such as 10.244.0.0/16
        spec.ingress[0].destination.ports[0]: port range `9000:80` ends before it begins: swap the two numbers
        spec.ingress[0].destination.ports[1]: port 70000 is outside 0..65535: give a port number, a range such as `8000:8080`, or a port name
        spec.ingress[0].destination.ports: needs a protocol that has ports: set protocol to TCP, UDP or SCTP
        spec.ingress[1].protocol: is no protocol: write TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number from 1 to 255"#]],
    );
    findings(
        "GlobalNetworkPolicy",
        json!({"preDNAT": true, "egress": [{"action": "Allow"}], "selector": "global()"}),
        expect![[r#"
        spec.selector: global() is for the namespaceSelector of a rule only: remove it
        spec.preDNAT: is for ingress only: remove egress and the type Egress
        spec.preDNAT: needs applyOnForward: true"#]],
    );
}

#[test]
fn kubernetes_policies_are_known_by_their_group() {
    let object = json!({"apiVersion": "networking.k8s.io/v1", "metadata": {"name": "x"}, "spec": {"podSelector": {}, "ingress": [
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}, {}], "ports": [{"port": "http", "endPort": 90}]}]}});
    let text: Vec<String> =
        check("NetworkPolicy", &object).iter().map(ToString::to_string).collect();
    expect![[r#"
        spec.ingress[0].ports[0].endPort: must be at least port, which must then be a number, and at most 65535
        spec.ingress[0].from[0].ipBlock.except[0]: must lie inside 10.0.0.0/8
        spec.ingress[0].from[1]: must have podSelector, namespaceSelector or ipBlock"#]]
    .assert_eq(&text.join("\n"));
}

#[test]
fn sequence_numbers_keep_all_their_bits() {
    let text = json!({"metadata": {"name": "10-0-0-0-31"}, "spec": {
        "cidr": "10.0.0.0/31", "allocations": [null, 0], "unallocated": [0], "attributes": [{"handle_id": "h"}],
        "sequenceNumber": 1_790_000_000_000_000_001_u64, "sequenceNumberForAllocation": {"1": 1_790_000_000_000_000_000_u64},
        "deleted": false, "strictAffinity": false}});
    assert!(check("IPAMBlock", &text).is_empty());
    let block: crate::IpamBlock = serde_json::from_value(text).unwrap();
    let written = serde_json::to_string(&block.spec).unwrap();
    expect![[r#"{"cidr":"10.0.0.0/31","allocations":[null,0],"unallocated":[0],"attributes":[{"handle_id":"h"}],"sequenceNumber":1790000000000000001,"sequenceNumberForAllocation":{"1":1790000000000000000},"deleted":false,"strictAffinity":false}"#]]
    .assert_eq(&written);
}

const KINDS: [&str; 12] = [
    "IPPool",
    "IPReservation",
    "IPAMBlock",
    "IPAMHandle",
    "BGPPeer",
    "BGPFilter",
    "BGPConfiguration",
    "FelixConfiguration",
    "NetworkPolicy",
    "GlobalNetworkPolicy",
    "HostEndpoint",
    "Tier",
];
const FIELDS: [&str; 24] = [
    "cidr",
    "blockSize",
    "nodeSelector",
    "allocations",
    "unallocated",
    "attributes",
    "strictAffinity",
    "block",
    "handleID",
    "peerIP",
    "asNumber",
    "importV4",
    "action",
    "prefixLength",
    "min",
    "ingress",
    "egress",
    "source",
    "nets",
    "ports",
    "protocol",
    "selector",
    "order",
    "icmp",
];

#[test]
fn labels_that_cannot_exist_select_nothing_and_are_refused() {
    let of = |labels: Value| -> Vec<String> {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
            "spec": {"podSelector": {"matchLabels": labels}},
        });
        check("NetworkPolicy", &object).iter().map(|error| error.field.clone()).collect()
    };
    assert_eq!(of(json!({"app": "web", "example.org/tier": "", "a_b.c": "1"})), [""; 0]);
    assert_eq!(of(json!({"a b": "c"})), ["spec.podSelector.matchLabels"]);
    assert_eq!(of(json!({"/x": "c"})), ["spec.podSelector.matchLabels"]);
    assert_eq!(of(json!({"app": "-web"})), ["spec.podSelector.matchLabels.app"]);
}

#[test]
fn pools_may_not_share_addresses() {
    let pool = |name: &str, cidr: &str| json!({"metadata": {"name": name}, "spec": {"cidr": cidr}});
    let others = [pool("a", "10.0.0.0/16"), pool("b", "fd00::/64"), pool("c", "10.1.0.0/16")];
    let of = |object: &Value| -> Vec<String> {
        check_among("IPPool", object, others.iter()).iter().map(ToString::to_string).collect()
    };
    let message = "spec.cidr: overlaps 10.0.0.0/16 of pool a: choose another range";
    assert_eq!(of(&pool("d", "10.0.255.0/24")), [message]);
    assert_eq!(of(&pool("d", "10.0.0.0/15")).len(), 2, "a larger one overlaps both");
    assert_eq!(of(&pool("d", "10.2.0.0/16")), [""; 0]);
    assert_eq!(of(&pool("a", "10.0.0.0/20")), [""; 0], "itself does not count");
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        prop_oneof![
            Just("10.0.0.0/8"),
            Just("::/0"),
            Just("all()"),
            Just("Allow"),
            Just("80:90"),
            Just("0.0.0.0/0")
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(proptest::sample::select(&FIELDS[..]), inner, 0..6)
                .prop_map(|map| map
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_panics(kind in proptest::sample::select(&KINDS[..]), spec in any_value()) {
        let _ = check(kind, &json!({"metadata": {"name": "x"}, "spec": spec}));
        let _ = check(kind, &spec);
    }
}
