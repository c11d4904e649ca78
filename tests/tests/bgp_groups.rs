//! Peers that are not named one by one, with real sockets: dynamic neighbours with one password for all of them, and routers
//! joined by an interface without addresses of its own.

#![expect(clippy::disallowed_methods, reason = "a test: what fails here fails it, with the reason")]

use voile_tests::{
    bgp::{Lan, Voile, wait_text},
    can_make_namespaces, skip,
};

fn is_impossible(test: &str) -> bool {
    let impossible = !can_make_namespaces();
    if impossible {
        skip(test, "needs root");
    }
    impossible
}

fn client(password: &str, network: &str) -> String {
    format!(
        "install-routes = true\nrestart-time = 5\n[[peer]]\nname = \"hub\"\naddress = \"10.0.0.1\"\nas = 65001\nttl-security = 1\n\
         connect-retry = 2\npassword = \"{password}\"\n[[network]]\nprefix = \"{network}\"\n"
    )
}

#[test]
fn dynamic_neighbours_share_a_password() {
    if is_impossible("dynamic_neighbours_share_a_password") {
        return;
    }
    let lan = Lan::new(4);
    let range = "[[peer]]\nname = \"rack\"\nrange = \"10.0.0.0/24\"\nas = [\"65002-65003\", 65004]\n\
                 password = \"for the rack\"\nttl-security = 1\n";
    let hub = Voile::start(&lan, 1, 65001, range);
    let near = client("for the rack", "10.2.0.0/24");
    let _second = Voile::start(&lan, 2, 65002, &near);
    let _third = Voile::start(&lan, 3, 65003, &near.replace("10.2.0.0", "10.3.0.0"));
    let other = near.replace("for the rack", "guessed").replace("10.2.0.0", "10.4.0.0");
    let fourth = Voile::start(&lan, 4, 65004, &other);
    let _ = hub.wait_route("10.2.0.0/24", "rack[10.0.0.2]");
    let _ = hub.wait_route("10.3.0.0/24", "rack[10.0.0.3]");
    let kernel = || Ok(lan.routes(2));
    wait_text("kernel of a client", &["10.3.0.0/24 via 10.0.0.1"], kernel);
    // A wrong key looks like silence on the side that is refused.
    let peer = fourth.wait_peer("hub", |peer| !peer["lastError"].is_null());
    assert_eq!(peer["lastError"], "10.0.0.1:179 does not answer", "{peer:#}");
    assert!(hub.peer("rack[10.0.0.4]").is_err());
    // The password changes: members come back with the new one only, and their routes are kept as for a restart.
    hub.configure(&range.replace("for the rack", "guessed"));
    hub.wait_no_route("10.2.0.0/24");
    hub.wait_established("rack[10.0.0.4]");
    assert!(hub.peer("rack[10.0.0.2]").is_err(), "it has the old password");
}

#[test]
fn a_wrong_key_is_suspected_where_both_connect() {
    if is_impossible("a_wrong_key_is_suspected_where_both_connect") {
        return;
    }
    let lan = Lan::new(2);
    let peer = |address: &str, asn: u32, password: &str| {
        format!(
            "[[peer]]\nname = \"other\"\naddress = \"{address}\"\nas = {asn}\nconnect-retry = 2\n\
             password = \"{password}\"\n"
        )
    };
    let left = Voile::start(&lan, 1, 65001, &peer("10.0.0.2", 65002, "one"));
    let _right = Voile::start(&lan, 2, 65002, &peer("10.0.0.1", 65001, "another"));
    let state = left.wait_peer("other", |peer| {
        peer["lastError"].as_str().is_some_and(|text| text.contains("TCP-MD5 mismatch suspected"))
    });
    assert_ne!(state["state"], "Established");
}

/// Two hosts with nothing but the link-local addresses.
fn link() -> Lan {
    let lan = Lan::new(2);
    for number in [1, 2] {
        for family in ["-4", "-6"] {
            let flush = [family, "address", "flush", "dev", "eth0", "scope", "global"];
            let _ = lan.host(number).output("ip", &flush);
        }
    }
    lan
}

#[test]
fn routers_find_each_other_on_an_interface() {
    if is_impossible("routers_find_each_other_on_an_interface") {
        return;
    }
    let lan = link();
    let body = |network: &str| {
        format!(
            "install-routes = true\n[[peer]]\ninterface = \"eth0\"\nas = \"external\"\npassword = \"link\"\n\
             connect-retry = 1\nbfd = true\n\
             [[network]]\nprefix = \"10.{network}.0.0/24\"\n[[network]]\nprefix = \"fd00:{network}::/64\"\n"
        )
    };
    let left = Voile::start(&lan, 1, 65001, &body("1"));
    let right = Voile::start(&lan, 2, 65002, &body("2"));
    let peer = left.wait_peer("eth0", |peer| peer["state"] == "Established");
    assert_eq!(peer["as"], 65002);
    for (router, network, number) in [(&left, "2", 1), (&right, "1", 2)] {
        let prefixes = [format!("10.{network}.0.0/24"), format!("fd00:{network}::/64")];
        for prefix in &prefixes {
            let path = router.wait_route(prefix, "eth0");
            assert!(path["nextHop"].as_str().unwrap().starts_with("fe80::"), "{path:#}");
        }
        let wanted =
            [format!("{} via inet6 fe80::", prefixes[0]), format!("{} via fe80::", prefixes[1])];
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        wait_text("the kernel", &wanted, || Ok(lan.routes(number)));
        let _ = router.wait_peer("eth0", |peer| peer["bfd"] == "Up");
    }
}

/// The neighbour's address is nowhere in the file that is read again, and the key must be that of this address all the same:
/// on sockets that listen, and on those that connect.
#[test]
fn a_key_is_changed_for_a_peer_found_on_an_interface() {
    if is_impossible("a_key_is_changed_for_a_peer_found_on_an_interface") {
        return;
    }
    let lan = link();
    let body = |key: &str, more: &str| {
        let key = if key.is_empty() { String::new() } else { format!("password = \"{key}\"\n") };
        format!(
            "[[peer]]\ninterface = \"eth0\"\nas = \"external\"\nhold-time = 9\nconnect-retry = 1\nidle-hold = 0.2\n\
             idle-hold-max = 1\ngraceful-restart = false\n{key}{more}"
        )
    };
    let network = "[[network]]\nprefix = \"10.2.0.0/24\"\n";
    // The left one connects, then it waits to be connected to.
    for passive in ["", "passive = true\n"] {
        let left = Voile::start(&lan, 1, 65001, &body("old", passive));
        let right = Voile::start(&lan, 2, 65002, &body("old", network));
        for key in ["new", ""] {
            let _ = left.wait_route("10.2.0.0/24", "eth0");
            left.configure(&body(key, passive));
            left.wait_no_route("10.2.0.0/24");
            // Both have tried again by now, and more than once.
            std::thread::sleep(std::time::Duration::from_secs(3));
            // One that is only waited for is forgotten meanwhile.
            let up = left.peer("eth0").is_ok_and(|peer| peer["state"] == "Established");
            assert!(!up, "with {key:?} here only: {}", left.log());
            right.configure(&body(key, network));
        }
        let _ = left.wait_route("10.2.0.0/24", "eth0");
    }
}
