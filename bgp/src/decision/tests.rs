use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::{
    attr::{AsPath, AttrId, Interner, PathAttributes},
    types::Asn,
};

#[derive(Clone, Debug)]
struct Path {
    attributes: PathAttributes,
    peer_type: Option<PeerType>,
    id: u8,
    address: u8,
}

fn path(asns: &[u32]) -> Path {
    let as_path = AsPath(asns.iter().copied().map(Asn).collect());
    let attributes = PathAttributes { as_path, ..PathAttributes::default() };
    Path { attributes, peer_type: Some(PeerType::External), id: 1, address: 1 }
}

fn run(paths: &[Path]) -> Decision {
    let mut interner = Interner::default();
    let sets: Vec<AttrId> = paths.iter().map(|path| interner.intern(&path.attributes)).collect();
    let candidates = paths.iter().zip(&sets).enumerate().map(|(index, (path, set))| Candidate {
        attributes: interner.get(*set).unwrap(),
        from: Origination {
            peer_type: path.peer_type,
            router_id: RouterId(u32::from(path.id)),
            address: Ipv4Addr::new(10, 0, 0, path.address).into(),
        },
        path_id: 0,
        index,
    });
    decide(candidates.collect(), Multipath { max_paths: 8, relax: true }).unwrap()
}

fn winner(paths: &[Path]) -> (usize, Why) {
    let decision = run(paths);
    (decision.used[0], decision.why)
}

#[test]
fn each_step_decides_when_the_ones_before_are_equal() {
    let base = path(&[1, 2]);
    let with = |change: &dyn Fn(&mut Path)| {
        let mut changed = base.clone();
        change(&mut changed);
        changed
    };
    let cases = [
        (with(&|p| p.attributes.local_pref = Some(101)), Why::LocalPref),
        (with(&|p| p.peer_type = None), Why::LocalOrigin),
        (path(&[9]), Why::AsPathLength),
        (with(&|p| p.id = 0), Why::RouterId),
        (with(&|p| p.address = 0), Why::PeerAddress),
    ];
    for (better, why) in cases {
        assert_eq!(winner(&[base.clone(), better.clone()]), (1, why));
        assert_eq!(winner(&[better, base.clone()]), (0, why));
    }
    let worse = [
        (with(&|p| p.attributes.origin = Origin::Egp), Why::Origin),
        (with(&|p| p.attributes.med = Some(1)), Why::Med),
        (with(&|p| p.peer_type = Some(PeerType::Internal)), Why::PeerType),
        (with(&|p| p.attributes.cluster_list.push(RouterId(1))), Why::ClusterList),
    ];
    for (worse, why) in worse {
        assert_eq!(winner(&[worse, base.clone()]), (1, why));
    }
    assert_eq!(winner(&[base]), (0, Why::OnlyPath));
}

#[test]
fn med_is_compared_within_a_neighbour_only() {
    let mut a = path(&[1, 9]);
    a.attributes.med = Some(10);
    a.id = 1;
    let mut b = path(&[2, 9]);
    b.attributes.med = Some(5);
    b.id = 2;
    assert_eq!(winner(&[a.clone(), b.clone()]), (0, Why::RouterId));
    let mut c = path(&[1, 9]);
    c.attributes.med = Some(1);
    c.id = 3;
    // The path through the same neighbour knocks the best one out: now the second wins.
    assert_eq!(winner(&[a, b, c]), (1, Why::RouterId));
}

#[test]
fn equal_cost_paths_share_the_load() {
    let (mut a, mut b) = (path(&[1]), path(&[2]));
    a.id = 2;
    b.id = 1;
    assert_eq!(run(&[a, b, path(&[3, 4])]).used, [1, 0]);
}

fn any_path() -> impl Strategy<Value = Path> {
    let asns = proptest::collection::vec(1_u32..4, 0..3);
    let rest = (0_u32..2, 0_u32..3, 0_u8..3, 0_u8..3, 0_u8..3);
    (asns, rest).prop_map(|(asns, (local_pref, med, kind, id, address))| {
        let mut path = path(&asns);
        path.attributes.local_pref = Some(local_pref);
        path.attributes.med = Some(med);
        path.peer_type = match kind {
            0 => None,
            1 => Some(PeerType::External),
            _ => Some(PeerType::Internal),
        };
        Path { id, address, ..path }
    })
}

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_matter(
        paths in proptest::collection::vec(any_path(), 1..7),
        rotation in 0_usize..7,
    ) {
        // Peer addresses are unique in a speaker; so are they here.
        let mut paths = paths;
        for (index, path) in paths.iter_mut().enumerate() {
            path.address = u8::try_from(index).unwrap();
        }
        let name = |paths: &[Path], index: usize| paths[index].address;
        let first = run(&paths);
        let mut turned = paths.clone();
        let turns = rotation % paths.len();
        turned.rotate_left(turns);
        let second = run(&turned);
        prop_assert_eq!(name(&paths, first.used[0]), name(&turned, second.used[0]));
        prop_assert_eq!(first.why, second.why);
        let names = |paths: &[Path], used: &[usize]| {
            used.iter().map(|index| name(paths, *index)).collect::<Vec<_>>()
        };
        prop_assert_eq!(names(&paths, &first.used), names(&turned, &second.used));
    }

    /// Taking away a path that lost by an ordinary step changes nothing.
    #[test]
    fn the_winner_beats_every_other_path_with_another_neighbour_alone(
        paths in proptest::collection::vec(any_path(), 2..6),
    ) {
        let mut paths = paths;
        for (index, path) in paths.iter_mut().enumerate() {
            path.address = u8::try_from(index).unwrap();
            path.attributes.med = None;
        }
        let best = run(&paths).used[0];
        for (index, other) in paths.iter().enumerate() {
            if index != best {
                let pair = [paths[best].clone(), other.clone()];
                prop_assert_eq!(run(&pair).used[0], 0);
            }
        }
    }
}
