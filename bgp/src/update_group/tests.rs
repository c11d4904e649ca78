use bytes::BytesMut;

use super::{pack::Block, *};
use crate::{
    attr::{AsPath, PathAttributes, encode_block},
    types::{Family, Prefix},
    wire::{MAX_MESSAGE, Nlri, next_frame, update::Parts},
};

fn items(family: Family, count: u8) -> Vec<Item> {
    let text = |n: u8| match family {
        Family::Ipv4 => format!("10.{n}.0.0/16"),
        Family::Ipv6 => format!("2001:db8:{n:x}::/48"),
    };
    let prefixes = (0..count).map(|n| text(n).parse::<Prefix>().unwrap());
    prefixes.map(|prefix| Item { prefix, path_id: 0 }).collect()
}

/// Cuts a stream into messages and reads the prefixes of each.
fn read<'a>(
    stream: &'a BytesMut,
    add_path: Families,
    pick: impl Fn(&Parts<'a>) -> Nlri<'a>,
) -> Vec<Item> {
    let (mut rest, mut items) = (&stream[..], Vec::new());
    while let Some(frame) = next_frame(rest, MAX_MESSAGE).unwrap() {
        assert!(frame.length() <= 200);
        items.extend(pick(&Parts::find(frame.body, add_path).unwrap()).iter());
        rest = &rest[frame.length()..];
    }
    assert_eq!(rest, []);
    items
}

fn announces<'a>(parts: &Parts<'a>) -> Nlri<'a> {
    parts.reach.map_or(parts.announced, |reach| reach.nlri)
}

fn withdraws<'a>(parts: &Parts<'a>) -> Nlri<'a> {
    parts.unreach.map_or(parts.withdrawn, |unreach| unreach.nlri)
}

#[test]
fn messages_hold_all_prefixes_and_stay_within_the_limit() {
    for add_path in [Families::NONE, Families::BOTH] {
        let packer = Packer { limit: 200, add_path };
        let cases = [
            (Family::Ipv4, "10.0.0.1"),
            (Family::Ipv4, "2001:db8::1"),
            (Family::Ipv6, "2001:db8::1"),
        ];
        for (family, next_hop) in cases {
            let next_hop = next_hop.parse::<std::net::IpAddr>().unwrap().into();
            let attributes =
                PathAttributes { next_hop: Some(next_hop), ..PathAttributes::default() };
            let mut block = BytesMut::new();
            encode_block(&attributes, family, true, &mut block);
            let block = Block { family, next_hop: Some(next_hop), bytes: &block };
            let mut all = items(family, 200);
            if add_path == Families::BOTH {
                all.iter_mut().zip(1..).for_each(|(item, id)| item.path_id = id);
            }
            let (mut announced, mut withdrawn) = (BytesMut::new(), BytesMut::new());
            packer.announce(&block, &all, &mut announced).unwrap();
            packer.withdraw(family, &all, &mut withdrawn);
            // Reading IPv4 prefixes with an IPv6 next hop needs RFC 8950.
            if (family, next_hop.address.is_ipv6()) != (Family::Ipv4, true) {
                assert_eq!(read(&announced, add_path, announces), all);
            }
            assert_eq!(read(&withdrawn, add_path, withdraws), all);
        }
    }
}

#[test]
fn attributes_that_leave_no_room_are_refused() {
    let packer = Packer { limit: 200, add_path: Families::NONE };
    let as_path = AsPath(vec![crate::Asn(1); 60]);
    let attributes = PathAttributes { as_path, ..PathAttributes::default() };
    let mut bytes = BytesMut::new();
    encode_block(&attributes, Family::Ipv4, true, &mut bytes);
    let block = Block { family: Family::Ipv4, next_hop: None, bytes: &bytes };
    let mut out = BytesMut::new();
    let all = items(Family::Ipv4, 1);
    assert_eq!(packer.announce(&block, &all, &mut out), Err(pack::TooLong));
    assert_eq!(out.len(), 0);
}

#[test]
fn end_of_rib_is_recognized() {
    for family in Family::ALL {
        let mut message = BytesMut::new();
        end_of_rib(family, &mut message);
        let frame = next_frame(&message, MAX_MESSAGE).unwrap().unwrap();
        let parts = Parts::find(frame.body, Families::NONE).unwrap();
        assert_eq!(parts.end_of_rib(), Some(family));
    }
}

fn key() -> GroupKey {
    GroupKey {
        peer_type: PeerType::External,
        client: false,
        local_as: crate::Asn(65_101),
        cluster_id: crate::RouterId::from(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        families: Families::BOTH,
        add_path: Families::NONE,
        four_octet_as: true,
        limit: MAX_MESSAGE,
        next_hop: Default::default(),
        own_ipv4: None,
        own_ipv6: None,
        extended_next_hop: false,
        local_pref: 100,
        graceful_shutdown: false,
        role: None,
        long_lived: false,
        export: crate::filter::Policy {
            filters: Vec::new(),
            default: crate::filter::Action::Accept,
        },
    }
}

/// The path of a peer that joins may be better than what its group has: the same flush writes it down and admits the peer.
#[test]
fn members_hear_of_what_was_written_when_somebody_joins() {
    let multipath = crate::decision::Multipath { max_paths: 1, relax: false };
    let (rib, interner) = (Rib::new(multipath), Interner::default());
    let senders = Senders::new();
    let table = Table { rib: &rib, interner: &interner, senders: &senders };
    let changes = Changes { chosen: &[], paths: &[], complete: true };
    let (old, new) = (PeerId(1), PeerId(2));
    let mut group = UpdateGroup::new(key(), Limits::default());
    let mut ready = BTreeSet::new();
    group.join(old, Heritage::default());
    while group.wants_flush() {
        group.flush(changes, table, &mut ready);
    }
    assert_ne!(group.transmit(old, usize::MAX, table, &mut Vec::new()), Taken::default());
    ready.clear();
    group.join(new, Heritage::default());
    group.log.writer().write(Audience::All, |out| {
        end_of_rib(Family::Ipv4, out);
        1
    });
    group.flush(changes, table, &mut ready);
    assert_eq!(ready, BTreeSet::from([old, new]));
    let taken = group.transmit(old, usize::MAX, table, &mut Vec::new());
    assert_eq!(taken.updates, 1);
}
