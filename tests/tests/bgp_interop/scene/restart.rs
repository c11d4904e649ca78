//! Graceful restart in both roles (RFC 4724), and what is left when it takes too long (RFC 9494).

use std::{net::SocketAddr, time::Duration};

use nix::sys::signal::Signal;
use voile_tests::{
    bgp::{Lan, PATIENCE, Voile, wait_gone, wait_text},
    traffic::{answer, ask},
    wait_for,
};

use super::{NETWORKS, THEIR_NETWORKS, one_session, peer, two_sessions};
use crate::speaker::{Over, Router, Speaker, WISH, Wish};

const OURS: [(&str, &str); 2] = [("10.1.0.0/24", "10.0.0.1"), ("fd00:1::/64", "fd00::1")];

/// Fails if the other side has lost one of our routes, in its table or its kernel.
fn assert_kept(lan: &Lan, speaker: &Speaker, router: &dyn Router) {
    for (prefix, next_hop) in OURS {
        let there = router.show(prefix).unwrap();
        assert!(there.contains(next_hop), "{prefix} is lost: {there}");
    }
    if let Some(protocol) = speaker.kernel {
        let routes =
            |family| lan.host(2).output("ip", &[family, "route", "show", "proto", protocol]);
        let routes = routes("-4") + &routes("-6");
        for (prefix, next_hop) in OURS {
            let hop = format!(" via {next_hop} ");
            let kept = |line: &str| line.starts_with(prefix) && line.contains(&hop);
            assert!(routes.lines().any(kept), "{prefix} is lost: {routes}");
        }
    }
}

/// We end and come back: neither side's table and kernel ever lose a route.
fn we_restart(speaker: &Speaker, end: fn(&mut Voile)) {
    let lan = Lan::new(2);
    let body = format!("{}{NETWORKS}", two_sessions(65002, ""));
    let mut voile = Voile::start(&lan, 1, 65001, &body);
    let wish = Wish { over: Over::Both, networks: THEIR_NETWORKS, ..WISH };
    let router = (speaker.start)(&lan, &wish);
    let sessions = ["v4", "v6"];
    for (prefix, session) in THEIR_NETWORKS.iter().zip(sessions) {
        let _ = voile.wait_route(prefix, session);
    }
    for (prefix, next_hop) in OURS {
        wait_text(&format!("{prefix} there"), &[next_hop], || router.show(prefix));
        if let Some(protocol) = speaker.kernel {
            let family = if prefix.contains(':') { "-6" } else { "-4" };
            let show = [family, "route", "show", "proto", protocol];
            wait_text("their kernel", &[prefix], || lan.host(2).ask("ip", &show));
        }
    }
    let waits = || {
        OURS.iter().try_fold(true, |all, (prefix, _)| {
            Ok::<bool, String>(all && router.waits_for_us(prefix)?)
        })
    };
    let waits_at_all = || {
        OURS.iter().try_fold(false, |any, (prefix, _)| {
            Ok::<bool, String>(any || router.waits_for_us(prefix)?)
        })
    };
    end(&mut voile);
    wait_for("it waits", PATIENCE, || {
        if waits()? {
            Ok(())
        } else {
            Err(OURS
                .map(|(prefix, _)| router.show(prefix))
                .map(|text| format!("{text:?}"))
                .concat())
        }
    });
    let ours = lan.routes(1);
    assert!(ours.contains("10.2.0.0/24") && ours.contains("fd00:2::/64"), "{ours}");
    voile.restart();
    loop {
        let up = |session| voile.peer(session).is_ok_and(|peer| peer["state"] == "Established");
        let done = sessions.into_iter().all(up);
        assert_kept(&lan, speaker, router.as_ref());
        if done {
            break;
        }
    }
    for (prefix, session) in THEIR_NETWORKS.iter().zip(sessions) {
        let _ = voile.wait_route(prefix, session);
    }
    // End-of-RIB came: what is stale was swept, and ours are still there.
    wait_for("it is done", PATIENCE, || {
        assert_kept(&lan, speaker, router.as_ref());
        if waits_at_all()? { Err("it still waits".to_owned()) } else { Ok(()) }
    });
    assert_kept(&lan, speaker, router.as_ref());
}

pub(crate) fn we_crash(speaker: &Speaker) {
    we_restart(speaker, Voile::kill);
}

pub(crate) fn we_are_upgraded(speaker: &Speaker) {
    we_restart(speaker, |voile| voile.stop(Signal::SIGTERM));
}

