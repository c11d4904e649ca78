//! GoBGP.

use std::path::Path;

use voile_tests::{
    Process,
    bgp::{Lan, PATIENCE, Voile},
    wait_for,
};

use super::{
    Scenario, Speaker,
    scene::{self, Router, Wish, two_sessions},
};

const PROGRAM: &str = "/usr/bin/gobgpd";

pub(crate) const SPEAKER: Speaker = Speaker {
    name: "GoBGP",
    program: PROGRAM,
    scenarios: &[
        Scenario { feature: scene::SESSION, name: "external_routes", run: external_routes },
        Scenario { feature: scene::SESSION, name: "internal_routes", run: internal_routes },
        Scenario { feature: scene::COMMUNITIES, name: "communities", run: communities },
        Scenario { feature: scene::PASSWORD, name: "password", run: || scene::password(start) },
        Scenario { feature: scene::GTSM, name: "gtsm", run: || scene::ttl_security(start) },
        Scenario { feature: scene::HELPER, name: "it_restarts", run: || scene::helper(start) },
        Scenario {
            feature: scene::NOT_EXTENDED,
            name: "long_route",
            run: || scene::long_route(start, false),
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
        Scenario { feature: scene::DYNAMIC, name: "dynamic", run: || scene::dynamic(start) },
    ],
};

struct Gobgp {
    lan: Lan,
    host: usize,
    process: Process,
}

impl Gobgp {
    fn start(lan: &Lan, host: usize, asn: u32, body: &str) -> Self {
        Self::start_with(lan, host, asn, body, &[])
    }

    fn start_with(lan: &Lan, host: usize, asn: u32, body: &str, more: &[&str]) -> Self {
        let text = format!("[global.config]\nas = {asn}\nrouter-id = \"10.0.0.{host}\"\n{body}");
        let config = lan.file(host, "gobgpd.toml", &text);
        let config = config.to_string_lossy();
        let mut arguments = vec!["-t", "toml", "-f", &*config];
        arguments.extend(more);
        let process = lan.spawn(host, Path::new(PROGRAM), &arguments);
        let gobgp = Self { lan: lan.clone(), host, process };
        wait_for("GoBGP's API", PATIENCE, || gobgp.control(&["global"]));
        gobgp
    }

    fn control(&self, words: &[&str]) -> Result<String, String> {
        self.lan.host(self.host).ask("gobgp", words)
    }

    fn rib(&self, verb: &str, prefix: &str, more: &[&str]) -> Result<String, String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let words = ["global", "rib", verb, prefix, "-a", family];
        let words: Vec<&str> =
            words.iter().chain(more).copied().filter(|word| !word.is_empty()).collect();
        self.control(&words)
    }
}

impl Router for Gobgp {
    fn show(&self, prefix: &str) -> Result<String, String> {
        self.rib("", prefix, &[])
            .or_else(|error| if error.contains("not in table") { Ok(error) } else { Err(error) })
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn withdraw(&mut self) {
        for prefix in ["10.2.0.0/24", "fd00:2::/64"] {
            let _ = self.rib("del", prefix, &[]).unwrap();
        }
    }
}

fn neighbour(address: &str, family: &str, more: &str) -> String {
    format!(
        "[[neighbors]]
  [neighbors.config]
    neighbor-address = \"{address}\"
    peer-as = 65001
  [neighbors.timers.config]
    hold-time = 9
    keepalive-interval = 3
    connect-retry = 1
  [neighbors.graceful-restart.config]
    enabled = true
    notification-enabled = true
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = \"{family}-unicast\"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = true
{more}"
    )
}

fn start(lan: &Lan, wish: &Wish) -> Box<dyn Router> {
    let mut body = String::new();
    // To a peer that is no client it reflects without ORIGINATOR_ID and CLUSTER_LIST: all are clients of a reflector.
    let reflects = wish.neighbours.iter().any(|(.., client)| *client);
    for (host, asn, _) in wish.neighbours {
        body += &format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"10.0.0.{host}\"\npeer-as = {asn}\n"
        );
        if let Some(password) = wish.password {
            body += &format!("auth-password = \"{password}\"\n");
        }
        body += "[neighbors.timers.config]\nhold-time = 9\nkeepalive-interval = 3\nconnect-retry = 1\n\
                 [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 60\n";
        if wish.ttl_security {
            body += "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n";
        }
        if reflects {
            body += "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                     route-reflector-cluster-id = \"10.0.0.2\"\n";
        }
        body += "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n\
                 [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n";
        if wish.add_path {
            body += "[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n";
        }
        if let Some(limit) = wish.max_prefixes {
            body += &format!("[neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = {limit}\n");
        }
    }
    let more: &[&str] = if wish.restarted { &["-r"] } else { &[] };
    let gobgp = Gobgp::start_with(lan, 2, wish.asn, &body, more);
    for network in wish.networks {
        let attached = ["nexthop", "10.0.0.2", "community", "65002:100", "rt", "65002:100"];
        let large = ["large-community", "65002:1:2"];
        let _ = gobgp.rib("add", network, &[&attached[..], &large[..]].concat()).unwrap();
    }
    Box::new(gobgp)
}

fn communities() {
    scene::communities(start, &["65003:7", "[65003:7]", "65003:7:8"]);
}

fn routes(asn: u32) {
    let lan = Lan::new(2);
    let sessions = two_sessions(asn);
    let voile = Voile::start(&lan, 1, 65001, &format!("{sessions}{}", scene::NETWORKS));
    let body = neighbour("10.0.0.1", "ipv4", "") + &neighbour("fd00::1", "ipv6", "");
    let mut gobgp = Gobgp::start(&lan, 2, asn, &body);
    for (prefix, next_hop) in [("10.2.0.0/24", "10.0.0.2"), ("fd00:2::/64", "fd00::2")] {
        let _ = gobgp.rib("add", prefix, &["nexthop", next_hop]).unwrap();
    }
    scene::routes_both_ways(&lan, &voile, &sessions, &mut gobgp, asn == 65001);
}

fn external_routes() {
    routes(65002);
}

fn internal_routes() {
    routes(65001);
}
