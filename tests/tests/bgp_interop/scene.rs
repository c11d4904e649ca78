//! What the scenarios of all speakers have in common.

use std::{net::Ipv4Addr, time::Duration};

use voile_tests::{
    bgp::{
        Lan, PATIENCE, Voile,
        raw::{self, Raw, hex},
        wait_gone, wait_text,
    },
    wait_for,
};

pub(crate) const SESSION: &str = "session, IPv4 and IPv6 routes both ways, withdrawal";
pub(crate) const COMMUNITIES: &str = "communities: standard, extended, large, both ways";
pub(crate) const PASSWORD: &str = "TCP MD5: right key, wrong key, right key again";
pub(crate) const GTSM: &str = "GTSM: with it, and not without it";
pub(crate) const REFLECTION: &str = "route reflection: two reflectors, one of them ours, one fails";
pub(crate) const RESTART: &str = "graceful restart: our side restarts";
pub(crate) const HELPER: &str = "graceful restart: the other side restarts";
pub(crate) const EXTENDED: &str = "extended messages: a route of 6,000 octets";
pub(crate) const NOT_EXTENDED: &str =
    "a route of 6,000 octets is kept from a peer without extended messages";
pub(crate) const PATHS_RECEIVED: &str = "ADD-PATH: two paths from the other side";
pub(crate) const PATHS_SENT: &str = "ADD-PATH: two paths from us";
pub(crate) const ROLES: &str = "roles: a fitting pair, and one that does not fit";
pub(crate) const DYNAMIC: &str = "dynamic neighbours: the other side is a member of a range";
pub(crate) const OUR_LIMIT: &str = "max-prefix: the other side exceeds ours";
pub(crate) const THEIR_LIMIT: &str = "max-prefix: we exceed the other side's";

/// Another speaker that runs on host 2 of a network.
pub(crate) trait Router {
    /// Describes what it knows about a prefix.
    fn show(&self, prefix: &str) -> Result<String, String>;
    /// Stops announcing 10.2.0.0/24 and fd00:2::/64.
    fn withdraw(&mut self);
    /// Dies without a word.
    fn kill(&mut self);
}

/// How the other speaker is to be configured: IPv4, on host 2, with a session to each neighbour.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) asn: u32,
    /// Hosts with their AS numbers, and whether they are reflection clients.
    pub(crate) neighbours: &'static [(usize, u32, bool)],
    pub(crate) password: Option<&'static str>,
    pub(crate) ttl_security: bool,
    pub(crate) max_prefixes: Option<u32>,
    /// What it announces, each with 65002:100, the route target 65002:100 and 65002:1:2.
    pub(crate) networks: &'static [&'static str],
    /// A second life, with forwarding preserved.
    pub(crate) restarted: bool,
    pub(crate) add_path: bool,
    pub(crate) role: Option<&'static str>,
}

pub(crate) const WISH: Wish = Wish {
    asn: 65002,
    neighbours: &[(1, 65001, false)],
    password: None,
    ttl_security: false,
    max_prefixes: None,
    networks: &["10.2.0.0/24"],
    restarted: false,
    add_path: false,
    role: None,
};

/// Starts another speaker on host 2.
pub(crate) type Start = fn(&Lan, &Wish) -> Box<dyn Router>;

