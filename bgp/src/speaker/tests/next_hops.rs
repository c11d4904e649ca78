//! Next hops of another family, and link-local ones.

use super::lab::{Lab, config};
use crate::{Asn, Families, PeerConfig, snapshot::Usage};

/// Two routers joined by nothing but link-local addresses.
fn link(change: impl Fn(&mut PeerConfig)) -> Lab {
    let addresses = ["fe80::1", "fe80::2"];
    let mut configs = vec![config(0, 1), config(1, 2)];
    for (index, other) in [(0, 1_usize), (1, 0)] {
        let asn = Asn(u32::try_from(other).unwrap() + 1);
        let mut peer = PeerConfig::new(format!("r{other}"), addresses[other].parse().unwrap(), asn);
        peer.interface = Some("eth0".into());
        peer.families = Families::BOTH;
        peer.extended_next_hop = true;
        change(&mut peer);
        configs[index].peers.push(peer);
    }
    let mut lab = Lab::new(configs);
    lab.renumber(&addresses);
    lab.originate(0, "10.1.0.0/16");
    lab.originate(0, "fd01::/64");
    lab.run(5);
    lab
}

#[test]
fn both_families_go_over_a_link_without_ipv4() {
    let mut lab = link(|_| ());
    assert_eq!(lab.fib(1), "10.1.0.0/16 via fe80::1\nfd01::/64 via fe80::1\n");
    let rib = lab.speaker(1).snapshot(true).rib;
    assert!(matches!(rib[0].paths[0].usage, Usage::Best(_)));
    // A withdrawal finds what it means.
    lab.withdraw(0, "10.1.0.0/16");
    lab.run(1);
    assert_eq!(lab.fib(1), "fd01::/64 via fe80::1\n");
}

/// One side does not know how: IPv4 has no next hop to offer, IPv6 goes on.
#[test]
fn without_agreement_ipv4_stays_at_home() {
    let lab = link(|peer| peer.extended_next_hop = peer.name == "r1");
    assert_eq!(lab.fib(1), "fd01::/64 via fe80::1\n");
}

/// r0 and r1 are joined by link-local addresses only; r2, an internal peer of r1, could not reach fe80::1.
#[test]
fn link_local_next_hops_do_not_leave_the_link() {
    let mut configs = vec![config(0, 1), config(1, 2), config(2, 2)];
    let addresses = ["fe80::1", "fe80::2", "fd00::3"];
    for (index, other, asn) in [(0, 1, 2), (1, 0, 1), (1, 2, 2), (2, 1, 2)] {
        let address = addresses[other].parse().unwrap();
        let mut peer = PeerConfig::new(format!("r{other}"), address, Asn(asn));
        peer.interface = Some(format!("link{other}"));
        peer.next_hop_ipv6 = (index == 1 && other == 2).then(|| "fd00::2".parse().unwrap());
        configs[index].peers.push(peer);
    }
    let mut lab = Lab::new(configs);
    lab.renumber(&addresses);
    lab.originate(0, "fd01::/64");
    lab.run(5);
    assert_eq!(lab.fib(1), "fd01::/64 via fe80::1\n");
    assert_eq!(lab.fib(2), "fd01::/64 via fd00::2\n");
}
