use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::{
    attr::{AsPath, AttrId, Community, Interner, Origin, PathAttributes},
    types::Asn,
};

#[derive(Clone, Debug)]
struct Path {
    attributes: PathAttributes,
    peer_type: Option<PeerType>,
    id: u8,
    address: u8,
    interface: Option<&'static str>,
    cost: u32,
    path_id: u32,
}

fn path(asns: &[u32]) -> Path {
    let as_path = AsPath(asns.iter().copied().map(Asn).collect());
    let attributes = PathAttributes { as_path, ..PathAttributes::default() };
    let peer_type = Some(PeerType::External);
    Path { attributes, peer_type, id: 1, address: 1, interface: None, cost: 0, path_id: 0 }
}

fn run_with(paths: &[Path], multipath: Multipath) -> Decision {
    let mut interner = Interner::default();
    let sets: Vec<AttrId> = paths.iter().map(|path| interner.intern(&path.attributes)).collect();
    let candidates = paths.iter().zip(&sets).enumerate().map(|(index, (path, set))| Candidate {
        attributes: interner.get(*set).unwrap(),
        from: Origination {
            peer_type: path.peer_type,
            router_id: RouterId(u32::from(path.id)),
            address: Ipv4Addr::new(10, 0, 0, path.address).into(),
        },
        interface: path.interface,
        cost: path.cost,
        path_id: path.path_id,
        index,
    });
    decide(candidates.collect(), multipath).unwrap()
}