/// Our two prefixes.
pub(crate) const NETWORKS: &str = "\
[[network]]
prefix = \"10.1.0.0/24\"
communities = [\"65001:100\"]
large-communities = [\"65001:1:2\"]
[[network]]
prefix = \"fd00:1::/64\"
";

/// A peer with everything accepted.
pub(crate) fn peer(name: &str, address: &str, asn: u32, more: &str) -> String {
    format!(
        "[[peer]]\nname = \"{name}\"\naddress = \"{address}\"\nas = {asn}\nhold-time = 9\n\
         connect-retry = 1\nidle-hold = 0.2\nimport-default = \"accept\"\n\
         export-default = \"accept\"\n{more}\n"
    )
}

/// Both families over a session of their own.
pub(crate) fn two_sessions(asn: u32) -> String {
    let sessions = peer("v4", "10.0.0.2", asn, "") + &peer("v6", "fd00::2", asn, "");
    format!("install-routes = true\n{sessions}")
}

/// Routes go both ways and into the kernel, and go away again. The sessions are called `v4` and `v6`.
pub(crate) fn routes_both_ways(
    lan: &Lan,
    voile: &Voile,
    sessions: &str,
    router: &mut dyn Router,
    own_asn: bool,
) {
    let path = voile.wait_route("10.2.0.0/24", "v4");
    assert_eq!(path["nextHop"], "10.0.0.2");
    assert_eq!(path["asPath"], if own_asn { "" } else { "65002" });
    let path = voile.wait_route("fd00:2::/64", "v6");
    assert_eq!(path["nextHop"], "fd00::2");
    let kernel = || Ok(lan.routes(1));
    wait_text("our kernel", &["10.2.0.0/24 via 10.0.0.2", "fd00:2::/64 via fd00::2"], kernel);
    wait_text("10.1.0.0/24 there", &["10.0.0.1"], || router.show("10.1.0.0/24"));
    wait_text("fd00:1::/64 there", &["fd00::1"], || router.show("fd00:1::/64"));

    voile.configure(sessions);
    wait_gone("10.1.0.0/24 there", "10.0.0.1", || router.show("10.1.0.0/24"));
    wait_gone("fd00:1::/64 there", "fd00::1", || router.show("fd00:1::/64"));
    router.withdraw();
    voile.wait_no_route("10.2.0.0/24");
    voile.wait_no_route("fd00:2::/64");
    wait_gone("our kernel", "10.2.0.0/24", kernel);
    wait_gone("our kernel", "fd00:2::/64", kernel);
    for peer in ["v4", "v6"] {
        let state = voile.peer(peer).unwrap();
        assert_eq!(state["state"], "Established", "{state:#}");
        assert_eq!(state["received"]["opens"], 1, "one session did it all: {state:#}");
    }
}

/// One session, to host 2.
fn one_session(more: &str) -> String {
    format!("install-routes = true\n{}", peer("peer", "10.0.0.2", 65002, more))
}

/// A peer of ours on host 3 that is made of bytes; its section is [`RAW_PEER`].
fn raw_peer(lan: &Lan, voile: &Voile) -> Raw {
    let _ = voile.wait_peer("raw", |_| true);
    let address = Ipv4Addr::new(10, 0, 0, 3);
    let connect = || Raw::connect(address.into(), Ipv4Addr::new(10, 0, 0, 1).into());
    let raw = lan.host(3).run(connect).unwrap();
    // IPv4, four-octet AS numbers, extended messages.
    raw.establish(&raw::open(65003, 90, address, &hex("0104 0001 00 01 4104 0000fdeb 0600")))
}

fn with_raw_peer() -> String {
    one_session("") + &peer("raw", "10.0.0.3", 65003, "passive = true")
}

const RAW_ATTRIBUTES: &str = "400101 00 400206 02 01 0000fdeb 400304 0a000003";

/// What one peer attaches arrives at the other, through us.
pub(crate) fn communities(start: Start, shown: &[&str]) {
    let lan = Lan::new(3);
    let voile = Voile::start(&lan, 1, 65001, &with_raw_peer());
    let router = start(&lan, &WISH);
    let mut raw = raw_peer(&lan, &voile);
    let attached = "c00804 fdeb0007 c01008 0002fdeb00000007 c0200c 0000fdeb 00000007 00000008";
    raw.send(&raw::update(&[], &hex(&format!("{RAW_ATTRIBUTES} {attached}")), &hex("18 0a0300")));
    wait_text("communities there", shown, || router.show("10.3.0.0/24"));
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

/// The right key, then a wrong one on our side, then the right one again.
pub(crate) fn password(start: Start) {
    let lan = Lan::new(2);
    let with = |key: &str| one_session(&format!("password = \"{key}\""));
    let voile = Voile::start(&lan, 1, 65001, &with("secret"));
    let _router = start(&lan, &Wish { password: Some("secret"), ..WISH });
    let _ = voile.wait_route("10.2.0.0/24", "peer");
    voile.configure(&with("wrong"));
    let _ = voile.wait_peer("peer", |peer| peer["state"] != "Established");
    // Time enough for both sides to try: each does so every second or two.
    std::thread::sleep(Duration::from_secs(4));
    let state = voile.peer("peer").unwrap();
    assert_ne!(state["state"], "Established", "{state:#}");
    // What was learned with the right key may only be kept as by graceful restart.
    let paths = voile.paths("10.2.0.0/24").unwrap();
    assert!(paths.iter().all(|path| path["stale"] == true), "{paths:#?}");
    voile.configure(&with("secret"));
    let _ = voile.wait_route("10.2.0.0/24", "peer");
}

/// Both sides with it; then only ours, whose peer sends with TTL 1.
pub(crate) fn ttl_security(start: Start) {
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session("ttl-security = 1"));
    let mut router = start(&lan, &Wish { ttl_security: true, ..WISH });
    let _ = voile.wait_route("10.2.0.0/24", "peer");
    router.kill();
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session("ttl-security = 1"));
    let _router = start(&lan, &WISH);
    let _ = voile.wait_peer("peer", |_| true);
    std::thread::sleep(Duration::from_secs(4));
    let state = voile.peer("peer").unwrap();
    assert_ne!(state["state"], "Established", "packets of TTL 1 were trusted: {state:#}");
}

/// Hosts 1 (ours) and 2 (the other) reflect for hosts 3 and 4 (ours), which have no session with each other.
pub(crate) fn reflection(start: Start) {
    let lan = Lan::new(4);
    let client = "route-reflector-client = true";
    let reflector = peer("rr2", "10.0.0.2", 65001, "")
        + &peer("c3", "10.0.0.3", 65001, client)
        + &peer("c4", "10.0.0.4", 65001, client);
    let mut ours = Voile::start(&lan, 1, 65001, &reflector);
    let to_both = peer("rr1", "10.0.0.1", 65001, "") + &peer("rr2", "10.0.0.2", 65001, "");
    let networks = NETWORKS.replace("10.1.0.0/24", "10.3.0.0/24");
    let _origin = Voile::start(&lan, 3, 65001, &format!("{to_both}{networks}"));
    let receiver = Voile::start(&lan, 4, 65001, &to_both);
    let neighbours = &[(1, 65001, false), (3, 65001, true), (4, 65001, true)];
    let _router = start(&lan, &Wish { asn: 65001, neighbours, ..WISH });
    wait_for("both reflectors' paths", PATIENCE, || {
        let paths = receiver.paths("10.3.0.0/24")?;
        let from = |name: &str| {
            let path = paths.iter().find(|path| path["peer"] == name);
            path.is_some_and(|path| {
                path["originatorId"] == "10.0.0.3"
                    && path["nextHop"] == "10.0.0.3"
                    // Another reflector may prefer our copy of it to the client's own.
                    && path["clusterList"][0] == format!("10.0.0.{}", &name[2..])
            })
        };
        if from("rr1") && from("rr2") { Ok(()) } else { Err(format!("{paths:#?}")) }
    });
    // The other reflector has our reflection of the same route, and we have its: nobody loops.
    let _ = ours.wait_route("10.3.0.0/24", "c3");
    ours.kill();
    let _ = receiver.wait_peer("rr1", |peer| peer["state"] != "Established");
    let _ = receiver.wait_route("10.3.0.0/24", "rr2");
}

/// The other speaker dies: its routes stay as stale ones, in our kernel too, until it has sent them again.
pub(crate) fn helper(start: Start) {
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session(""));
    let mut router = start(&lan, &WISH);
    let path = voile.wait_route("10.2.0.0/24", "peer");
    assert_eq!(path["stale"], false);
    wait_text("our kernel", &["10.2.0.0/24"], || Ok(lan.routes(1)));
    router.kill();
    let _ = voile.wait_peer("peer", |peer| peer["state"] != "Established");
    let paths = voile.paths("10.2.0.0/24").unwrap();
    assert_eq!(paths.first().map(|path| &path["stale"]), Some(&true.into()), "{paths:#?}");
    assert!(lan.routes(1).contains("10.2.0.0/24"), "{}", lan.routes(1));
    let _router = start(&lan, &Wish { restarted: true, ..WISH });
    voile.wait_established("peer");
    wait_for("fresh again", PATIENCE, || {
        let paths = voile.paths("10.2.0.0/24")?;
        let fresh = paths.first().is_some_and(|path| path["stale"] == false);
        if fresh { Ok(()) } else { Err(format!("{paths:#?}\n{:#}", voile.peer("peer")?)) }
    });
    assert!(lan.routes(1).contains("10.2.0.0/24"));
}