/// Waits until our path to their prefix is as wanted; meanwhile our kernel never loses it.
fn wait_path(lan: &Lan, voile: &Voile, what: &str, stale: bool, long_lived: bool) {
    wait_for(what, PATIENCE, || {
        let paths = voile.paths("10.2.0.0/24")?;
        assert!(lan.routes(1).contains("10.2.0.0/24"), "{}", lan.routes(1));
        let wanted = paths.first().is_some_and(|path| {
            let marked = path["communities"].to_string().contains("llgr-stale");
            path["stale"] == stale && marked == long_lived
        });
        if wanted { Ok(()) } else { Err(format!("{paths:#?}\n{:#}", voile.peer("peer")?)) }
    });
}

/// The other speaker dies: its routes stay as stale ones, in our kernel too, until it has sent them again.
pub(crate) fn it_restarts(speaker: &Speaker) {
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session(""));
    let mut router = (speaker.start)(&lan, &WISH);
    let _ = voile.wait_route("10.2.0.0/24", "peer");
    wait_text("our kernel", &["10.2.0.0/24"], || Ok(lan.routes(1)));
    wait_path(&lan, &voile, "fresh", false, false);
    router.kill();
    let _ = voile.wait_peer("peer", |peer| peer["state"] != "Established");
    wait_path(&lan, &voile, "stale", true, false);
    let _router = (speaker.start)(&lan, &Wish { restarted: true, ..WISH });
    wait_path(&lan, &voile, "fresh again", false, false);
}

/// The other speaker is away for longer than its restart time: its routes live on as the last choice, marked, also for
/// those that we tell.
pub(crate) fn it_stays_away(speaker: &Speaker) {
    let lan = Lan::new(3);
    let more = "long-lived-stale-time = 60";
    let body = one_session(more) + &peer("third", "10.0.0.3", 65003, more);
    let voile = Voile::start(&lan, 1, 65001, &body);
    let third = Voile::start(&lan, 3, 65003, &peer("hub", "10.0.0.1", 65001, more));
    let wish = Wish { long_lived: true, ..WISH };
    let mut router = (speaker.start)(&lan, &wish);
    let _ = voile.wait_route("10.2.0.0/24", "peer");
    wait_text("our kernel", &["10.2.0.0/24"], || Ok(lan.routes(1)));
    let _ = third.wait_route("10.2.0.0/24", "hub");
    router.kill();
    wait_path(&lan, &voile, "stale", true, false);
    wait_path(&lan, &voile, "long-lived", true, true);
    let there = || Ok(format!("{:?}", third.paths("10.2.0.0/24")?));
    wait_text("the mark at the third", &["llgr-stale"], there);
    let _router = (speaker.start)(&lan, &Wish { restarted: true, ..wish });
    wait_path(&lan, &voile, "fresh again", false, false);
    wait_gone("the mark at the third", "llgr-stale", there);
    assert!(there().unwrap().contains("65001 65002"), "{:?}", there());
}

/// We are away for longer than our restart time.
pub(crate) fn we_stay_away(speaker: &Speaker) {
    let lan = Lan::new(2);
    let body = one_session("long-lived-stale-time = 60");
    let body = format!("restart-time = 2\n{body}{NETWORKS}");
    let mut voile = Voile::start(&lan, 1, 65001, &body);
    let router = (speaker.start)(&lan, &Wish { long_lived: true, ..WISH });
    let _ = voile.wait_route("10.2.0.0/24", "peer");
    let (prefix, next_hop) = OURS[0];
    wait_text("our route there", &[next_hop], || router.show(prefix));
    assert!(!router.show(prefix).unwrap().contains(speaker.llgr_stale));
    voile.kill();
    wait_text("the mark there", &[next_hop, speaker.llgr_stale], || {
        let there = router.show(prefix)?;
        assert!(there.contains(next_hop), "{prefix} is lost: {there}");
        Ok(there)
    });
    voile.restart();
    wait_gone("the mark there", speaker.llgr_stale, || {
        let there = router.show(prefix)?;
        assert!(there.contains(next_hop), "{prefix} is lost: {there}");
        Ok(there)
    });
    let _ = voile.wait_route("10.2.0.0/24", "peer");
}

