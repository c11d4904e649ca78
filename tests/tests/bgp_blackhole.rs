//! BLACKHOLE (RFC 7999) from BIRD to kernel routes of ours: they come where that was agreed, change into ordinary ones and back, and
//! stay through restarts.

#![expect(clippy::disallowed_methods, reason = "a test: what fails here fails it, with the reason")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use voile_tests::{
    Process,
    bgp::{Lan, Voile, wait_gone, wait_text},
    built, can_make_namespaces, skip,
};

const BIRD: &str = "/usr/sbin/bird";

/// Routes that come in as they are, by family; `B` marks a blackhole.
fn bird_config(routes: &str) -> String {
    let mut text = "router id 10.0.0.2;\nlog stderr all;\nprotocol device {}\n".to_owned();
    for family in ["ipv4", "ipv6"] {
        text += &format!("protocol static own_{family} {{ {family};\n");
        for route in routes.split_whitespace() {
            let (prefix, tagged) = match route.strip_suffix('B') {
                Some(prefix) => (prefix, " { bgp_community.add((65535, 666)); }"),
                None => (route, ""),
            };
            if prefix.contains(':') == (family == "ipv6") {
                text += &format!("route {prefix} blackhole{tagged};\n");
            }
        }
        text += "}\n";
    }
    for (number, family, own, other) in
        [(1, "ipv4", "10.0.0.2", "10.0.0.1"), (2, "ipv6", "fd00::2", "fd00::1")]
    {
        text += &format!(
            "protocol bgp b{number} {{ local {own} as 65002; neighbor {other} as 65001; hold time 9;\n\
             connect delay time 1; connect retry time 1; error wait time 1, 2; graceful restart on;\n\
             {family} {{ import none; export where source = RTS_STATIC; }}; }}\n"
        );
    }
    text
}

struct Bird {
    lan: Lan,
    _process: Process,
}

impl Bird {
    fn start(lan: &Lan, routes: &str) -> Self {
        let config = lan.file(2, "bird.conf", &bird_config(routes));
        let socket = lan.folder(2).join("bird.ctl");
        let arguments = ["-f", "-c", &config.to_string_lossy(), "-s", &socket.to_string_lossy()];
        let process = lan.spawn(2, Path::new(BIRD), &arguments);
        Self { lan: lan.clone(), _process: process }
    }

    fn announce(&self, routes: &str) {
        let _ = self.lan.file(2, "bird.conf", &bird_config(routes));
        let socket = self.lan.folder(2).join("bird.ctl");
        let answer =
            self.lan.host(2).output("birdc", &["-s", &socket.to_string_lossy(), "configure"]);
        assert!(answer.contains("Reconfigur"), "{answer}");
    }
}

/// Routes longer than 24 or 64 bits are refused.
fn voile_config(blackhole: &str) -> String {
    let filter = |name: &str, all: &str, length: u8| {
        format!(
            "[[filter]]\nname = \"{name}\"\n[[filter.rule]]\naction = \"reject\"\nprefix = \"{all}\"\n\
             min-length = {length}\n"
        )
    };
    let peer = |name: &str, address: &str, filter: &str| {
        format!(
            "[[peer]]\nname = \"{name}\"\naddress = \"{address}\"\nas = 65002\nhold-time = 9\n\
             connect-retry = 1\nidle-hold = 0.2\nidle-hold-max = 1\nimport = [\"{filter}\"]\n{blackhole}\n"
        )
    };
    "install-routes = true\n".to_owned()
        + &filter("short4", "0.0.0.0/0", 25)
        + &filter("short6", "::/0", 65)
        + &peer("v4", "10.0.0.2", "short4")
        + &peer("v6", "fd00::2", "short6")
}

fn has(lan: &Lan, lines: &[&str]) {
    wait_text("routes", lines, || Ok(lan.routes(1)));
}

const AGREED: &str = "blackhole = [\"10.66.0.0/16\", \"fd66::/32\"]";
const ROUTES: &str = "10.66.0.0/16 10.66.7.7/32B 10.66.8.0/24B 10.77.7.7/32B 10.77.8.0/24B \
                      fd66::/32 fd66:0:7::7/128B fd66:0:8::/64B";