fn run(paths: &[Path]) -> Decision {
    run_with(paths, Multipath { max_paths: 8, relax: true })
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
        (with(&|p| (p.cost, p.id) = (1, 0)), Why::InteriorCost),
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
fn external_paths_share_when_their_as_paths_are_equal_and_as_many_as_may() {
    let (mut a, mut b, mut c) = (path(&[1, 2]), path(&[1, 2]), path(&[1, 3]));
    (a.id, b.id, c.id) = (3, 2, 1);
    let used = |max_paths, relax| {
        run_with(&[a.clone(), b.clone(), c.clone()], Multipath { max_paths, relax }).used
    };
    assert_eq!(used(1, true), [2]);
    assert_eq!(used(2, true), [2, 1]);
    assert_eq!(used(3, true), [2, 1, 0]);
    assert_eq!(used(3, false), [2]);
    let alike = run_with(&[a.clone(), b.clone()], Multipath { max_paths: 2, relax: false });
    assert_eq!(alike.used, [1, 0]);
}

#[test]
fn equal_cost_paths_share_the_load() {
    let (mut a, mut b) = (path(&[1]), path(&[2]));
    a.id = 2;
    b.id = 1;
    assert_eq!(run(&[a.clone(), b.clone(), path(&[3, 4])]).used, [1, 0]);
    // One is further away.
    b.cost = 1;
    let decision = run(&[a, b]);
    assert_eq!((decision.used, decision.lost), (vec![0], vec![(1, Why::InteriorCost)]));
}

/// What the steps look at, as the RFCs write it: one after the other, less is better.
fn values(path: &Path) -> [(Why, u64); 5] {
    let Path { attributes, peer_type, .. } = path;
    let local_pref = attributes.local_pref.unwrap_or(100);
    [
        (Why::LongLivedStale, u64::from(attributes.communities.contains(&Community::LLGR_STALE))),
        (Why::LocalOrigin, u64::from(peer_type.is_some())),
        (Why::LocalPref, u64::from(u32::MAX) - u64::from(local_pref)),
        (Why::AsPathLength, u64::try_from(attributes.as_path.0.len()).unwrap()),
        (
            Why::Origin,
            match attributes.origin {
                Origin::Igp => 0,
                Origin::Egp => 1,
                Origin::Incomplete => 2,
            },
        ),
    ]
}

/// The same behind MULTI_EXIT_DISC.
fn late_values(path: &Path) -> [(Why, u64); 7] {
    let Path { attributes, peer_type, id, address, interface, cost, path_id } = path;
    let router_id = attributes.originator_id.unwrap_or(RouterId(u32::from(*id))).0;
    let interface = interface.map_or(0, |name| u64::from(name.as_bytes()[3]));
    [
        (Why::PeerType, u64::from(*peer_type == Some(PeerType::Internal))),
        (Why::InteriorCost, u64::from(*cost)),
        (Why::RouterId, u64::from(router_id)),
        (Why::ClusterList, u64::try_from(attributes.cluster_list.len()).unwrap()),
        (Why::PeerAddress, u64::from(*address)),
        (Why::PeerAddress, interface),
        (Why::PathId, u64::from(*path_id)),
    ]
}

/// The decision as RFC 4271 §9.1.2.2 tells it: step by step, each removes what is not as good as the best that is left.
/// Returns the best one, the last step that removed anything, and who lost where.
fn plain(paths: &[Path]) -> (usize, Why, Vec<(usize, Why)>) {
    let mut left: Vec<usize> = (0..paths.len()).collect();
    let (mut why, mut lost) = (Why::OnlyPath, Vec::new());
    let mut remove = |left: &mut Vec<usize>, step: Why, worse: &dyn Fn(usize) -> bool| {
        let gone: Vec<usize> = left.iter().copied().filter(|index| worse(*index)).collect();
        if !gone.is_empty() {
            why = step;
        }
        left.retain(|index| !gone.contains(index));
        lost.extend(gone.into_iter().map(|index| (index, step)));
    };
    for place in 0..values(&paths[0]).len() {
        let value = |index: usize| values(&paths[index])[place].1;
        let best = left.iter().map(|index| value(*index)).min().unwrap();
        remove(&mut left, values(&paths[0])[place].0, &|index| value(index) > best);
    }
    let rivals = left.clone();
    remove(&mut left, Why::Med, &|index| {
        let of = |index: usize| {
            let attributes = &paths[index].attributes;
            (attributes.as_path.0.first(), attributes.med.unwrap_or(0))
        };
        let (neighbour, med) = of(index);
        rivals.iter().any(|rival| of(*rival).0 == neighbour && of(*rival).1 < med)
    });
    for place in 0..late_values(&paths[0]).len() {
        let value = |index: usize| late_values(&paths[index])[place].1;
        let best = left.iter().map(|index| value(*index)).min().unwrap();
        remove(&mut left, late_values(&paths[0])[place].0, &|index| value(index) > best);
    }
    assert_eq!(left.len(), 1, "no two paths are equal");
    lost.sort_unstable();
    (left[0], why, lost)
}

fn any_path() -> impl Strategy<Value = Path> {
    let asns = proptest::collection::vec(1_u32..4, 0..3);
    let local_pref =
        prop_oneof![Just(None), (99_u32..102).prop_map(Some), Just(Some(0)), Just(Some(u32::MAX))];
    let med = proptest::option::of(0_u32..3);
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let peer_type =
        prop_oneof![Just(None), Just(Some(PeerType::External)), Just(Some(PeerType::Internal))];
    let reflected = (proptest::option::of(1_u32..3), 0_usize..3);
    let interface = prop_oneof![Just(None), Just(Some("eth0")), Just(Some("eth1"))];
    let cost = prop_oneof![3 => Just(0), 1 => 0_u32..3, 1 => Just(u32::MAX)];
    let who = (peer_type, 0_u8..3, 0_u8..2, interface, cost);
    let attributes = (asns, local_pref, med, origin, any::<bool>(), reflected);
    (attributes, who).prop_map(|((asns, local_pref, med, origin, stale, reflected), who)| {
        let mut path = path(&asns);
        (path.peer_type, path.id, path.address, path.interface, path.cost) = who;
        let attributes = &mut path.attributes;
        (attributes.local_pref, attributes.med, attributes.origin) = (local_pref, med, origin);
        attributes.communities.extend(stale.then_some(Community::LLGR_STALE));
        attributes.originator_id = reflected.0.map(RouterId);
        attributes.cluster_list = vec![RouterId(9); reflected.1];
        path
    })
}

/// Paths that differ in little, each under a path identifier of its own.
fn any_paths(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Path>> {
    let alike = proptest::collection::vec((any_path(), any::<u16>()), count);
    alike.prop_map(|paths| {
        let base = paths[0].0.clone();
        let mix = |(path_id, (other, mask)): (u32, (Path, u16))| {
            let mut path = other;
            let (mine, common) = (&mut path.attributes, &base.attributes);
            let same = |bit: u16| mask >> bit & 1 == 1;
            if same(0) {
                mine.communities.clone_from(&common.communities);
            }
            if same(1) {
                path.peer_type = base.peer_type;
            }
            if same(2) {
                mine.local_pref = common.local_pref;
            }
            if same(3) {
                mine.as_path.clone_from(&common.as_path);
            }
            if same(4) {
                mine.origin = common.origin;
            }
            if same(5) {
                mine.med = common.med;
            }
            if same(6) {
                (path.id, mine.originator_id) = (base.id, common.originator_id);
            }
            if same(7) {
                mine.cluster_list.clone_from(&common.cluster_list);
            }
            if same(8) {
                path.cost = base.cost;
            }
            Path { path_id, ..path }
        };
        (0..).zip(paths).map(mix).collect()
    })
}

#[test]
fn a_long_path_is_long_and_nothing_else() {
    let long = |hops: usize, local_pref: u32| {
        let as_path = AsPath(vec![Asn(1); hops]);
        let local_pref = Some(local_pref);
        Preference::of(&PathAttributes { as_path, local_pref, ..PathAttributes::default() })
    };
    // As long as an attribute can be, and longer than 16 bits can say.
    for hops in [16_383, 32_767, 65_535, 65_536, 70_000] {
        let (one, more) = (long(hops, 100), long(hops + 1, 100));
        assert!(one < more);
        assert_eq!(one.step_between(more), Some(Why::AsPathLength));
        assert!(long(hops, 101) < long(0, 100));
        assert_eq!(long(hops, 101).step_between(long(0, 100)), Some(Why::LocalPref));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn packed_or_step_by_step_the_same_path_wins_for_the_same_reason(paths in any_paths(1..7)) {
        let (best, why, lost) = plain(&paths);
        let alone = run_with(&paths, Multipath { max_paths: 1, relax: false });
        prop_assert_eq!(&alone, &Decision { used: vec![best], why, lost: lost.clone() });
        // Load is shared by those that cost the same, and the others lost where they lost before.
        let all = run(&paths);
        prop_assert_eq!((all.used[0], all.why), (best, why));
        let mut shared: Vec<usize> = all.used[1..].to_vec();
        shared.sort_unstable();
        let costs_the_same = |(_, step): &&(usize, Why)| *step > Why::InteriorCost;
        let expected: Vec<usize> = lost.iter().filter(costs_the_same).map(|lost| lost.0).collect();
        prop_assert_eq!(shared, expected);
        let rest: Vec<_> = lost.into_iter().filter(|lost| !costs_the_same(&lost)).collect();
        prop_assert_eq!(all.lost, rest);
    }

    #[test]
    fn the_number_orders_and_names_as_field_after_field_does(paths in any_paths(2..3)) {
        let number = |path: &Path| {
            let number = Preference::of(&path.attributes);
            if path.peer_type.is_none() { number.of_own() } else { number }
        };
        let (a, b) = (number(&paths[0]), number(&paths[1]));
        let fields = [values(&paths[0]), values(&paths[1])];
        prop_assert_eq!(a.cmp(&b), fields[0].cmp(&fields[1]));
        let first = fields[0].iter().zip(fields[1]).find(|(one, other)| *one != other);
        prop_assert_eq!(a.step_between(b), first.map(|(one, _)| one.0));
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(
        paths in any_paths(1..7),
        rotation in 0_usize..7,
    ) {
        let name = |paths: &[Path], index: usize| paths[index].path_id;
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
        paths in any_paths(2..6),
    ) {
        let mut paths = paths;
        paths.iter_mut().for_each(|path| path.attributes.med = None);
        let best = run(&paths).used[0];
        for (index, other) in paths.iter().enumerate() {
            if index != best {
                let pair = [paths[best].clone(), other.clone()];
                prop_assert_eq!(run(&pair).used[0], 0);
            }
        }
    }
}
