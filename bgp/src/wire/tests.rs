use proptest::prelude::*;

use super::*;
use crate::{
    types::{Asn, Families, Prefix, RouterId},
    wire::update::Parts,
};

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const MARK: &str = "ffffffffffffffffffffffffffffffff";

fn open(asn: u32, capabilities: Capabilities) -> Open {
    Open { asn: Asn(asn), hold_time: 90, router_id: RouterId(0x0a00_0001), capabilities }
}

#[test]
fn open_both_ways() {
    let graceful = GracefulRestart {
        restarting: true,
        notification: true,
        restart_time: 120,
        families: vec![GracefulRestartFamily { afi: 1, safi: 1, forwarding: true }],
    };
    let long_lived = LongLivedFamily { afi: 1, safi: 1, forwarding: true, stale_time: 3600 };
    let full = Capabilities {
        multiprotocol: vec![(1, 1), (2, 1)],
        route_refresh: true,
        extended_next_hop: vec![(1, 1, 2)],
        enhanced_route_refresh: true,
        extended_message: true,
        four_octet_as: Some(Asn(70000)),
        graceful_restart: Some(graceful),
        add_path: vec![AddPath { afi: 1, safi: 1, mode: 3 }],
        roles: vec![3],
        long_lived: Some(vec![long_lived]),
        unknown: Vec::new(),
    };
    let cases = [
        (open(65001, Capabilities::default()), "001d01 04 fde9 005a 0a000001 00"),
        (
            open(70000, full),
            "005901 04 5ba0 005a 0a000001 3c 023a 010400010001 010400020001 0506000100010002 0200 4600 0600 \
             410400011170 4006c07800010180 090103 4707000101 80 000e10 450400010103",
        ),
    ];
    for (value, text) in cases {
        let encoded = value.encode();
        assert_eq!(hex(&encoded), hex(&bytes(&format!("{MARK}{text}"))), "{value:?}");
        let frame = next_frame(&encoded, MAX_MESSAGE).unwrap().unwrap();
        assert_eq!(Open::decode(frame.body), Ok(value));
    }
}

#[test]
fn open_in_other_shapes() {
    // Two parameters, a duplicate, an unknown capability.
    let body = bytes("04 fde9 005a 0a000001 12 02080104 00010001 7f00 02060104 00010001");
    let open = Open::decode(&body).unwrap();
    assert_eq!(open.capabilities.multiprotocol, [(1, 1)]);
    assert_eq!(open.capabilities.unknown, [0x7f]);
    // RFC 9072, with and without the length of 255.
    for length in ["ff", "0b"] {
        let text = format!("04 fde9 005a 0a000001 {length} ff 0009 02 0006 0104 00020001");
        let open = Open::decode(&bytes(&text)).unwrap();
        assert_eq!(open.capabilities.families(), Families::IPV6);
    }
    // No multiprotocol capability: IPv4.
    let open = Open::decode(&bytes("04 fde9 005a 0a000001 00")).unwrap();
    assert_eq!(open.capabilities.families(), Families::IPV4);
}

#[test]
fn long_capabilities_use_the_extended_form() {
    let add_path = vec![AddPath { afi: 1, safi: 1, mode: 1 }; 60];
    let multiprotocol = (1..=5).map(|afi| (afi, 1)).collect();
    let value = open(1, Capabilities { add_path, multiprotocol, ..Capabilities::default() });
    let encoded = value.encode();
    assert_eq!(encoded[28..31], [255, 255, 1]);
    let frame = next_frame(&encoded, MAX_MESSAGE).unwrap().unwrap();
    assert_eq!(Open::decode(frame.body), Ok(value));
}

#[test]
fn errors_of_an_open() {
    const CASES: [(&str, u8, u8); 8] = [
        ("03 fde9 005a 0a000001 00", 2, 1),
        ("04 0000 005a 0a000001 00", 2, 2),
        ("04 5ba0 005a 0a000001 08 0206 4104 00000000", 2, 2),
        ("04 fde9 005a 00000000 00", 2, 3),
        ("04 fde9 0002 0a000001 00", 2, 6),
        ("04 fde9 005a 0a000001 02 0100", 2, 4),
        ("04 fde9 005a 0a000001 05 0206", 2, 0),
        ("04 fde9 005a 0a000001 00 00", 2, 0),
    ];
    for (text, code, subcode) in CASES {
        let error = Open::decode(&bytes(text)).unwrap_err();
        assert_eq!((error.code, error.subcode), (code, subcode), "{text}");
    }
    let error = Open::decode(&bytes("03 fde9 005a 0a000001 00")).unwrap_err();
    assert_eq!(error.data, [0, 4]);
}

