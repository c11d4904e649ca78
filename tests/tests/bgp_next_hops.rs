//! Next hops and the kernel's routing table: a path is used and told on while a route leads to its next hop (RFC 4271
//! §9.1.2.1).

#![expect(clippy::disallowed_methods, reason = "a test: what fails here fails it, with the reason")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use voile_tests::{
    bgp::{Lan, PATIENCE, Voile, wait_gone, wait_text},
    can_make_namespaces, skip, wait_for, wire,
};

/// How long a change of the kernel's table may take to have its consequences, on a busy machine.
const SOON: Duration = Duration::from_secs(3);

/// Host 1 is asked; host 2 is an internal peer of it, and tells of its networks with a next hop of its choice; host 3 is of
/// another system and hears from host 1.
struct Scene {
    lan: Lan,
    near: Voile,
    inner: Voile,
    outer: Voile,
}

fn peer(other: usize, asn: u32, more: &str) -> String {
    format!(
        "[[peer]]\nname = \"host{other}\"\naddress = \"10.0.0.{other}\"\nas = {asn}\nhold-time = 9\n\
         connect-retry = 1\nidle-hold = 0.2\n{more}\n"
    )
}

fn network(prefix: &str) -> String {
    format!("[[network]]\nprefix = \"{prefix}\"\n")
}

/// What host 2 is configured with.
fn inner(prefix: &str, next_hop: &str) -> String {
    peer(1, 65001, &format!("next-hop-ipv4 = \"{next_hop}\"")) + &network(prefix)
}

impl Scene {
    fn new(prefix: &str, next_hop: &str) -> Self {
        let lan = Lan::new(3);
        let body = format!("install-routes = true\n{}{}", peer(2, 65001, ""), peer(3, 65003, ""));
        let near = Voile::start(&lan, 1, 65001, &body);
        let inner = Voile::start(&lan, 2, 65001, &inner(prefix, next_hop));
        let outer = Voile::start(&lan, 3, 65003, &peer(1, 65001, ""));
        near.wait_established("host2");
        near.wait_established("host3");
        Self { lan, near, inner, outer }
    }

    /// Runs `ip` on host 1.
    fn ip(&self, arguments: &str) {
        let words: Vec<&str> = arguments.split(' ').collect();
        let _ = self.lan.host(1).output("ip", &words);
    }

    /// Waits until the path of host 2 is not used, for a reason with these words, and nobody has the prefix.
    fn wait_unreachable(&self, prefix: &str, words: &str) {
        wait_for(&format!("{prefix} {words}"), PATIENCE, || {
            let paths = self.near.paths(prefix)?;
            let is_it = |path: &&Value| {
                path["usage"] == "unreachable"
                    && path["why"].as_str().is_some_and(|why| why.contains(words))
            };
            paths.iter().find(is_it).map(drop).ok_or_else(|| format!("{paths:#?}"))
        });
        wait_gone("the kernel's route", prefix, || Ok(self.lan.routes(1)));
        self.outer.wait_no_route(prefix);
    }

    /// Waits until the prefix goes this way in the kernel, and host 3 hears of it. Says how long it took.
    fn wait_used(&self, prefix: &str, way: &str) -> Duration {
        let began = Instant::now();
        wait_text("the kernel's route", &[&format!("{prefix} {way}")], || Ok(self.lan.routes(1)));
        let _ = self.outer.wait_route(prefix, "host1");
        began.elapsed()
    }
}

