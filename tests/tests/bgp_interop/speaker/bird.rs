//! BIRD 2.

use std::path::Path;

use voile_tests::{Process, bgp::Lan};

use super::{Over, Router, Session, Speaker, Wish, family};

pub(crate) const SPEAKER: Speaker = Speaker {
    name: "BIRD",
    program: "/usr/sbin/bird",
    start,
    communities: ["(65003,7)", "(rt, 65003, 7)", "(65003, 7, 8)"],
    llgr_stale: "(65535,6)",
    kernel: Some("bird"),
};

const RADV: &str =
    "protocol radv { interface \"eth0\" { max ra interval 4; default lifetime 0; }; }\n";

struct Bird {
    lan: Lan,
    host: usize,
    process: Process,
}

impl Bird {
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

    fn withdraw(&mut self, prefix: &str) {
        let _ = self.control(&["disable", &format!("own_{}", family(prefix))]).unwrap();
    }

    fn waits_for_us(&self, _: &str) -> Result<bool, String> {
        let state = self.control(&["show", "protocols", "all"])?;
        Ok(state.contains("Neighbor graceful restart active"))
    }

    fn bfd(&self) -> Result<String, String> {
        self.control(&["show", "bfd", "sessions"])
    }

    fn kill(&mut self) {
        self.process.kill();
    }
}

fn start(lan: &Lan, wish: &Wish) -> Box<dyn Router> {
    let host = wish.host;
    let mut text = format!(
        "router id 10.0.0.{host};\nlog stderr all;\nprotocol device {{ scan time 1; }}\n\
         protocol bfd {{ interface \"*\" {{ interval 100 ms; multiplier 3; }}; }}\n"
    );
    for family in ["ipv4", "ipv6"] {
        text += &format!(
            "protocol kernel {{ {family} {{ export all; }}; persist; graceful restart on; }}\n\
             protocol static own_{family} {{ {family};\n"
        );
        for network in wish.networks_of(family) {
            text += &format!(
                "route {network} blackhole {{ bgp_community.add((65002, 100)); \
                 bgp_ext_community.add((rt, 65002, 100)); bgp_large_community.add((65002, 1, 2)); }};\n"
            );
        }
        text += "}\n";
    }
    if wish.over == Over::Interface {
        text += RADV;
    }
    for (number, session) in wish.sessions().iter().enumerate() {
        let Session { local, neighbour, asn, .. } = session;
        // It finds nobody by itself: it advertises its router, and takes whoever comes on that link.
        let neighbour = match wish.over {
            Over::Interface => {
                format!("neighbor range fe80::/10 as {asn}; interface \"{neighbour}\"")
            }
            _ => format!("neighbor {neighbour} as {asn}"),
        };
        text += &format!(
            "protocol bgp b{number} {{ local {local} as {}; {neighbour}; hold time 9;\n\
             connect delay time 1; connect retry time 1; error wait time 1, 2; graceful restart on;\n\
             enable extended messages on;\n",
            wish.asn
        );
        if let Some(password) = wish.password {
            text += &format!("password \"{password}\";\n");
        }
        if let Some(role) = wish.role {
            text += &format!("local role {role};\n");
        }
        for (wanted, words) in [
            (wish.ttl_security, "ttl security on;\n"),
            (session.client, "rr client;\n"),
            (wish.bfd, "bfd on;\n"),
            (
                wish.long_lived,
                "graceful restart time 3;\nlong lived graceful restart on;\nlong lived stale time 60;\n",
            ),
        ] {
            text += if wanted { words } else { "" };
        }
        for family in session.families {
            text += &format!("{family} {{ import all; export all;");
            if let Some(limit) = wish.max_prefixes {
                // It closes with our messages unread, so that the kernel resets the connection, and drops its
                // NOTIFICATION while that waits for an acknowledgement (RFC 1122 §4.2.2.13, Nagle). With `restart` there is
                // a next time, with `disable` there is none.
                text += &format!(" import limit {limit} action restart;");
            }
            text += if wish.add_path { " add paths on;" } else { "" };
            let extended = matches!(wish.over, Over::Ipv6 | Over::Interface);
            text += if extended { " extended next hop on;" } else { "" };
            text += " };\n";
        }
        text += "}\n";
    }
    let process = run(lan, host, &text, if wish.restarted { &["-R"] } else { &[] });
    Box::new(Bird { lan: lan.clone(), host, process })
}

/// Advertises a router (RFC 4861 section 4.2) for a speaker that does not itself.
pub(super) fn advertise(lan: &Lan, host: usize) -> Process {
    run(lan, host, &format!("router id 10.0.0.{host};\nprotocol device {{}}\n{RADV}"), &[])
}

fn run(lan: &Lan, host: usize, config: &str, more: &[&str]) -> Process {
    let config = lan.file(host, "bird.conf", config);
    let socket = lan.folder(host).join("bird.ctl");
    let (config, socket) = (config.to_string_lossy(), socket.to_string_lossy());
    let arguments = ["-f", "-c", &*config, "-s", &*socket];
    lan.spawn(host, Path::new(SPEAKER.program), &[&arguments, more].concat())
}
