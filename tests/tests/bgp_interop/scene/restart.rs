//! Graceful restart in both roles (RFC 4724), and what is left when it takes too long (RFC 9494).

use nix::sys::signal::Signal;
use voile_tests::{
    bgp::{Lan, PATIENCE, Voile, wait_gone, wait_text},
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
