//! Messages of BMP to bytes.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::{Asn, Family, RouterId};

const VERSION: u8 = 3;

/// RFC 7854 §4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    RouteMonitoring = 0,
    StatisticsReport = 1,
    PeerDown = 2,
    PeerUp = 3,
    Initiation = 4,
    Termination = 5,
}

/// Bits of the per-peer header: the address is IPv6, what follows is after policy, it is of the Adj-RIB-Out (RFC 8671 §4).
const IPV6: u8 = 0x80;
const POST_POLICY: u8 = 0x40;
const ADJ_RIB_OUT: u8 = 0x10;
/// Types of peers: one of ours, and our own table (RFC 9069 §4.1).
const GLOBAL_INSTANCE: u8 = 0;
const LOC_RIB_INSTANCE: u8 = 3;

/// Whose table a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A peer's.
    Peer { address: IpAddr, asn: Asn, router_id: RouterId },
    /// Ours (RFC 9069 §4.1): without an address.
    LocRib { asn: Asn, router_id: RouterId },
}

/// Which of the tables of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Adj-RIB-In as received; also where there is only one table.
    PreIn,
    /// Adj-RIB-In after policy.
    PostIn,
    /// Adj-RIB-Out before policy.
    PreOut,
    /// Adj-RIB-Out as sent.
    PostOut,
}

impl Side {
    const fn bits(self) -> u8 {
        match self {
            Self::PreIn => 0,
            Self::PostIn => POST_POLICY,
            Self::PreOut => ADJ_RIB_OUT,
            Self::PostOut => ADJ_RIB_OUT | POST_POLICY,
        }
    }
}

/// The per-peer header (RFC 7854 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) subject: Subject,
    pub(crate) side: Side,
    /// Since 1970.
    pub(crate) time: Duration,
}

/// Why a session ended (RFC 7854 §4.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DownReason {
    /// We sent this NOTIFICATION.
    Notified(Bytes),
    /// We closed without one; number of the event of RFC 4271 §8.1.
    Closed(u16),
    /// The peer sent this NOTIFICATION.
    PeerNotified(Bytes),
    /// The peer closed without one, or the connection broke.
    PeerClosed,
}

/// A number of a report (RFC 7854 §4.8, RFC 8671 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistic {
    /// Routes in Adj-RIB-In.
    AdjRibIn(u64),
    /// Routes in Loc-RIB.
    LocRib(u64),
    /// Updates whose routes counted as withdrawn.
    TreatedAsWithdraw(u64),
    /// Prefixes that import policy refuses; a gauge with us.
    Rejected(u64),
    /// Routes of a family in Adj-RIB-In.
    LocRibFamily(Family, u64),
    /// Routes in the post-policy Adj-RIB-Out.
    AdjRibOut(u64),
}

fn message(kind: Type, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u32(0);
    out.put_u8(kind as u8);
    body(&mut out);
    let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(1..5) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    out.freeze()
}

impl Header {
    fn put(&self, out: &mut BytesMut) {
        let (kind, address, asn, router_id) = match self.subject {
            Subject::Peer { address, asn, router_id } => (GLOBAL_INSTANCE, address, asn, router_id),
            Subject::LocRib { asn, router_id } => {
                (LOC_RIB_INSTANCE, Ipv4Addr::UNSPECIFIED.into(), asn, router_id)
            }
        };
        let is_ipv6 = if address.is_ipv6() { IPV6 } else { 0 };
        out.put_u8(kind);
        // AS paths have four octets in what we send, whatever the session has: the bit for two stays clear.
        out.put_u8(is_ipv6 | self.side.bits());
        // No distinguisher.
        out.put_u64(0);
        put_address(address, out);
        out.put_u32(asn.0);
        out.put_u32(router_id.0);
        out.put_u32(u32::try_from(self.time.as_secs()).unwrap_or(u32::MAX));
        out.put_u32(self.time.subsec_micros());
    }
}

/// IPv4 in the last four of sixteen octets.
fn put_address(address: IpAddr, out: &mut BytesMut) {
    match address {
        IpAddr::V4(address) => {
            out.put_slice(&[0; 12]);
            out.put_slice(&address.octets());
        }
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
}

fn put_tlv(kind: u16, value: &[u8], out: &mut BytesMut) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.put_u16(kind);
    out.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
    out.put_slice(value);
}

/// RFC 7854 §4.3: the first message. Types 1 and 2 are sysDescr and sysName.
pub(super) fn initiation(name: &str, description: &str) -> Bytes {
    message(Type::Initiation, |out| {
        put_tlv(1, description.as_bytes(), out);
        put_tlv(2, name.as_bytes(), out);
    })
}

/// RFC 7854 §4.5: the last message; reason 0 is that somebody wants it so.
pub(super) fn termination() -> Bytes {
    message(Type::Termination, |out| put_tlv(1, &0_u16.to_be_bytes(), out))
}

/// The connection that a session runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) local: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
}

/// RFC 7854 §4.10: both OPEN messages; a name for the Loc-RIB (RFC 9069 §5.2.1).
pub(super) fn peer_up(header: &Header, ends: Ends, sent: &[u8], received: &[u8]) -> Bytes {
    message(Type::PeerUp, |out| {
        header.put(out);
        put_address(ends.local, out);
        out.put_u16(ends.local_port);
        out.put_u16(ends.remote_port);
        out.put_slice(sent);
        out.put_slice(received);
        if matches!(header.subject, Subject::LocRib { .. }) {
            put_tlv(3, b"global", out);
        }
    })
}

/// RFC 7854 §4.9.
pub(super) fn peer_down(header: &Header, reason: &DownReason) -> Bytes {
    message(Type::PeerDown, |out| {
        header.put(out);
        match reason {
            DownReason::Notified(notification) => {
                out.put_u8(1);
                out.put_slice(notification);
            }
            DownReason::Closed(event) => {
                out.put_u8(2);
                out.put_u16(*event);
            }
            DownReason::PeerNotified(notification) => {
                out.put_u8(3);
                out.put_slice(notification);
            }
            DownReason::PeerClosed => out.put_u8(4),
        }
    })
}

/// RFC 7854 §4.6: one UPDATE message.
pub(super) fn route_monitoring(header: &Header, update: &[u8]) -> Bytes {
    message(Type::RouteMonitoring, |out| {
        header.put(out);
        out.put_slice(update);
    })
}

/// RFC 7854 §4.8.
pub(super) fn statistics(header: &Header, statistics: &[Statistic]) -> Bytes {
    message(Type::StatisticsReport, |out| {
        header.put(out);
        out.put_u32(u32::try_from(statistics.len()).unwrap_or(u32::MAX));
        for statistic in statistics {
            statistic.put(out);
        }
    })
}

impl Statistic {
    fn put(self, out: &mut BytesMut) {
        let counter = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
        match self {
            Self::Rejected(number) => put_tlv(0, &counter(number), out),
            Self::AdjRibIn(number) => put_tlv(7, &number.to_be_bytes(), out),
            Self::LocRib(number) => put_tlv(8, &number.to_be_bytes(), out),
            Self::LocRibFamily(family, number) => {
                let mut value = family.afi().to_be_bytes().to_vec();
                value.push(1);
                value.extend(number.to_be_bytes());
                put_tlv(10, &value, out);
            }
            Self::TreatedAsWithdraw(number) => put_tlv(11, &counter(number), out),
            Self::AdjRibOut(number) => put_tlv(15, &number.to_be_bytes(), out),
        }
    }
}
