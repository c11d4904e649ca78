//! OpenBGPD.

use std::path::Path;

use voile_tests::{Process, bgp::Lan};

use super::{
    Scenario, Speaker,
    scene::{self, Router, Wish},
};

const PROGRAM: &str = "/usr/sbin/bgpd";

// No scenario of reflection: in about every second run OpenBGPD 7.7 passes the client's route on without ORIGINATOR_ID and
// CLUSTER_LIST (RFC 4456 section 8 wants both).
pub(crate) const SPEAKER: Speaker = Speaker {
    name: "OpenBGPD",
    program: PROGRAM,
    scenarios: &[
        Scenario { feature: scene::COMMUNITIES, name: "communities", run: communities },
        Scenario { feature: scene::PASSWORD, name: "password", run: || scene::password(start) },
        Scenario { feature: scene::GTSM, name: "gtsm", run: || scene::ttl_security(start) },
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
        Scenario { feature: scene::ROLES, name: "roles", run: || scene::roles(start) },
        Scenario { feature: scene::DYNAMIC, name: "dynamic", run: || scene::dynamic(start) },
    ],
};

struct Openbgpd {
    lan: Lan,
    process: Process,
}

impl Router for Openbgpd {
    fn show(&self, prefix: &str) -> Result<String, String> {
        let socket = self.lan.folder(2).join("bgpd.sock");
        let socket = socket.to_string_lossy();
        self.lan.host(2).ask("bgpctl", &["-s", &socket, "show", "rib", "detail", prefix])
    }

    fn withdraw(&mut self) {
        unreachable!("no scenario asks for it")
    }

    fn kill(&mut self) {
        self.process.kill();
    }
}

fn start(lan: &Lan, wish: &Wish) -> Box<dyn Router> {
    let socket = lan.folder(2).join("bgpd.sock");
    let mut text = format!(
        "AS {}\nrouter-id 10.0.0.2\nfib-update no\nconnect-retry 1\nsocket \"{}\"\n",
        wish.asn,
        socket.display()
    );
    for network in wish.networks {
        text += &format!(
            "network {network} set {{ community 65002:100 ext-community rt 65002:100 \
             large-community 65002:1:2 }}\n"
        );
    }
    for (host, asn, client) in wish.neighbours {
        text += &format!(
            "neighbor 10.0.0.{host} {{\n remote-as {asn}\n holdtime 9\n announce restart yes\n"
        );
        if let Some(password) = wish.password {
            text += &format!(" tcp md5sig password {password}\n");
        }
        if wish.ttl_security {
            text += " ttl-security yes\n";
        }
        if wish.add_path {
            text += " announce add-path recv yes\n announce add-path send all\n";
        }
        if let Some(role) = wish.role {
            text += &format!(" announce policy {role}\n");
        }
        if *client {
            text += " route-reflector\n";
        }
        if let Some(limit) = wish.max_prefixes {
            text += &format!(" max-prefix {limit}\n");
        }
        text += "}\n";
    }
    text += "allow from any\nallow to any\n";
    let config = lan.file(2, "bgpd.conf", &text);
    // It refuses a configuration that others may read.
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let process = lan.spawn(2, Path::new(PROGRAM), &["-d", "-f", &config.to_string_lossy()]);
    Box::new(Openbgpd { lan: lan.clone(), process })
}

fn communities() {
    scene::communities(start, &["65003:7", "rt 65003:7", "65003:7:8"]);
}