#[test]
fn a_path_is_used_while_a_route_leads_to_its_next_hop() {
    if !can_make_namespaces() {
        skip("a_path_is_used_while_a_route_leads_to_its_next_hop", "needs root");
        return;
    }
    let mut scene = Scene::new("10.2.0.0/24", "10.9.9.2");
    let no_route = "next hop 10.9.9.2 is not reachable: no route";
    scene.wait_unreachable("10.2.0.0/24", no_route);
    scene.ip("route add 10.9.9.0/24 via 10.0.0.2");
    let took = scene.wait_used("10.2.0.0/24", "via 10.0.0.2 dev eth0");
    assert!(took < SOON, "{took:?}");
    // A longer one leads elsewhere, two of equal cost to two routers.
    scene.ip("route add 10.9.9.2/32 via 10.0.0.3");
    let took = scene.wait_used("10.2.0.0/24", "via 10.0.0.3 dev eth0");
    assert!(took < SOON, "{took:?}");
    scene.ip("route replace 10.9.9.2/32 nexthop via 10.0.0.2 nexthop via 10.0.0.3");
    wait_text("both routers", &["via 10.0.0.2 dev eth0", "via 10.0.0.3 dev eth0"], || {
        Ok(scene.lan.routes(1))
    });
    scene.ip("route replace blackhole 10.9.9.2/32");
    scene.wait_unreachable("10.2.0.0/24", "its route 10.9.9.2/32 drops packets");
    scene.ip("route delete 10.9.9.2/32");
    let _ = scene.wait_used("10.2.0.0/24", "via 10.0.0.2 dev eth0");
    // Everything that somebody else put there goes at once.
    scene.ip("route flush proto boot");
    scene.wait_unreachable("10.2.0.0/24", no_route);
    // The daemon comes back, and its neighbours lose nothing.
    scene.ip("route add 10.9.9.0/24 via 10.0.0.2");
    let _ = scene.wait_used("10.2.0.0/24", "via 10.0.0.2 dev eth0");
    scene.near.stop(Signal::SIGTERM);
    scene.near.restart();
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let kept = scene.outer.paths("10.2.0.0/24").unwrap();
        assert!(kept.iter().any(|path| path["usage"] == "best"), "{kept:#?}");
        assert!(scene.lan.routes(1).contains("10.2.0.0/24 via 10.0.0.2"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = scene.near.wait_route("10.2.0.0/24", "host2");
}

#[test]
fn a_next_hop_on_a_dead_link_is_not_used() {
    if !can_make_namespaces() {
        skip("a_next_hop_on_a_dead_link_is_not_used", "needs root");
        return;
    }
    let scene = Scene::new("10.2.0.0/24", "10.8.0.2");
    scene.wait_unreachable("10.2.0.0/24", "no route");
    // The session goes another way and stays.
    wire(scene.lan.host(1), "eth1", scene.lan.host(2), "eth1");
    scene.ip("address add 10.8.0.1/24 dev eth1");
    let _ = scene.wait_used("10.2.0.0/24", "via 10.8.0.2 dev eth1");
    let far = |state: &str| {
        let _ = scene.lan.host(2).output("ip", &["link", "set", "eth1", state]);
    };
    far("down");
    scene.wait_unreachable("10.2.0.0/24", "its route 10.8.0.0/24 is on eth1, which is down");
    far("up");
    let _ = scene.wait_used("10.2.0.0/24", "via 10.8.0.2 dev eth1");
    scene.ip("link set eth1 down");
    scene.wait_unreachable("10.2.0.0/24", "no route");
    scene.ip("link set eth1 up");
    let _ = scene.wait_used("10.2.0.0/24", "via 10.8.0.2 dev eth1");
    scene.ip("link delete eth1");
    scene.wait_unreachable("10.2.0.0/24", "no route");
    assert_eq!(scene.near.peer("host2").unwrap()["flaps"], 0);
    drop(scene.inner);
}

/// The default route of a top-of-rack router leads to routers in other racks, and a route never leads to itself.
#[test]
fn routes_of_bgp_lead_to_next_hops_but_not_to_their_own() {
    if !can_make_namespaces() {
        skip("routes_of_bgp_lead_to_next_hops_but_not_to_their_own", "needs root");
        return;
    }
    let scene = Scene::new("10.9.0.0/16", "10.9.9.2");
    scene.wait_unreachable("10.9.0.0/16", "no route");
    let told = peer(1, 65001, "") + &network("0.0.0.0/0");
    scene.outer.configure(&told);
    wait_text("the kernel's routes", &["default via 10.0.0.3", "10.9.0.0/16 via 10.0.0.3"], || {
        Ok(scene.lan.routes(1))
    });
    // Now the longest route to the next hop is the one that rests on it: nothing swings.
    let updates = |peer: &Value| peer["sent"]["updates"].as_u64().unwrap();
    let before = updates(&scene.near.peer("host2").unwrap());
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(scene.lan.routes(1).contains("10.9.0.0/16 via 10.0.0.3"));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(updates(&scene.near.peer("host2").unwrap()), before);
    // A loopback that the top-of-rack router knows is longer than what others have.
    scene.ip("route add 10.9.0.0/16 via 10.0.0.2 metric 5");
    let _ = scene.wait_used("10.9.0.0/16", "via 10.0.0.2 dev eth0");
    scene.outer.configure(&format!("{told}{}", network("10.9.9.2/32")));
    let way = ["10.9.9.2 via 10.0.0.3", "10.9.0.0/16 via 10.0.0.3"];
    wait_text("the kernel's routes", &way, || Ok(scene.lan.routes(1)));
    scene.ip("route delete 10.9.0.0/16 via 10.0.0.2 metric 5");
    scene.outer.configure(&peer(1, 65001, ""));
    scene.wait_unreachable("10.9.0.0/16", "no route");
}

/// RFC 4271 §9.1.2.2 e, beside BIRD: both tell of one network, and the kernel's metrics say whose next hop is nearer.
#[test]
fn the_nearer_of_two_next_hops_is_preferred() {
    const BIRD: &str = "/usr/sbin/bird";
    if !can_make_namespaces() || !Path::new(BIRD).exists() {
        skip("the_nearer_of_two_next_hops_is_preferred", "needs root and BIRD");
        return;
    }
    let lan = Lan::new(3);
    let body = format!("install-routes = true\n{}{}", peer(2, 65001, ""), peer(3, 65001, ""));
    let near = Voile::start(&lan, 1, 65001, &body);
    let _inner = Voile::start(&lan, 2, 65001, &inner("10.2.0.0/24", "10.9.9.2"));
    let config = lan.file(
        3,
        "bird.conf",
        "router id 10.0.0.3;\nlog stderr all;\nprotocol device {}\n\
         protocol static { ipv4; route 10.2.0.0/24 blackhole; }\n\
         protocol bgp voile { local 10.0.0.3 as 65001; neighbor 10.0.0.1 as 65001;\n\
         connect delay time 1; connect retry time 1; error wait time 1, 2;\n\
         ipv4 { import all; next hop keep; export filter {\n\
         if source = RTS_STATIC then { bgp_next_hop = 10.9.9.3; accept; } reject; }; }; }\n",
    );
    let socket = lan.folder(3).join("bird.ctl");
    let arguments = ["-f", "-c", &config.to_string_lossy(), "-s", &socket.to_string_lossy()];
    let _bird = lan.spawn(3, Path::new(BIRD), &arguments);
    near.wait_established("host2");
    near.wait_established("host3");
    let ip = |arguments: &str| {
        let words: Vec<&str> = arguments.split(' ').collect();
        let _ = lan.host(1).output("ip", &words);
    };
    let wait_way = |way: &str, why: &str| {
        let way = format!("10.2.0.0/24 {way}");
        wait_text("the kernel's route", &[&way], || Ok(lan.routes(1)));
        wait_for(why, PATIENCE, || {
            let paths = near.paths("10.2.0.0/24")?;
            let is_best = |path: &&Value| path["usage"] == "best" && path["why"] == why;
            paths.iter().find(is_best).map(drop).ok_or_else(|| format!("{paths:#?}"))
        });
    };
    ip("route add 10.9.9.2/32 via 10.0.0.2 metric 20");
    wait_way("via 10.0.0.2 dev eth0", "only path");
    ip("route add 10.9.9.3/32 via 10.0.0.3 metric 10");
    wait_way("via 10.0.0.3 dev eth0", "interior cost");
    ip("route add 10.9.9.2/32 via 10.0.0.2 metric 5");
    wait_way("via 10.0.0.2 dev eth0", "interior cost");
    ip("route delete 10.9.9.2/32 metric 5");
    wait_way("via 10.0.0.3 dev eth0", "interior cost");
    ip("route delete 10.9.9.3/32");
    wait_way("via 10.0.0.2 dev eth0", "only path");
}
