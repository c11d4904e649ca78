//! Errors in UPDATEs (RFC 4271 §6.3 as revised by RFC 7606, 6793, 7607, 8669, 9234, 9774).

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use serde_json::Value;
use voile_tests::{
    bgp::raw::{self, KEEPALIVE, Message, NOTIFICATION, Raw, hex},
    wait_for,
};

use super::speaker::{Fixture, Side, capabilities};

/// What a message did to the route that was there, and to the session.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// The new route took the place of the old one.
    Accepted,
    /// The same, without the attribute at fault.
    Discarded,
    /// The old route is gone because the new one is malformed.
    Withdrawn,
    /// There is no route, and nothing was wrong.
    Gone,
    /// The new route is kept but not used.
    Refused,
    /// The old route stayed.
    Ignored,
    /// NOTIFICATION with code, subcode and data; all routes of the session are gone.
    Reset(u8, u8, Vec<u8>),
}

use Outcome::{Accepted, Discarded, Gone, Ignored, Refused, Withdrawn};

fn reset(code: u8, subcode: u8, data: &str) -> Outcome {
    Outcome::Reset(code, subcode, hex(data))
}

/// Which message is sent.
///
/// In attributes `O`, `P`, `N` stand for a good ORIGIN, AS_PATH and NEXT_HOP, `L` for the LOCAL_PREF of an internal peer,
/// `R` for a good MP_REACH_NLRI with the IPv6 prefix of the row.
enum Body {
    /// Attributes, and the IPv4 prefix of the row as NLRI.
    V4(&'static str),
    /// Attributes, with the IPv6 prefix in them if anywhere.
    V6(&'static str),
    /// Withdrawn routes, attributes, NLRI.
    Parts(&'static str, &'static str, &'static str),
    /// Everything after the header.
    Raw(&'static str),
}

use Body::{Parts, V4, V6};

struct Row {
    clause: &'static str,
    name: &'static str,
    body: Body,
    external: Outcome,
    internal: Outcome,
    /// Capabilities of the peer if not the usual ones.
    capabilities: Option<&'static str>,
    /// The prefix to look at if not the usual one; nothing is there before.
    prefix: Option<&'static str>,
}

fn row(clause: &'static str, name: &'static str, body: Body, both: Outcome) -> Row {
    Row {
        clause,
        name,
        body,
        external: both.clone(),
        internal: both,
        capabilities: None,
        prefix: None,
    }
}

impl Row {
    /// Expects something else of an internal peer.
    fn internal(self, internal: Outcome) -> Self {
        Self { internal, ..self }
    }

    /// Looks at another prefix, which is new.
    fn about(self, prefix: &'static str) -> Self {
        Self { prefix: Some(prefix), ..self }
    }

    /// The peer announces these capabilities only.
    fn with(self, capabilities: &'static str) -> Self {
        Self { capabilities: Some(capabilities), ..self }
    }
}

/// IPv4 and IPv6, two-octet AS numbers.
const OLD: &str = "0104 0001 00 01  0104 0002 00 01";
/// The same, and IPv4 routes may have IPv6 next hops (RFC 8950).
const EXTENDED: &str = "0104 0001 00 01  0104 0002 00 01  0506 0001 0001 0002";
/// IPv4 only, two-octet AS numbers.
const ONLY_IPV4: &str = "0104 0001 00 01";

const PREFIX: [&str; 2] = ["10.7.0.0/16", "2001:db8:7::/48"];
const NLRI: &str = "10 0a07";

fn attributes(text: &str, side: Side, four_octets: bool) -> Vec<u8> {
    let path = match (side, four_octets) {
        (Side::External, true) => "400206 02 01 0000fdea",
        (Side::External, false) => "400204 02 01 fdea",
        (Side::Internal, _) => "400200",
    };
    let local_pref = match side {
        Side::External => "",
        Side::Internal => "400504 00000064",
    };
    let reach = "800e1c 0002 01 10 20010db8000000000000000000000009 00 30 20010db80007";
    let text = text.replace('O', "400101 00").replace('P', path).replace('N', "400304 0a090909");
    hex(&text.replace('L', local_pref).replace('R', reach))
}

/// The bounds of the sections and of the prefixes in them.
fn bounds() -> Vec<Row> {
    const C: &str = "4271 §6.3";
    vec![
        row(C, "withdrawn routes overrun the message", Body::Raw("0009 0000"), reset(3, 1, "")),
        row(C, "attributes overrun the message", Body::Raw("0000 0009 40"), reset(3, 1, "")),
        row("7606 §4", "attribute overruns the section", V4("O P N L c00808 00010002"), Withdrawn),
        row("7606 §4", "one octet of an attribute", V4("O P N L c0"), Withdrawn),
        row("7606 §4", "length of an attribute is missing", V4("O P N L d008 00"), Withdrawn),
        row(
            "7606 §5.3",
            "prefix of 33 bits",
            Parts("", "O P N L", "21 0a07000000"),
            reset(3, 10, ""),
        ),
        row(
            "7606 §5.3",
            "prefix runs past the end",
            Parts("", "O P N L", "10 0a"),
            reset(3, 10, ""),
        ),
        row(
            "7606 §5.3",
            "withdrawn prefix of 33 bits",
            Parts("21 0a07000000", "", ""),
            reset(3, 10, ""),
        ),
        row(
            "7606 §5.3",
            "withdrawn prefix runs past its section",
            Parts("18 0a07", "", ""),
            reset(3, 10, ""),
        ),
        row("4271 §4.3", "bits behind the prefix", Parts("", "O P N L", "0f 0a07"), Accepted)
            .about("10.6.0.0/15"),
        row("4271 §4.3", "route withdrawn", Parts(NLRI, "", ""), Gone),
        row(
            "4271 §4.3",
            "withdrawn with attributes nobody needs",
            Parts(NLRI, "O P N L", ""),
            Gone,
        ),
        row("4271 §4.3", "withdrawn and announced", Parts(NLRI, "O P N L", NLRI), Accepted),
        row(
            "4271 §4.3",
            "withdrawn and announced malformed",
            Parts(NLRI, "400101 09 P N L", NLRI),
            Withdrawn,
        ),
        row("4271 §4.3", "attributes without routes", Parts("", "O P N L", ""), Ignored),
        row(
            "7606 §5.2",
            "malformed attributes without routes",
            Parts("", "400101 09 P N L", ""),
            Ignored,
        ),
        row("4724 §2", "End-of-RIB", Parts("", "", ""), Ignored),
    ]
}

/// What every attribute may suffer from.
fn any_attribute() -> Vec<Row> {
    const FLAGS: &str = "7606 §3 c";
    const MISSING: &str = "7606 §3 d";
    vec![
        row(FLAGS, "ORIGIN is optional", V4("c00101 00 P N L"), Withdrawn),
        row(FLAGS, "AS_PATH is not transitive", V4("O 000200 N L"), Withdrawn),
        row(FLAGS, "NEXT_HOP is optional", V4("O P c00304 0a090909 L"), Withdrawn),
        row(FLAGS, "MED is transitive", V4("O P N c00404 00000007 L"), Withdrawn),
        row(FLAGS, "ATOMIC_AGGREGATE is optional", V4("O P N L c00600"), Withdrawn),
        row(FLAGS, "AGGREGATOR is well-known", V4("O P N L 400708 0000fde8 0a000009"), Withdrawn),
        row(FLAGS, "COMMUNITIES is not transitive", V4("O P N L 800804 00010002"), Withdrawn),
        row(
            FLAGS,
            "EXTENDED COMMUNITIES is not transitive",
            V4("O P N L 801008 0002 0001 00000002"),
            Withdrawn,
        ),
        row(
            FLAGS,
            "LARGE_COMMUNITY is well-known",
            V4("O P N L 40200c 00000001 00000002 00000003"),
            Withdrawn,
        ),
        row(
            FLAGS,
            "MP_REACH_NLRI is transitive",
            V6("c00e1c 0002 01 10 20010db8000000000000000000000009 00 30 20010db80007 O P L"),
            Withdrawn,
        ),
        row(FLAGS, "MP_UNREACH_NLRI is transitive", V6("c00f0a 0002 01 30 20010db80007"), Gone),
        row(FLAGS, "LOCAL_PREF is optional", V4("O P N c00504 00000064"), Withdrawn),
        row(FLAGS, "ORIGINATOR_ID is transitive", V4("O P N L c00904 0a000009"), Withdrawn),
        row(FLAGS, "CLUSTER_LIST is transitive", V4("O P N L c00a04 0a000009"), Withdrawn),
        row(FLAGS, "AS4_PATH is not transitive", V4("O P N L 801106 02 01 00010000"), Withdrawn)
            .with(OLD),
        row(
            FLAGS,
            "AS4_AGGREGATOR is not transitive",
            V4("O P N L 801208 00010000 0a000009"),
            Withdrawn,
        )
        .with(OLD),
        row(
            FLAGS,
            "IPv6 EXTENDED COMMUNITIES is not transitive",
            V4("O P N L 801914 0002 20010db8000000000000000000000009 0001"),
            Withdrawn,
        ),
        row(FLAGS, "AIGP is transitive", V4("O P N L c01a0b 01 000b 0000000000000001"), Withdrawn),
        row(FLAGS, "ONLY_TO_CUSTOMER is not transitive", V4("O P N L 802304 0000fdea"), Withdrawn),
        row(
            FLAGS,
            "PREFIX_SID is not transitive",
            V4("O P N L 80280a 01 0007 00 0000 00000001"),
            Withdrawn,
        ),
        row("4271 §4.3", "extended length for a short value", V4("5001 0001 00 P N L"), Accepted),
        row("4271 §4.3", "lower bits of the flags are set", V4("4f01 01 00 P N L"), Accepted),
        row("4271 §5", "attributes in another order", V4("N L P O"), Accepted),
        row("7606 §3 g", "second ORIGIN", V4("O P N L 400101 02"), Discarded),
        row(
            "7606 §3 g",
            "second COMMUNITIES",
            V4("O P N L c00804 00010002 c00804 00010003"),
            Discarded,
        ),
        row("7606 §3 g", "second MP_REACH_NLRI", V6("R R O P L"), reset(3, 1, "")),
        row(
            "7606 §3 g",
            "second MP_UNREACH_NLRI",
            V6("800f03 0002 01 800f03 0002 01"),
            reset(3, 1, ""),
        ),
        row(MISSING, "ORIGIN is missing", V4("P N L"), Withdrawn),
        row(MISSING, "AS_PATH is missing", V4("O N L"), Withdrawn),
        row(MISSING, "NEXT_HOP is missing", V4("O P L"), Withdrawn),
        row(MISSING, "LOCAL_PREF is missing", V4("O P N"), Accepted).internal(Withdrawn),
        row(MISSING, "everything is missing", V4(""), Withdrawn),
        row(MISSING, "ORIGIN is missing beside MP_REACH_NLRI", V6("R P L"), Withdrawn),
        row("4760 §3", "NEXT_HOP beside MP_REACH_NLRI", V6("R O P N L"), Accepted),
        row(
            "4760 §3",
            "malformed NEXT_HOP beside MP_REACH_NLRI",
            V6("R O P 400303 0a0909 L"),
            Withdrawn,
        ),
        row(
            "4271 §6.3",
            "unknown well-known attribute",
            V4("O P N L 407f02 abcd"),
            reset(3, 2, "407f02 abcd"),
        ),
        row(
            "4271 §6.3",
            "unknown well-known attribute of extended length",
            V4("O P N L 507f 0002 abcd"),
            reset(3, 2, "507f 0002 abcd"),
        ),
        row(
            "4271 §5",
            "unknown optional transitive attribute",
            V4("O P N L c0fe02 abcd"),
            Accepted,
        ),
        row(
            "4271 §5",
            "unknown optional non-transitive attribute",
            V4("O P N L 80fe02 abcd"),
            Accepted,
        ),
        row(
            "7606 §3 h",
            "one discarded, one withdrawn",
            V4("400101 09 P N L 400601 00"),
            Withdrawn,
        ),
        row(
            "7606 §3 h",
            "one withdrawn, one reset",
            V4("400101 09 P N L 407f00"),
            reset(3, 2, "407f00"),
        ),
    ]
}

/// The attributes of RFC 4271.
fn base() -> Vec<Row> {
    const PATH: &str = "7606 §7.2";
    vec![
        row("7606 §7.1", "ORIGIN of two octets", V4("400102 0000 P N L"), Withdrawn),
        row("7606 §7.1", "empty ORIGIN", V4("400100 P N L"), Withdrawn),
        row("7606 §7.1", "ORIGIN 3", V4("400101 03 P N L"), Withdrawn),
        row(PATH, "segment type 5", V4("O 400206 05 01 0000fdea N L"), Withdrawn),
        row(PATH, "empty segment", V4("O 400208 02 00 02 01 0000fdea N L"), Withdrawn),
        row(PATH, "segment overruns", V4("O 400206 02 02 0000fdea N L"), Withdrawn),
        row(PATH, "one octet is left", V4("O 400207 02 01 0000fdea 02 N L"), Withdrawn),
        row("7607 §2", "AS 0", V4("O 40020a 02 02 0000fdea 00000000 N L"), Withdrawn),
        row("9774 §3", "AS_SET", V4("O 40020c 02 01 0000fdea 01 01 00000007 N L"), Withdrawn),
        row("5065 §5.2", "confederation segment", V4("O 400206 03 01 0000fdea N L"), Withdrawn),
        row("4271 §6.3", "first AS is another", V4("O 400206 02 01 00000007 N L"), Refused)
            .internal(Accepted),
        row("4271 §9.1.2", "our own AS", V4("O 40020a 02 02 0000fdea 0000fde9 N L"), Refused),
        row(
            "4271 §5.1.2",
            "two segments",
            V4("O 40020c 02 01 0000fdea 02 01 00000007 N L"),
            Accepted,
        ),
        row("7606 §7.3", "NEXT_HOP of three octets", V4("O P 400303 0a0909 L"), Withdrawn),
        row("7606 §7.3", "NEXT_HOP of five octets", V4("O P 400305 0a09090909 L"), Withdrawn),
        row("4271 §6.3", "NEXT_HOP is us", V4("O P 400304 7f000001 L"), Refused),
        row("4271 §6.3", "NEXT_HOP is 0.0.0.0", V4("O P 400304 00000000 L"), Refused),
        row("4271 §6.3", "NEXT_HOP is multicast", V4("O P 400304 e0000001 L"), Refused),
        row("4271 §6.3", "NEXT_HOP is broadcast", V4("O P 400304 ffffffff L"), Refused),
        row("7606 §7.4", "MED of three octets", V4("O P N 800403 000001 L"), Withdrawn),
        row("7606 §7.5", "LOCAL_PREF", V4("O P N 400504 00000064"), Discarded).internal(Accepted),
        row("7606 §7.5", "LOCAL_PREF of three octets", V4("O P N 400503 000064"), Discarded)
            .internal(Withdrawn),
        row("4271 §5.1.6", "ATOMIC_AGGREGATE", V4("O P N L 400600"), Accepted),
        row("7606 §7.6", "ATOMIC_AGGREGATE of one octet", V4("O P N L 400601 00"), Discarded),
        row("4271 §5.1.7", "AGGREGATOR", V4("O P N L c00708 0000fde8 0a000009"), Accepted),
        row(
            "7606 §7.7",
            "AGGREGATOR of six octets, four-octet AS numbers",
            V4("O P N L c00706 fde8 0a000009"),
            Discarded,
        ),
        row(
            "7606 §7.7",
            "AGGREGATOR of nine octets",
            V4("O P N L c00709 0000fde8 0a000009 00"),
            Discarded,
        ),
        row(
            "7606 §7.7",
            "AGGREGATOR of eight octets, two-octet AS numbers",
            V4("O P N L c00708 0000fde8 0a000009"),
            Discarded,
        )
        .with(OLD),
        row("7607 §2", "AGGREGATOR with AS 0", V4("O P N L c00708 00000000 0a000009"), Discarded),
    ]
}

/// The attributes of other RFCs.
fn extensions() -> Vec<Row> {
    const AS4: &str = "6793 §6";
    vec![
        row("7606 §7.8", "empty COMMUNITIES", V4("O P N L c00800"), Withdrawn),
        row("7606 §7.8", "COMMUNITIES of three octets", V4("O P N L c00803 000100"), Withdrawn),
        row("7606 §7.9", "ORIGINATOR_ID", V4("O P N L 800904 0a000009"), Discarded)
            .internal(Accepted),
        row("7606 §7.9", "ORIGINATOR_ID of three octets", V4("O P N L 800903 0a0000"), Discarded)
            .internal(Withdrawn),
        row("4456 §8", "ORIGINATOR_ID is us", V4("O P N L 800904 0a000001"), Discarded)
            .internal(Refused),
        row("7606 §7.10", "CLUSTER_LIST", V4("O P N L 800a04 0a000009"), Discarded)
            .internal(Accepted),
        row("7606 §7.10", "empty CLUSTER_LIST", V4("O P N L 800a00"), Discarded)
            .internal(Withdrawn),
        row(
            "7606 §7.10",
            "CLUSTER_LIST of six octets",
            V4("O P N L 800a06 0a0000090000"),
            Discarded,
        )
        .internal(Withdrawn),
        row("4456 §8", "CLUSTER_LIST has our cluster", V4("O P N L 800a04 0a000001"), Discarded)
            .internal(Refused),
        row("7606 §7.14", "empty EXTENDED COMMUNITIES", V4("O P N L c01000"), Withdrawn),
        row(
            "7606 §7.14",
            "EXTENDED COMMUNITIES of seven octets",
            V4("O P N L c01007 0002 0001 000000"),
            Withdrawn,
        ),
        row("7606 §7.15", "empty IPv6 EXTENDED COMMUNITIES", V4("O P N L c01900"), Withdrawn),
        row(
            "7606 §7.15",
            "IPv6 EXTENDED COMMUNITIES of four octets",
            V4("O P N L c01904 00020000"),
            Withdrawn,
        ),
        row("8092 §6", "empty LARGE_COMMUNITY", V4("O P N L c02000"), Withdrawn),
        row(
            "8092 §6",
            "LARGE_COMMUNITY of eleven octets",
            V4("O P N L c0200b 0000000100000002000000"),
            Withdrawn,
        ),
        row(AS4, "AS4_PATH from a new speaker", V4("O P N L c01106 02 01 00010000"), Accepted),
        row(AS4, "empty segment in AS4_PATH", V4("O P N L c01102 02 00"), Discarded).with(OLD),
        row(AS4, "AS4_PATH overruns", V4("O P N L c01104 02 01 0001"), Discarded).with(OLD),
        row(AS4, "AS4_AGGREGATOR of six octets", V4("O P N L c01206 0001 0a000009"), Discarded)
            .with(OLD),
        row(
            "7311 §3.4",
            "AIGP of a peer it is not enabled for",
            V4("O P N L 801a0b 01 000b 0000000000000001"),
            Discarded,
        ),
        row("7606 §7.13", "malformed AIGP", V4("O P N L 801a02 01 00"), Discarded),
        row("8669 §5", "PREFIX_SID", V4("O P N L c0280a 01 0007 00 0000 00000001"), Discarded)
            .internal(Accepted),
        row(
            "8669 §6",
            "PREFIX_SID with a short Label-Index",
            V4("O P N L c02804 01 0001 00"),
            Discarded,
        ),
        row("8669 §6", "PREFIX_SID overruns", V4("O P N L c02803 01 0007"), Discarded),
        row("9234 §5", "ONLY_TO_CUSTOMER of three octets", V4("O P N L c02303 000001"), Withdrawn),
    ]
}

/// 10.5.0.0/16 in MP_REACH_NLRI.
const V4_REACH: Body = V6("800e0c 0001 01 04 0a090909 00 10 0a05 O P L");
const V4_REACH_16: Body = V6("800e18 0001 01 10 20010db8000000000000000000000009 00 10 0a05 O P L");
const V4_REACH_32: Body = V6(
    "800e28 0001 01 20 20010db8000000000000000000000009 fe800000000000000000000000000009 00 10 0a05 O P L",
);

/// MP_REACH_NLRI and MP_UNREACH_NLRI.
fn multiprotocol() -> Vec<Row> {
    const C: &str = "7606 §7.11";
    vec![
        row("4760 §3", "IPv6 route", V6("R O P L"), Accepted),
        row("7606 §5.1", "MP_REACH_NLRI is last", V6("O P L R"), Accepted),
        row(
            "2545 §3",
            "next hop of 32 octets",
            V6(
                "800e2c 0002 01 20 20010db8000000000000000000000009 fe800000000000000000000000000009 00 30 20010db80007 O P L",
            ),
            Accepted,
        ),
        row(
            C,
            "next hop of eight octets",
            V6("800e14 0002 01 08 20010db800000000 00 30 20010db80007 O P L"),
            reset(3, 9, "800e14 0002 01 08 20010db800000000 00 30 20010db80007"),
        ),
        row(
            C,
            "next hop overruns the attribute",
            V6("800e08 0002 01 10 20010db8 O P L"),
            reset(3, 9, "800e08 0002 01 10 20010db8"),
        ),
        row(C, "attribute of two octets", V6("800e02 0002 O P L"), reset(3, 9, "800e02 0002")),
        row(
            "7606 §5.3",
            "prefix of 129 bits",
            V6(
                "800e27 0002 01 10 20010db8000000000000000000000009 00 81 20010db800070000000000000000000000 O P L",
            ),
            reset(
                3,
                9,
                "800e27 0002 01 10 20010db8000000000000000000000009 00 81 20010db800070000000000000000000000",
            ),
        ),
        row(
            "7606 §5.3",
            "prefix runs past the attribute",
            V6("800e18 0002 01 10 20010db8000000000000000000000009 00 30 2001 O P L"),
            reset(3, 9, "800e18 0002 01 10 20010db8000000000000000000000009 00 30 2001"),
        ),
        row(
            "4271 §6.3",
            "next hop is unspecified",
            V6("800e1c 0002 01 10 00000000000000000000000000000000 00 30 20010db80007 O P L"),
            Refused,
        ),
        row(
            "4271 §6.3",
            "next hop is loopback",
            V6("800e1c 0002 01 10 00000000000000000000000000000001 00 30 20010db80007 O P L"),
            Refused,
        ),
        row(
            "4271 §6.3",
            "next hop is multicast",
            V6("800e1c 0002 01 10 ff020000000000000000000000000001 00 30 20010db80007 O P L"),
            Refused,
        ),
        row(
            "4271 §6.3",
            "next hop is an IPv4 address",
            V6("800e1c 0002 01 10 00000000000000000000ffff0a090909 00 30 20010db80007 O P L"),
            Refused,
        ),
        row("4760 §3", "IPv4 route, next hop of four octets", V4_REACH, Accepted).about("10.5.0.0/16"),
        row("8950 §3", "IPv4 route, next hop of 16 octets", V4_REACH_16, Accepted)
            .with(EXTENDED)
            .about("10.5.0.0/16"),
        row("8950 §3", "IPv4 route, next hop of 32 octets", V4_REACH_32, Accepted)
            .with(EXTENDED)
            .about("10.5.0.0/16"),
        row(
            "8950 §4",
            "IPv4 route, next hop of 16 octets that was not negotiated",
            V4_REACH_16,
            reset(3, 9, "800e18 0001 01 10 20010db8000000000000000000000009 00 10 0a05"),
        )
        .about("10.5.0.0/16"),
        row(
            "8950 §3",
            "IPv4 route, next hop of 24 octets",
            V6("800e20 0001 01 18 0000000000000000 20010db8000000000000000000000009 00 10 0a05 O P L"),
            reset(
                3,
                9,
                "800e20 0001 01 18 0000000000000000 20010db8000000000000000000000009 00 10 0a05",
            ),
        )
        .with(EXTENDED)
        .about("10.5.0.0/16"),
        row("7606 §7.1", "ORIGIN 9 beside MP_REACH_NLRI", V6("R 400101 09 P L"), Withdrawn),
        row("4760 §4", "withdrawn", V6("800f0a 0002 01 30 20010db80007"), Gone),
        row(
            "4760 §4",
            "withdrawn with attributes nobody needs",
            V6("O P 800f0a 0002 01 30 20010db80007 L"),
            Gone,
        ),
        row(
            "4760 §4",
            "withdrawn and announced",
            V6("R 800f0a 0002 01 30 20010db80007 O P L"),
            Accepted,
        ),
        row(
            "7606 §7.12",
            "MP_UNREACH_NLRI of two octets",
            V6("800f02 0002"),
            reset(3, 9, "800f02 0002"),
        ),
        row(
            "7606 §5.3",
            "withdrawn prefix of 129 bits",
            V6("800f15 0002 01 81 20010db800070000000000000000000000"),
            reset(3, 9, "800f15 0002 01 81 20010db800070000000000000000000000"),
        ),
        row("4724 §2", "End-of-RIB", V6("800f03 0002 01"), Ignored),
        row("4760 §6", "family that was not negotiated", V6("R O P L"), Gone).with(ONLY_IPV4),
        row(
            "4760 §6",
            "family that we do not know",
            V6("800e0d 4004 47 04 00000000 00 dead beef O P L"),
            Ignored,
        ),
    ]
}

struct Session<'a> {
    fixture: &'a Fixture,
    side: Side,
    name: String,
    raw: Raw,
    four_octets: bool,
}

impl Session<'_> {
    fn peer(&self) -> Value {
        self.fixture.voile.peer(&self.name).unwrap()
    }

    /// Returns our path for a prefix.
    fn path(&self, prefix: &str) -> Option<Value> {
        let paths = self.fixture.voile.paths(prefix).unwrap();
        paths.into_iter().find(|path| path["peer"] == self.name.as_str())
    }

    fn announce(&mut self, more: &str, nlri: &str) {
        let attributes = attributes(&format!("O P N {more} L"), self.side, self.four_octets);
        self.raw.send(&raw::update(&[], &attributes, &hex(nlri)));
    }

    /// Waits until everything sent so far was handled: `None`, or the message that ended the session.
    fn settle(&mut self) -> Option<Message> {
        self.announce("", "10 0aff");
        self.raw.patience(Duration::from_millis(20));
        wait_for("the end of the messages", Duration::from_secs(60), || {
            match self.raw.receive() {
                Some(message) if message.kind == NOTIFICATION => return Ok(Some(message)),
                Some(_) => return Err("a message came".to_owned()),
                None => (),
            }
            self.path("10.255.0.0/16").map(|_| None).ok_or_else(|| format!("{:#}", self.peer()))
        })
    }
}

fn run(fixture: &Fixture, side: Side, number: usize, row: &Row) -> Outcome {
    let own = capabilities(side);
    let four_octets = row.capabilities.is_none();
    let capabilities = row.capabilities.map_or(own, hex);
    let raw = fixture.connect(side, number);
    let raw = raw.establish(&Fixture::open(side, number, &capabilities));
    let name = side.address(number).to_string();
    let mut session = Session { fixture, side, name, raw, four_octets };
    // What is there before: both prefixes with MED 1, and a neighbour that must stay.
    session.announce("800404 00000001", "10 0a07 10 0a08");
    let v6 = attributes("R O P 800404 00000001 L", side, four_octets);
    session.raw.send(&raw::update(&[], &v6, &[]));
    let usual = PREFIX[usize::from(matches!(row.body, V6(_)))];
    let prefix = row.prefix.unwrap_or(usual);
    let body = match row.body {
        V4(text) => raw::update(&[], &attributes(text, side, four_octets), &hex(NLRI)),
        V6(text) => raw::update(&[], &attributes(text, side, four_octets), &[]),
        Parts(withdrawn, text, nlri) => {
            raw::update(&hex(withdrawn), &attributes(text, side, four_octets), &hex(nlri))
        }
        Body::Raw(text) => raw::message(raw::UPDATE, &hex(text)),
    };
    session.raw.send(&body);
    let end = session.settle();
    let peer = session.peer();
    if let Some(Message { body, .. }) = end {
        assert!(session.path("10.8.0.0/16").is_none(), "routes of a session that was reset");
        return Outcome::Reset(body[0], body[1], body[2..].to_vec());
    }
    assert_eq!(peer["state"], "Established");
    assert!(session.path("10.8.0.0/16").is_some(), "a route that the message did not name is gone");
    let path = session.path(prefix);
    let withdrawn = peer["treatedAsWithdraw"].as_u64().unwrap();
    let discarded = peer["discardedAttributes"].as_u64().unwrap();
    match path {
        None if withdrawn > 0 => Withdrawn,
        None => Gone,
        Some(path) if path["usage"] == "rejected" => Refused,
        Some(path) if path["med"] == 1 => Ignored,
        Some(_) if discarded > 0 => Discarded,
        Some(_) => Accepted,
    }
}

fn check(test: &str, rows: &[Row]) {
    let more = "passive = true\ngraceful-restart = false\nextended-next-hop = true";
    let Some(fixture) = Fixture::start(test, rows.len(), more) else { return };
    fixture.voile.wait_peer(&Side::External.address(0).to_string(), |_| true);
    let wrong = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for side in Side::BOTH {
            let (wrong, fixture) = (&wrong, &fixture);
            scope.spawn(move || {
                for (number, row) in rows.iter().enumerate() {
                    let expected = match side {
                        Side::External => &row.external,
                        Side::Internal => &row.internal,
                    };
                    let found = run(fixture, side, number, row);
                    if found != *expected {
                        let line = format!(
                            "{} [RFC {}], {side:?}: expected {expected:02x?}, found {found:02x?}",
                            row.name, row.clause
                        );
                        wrong.lock().unwrap().insert((number, side), line);
                    }
                }
            });
        }
    });
    let wrong: Vec<String> = wrong.into_inner().unwrap().into_values().collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len() * 2, wrong.join("\n"));
}

