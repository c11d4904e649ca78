//! The way to one next hop, through routes of others and of BGP.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{Answer, Hop, Reached, ReachedBy};
use crate::{
    attr::{AttrSet, Interner},
    decision::decide,
    fib::{FibNextHop, ResolvingRoute},
    rib::{Path, PeerId, Rib, SlotId},
    types::{Prefix, is_link_local},
};

/// So many routes of BGP one behind the other are followed.
const DEPTH: usize = 4;
/// So many prefixes are looked at for one next hop.
const STEPS: usize = 256;

/// The search for how one next hop is reached.
pub(super) struct Search<'a> {
    rib: &'a Rib,
    interner: &'a Interner,
    /// The next hops that led here, and this one.
    through: Vec<IpAddr>,
    /// Prefixes that were looked at.
    steps: usize,
}

impl<'a> Search<'a> {
    pub(super) const fn new(rib: &'a Rib, interner: &'a Interner) -> Self {
        Self { rib, interner, through: Vec::new(), steps: 0 }
    }

    /// Says whether routes of BGP were looked at.
    pub(super) const fn is_recursive(&self) -> bool {
        self.steps > 0
    }

    /// The longest match decides. A route of BGP must be longer than that of others.
    pub(super) fn reach(&mut self, hop: &Hop) -> Reached {
        let itself = || -> Arc<[FibNextHop]> {
            Arc::new([FibNextHop { address: hop.address, interface: None }])
        };
        let (shortest, known) = match &hop.answer {
            Answer::None(_) => return Reached::Waiting,
            Answer::Late => {
                let by = ReachedBy { legs: itself(), cost: 0, route: None, by_bgp: false };
                return Reached::By(by);
            }
            Answer::NoRoute(why) => (0, Reached::No(Arc::clone(why))),
            Answer::Route(ResolvingRoute { prefix, metric, yields, via }) => {
                let legs = if via.is_empty() { itself() } else { via.as_slice().into() };
                let by = ReachedBy { legs, cost: *metric, route: Some(*prefix), by_bgp: false };
                let longer = u8::from(!yields);
                (prefix.length().saturating_add(longer), Reached::By(by))
            }
        };
        if self.through.len() >= DEPTH {
            return known;
        }
        self.through.push(hop.address);
        let longest = Prefix::host(hop.address).length();
        let mut longer = (shortest..=longest).rev();
        let by_bgp = longer.find_map(|length| {
            let prefix = Prefix::new(hop.address, length).ok()?;
            let id = self.rib.find(&prefix)?;
            self.steps = self.steps.saturating_add(1);
            if self.steps > STEPS { None } else { self.through_slot(id) }
        });
        self.through.pop();
        by_bgp.unwrap_or(known)
    }

    /// Returns where the paths of a prefix lead; none if nowhere, or if it is not for BGP to say.
    fn through_slot(&mut self, id: SlotId) -> Option<Reached> {
        let (rib, interner) = (self.rib, self.interner);
        let slot = rib.slot(id)?;
        let mut candidates = Vec::new();
        let mut ways = BTreeMap::new();
        for (index, path) in slot.paths().iter().enumerate() {
            let set = path.accepted().ok().and_then(|set| interner.get(set));
            let Some(set) = set.filter(|_| rib.fate(slot.prefix.family(), path).is_some()) else {
                continue;
            };
            match self.along(path, set) {
                Reached::Waiting => return Some(Reached::Waiting),
                Reached::No(_) => continue,
                Reached::By(by) => {
                    candidates.extend(rib.candidate(index, path, set, by.cost));
                    ways.insert(index, by);
                }
            }
        }
        let decision = decide(candidates, rib.multipath)?;
        let best = *decision.used.first()?;
        let path = slot.paths().get(best)?;
        if path.key.source == PeerId::LOCAL {
            return None;
        }
        if path.is_blackholed() {
            let why = format!("{} is a blackhole, as agreed (RFC 7999)", slot.prefix);
            return Some(Reached::No(why.into()));
        }
        let used = decision.used.iter().filter_map(|index| ways.get(index));
        let mut legs: Vec<FibNextHop> = used.flat_map(|by| by.legs.iter().cloned()).collect();
        legs.sort();
        legs.dedup();
        let cost = ways.get(&best).map_or(0, |by| by.cost);
        let route = Some(slot.prefix);
        Some(Reached::By(ReachedBy { legs: legs.into(), cost, route, by_bgp: true }))
    }

    fn along(&mut self, path: &Path, set: &AttrSet) -> Reached {
        let rib = self.rib;
        let by = |legs: Arc<[FibNextHop]>| {
            Reached::By(ReachedBy { legs, cost: 0, route: None, by_bgp: false })
        };
        let id = set.next_hop.filter(|_| path.key.source != PeerId::LOCAL && !path.is_blackholed());
        let Some(id) = id else { return by(Arc::default()) };
        if let Some(hop) = rib.reach.hop(id) {
            // A path that leads back here leads nowhere.
            let leads_back = self.through.contains(&hop.address);
            return if leads_back { Reached::No("a circle".into()) } else { self.reach(hop) };
        }
        match self.interner.next_hops.address(id) {
            Some(address) if !is_link_local(&address) => Reached::Waiting,
            Some(address) if rib.is_on_living_link(path, &address) => {
                by(rib.leg(path, address).into_iter().collect())
            }
            _ => Reached::No("its link is down".into()),
        }
    }
}
