//! What every attribute may suffer from.

use super::{Accepted, Discarded, Gone, OLD, Row, V4, V6, Withdrawn, check, reset, row};

fn rows() -> Vec<Row> {
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

#[test]
fn flags_duplicates_and_missing_attributes() {
    check("flags_duplicates_and_missing_attributes", &rows());
}
