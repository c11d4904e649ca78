//! What guards and watches a session: keys, hop limits, BFD.

use std::time::Duration;

use voile_tests::bgp::{Lan, Voile, wait_text};

use super::{one_session, two_sessions};
use crate::speaker::{Over, Speaker, WISH, Wish};

/// The right key, then a wrong one on our side, then the right one again.
pub(crate) fn password(speaker: &Speaker) {
    let lan = Lan::new(2);
    let with = |key: &str| one_session(&format!("password = \"{key}\""));
    let voile = Voile::start(&lan, 1, 65001, &with("secret"));
    let _router = (speaker.start)(&lan, &Wish { password: Some("secret"), ..WISH });
    let _ = voile.wait_route("10.2.0.0/24", "peer");
    voile.configure(&with("wrong"));
    let _ = voile.wait_peer("peer", |peer| peer["state"] != "Established");
    // Time enough for both sides to try: each does so every second or two.
    std::thread::sleep(Duration::from_secs(4));
    let state = voile.peer("peer").unwrap();
    assert_ne!(state["state"], "Established", "{state:#}");
    // What was learned with the right key may only be kept as by graceful restart.
    let paths = voile.paths("10.2.0.0/24").unwrap();
    assert!(paths.iter().all(|path| path["stale"] == true), "{paths:#?}");
    voile.configure(&with("secret"));
    voile.wait_established("peer");
    let _ = voile.wait_route("10.2.0.0/24", "peer");
}

/// Both sides with it; then only ours, whose peer sends with TTL 1.
pub(crate) fn ttl_security(speaker: &Speaker) {
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session("ttl-security = 1"));
    let mut router = (speaker.start)(&lan, &Wish { ttl_security: true, ..WISH });
    let _ = voile.wait_route("10.2.0.0/24", "peer");
    router.kill();
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session("ttl-security = 1"));
    let _router = (speaker.start)(&lan, &WISH);
    let _ = voile.wait_peer("peer", |_| true);
    std::thread::sleep(Duration::from_secs(4));
    let state = voile.peer("peer").unwrap();
    assert_ne!(state["state"], "Established", "packets of TTL 1 were trusted: {state:#}");
}

/// Sessions of both families come up, and a path that dies without a word (frames are dropped on the way, and no link
/// loses its carrier) ends them long before the hold time is over.
pub(crate) fn bfd(speaker: &Speaker) {
    let lan = Lan::new(2);
    let watched = "bfd = { interval = 0.1, multiplier = 3, strict = true }";
    let voile = Voile::start(&lan, 1, 65001, &two_sessions(65002, watched));
    let router = (speaker.start)(&lan, &Wish { over: Over::Both, bfd: true, ..WISH });
    let _ = voile.wait_route("10.2.0.0/24", "v4");
    let up = |session: &str| {
        let _ =
            voile.wait_peer(session, |peer| peer["bfd"] == "Up" && peer["state"] == "Established");
    };
    ["v4", "v6"].into_iter().for_each(up);
    // 100 ms both ways.
    let interval = if speaker.name == "BIRD" { "0.100" } else { "100ms" };
    wait_text("the sessions there", &["10.0.0.1", "fd00::1", interval], || router.bfd());
    lan.block(2);
    for session in ["v4", "v6"] {
        let peer = voile.wait_peer(session, |peer| peer["state"] != "Established");
        let history = peer["history"].as_array().unwrap();
        // Whoever notices first: on a busy machine the other side may, even before the path is dead, and says so.
        let by_bfd = |each: &serde_json::Value| {
            each["cause"].as_str().is_some_and(|cause| {
                cause.starts_with("BFD session is down: ") || cause.contains("6/10 BFD down")
            })
        };
        assert!(history.iter().any(by_bfd), "{peer:#}");
    }
    // Strict: nothing of the peer's is kept.
    voile.wait_no_route("10.2.0.0/24");
    lan.unblock(2);
    ["v4", "v6"].into_iter().for_each(up);
}
