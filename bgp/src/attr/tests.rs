use bytes::BytesMut;
use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::types::{Family, PeerType};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

const EXTERNAL: Context = Context { peer_type: PeerType::External, four_octet_as: true };
const INTERNAL: Context = Context { peer_type: PeerType::Internal, four_octet_as: true };
const OLD: Context = Context { peer_type: PeerType::External, four_octet_as: false };

const ORIGIN: &str = "400101 00";
const AS_PATH: &str = "400206 0201 0000fde9";
const NEXT_HOP: &str = "400304 0a000001";
const LOCAL_PREF: &str = "400504 00000064";

fn outcome(context: Context, text: &str) -> String {
    match decode(&bytes(text), context) {
        Err(notification) => format!("reset {}/{}", notification.code, notification.subcode),
        Ok(decoded) => match (decoded.withdraw(), decoded.faults.first()) {
            (Some(fault), _) => format!("withdraw: {}", fault.why),
            (None, Some(fault)) => format!("discard: {}", fault.why),
            (None, None) => "ok".into(),
        },
    }
}

const BASE: &str = "40010100 4002060201 0000fde9 400304 0a000001";

fn with(extra: &str) -> String {
    format!("{BASE} {LOCAL_PREF} {extra}")
}

/// The treatment of each, for an external and an internal peer if they differ.
fn table(cases: &[(&str, String)]) -> String {
    let row = |(name, text): &(&str, String)| {
        // Only internal peers send LOCAL_PREF.
        let external = outcome(EXTERNAL, &text.replace(LOCAL_PREF, ""));
        let internal = outcome(INTERNAL, text);
        if external == internal {
            format!("{name} | {external}\n")
        } else {
            format!("{name} | {external} | {internal}\n")
        }
    };
    cases.iter().map(row).collect()
}

