//! GoBGP.

use std::path::Path;

use voile_tests::{
    Process,
    bgp::{Lan, PATIENCE, Voile},
    wait_for,
};

use super::{
    Scenario, Speaker,
    scene::{self, Router, two_sessions},
};

const PROGRAM: &str = "/usr/bin/gobgpd";

pub(crate) const SPEAKER: Speaker = Speaker {
    name: "GoBGP",
    program: PROGRAM,
    scenarios: &[
        Scenario { feature: scene::SESSION, name: "external_routes", run: external_routes },
        Scenario { feature: scene::SESSION, name: "internal_routes", run: internal_routes },
    ],
};

struct Gobgp {
    lan: Lan,
    host: usize,
    _process: Process,
}

impl Gobgp {
    fn start(lan: &Lan, host: usize, asn: u32, body: &str) -> Self {
        let text = format!("[global.config]\nas = {asn}\nrouter-id = \"10.0.0.{host}\"\n{body}");
        let config = lan.file(host, "gobgpd.toml", &text);
        let process =
            lan.spawn(host, Path::new(PROGRAM), &["-t", "toml", "-f", &config.to_string_lossy()]);
        let gobgp = Self { lan: lan.clone(), host, _process: process };
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