/// Somebody empties our kernel's table while the peer is away, and again while we are: what is kept for the time of a
/// restart is back at once, and what only the kernel knew once the peer is there.
pub(crate) fn flushed_meanwhile(speaker: &Speaker) {
    let lan = Lan::new(2);
    let mut voile = Voile::start(&lan, 1, 65001, &one_session(""));
    let mut router = (speaker.start)(&lan, &WISH);
    let _ = voile.wait_route("10.2.0.0/24", "peer");
    let installed = || wait_text("our kernel", &["10.2.0.0/24 via 10.0.0.2"], || Ok(lan.routes(1)));
    let flush = || {
        let _ = lan.host(1).output("ip", &["-4", "route", "flush", "proto", "bgp"]);
    };
    installed();
    router.kill();
    wait_path(&lan, &voile, "stale", true, false);
    flush();
    installed();
    wait_path(&lan, &voile, "still stale", true, false);
    let mut router = (speaker.start)(&lan, &Wish { restarted: true, ..WISH });
    wait_path(&lan, &voile, "fresh again", false, false);

    // Both are away: the kernel's copy is the only one, and it goes while we wait for the peer.
    voile.kill();
    router.kill();
    voile.restart();
    wait_for("our restart", PATIENCE, || match voile.status()?["restarting"].as_bool() {
        Some(true) => Ok(()),
        other => Err(format!("restarting: {other:?}")),
    });
    flush();
    let _router = (speaker.start)(&lan, &Wish { restarted: true, ..WISH });
    installed();
    wait_path(&lan, &voile, "fresh after both", false, false);
}

/// The routers of a rack, hosts 2 and 3, are reloaded one after the other; forwarding goes on meanwhile. Both announce what
/// both serve, and each learns of our pod's network: no packet is lost in either direction.
pub(crate) fn rack_is_reloaded(speaker: &Speaker) {
    const SERVICE: &str = "10.2.0.1";
    const POD: &str = "10.1.0.1";
    const ROUTERS: [usize; 2] = [2, 3];
    let lan = Lan::new(3);
    let sessions = peer("r2", "10.0.0.2", 65002, "") + &peer("r3", "10.0.0.3", 65002, "");
    let voile = Voile::start(
        &lan,
        1,
        65001,
        &format!("install-routes = true\n{sessions}[[network]]\nprefix = \"10.1.0.0/24\"\n"),
    );
    let at = SocketAddr::new(SERVICE.parse().unwrap(), 9000);
    let own = |host: usize, address: &str| {
        let address = format!("{address}/32");
        let _ = lan.host(host).output("ip", &["address", "add", &address, "dev", "lo"]);
    };
    own(1, POD);
    // By flow, not by pair of addresses.
    let _ = lan.host(1).output("sysctl", &["-qw", "net.ipv4.fib_multipath_hash_policy=1"]);
    ROUTERS.into_iter().for_each(|host| own(host, SERVICE));
    let services = ROUTERS.map(|host| answer(lan.host(host), at, |_| true));
    let wish = |host, restarted| Wish { host, restarted, ..WISH };
    let mut routers = ROUTERS.map(|host| (speaker.start)(&lan, &wish(host, false)));
    let both = ["10.2.0.0/24", "via 10.0.0.2", "via 10.0.0.3"];
    wait_text("both ways", &both, || Ok(lan.routes(1)));
    let protocol = speaker.kernel.expect("a router that forwards");
    for host in ROUTERS {
        let show = ["-4", "route", "show", "proto", protocol];
        wait_text("the way back", &["10.1.0.0/24 ", " via 10.0.0.1 "], || {
            lan.host(host).ask("ip", &show)
        });
    }
    let traffic = ask(lan.host(1), POD, at, Duration::from_millis(2));
    for (index, host) in ROUTERS.into_iter().enumerate() {
        let name = format!("r{host}");
        routers[index].kill();
        let _ = voile.wait_peer(&name, |peer| peer["state"] != "Established");
        std::thread::sleep(Duration::from_secs(2));
        routers[index] = (speaker.start)(&lan, &wish(host, true));
        let fresh = |peer: &serde_json::Value| {
            peer["state"] == "Established" && peer["stale"].as_array().is_some_and(Vec::is_empty)
        };
        let _ = voile.wait_peer(&name, fresh);
        wait_text("both ways", &both, || Ok(lan.routes(1)));
        wait_text("our route there", &["10.0.0.1"], || routers[index].show("10.1.0.0/24"));
    }
    let asked = traffic.finish();
    eprintln!("{}: two reloads, {asked:?}", speaker.name);
    assert!(asked.sent > 100 && asked.unanswered == 0, "{asked:?}");
    services.into_iter().for_each(|service| drop(service.finish()));
}
