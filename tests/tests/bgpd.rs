//! `voile-bgpd` as an operator meets it: its commands, a configuration that is read again, and what the history of a session
//! says about its troubles.

#![expect(clippy::disallowed_methods, reason = "a test: what fails here fails it, with the reason")]

use std::{path::Path, time::Duration};

use serde_json::Value;
use voile_tests::{
    bgp::{Lan, PATIENCE, Voile, wait_gone, wait_text},
    built, can_make_namespaces, skip, wait_for,
};

fn is_impossible(test: &str) -> bool {
    let impossible = !can_make_namespaces();
    if impossible {
        skip(test, "needs root");
    }
    impossible
}

/// The sections of a peer on another host and of a network.
fn peer(host: u8, more: &str) -> String {
    format!(
        "[[peer]]\nname = \"r{host}\"\naddress = \"10.0.0.{host}\"\nas = 6500{host}\nhold-time = 9\n\
         connect-retry = 1\nidle-hold = 0.2\nidle-hold-max = 1\n{more}\n"
    )
}

fn network(prefix: &str) -> String {
    format!("[[network]]\nprefix = \"{prefix}\"\n")
}

/// Asks the speaker of a host with its own program.
fn command(lan: &Lan, host: usize, words: &[&str]) -> Result<String, String> {
    let socket = lan.folder(host).join("status.sock");
    let program = built("voile-bgpd");
    let socket = socket.to_string_lossy();
    let mut arguments = words.to_vec();
    arguments.extend(["--socket", &socket]);
    lan.host(host).ask(&program.to_string_lossy(), &arguments)
}

fn check(lan: &Lan, host: usize, file: &Path) -> Result<String, String> {
    let program = built("voile-bgpd");
    lan.host(host).ask(&program.to_string_lossy(), &["check", &file.to_string_lossy()])
}

#[test]
fn commands_show_refresh_and_reset() {
    if is_impossible("commands_show_refresh_and_reset") {
        return;
    }
    let lan = Lan::new(2);
    let one = Voile::start(&lan, 1, 65001, &(peer(2, "") + &network("10.1.0.0/24")));
    let two = Voile::start(&lan, 2, 65002, &(peer(1, "") + &network("10.2.0.0/24")));
    let _ = one.wait_route("10.2.0.0/24", "r2");
    let _ = two.wait_route("10.1.0.0/24", "r1");

    let peers = command(&lan, 1, &["show", "peers"]).unwrap();
    assert!(peers.starts_with("AS 65001, router id 10.0.0.1, up "), "{peers}");
    let row: Vec<&str> = peers.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["r2", "10.0.0.2", "65002", "Established"], "{peers}");
    assert_eq!(row[5..], ["1", "1", "1", "-"], "{peers}");
    let one_peer = command(&lan, 1, &["show", "peer", "r2"]).unwrap();
    assert!(one_peer.contains("OpenConfirm -> Established: received KEEPALIVE"), "{one_peer}");
    let json: Value =
        serde_json::from_str(&command(&lan, 1, &["show", "peers", "-o", "json"]).unwrap()).unwrap();
    assert_eq!(json[0]["name"], "r2");
    let routes = command(&lan, 1, &["show", "routes"]).unwrap();
    for line in ["10.1.0.0/24  local", "10.2.0.0/24  r2"] {
        assert!(routes.contains(line), "no {line:?} in\n{routes}");
    }
    let within = command(&lan, 1, &["show", "routes", "10.2.0.0/16"]).unwrap();
    assert!(within.contains("10.2.0.0/24") && !within.contains("10.1.0.0/24"), "{within}");
    let route = command(&lan, 1, &["show", "route", "10.1.0.0/24"]).unwrap();
    assert!(route.contains("originated here") && route.contains("r2"), "{route}");

    // A refresh asks, and the session goes on.
    let before = two.peer("r1").unwrap()["received"]["refreshes"].as_u64().unwrap();
    let done = command(&lan, 1, &["refresh", "r2"]).unwrap();
    assert_eq!(done, "asked r2 to send everything again\n");
    let asked = |peer: &Value| peer["received"]["refreshes"].as_u64() > Some(before);
    let state = two.wait_peer("r1", asked);
    // Not by OPENs: both sides may connect at once, and then two are received for one session (RFC 4271 §6.8).
    assert_eq!(state["flaps"], 0, "{state:#}");

    // A reset ends the session with a word for the other operator, and it comes back.
    let done = command(&lan, 1, &["reset", "r2", "new optics"]).unwrap();
    assert_eq!(done, "reset r2\n");
    let state = two.wait_peer("r1", |peer| peer["state"] == "Established" && peer["flaps"] == 1);
    let cause = "received 6/9 hard reset (6/4 administrative reset \"new optics\")";
    assert_eq!(state["lastError"], cause, "{state:#}");
    let _ = one.wait_route("10.2.0.0/24", "r2");

    for (words, complaint) in [
        (&["show", "peer", "r9"][..], "there is no peer 'r9'; see `voile-bgpd show peers`"),
        (&["refresh", "r9"], "there is no peer 'r9'; see `voile-bgpd show peers`"),
        (&["reset", "r9"], "there is no peer 'r9'; see `voile-bgpd show peers`"),
        (&["show", "routes", "192.0.2.0/24"], "nothing within 192.0.2.0/24 is in the table"),
        (&["show", "route", "192.0.2.0/24"], "there is no path to 192.0.2.0/24"),
    ] {
        let error = command(&lan, 1, words).unwrap_err();
        assert!(error.contains(complaint), "{words:?}: {error}");
    }
    let error = command(&lan, 1, &["show", "peers", "--socket", "/nonexistent"]).unwrap_err();
    assert!(error.contains("--socket"), "{error}");
}

