//! How many prefixes are too many.

use voile_tests::bgp::{Lan, Voile};

use super::{NETWORKS, one_session};
use crate::speaker::{Speaker, WISH, Wish};

/// Three routes where two are allowed.
pub(crate) fn ours(speaker: &Speaker) {
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session("max-prefixes = 2"));
    let networks = &["10.2.0.0/24", "10.2.1.0/24", "10.2.2.0/24"];
    let _router = (speaker.start)(&lan, &Wish { networks, ..WISH });
    let state = voile.wait_peer("peer", |peer| {
        peer["lastError"].as_str().is_some_and(|error| error.contains("more than 2 prefixes"))
    });
    assert_eq!(state["state"], "Idle", "{state:#}");
    voile.wait_no_route("10.2.0.0/24");
}

/// We announce three routes where one is allowed.
pub(crate) fn theirs(speaker: &Speaker) {
    let lan = Lan::new(2);
    // FRR notices one too late: it counts when it has processed a route.
    let more =
        ["10.1.1.0/24", "10.1.2.0/24"].map(|each| format!("[[network]]\nprefix = \"{each}\"\n"));
    let networks = format!("{NETWORKS}{}", more.concat());
    let voile = Voile::start(&lan, 1, 65001, &format!("{}{networks}", one_session("")));
    let _router = (speaker.start)(&lan, &Wish { max_prefixes: Some(1), ..WISH });
    let _ =
        voile.wait_peer("peer", |peer| peer.to_string().contains("6/1 maximum number of prefixes"));
}
