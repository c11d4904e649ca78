//! ExaBGP: no router, but it says and shows what it is told.

use std::{io::Write as _, path::Path};

use voile_tests::{Process, bgp::Lan};

use super::{Router, Session, Speaker, Wish, family};

pub(crate) const SPEAKER: Speaker = Speaker {
    name: "ExaBGP",
    program: "/usr/sbin/exabgp",
    start,
    // Its JSON without commas.
    communities: ["[ 65003 7 ]", "target:65003:7", "65003 7  8"],
    llgr_stale: "[ 65535 6 ]",
    kernel: None,
};

struct Exabgp {
    lan: Lan,
    host: usize,
    process: Process,
}

/// Keeps what ExaBGP tells, and passes on what it is to be told. To ExaBGP it is dead once its standard output is closed.
const KEEP: &str = "#!/bin/sh
cd \"$(dirname \"$0\")\"
[ -p commands ] || mkfifo commands
exec 3<>commands
cat <&3 &
while IFS= read -r line; do printf '%s\\n' \"$line\" >> updates.json; done
kill $!
";

impl Router for Exabgp {
    /// Returns the messages that announced a prefix since it was withdrawn last.
    fn show(&self, prefix: &str) -> Result<String, String> {
        let text = std::fs::read_to_string(self.lan.folder(self.host).join("updates.json"));
        let text = text.map_err(|error| format!("{error}\n{}", self.process.log()))?;
        let mut known = Vec::new();
        for line in text.lines().filter(|line| line.contains(&format!("\"{prefix}\""))) {
            let Some((_, update)) = line.split_once("\"update\"") else { continue };
            if update.contains("\"withdraw\"") {
                known.clear();
            } else {
                known.push(update.replace(',', ""));
            }
        }
        Ok(known.join("\n"))
    }

    fn withdraw(&mut self, prefix: &str) {
        let path = self.lan.folder(self.host).join("commands");
        let mut commands = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        writeln!(commands, "withdraw route {prefix} next-hop {}", next_hop(prefix, self.host))
            .unwrap();
    }

    fn waits_for_us(&self, _: &str) -> Result<bool, String> {
        Err("it keeps no table".to_owned())
    }

    fn kill(&mut self) {
        self.process.kill();
    }
}

fn next_hop(prefix: &str, host: usize) -> String {
    if family(prefix) == "ipv6" { format!("fd00::{host}") } else { format!("10.0.0.{host}") }
}

fn neighbour(wish: &Wish, session: &Session) -> String {
    let Session { local, neighbour, asn, families, .. } = session;
    let mut text = format!(
        "neighbor {neighbour} {{ router-id 10.0.0.{}; local-address {local}; local-as {}; peer-as {asn};\n\
         hold-time 9; family {{ ",
        wish.host, wish.asn
    );
    families.iter().for_each(|family| text += &format!("{family} unicast; "));
    text += "}\ncapability { graceful-restart 60; ";
    if wish.add_path {
        text += "add-path send/receive; } add-path { ipv4 unicast; ";
    }
    text += "}\n";
    if let Some(password) = wish.password {
        text += &format!("md5-password '{password}';\n");
    }
    if wish.ttl_security {
        text += "outgoing-ttl 255; incoming-ttl 255;\n";
    }
    text += "static {\n";
    for (number, network) in wish.networks.iter().enumerate() {
        if !families.contains(&family(network)) {
            continue;
        }
        let path =
            if wish.add_path { format!("path-information 0.0.0.{number}") } else { String::new() };
        text += &format!(
            "route {network} {path} next-hop {} community [65002:100] \
             extended-community [target:65002:100] large-community [65002:1:2];\n",
            next_hop(network, wish.host)
        );
    }
    text + "}\napi { processes [ keep ]; receive { parsed; update; } }\n}\n"
}

fn start(lan: &Lan, wish: &Wish) -> Box<dyn Router> {
    let host = wish.host;
    let script = lan.file(host, "keep.sh", KEEP);
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut text = format!("process keep {{ run {}; encoder json; }}\n", script.display());
    for session in wish.sessions() {
        text += &neighbour(wish, &session);
    }
    let config = lan.file(host, "exabgp.conf", &text);
    let environment = [
        "exabgp.daemon.drop=false",
        "exabgp.api.cli=false",
        "exabgp.log.level=INFO",
        "exabgp.daemon.user=root",
    ];
    let config = config.to_string_lossy();
    let mut arguments: Vec<&str> = environment.to_vec();
    arguments.extend([SPEAKER.program, &*config]);
    let process = lan.spawn(host, Path::new("/usr/bin/env"), &arguments);
    Box::new(Exabgp { lan: lan.clone(), host, process })
}
