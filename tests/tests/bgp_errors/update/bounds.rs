//! The bounds of the sections and of the prefixes in them.

use super::{Accepted, Body, Gone, Ignored, NLRI, Parts, Row, V4, Withdrawn, check, reset, row};

fn rows() -> Vec<Row> {
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

#[test]
fn sections_and_prefixes_out_of_bounds() {
    check("sections_and_prefixes_out_of_bounds", &rows());
}