/// 1,500 communities are 6,000 octets: too long for a message of RFC 4271.
pub(crate) fn long_route(start: Start, extended: bool) {
    let lan = Lan::new(3);
    let voile = Voile::start(&lan, 1, 65001, &with_raw_peer());
    let router = start(&lan, &WISH);
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

/// Three routes where two are allowed.
pub(crate) fn our_limit(start: Start) {
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session("max-prefixes = 2"));
    let networks = &["10.2.0.0/24", "10.2.1.0/24", "10.2.2.0/24"];
    let _router = start(&lan, &Wish { networks, ..WISH });
    let state = voile.wait_peer("peer", |peer| {
        peer["lastError"].as_str().is_some_and(|error| error.contains("more than 2 prefixes"))
    });
    assert_eq!(state["state"], "Idle", "{state:#}");
    voile.wait_no_route("10.2.0.0/24");
}

/// We announce three routes where one is allowed.
pub(crate) fn their_limit(start: Start) {
    let lan = Lan::new(2);
    // FRR notices one too late: it counts when it has processed a route.
    let more =
        ["10.1.1.0/24", "10.1.2.0/24"].map(|each| format!("[[network]]\nprefix = \"{each}\"\n"));
    let networks = format!("{NETWORKS}{}", more.concat());
    let voile = Voile::start(&lan, 1, 65001, &format!("{}{networks}", one_session("")));
    let _router = start(&lan, &Wish { max_prefixes: Some(1), ..WISH });
    let _ =
        voile.wait_peer("peer", |peer| peer.to_string().contains("6/1 maximum number of prefixes"));
}