/// Files that mean nothing, each with what must be said of it.
fn nonsense(good: &str) -> Vec<(String, &'static [&'static str])> {
    let long = "x".repeat(81);
    vec![
        (good.replace("hold-time", "hold-tim"), &["line", "unknown field `hold-tim`"]),
        (good.replace("as = 65002", "as = 0"), &["line", "AS 0 belongs to nobody"]),
        (
            good.replace("10.0.0.3", "10.0.0.1"),
            &["line", "peer 'r3'", "10.0.0.1 is an address of this router itself"],
        ),
        (
            good.replace("keepalive-time = 2", &format!("password = \"{long}\"")),
            &["line", "peer 'r3', password", "TCP MD5 takes 1 to 80 octets, these are 81"],
        ),
        (
            good.replace("10.0.0.3", "10.0.0.2"),
            &["line", "peer 'r3'", "10.0.0.2 is the address of peer 'r2' already"],
        ),
        ("[[peer".to_owned(), &["line", "TOML parse error"]),
    ]
}

#[test]
fn a_file_read_again_resets_only_whose_transport_changed() {
    if is_impossible("a_file_read_again_resets_only_whose_transport_changed") {
        return;
    }
    let lan = Lan::new(3);
    let filter = |prefix: &str| {
        format!(
            "[[filter]]\nname = \"f\"\n[[filter.rule]]\naction = \"reject\"\nprefix = \"{prefix}\"\n"
        )
    };
    let import = "import = [\"f\"]";
    let body = |prefix: &str, third: &str| filter(prefix) + &peer(2, import) + &peer(3, third);
    let voile = Voile::start(&lan, 1, 65001, &body("192.0.2.0/24", ""));
    let more = network("10.2.0.0/24") + &network("10.2.1.0/24");
    let _two = Voile::start(&lan, 2, 65002, &(peer(1, "") + &more));
    let _three = Voile::start(&lan, 3, 65003, &(peer(1, "") + &network("10.3.0.0/24")));
    let _ = voile.wait_route("10.2.1.0/24", "r2");
    let _ = voile.wait_route("10.3.0.0/24", "r3");
    // Not by OPENs: both sides may connect at once, and then two are received for one session (RFC 4271 §6.8).
    let lost = |name: &str| voile.peer(name).unwrap()["flaps"].as_u64().unwrap();
    assert_eq!((lost("r2"), lost("r3")), (0, 0));

    // Policy: applied to what is there, in both directions of the change.
    voile.configure(&body("10.2.1.0/24", ""));
    let used = |prefix: &str| {
        let paths = voile.paths(prefix).unwrap();
        paths.iter().any(|path| path["usage"] == "best")
    };
    wait_for(
        "the filter",
        PATIENCE,
        || {
            if used("10.2.1.0/24") { Err(voile.log()) } else { Ok(()) }
        },
    );
    assert!(used("10.2.0.0/24"));
    voile.configure(&body("192.0.2.0/24", ""));
    let _ = voile.wait_route("10.2.1.0/24", "r2");
    assert_eq!((lost("r2"), lost("r3")), (0, 0), "no session was reset");

    // Transport: the one peer's session begins anew, the other's goes on.
    voile.configure(&body("192.0.2.0/24", "keepalive-time = 2"));
    let _ = voile.wait_peer("r3", |peer| peer["flaps"] == 1 && peer["state"] == "Established");
    assert_eq!(lost("r2"), 0);

    // Nonsense: the running configuration stays, and the log says where the nonsense is.
    let good = body("192.0.2.0/24", "keepalive-time = 2");
    for (bad, complaints) in nonsense(&good) {
        let errors = || voile.log().matches("kept the old configuration").count();
        let before = errors();
        voile.configure(&bad);
        wait_for("the complaint", PATIENCE, || {
            if errors() > before { Ok(()) } else { Err(voile.log()) }
        });
        let log = voile.log();
        let last = log.rfind("kept the old configuration").unwrap();
        let file = lan.folder(1).join("bgpd.toml");
        let checked = check(&lan, 1, &file).unwrap_err();
        for text in [&log[last..], &checked] {
            assert!(text.contains("bgpd.toml"), "{text}");
            for complaint in complaints {
                assert!(text.contains(complaint), "no {complaint:?} in {text}");
            }
        }
        assert!(used("10.2.0.0/24") && used("10.3.0.0/24"));
    }
    voile.configure(&good);
    wait_text("the good file", &["configuration read again"], || {
        let log = voile.log();
        let last = log.rfind("kept the old configuration").unwrap_or(0);
        Ok(log[last..].to_owned())
    });
    assert_eq!((lost("r2"), lost("r3")), (0, 1), "bad files reset nobody");
    let file = lan.folder(1).join("bgpd.toml");
    let checked = check(&lan, 1, &file).unwrap();
    assert!(checked.contains("bgpd.toml is fine: AS 65001, 2 peers"), "{checked}");
}

