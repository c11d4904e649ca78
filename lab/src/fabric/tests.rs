use expect_test::expect;

use super::*;

#[test]
fn understands_the_lines_that_topologies_use() {
    let lines = [
        "ip addr add 172.20.1.11/24 dev eth1",
        "ip -6 address add fd00:20:1::11/64 dev eth1 nodad",
        "ip a add 192.0.2.1 dev lo",
        "/sbin/ip link set dev eth1 up",
        "ip link set eth1 mtu 9000 master br0",
        "ip link add name br0 type bridge",
        "ip link add d0 type dummy",
        "ip route add default via 172.20.1.1",
        "ip -6 route add default via fd00:20:1::1 dev eth1",
        "ip route replace 10.0.0.0/8 via 172.20.1.1 dev eth1 metric 5",
        "ip route add blackhole 10.244.0.0/16",
        "ip route add 10.1.0.0/16 table 5 via 172.20.1.1",
        "ip link add vx0 type vxlan id 5",
        "ip rule add from 10.0.0.0/8 lookup 5",
        "sysctl -w net.ipv4.ip_forward=1",
    ];
    let mut out = String::new();
    for line in lines {
        let step = translate(&crate::topology::words(line));
        out += &match step {
            Some(Step::Route { route, replace }) => {
                format!("{line}: route {route} replace {replace}\n")
            }
            Some(step) => format!("{line}: {step:?}\n"),
            None => format!("{line}: executed\n"),
        };
    }
    expect![[r#"
        ip addr add 172.20.1.11/24 dev eth1: Address { prefix: 172.20.1.11/24, interface: "eth1" }
        ip -6 address add fd00:20:1::11/64 dev eth1 nodad: Address { prefix: fd00:20:1::11/64, interface: "eth1" }
        ip a add 192.0.2.1 dev lo: Address { prefix: 192.0.2.1/32, interface: "lo" }
        /sbin/ip link set dev eth1 up: Link { interface: "eth1", up: Some(true), mtu: None, master: None }
        ip link set eth1 mtu 9000 master br0: Link { interface: "eth1", up: None, mtu: Some(9000), master: Some("br0") }
        ip link add name br0 type bridge: Create { interface: "br0", bridge: true }
        ip link add d0 type dummy: Create { interface: "d0", bridge: false }
        ip route add default via 172.20.1.1: route 0.0.0.0/0 via 172.20.1.1 proto 4 metric 0 replace false
        ip -6 route add default via fd00:20:1::1 dev eth1: route ::/0 via fd00:20:1::1 dev eth1 proto 4 metric 0 replace false
        ip route replace 10.0.0.0/8 via 172.20.1.1 dev eth1 metric 5: route 10.0.0.0/8 via 172.20.1.1 dev eth1 proto 4 metric 5 replace true
        ip route add blackhole 10.244.0.0/16: route blackhole 10.244.0.0/16 proto 4 metric 0 replace false
        ip route add 10.1.0.0/16 table 5 via 172.20.1.1: executed
        ip link add vx0 type vxlan id 5: executed
        ip rule add from 10.0.0.0/8 lookup 5: executed
        sysctl -w net.ipv4.ip_forward=1: executed
    "#]].assert_eq(&out);
}

#[test]
fn sysctl_names_may_use_dots_or_slashes() {
    assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
    assert_eq!(sysctl_path("net.ipv4.conf.eth0/5.rp_filter"), "net/ipv4/conf/eth0.5/rp_filter");
    assert_eq!(sysctl_path("net/ipv4/conf/eth0.5/rp_filter"), "net/ipv4/conf/eth0.5/rp_filter");
}
