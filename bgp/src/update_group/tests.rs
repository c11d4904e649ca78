use super::*;
use crate::{
    attr::PathAttributes,
    wire::{MAX_MESSAGE, Nlri, next_frame, update::Parts},
};

fn prefixes(family: Family, count: u8) -> Vec<Prefix> {
    let text = |n: u8| match family {
        Family::Ipv4 => format!("10.{n}.0.0/16"),
        Family::Ipv6 => format!("2001:db8:{n:x}::/48"),
    };
    (0..count).map(|n| text(n).parse().unwrap()).collect()
}

#[test]
fn messages_hold_all_prefixes_and_stay_within_the_limit() {
    let packer = Packer { four_octet_as: true, limit: 200 };
    for (family, next_hop) in [(Family::Ipv4, "10.0.0.1"), (Family::Ipv6, "2001:db8::1")] {
        let next_hop: std::net::IpAddr = next_hop.parse().unwrap();
        let attributes =
            PathAttributes { next_hop: Some(next_hop.into()), ..PathAttributes::default() };
        let all = prefixes(family, 200);
        let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
        for message in packer.announce(family, &attributes, &all).unwrap() {
            assert!(message.len() <= 200);
            let frame = next_frame(&message, MAX_MESSAGE).unwrap().unwrap();
            let parts = Parts::find(frame.body).unwrap();
            let nlri: Nlri<'_> = parts.reach.map_or(parts.announced, |reach| reach.nlri);
            announced.extend(nlri.iter());
        }
        for message in packer.withdraw(family, &all) {
            assert!(message.len() <= 200);
            let frame = next_frame(&message, MAX_MESSAGE).unwrap().unwrap();
            let parts = Parts::find(frame.body).unwrap();
            let nlri: Nlri<'_> = parts.unreach.map_or(parts.withdrawn, |unreach| unreach.nlri);
            withdrawn.extend(nlri.iter());
        }
        assert_eq!(announced, all);
        assert_eq!(withdrawn, all);
    }
}

#[test]
fn attributes_that_leave_no_room_are_refused() {
    let packer = Packer { four_octet_as: true, limit: 200 };
    let as_path = crate::attr::AsPath(vec![crate::Asn(1); 60]);
    let attributes = PathAttributes { as_path, ..PathAttributes::default() };
    let all = prefixes(Family::Ipv4, 1);
    assert_eq!(packer.announce(Family::Ipv4, &attributes, &all), Err(pack::TooLong));
}

#[test]
fn end_of_rib_is_recognized() {
    for family in Family::ALL {
        let message = end_of_rib(family);
        let frame = next_frame(&message, MAX_MESSAGE).unwrap().unwrap();
        assert_eq!(Parts::find(frame.body).unwrap().end_of_rib(), Some(family));
    }
    assert_eq!(end_of_rib(Family::Ipv4).len(), 23);
}
