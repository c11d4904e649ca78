//! OpenBGPD.

use std::path::Path;

use voile_tests::{Process, bgp::Lan};

use super::{Router, Speaker, Wish};

pub(crate) const SPEAKER: Speaker = Speaker {
    name: "OpenBGPD",
    program: "/usr/sbin/bgpd",
    start,
    communities: ["65003:7", "rt 65003:7", "65003:7:8"],
    llgr_stale: "65535:6",
    kernel: None,
};

struct Openbgpd {
    lan: Lan,
    host: usize,
    process: Process,
}

impl Openbgpd {
    fn control(&self, words: &[&str]) -> Result<String, String> {
        let socket = self.lan.folder(self.host).join("bgpd.sock");
        let socket = socket.to_string_lossy();
        let arguments: Vec<&str> =
            ["-s", &socket].into_iter().chain(words.iter().copied()).collect();
        self.lan.host(self.host).ask("bgpctl", &arguments)
    }
}

impl Router for Openbgpd {
    fn show(&self, prefix: &str) -> Result<String, String> {
        self.control(&["show", "rib", "detail", prefix])
    }

    fn withdraw(&mut self, prefix: &str) {
        let _ = self.control(&["network", "delete", prefix]).unwrap();
    }

    fn waits_for_us(&self, prefix: &str) -> Result<bool, String> {
        Ok(self.show(prefix)?.contains("stale"))
    }

    fn kill(&mut self) {
        self.process.kill();
    }
}

fn start(lan: &Lan, wish: &Wish) -> Box<dyn Router> {
    let host = wish.host;
    let socket = lan.folder(host).join("bgpd.sock");
    let mut text = format!(
        "AS {}\nrouter-id 10.0.0.{host}\nfib-update no\nconnect-retry 1\nsocket \"{}\"\n",
        wish.asn,
        socket.display()
    );
    for network in wish.networks {
        text += &format!(
            "network {network} set {{ community 65002:100 ext-community rt 65002:100 \
             large-community 65002:1:2 }}\n"
        );
    }
    for session in wish.sessions() {
        text += &format!(
            "neighbor {} {{\n remote-as {}\n holdtime 9\n announce restart yes\n",
            session.neighbour, session.asn
        );
        if let Some(password) = wish.password {
            text += &format!(" tcp md5sig password {password}\n");
        }
        if let Some(role) = wish.role {
            text += &format!(" announce policy {role}\n");
        }
        if let Some(limit) = wish.max_prefixes {
            text += &format!(" max-prefix {limit}\n");
        }
        for (wanted, words) in [
            (wish.ttl_security, " ttl-security yes\n"),
            (wish.add_path, " announce add-path recv yes\n announce add-path send all\n"),
            (session.client, " route-reflector\n"),
        ] {
            text += if wanted { words } else { "" };
        }
        text += "}\n";
    }
    text += "allow from any\nallow to any\n";
    let config = lan.file(host, "bgpd.conf", &text);
    // It refuses a configuration that others may read.
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let process =
        lan.spawn(host, Path::new(SPEAKER.program), &["-d", "-f", &config.to_string_lossy()]);
    Box::new(Openbgpd { lan: lan.clone(), host, process })
}