const DROPPED: [&str; 4] = [
    "blackhole 10.66.7.7 metric 1024",
    "blackhole 10.66.8.0/24 metric 1024",
    "blackhole fd66:0:7::7 dev lo metric 1024",
    "blackhole fd66:0:8::/64 dev lo metric 1024",
];

#[test]
fn what_bird_asks_for_is_dropped_by_the_kernel() {
    if !can_make_namespaces() || !Path::new(BIRD).exists() {
        skip("what_bird_asks_for_is_dropped_by_the_kernel", "needs root and BIRD");
        return;
    }
    let lan = Lan::new(2);
    let bird = Bird::start(&lan, ROUTES);
    let mut voile = Voile::start(&lan, 1, 65001, &voile_config(""));
    // Nothing was agreed: routes like others, the longer ones refused.
    let plain =
        ["10.66.8.0/24 via 10.0.0.2", "10.77.8.0/24 via 10.0.0.2", "fd66:0:8::/64 via fd00::2"];
    has(&lan, &plain);
    let routes = lan.routes(1);
    assert!(!routes.contains("blackhole") && !routes.contains("10.66.7.7"), "{routes}");

    voile.configure(&voile_config(AGREED));
    has(&lan, &DROPPED);
    has(&lan, &["10.66.0.0/16 via 10.0.0.2", "10.77.8.0/24 via 10.0.0.2", "fd66::/32 via fd00::2"]);
    assert!(!lan.routes(1).contains("10.77.7.7"), "{}", lan.routes(1));
    let get = lan.host(1).ask("ip", &["route", "get", "10.66.7.7"]).unwrap_err();
    assert!(get.contains("Invalid argument"), "what a blackhole answers: {get}");
    explained(&lan);

    // It is ours, so it comes back.
    let _ = lan.host(1).output("ip", &["route", "del", "blackhole", "10.66.7.7", "metric", "1024"]);
    has(&lan, &DROPPED);

    // A crash: nothing is let through in between.
    voile.kill();
    has(&lan, &DROPPED);
    voile.restart();
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        let routes = lan.routes(1);
        assert!(DROPPED.iter().all(|line| routes.contains(line)), "{routes}");
        std::thread::sleep(Duration::from_millis(50));
    }
    voile.wait_established("v4");
    voile.wait_established("v6");

    // Into ordinary routes, and back.
    bird.announce(&ROUTES.replace("8.0/24B", "8.0/24").replace("8::/64B", "8::/64"));
    has(&lan, &plain);
    assert!(lan.routes(1).contains(DROPPED[0]), "{}", lan.routes(1));
    bird.announce(ROUTES);
    has(&lan, &DROPPED);
    let routes = lan.routes(1);
    assert!(
        !routes.contains("fd66:0:8::/64 via") && !routes.contains("10.66.8.0/24 via"),
        "{routes}"
    );

    // The agreement ends, and begins again.
    voile.configure(&voile_config(""));
    has(&lan, &plain);
    wait_gone("blackholes", "blackhole", || Ok(lan.routes(1)));
    voile.configure(&voile_config(AGREED));
    has(&lan, &DROPPED);
    // The attack is over.
    bird.announce("10.66.0.0/16 fd66::/32");
    wait_gone("blackholes", "blackhole", || Ok(lan.routes(1)));
    bird.announce(ROUTES);
    has(&lan, &DROPPED);
    let status = voile.peer("v4").unwrap();
    assert_eq!(
        (&status["prefixesBlackholed"], &status["prefixesInstalled"]),
        (&2.into(), &4.into())
    );
    assert_eq!(status["flaps"], 0, "no session was reset: {status:#}");
    voile.stop(Signal::SIGINT);
    assert_eq!(lan.routes(1), "");
}

fn explained(lan: &Lan) {
    let socket = lan.folder(1).join("status.sock");
    let show = |prefix: &str| {
        let program = built("voile-bgpd");
        let arguments = ["show", "route", prefix, "--socket", &socket.to_string_lossy()];
        let text = lan.host(1).output(&program.to_string_lossy(), &arguments);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let text = show("10.66.7.7/32");
    let why = "kernel: blackholed: community 65535:666 from 10.0.0.2, RFC 7999";
    for part in [why, "agreed as a blackhole, otherwise rule 1 of filter short4", "no-export"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let text = show("10.77.8.0/24");
    assert!(text.contains("its BLACKHOLE is not agreed with this peer"), "{text}");
}
