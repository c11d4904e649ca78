//! BFD beside BIRD and FRR: sessions come up, and a path that dies without a word ends the BGP session long before the hold
//! time of 90 s is over.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: what fails here fails it, with the reason"
)]

use std::path::{Path, PathBuf};

use nix::unistd::{User, chown};
use voile_tests::{
    Process,
    bgp::{Lan, Voile, wait_text},
    can_make_namespaces, skip,
};

const SESSION: &str = "
[[peer]]
name = \"other\"
address = \"ADDRESS\"
as = 65002
connect-retry = 1
import-default = \"accept\"
export-default = \"accept\"
bfd = { interval = 0.1, multiplier = 3, strict = true }
[[network]]
prefix = \"10.1.0.0/24\"
";

fn is_missing(program: &str) -> bool {
    let reason = if !can_make_namespaces() {
        Some("needs root".to_owned())
    } else if !Path::new(program).exists() {
        Some(format!("{program} is not installed"))
    } else {
        None
    };
    if let Some(reason) = &reason {
        skip(program, reason);
    }
    reason.is_some()
}

/// The path dies: frames are dropped on the way, and no link loses its carrier.
fn the_path_dies(lan: &Lan, voile: &Voile) {
    lan.block(2);
    let peer = voile.wait_peer("other", |peer| peer["state"] != "Established");
    let history = peer["history"].as_array().unwrap();
    let cause = "BFD session is down: control detection time expired";
    assert!(history.iter().any(|each| each["cause"] == cause), "{peer:#}");
    // Strict: nothing of the peer's is kept.
    voile.wait_no_route("10.2.0.0/24");
    lan.unblock(2);
    voile.wait_established("other");
    let _ = voile.wait_peer("other", |peer| peer["bfd"] == "Up");
}

#[test]
fn with_bird() {
    const BIRD: &str = "/usr/sbin/bird";
    if is_missing(BIRD) {
        return;
    }
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &SESSION.replace("ADDRESS", "10.0.0.2"));
    let config = lan.file(
        2,
        "bird.conf",
        "router id 10.0.0.2;\nlog stderr all;\nprotocol device {}\n\
         protocol bfd { interface \"*\" { interval 100 ms; multiplier 3; }; }\n\
         protocol static { ipv4; route 10.2.0.0/24 blackhole; }\n\
         protocol bgp voile { local 10.0.0.2 as 65002; neighbor 10.0.0.1 as 65001; bfd on;\n\
         connect delay time 1; connect retry time 1; error wait time 1, 2;\n\
         ipv4 { import all; export where source = RTS_STATIC; next hop self; }; }\n",
    );
    let socket = lan.folder(2).join("bird.ctl");
    let arguments = ["-f", "-c", &config.to_string_lossy(), "-s", &socket.to_string_lossy()];
    let _bird = lan.spawn(2, Path::new(BIRD), &arguments);
    let birdc = || {
        let socket = socket.to_string_lossy();
        lan.host(2).ask("birdc", &["-s", &socket, "show", "bfd", "sessions"])
    };
    let _ = voile.wait_route("10.2.0.0/24", "other");
    let _ = voile.wait_peer("other", |peer| peer["bfd"] == "Up");
    // 100 ms both ways, three of them.
    wait_text("BIRD's session", &["10.0.0.1", "Up", "0.100", "0.300"], birdc);
    the_path_dies(&lan, &voile);
    wait_text("BIRD's session", &["Up"], birdc);
}

#[test]
fn with_frr() {
    const BFDD: &str = "/usr/lib/frr/bfdd";
    if is_missing(BFDD) {
        return;
    }
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &SESSION.replace("ADDRESS", "fd00::2"));
    let _ = lan.file(2, "zebra.conf", "log stdout\n");
    let _ = lan.file(
        2,
        "bfdd.conf",
        "log stdout\nbfd\n profile fast\n  transmit-interval 100\n  receive-interval 100\n",
    );
    let _ = lan.file(
        2,
        "bgpd.conf",
        "log stdout\nrouter bgp 65002\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n\
         no bgp network import-check\n timers bgp connect 1\n\
         neighbor fd00::1 remote-as 65001\n neighbor fd00::1 bfd\n neighbor fd00::1 bfd profile fast\n\
         address-family ipv6 unicast\n  neighbor fd00::1 activate\n exit-address-family\n",
    );
    let _frr = frr(&lan);
    voile.wait_established("other");
    let dir = lan.folder(2);
    let vtysh = || {
        let folder = dir.to_string_lossy();
        let arguments = ["--vty_socket", &folder, "-c", "show bfd peers"];
        let answer = lan.host(2).ask("vtysh", &arguments)?;
        let log = std::fs::read_to_string(dir.join("bfdd.log")).unwrap_or_default();
        Ok(format!("{answer}\n{log}"))
    };
    wait_text("FRR's session", &["Status: up", "Transmission interval: 100ms"], vtysh);
    let _ = voile.wait_peer("other", |peer| peer["bfd"] == "Up");
    the_path_dies(&lan, &voile);
}

/// zebra, bfdd and bgpd, with their sockets in the folder of the host. One after the other, as FRR's own scripts do it: a
/// bgpd that comes before bfdd may never tell it about its peers.
fn frr(lan: &Lan) -> Vec<Process> {
    let user = User::from_name("frr").unwrap().expect("FRR's user");
    let dir = lan.folder(2);
    chown(&dir, Some(user.uid), Some(user.gid)).unwrap();
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let daemons = ["zebra", "bfdd", "bgpd"].iter().map(|name| {
        let mut arguments: Vec<String> = ["-P", "0", "--log", "stdout"].map(str::to_owned).into();
        for (option, path) in [
            ("-f", dir.join(format!("{name}.conf"))),
            ("-i", dir.join(format!("{name}.pid"))),
            ("-z", dir.join("zserv.api")),
            ("--vty_socket", dir.clone()),
        ] {
            arguments.extend([option.to_owned(), text(path)]);
        }
        if *name == "bfdd" {
            arguments.extend(["--bfdctl".to_owned(), text(dir.join("bfdd.sock"))]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let process = lan.spawn(2, Path::new(&format!("/usr/lib/frr/{name}")), &arguments);
        let folder = dir.to_string_lossy();
        wait_text(name, &["FRRouting"], || {
            let arguments = ["--vty_socket", &folder, "-d", name, "-c", "show version"];
            lan.host(2).ask("vtysh", &arguments)
        });
        if *name == "bfdd" {
            wait_text("clients of zebra", &["bfd"], || {
                let arguments =
                    ["--vty_socket", &folder, "-d", "zebra", "-c", "show zebra client summary"];
                lan.host(2).ask("vtysh", &arguments)
            });
        }
        process
    });
    daemons.collect()
}
