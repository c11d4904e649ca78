//! GoBGP.

use std::path::Path;

use voile_tests::{
    Process,
    bgp::{Lan, PATIENCE},
    wait_for,
};

use super::{Over, Router, Session, Speaker, Wish, bird, family};

pub(crate) const SPEAKER: Speaker = Speaker {
    name: "GoBGP",
    program: "/usr/bin/gobgpd",
    start,
    communities: ["65003:7", "[65003:7]", "65003:7:8"],
    llgr_stale: "llgr-stale",
    kernel: None,
};

struct Gobgp {
    lan: Lan,
    host: usize,
    process: Process,
    /// Advertises its router where it runs: it does not itself.
    _advertiser: Option<Process>,
}

impl Gobgp {
    fn control(&self, words: &[&str]) -> Result<String, String> {
        let ask = || self.lan.host(self.host).ask("gobgp", words);
        // On a busy machine the server may answer too late for its client.
        let too_late = |answer: &Result<String, String>| {
            answer.as_ref().is_err_and(|error| error.contains("deadline exceeded"))
        };
        let answer = ask();
        if too_late(&answer) { ask() } else { answer }
    }

    fn rib(&self, verb: &str, prefix: &str, more: &[&str]) -> Result<String, String> {
        let words = ["global", "rib", verb, prefix, "-a", family(prefix)];
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

    fn withdraw(&mut self, prefix: &str) {
        let _ = self.rib("del", prefix, &[]).unwrap();
    }

    fn waits_for_us(&self, prefix: &str) -> Result<bool, String> {
        // Its flags: stale, valid, best.
        Ok(self.show(prefix)?.lines().any(|line| line.starts_with('S')))
    }

    fn kill(&mut self) {
        self.process.kill();
    }
}

fn neighbour(wish: &Wish, session: &Session, reflects: bool) -> String {
    let by = if wish.over == Over::Interface { "interface" } else { "address" };
    let mut text = format!(
        "[[neighbors]]\n[neighbors.config]\nneighbor-{by} = \"{}\"\npeer-as = {}\n",
        session.neighbour, session.asn
    );
    if let Some(password) = wish.password {
        text += &format!("auth-password = \"{password}\"\n");
    }
    text += &format!(
        "[neighbors.timers.config]\nhold-time = 9\nkeepalive-interval = 3\nconnect-retry = 1\n\
         [neighbors.graceful-restart.config]\nenabled = true\nnotification-enabled = true\n\
         restart-time = {}\nlong-lived-enabled = {}\n",
        if wish.long_lived { 3 } else { 60 },
        wish.long_lived
    );
    if wish.ttl_security {
        text += "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n";
    }
    if reflects {
        text += &format!(
            "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
             route-reflector-cluster-id = \"10.0.0.{}\"\n",
            wish.host
        );
    }
    for family in session.families {
        text += &format!(
            "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}-unicast\"\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n"
        );
        if wish.long_lived {
            text += "[neighbors.afi-safis.long-lived-graceful-restart.config]\nenabled = true\n\
                     restart-time = 60\n";
        }
        if wish.add_path {
            text += "[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n";
        }
        if let Some(limit) = wish.max_prefixes {
            text += &format!("[neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = {limit}\n");
        }
    }
    text
}

/// Lets us find the router. It looks only once, when it starts, who is at the other end of the interface, so that is waited for.
fn advertise(lan: &Lan, host: usize) -> Process {
    let process = bird::advertise(lan, host);
    wait_for("a neighbour on the link", PATIENCE, || {
        let known = lan.host(host).ask("ip", &["-6", "neighbour", "show", "dev", "eth0"])?;
        let reached = known.contains("fe80::") && !known.contains("FAILED");
        if reached { Ok(()) } else { Err(known) }
    });
    process
}

fn start(lan: &Lan, wish: &Wish) -> Box<dyn Router> {
    let host = wish.host;
    let advertiser = (wish.over == Over::Interface).then(|| advertise(lan, host));
    let mut text = format!("[global.config]\nas = {}\nrouter-id = \"10.0.0.{host}\"\n", wish.asn);
    // To a peer that is no client it reflects without ORIGINATOR_ID and CLUSTER_LIST: all are clients of a reflector.
    let reflects = wish.neighbours.iter().any(|(.., client)| *client);
    for session in wish.sessions() {
        text += &neighbour(wish, &session, reflects);
    }
    let config = lan.file(host, "gobgpd.toml", &text);
    let config = config.to_string_lossy();
    let mut arguments = vec!["-t", "toml", "-f", &*config];
    if wish.restarted {
        arguments.push("-r");
    }
    let process = lan.spawn(host, Path::new(SPEAKER.program), &arguments);
    let gobgp = Gobgp { lan: lan.clone(), host, process, _advertiser: advertiser };
    wait_for("GoBGP's API", PATIENCE, || gobgp.control(&["global"]));
    for network in wish.networks {
        let next_hop = match (wish.over, family(network)) {
            (Over::Interface, _) => "::".to_owned(),
            (Over::Ipv6, _) | (_, "ipv6") => format!("fd00::{host}"),
            _ => format!("10.0.0.{host}"),
        };
        let attached = ["nexthop", &next_hop, "community", "65002:100", "rt", "65002:100"];
        let large = ["large-community", "65002:1:2"];
        let _ = gobgp.rib("add", network, &[&attached[..], &large[..]].concat()).unwrap();
    }
    Box::new(gobgp)
}
