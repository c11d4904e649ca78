//! BIRD 2.

use std::path::Path;

use nix::sys::signal::Signal;
use voile_tests::{
    Process,
    bgp::{Lan, Voile, wait_text},
};

use super::{
    Scenario, Speaker,
    scene::{self, Router, Wish, two_sessions},
};

const PROGRAM: &str = "/usr/sbin/bird";

pub(crate) const SPEAKER: Speaker = Speaker {
    name: "BIRD",
    program: PROGRAM,
    scenarios: &[
        Scenario { feature: scene::SESSION, name: "external_routes", run: external_routes },
        Scenario { feature: scene::SESSION, name: "internal_routes", run: internal_routes },
        Scenario { feature: scene::COMMUNITIES, name: "communities", run: communities },
        Scenario { feature: scene::PASSWORD, name: "password", run: || scene::password(start) },
        Scenario { feature: scene::GTSM, name: "gtsm", run: || scene::ttl_security(start) },
        Scenario {
            feature: scene::REFLECTION,
            name: "reflection",
            run: || scene::reflection(start),
        },
        Scenario { feature: scene::RESTART, name: "we_crash", run: we_crash },
        Scenario { feature: scene::RESTART, name: "we_are_upgraded", run: we_are_upgraded },
        Scenario { feature: scene::HELPER, name: "it_restarts", run: || scene::helper(start) },
        Scenario {
            feature: scene::EXTENDED,
            name: "long_route",
            run: || scene::long_route(start, true),
        },
        Scenario { feature: scene::OUR_LIMIT, name: "our_limit", run: || scene::our_limit(start) },
        Scenario {
            feature: scene::THEIR_LIMIT,
            name: "their_limit",
            run: || scene::their_limit(start),
        },
        Scenario {
            feature: scene::PATHS_RECEIVED,
            name: "paths_received",
            run: || scene::paths_received(start),
        },
        Scenario {
            feature: scene::PATHS_SENT,
            name: "paths_sent",
            run: || scene::paths_sent(start),
        },
        Scenario { feature: scene::ROLES, name: "roles", run: || scene::roles(start) },
        Scenario { feature: scene::DYNAMIC, name: "dynamic", run: || scene::dynamic(start) },
    ],
};

struct Bird {
    lan: Lan,
    host: usize,
    process: Process,
}

const STATIC: &str = "
protocol static own4 { ipv4; route 10.2.0.0/24 blackhole; }
protocol static own6 { ipv6; route fd00:2::/64 blackhole; }
";

impl Bird {
    fn start(lan: &Lan, host: usize, body: &str) -> Self {
        Self::start_with(lan, host, body, &[])
    }

    fn start_with(lan: &Lan, host: usize, body: &str, more: &[&str]) -> Self {
        let text = format!(
            "router id 10.0.0.{host};\nlog stderr all;\nprotocol device {{ scan time 1; }}\n\
             protocol kernel {{ ipv4 {{ export all; }}; persist; }}\n\
             protocol kernel {{ ipv6 {{ export all; }}; persist; }}\n{body}"
        );
        let config = lan.file(host, "bird.conf", &text);
        let socket = lan.folder(host).join("bird.ctl");
        let (config, socket) = (config.to_string_lossy(), socket.to_string_lossy());
        let mut arguments = vec!["-f", "-c", &*config, "-s", &*socket];
        arguments.extend(more);
        let process = lan.spawn(host, Path::new(PROGRAM), &arguments);
        Self { lan: lan.clone(), host, process }
    }

    fn control(&self, words: &[&str]) -> Result<String, String> {
        let socket = self.lan.folder(self.host).join("bird.ctl");
        let socket = socket.to_string_lossy();
        let arguments: Vec<&str> =
            ["-s", &socket].into_iter().chain(words.iter().copied()).collect();
        self.lan.host(self.host).ask("birdc", &arguments)
    }
}

