//! Ways to go, numbered: many prefixes go the same way. Each knows whose paths it was made of.

use std::{num::NonZeroU32, sync::Arc};

use hashbrown::HashMap;

use super::PeerId;
use crate::fib::{FibNextHop, FibRoute};

/// Number of a way; used again once no prefix goes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct WayId(NonZeroU32);

impl WayId {
    fn new(index: usize) -> Self {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    fn index(self) -> usize {
        usize::try_from(self.0.get().saturating_sub(1)).unwrap_or(usize::MAX)
    }
}

/// Where packets go, and whose paths say so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    route: FibRoute,
    /// In order, each once.
    sources: Arc<[PeerId]>,
}

impl Way {
    /// Shares the load over the next hops of these paths; none if there is no next hop.
    pub(super) fn via(mut hops: Vec<(FibNextHop, PeerId)>) -> Option<Self> {
        let mut sources: Vec<PeerId> = hops.iter().map(|(_, source)| *source).collect();
        sources.sort_unstable();
        sources.dedup();
        hops.sort();
        hops.dedup_by(|(one, _), (other, _)| one == other);
        let hops: Arc<[FibNextHop]> = hops.into_iter().map(|(hop, _)| hop).collect();
        (!hops.is_empty()).then(|| Self { route: FibRoute::Via(hops), sources: sources.into() })
    }

    /// Drops the packets, because this peer asked for it.
    pub(super) fn blackhole(source: PeerId) -> Self {
        Self { route: FibRoute::Blackhole, sources: Arc::new([source]) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Each with the number of prefixes that go it.
    ways: Vec<Option<(Way, usize)>>,
    free: Vec<WayId>,
    index: HashMap<Way, WayId>,
}

impl Ways {
    pub(super) fn intern(&mut self, way: Option<Way>) -> Option<WayId> {
        let way = way?;
        if let Some(id) = self.index.get(&way) {
            return Some(*id);
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.ways.push(None);
            WayId::new(self.ways.len().saturating_sub(1))
        });
        *self.ways.get_mut(id.index())? = Some((way.clone(), 0));
        self.index.insert(way, id);
        Some(id)
    }

    fn get(&self, id: Option<WayId>) -> Option<&Way> {
        self.ways.get(id?.index())?.as_ref().map(|(way, _)| way)
    }

    pub(super) fn route(&self, id: Option<WayId>) -> FibRoute {
        self.get(id).map_or(FibRoute::Absent, |way| way.route.clone())
    }

    /// Returns whose paths are used.
    pub(super) fn sources(&self, id: Option<WayId>) -> &[PeerId] {
        self.get(id).map_or(&[], |way| &way.sources)
    }

    /// Says whether packets are dropped.
    pub(super) fn is_blackhole(&self, id: Option<WayId>) -> bool {
        self.get(id).is_some_and(|way| way.route == FibRoute::Blackhole)
    }

    /// Says whether packets go the same way, whoever says so.
    pub(super) fn leads_alike(&self, one: Option<WayId>, other: Option<WayId>) -> bool {
        let route = |id| self.get(id).map(|way| &way.route);
        one == other || route(one) == route(other)
    }

    /// Counts the prefixes that go any way.
    #[cfg(test)]
    pub(super) fn uses(&self) -> usize {
        assert_eq!(self.index.len(), self.ways.iter().flatten().count());
        self.ways.iter().flatten().map(|(_, uses)| *uses).inspect(|uses| assert!(*uses > 0)).sum()
    }

    /// Another prefix goes this way.
    pub(super) fn begin_use(&mut self, id: Option<WayId>) {
        let place = id.and_then(|id| self.ways.get_mut(id.index()));
        if let Some((_, uses)) = place.and_then(Option::as_mut) {
            *uses = uses.saturating_add(1);
        }
    }

    /// A prefix goes this way no longer. Forgets the way after the last one, and says so: peers choose next hops, so there
    /// may be any number.
    pub(super) fn end_use(&mut self, id: Option<WayId>) -> bool {
        let Some(id) = id else { return false };
        let Some(place) = self.ways.get_mut(id.index()) else { return false };
        match place.take() {
            Some((way, uses)) if uses > 1 => *place = Some((way, uses.saturating_sub(1))),
            Some((way, _)) => {
                self.index.remove(&way);
                self.free.push(id);
                return true;
            }
            None => (),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_way_that_nobody_goes_is_used_again() {
        let mut ways = Ways::default();
        let first = ways.intern(Some(Way::blackhole(PeerId(1))));
        ways.begin_use(first);
        ways.begin_use(first);
        assert!(!ways.end_use(first));
        assert!(ways.is_blackhole(first));
        assert!(ways.end_use(first));
        assert!(!ways.is_blackhole(first));
        assert_eq!(ways.intern(Some(Way::blackhole(PeerId(2)))), first);
    }
}