/// What an operator reads when a session does not come up, and when one is lost.
#[test]
fn the_history_names_the_cause() {
    if is_impossible("the_history_names_the_cause") {
        return;
    }
    let lan = Lan::new(3);
    let strangers = "[[peer]]\nname = \"nobody\"\naddress = \"10.0.0.99\"\nas = 1\nconnect-retry = 5\n\
                     [[peer]]\nname = \"nowhere\"\naddress = \"192.0.2.1\"\nas = 1\nconnect-retry = 1\n\
                     [[peer]]\nname = \"not-ours\"\naddress = \"10.0.0.98\"\nas = 1\nlocal-address = \"10.0.0.77\"\n";
    let body = |second: &str, third: &str| peer(2, second) + &peer(3, third) + strangers;
    let one = Voile::start(&lan, 1, 65001, &body("", ""));
    let has = |voile: &Voile, name: &str, cause: &str| {
        let _ = voile.wait_peer(name, |peer| {
            let mut history = peer["history"].as_array().unwrap().iter();
            history.any(|each| each["cause"].as_str().is_some_and(|text| text.contains(cause)))
        });
    };
    has(&one, "r2", "nothing listens on 10.0.0.2:179");
    has(&one, "nobody", "10.0.0.99 is unreachable: no neighbour answers for it");
    has(&one, "nowhere", "no route to 192.0.2.1");
    has(&one, "not-ours", "cannot connect from 10.0.0.77: this machine does not have the address");

    // The other side thinks that it is somebody else.
    let two = Voile::start(&lan, 2, 65009, &peer(1, ""));
    has(&one, "r2", "peer is AS 65009, configured 65002");
    has(&two, "r1", "peer does not expect AS 65009 (received 2/2 bad peer AS)");
    drop(two);

    // Keys that differ: segments are refused by the kernel, which counts them.
    one.configure(&body("password = \"one\"", ""));
    let two = Voile::start(&lan, 2, 65002, &peer(1, "password = \"two\""));
    has(&one, "r2", "TCP-MD5 mismatch suspected");
    two.configure(&peer(1, "password = \"one\""));
    one.wait_established("r2");

    // Silence on the path.
    lan.block(2);
    has(&one, "r2", "hold timer expired after 9 s: last message ");
    lan.unblock(2);
    one.wait_established("r2");

    // A planned end on the other side, and a crash.
    let mut three = Voile::start(&lan, 3, 65003, &peer(1, ""));
    one.wait_established("r3");
    three.stop(nix::sys::signal::Signal::SIGINT);
    has(&one, "r3", "received 6/9 hard reset (6/2 administrative shutdown)");
    three.restart();
    one.wait_established("r3");
    three.kill();
    has(&one, "r3", "peer closed the connection");
}

