//! The decision process (RFC 4271 §9.1.2): which paths to use, and which step decided.
//!
//! The steps eliminate sets of paths, never compare pairs: MULTI_EXIT_DISC is comparable only between paths through one
//! neighbour AS, so a pairwise order would not be transitive and the result would depend on who came first.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, net::IpAddr};

use crate::{
    attr::{AttrSet, Origin},
    types::{Asn, PeerType, RouterId},
};

/// The step that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// There is no other usable path.
    OnlyPath,
    /// Others outlived their peer by long (RFC 9494 §4.4).
    LongLivedStale,
    /// Originated by this speaker. Comes first: a peer must not outbid us for our own routes with LOCAL_PREF.
    LocalOrigin,
    /// Higher LOCAL_PREF.
    LocalPref,
    /// Shorter AS_PATH.
    AsPathLength,
    /// Better ORIGIN.
    Origin,
    /// Smaller MULTI_EXIT_DISC from the same neighbour AS.
    Med,
    /// External before internal.
    PeerType,
    /// Smaller identifier of the router that brought the route in.
    RouterId,
    /// Shorter CLUSTER_LIST.
    ClusterList,
    /// Smaller address of the peer.
    PeerAddress,
    /// Smaller path identifier of the same peer (RFC 7911).
    PathId,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyPath => "only path",
            Self::LongLivedStale => "not long-lived stale",
            Self::LocalPref => "local preference",
            Self::LocalOrigin => "local origin",
            Self::AsPathLength => "AS path length",
            Self::Origin => "origin",
            Self::Med => "MED",
            Self::PeerType => "eBGP over iBGP",
            Self::RouterId => "router id",
            Self::ClusterList => "cluster list length",
            Self::PeerAddress => "peer address",
            Self::PathId => "path identifier",
        })
    }
}

/// Who a path is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origination {
    /// `None`: this speaker.
    pub(crate) peer_type: Option<PeerType>,
    pub(crate) router_id: RouterId,
    pub(crate) address: IpAddr,
}

/// A usable path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) attributes: &'a AttrSet,
    pub(crate) from: Origination,
    /// Tells the paths of one peer apart (RFC 7911); 0 without ADD-PATH.
    pub(crate) path_id: u32,
    /// The caller's name for the path; unique, decides when everything else is equal.
    pub(crate) index: usize,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Indexes of the paths that share the load; the best one first.
    pub(crate) used: Vec<usize>,
    /// The step that left only the best path.
    pub(crate) why: Why,
    /// For each path that lost, the step that eliminated it.
    pub(crate) lost: Vec<(usize, Why)>,
}

/// How many paths may share the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Multipath {
    pub(crate) max_paths: usize,
    pub(crate) relax: bool,
}

/// Chooses; `None` if there is nothing to choose from.
pub(crate) fn decide(mut left: Vec<Candidate<'_>>, multipath: Multipath) -> Option<Decision> {
    let mut lost = Vec::new();
    if left.len() == 1 {
        let used = left.iter().map(|only| only.index).collect();
        return Some(Decision { used, why: Why::OnlyPath, lost });
    }
    let mut why = Why::OnlyPath;
    let mut keep =
        |left: &mut Vec<Candidate<'_>>, step: Why, best: &dyn Fn(&Candidate<'_>) -> bool| {
            if left.len() > 1 {
                let before = lost.len();
                left.retain(|path| {
                    let stays = best(path);
                    if !stays {
                        lost.push((path.index, step));
                    }
                    stays
                });
                if lost.len() > before {
                    why = step;
                }
            }
        };
    for step in EQUAL_COST_STEPS {
        let smallest = left.iter().map(|path| step.1(path)).min()?;
        keep(&mut left, step.0, &|path| step.1(path) == smallest);
        if step.0 == Why::Origin && !have_one_med(&left) {
            let smallest = smallest_meds(&left);
            keep(&mut left, Why::Med, &|path| {
                smallest.get(&path.attributes.neighbour) == Some(&path.attributes.med)
            });
        }
    }
    let equal = left.clone();
    for (step, key) in TIE_BREAKS {
        let smallest = left.iter().map(key).min()?;
        keep(&mut left, step, &|path| key(path) == smallest);
    }
    let best = *left.iter().min_by_key(|path| path.index)?;
    let used = share(best, equal, multipath);
    lost.retain(|(index, _)| !used.contains(index));
    lost.sort_unstable();
    Some(Decision { used, why, lost })
}

type Step = (Why, fn(&Candidate<'_>) -> u64);

/// Smaller is better. MED comes after the origin; it is no plain order.
const EQUAL_COST_STEPS: [Step; 6] = [
    (Why::LongLivedStale, |path| u64::from(path.attributes.long_lived_stale)),
    (Why::LocalOrigin, |path| u64::from(path.from.peer_type.is_some())),
    (Why::LocalPref, |path| u64::from(u32::MAX.saturating_sub(path.attributes.local_pref))),
    (Why::AsPathLength, |path| u64::from(path.attributes.path_length)),
    (Why::Origin, |path| match path.attributes.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    }),
    (Why::PeerType, |path| u64::from(path.from.peer_type == Some(PeerType::Internal))),
];

type TieBreak = (Why, fn(&Candidate<'_>) -> (u8, u128));

const TIE_BREAKS: [TieBreak; 4] = [
    // RFC 4456 §9: the originator stands for the router that reflected the route.
    (Why::RouterId, |path| {
        let originator = path.attributes.originator.map(std::num::NonZeroU32::get);
        (0, u128::from(originator.unwrap_or(path.from.router_id.0)))
    }),
    (Why::ClusterList, |path| (0, u128::from(path.attributes.clusters))),
    (Why::PeerAddress, |path| match path.from.address {
        IpAddr::V4(address) => (4, u128::from(u32::from(address))),
        IpAddr::V6(address) => (6, u128::from(address)),
    }),
    (Why::PathId, |path| (0, u128::from(path.path_id))),
];

fn have_one_med(paths: &[Candidate<'_>]) -> bool {
    let first = paths.first().map(|path| path.attributes.med);
    paths.iter().all(|path| Some(path.attributes.med) == first)
}

/// Comparable only between paths through one neighbour (RFC 4271 §9.1.2.2 c). A thousand nodes may announce one prefix:
/// never every path with every other.
fn smallest_meds(paths: &[Candidate<'_>]) -> BTreeMap<Option<Asn>, u32> {
    let mut smallest = BTreeMap::new();
    for AttrSet { neighbour, med, .. } in paths.iter().map(|path| path.attributes) {
        let known = smallest.entry(*neighbour).or_insert(*med);
        *known = (*known).min(*med);
    }
    smallest
}

fn share(best: Candidate<'_>, mut equal: Vec<Candidate<'_>>, multipath: Multipath) -> Vec<usize> {
    let external = best.from.peer_type == Some(PeerType::External);
    if external && !multipath.relax && equal.len() > 1 {
        let as_path = best.attributes.attributes().as_path;
        equal.retain(|path| path.attributes.attributes().as_path == as_path);
    }
    equal.retain(|path| path.index != best.index);
    equal.sort_by_key(|path| (path.from.router_id, path.from.address, path.path_id, path.index));
    let others = equal.iter().map(|path| path.index);
    std::iter::once(best.index).chain(others).take(multipath.max_paths.max(1)).collect()
}
