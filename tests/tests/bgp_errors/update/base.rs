//! The attributes of RFC 4271.

use super::{Accepted, Discarded, OLD, Refused, Row, V4, Withdrawn, check, row};

fn rows() -> Vec<Row> {
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

#[test]
fn malformed_attributes_of_the_base_protocol() {
    check("malformed_attributes_of_the_base_protocol", &rows());
}
