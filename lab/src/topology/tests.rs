use std::path::Path;

use expect_test::{Expect, expect};

use super::*;

const GOOD: &str = r#"
name: small
topology:
  defaults:
    kind: linux
    labels: {owner: me, rack: none}
    exec: ["ip link set lo up"]
  kinds:
    linux:
      env: {A: kind, B: kind}
  groups:
    leaves:
      image: registry.example/voile-bgpd:1
      env: {B: group}
  nodes:
    leaf:
      group: leaves
      labels: {rack: r1}
    n1:
      image: voile-node
      env: {A: 7}
      exec: ["ip addr add 192.0.2.1/24 dev eth1"]
      mgmt-ipv4: 172.20.20.2
    old: {image: "quay.io/frrouting/frr:10.1", kind: linux}
    b: {kind: bird}
    sw: {kind: bridge}
    box: {cmd: "sh -c 'sleep 9'", entrypoint: env}
  links:
    - endpoints: ["leaf:eth1", "n1:eth1"]
    - type: veth
      mtu: 9000
      endpoints:
        - {node: leaf, interface: eth2, mac: "02:00:00:00:00:01", ipv4: 192.0.2.9/31}
        - node: b
          interface: eth1
          ipv6: 2001:db8::1/64
"#;

#[test]
fn inherits_and_finds_roles() {
    let topology = Topology::parse(GOOD, Path::new("small.clab.yml")).unwrap();
    let mut out = format!("{}\n", topology.name);
    for node in &topology.nodes {
        out += &format!(
            "{} line {}: {:?} env {:?} labels {:?} exec {:?} command {:?}\n",
            node.name, node.line, node.role, node.env, node.labels, node.exec, node.command
        );
    }
    for Link { a, b, mtu, line } in &topology.links {
        out += &format!(
            "line {line}: {}:{} {:?} {:?} - {}:{} {:?} mtu {mtu:?}\n",
            a.node, a.interface, a.mac, a.ipv4, b.node, b.interface, b.ipv6
        );
    }
    expect![[r#"
        small
        leaf line 16: Router(Voile) env {"A": "kind", "B": "group"} labels {"owner": "me", "rack": "r1"} exec ["ip link set lo up"] command []
        n1 line 19: Kubernetes env {"A": "7", "B": "kind"} labels {"owner": "me", "rack": "none"} exec ["ip link set lo up", "ip addr add 192.0.2.1/24 dev eth1"] command []
        old line 24: Router(Frr) env {"A": "kind", "B": "kind"} labels {"owner": "me", "rack": "none"} exec ["ip link set lo up"] command []
        b line 25: Router(Bird) env {} labels {"owner": "me", "rack": "none"} exec ["ip link set lo up"] command []
        sw line 26: Bridge env {} labels {"owner": "me", "rack": "none"} exec ["ip link set lo up"] command []
        box line 27: Host env {"A": "kind", "B": "kind"} labels {"owner": "me", "rack": "none"} exec ["ip link set lo up"] command ["env", "sh", "-c", "sleep 9"]
        line 29: leaf:eth1 None None - n1:eth1 None mtu None
        line 30: leaf:eth2 Some(02:00:00:00:00:01) Some(192.0.2.9/31) - b:eth1 Some(2001:db8::1/64) mtu Some(9000)
    "#]].assert_eq(&out);
}

fn error(text: &str, expected: &Expect) {
    let error = Topology::parse(text, Path::new("x.clab.yml")).unwrap_err();
    expected.assert_eq(&error.to_string());
}

fn nodes(nodes: &str) -> String {
    format!("name: x\ntopology:\n  nodes:\n{nodes}")
}

fn links(links: &str) -> String {
    nodes(&format!("    n1: {{kind: linux}}\n    leaf1: {{kind: linux}}\n  links:\n{links}"))
}

#[test]
fn every_mistake_names_its_line() {
    error("", &expect!["x.clab.yml:1: the file is empty; it needs `name:` and `topology:`"]);
    error(
        "name: [",
        &expect![
            "x.clab.yml:2: not YAML: while parsing a node, did not find expected node content; check indentation, colons and quotes there"
        ],
    );
    error(
        "name: x\n---\nname: y\n",
        &expect!["x.clab.yml:2: a second YAML document begins here; keep one topology in a file"],
    );
    error(
        "name: x\n",
        &expect![[r#"x.clab.yml:1: topology file: "topology" is missing; add `topology:`"#]],
    );
    error(
        "topology: {}\n",
        &expect![[r#"x.clab.yml:1: topology file: "name" is missing; add `name:`"#]],
    );
    error(
        "nam: x\n",
        &expect![[r#"x.clab.yml:1: topology file: unknown key "nam"; did you mean "name"?"#]],
    );
    error(
        "name: Big Lab\ntopology: {nodes: {n1: {kind: linux}}}\n",
        &expect![[
            r#"x.clab.yml:1: name "Big Lab" is not a usable name; use 1 to 40 lower-case letters, digits and dashes, with a letter or digit at both ends"#
        ]],
    );
    error(
        "name: x\ntopology:\n  nodes:\n",
        &expect!["x.clab.yml:3: topology has no nodes; list them under `nodes:`"],
    );
    error(
        "name: x\ntopology:\n  nodez: {}\n",
        &expect![[r#"x.clab.yml:3: topology: unknown key "nodez"; did you mean "nodes"?"#]],
    );
}

#[test]
fn every_bad_node_names_its_line() {
    error(
        &nodes("    n1: {kind: linux}\n    n1: {kind: linux}\n"),
        &expect![[r#"x.clab.yml:5: key "n1" is given twice, first in line 4; delete one of them"#]],
    );
    error(
        &nodes("    N1: {kind: linux}\n"),
        &expect![[
            r#"x.clab.yml:4: node name "N1" is not a usable name; use 1 to 40 lower-case letters, digits and dashes, with a letter or digit at both ends"#
        ]],
    );
    error(
        &nodes("    n1: {}\n"),
        &expect![[
            r#"x.clab.yml:4: node "n1" has no kind; add `kind: linux` to it or to `defaults:`"#
        ]],
    );
    error(
        &nodes("    n1:\n      kind: linus\n"),
        &expect![[r#"x.clab.yml:5: node "n1": unknown kind "linus"; did you mean "linux"?"#]],
    );
    error(
        &nodes("    n1:\n      kind: nokia_srlinux\n"),
        &expect![[
            r#"x.clab.yml:5: node "n1": unknown kind "nokia_srlinux"; a lab of namespaces has the kinds linux, bird, frr, voile, bridge"#
        ]],
    );
    error(
        &nodes("    n1:\n      kind: linux\n      imgae: x\n"),
        &expect![[r#"x.clab.yml:6: node "n1": unknown key "imgae"; did you mean "image"?"#]],
    );
    error(
        &nodes("    n1:\n      kind: linux\n      whatever: x\n"),
        &expect![[
            r#"x.clab.yml:6: node "n1": unknown key "whatever"; known keys: SANs, aliases, auto-remove, binds, cap-add, certificate, cmd, components, config, cpu, cpu-set, credentials, devices, dns, enforce-startup-config, entrypoint, env, env-files, exec, extras, group, healthcheck, image, image-pull-policy, kind, labels, license, memory, mgmt-ipv4, mgmt-ipv6, mgmt_ipv4, mgmt_ipv6, network-mode, ports, position, privileged, publish, restart-policy, runtime, shm-size, stages, startup-config, startup-delay, suppress-startup-config, sysctls, tmpfs, type, user, wait-for"#
        ]],
    );
    error(
        &nodes("    n1:\n      kind: linux\n      exec: ip link\n"),
        &expect![[
            r#"x.clab.yml:6: node "n1": exec must be a list (`- item` lines), but is a scalar"#
        ]],
    );
    error(
        &nodes("    n1:\n      kind: linux\n      privileged: maybe\n"),
        &expect![[r#"x.clab.yml:6: node "n1": privileged must be true or false, but is a scalar"#]],
    );
    error(
        &nodes("    n1:\n      kind: linux\n      env: {A: [1]}\n"),
        &expect![[r#"x.clab.yml:6: node "n1": env.A must be a text or a number, but is a list"#]],
    );
    error(
        &nodes("    n1:\n      kind: linux\n      binds:\n        - nowhere.toml:/x\n"),
        &expect![[
            r#"x.clab.yml:7: node "n1": bind source nowhere.toml does not exist; paths are relative to the topology file"#
        ]],
    );
    error(
        &nodes("    n1:\n      kind: linux\n      binds: [nowhere]\n"),
        &expect![[
            r#"x.clab.yml:6: node "n1": bind "nowhere" has no destination; write SOURCE:DESTINATION or SOURCE:DESTINATION:ro"#
        ]],
    );
    error(
        &nodes("    n1:\n      kind: linux\n      labels:\n        voile.dev/role: nod\n"),
        &expect![[
            r#"x.clab.yml:7: node "n1": label voile.dev/role has the unknown value "nod"; use node, host, router, leaf, spine, tor"#
        ]],
    );
    error(
        &nodes("    n1: *nothing\n"),
        &expect![
            "x.clab.yml:4: not YAML: while parsing node, found unknown anchor; check indentation, colons and quotes there"
        ],
    );
}

#[test]
fn every_bad_link_names_its_line() {
    error(
        &links("    - endpoints: [\"n1:eth1\", \"lef1:eth1\"]\n"),
        &expect![[r#"x.clab.yml:7: link to "lef1", which is no node; did you mean "leaf1"?"#]],
    );
    error(
        &links("    - endpoints: [\"n1:eth1\", \"tor:eth1\"]\n"),
        &expect![[r#"x.clab.yml:7: link to "tor", which is no node; nodes are leaf1, n1"#]],
    );
    error(
        &links(
            "    - endpoints: [\"n1:eth1\", \"leaf1:eth1\"]\n    - endpoints: [\"n1:eth1\", \"leaf1:eth2\"]\n",
        ),
        &expect![
            "x.clab.yml:8: interface n1:eth1 has a link already, in line 7; give each link an interface of its own"
        ],
    );
    error(
        &links("    - endpoints: [\"n1:eth1\", \"n1:eth1\"]\n"),
        &expect![
            "x.clab.yml:7: interface n1:eth1 has a link already, in line 7; give each link an interface of its own"
        ],
    );
    error(
        &links("    - endpoints: [\"n1:eth0\", \"leaf1:eth1\"]\n"),
        &expect![
            "x.clab.yml:7: n1:eth0 is taken; eth0 is containerlab's management network; begin with eth1"
        ],
    );
    error(
        &links("    - endpoints: [\"n1:anamethatistoolong\", \"leaf1:eth1\"]\n"),
        &expect![
            "x.clab.yml:7: n1:anamethatistoolong is not an interface name; Linux takes 1 to 15 characters without / : and spaces"
        ],
    );
    error(
        &links("    - endpoints: [\"n1\", \"leaf1:eth1\"]\n"),
        &expect![[r#"x.clab.yml:7: endpoint "n1" has no interface; write NODE:INTERFACE"#]],
    );
    error(
        &links("    - endpoints: [\"n1:eth1\"]\n"),
        &expect![[
            r#"x.clab.yml:7: a link needs two endpoints; write endpoints: ["n1:eth1", "n2:eth1"]"#
        ]],
    );
    error(
        &links("    - endpoint: [\"n1:eth1\"]\n"),
        &expect![[r#"x.clab.yml:7: link: unknown key "endpoint"; did you mean "endpoints"?"#]],
    );
    error(
        &links("    - type: macvlan\n      endpoints: [\"n1:eth1\", \"leaf1:eth1\"]\n"),
        &expect![[
            r#"x.clab.yml:7: link type "macvlan" needs a host network; a lab of namespaces has links of type veth"#
        ]],
    );
    error(
        &links("    - mtu: big\n      endpoints: [\"n1:eth1\", \"leaf1:eth1\"]\n"),
        &expect!["x.clab.yml:7: link: mtu must be a whole number, but is a scalar"],
    );
    error(
        &links(
            "    - endpoints:\n        - {node: n1, interface: eth1, ipv4: 1.2.3}\n        - {node: leaf1, interface: eth1}\n",
        ),
        &expect![[
            r#"x.clab.yml:8: endpoint: ipv4 "1.2.3" can't be read; write an address like 192.0.2.1/24"#
        ]],
    );
}

#[test]
fn words_respect_quotes() {
    assert_eq!(words("sh -c 'a  b' \"\" x"), ["sh", "-c", "a  b", "", "x"]);
}
