//! Route reflection with two reflectors (RFC 4456).

use voile_tests::{
    bgp::{Lan, PATIENCE, Voile, wait_text},
    wait_for,
};

use super::{NETWORKS, peer};
use crate::speaker::{Speaker, WISH, Wish};

const CLIENT: &str = "route-reflector-client = true";

/// Waits until a client has the same route from both reflectors, each with its mark.
fn wait_reflected(client: &Voile, prefix: &str, origin: &str, reflectors: [usize; 2]) {
    wait_for("both reflectors' paths", PATIENCE, || {
        let paths = client.paths(prefix)?;
        let from = |number: usize| {
            let path = paths.iter().find(|path| path["peer"] == format!("rr{number}"));
            path.is_some_and(|path| {
                path["originatorId"] == origin
                    && path["nextHop"] == origin
                    // Another reflector may prefer our copy of it to the client's own.
                    && path["clusterList"][0] == format!("10.0.0.{number}")
            })
        };
        if reflectors.into_iter().all(from) { Ok(()) } else { Err(format!("{paths:#?}")) }
    });
}

/// Hosts 1 (ours) and 2 (the other) reflect for hosts 3 and 4 (ours), which have no session with each other.
pub(crate) fn beside(speaker: &Speaker) {
    let lan = Lan::new(4);
    let reflector = peer("rr2", "10.0.0.2", 65001, "")
        + &peer("c3", "10.0.0.3", 65001, CLIENT)
        + &peer("c4", "10.0.0.4", 65001, CLIENT);
    let mut ours = Voile::start(&lan, 1, 65001, &reflector);
    let to_both = peer("rr1", "10.0.0.1", 65001, "") + &peer("rr2", "10.0.0.2", 65001, "");
    let networks = NETWORKS.replace("10.1.0.0/24", "10.3.0.0/24");
    let _origin = Voile::start(&lan, 3, 65001, &format!("{to_both}{networks}"));
    let receiver = Voile::start(&lan, 4, 65001, &to_both);
    let neighbours = &[(1, 65001, false), (3, 65001, true), (4, 65001, true)];
    let _router = (speaker.start)(&lan, &Wish { asn: 65001, neighbours, ..WISH });
    wait_reflected(&receiver, "10.3.0.0/24", "10.0.0.3", [1, 2]);
    // The other reflector has our reflection of the same route, and we have its: nobody loops.
    let _ = ours.wait_route("10.3.0.0/24", "c3");
    ours.kill();
    let _ = receiver.wait_peer("rr1", |peer| peer["state"] != "Established");
    let _ = receiver.wait_route("10.3.0.0/24", "rr2");
}

/// Hosts 1 and 3 (ours) reflect between hosts 2 (the other) and 4 (ours).
pub(crate) fn client(speaker: &Speaker) {
    let lan = Lan::new(4);
    let reflector = |host: usize, other: &str| {
        let body = peer("rr", other, 65001, "")
            + &peer("c2", "10.0.0.2", 65001, CLIENT)
            + &peer("c4", "10.0.0.4", 65001, CLIENT);
        Voile::start(&lan, host, 65001, &body)
    };
    let mut first = reflector(1, "10.0.0.3");
    let second = reflector(3, "10.0.0.1");
    let to_both = peer("rr1", "10.0.0.1", 65001, "") + &peer("rr3", "10.0.0.3", 65001, "");
    let networks = NETWORKS.replace("10.1.0.0/24", "10.4.0.0/24");
    let ours = Voile::start(&lan, 4, 65001, &format!("{to_both}{networks}"));
    let neighbours = &[(1, 65001, false), (3, 65001, false)];
    let router = (speaker.start)(&lan, &Wish { asn: 65001, neighbours, ..WISH });
    wait_reflected(&ours, "10.2.0.0/24", "10.0.0.2", [1, 3]);
    // Reflectors leave the next hop alone.
    wait_text("10.4.0.0/24 there", &["10.0.0.4"], || router.show("10.4.0.0/24"));
    let _ = second.wait_route("10.4.0.0/24", "c4");
    first.kill();
    let _ = ours.wait_peer("rr1", |peer| peer["state"] != "Established");
    let _ = ours.wait_route("10.2.0.0/24", "rr3");
    wait_text("10.4.0.0/24 there", &["10.0.0.4"], || router.show("10.4.0.0/24"));
}
