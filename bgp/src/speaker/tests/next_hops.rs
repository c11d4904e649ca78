//! Next hops of another family, link-local ones, and those that make no sense (RFC 4271 §6.3).

use super::lab::{Lab, config, prefix};
use crate::{
    Asn, Families, LocalNetworks, LocalRoute, PeerConfig, State, config::NextHopMode,
    snapshot::Usage,
};

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

/// r0 tells r1 (10.0.0.2/24, fd00::2/64, 10.8.0.1/32) of routes with these next hops.
fn told(asns: [u32; 2], next_hops: &[&str]) -> Lab {
    let mut lab = Lab::pair_with(asns[0], asns[1], |peer| {
        peer.families = Families::BOTH;
        peer.extended_next_hop = true;
        peer.next_hop = NextHopMode::Keep;
    });
    lab.run(5);
    let now = lab.now;
    lab.speaker(1).handle_networks(networks(&["10.0.0.0/24", "fd00::/64"]), now);
    for (number, next_hop) in next_hops.iter().enumerate() {
        let next_hop: std::net::IpAddr = next_hop.parse().unwrap();
        let text = match next_hop {
            std::net::IpAddr::V4(_) => format!("10.1.{number}.0/24"),
            std::net::IpAddr::V6(_) => format!("fd01:0:0:{number:x}::/64"),
        };
        let route = LocalRoute { next_hop: Some(next_hop), ..LocalRoute::default() };
        lab.speaker(0).originate(prefix(&text), route);
    }
    lab.run(1);
    assert_eq!(lab.state(1, 0), State::Established);
    lab
}

fn networks(networks: &[&str]) -> LocalNetworks {
    let own = ["10.0.0.2", "10.8.0.1", "fd00::2", "fd08::1", "fe80::2"];
    LocalNetworks {
        addresses: own.iter().map(|text| text.parse().unwrap()).collect(),
        networks: networks.iter().map(|text| prefix(text)).collect(),
    }
}

/// Says of each route whether it is used, or why not.
fn judged(lab: &mut Lab) -> Vec<String> {
    let rib = lab.speaker(1).snapshot(true).rib;
    let paths = rib.iter().map(|entry| &entry.paths[0]);
    let usage = paths.map(|path| match path.usage {
        Usage::Rejected(why) => why.split(';').next().unwrap().to_owned(),
        _ => "used".to_owned(),
    });
    usage.collect()
}

const OWN: &str = "the next hop is this router";
const NO_ROUTER: &str = "the next hop is no router we could send to";
const OFF_LINK: &str = "the next hop is neither the peer nor on a network of ours";

#[test]
fn the_next_hop_of_a_neighbour_is_a_neighbour() {
    let table = [
        ("10.0.0.1", "used"),
        // A third party on the shared subnet (RFC 4271 §5.1.3).
        ("10.0.0.9", "used"),
        ("10.9.9.9", OFF_LINK),
        ("10.0.0.2", OWN),
        ("10.8.0.1", OWN),
        ("224.0.0.5", NO_ROUTER),
        ("127.0.0.1", NO_ROUTER),
        ("0.0.0.0", NO_ROUTER),
        ("240.0.0.1", NO_ROUTER),
        ("255.255.255.255", NO_ROUTER),
        ("fd00::9", "used"),
        ("2001:db8::9", OFF_LINK),
        ("fd00::2", OWN),
        ("fd08::1", OWN),
        ("ff02::1", NO_ROUTER),
        ("::1", NO_ROUTER),
        ("::", NO_ROUTER),
        ("::ffff:10.0.0.1", "the next hop is an IPv4 address in IPv6 form"),
    ];
    let mut lab = told([1, 2], &table.map(|(next_hop, _)| next_hop));
    let found: Vec<(&str, String)> =
        table.iter().map(|(next_hop, _)| *next_hop).zip(judged(&mut lab)).collect();
    assert_eq!(found, table.map(|(next_hop, expected)| (next_hop, expected.to_owned())));
    // Every one but the three that are used was counted.
    assert_eq!(lab.peer(1, 0).ignored_routes, 15);
}

