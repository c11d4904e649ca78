//! Next hops and prefixes that are well-formed and make no sense: logged, ignored, and the session goes on (RFC 4271 §6.3).

use std::net::{IpAddr, Ipv4Addr};

use voile_tests::{
    bgp::{
        Lan, PATIENCE, Voile,
        raw::{self, Raw, hex},
    },
    can_make_namespaces, skip, wait_for,
};

use super::speaker::{OUR_AS, Side};

const USED: &str = "";
const OWN: &str = "the next hop is this router";
const NO_ROUTER: &str = "the next hop is no router";
const OFF_LINK: &str = "the next hop is neither the peer nor on a network of ours";
const MAPPED: &str = "the next hop is an IPv4 address in IPv6 form";
const MARTIAN: &str = "no prefix of unicast addresses";

/// A next hop, and what is said of a route with it: from a neighbour of another AS, from a router of our own.
type Row = (&'static str, &'static str, &'static str);

/// Ours are 10.0.0.1/24, fd00::1/64, 10.8.0.1 on the loopback; the peer's 10.0.0.2 or 10.0.0.3.
const NEXT_HOPS: [Row; 24] = [
    ("10.0.0.2", USED, USED),
    ("10.0.0.9", USED, USED),
    ("10.9.9.9", OFF_LINK, USED),
    ("192.0.2.1", OFF_LINK, USED),
    ("10.0.0.1", OWN, OWN),
    ("10.8.0.1", OWN, OWN),
    ("0.0.0.0", NO_ROUTER, NO_ROUTER),
    ("0.0.0.1", NO_ROUTER, NO_ROUTER),
    ("127.0.0.1", NO_ROUTER, NO_ROUTER),
    ("224.0.0.5", NO_ROUTER, NO_ROUTER),
    ("240.0.0.1", NO_ROUTER, NO_ROUTER),
    ("255.255.255.255", NO_ROUTER, NO_ROUTER),
    ("fd00::2", USED, USED),
    ("fd00::9", USED, USED),
    ("2001:db8::9", OFF_LINK, USED),
    ("fd00::1", OWN, OWN),
    ("fd08::1", OWN, OWN),
    ("fe80::9", USED, USED),
    ("::", NO_ROUTER, NO_ROUTER),
    ("::1", NO_ROUTER, NO_ROUTER),
    ("ff02::1", NO_ROUTER, NO_ROUTER),
    ("::ffff:10.0.0.2", MAPPED, MAPPED),
    // Global and link-local: the first one counts.
    ("fd00::9 fe80::9", USED, USED),
    ("2001:db8::9 fe80::9", OFF_LINK, USED),
];

const PREFIXES: [(&str, &str); 12] = [
    ("224.7.0.0/16", MARTIAN),
    ("127.7.0.0/16", MARTIAN),
    ("0.7.0.0/16", MARTIAN),
    ("255.255.255.255/32", MARTIAN),
    ("ff07::/16", MARTIAN),
    ("fe87::/16", MARTIAN),
    ("::1/128", MARTIAN),
    ("::ffff:10.7.0.0/112", MARTIAN),
    ("0.0.0.0/0", USED),
    ("169.254.7.0/24", USED),
    ("240.7.0.0/16", USED),
    ("::/0", USED),
];

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An UPDATE with one route.
fn announce(side: Side, prefix: &str, next_hops: &str) -> Vec<u8> {
    let mut attributes = hex("400101 00");
    attributes.extend(match side {
        Side::External => hex("400206 02 01 0000fdea"),
        Side::Internal => hex("400200 400504 00000064"),
    });
    let (address, length) = prefix.split_once('/').unwrap();
    let length: u8 = length.parse().unwrap();
    let mut nlri = vec![length];
    nlri.extend(&octets(address.parse().unwrap())[..usize::from(length.div_ceil(8))]);
    let hops: Vec<u8> =
        next_hops.split(' ').flat_map(|text| octets(text.parse().unwrap())).collect();
    if hops.len() == 4 {
        attributes.extend(hex("400304"));
        attributes.extend(hops);
        return raw::update(&[], &attributes, &nlri);
    }
    let mut reach = hex("0002 01");
    reach.push(u8::try_from(hops.len()).unwrap());
    reach.extend(hops);
    reach.push(0);
    reach.extend(nlri);
    attributes.extend([0x80, 14, u8::try_from(reach.len()).unwrap()]);
    attributes.extend(reach);
    raw::update(&[], &attributes, &[])
}

fn name(side: Side) -> &'static str {
    match side {
        Side::External => "10.0.0.2",
        Side::Internal => "10.0.0.3",
    }
}

fn body(more: &str) -> String {
    let peer = |side: Side| {
        format!(
            "[[peer]]\naddress = \"{}\"\nas = {}\npassive = true\nfamilies = [\"ipv4\", \"ipv6\"]\n\
             import-default = \"accept\"\nexport-default = \"accept\"\n{more}\n",
            name(side),
            side.asn()
        )
    };
    peer(Side::External) + &peer(Side::Internal)
}