/// The key of a session is changed on our side, then on BIRD's: the routes stay in our kernel all the time.
#[test]
fn a_key_is_rotated_without_losing_routes() {
    const BIRD: &str = "/usr/sbin/bird";
    if is_impossible("a_key_is_rotated_without_losing_routes") {
        return;
    }
    if !Path::new(BIRD).exists() {
        skip("a_key_is_rotated_without_losing_routes", "BIRD is not installed");
        return;
    }
    let lan = Lan::new(2);
    let ours = |key: &str| {
        format!("install-routes = true\n{}", peer(2, &format!("password = \"{key}\"")))
            + &network("10.1.0.0/24")
    };
    let theirs = |key: &str| {
        let text = format!(
            "router id 10.0.0.2;\nlog stderr all;\nprotocol device {{}}\n\
             protocol static {{ ipv4; route 10.2.0.0/24 blackhole; }}\n\
             protocol bgp voile {{ local 10.0.0.2 as 65002; neighbor 10.0.0.1 as 65001; hold time 9;\n\
             password \"{key}\"; graceful restart on;\n\
             connect delay time 1; connect retry time 1; error wait time 1, 2;\n\
             ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }}; }}\n"
        );
        lan.file(2, "bird.conf", &text)
    };
    let voile = Voile::start(&lan, 1, 65001, &ours("old"));
    let config = theirs("old");
    let socket = lan.folder(2).join("bird.ctl");
    let (config, socket) = (config.to_string_lossy(), socket.to_string_lossy());
    let _bird = lan.spawn(2, Path::new(BIRD), &["-f", "-c", &config, "-s", &socket]);
    let _ = voile.wait_route("10.2.0.0/24", "r2");
    wait_text("our kernel", &["10.2.0.0/24"], || Ok(lan.routes(1)));

    voile.configure(&ours("new"));
    let state = voile.wait_peer("r2", |peer| peer["state"] != "Established");
    let history = state["history"].as_array().unwrap();
    assert!(history.iter().any(|each| each["cause"] == "password changed"), "{state:#}");
    // BIRD says that it forwards only after a restart of the whole program, so the routes are fresh once it is back (RFC 4724
    // §4.2); until then they stay.
    let is_back = || -> Result<bool, String> {
        let routes = lan.routes(1);
        let back = voile.peer("r2")?["state"] == "Established";
        assert!(back || routes.contains("10.2.0.0/24"), "{routes}");
        Ok(back)
    };
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(is_back(), Ok(false), "with the old key on the other side");
    }
    let _ = theirs("new");
    let _ = lan.host(2).output("birdc", &["-s", &socket, "configure"]);
    wait_for("the session with the new key", PATIENCE, || {
        if is_back()? { Ok(()) } else { Err(voile.log()) }
    });
    wait_text("our kernel", &["10.2.0.0/24"], || Ok(lan.routes(1)));
    wait_gone("stale routes", "\"stale\": true", || {
        Ok(format!("{:#}", Value::from(voile.paths("10.2.0.0/24")?)))
    });
}
