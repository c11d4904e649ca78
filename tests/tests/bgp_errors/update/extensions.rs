//! The attributes of other RFCs.

use super::{Accepted, Discarded, OLD, Refused, Row, V4, Withdrawn, check, row};

fn rows() -> Vec<Row> {
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

#[test]
fn malformed_attributes_of_extensions() {
    check("malformed_attributes_of_extensions", &rows());
}