#[test]
fn sections_and_prefixes_out_of_bounds() {
    check("sections_and_prefixes_out_of_bounds", &bounds());
}

#[test]
fn flags_duplicates_and_missing_attributes() {
    check("flags_duplicates_and_missing_attributes", &any_attribute());
}

#[test]
fn malformed_attributes_of_the_base_protocol() {
    check("malformed_attributes_of_the_base_protocol", &base());
}

#[test]
fn malformed_attributes_of_extensions() {
    check("malformed_attributes_of_extensions", &extensions());
}

#[test]
fn malformed_multiprotocol_attributes() {
    check("malformed_multiprotocol_attributes", &multiprotocol());
}

/// Of several paths (RFC 7911) a malformed message takes exactly those that it names.
#[test]
fn treat_as_withdraw_knows_path_identifiers() {
    let more = "passive = true\nadd-path = \"receive\"";
    let Some(fixture) = Fixture::start("path_identifiers", 1, more) else { return };
    fixture.voile.wait_peer(&Side::External.address(0).to_string(), |_| true);
    for side in Side::BOTH {
        let mut own = capabilities(side);
        own.extend(hex("4508 0001 01 02 0002 01 02"));
        let mut raw = fixture.connect(side, 0).establish(&Fixture::open(side, 0, &own));
        let mut send = |text: &str, nlri: &str| {
            raw.send(&raw::update(&[], &attributes(text, side, true), &hex(nlri)));
        };
        // Paths 1 and 2, then 2 again, malformed, and something to wait for.
        send("O P N 800404 00000001 L", "00000001 10 0a07");
        send("O P N 800404 00000002 L", "00000002 10 0a07");
        send("400101 09 P N L", "00000002 10 0a07");
        send("O P N L", "00000001 10 0aff");
        let name = side.address(0).to_string();
        wait_for("the end of the messages", Duration::from_secs(60), || {
            let paths = fixture.voile.paths("10.255.0.0/16")?;
            let found = paths.iter().any(|path| path["peer"] == name.as_str());
            if found { Ok(()) } else { Err(format!("{paths:#?}")) }
        });
        let paths = fixture.voile.paths(PREFIX[0]).unwrap();
        let own: Vec<_> = paths.iter().filter(|path| path["peer"] == name.as_str()).collect();
        let meds: Vec<_> = own.iter().map(|path| &path["med"]).collect();
        assert_eq!(meds, [1], "{side:?}: {paths:#?}");
        assert_eq!(fixture.voile.peer(&name).unwrap()["treatedAsWithdraw"], 1);
        // The same for everything of a prefix that only the withdrawn field names.
        raw.send(&raw::update(&hex("00000001 10 0a07"), &[], &[]));
        wait_for("no path is left", Duration::from_secs(60), || {
            let paths = fixture.voile.paths(PREFIX[0])?;
            let left = paths.iter().any(|path| path["peer"] == name.as_str());
            if left { Err(format!("{paths:#?}")) } else { Ok(()) }
        });
    }
}

