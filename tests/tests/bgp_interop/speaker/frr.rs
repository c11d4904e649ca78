//! FRR: zebra, bgpd, and bfdd where it is wished for.

use std::path::{Path, PathBuf};

use nix::unistd::{User, chown};
use voile_tests::{
    Process,
    bgp::{Lan, wait_text},
};

use super::{Over, Router, Speaker, Wish, family};

pub(crate) const SPEAKER: Speaker = Speaker {
    name: "FRR",
    program: "/usr/lib/frr/bgpd",
    start,
    communities: ["65003:7", "RT:65003:7", "65003:7:8"],
    llgr_stale: "llgr-stale",
    kernel: Some("bgp"),
};

struct Frr {
    lan: Lan,
    host: usize,
    processes: Vec<Process>,
}

impl Frr {
    fn control(&self, commands: &[&str]) -> Result<String, String> {
        control(&self.lan, self.host, &[], commands)
    }
}

fn control(lan: &Lan, host: usize, more: &[&str], commands: &[&str]) -> Result<String, String> {
    let dir = lan.folder(host);
    let dir = dir.to_string_lossy();
    let mut arguments = vec!["--vty_socket", &*dir];
    arguments.extend(more);
    arguments.extend(commands.iter().flat_map(|command| ["-c", *command]));
    lan.host(host).ask("vtysh", &arguments)
}

impl Router for Frr {
    fn show(&self, prefix: &str) -> Result<String, String> {
        self.control(&[&format!("show bgp {} unicast {prefix}", family(prefix))])
    }

    fn withdraw(&mut self, prefix: &str) {
        let commands = [
            "configure terminal",
            "router bgp",
            &format!("address-family {} unicast", family(prefix)),
            &format!("no network {prefix}"),
        ];
        let _ = self.control(&commands).unwrap();
    }

    fn waits_for_us(&self, prefix: &str) -> Result<bool, String> {
        Ok(self.show(prefix)?.contains("(stale)"))
    }

    fn bfd(&self) -> Result<String, String> {
        self.control(&["show bfd peers"])
    }

    fn kill(&mut self) {
        self.processes.iter_mut().for_each(Process::kill);
    }
}

fn start(lan: &Lan, wish: &Wish) -> Box<dyn Router> {
    let daemons: &[&str] = if wish.bfd { &["zebra", "bfdd", "bgpd"] } else { &["zebra", "bgpd"] };
    start_daemons(lan, daemons, wish)
}

/// bgpd alone: there is nobody to ask for addresses.
pub(crate) fn start_without_zebra(lan: &Lan, wish: &Wish) -> Box<dyn Router> {
    start_daemons(lan, &["bgpd"], wish)
}

fn start_daemons(lan: &Lan, daemons: &[&str], wish: &Wish) -> Box<dyn Router> {
    let host = wish.host;
    let text = format!("hostname frr\nlog stdout\n{}", configuration(wish));
    let config = lan.file(host, "frr.conf", &text);
    let user = User::from_name("frr").unwrap().expect("FRR's user");
    let dir = lan.folder(host);
    for path in [&dir, &config] {
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let processes = daemons.iter().map(|name| {
        let mut arguments: Vec<String> = ["-P", "0", "--log", "stdout"].map(str::to_owned).into();
        for (option, path) in [
            ("-f", config.clone()),
            ("-i", dir.join(format!("{name}.pid"))),
            ("-z", dir.join("zserv.api")),
            ("--vty_socket", dir.clone()),
        ] {
            arguments.extend([option.to_owned(), text(path)]);
        }
        if daemons == ["bgpd"] {
            arguments.push("--no_zebra".into());
        }
        if *name == "zebra" && wish.restarted {
            // Without it zebra begins with removing what it had installed.
            arguments.extend(["-K".to_owned(), "60".to_owned()]);
        }
        if *name == "bfdd" {
            arguments.extend(["--bfdctl".to_owned(), text(dir.join("bfdd.sock"))]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let process = lan.spawn(host, Path::new(&format!("/usr/lib/frr/{name}")), &arguments);
        if wish.bfd {
            // One after the other, as FRR's own scripts do it: a bgpd that comes before bfdd may never tell it about
            // its peers.
            wait_text(name, &["FRRouting"], || {
                control(lan, host, &["-d", name], &["show version"])
            });
        }
        if *name == "bfdd" {
            wait_text("clients of zebra", &["bfd"], || {
                control(lan, host, &["-d", "zebra"], &["show zebra client summary"])
            });
        }
        process
    });
    let processes = processes.collect();
    Box::new(Frr { lan: lan.clone(), host, processes })
}

fn configuration(wish: &Wish) -> String {
    // What a route-map says must be known before a network uses it: after a restart FRR ends its table without the network
    // otherwise.
    let mut text = format!(
        "route-map marked permit 10\n set community 65002:100\n set extcommunity rt 65002:100\n \
         set large-community 65002:1:2\nexit\nrouter bgp {}\n bgp router-id 10.0.0.{}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         no bgp default ipv4-unicast\n bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n",
        wish.asn, wish.host
    );
    if wish.long_lived {
        text += " bgp graceful-restart restart-time 3\n bgp long-lived-graceful-restart stale-time 60\n";
    }
    let mut families = String::new();
    for name in ["ipv4", "ipv6"] {
        families += &format!(" address-family {name} unicast\n");
        for network in wish.networks_of(name) {
            families += &format!("  network {network} route-map marked\n");
        }
        for session in wish.sessions().iter().filter(|session| session.families.contains(&name)) {
            let name = format!("  neighbor {}", session.neighbour);
            families += &format!("{name} activate\n");
            if wish.add_path {
                families += &format!("{name} addpath-tx-all-paths\n");
            }
            if session.client {
                families += &format!("{name} route-reflector-client\n");
            }
            if let Some(limit) = wish.max_prefixes {
                families += &format!("{name} maximum-prefix {limit}\n");
            }
        }
        families += " exit-address-family\n";
    }
    for session in wish.sessions() {
        let name = format!(" neighbor {}", session.neighbour);
        text += &match wish.over {
            Over::Interface => format!("{name} interface remote-as external\n"),
            _ => format!("{name} remote-as {}\n", session.asn),
        };
        text += &format!(
            "{name} timers 3 9\n{name} timers connect 1\n{name} advertisement-interval 0\n"
        );
        if wish.over == Over::Ipv6 {
            text += &format!("{name} capability extended-nexthop\n");
        }
        if wish.bfd {
            text += &format!("{name} bfd\n{name} bfd profile fast\n");
        }
        if let Some(password) = wish.password {
            text += &format!("{name} password {password}\n");
        }
        if wish.ttl_security {
            text += &format!("{name} ttl-security hops 1\n");
        }
        if let Some(role) = wish.role {
            text += &format!("{name} local-role {role}\n");
        }
    }
    text += &families;
    text += "exit\n";
    if wish.bfd {
        text += "bfd\n profile fast\n  transmit-interval 100\n  receive-interval 100\n";
    }
    text
}