/// RFC 7606 §7.1 to §7.3.
#[test]
fn what_errors_of_mandatory_attributes_cost() {
    let cases = [
        ("nothing wrong", with("")),
        ("overrun", with("4006ff")),
        ("header cut", with("40")),
        ("ORIGIN missing", format!("{AS_PATH} {NEXT_HOP} {LOCAL_PREF}")),
        ("AS_PATH missing", format!("{ORIGIN} {NEXT_HOP} {LOCAL_PREF}")),
        ("LOCAL_PREF missing", BASE.into()),
        ("ORIGIN 3", format!("400101 03 {AS_PATH} {NEXT_HOP} {LOCAL_PREF}")),
        ("ORIGIN long", format!("400102 0000 {AS_PATH} {NEXT_HOP} {LOCAL_PREF}")),
        ("ORIGIN optional", format!("c00101 00 {AS_PATH} {NEXT_HOP} {LOCAL_PREF}")),
        ("ORIGIN extended length", format!("50010001 00 {AS_PATH} {NEXT_HOP} {LOCAL_PREF}")),
        ("ORIGIN twice", with("400101 02")),
        ("AS_PATH bad type", format!("{ORIGIN} 400206 0501 0000fde9 {NEXT_HOP} {LOCAL_PREF}")),
        ("AS_PATH set", format!("{ORIGIN} 400206 0101 0000fde9 {NEXT_HOP} {LOCAL_PREF}")),
        ("AS_PATH confederation", format!("{ORIGIN} 400206 0301 0000fde9 {NEXT_HOP} {LOCAL_PREF}")),
        ("AS_PATH empty segment", format!("{ORIGIN} 400202 0200 {NEXT_HOP} {LOCAL_PREF}")),
        ("AS_PATH overrun", format!("{ORIGIN} 400206 0202 0000fde9 {NEXT_HOP} {LOCAL_PREF}")),
        ("AS_PATH one left", format!("{ORIGIN} 400207 0201 0000fde9 02 {NEXT_HOP} {LOCAL_PREF}")),
        ("AS_PATH AS 0", format!("{ORIGIN} 400206 0201 00000000 {NEXT_HOP} {LOCAL_PREF}")),
        ("AS_PATH empty", format!("{ORIGIN} 400200 {NEXT_HOP} {LOCAL_PREF}")),
        ("NEXT_HOP short", format!("{ORIGIN} {AS_PATH} 400303 0a0000 {LOCAL_PREF}")),
    ];
    expect![[r#"
        nothing wrong | ok
        overrun | withdraw: an attribute overruns the section
        header cut | withdraw: an attribute overruns the section
        ORIGIN missing | withdraw: ORIGIN is missing
        AS_PATH missing | withdraw: AS_PATH is missing
        LOCAL_PREF missing | ok | withdraw: LOCAL_PREF is missing
        ORIGIN 3 | withdraw: ORIGIN is not 0, 1 or 2
        ORIGIN long | withdraw: length is not 1
        ORIGIN optional | withdraw: flags do not fit the attribute
        ORIGIN extended length | ok
        ORIGIN twice | discard: duplicate attribute
        AS_PATH bad type | withdraw: unknown segment type
        AS_PATH set | withdraw: AS_SET (RFC 9774)
        AS_PATH confederation | withdraw: confederation segment
        AS_PATH empty segment | withdraw: empty segment
        AS_PATH overrun | withdraw: a segment overruns the attribute
        AS_PATH one left | withdraw: a segment overruns the attribute
        AS_PATH AS 0 | withdraw: AS 0
        AS_PATH empty | ok
        NEXT_HOP short | withdraw: length is not 4
    "#]]
    .assert_eq(&table(&cases));
}

/// RFC 7606 §7.4 onwards, and its successors.
#[test]
fn what_errors_of_other_attributes_cost() {
    let cases = [
        ("MED", with("800404 00000001")),
        ("MED short", with("800403 000001")),
        ("LOCAL_PREF short", format!("{BASE} 400503 000064")),
        ("ATOMIC_AGGREGATE", with("400600")),
        ("ATOMIC_AGGREGATE long", with("400601 00")),
        ("AGGREGATOR", with("c00708 0000fde9 0a000001")),
        ("AGGREGATOR short", with("c00706 fde9 0a000001")),
        ("AGGREGATOR AS 0", with("c00708 00000000 0a000001")),
        ("COMMUNITIES", with("c00804 fde90001")),
        ("COMMUNITIES empty", with("c00800")),
        ("COMMUNITIES odd", with("c00805 fde9000100")),
        ("ORIGINATOR_ID", with("800904 0a000001")),
        ("ORIGINATOR_ID short", with("800903 0a0000")),
        ("CLUSTER_LIST", with("800a04 0a000001")),
        ("CLUSTER_LIST empty", with("800a00")),
        ("EXTENDED odd", with("c01009 000000000000000000")),
        ("IPV6 EXTENDED odd", with("c01904 00000000")),
        ("LARGE odd", with("c02004 00000000")),
        ("AS4_PATH from a new speaker", with("c01106 0201 00011170")),
        ("AS4_PATH malformed", with("c01103 020100")),
        ("AS4_PATH with AS 0", with("c01106 0201 00000000")),
        ("AIGP", with("801a0b 01000b 0000000000000001")),
        ("OTC short", with("c02303 000001")),
        ("unknown transitive", with("c0f000")),
        ("unknown non-transitive", with("80f000")),
        ("unknown well-known", with("40f000")),
    ];
    expect![[r#"
        MED | ok
        MED short | withdraw: length is not 4
        LOCAL_PREF short | discard: from an external peer | withdraw: length is not 4
        ATOMIC_AGGREGATE | ok
        ATOMIC_AGGREGATE long | discard: length is not 0
        AGGREGATOR | ok
        AGGREGATOR short | discard: length does not fit
        AGGREGATOR AS 0 | discard: AS 0
        COMMUNITIES | ok
        COMMUNITIES empty | withdraw: length is not a multiple of the item size
        COMMUNITIES odd | withdraw: length is not a multiple of the item size
        ORIGINATOR_ID | discard: from an external peer | ok
        ORIGINATOR_ID short | discard: from an external peer | withdraw: length is not 4
        CLUSTER_LIST | discard: from an external peer | ok
        CLUSTER_LIST empty | discard: from an external peer | withdraw: length is not a multiple of the item size
        EXTENDED odd | withdraw: length is not a multiple of the item size
        IPV6 EXTENDED odd | withdraw: length is not a multiple of the item size
        LARGE odd | withdraw: length is not a multiple of the item size
        AS4_PATH from a new speaker | ok
        AS4_PATH malformed | discard: malformed AS4_PATH
        AS4_PATH with AS 0 | discard: AS 0 in AS4_PATH
        AIGP | discard: AIGP is not enabled
        OTC short | withdraw: length is not 4
        unknown transitive | ok
        unknown non-transitive | ok
        unknown well-known | reset 3/2
    "#]].assert_eq(&table(&cases));
}

fn decoded(context: Context, text: &str) -> PathAttributes {
    decode(&bytes(text), context).unwrap().attributes
}

/// RFC 7606 §3 g, RFC 4271 §5: of two the first, of what is neither known nor transitive nothing.
#[test]
fn the_first_of_two_counts_and_what_is_not_transitive_goes_no_further() {
    let once = decoded(INTERNAL, &with(""));
    assert_eq!(decoded(INTERNAL, &with("400101 02 400504 00000007")), once);
    assert_eq!(decoded(INTERNAL, &with("80fe02 abcd")), once);
    assert_eq!(decoded(INTERNAL, &with("c0fe02 abcd")).unknown.len(), 1);
}

#[test]
fn four_octet_numbers_come_through_an_old_speaker() {
    // RFC 6793 §4.2.3: AS_PATH 1 23456 23456, AS4_PATH 70000 70001.
    let path = "40020802 03 0001 5ba0 5ba0";
    let as4 = "c0110a 0202 00011170 00011171";
    let attributes = decoded(OLD, &format!("{ORIGIN} {path} {NEXT_HOP} {as4}"));
    assert_eq!(attributes.as_path.to_string(), "1 70000 70001");
    // An aggregator that fits two octets says nothing by itself.
    let aggregator = "c00706 0001 0a000001";
    let attributes = decoded(OLD, &format!("{ORIGIN} {path} {NEXT_HOP} {aggregator} {as4}"));
    assert_eq!(attributes.as_path.to_string(), "1 70000 70001");
    assert_eq!(attributes.aggregator.unwrap().asn, Asn(1));
    // With one that does not, it was an old speaker that put several paths into one.
    let both = format!("{aggregator} {as4} c01208 00011170 0a000001");
    let attributes = decoded(OLD, &format!("{ORIGIN} {path} {NEXT_HOP} {both}"));
    assert_eq!(attributes.as_path.to_string(), "1 23456 23456");
    assert_eq!(attributes.aggregator.unwrap().asn, Asn(1));
    // The same aggregator for those who know its number and for those who do not.
    let both = format!("c00706 5ba0 0a000001 {as4} c01208 00011170 0a000001");
    let attributes = decoded(OLD, &format!("{ORIGIN} {path} {NEXT_HOP} {both}"));
    assert_eq!(attributes.as_path.to_string(), "1 70000 70001");
    assert_eq!(attributes.aggregator.unwrap().asn, Asn(70000));
    // Longer than the path: ignored.
    let attributes = decoded(OLD, &format!("{ORIGIN} 400204 0201 5ba0 {NEXT_HOP} {as4}"));
    assert_eq!(attributes.as_path.to_string(), "23456");
}

#[test]
fn everything_both_ways() {
    let attributes = PathAttributes {
        origin: Origin::Incomplete,
        as_path: AsPath((1..=300).map(Asn).collect()),
        next_hop: Some(IpAddr::from([10, 0, 0, 1]).into()),
        med: Some(1),
        local_pref: Some(2),
        atomic_aggregate: true,
        aggregator: Some(Aggregator { asn: Asn(70000), router_id: [10, 0, 0, 9].into() }),
        communities: vec![Community(1), Community::NO_EXPORT],
        extended_communities: vec![ExtendedCommunity([0, 2, 0, 1, 0, 0, 0, 1])],
        large_communities: vec!["1:2:3".parse().unwrap()],
        originator_id: Some(RouterId(7)),
        cluster_list: (1..=100).map(RouterId).collect(),
        partial: Partial { aggregator: true, large_communities: true, ..Partial::default() },
        unknown: vec![UnknownAttribute { flags: 0xe0, code: 200, value: vec![1; 300] }],
    };
    for context in [INTERNAL, Context { four_octet_as: false, ..INTERNAL }] {
        let mut block = BytesMut::new();
        encode_block(&attributes, Family::Ipv4, context.four_octet_as, &mut block);
        let read = decode(&block, context).unwrap();
        assert_eq!(read.faults, []);
        assert_eq!(read.attributes, attributes);
    }
}

/// RFC 4271 §5: "it MUST NOT be set back to 0"; and nobody but the one who does not know an attribute sets it.
#[test]
fn once_partial_always_partial() {
    const LISTS: &str = "COMM04 fde90001 EXT08 0002000100000001 LARGE0c 000000010000000200000003";
    for partial in [0, 1, 2, 3] {
        let flags = |set: bool, code: &str| format!("{}{code}", if set { "e0" } else { "c0" });
        let lists = LISTS
            .replace("COMM", &flags(partial & 1 != 0, "08"))
            .replace("EXT", &flags(partial & 2 != 0, "10"))
            .replace("LARGE", &flags(partial & 1 != 0, "20"));
        let section = format!("{ORIGIN} {AS_PATH} {NEXT_HOP} {LOCAL_PREF} {lists}");
        let read = decode(&bytes(&section), INTERNAL).unwrap();
        assert_eq!(read.faults, []);
        let mut block = BytesMut::new();
        encode_block(&read.attributes, Family::Ipv4, true, &mut block);
        assert_eq!(decode(&block, INTERNAL).unwrap().attributes, read.attributes);
        let written = block.windows(bytes(&lists).len()).any(|part| part == bytes(&lists));
        assert!(written, "{partial}: {block:02x?}");
        let mut interner = Interner::default();
        let set = interner.intern(&read.attributes);
        assert_eq!(interner.attributes(set), read.attributes);
    }
}

#[test]
fn equal_sets_are_stored_once() {
    let mut interner = Interner::default();
    let attributes = PathAttributes {
        next_hop: Some(IpAddr::from([10, 0, 0, 1]).into()),
        local_pref: None,
        med: Some(7),
        originator_id: Some(RouterId(5)),
        ..PathAttributes::default()
    };
    let first = interner.intern(&attributes);
    assert_eq!(interner.intern(&attributes), first);
    assert_eq!(interner.attributes(first), attributes);
    let raw = bytes(BASE);
    let key = RawKey { context: EXTERNAL, next_hop: &[], bytes: &raw };
    let absent = interner.find(&key).unwrap_err();
    let decoded = decode(&raw, EXTERNAL).unwrap().attributes;
    let second = interner.insert(absent, &key, &decoded);
    assert_eq!(interner.find(&key), Ok(second));
    assert_eq!(interner.attributes(second), decoded);
    interner.find(&RawKey { context: INTERNAL, ..key }).unwrap_err();
    assert_eq!(interner.take_fresh(), [first, second]);
    assert_eq!(interner.take_fresh(), []);
    interner.forget(second);
    interner.forget(second);
    interner.find(&key).unwrap_err();
    assert_eq!(interner.len(), 1);
    let third = interner.intern(&PathAttributes { med: Some(8), ..PathAttributes::default() });
    assert_eq!((third, interner.len()), (second, 2));
    assert_eq!(interner.intern(&attributes), first);
    assert_eq!(interner.attributes(first), attributes);
}

proptest! {
    /// What can be read without a fault is written and read again unchanged.
    #[test]
    fn mutated_attributes_never_panic_and_survive_a_round_trip(
        flips in proptest::collection::vec((0_usize..100, any::<u8>()), 0..4),
        random in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut section = bytes(&format!(
            "{ORIGIN} {AS_PATH} {NEXT_HOP} {LOCAL_PREF} 800404 00000001 c00708 0000fde9 0a000001 \
             c00804 fde90001 800904 0a000001 800a04 0a000001 c0200c 000000010000000200000003"
        ));
        for (at, value) in flips {
            if let Some(byte) = section.get_mut(at) {
                *byte = value;
            }
        }
        for context in [EXTERNAL, INTERNAL, OLD] {
            let _ = decode(&random, context);
            let Ok(read) = decode(&section, context) else { continue };
            if read.faults.is_empty() {
                let mut block = BytesMut::new();
                encode_block(&read.attributes, Family::Ipv4, context.four_octet_as, &mut block);
                let again = decode(&block, context).unwrap();
                prop_assert_eq!(again.attributes, read.attributes);
            }
        }
    }
}

/// What cannot be written must not be stored: it would be read as something else.
#[test]
fn lists_fit_exactly_as_long_as_they_can_be_written() {
    let path = |count| PathAttributes {
        as_path: AsPath(vec![Asn(70_000); count]),
        ..PathAttributes::default()
    };
    let communities = |count| PathAttributes {
        communities: vec![Community(7); count],
        ..PathAttributes::default()
    };
    for (longest, longer) in
        [(path(16_351), path(16_352)), (communities(16_383), communities(16_384))]
    {
        let mut interner = Interner::default();
        assert!(longest.fits() && !longer.fits());
        let [set, broken] = [&longest, &longer].map(|each| interner.intern(each));
        assert_eq!(interner.attributes(set), longest);
        assert_ne!(interner.attributes(broken), longer);
    }
}
