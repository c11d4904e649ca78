//! Several paths of one prefix.

use voile_tests::{
    bgp::{Lan, PATIENCE, Voile, wait_text},
    wait_for,
};

use super::{one_session, peer};
use crate::speaker::{Speaker, WISH, Wish};

const SHARED: &str = "[[network]]\nprefix = \"10.3.0.0/24\"\n";

/// Hosts 3 and 4 announce one prefix to the other side, which tells us both paths.
pub(crate) fn received(speaker: &Speaker) {
    let lan = Lan::new(4);
    let voile = Voile::start(&lan, 1, 65001, &one_session("add-path = \"receive\""));
    let origin = |host: usize, asn: u32| {
        let body = peer("router", "10.0.0.2", 65002, "") + SHARED;
        Voile::start(&lan, host, asn, &body)
    };
    let _origins = [origin(3, 65003), origin(4, 65004)];
    let neighbours = &[(1, 65001, false), (3, 65003, false), (4, 65004, false)];
    let _router = (speaker.start)(&lan, &Wish { neighbours, add_path: true, ..WISH });
    wait_text("both paths", &["65002 65003", "65002 65004"], || {
        Ok(format!("{:?}", voile.paths("10.3.0.0/24")?))
    });
}

/// The other side, which passes nothing on, has two paths of its own; one of them goes away.
pub(crate) fn received_from_itself(speaker: &Speaker) {
    let lan = Lan::new(2);
    let voile = Voile::start(&lan, 1, 65001, &one_session("add-path = \"receive\""));
    let networks = &["10.2.0.0/24", "10.2.0.0/24"];
    let _router = (speaker.start)(&lan, &Wish { networks, add_path: true, ..WISH });
    wait_for("both paths", PATIENCE, || {
        let paths = voile.paths("10.2.0.0/24")?;
        if paths.len() == 2 { Ok(()) } else { Err(format!("{paths:#?}")) }
    });
}

/// Hosts 3 and 4 announce one prefix to us, and the other side gets both paths.
pub(crate) fn sent(speaker: &Speaker) {
    let lan = Lan::new(4);
    let body = one_session("add-path = \"send\"")
        + &peer("c3", "10.0.0.3", 65003, "")
        + &peer("c4", "10.0.0.4", 65004, "");
    let voile = Voile::start(&lan, 1, 65001, &body);
    let origin = |host: usize, asn: u32| {
        let body = peer("router", "10.0.0.1", 65001, "") + SHARED;
        Voile::start(&lan, host, asn, &body)
    };
    let _origins = [origin(3, 65003), origin(4, 65004)];
    let router = (speaker.start)(&lan, &Wish { add_path: true, ..WISH });
    voile.wait_established("peer");
    wait_text("both paths there", &["65001 65003", "65001 65004"], || router.show("10.3.0.0/24"));
}
