use std::time::Duration;

use bytes::Bytes;

use super::{
    DownReason,
    encode::{
        Ends, Header, Side, Statistic, Subject, initiation, peer_down, peer_up, route_monitoring,
        statistics, termination,
    },
};
use crate::{Asn, RouterId, types::Family};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn expected(text: &str) -> String {
    text.split_whitespace().collect()
}

fn header(address: &str, side: Side) -> Header {
    let subject = Subject::Peer {
        address: address.parse().unwrap(),
        asn: Asn(65002),
        router_id: RouterId(0x0a00_0002),
    };
    Header { subject, side, time: Duration::new(0x0102_0304, 5000) }
}

const V4: &str =
    "00 00 0000000000000000 000000000000000000000000c0000201 0000fdea 0a000002 01020304 00000005";

#[test]
fn messages_byte_by_byte() {
    let down = peer_down(
        &header("192.0.2.1", Side::PreIn),
        &DownReason::PeerNotified(Bytes::from_static(&[1, 2])),
    );
    assert_eq!(hex(&down), expected(&format!("03 00000033 02 {V4} 03 0102")));
    let closed = peer_down(&header("192.0.2.1", Side::PreIn), &DownReason::Closed(23));
    assert_eq!(hex(&closed), expected(&format!("03 00000033 02 {V4} 02 0017")));
    let ends = Ends { local: "192.0.2.9".parse().unwrap(), local_port: 0, remote_port: 179 };
    let up = peer_up(&header("192.0.2.1", Side::PreIn), ends, &[1], &[2]);
    let tail = "000000000000000000000000c0000209 0000 00b3 01 02";
    assert_eq!(hex(&up), expected(&format!("03 00000046 03 {V4} {tail}")));
    let after = route_monitoring(&header("2001:db8::1", Side::PostIn), &[9]);
    let v6 = "00 c0 0000000000000000 20010db8000000000000000000000001 0000fdea 0a000002 01020304 00000005";
    assert_eq!(hex(&after), expected(&format!("03 00000031 00 {v6} 09")));
    // RFC 8671 §4: the fourth bit.
    let out = route_monitoring(&header("192.0.2.1", Side::PostOut), &[9]);
    assert_eq!(
        hex(&out),
        expected(&format!("03 00000031 00 {} 09", V4.replacen("00 00", "00 50", 1)))
    );
    let out = route_monitoring(&header("192.0.2.1", Side::PreOut), &[9]);
    assert_eq!(
        hex(&out),
        expected(&format!("03 00000031 00 {} 09", V4.replacen("00 00", "00 10", 1)))
    );
    assert_eq!(hex(&initiation("r1", "V")), "0300000011040001000156000200027231");
    assert_eq!(hex(&termination()), "030000000c05000100020000");
}

#[test]
fn numbers_and_our_own_table() {
    let subject = Subject::LocRib { asn: Asn(65001), router_id: RouterId(1) };
    let header = Header { subject, side: Side::PreIn, time: Duration::ZERO };
    let numbers = [Statistic::LocRib(3), Statistic::LocRibFamily(Family::Ipv6, 2)];
    let own = "03 00 0000000000000000 00000000000000000000000000000000 0000fde9 00000001 00000000 00000000";
    assert_eq!(
        hex(&statistics(&header, &numbers)),
        expected(&format!(
            "03 0000004f 01 {own} 00000002 0008 0008 0000000000000003 000a 000b 0002 01 0000000000000002"
        ))
    );
}