impl Router for Bird {
    fn show(&self, prefix: &str) -> Result<String, String> {
        self.control(&["show", "route", "all", "for", prefix]).or_else(|error| {
            if error.contains("Network not found") { Ok(error) } else { Err(error) }
        })
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn withdraw(&mut self) {
        let _ = self.control(&["disable", "own4"]).unwrap();
        let _ = self.control(&["disable", "own6"]).unwrap();
    }
}

/// A session of BIRD's; `channel` is what follows the address family.
fn session(name: &str, family: &str, local: &str, asn: u32, neighbour: &str, more: &str) -> String {
    format!(
        "protocol bgp {name} {{ local {local} as {asn}; neighbor {neighbour} as 65001; hold time 9;\n\
         connect delay time 1; connect retry time 1; error wait time 1, 2; graceful restart on;\n\
         {family} {{ import all; export where source = RTS_STATIC; next hop self; }};\n{more} }}\n"
    )
}

fn start(lan: &Lan, wish: &Wish) -> Box<dyn Router> {
    let mut body = "protocol static own4 { ipv4;\n".to_owned();
    for network in wish.networks {
        body += &format!(
            "route {network} blackhole {{ bgp_community.add((65002, 100)); \
             bgp_ext_community.add((rt, 65002, 100)); bgp_large_community.add((65002, 1, 2)); }};\n"
        );
    }
    body += "}\n";
    for (host, asn, client) in wish.neighbours {
        let mut more = String::new();
        if let Some(password) = wish.password {
            more += &format!("password \"{password}\";\n");
        }
        if wish.ttl_security {
            more += "ttl security on;\n";
        }
        if *client {
            more += "rr client;\n";
        }
        if let Some(role) = wish.role {
            more += &format!("local role {role};\n");
        }
        let paths = if wish.add_path { "add paths on;" } else { "" };
        let limit = wish
            .max_prefixes
            .map_or(String::new(), |limit| format!("import limit {limit} action disable;"));
        body += &format!(
            "protocol bgp b{host} {{ local 10.0.0.2 as {}; neighbor 10.0.0.{host} as {asn}; hold time 9;\n\
             connect delay time 1; connect retry time 1; error wait time 1, 2; graceful restart on;\n\
             enable extended messages on;\n{more}\
             ipv4 {{ import all; export all; {limit} {paths} }};\n}}\n",
            wish.asn
        );
    }
    let more: &[&str] = if wish.restarted { &["-R"] } else { &[] };
    Box::new(Bird::start_with(lan, 2, &body, more))
}

fn communities() {
    scene::communities(start, &["(65003,7)", "(rt, 65003, 7)", "(65003, 7, 8)"]);
}

fn sessions(asn: u32) -> String {
    STATIC.to_owned()
        + &session("v4", "ipv4", "10.0.0.2", asn, "10.0.0.1", "")
        + &session("v6", "ipv6", "fd00::2", asn, "fd00::1", "")
}

fn routes(asn: u32) {
    let lan = Lan::new(2);
    let sessions_of_ours = two_sessions(asn);
    let voile = Voile::start(&lan, 1, 65001, &format!("{sessions_of_ours}{}", scene::NETWORKS));
    let mut bird = Bird::start(&lan, 2, &sessions(asn));
    scene::routes_both_ways(&lan, &voile, &sessions_of_ours, &mut bird, asn == 65001);
}

fn external_routes() {
    routes(65002);
}

fn internal_routes() {
    routes(65001);
}

/// Returns whether BIRD's kernel has lost one of our routes at any time until `until` holds.
fn watch_routes(lan: &Lan, until: impl Fn() -> bool) {
    loop {
        let done = until();
        let routes = lan.host(2).output("ip", &["-4", "route", "show", "proto", "bird"])
            + &lan.host(2).output("ip", &["-6", "route", "show", "proto", "bird"]);
        for route in ["10.1.0.0/24 via 10.0.0.1", "fd00:1::/64 via fd00::1"] {
            assert!(routes.contains(route), "{route} is lost: {routes}");
        }
        if done {
            return;
        }
    }
}

fn restart(end: impl Fn(&mut Voile)) {
    let lan = Lan::new(2);
    let body = format!("{}{}", two_sessions(65002), scene::NETWORKS);
    let mut voile = Voile::start(&lan, 1, 65001, &body);
    let bird = Bird::start(&lan, 2, &sessions(65002));
    let _ = voile.wait_route("10.2.0.0/24", "v4");
    let _ = voile.wait_route("fd00:2::/64", "v6");
    let kernel = || lan.host(2).ask("ip", &["-4", "route", "show", "proto", "bird"]);
    wait_text("BIRD's kernel", &["10.1.0.0/24"], kernel);
    let kernel = || lan.host(2).ask("ip", &["-6", "route", "show", "proto", "bird"]);
    wait_text("BIRD's kernel", &["fd00:1::/64"], kernel);
    end(&mut voile);
    wait_text("BIRD waits", &["Neighbor graceful restart active"], || {
        bird.control(&["show", "protocols", "all", "v4"])
    });
    // Neither side's kernel has forgotten anything meanwhile.
    let ours = lan.routes(1);
    assert!(ours.contains("10.2.0.0/24") && ours.contains("fd00:2::/64"), "{ours}");
    voile.restart();
    watch_routes(&lan, || {
        let back = |peer| voile.peer(peer).is_ok_and(|peer| peer["state"] == "Established");
        back("v4") && back("v6")
    });
    for (prefix, peer) in [("10.2.0.0/24", "v4"), ("fd00:2::/64", "v6")] {
        let _ = voile.wait_route(prefix, peer);
    }
    // End-of-RIB came: BIRD has swept what was stale, and ours are still there.
    wait_text("BIRD is done", &["Established"], || {
        let state = bird.control(&["show", "protocols", "all", "v4"])?;
        if state.contains("graceful restart active") { Err(state) } else { Ok(state) }
    });
    watch_routes(&lan, || true);
}

fn we_crash() {
    restart(Voile::kill);
}

fn we_are_upgraded() {
    restart(|voile| voile.stop(Signal::SIGTERM));
}