#[test]
fn errors_of_a_header() {
    const CASES: [(&str, &str); 8] = [
        ("00ffffffffffffffffffffffffffffff 0013 04", "1/1"),
        ("ffffffffffffffffffffffffffffffff 0012 04", "1/2 0012"),
        ("ffffffffffffffffffffffffffffffff 0014 04", "1/2 0014"),
        ("ffffffffffffffffffffffffffffffff 001c 01", "1/2 001c"),
        ("ffffffffffffffffffffffffffffffff 0016 02", "1/2 0016"),
        ("ffffffffffffffffffffffffffffffff 1001 02", "1/2 1001"),
        ("ffffffffffffffffffffffffffffffff 0016 05", "1/2 0016"),
        ("ffffffffffffffffffffffffffffffff 0013 06", "1/3 06"),
    ];
    for (text, expected) in CASES {
        let error = next_frame(&bytes(text), MAX_MESSAGE).unwrap_err();
        let data = hex(&error.data);
        let shown = format!("{}/{} {data}", error.code, error.subcode);
        assert_eq!(shown.trim(), expected);
    }
    let long = bytes(&format!("{MARK}100102"));
    assert_eq!(next_frame(&long, MAX_EXTENDED_MESSAGE), Ok(None));
}

#[test]
fn notifications_in_words() {
    let shutdown = Notification::shutdown(Cease::AdministrativeShutdown, "back at noon");
    assert_eq!(shutdown.to_string(), "6/2 administrative shutdown \"back at noon\"");
    let hard = shutdown.into_hard_reset();
    assert_eq!(hard.to_string(), "6/9 hard reset (6/2 administrative shutdown \"back at noon\")");
    let encoded = hard.encode();
    let frame = next_frame(&encoded, MAX_MESSAGE).unwrap().unwrap();
    assert_eq!(Notification::decode(frame.body), Ok(hard));
    let long = Notification::shutdown(Cease::AdministrativeReset, &"ü".repeat(200));
    assert_eq!(long.text().map(|text| text.chars().count()), Some(127));
}

#[test]
fn route_refresh_both_ways() {
    let encoded = encode_route_refresh(Family::Ipv6, Refresh::Request);
    assert_eq!(hex(&encoded), format!("{MARK}00170500020001"));
    let frame = next_frame(&encoded, MAX_MESSAGE).unwrap().unwrap();
    assert_eq!(decode_route_refresh(frame.body), Ok(Some((Family::Ipv6, Refresh::Request))));
    assert_eq!(decode_route_refresh(&bytes("00190041")), Ok(None));
    assert!(decode_route_refresh(&bytes("0001010100")).is_err());
}

#[test]
fn prefixes_are_masked_when_read() {
    let nlri = Nlri::check(Family::Ipv4, false, &[20, 10, 1, 0xff, 0]).unwrap();
    let prefixes: Vec<Prefix> = nlri.iter().map(|item| item.prefix).collect();
    assert_eq!(format!("{prefixes:?}"), "[10.1.240.0/20, 0.0.0.0/0]");
    assert!(Nlri::check(Family::Ipv4, false, &[33, 0, 0, 0, 0, 0]).is_err());
    assert!(Nlri::check(Family::Ipv6, false, &[129]).is_err());
    assert!(Nlri::check(Family::Ipv4, false, &[24, 10, 1]).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = next_frame(&body, MAX_MESSAGE);
        let _ = Open::decode(&body);
        let _ = Notification::decode(&body).map(|notification| notification.to_string());
        let _ = decode_route_refresh(&body);
        if let Ok(parts) = Parts::find(&body, Families::NONE) {
            let _ = (parts.announced.iter().count(), parts.end_of_rib());
        }
    }
}

/// RFC 4760 §5: as many octets as the length needs, and all of them count.
#[test]
fn prefixes_of_every_length_both_ways() {
    for family in Family::ALL {
        let (ones, longest): (std::net::IpAddr, u8) = match family {
            Family::Ipv4 => ([0xff; 4].into(), 32),
            Family::Ipv6 => ([0xff; 16].into(), 128),
        };
        for length in 0..=longest {
            let item = Item { prefix: Prefix::new(ones, length).unwrap(), path_id: 0 };
            let mut out = BytesMut::new();
            encode_prefix(&item, false, &mut out);
            assert_eq!(out.len(), 1 + usize::from(length.div_ceil(8)), "{}", item.prefix);
            let bits: u32 = out[1..].iter().map(|octet| octet.count_ones()).sum();
            assert_eq!((out[0], bits), (length, u32::from(length)));
            let read: Vec<Item> = Nlri::check(family, false, &out).unwrap().iter().collect();
            assert_eq!(read, [item]);
        }
    }
}