/// A peer of two-octet AS numbers: what it carried along unread is put together (RFC 6793 §4.2.3).
#[test]
fn four_octet_paths_are_put_together_from_old_speakers() {
    struct Case(&'static str, &'static str, &'static str);
    let cases = [
        Case(
            "AS4_PATH replaces the end",
            "O 400208 02 03 fdea 5ba0 5ba0 N c0110a 02 02 00010000 00010001",
            "65002 65536 65537",
        ),
        Case(
            "AS4_PATH longer than AS_PATH is ignored",
            "O 400204 02 01 fdea N c0110a 02 02 00010000 00010001",
            "65002",
        ),
        Case(
            "AGGREGATOR of two octets: AS4_PATH is ignored",
            "O 400206 02 02 fdea 5ba0 N c00706 fde8 0a000009 c01106 02 01 00010000 c01208 00010000 0a000009",
            "65002 23456",
        ),
        Case(
            "AGGREGATOR alone: AS4_PATH counts",
            "O 400206 02 02 fdea 5ba0 N c00706 fde8 0a000009 c01106 02 01 00010000",
            "65002 65536",
        ),
        Case(
            "AGGREGATOR of AS_TRANS: both count",
            "O 400206 02 02 fdea 5ba0 N c00706 5ba0 0a000009 c01106 02 01 00010000 c01208 00010000 0a000009",
            "65002 65536",
        ),
    ];
    let Some(fixture) = Fixture::start("four_octet_paths", cases.len(), "passive = true") else {
        return;
    };
    fixture.voile.wait_peer(&Side::External.address(0).to_string(), |_| true);
    for (number, Case(name, text, expected)) in cases.iter().enumerate() {
        let raw = fixture.connect(Side::External, number);
        let mut raw = raw.establish(&Fixture::open(Side::External, number, &hex(OLD)));
        raw.send(&raw::update(&[], &attributes(text, Side::External, false), &hex(NLRI)));
        let peer = Side::External.address(number).to_string();
        let path = wait_for("the route", Duration::from_secs(60), || {
            let paths = fixture.voile.paths(PREFIX[0])?;
            paths.into_iter().find(|path| path["peer"] == peer.as_str()).ok_or("no path".to_owned())
        });
        assert_eq!(path["asPath"], *expected, "{name}");
        raw.send(&raw::message(KEEPALIVE, &[]));
    }
}
