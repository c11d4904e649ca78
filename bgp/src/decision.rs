//! The decision process (RFC 4271 §9.1.2): which paths to use, and which step decided.
//!
//! The steps eliminate sets of paths, never compare pairs: MULTI_EXIT_DISC is comparable only between paths through one
//! neighbour AS, so a pairwise order would not be transitive and the result would depend on who came first. Before it and
//! behind it everything is a plain order: that before it is one number (see `preference`).

mod preference;
#[cfg(test)]
mod tests;

use std::{cmp::Ordering, collections::BTreeMap, fmt, net::IpAddr};

pub(crate) use self::preference::Preference;
use crate::{
    attr::AttrSet,
    types::{Asn, PeerType, RouterId},
};

/// The step that decided; steps are in the order in which they are taken.
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
    /// Nearer next hop: smaller metric of the route that leads there (RFC 4271 §9.1.2.2 e).
    InteriorCost,
    /// Smaller identifier of the router that brought the route in.
    RouterId,
    /// Shorter CLUSTER_LIST.
    ClusterList,
    /// Smaller address of the peer; of equal link-local ones that on the first interface by name.
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
            Self::InteriorCost => "interior cost",
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
    /// Tells peers with the same link-local address apart: one router often has it on all its links.
    pub(crate) interface: Option<&'a str>,
    /// Of the way to the next hop; 0 where nobody can be asked.
    pub(crate) cost: u32,
    /// Tells the paths of one peer apart (RFC 7911); 0 without ADD-PATH.
    pub(crate) path_id: u32,
    /// The caller's name for the path.
    pub(crate) index: usize,
}

impl Candidate<'_> {
    fn preference(&self) -> Preference {
        let preference = self.attributes.preference;
        if self.from.peer_type.is_none() { preference.of_own() } else { preference }
    }

    /// RFC 4456 §9: the originator stands for the router that reflected the route.
    pub(crate) fn router_id(&self) -> RouterId {
        self.attributes.originator.map_or(self.from.router_id, |id| RouterId(id.get()))
    }
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
    let best = left.iter().map(Candidate::preference).min()?;
    eliminate(&mut left, &mut lost, |path| path.preference().step_between(best));
    if !have_one_med(&left) {
        let smallest = smallest_meds(&left);
        eliminate(&mut left, &mut lost, |path| {
            let AttrSet { neighbour, med, .. } = path.attributes;
            (smallest.get(neighbour) != Some(med)).then_some(Why::Med)
        });
    }
    keep_first(&mut left, &mut lost, &BY_COST);
    let others = if multipath.max_paths > 1 { left.clone() } else { Vec::new() };
    keep_first(&mut left, &mut lost, &TIE_BREAKS);
    let why = lost.iter().map(|(_, step)| *step).max().unwrap_or(Why::OnlyPath);
    let used = share(left.first()?, others, multipath);
    lost.retain(|(index, _)| !used.contains(index));
    lost.sort_unstable();
    Some(Decision { used, why, lost })
}

/// A step, and which of two paths comes first there.
type Step = (Why, fn(&Candidate<'_>, &Candidate<'_>) -> Ordering);

/// Paths that these do not tell apart cost the same and may share the load.
const BY_COST: [Step; 2] = [
    (Why::PeerType, |a, b| {
        let is_internal = |path: &Candidate<'_>| path.from.peer_type == Some(PeerType::Internal);
        is_internal(a).cmp(&is_internal(b))
    }),
    (Why::InteriorCost, |a, b| a.cost.cmp(&b.cost)),
];

/// No two paths are equal in all of these.
const TIE_BREAKS: [Step; 4] = [
    (Why::RouterId, |a, b| a.router_id().cmp(&b.router_id())),
    (Why::ClusterList, |a, b| a.attributes.clusters.cmp(&b.attributes.clusters)),
    (Why::PeerAddress, |a, b| (a.from.address, a.interface).cmp(&(b.from.address, b.interface))),
    (Why::PathId, |a, b| a.path_id.cmp(&b.path_id)),
];

/// Returns the first step that tells two paths apart, and which of them comes first there.
fn compare(steps: &[Step], a: &Candidate<'_>, b: &Candidate<'_>) -> Option<(Why, Ordering)> {
    let compared = steps.iter().map(|(step, order)| (*step, order(a, b)));
    compared.into_iter().find(|(_, order)| order.is_ne())
}

fn order(steps: &[Step], a: &Candidate<'_>, b: &Candidate<'_>) -> Ordering {
    compare(steps, a, b).map_or(Ordering::Equal, |(_, order)| order)
}

/// Keeps the paths that come first in the order of these steps.
fn keep_first(left: &mut Vec<Candidate<'_>>, lost: &mut Vec<(usize, Why)>, steps: &[Step]) {
    let Some(first) = left.iter().min_by(|a, b| order(steps, a, b)).copied() else { return };
    eliminate(left, lost, |path| compare(steps, path, &first).map(|(step, _)| step));
}

/// Removes the paths for which there is a step in which they lost.
fn eliminate(
    left: &mut Vec<Candidate<'_>>,
    lost: &mut Vec<(usize, Why)>,
    step: impl Fn(&Candidate<'_>) -> Option<Why>,
) {
    left.retain(|path| {
        let step = step(path);
        lost.extend(step.map(|step| (path.index, step)));
        step.is_none()
    });
}

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

/// Lists the best path and those of the others that take part of the load.
fn share(best: &Candidate<'_>, mut others: Vec<Candidate<'_>>, multipath: Multipath) -> Vec<usize> {
    others.retain(|path| path.index != best.index);
    let external = best.from.peer_type == Some(PeerType::External);
    if external && !multipath.relax && !others.is_empty() {
        let as_path = best.attributes.attributes().as_path;
        others.retain(|path| path.attributes.attributes().as_path == as_path);
    }
    others.sort_by(|a, b| order(&TIE_BREAKS, a, b));
    let others = others.iter().map(|path| path.index);
    std::iter::once(best.index).chain(others).take(multipath.max_paths.max(1)).collect()
}