/// Those further away: internal peers, peers that may be (`multihop`), peers on no network of ours.
#[test]
fn the_next_hop_of_others_need_not_be_near() {
    let next_hops = ["10.9.9.9", "10.8.0.1", "2001:db8::9", "fd08::1"];
    let expected = ["used", OWN, "used", OWN];
    assert_eq!(judged(&mut told([2, 2], &next_hops)), expected);
    let mut lab = told([1, 2], &next_hops);
    assert_eq!(judged(&mut lab), [OFF_LINK, OWN, OFF_LINK, OWN]);
    let mut config = lab.speaker(1).config().clone();
    config.peers[0].multihop = true;
    let now = lab.now;
    lab.speaker(1).configure(config, now);
    lab.run(1);
    assert_eq!(judged(&mut lab), expected);
    assert!(!lab.tell().contains("Established ->"));

    let mut lab = told([1, 2], &next_hops);
    let now = lab.now;
    lab.speaker(1).handle_networks(networks(&["10.77.0.0/24", "fd00::/64"]), now);
    lab.run(1);
    assert_eq!(judged(&mut lab), expected);
}

#[test]
fn routes_are_judged_again_when_addresses_come_and_go() {
    let mut lab = told([1, 2], &["10.9.9.9", "10.8.0.1", "2001:db8::9"]);
    assert_eq!(lab.fib(1), "");
    let now = lab.now;
    let mut wider = networks(&["10.0.0.0/24", "10.9.0.0/16", "2001:db8::/32"]);
    wider.addresses.remove(&"10.8.0.1".parse().unwrap());
    lab.speaker(1).handle_networks(wider, now);
    lab.run(1);
    assert_eq!(judged(&mut lab), ["used", OFF_LINK, "used"]);
    assert_eq!(lab.fib(1), "10.1.0.0/24 via 10.9.9.9\nfd01:0:0:2::/64 via 2001:db8::9\n");
    let now = lab.now;
    lab.speaker(1).handle_networks(networks(&["10.0.0.0/24"]), now);
    lab.run(1);
    assert_eq!(judged(&mut lab), [OFF_LINK, OWN, OFF_LINK]);
    assert_eq!(lab.fib(1), "");
}

/// A node gets an interface with a link-local address for each of its pods.
#[test]
fn nothing_is_judged_again_for_a_link_local_address() {
    let mut lab = told([1, 2], &["10.0.0.9"]);
    let now = lab.now;
    let mut more = networks(&["10.0.0.0/24", "fd00::/64"]);
    more.addresses.insert("fe80::ecee".parse().unwrap());
    lab.speaker(1).handle_networks(more, now);
    assert!(!lab.speaker(1).rib.is_walking());
    let now = lab.now;
    lab.speaker(1).handle_networks(networks(&["10.7.0.0/24"]), now);
    assert!(lab.speaker(1).rib.is_walking());
}

/// Neighbours by link-local address: what they say is on the link, or on a network that we share.
#[test]
fn neighbours_by_interface_are_near() {
    let mut lab = link(|_| ());
    let now = lab.now;
    lab.speaker(1).handle_networks(networks(&["10.0.0.0/24"]), now);
    lab.run(1);
    assert_eq!(lab.fib(1), "10.1.0.0/16 via fe80::1\nfd01::/64 via fe80::1\n");
}

/// RFC 4271 §6.3: such prefixes are logged and ignored, and the session goes on.
#[test]
fn prefixes_that_are_not_unicast_are_ignored() {
    let mut lab = Lab::pair_with(1, 2, |peer| {
        peer.families = Families::BOTH;
        peer.next_hop_ipv6 =
            Some(if peer.name == "r0" { "fd00::2" } else { "fd00::1" }.parse().unwrap());
    });
    let martians =
        ["224.1.0.0/16", "127.0.0.0/8", "0.0.0.0/8", "ff05::/16", "fe80::/64", "::1/128"];
    for text in martians {
        lab.originate(0, text);
    }
    lab.originate(0, "0.0.0.0/0");
    lab.originate(0, "::/0");
    lab.run(5);
    assert_eq!(lab.fib(1), "0.0.0.0/0 via 10.0.0.1\n::/0 via fd00::1\n");
    let status = lab.peer(1, 0);
    assert_eq!((status.prefixes_received, status.prefixes_accepted), (8, 2));
    assert_eq!((status.state, status.ignored_routes), (State::Established, 6));
    // They are not passed on, and the good ones beside them are.
    lab.withdraw(0, "224.1.0.0/16");
    lab.run(1);
    assert_eq!(lab.peer(1, 0).prefixes_received, 7);
}
