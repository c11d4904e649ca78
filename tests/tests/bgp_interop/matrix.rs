//! What is shown, and with whom: the rows of the table in `docs/reference/bgp-interop.md`.

use crate::{
    scene::{limits, paths, reflection, restart, session, transport},
    speaker::{Speaker, bird, exabgp, frr, gobgp, openbgpd},
};

const BIRD: &Speaker = &bird::SPEAKER;
const FRR: &Speaker = &frr::SPEAKER;
const GOBGP: &Speaker = &gobgp::SPEAKER;
const OPENBGPD: &Speaker = &openbgpd::SPEAKER;
const EXABGP: &Speaker = &exabgp::SPEAKER;

/// The columns.
pub(crate) const ALL: &[&Speaker] = &[BIRD, FRR, GOBGP, OPENBGPD, EXABGP];
/// ExaBGP is no router: it keeps no table and passes nothing on.
const ROUTERS: &[&Speaker] = &[BIRD, FRR, GOBGP, OPENBGPD];

/// A row.
pub(crate) struct Feature {
    pub(crate) title: &'static str,
    pub(crate) scenarios: &'static [Scenario],
}

/// One way to show a feature, with each of some speakers.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) with: &'static [&'static Speaker],
    pub(crate) run: fn(&Speaker),
}

const fn scenario(
    name: &'static str,
    with: &'static [&'static Speaker],
    run: fn(&Speaker),
) -> Scenario {
    Scenario { name, with, run }
}

pub(crate) const FEATURES: &[Feature] = &[
    Feature {
        title: "session, IPv4 and IPv6 routes both ways, withdrawal",
        scenarios: &[
            scenario("external_routes", ALL, session::external),
            scenario("internal_routes", ALL, session::internal),
            scenario("mapped_next_hop_is_refused_in_words", &[FRR], session::mapped_next_hop),
        ],
    },
    Feature {
        title: "IPv4 routes with IPv6 next hops, no IPv4 on the link (RFC 8950)",
        scenarios: &[scenario("over_ipv6", &[BIRD, FRR, GOBGP], session::over_ipv6)],
    },
    Feature {
        title: "unnumbered peers, found by router advertisements",
        scenarios: &[scenario("unnumbered", &[BIRD, FRR, GOBGP], session::unnumbered)],
    },
    Feature {
        title: "communities: standard, extended, large, both ways",
        scenarios: &[scenario("communities", ALL, session::communities)],
    },
    Feature {
        title: "TCP MD5: right key, wrong key, right key again",
        scenarios: &[scenario("password", ALL, transport::password)],
    },
    Feature {
        title: "GTSM: with it, and not without it",
        scenarios: &[scenario("gtsm", ALL, transport::ttl_security)],
    },
    Feature {
        title: "BFD: the path dies without a word, both families",
        scenarios: &[scenario("bfd", &[BIRD, FRR], transport::bfd)],
    },
    // Not with the others: GoBGP and OpenBGPD at times reflect without ORIGINATOR_ID and CLUSTER_LIST (RFC 4456 section 8
    // wants both).
    Feature {
        title: "route reflection: two reflectors, one of them ours, one fails",
        scenarios: &[scenario("reflection", &[BIRD, FRR], reflection::beside)],
    },
    Feature {
        title: "route reflection: a client of two reflectors of ours, one fails",
        scenarios: &[scenario("reflection_client", ALL, reflection::client)],
    },
    Feature {
        title: "graceful restart: our side restarts",
        scenarios: &[
            scenario("we_crash", ROUTERS, restart::we_crash),
            scenario("we_are_upgraded", ROUTERS, restart::we_are_upgraded),
        ],
    },
    // OpenBGPD only helps: it never asks that its own routes be kept.
    Feature {
        title: "graceful restart: the other side restarts",
        scenarios: &[
            scenario("it_restarts", &[BIRD, FRR, GOBGP, EXABGP], restart::it_restarts),
            scenario("flushed_meanwhile", &[BIRD], restart::flushed_meanwhile),
        ],
    },
    // The others do not forward.
    Feature {
        title: "graceful restart: two routers of a rack, one after the other, no packet lost",
        scenarios: &[scenario("rack_is_reloaded", &[BIRD, FRR], restart::rack_is_reloaded)],
    },
    Feature {
        title: "long-lived graceful restart: we stay away",
        scenarios: &[scenario("we_stay_away", &[BIRD, FRR, GOBGP], restart::we_stay_away)],
    },
    Feature {
        title: "long-lived graceful restart: the other side stays away",
        scenarios: &[scenario("it_stays_away", &[BIRD, FRR, GOBGP], restart::it_stays_away)],
    },
    Feature {
        title: "extended messages: a route of 6,000 octets",
        scenarios: &[scenario("long_route", &[BIRD, FRR, EXABGP], session::extended)],
    },
    Feature {
        title: "a route of 6,000 octets is kept from a peer without extended messages",
        scenarios: &[scenario("no_long_route", &[GOBGP, OPENBGPD], session::not_extended)],
    },
    Feature {
        title: "max-prefix: the other side exceeds ours",
        scenarios: &[scenario("our_limit", ALL, limits::ours)],
    },
    Feature {
        title: "max-prefix: we exceed the other side's",
        scenarios: &[scenario("their_limit", ROUTERS, limits::theirs)],
    },
    Feature {
        title: "ADD-PATH: two paths from the other side",
        scenarios: &[
            scenario("paths_received", ROUTERS, paths::received),
            scenario("paths_received_from_itself", &[EXABGP], paths::received_from_itself),
        ],
    },
    Feature {
        title: "ADD-PATH: two paths from us",
        scenarios: &[scenario("paths_sent", ALL, paths::sent)],
    },
    Feature {
        title: "roles: a fitting pair, and one that does not fit",
        scenarios: &[scenario("roles", &[BIRD, FRR, OPENBGPD], session::roles)],
    },
    Feature {
        title: "dynamic neighbours: the other side is a member of a range",
        scenarios: &[scenario("dynamic", ALL, session::dynamic)],
    },
];
