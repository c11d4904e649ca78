//! Why a disagreement is none of our faults: each reason names the clause, and looks at the message itself.

use crate::{
    ours::Judgement,
    reading::{Route, Terms, Verdict},
};

/// A message and what both sides made of it.
pub(crate) struct Case<'a> {
    pub(crate) terms: Terms,
    pub(crate) body: &'a [u8],
    pub(crate) ours: &'a Judgement,
    pub(crate) theirs: &'a Verdict,
}

/// A reason, and whether it holds for a case.
pub(crate) type Excuse = (&'static str, fn(&Case<'_>) -> bool);

pub(crate) const EXCUSES: &[Excuse] = &[
    // They read what we must not, or need not.
    (
        "RFC 7911 §3: without ADD-PATH there are no path identifiers; bgpkit-parser guesses that there are",
        |case| {
            let some = |verdict: &Verdict, what: fn(&Route) -> bool| {
                verdict.as_ref().is_ok_and(|reading| reading.routes().iter().any(what))
            };
            // Four zeros may be an identifier, or four times the default route.
            let guessed = some(case.theirs, |route| route.path_id != 0)
                || case.theirs.is_ok() && some(&case.ours.verdict, |route| route.length == 0);
            !case.terms.add_path && guessed
        },
    ),
    ("RFC 4271 §6.3: an unknown well-known attribute ends the session", |case| {
        refused(case) && attributes(case.body).iter().any(|each| is_unknown_well_known(each))
    }),
    ("RFC 7606 §3 j, §4: an attribute that overruns the section is an error", |case| {
        refused(case) && attributes(case.body).iter().any(|each| each.overruns)
    }),
    ("RFC 7606 §7.11: a next hop of a length that no family has ends the session", |case| {
        let is_short = |each: &Attribute<'_>| {
            each.code == 14
                && matches!(each.value, [0, 1 | 2, 1, length, ..] if !matches!(length, 4 | 16 | 32))
        };
        refused(case) && attributes(case.body).iter().any(is_short)
    }),
    ("RFC 7606 §3 c, d, §7; 7607; 9774: routes with such attributes count as withdrawn", |case| {
        case.ours.verdict == Err("treated as withdraw".to_owned()) && is_malformed(case)
    }),
    // They refuse what we must read.
    ("RFC 7606 §5.2: where nothing is announced no attribute is judged", |case| {
        case.theirs.is_err()
            && case.ours.verdict.as_ref().is_ok_and(|reading| reading.announced.is_empty())
    }),
    ("RFC 7606 §2: an attribute is discarded, and the routes stay", |case| {
        case.ours.discarded && case.ours.verdict.is_ok()
    }),
    ("RFC 4760 §6: a family that was not negotiated is ignored", |case| {
        let foreign = |each: &Attribute<'_>| {
            matches!(each.code, 14 | 15) && !matches!(each.value, [0, 1 | 2, 1, ..])
        };
        case.theirs.is_err() && attributes(case.body).iter().any(foreign)
    }),
    (
        "RFC 7606 §3 c: of the flags only optional and transitive are judged, partial is not",
        |case| {
            let partial = |each: &Attribute<'_>| each.flags & 0x20 != 0;
            case.theirs.is_err() && attributes(case.body).iter().any(partial)
        },
    ),
];

fn refused(case: &Case<'_>) -> bool {
    case.ours.verdict.is_err()
}

struct Attribute<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    overruns: bool,
}

/// Cuts the attributes out of the body of an UPDATE.
fn attributes(body: &[u8]) -> Vec<Attribute<'_>> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet));
    let section = |bytes: &[u8]| {
        let end = bytes.len().min(2 + number(&bytes[..2.min(bytes.len())]));
        (2.min(end), end)
    };
    let (_, withdrawn) = section(body);
    let rest = &body[withdrawn..];
    let (start, end) = section(rest);
    let mut rest = &rest[start..end];
    let mut found = Vec::new();
    while let [flags, code, more @ ..] = rest {
        let size = if flags & 0x10 == 0 { 1 } else { 2 };
        let head = size.min(more.len());
        let length = number(&more[..head]);
        let overruns = head < size || more.len() - head < length;
        let end = if overruns { more.len() } else { head + length };
        found.push(Attribute { flags: *flags, code: *code, value: &more[head..end], overruns });
        rest = &more[end..];
    }
    if !rest.is_empty() {
        found.push(Attribute { flags: 0, code: 0, value: rest, overruns: true });
    }
    found
}

const TRANSITIVE: u8 = 0x40;
const OPTIONAL: u8 = 0x80;

/// The flags that an attribute must have; none for those that we do not know.
const fn flags(code: u8) -> Option<u8> {
    match code {
        1..=3 | 5 | 6 => Some(TRANSITIVE),
        4 | 9 | 10 | 14 | 15 | 26 => Some(OPTIONAL),
        7 | 8 | 16..=18 | 25 | 32 | 35 | 40 => Some(OPTIONAL | TRANSITIVE),
        _ => None,
    }
}

const fn is_unknown_well_known(attribute: &Attribute<'_>) -> bool {
    flags(attribute.code).is_none() && attribute.flags & OPTIONAL == 0
}

/// What the clauses of RFC 7606 find in an announcement.
fn is_malformed(case: &Case<'_>) -> bool {
    let found = attributes(case.body);
    let has = |code| found.iter().any(|each| each.code == code);
    // NEXT_HOP is for the NLRI field; both may announce.
    let missing = !has(1)
        || !has(2)
        || !has(3) && !has(14)
        || !has(3) && case.body.len() > 4
        || !has(5) && case.terms.internal;
    missing || found.iter().any(|each| is_bad(each, case.terms))
}

fn is_bad(attribute: &Attribute<'_>, terms: Terms) -> bool {
    let Attribute { flags: found, code, value, .. } = attribute;
    if flags(*code).is_some_and(|wanted| found & (OPTIONAL | TRANSITIVE) != wanted) {
        return true;
    }
    let list = |size| value.is_empty() || !value.len().is_multiple_of(size);
    match code {
        1 => !matches!(value, [0..=2]),
        2 => is_bad_path(value, if terms.four_octets { 4 } else { 2 }),
        3 | 4 | 5 | 9 | 35 => value.len() != 4,
        8 | 10 => list(4),
        16 => list(8),
        25 => list(20),
        32 => list(12),
        _ => false,
    }
}

fn is_bad_path(mut value: &[u8], size: usize) -> bool {
    while let [kind, count, rest @ ..] = value {
        let Some((asns, rest)) = rest.split_at_checked(usize::from(*count) * size) else {
            return true;
        };
        let zero = asns.chunks(size).any(|asn| asn.iter().all(|octet| *octet == 0));
        if *kind != 2 || *count == 0 || zero {
            return true;
        }
        value = rest;
    }
    !value.is_empty()
}
