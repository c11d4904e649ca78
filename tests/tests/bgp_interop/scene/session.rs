//! Sessions and what goes over them.

use voile_tests::{
    bgp::{
        Lan, PATIENCE, Voile,
        raw::{self, hex},
        wait_gone, wait_text,
    },
    wait_for,
};

use super::{
    NETWORKS, RAW_ATTRIBUTES, THEIR_NETWORKS, one_session, peer, raw_peer, two_sessions,
    with_raw_peer,
};
use crate::speaker::{Over, Router, Speaker, WISH, Wish, frr};

/// What each side sees of the other's routes.
struct Expectation<'a> {
    /// Our session that learns a prefix of theirs, and the next hop it has.
    theirs: [(&'a str, &'a str); 2],
    as_path: &'a str,
    kernel: [&'a str; 2],
    /// The next hop that they see for each prefix of ours.
    ours: [&'a str; 2],
}

/// Routes go both ways and into the kernel, and go away again, all over the same sessions.
fn both_ways(
    lan: &Lan,
    voile: &Voile,
    sessions: &str,
    router: &mut dyn Router,
    expected: &Expectation<'_>,
) {
    for (prefix, (session, next_hop)) in THEIR_NETWORKS.iter().zip(expected.theirs) {
        let path = voile.wait_route(prefix, session);
        let found = path["nextHop"].as_str().unwrap();
        assert!(found.starts_with(next_hop), "{path:#}");
        assert_eq!(path["asPath"], expected.as_path);
    }
    let kernel = || Ok(lan.routes(1));
    wait_text("our kernel", &expected.kernel, kernel);
    let ours = ["10.1.0.0/24", "fd00:1::/64"];
    for (prefix, next_hop) in ours.iter().zip(expected.ours) {
        wait_text(&format!("{prefix} there"), &[next_hop], || router.show(prefix));
    }
    let histories = || expected.theirs.map(|(session, _)| history(voile, session));
    let before = histories();
    // Without our networks.
    voile.configure(sessions);
    for (prefix, next_hop) in ours.iter().zip(expected.ours) {
        wait_gone(&format!("{prefix} there"), next_hop, || router.show(prefix));
    }
    for prefix in THEIR_NETWORKS {
        router.withdraw(prefix);
        voile.wait_no_route(prefix);
        wait_gone("our kernel", prefix, kernel);
    }
    assert_eq!(histories(), before, "one session did it all");
}

/// Returns the changes of a session that is up.
fn history(voile: &Voile, session: &str) -> Vec<[String; 2]> {
    let peer = voile.peer(session).unwrap();
    assert_eq!(peer["state"], "Established", "{peer:#}");
    let changes = peer["history"].as_array().unwrap().iter();
    changes.map(|change| ["to", "cause"].map(|field| change[field].to_string())).collect()
}

fn two_families(speaker: &Speaker, asn: u32) {
    let lan = Lan::new(2);
    let sessions = two_sessions(asn, "");
    let voile = Voile::start(&lan, 1, 65001, &format!("{sessions}{NETWORKS}"));
    let wish = Wish { asn, over: Over::Both, networks: THEIR_NETWORKS, ..WISH };
    let mut router = (speaker.start)(&lan, &wish);
    let expected = Expectation {
        theirs: [("v4", "10.0.0.2"), ("v6", "fd00::2")],
        as_path: if asn == 65001 { "" } else { "65002" },
        kernel: ["10.2.0.0/24 via 10.0.0.2", "fd00:2::/64 via fd00::2"],
        ours: ["10.0.0.1", "fd00::1"],
    };
    both_ways(&lan, &voile, &sessions, router.as_mut(), &expected);
}

pub(crate) fn external(speaker: &Speaker) {
    two_families(speaker, 65002);
}

pub(crate) fn internal(speaker: &Speaker) {
    two_families(speaker, 65001);
}

/// IPv6 routes over an IPv4 session of an FRR without zebra have a next hop that no kernel has a way to; the operator
/// learns what to do about it.
pub(crate) fn mapped_next_hop(_: &Speaker) {
    let lan = Lan::new(2);
    let both = "families = [\"ipv4\", \"ipv6\"]\nnext-hop-ipv6 = \"fd00::1\"";
    let body = peer("frr", "10.0.0.2", 65002, both);
    let voile = Voile::start(&lan, 1, 65001, &format!("install-routes = true\n{body}"));
    let wish = Wish { over: Over::Ipv4ForBoth, networks: THEIR_NETWORKS, ..WISH };
    let _frr = frr::start_without_zebra(&lan, &wish);
    let _ = voile.wait_route("10.2.0.0/24", "frr");
    wait_text("the reason", &["rejected", "IPv4 address in IPv6 form"], || {
        Ok(format!("{:?}", voile.paths("fd00:2::/64")?))
    });
    assert!(!lan.routes(1).contains("fd00:2::/64"));
}

/// IPv4 routes with IPv6 next hops, where no host has an IPv4 address.
pub(crate) fn over_ipv6(speaker: &Speaker) {
    let lan = Lan::new(2);
    for host in [1, 2] {
        let _ = lan.host(host).output("ip", &["-4", "address", "flush", "dev", "eth0"]);
    }
    let both = "families = [\"ipv4\", \"ipv6\"]\nextended-next-hop = true";
    let sessions = format!("install-routes = true\n{}", peer("v6", "fd00::2", 65002, both));
    let voile = Voile::start(&lan, 1, 65001, &format!("{sessions}{NETWORKS}"));
    let wish = Wish { over: Over::Ipv6, networks: THEIR_NETWORKS, ..WISH };
    let mut router = (speaker.start)(&lan, &wish);
    let expected = Expectation {
        theirs: [("v6", "fd00::2"); 2],
        as_path: "65002",
        kernel: ["10.2.0.0/24 via inet6 fd00::2", "fd00:2::/64 via fd00::2"],
        ours: ["fd00::1"; 2],
    };
    both_ways(&lan, &voile, &sessions, router.as_mut(), &expected);
}

/// Each side finds the other by its router advertisements; there are no addresses but the link's own.
pub(crate) fn unnumbered(speaker: &Speaker) {
    let lan = Lan::new(2);
    for host in [1, 2] {
        for family in ["-4", "-6"] {
            let flush = [family, "address", "flush", "dev", "eth0", "scope", "global"];
            let _ = lan.host(host).output("ip", &flush);
        }
    }
    let session = "install-routes = true\n[[peer]]\ninterface = \"eth0\"\nas = \"external\"\nhold-time = 9\n\
                   connect-retry = 1\nidle-hold = 0.2\nimport-default = \"accept\"\nexport-default = \"accept\"\n";
    let voile = Voile::start(&lan, 1, 65001, &format!("{session}{NETWORKS}"));
    let wish = Wish { over: Over::Interface, networks: THEIR_NETWORKS, ..WISH };
    let mut router = (speaker.start)(&lan, &wish);
    let expected = Expectation {
        theirs: [("eth0", "fe80::"); 2],
        as_path: "65002",
        kernel: ["10.2.0.0/24 via inet6 fe80::", "fd00:2::/64 via fe80::"],
        ours: ["fe80::"; 2],
    };
    both_ways(&lan, &voile, session, router.as_mut(), &expected);
}

/// What one peer attaches arrives at the other, through us.
pub(crate) fn communities(speaker: &Speaker) {
    let lan = Lan::new(3);
    let voile = Voile::start(&lan, 1, 65001, &with_raw_peer());
    let router = (speaker.start)(&lan, &WISH);
    let mut raw = raw_peer(&lan, &voile);
    let attached = "c00804 fdeb0007 c01008 0002fdeb00000007 c0200c 0000fdeb 00000007 00000008";
    raw.send(&raw::update(&[], &hex(&format!("{RAW_ATTRIBUTES} {attached}")), &hex("18 0a0300")));
    wait_text("communities there", &speaker.communities, || router.show("10.3.0.0/24"));
    let path = voile.wait_route("10.2.0.0/24", "peer");
    assert!(path["communities"].to_string().contains("65002:100"), "{path:#}");
    assert!(path["communities"].to_string().contains("65002:1:2"), "{path:#}");
    let update = wait_for("the route at the third peer", PATIENCE, || {
        let message = raw.receive_kind(raw::UPDATE).ok_or("the session ended")?;
        let wanted = message.body.ends_with(&hex("18 0a0200"));
        if wanted { Ok(message.body) } else { Err(format!("{message:02x?}")) }
    });
    for value in ["c00804 fdea0064", "c01008 0002fdea00000064", "c0200c 0000fdea 00000001 00000002"]
    {
        let value = hex(value);
        let found = update.windows(value.len()).any(|window| window == value);
        assert!(found, "{value:02x?} is not in {update:02x?}");
    }
}

/// 1,500 communities are 6,000 octets: too long for a message of RFC 4271.
fn long_route(speaker: &Speaker, extended: bool) {
    let lan = Lan::new(3);
    let voile = Voile::start(&lan, 1, 65001, &with_raw_peer());
    let router = (speaker.start)(&lan, &WISH);
    let mut raw = raw_peer(&lan, &voile);
    let mut attributes = hex(&format!("{RAW_ATTRIBUTES} d008 1770"));
    (0..1500_u32).for_each(|number| attributes.extend((0xfdeb_0000 | number).to_be_bytes()));
    raw.send(&raw::update(&[], &attributes, &hex("18 0a0300")));
    raw.send(&raw::update(&[], &hex(RAW_ATTRIBUTES), &hex("18 0a0400")));
    let _ = voile.wait_route("10.3.0.0/24", "raw");
    wait_text("the short route there", &["65003"], || router.show("10.4.0.0/24"));
    if extended {
        wait_text("the long route there", &["65003"], || router.show("10.3.0.0/24"));
    } else {
        let there = router.show("10.3.0.0/24").unwrap_or_default();
        assert!(!there.contains("65003"), "{there}");
    }
    let state = voile.peer("peer").unwrap();
    assert_eq!(state["state"], "Established", "{state:#}");
}

pub(crate) fn extended(speaker: &Speaker) {
    long_route(speaker, true);
}

pub(crate) fn not_extended(speaker: &Speaker) {
    long_route(speaker, false);
}

/// Provider and customer talk; two providers do not (RFC 9234 §4.2).
pub(crate) fn roles(speaker: &Speaker) {
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session("role = \"provider\""));
    let mut router = (speaker.start)(&lan, &Wish { role: Some("customer"), ..WISH });
    let _ = voile.wait_route("10.2.0.0/24", "peer");
    router.kill();
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session("role = \"provider\""));
    let _router = (speaker.start)(&lan, &Wish { role: Some("provider"), ..WISH });
    let state = voile.wait_peer("peer", |peer| peer.to_string().contains("2/11 role mismatch"));
    assert_ne!(state["state"], "Established");
}

/// We know only the range that the other side is in.
pub(crate) fn dynamic(speaker: &Speaker) {
    let lan = Lan::new(2);
    let range = "[[peer]]\nname = \"rack\"\nrange = \"10.0.0.0/24\"\nas = \"external\"\nhold-time = 9\n\
                 import-default = \"accept\"\nexport-default = \"accept\"\n";
    let voile = Voile::start(&lan, 1, 65001, &format!("{range}{NETWORKS}"));
    let router = (speaker.start)(&lan, &WISH);
    wait_for("the member", PATIENCE, || {
        let status = voile.status()?;
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        let up = |peer: &serde_json::Value| {
            peer["address"] == "10.0.0.2" && peer["state"] == "Established" && peer["as"] == 65002
        };
        if peers.iter().any(up) { Ok(()) } else { Err(format!("{:#}", status["peers"])) }
    });
    wait_text("10.1.0.0/24 there", &["65001"], || router.show("10.1.0.0/24"));
}
