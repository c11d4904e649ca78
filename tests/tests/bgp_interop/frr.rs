//! FRR: zebra and bgpd.

use std::path::{Path, PathBuf};

use nix::unistd::{User, chown};
use voile_tests::{
    Process,
    bgp::{Lan, Voile},
};

use super::{
    Scenario, Speaker,
    scene::{self, Router, Wish, peer, two_sessions},
};

const PROGRAM: &str = "/usr/lib/frr/bgpd";

pub(crate) const SPEAKER: Speaker = Speaker {
    name: "FRR",
    program: PROGRAM,
    scenarios: &[
        Scenario { feature: scene::SESSION, name: "external_routes", run: external_routes },
        Scenario { feature: scene::SESSION, name: "internal_routes", run: internal_routes },
        Scenario {
            feature: scene::SESSION,
            name: "mapped_next_hop_is_refused_in_words",
            run: mapped_next_hop,
        },
        Scenario { feature: scene::COMMUNITIES, name: "communities", run: communities },
        Scenario { feature: scene::PASSWORD, name: "password", run: || scene::password(start) },
        Scenario { feature: scene::GTSM, name: "gtsm", run: || scene::ttl_security(start) },
        Scenario {
            feature: scene::REFLECTION,
            name: "reflection",
            run: || scene::reflection(start),
        },
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

struct Frr {
    lan: Lan,
    host: usize,
    processes: Vec<Process>,
}

impl Frr {
    fn start(lan: &Lan, host: usize, daemons: &[&str], body: &str) -> Self {
        let config = lan.file(host, "frr.conf", &format!("hostname frr\nlog stdout\n{body}"));
        let user = User::from_name("frr").unwrap().expect("FRR's user");
        let dir = lan.folder(host);
        for path in [&dir, &config] {
            chown(path, Some(user.uid), Some(user.gid)).unwrap();
        }
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let processes = daemons.iter().map(|name| {
            let mut arguments: Vec<String> = vec![
                "-f".into(),
                text(config.clone()),
                "-i".into(),
                text(dir.join(format!("{name}.pid"))),
                "-z".into(),
                text(dir.join("zserv.api")),
                "--vty_socket".into(),
                text(dir.clone()),
                "-P".into(),
                "0".into(),
                "--log".into(),
                "stdout".into(),
            ];
            if daemons == ["bgpd"] {
                arguments.push("--no_zebra".into());
            }
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            lan.spawn(host, Path::new(&format!("/usr/lib/frr/{name}")), &arguments)
        });
        Self { lan: lan.clone(), host, processes: processes.collect() }
    }

    fn control(&self, commands: &[&str]) -> Result<String, String> {
        let dir = self.lan.folder(self.host);
        let dir = dir.to_string_lossy();
        let mut arguments = vec!["--vty_socket", &*dir];
        arguments.extend(commands.iter().flat_map(|command| ["-c", *command]));
        self.lan.host(self.host).ask("vtysh", &arguments)
    }
}

fn family(prefix: &str) -> &'static str {
    if prefix.contains(':') { "ipv6" } else { "ipv4" }
}

impl Router for Frr {
    fn show(&self, prefix: &str) -> Result<String, String> {
        self.control(&[&format!("show bgp {} unicast {prefix}", family(prefix))])
    }

    fn kill(&mut self) {
        self.processes.iter_mut().for_each(Process::kill);
    }

    fn withdraw(&mut self) {
        for (family, prefix) in [("ipv4", "10.2.0.0/24"), ("ipv6", "fd00:2::/64")] {
            let commands = [
                "configure terminal",
                "router bgp",
                &format!("address-family {family} unicast"),
                &format!("no network {prefix}"),
            ];
            let _ = self.control(&commands).unwrap();
        }
    }
}

fn start(lan: &Lan, wish: &Wish) -> Box<dyn Router> {
    let mut body = format!(
        "router bgp {}\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         bgp graceful-restart\n",
        wish.asn
    );
    let mut family = " address-family ipv4 unicast\n".to_owned();
    for network in wish.networks {
        family += &format!("  network {network} route-map marked\n");
    }
    for (host, asn, client) in wish.neighbours {
        let name = format!("neighbor 10.0.0.{host}");
        body += &format!(
            " {name} remote-as {asn}\n {name} timers 3 9\n {name} timers connect 1\n {name} advertisement-interval 0\n"
        );
        if let Some(password) = wish.password {
            body += &format!(" {name} password {password}\n");
        }
        if wish.ttl_security {
            body += &format!(" {name} ttl-security hops 1\n");
        }
        if let Some(role) = wish.role {
            body += &format!(" {name} local-role {role}\n");
        }
        if wish.add_path {
            family += &format!("  {name} addpath-tx-all-paths\n");
        }
        if *client {
            family += &format!("  {name} route-reflector-client\n");
        }
        if let Some(limit) = wish.max_prefixes {
            family += &format!("  {name} maximum-prefix {limit}\n");
        }
    }
    body += &family;
    body += " exit-address-family\nroute-map marked permit 10\n set community 65002:100\n \
             set extcommunity rt 65002:100\n set large-community 65002:1:2\n";
    Box::new(Frr::start(lan, 2, &["zebra", "bgpd"], &body))
}

fn communities() {
    scene::communities(start, &["65003:7", "RT:65003:7", "65003:7:8"]);
}

fn config(asn: u32) -> String {
    format!(
        "router bgp {asn}
 bgp router-id 10.0.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 bgp graceful-restart
 neighbor 10.0.0.1 remote-as 65001
 neighbor 10.0.0.1 timers connect 1
 neighbor 10.0.0.1 timers 3 9
 neighbor 10.0.0.1 advertisement-interval 0
 neighbor fd00::1 remote-as 65001
 neighbor fd00::1 timers connect 1
 neighbor fd00::1 timers 3 9
 neighbor fd00::1 advertisement-interval 0
 address-family ipv4 unicast
  network 10.2.0.0/24
  neighbor 10.0.0.1 activate
 exit-address-family
 address-family ipv6 unicast
  network fd00:2::/64
  neighbor fd00::1 activate
 exit-address-family
"
    )
}

fn routes(asn: u32) {
    let lan = Lan::new(2);
    let sessions = two_sessions(asn);
    let voile = Voile::start(&lan, 1, 65001, &format!("{sessions}{}", scene::NETWORKS));
    let mut frr = Frr::start(&lan, 2, &["zebra", "bgpd"], &config(asn));
    scene::routes_both_ways(&lan, &voile, &sessions, &mut frr, asn == 65001);
}

fn external_routes() {
    routes(65002);
}

fn internal_routes() {
    routes(65001);
}

/// IPv6 routes over an IPv4 session of an FRR without zebra have a next hop that no kernel has a way to; the operator
/// learns what to do about it.
fn mapped_next_hop() {
    let lan = Lan::new(2);
    let both = "families = [\"ipv4\", \"ipv6\"]\nnext-hop-ipv6 = \"fd00::1\"";
    let body = peer("frr", "10.0.0.2", 65002, both);
    let voile = Voile::start(&lan, 1, 65001, &format!("install-routes = true\n{body}"));
    let config =
        config(65002).replace("  neighbor fd00::1 activate", "  neighbor 10.0.0.1 activate");
    let _frr = Frr::start(&lan, 2, &["bgpd"], &config);
    let _ = voile.wait_route("10.2.0.0/24", "frr");
    voile_tests::bgp::wait_text("the reason", &["rejected", "IPv4 address in IPv6 form"], || {
        Ok(format!("{:?}", voile.paths("fd00:2::/64")?))
    });
    assert!(!lan.routes(1).contains("fd00:2::/64"));
}