const SHARED: &str = "[[network]]\nprefix = \"10.3.0.0/24\"\n";

/// Hosts 3 and 4 announce one prefix to the other side, which tells us both paths.
pub(crate) fn paths_received(start: Start) {
    let lan = Lan::new(4);
    let voile = Voile::start(&lan, 1, 65001, &one_session("add-path = \"receive\""));
    let origin = |host: usize, asn: u32| {
        let body = peer("router", "10.0.0.2", 65002, "") + SHARED;
        Voile::start(&lan, host, asn, &body)
    };
    let _origins = [origin(3, 65003), origin(4, 65004)];
    let neighbours = &[(1, 65001, false), (3, 65003, false), (4, 65004, false)];
    let _router = start(&lan, &Wish { neighbours, add_path: true, ..WISH });
    wait_text("both paths", &["65002 65003", "65002 65004"], || {
        Ok(format!("{:?}", voile.paths("10.3.0.0/24")?))
    });
}

/// Hosts 3 and 4 announce one prefix to us, and the other side gets both paths.
pub(crate) fn paths_sent(start: Start) {
    let lan = Lan::new(4);
    let body = one_session("add-path = \"send\"")
        + &peer("c3", "10.0.0.3", 65003, "")
        + &peer("c4", "10.0.0.4", 65004, "");
    let voile = Voile::start(&lan, 1, 65001, &body);
    let origin = |host: usize, asn: u32| {
        let body = peer("router", "10.0.0.1", 65001, "") + SHARED;
        Voile::start(&lan, host, asn, &body)
    };
    let _origins = [origin(3, 65003), origin(4, 65004)];
    let router = start(&lan, &Wish { add_path: true, ..WISH });
    voile.wait_established("peer");
    wait_text("both paths there", &["65001 65003", "65001 65004"], || router.show("10.3.0.0/24"));
}

/// Provider and customer talk; two providers do not (RFC 9234 §4.2).
pub(crate) fn roles(start: Start) {
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session("role = \"provider\""));
    let mut router = start(&lan, &Wish { role: Some("customer"), ..WISH });
    let _ = voile.wait_route("10.2.0.0/24", "peer");
    router.kill();
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session("role = \"provider\""));
    let _router = start(&lan, &Wish { role: Some("provider"), ..WISH });
    let state = voile.wait_peer("peer", |peer| peer.to_string().contains("2/11 role mismatch"));
    assert_ne!(state["state"], "Established");
}

/// We know only the range that the other side is in.
pub(crate) fn dynamic(start: Start) {
    let lan = Lan::new(2);
    let range = "[[peer]]\nname = \"rack\"\nrange = \"10.0.0.0/24\"\nas = \"external\"\nhold-time = 9\n\
                 import-default = \"accept\"\nexport-default = \"accept\"\n";
    let voile = Voile::start(&lan, 1, 65001, &format!("{range}{NETWORKS}"));
    let router = start(&lan, &WISH);
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