fn prefix(number: usize, next_hop: &str) -> String {
    if next_hop.contains(':') {
        format!("2001:db8:{number:x}::/48")
    } else {
        format!("10.{}.0.0/16", 100 + number)
    }
}

/// What became of a route: empty if it is used, or may be.
fn judged(voile: &Voile, prefix: &str, side: Side) -> Result<String, String> {
    let paths = voile.paths(prefix)?;
    let path = paths.iter().find(|path| path["peer"] == name(side)).ok_or("no path")?;
    let rejected = path["usage"] == "rejected";
    Ok(if rejected { path["why"].as_str().unwrap_or("?").to_owned() } else { String::new() })
}

fn expect(voile: &Voile, side: Side, prefix: &str, next_hop: &str, expected: &str) {
    wait_for(&format!("{prefix} via {next_hop} from {side:?}"), PATIENCE, || {
        let found = judged(voile, prefix, side)?;
        let right =
            if expected.is_empty() { found.is_empty() } else { found.starts_with(expected) };
        if right { Ok(()) } else { Err(format!("expected {expected:?}, found {found:?}")) }
    });
}

#[test]
fn what_makes_no_sense_is_ignored_and_the_session_goes_on() {
    if !can_make_namespaces() {
        skip("what_makes_no_sense_is_ignored_and_the_session_goes_on", "needs root");
        return;
    }
    let lan = Lan::new(2);
    let ip = |host: usize, words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let _ = lan.host(host).output("ip", &words);
    };
    ip(1, "address add 10.8.0.1/32 dev lo");
    ip(1, "address add fd08::1/128 dev lo");
    ip(2, "address add 10.0.0.3/24 dev eth0");
    let voile = Voile::start(&lan, 1, OUR_AS, &body(""));
    let _ = voile.wait_peer(name(Side::External), |_| true);
    let sessions = Side::BOTH.map(|side| {
        let address: Ipv4Addr = name(side).parse().unwrap();
        let to = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let raw = lan.host(2).run(|| Raw::connect(address.into(), to)).unwrap();
        let mut capabilities = hex("0104 0001 00 01  0104 0002 00 01  4104 0000");
        capabilities.extend(side.asn().to_be_bytes());
        let mut raw = raw.establish(&raw::open(side.asn(), 90, address, &capabilities));
        for (number, (next_hop, ..)) in NEXT_HOPS.iter().enumerate() {
            raw.send(&announce(side, &prefix(number, next_hop), next_hop));
        }
        for (martian, _) in PREFIXES {
            let next_hop = if martian.contains(':') { "fd00::2" } else { "10.0.0.2" };
            raw.send(&announce(side, martian, next_hop));
        }
        raw
    });
    for side in Side::BOTH {
        for (number, (next_hop, external, internal)) in NEXT_HOPS.iter().enumerate() {
            let expected = if side == Side::External { external } else { internal };
            expect(&voile, side, &prefix(number, next_hop), next_hop, expected);
        }
        for (martian, expected) in PREFIXES {
            expect(&voile, side, martian, "a good next hop", expected);
        }
        let state = voile.peer(name(side)).unwrap();
        assert_eq!((&state["state"], &state["flaps"]), (&"Established".into(), &0.into()));
        let rows = NEXT_HOPS.iter().map(|row| if side == Side::External { row.1 } else { row.2 });
        let wrong = rows.chain(PREFIXES.map(|row| row.1)).filter(|row| !row.is_empty()).count();
        assert_eq!(state["ignoredRoutes"], wrong, "{state:#}");
        assert_eq!(state["treatedAsWithdraw"], 0);
    }
    assert!(voile.log().contains("route ignored: the next hop is "), "{}", voile.log());

    // Networks come and go, and so do the routes through them.
    let off = [("10.102.0.0/16", "10.9.9.9"), ("2001:db8:e::/48", "2001:db8::9")];
    ip(1, "address add 10.9.9.1/24 dev eth0");
    ip(1, "address add 2001:db8::1/64 dev eth0 nodad");
    off.iter().for_each(|(prefix, hop)| expect(&voile, Side::External, prefix, hop, USED));
    ip(1, "address del 10.9.9.1/24 dev eth0");
    ip(1, "address del 2001:db8::1/64 dev eth0");
    off.iter().for_each(|(prefix, hop)| expect(&voile, Side::External, prefix, hop, OFF_LINK));
    // So do addresses of ours.
    ip(1, "address add 10.0.0.9/24 dev eth0");
    expect(&voile, Side::External, "10.101.0.0/16", "10.0.0.9", OWN);
    ip(1, "address del 10.0.0.9/24 dev eth0");
    expect(&voile, Side::External, "10.101.0.0/16", "10.0.0.9", USED);
    // A peer that may be further away.
    voile.configure(&body("multihop = true"));
    off.iter().for_each(|(prefix, hop)| expect(&voile, Side::External, prefix, hop, USED));
    let state = voile.peer(name(Side::External)).unwrap();
    assert_eq!((&state["state"], &state["flaps"]), (&"Established".into(), &0.into()));
    drop(sessions);
}
