use std::collections::BTreeMap;

use api::{AllowedUse, AssignmentMode, IpPool, IpPoolSpec};

use super::{Asker, Pool, Reservations, first_block, fnv32, select};
use crate::Family;

fn pool(name: &str, cidr: &str, change: impl FnOnce(&mut IpPoolSpec)) -> IpPool {
    let mut spec = IpPoolSpec { cidr: cidr.to_owned(), ..IpPoolSpec::default() };
    change(&mut spec);
    IpPool::new(name, spec)
}

#[test]
fn selection_says_why_not() {
    let pools = [
        pool("auto", "10.0.0.0/16", |_| {}),
        pool("rack2", "10.1.0.0/16", |spec| spec.node_selector = "rack == '2'".to_owned()),
        pool("team", "10.2.0.0/16", |spec| {
            spec.namespace_selector = Some("team == 'a'".to_owned())
        }),
        pool("off", "10.3.0.0/16", |spec| spec.disabled = true),
        pool("manual", "10.4.0.0/16", |spec| spec.assignment_mode = AssignmentMode::Manual),
        pool("lb", "10.5.0.0/16", |spec| spec.allowed_uses = vec![AllowedUse::LoadBalancer]),
        pool("bad", "10.6.0.0/30", |_| {}),
        pool("six", "fd00::/48", |_| {}),
    ];
    let labels = BTreeMap::from([("rack".to_owned(), "1".to_owned())]);
    let asker = Asker {
        node_labels: &labels,
        namespace_labels: Some(&labels),
        intended_use: AllowedUse::Workload,
    };
    let tell = |family, requested: &[&str]| {
        let requested: Vec<_> = requested.iter().map(|text| (*text).to_owned()).collect();
        let selection = select(&pools, family, &requested, &asker);
        let used: Vec<_> = selection.pools.iter().map(|pool| pool.name.clone()).collect();
        let refused: Vec<_> =
            selection.refused.iter().map(|(name, why)| format!("{name} {why}")).collect();
        format!("{}; not {}", used.join(","), refused.join(", "))
    };
    expect_test::expect![[r#"
        auto; not rack2 does not select this node, team does not select the namespace, off is disabled, manual has assignmentMode Manual, lb does not allow this use, see allowedUses, bad block size 26 does not fit 10.6.0.0/30
        six; not bad block size 26 does not fit 10.6.0.0/30
        manual,rack2; not off is disabled, bad block size 26 does not fit 10.6.0.0/30, none does not exist
    "#]]
    .assert_eq(&format!(
        "{}\n{}\n{}\n",
        tell(Family::V4, &[]),
        tell(Family::V6, &[]),
        tell(Family::V4, &["manual", "10.1.0.0/16", "off", "none"]),
    ));
}

#[test]
fn every_block_is_visited_once() {
    let pool = Pool::read(&pool("p", "10.0.0.0/20", |_| {})).unwrap();
    let visited = std::cell::RefCell::new(Vec::new());
    let all = first_block(&pool, "node-1", 0, |net| {
        visited.borrow_mut().push(*net);
        Some(*net)
    });
    let blocks = visited.into_inner();
    let unique: std::collections::BTreeSet<_> = blocks.iter().collect();
    assert_eq!((all, blocks.len(), unique.len()), (None, 64, 64));
    let first = |node: &str, attempt| first_block(&pool, node, attempt, |_| None).unwrap();
    assert_eq!(blocks[0], first("node-1", 0));
    assert_ne!(blocks[0], first("node-2", 0));
    assert_ne!(blocks[0], first("node-1", 1));
    // Published test vector of FNV-1.
    assert_eq!(fnv32(b"foobar"), 0x31f0_b262);
}

#[test]
fn what_is_taken_is_passed_over_at_once() {
    let pool = Pool::read(&pool("p", "fd00::/64", |_| {})).unwrap();
    let all_but_one = (65..=122_u32).map(|length| {
        let sibling = (0xfd00_u128 << 112) | (1 << (128 - length));
        format!("{}/{length}", std::net::Ipv6Addr::from(sibling))
    });
    for (reserved, first) in [
        (vec!["fd00::/64".to_owned()], None),
        (vec!["fd00::/80".to_owned()], Some("fd00::1:0:0:0/122")),
        (all_but_one.collect(), Some("fd00::/122")),
    ] {
        let spec = api::IpReservationSpec { reserved_cidrs: reserved };
        let reserved = Reservations::read(&[api::IpReservation::new("r", spec)]);
        let looked = std::cell::Cell::new(0);
        let found = first_block(&pool, "node-1", 0, |net| {
            looked.set(looked.get() + 1);
            reserved.covering(net)
        });
        assert_eq!(found.map(|net| net.to_string()).as_deref(), first);
        assert!(looked.get() < 200, "{reserved:?}: {}", looked.get());
    }
}

#[test]
fn reservations_are_found_among_many() {
    let spec = api::IpReservationSpec {
        reserved_cidrs: [
            "10.0.9.0/24",
            "10.0.9.7",
            "10.0.2.128/25",
            "10.0.2.0/25",
            "fd00::8/125",
            "x",
        ]
        .map(str::to_owned)
        .to_vec(),
    };
    let reserved = Reservations::read(&[api::IpReservation::new("r", spec)]);
    let tell = |text: &str| {
        let net: ipnet::IpNet = text.parse().unwrap();
        (reserved.contains(net.addr()), reserved.touch(&net), reserved.covering(&net).is_some())
    };
    assert_eq!(tell("10.0.2.0/24"), (true, true, true));
    assert_eq!(tell("10.0.2.255/32"), (true, true, true));
    assert_eq!(tell("10.0.0.0/20"), (false, true, false));
    assert_eq!(tell("10.0.3.0/26"), (false, false, false));
    assert_eq!(tell("fd00::/122"), (false, true, false));
    assert_eq!(tell("fd00::f/128"), (true, true, true));
    assert_eq!(tell("0.0.0.0/32"), (false, false, false));
}
