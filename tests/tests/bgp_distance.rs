//! Peers that are two hops away: GTSM refuses them unless it is told of the distance, and BFD watches such a path as well.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what fails here fails it, with the reason"
)]

use std::{path::Path, time::Duration};

use voile_tests::{
    bgp::{Lan, Voile, wait_text},
    can_make_namespaces, skip,
};

/// Hosts 1 and 2 talk from 10.9.0.1 and 10.9.0.2, and host 3 is the only way from one to the other.
fn two_hops() -> Lan {
    let lan = Lan::new(3);
    let router = lan.host(3);
    // It must not tell the others of the shorter way.
    for name in ["all", "eth0"] {
        let path = format!("net/ipv4/conf/{name}/send_redirects");
        router.run(|| kernel::sysctl::ensure(&path, "0").unwrap());
    }
    for (own, other) in [(1, 2), (2, 1)] {
        let host = lan.host(own);
        let (own_address, other_address) = (format!("10.9.0.{own}/32"), format!("10.9.0.{other}"));
        let _ = host.output("ip", &["address", "add", &own_address, "dev", "lo"]);
        let _ = host.output("ip", &["route", "add", &other_address, "via", "10.0.0.3"]);
        let via = format!("10.0.0.{own}");
        let _ = router.output("ip", &["route", "add", &own_address, "via", &via]);
    }
    lan
}

fn peer(own: u8, other: u8, more: &str) -> String {
    format!(
        "[[peer]]\nname = \"other\"\naddress = \"10.9.0.{other}\"\nlocal-address = \"10.9.0.{own}\"\n\
         as = 6500{other}\nhold-time = 9\nconnect-retry = 1\nidle-hold = 0.2\n{more}\n\
         [[network]]\nprefix = \"10.{own}.0.0/24\"\n"
    )
}

#[test]
fn gtsm_refuses_who_is_further_away_than_it_was_told() {
    if !can_make_namespaces() {
        skip("gtsm_refuses_who_is_further_away_than_it_was_told", "needs root");
        return;
    }
    let lan = two_hops();
    // The other side sends with TTL 255 as well: what arrives has 254.
    let _far = Voile::start(&lan, 2, 65002, &peer(2, 1, "ttl-security = 2"));
    let near = Voile::start(&lan, 1, 65001, &peer(1, 2, "ttl-security = 1"));
    let state = near.wait_peer("other", |peer| !peer["lastError"].is_null());
    assert_eq!(state["lastError"], "10.9.0.2:179 does not answer", "{state:#}");
    // Time enough for both sides to try more than once.
    std::thread::sleep(Duration::from_secs(3));
    let state = near.peer("other").unwrap();
    assert_ne!(state["state"], "Established", "{state:#}");
    assert_eq!(state["received"]["opens"], 0, "{state:#}");
    near.configure(&peer(1, 2, "ttl-security = 2"));
    let _ = near.wait_route("10.2.0.0/24", "other");
}

#[test]
fn bfd_watches_a_path_of_two_hops() {
    const BIRD: &str = "/usr/sbin/bird";
    if !can_make_namespaces() || !Path::new(BIRD).exists() {
        skip("bfd_watches_a_path_of_two_hops", "needs root and BIRD");
        return;
    }
    let lan = two_hops();
    let bfd = "bfd = { interval = 0.1, multiplier = 3, multi-hop = true, strict = true }";
    let voile = Voile::start(&lan, 1, 65001, &peer(1, 2, bfd));
    let config = lan.file(
        2,
        "bird.conf",
        "router id 10.9.0.2;\nlog stderr all;\nprotocol device {}\n\
         protocol bfd { multihop { interval 100 ms; multiplier 3; }; }\n\
         protocol static { ipv4; route 10.2.0.0/24 blackhole; }\n\
         protocol bgp voile { local 10.9.0.2 as 65002; neighbor 10.9.0.1 as 65001; multihop 2; bfd on;\n\
         connect delay time 1; connect retry time 1; error wait time 1, 2;\n\
         ipv4 { import all; export where source = RTS_STATIC; next hop self; }; }\n",
    );
    let socket = lan.folder(2).join("bird.ctl");
    let arguments = ["-f", "-c", &config.to_string_lossy(), "-s", &socket.to_string_lossy()];
    let _bird = lan.spawn(2, Path::new(BIRD), &arguments);
    let _ = voile.wait_route("10.2.0.0/24", "other");
    let _ = voile.wait_peer("other", |peer| peer["bfd"] == "Up");
    let birdc = || {
        let socket = socket.to_string_lossy();
        lan.host(2).ask("birdc", &["-s", &socket, "show", "bfd", "sessions"])
    };
    wait_text("BIRD's session", &["10.9.0.1", "Up", "0.100", "0.300"], birdc);
    // The router between them dies, and no link of the two loses its carrier.
    lan.block(3);
    let peer = voile.wait_peer("other", |peer| peer["state"] != "Established");
    let cause = "BFD session is down: control detection time expired";
    let history = peer["history"].as_array().unwrap();
    assert!(history.iter().any(|each| each["cause"] == cause), "{peer:#}");
    voile.wait_no_route("10.2.0.0/24");
    lan.unblock(3);
    voile.wait_established("other");
    let _ = voile.wait_peer("other", |peer| peer["bfd"] == "Up");
}
