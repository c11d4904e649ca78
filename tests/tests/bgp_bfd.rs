//! BFD beside BIRD: sessions come up, and a path that dies without a word ends the BGP session in a second, although
//! the hold time is 90.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: what fails here fails it, with the reason"
)]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use voile_tests::{
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
    let before = Instant::now();
    lan.block(2);
    let peer = voile.wait_peer("other", |peer| peer["state"] != "Established");
    let took = before.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
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
