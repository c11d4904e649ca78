//! ExaBGP: no router, but it says and shows what it is told.

use std::path::Path;

use voile_tests::{Process, bgp::Lan};

use super::{
    Scenario, Speaker,
    scene::{self, Router, Wish},
};

const PROGRAM: &str = "/usr/sbin/exabgp";

pub(crate) const SPEAKER: Speaker = Speaker {
    name: "ExaBGP",
    program: PROGRAM,
    scenarios: &[
        Scenario { feature: scene::COMMUNITIES, name: "communities", run: communities },
        Scenario { feature: scene::PASSWORD, name: "password", run: || scene::password(start) },
        Scenario { feature: scene::HELPER, name: "it_restarts", run: || scene::helper(start) },
        Scenario {
            feature: scene::EXTENDED,
            name: "long_route",
            run: || scene::long_route(start, true),
        },
        Scenario { feature: scene::OUR_LIMIT, name: "our_limit", run: || scene::our_limit(start) },
        Scenario { feature: scene::DYNAMIC, name: "dynamic", run: || scene::dynamic(start) },
    ],
};

struct Exabgp {
    lan: Lan,
    process: Process,
}

impl Router for Exabgp {
    fn show(&self, prefix: &str) -> Result<String, String> {
        let text = std::fs::read_to_string(self.lan.folder(2).join("updates.json"));
        let text = text.map_err(|error| format!("{error}\n{}", self.process.log()))?;
        Ok(text.lines().rev().find(|line| line.contains(prefix)).unwrap_or_default().to_owned())
    }

    fn withdraw(&mut self) {
        unreachable!("no scenario asks for it")
    }

    fn kill(&mut self) {
        self.process.kill();
    }
}

fn start(lan: &Lan, wish: &Wish) -> Box<dyn Router> {
    let updates = lan.folder(2).join("updates.json");
    // Its standard output must stay open: to ExaBGP it is dead otherwise.
    let keep = format!(
        "#!/bin/sh\nwhile IFS= read -r line; do printf '%s\\n' \"$line\" >> {}; done\n",
        updates.display()
    );
    let script = lan.file(2, "keep.sh", &keep);
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut text = format!("process keep {{ run {}; encoder json; }}\n", script.display());
    for (host, asn, _) in wish.neighbours {
        text += &format!(
            "neighbor 10.0.0.{host} {{ router-id 10.0.0.2; local-address 10.0.0.2; local-as {}; peer-as {asn};\n\
             hold-time 9; family {{ ipv4 unicast; }} capability {{ graceful-restart 60; }}\n",
            wish.asn
        );
        if let Some(password) = wish.password {
            text += &format!("md5-password '{password}';\n");
        }
        text += "static {\n";
        for network in wish.networks {
            text += &format!(
                "route {network} next-hop 10.0.0.2 community [65002:100] \
                 extended-community [target:65002:100] large-community [65002:1:2];\n"
            );
        }
        text += "}\napi { processes [ keep ]; receive { parsed; update; } }\n}\n";
    }
    let config = lan.file(2, "exabgp.conf", &text);
    let environment = [
        "exabgp.daemon.drop=false",
        "exabgp.api.cli=false",
        "exabgp.log.level=INFO",
        "exabgp.daemon.user=root",
    ];
    let config = config.to_string_lossy();
    let mut arguments: Vec<&str> = environment.to_vec();
    arguments.extend([PROGRAM, &*config]);
    let process = lan.spawn(2, Path::new("/usr/bin/env"), &arguments);
    Box::new(Exabgp { lan: lan.clone(), process })
}

fn communities() {
    scene::communities(start, &["[ 65003, 7 ]", "target:65003:7", "65003, 7 , 8"]);
}
