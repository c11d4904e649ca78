//! MP_REACH_NLRI and MP_UNREACH_NLRI.

use super::{
    Accepted, Body, EXTENDED, Gone, Ignored, ONLY_IPV4, Refused, Row, V6, Withdrawn, check, reset,
    row,
};

/// 10.5.0.0/16 in MP_REACH_NLRI.
const V4_REACH: Body = V6("800e0c 0001 01 04 0a090909 00 10 0a05 O P L");
const V4_REACH_16: Body = V6("800e18 0001 01 10 20010db8000000000000000000000009 00 10 0a05 O P L");
const V4_REACH_32: Body = V6(
    "800e28 0001 01 20 20010db8000000000000000000000009 fe800000000000000000000000000009 00 10 0a05 O P L",
);

fn rows() -> Vec<Row> {
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

#[test]
fn malformed_multiprotocol_attributes() {
    check("malformed_multiprotocol_attributes", &rows());
}
