//! Which next hops can be reached, and how (RFC 4271 §9.1.2.1, §9.1.2.2 e).
//!
//! Whoever knows the machine's routing table says how its routes lead to each next hop; the routes that this speaker itself
//! put there do not count for that. Those are followed here: the longest match decides, whether it is a route of others or
//! of BGP, and a BGP route leads on as its own next hop does. Paths whose next hop was met already on that way are passed
//! over, so no route holds itself up, nor two each other. What comes out depends on the paths in the table and on what
//! was said of the machine, never on what was chosen before, and so it does not matter what came first, and nothing swings.

mod search;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use self::search::Search;
use super::{Path, PeerId, Rib, SlotId, Source};
use crate::{
    attr::{AttrSet, Interner, NextHopId},
    decision::Candidate,
    fib::{FibNextHop, ResolvingRoute},
    types::{Prefix, is_link_local},
};

/// How long an answer is waited for; then the next hop counts as reached, as it would if nobody could be asked.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What was said of the machine's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing yet; asked then.
    None(Instant),
    /// Nothing in time.
    Late,
    Route(ResolvingRoute),
    NoRoute(Arc<str>),
}

/// What follows from it, and from the routes of BGP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Not known yet.
    Waiting,
    By(ReachedBy),
    /// Why not.
    No(Arc<str>),
}

/// How a next hop is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReachedBy {
    /// The routers on our links to send to.
    pub(crate) legs: Arc<[FibNextHop]>,
    /// Interior cost.
    pub(crate) cost: u32,
    /// The route that was found; none: the answer was late.
    pub(crate) route: Option<Prefix>,
    /// That route is one of BGP.
    pub(crate) by_bgp: bool,
}

#[derive(Debug)]
struct Hop {
    address: IpAddr,
    answer: Answer,
    reached: Reached,
}

/// All next hops in use.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Somebody can be asked. Otherwise all next hops count as reached at the same cost, but those on dead links.
    follows: bool,
    hops: Vec<Option<Hop>>,
    by_address: BTreeMap<IpAddr, NextHopId>,
    /// Those to look at again.
    due: BTreeSet<NextHopId>,
    /// Those that routes of BGP lead to; they are looked at again when anything changes that they may be reached through.
    recursive: BTreeSet<NextHopId>,
    recursive_due: bool,
    /// In the order in which they were asked for.
    asked: VecDeque<(Instant, NextHopId)>,
    waiting: usize,
    /// Networks on links without carrier.
    dead: Vec<Prefix>,
    /// Interfaces without carrier.
    dead_interfaces: BTreeSet<String>,
}

/// What happened to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HopChange {
    Came(IpAddr),
    Went(IpAddr),
}

impl Reach {
    fn hop(&self, id: NextHopId) -> Option<&Hop> {
        self.hops.get(id.index())?.as_ref()
    }

    fn hop_mut(&mut self, id: NextHopId) -> Option<&mut Hop> {
        self.hops.get_mut(id.index())?.as_mut()
    }

    fn reached(&self, id: NextHopId) -> &Reached {
        static WAITING: Reached = Reached::Waiting;
        self.hop(id).map_or(&WAITING, |hop| &hop.reached)
    }

    /// Says whether there may be next hops that cannot be used.
    fn may_obstruct(&self) -> bool {
        self.follows || !self.dead.is_empty() || !self.dead_interfaces.is_empty()
    }

    /// Says whether there are next hops that nothing is known of yet.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Returns when the first answer is late.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.asked.front().map(|(at, _)| *at + PATIENCE)
    }

    /// Takes a number's new meaning.
    fn set(&mut self, id: NextHopId, address: Option<IpAddr>, now: Instant) -> Vec<HopChange> {
        let index = id.index();
        if self.hops.len() <= index {
            self.hops.resize_with(index.saturating_add(1), || None);
        }
        let Some(place) = self.hops.get_mut(index) else { return Vec::new() };
        let before = place.as_ref().map(|hop| hop.address);
        if before == address {
            return Vec::new();
        }
        let mut changes = Vec::new();
        if let Some(old) = place.take() {
            self.by_address.remove(&old.address);
            self.waiting = self.waiting.saturating_sub(usize::from(old.is_waiting()));
            changes.push(HopChange::Went(old.address));
        }
        self.due.remove(&id);
        self.recursive.remove(&id);
        if let Some(address) = address {
            let answer = Answer::None(now);
            *place = Some(Hop { address, answer, reached: Reached::Waiting });
            self.by_address.insert(address, id);
            self.waiting = self.waiting.saturating_add(1);
            self.asked.push_back((now, id));
            changes.push(HopChange::Came(address));
        }
        changes
    }

    fn answer(&mut self, id: NextHopId, answer: Answer) {
        let Some(hop) = self.hop_mut(id) else { return };
        if hop.answer == answer {
            return;
        }
        let was_waiting = hop.is_waiting();
        hop.answer = answer;
        self.waiting = self.waiting.saturating_sub(usize::from(was_waiting));
        self.look_at(id);
        while let Some((at, id)) = self.asked.front()
            && self.hop(*id).is_none_or(|hop| hop.answer != Answer::None(*at))
        {
            self.asked.pop_front();
        }
    }

    /// The next hop is to be looked at again, and so is what may be reached through it.
    fn look_at(&mut self, id: NextHopId) {
        self.due.insert(id);
        self.recursive_due = true;
    }

    fn take_due(&mut self) -> BTreeSet<NextHopId> {
        let mut due = std::mem::take(&mut self.due);
        if std::mem::take(&mut self.recursive_due) {
            due.extend(&self.recursive);
        }
        due
    }

    /// Lists the next hops within a prefix.
    fn within(&self, prefix: &Prefix) -> impl Iterator<Item = NextHopId> {
        self.by_address.range(prefix.address()..=prefix.last_address()).map(|(_, id)| *id)
    }
}

impl Hop {
    const fn is_waiting(&self) -> bool {
        matches!(self.answer, Answer::None(_))
    }
}

impl Rib {
    /// Begins or ends to ask about next hops.
    pub(crate) fn follow_next_hops(&mut self, follow: bool) {
        if self.reach.follows != follow {
            self.reach.follows = follow;
            self.recent_way = None;
            self.mark_all();
        }
    }

    /// Says whether next hops are asked about.
    pub(crate) const fn follows_next_hops(&self) -> bool {
        self.reach.follows
    }

    pub(crate) const fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Takes note of next hops that came and went; returns those that somebody has to be asked about, or no more.
    pub(crate) fn take_next_hops(
        &mut self,
        interner: &mut Interner,
        now: Instant,
    ) -> Vec<HopChange> {
        let mut changes = Vec::new();
        for id in interner.next_hops.take_news() {
            let address = interner.next_hops.address(id).filter(|address| !is_link_local(address));
            let changed = self.reach.set(id, address, now);
            if !changed.is_empty() {
                self.recheck.forget(id);
            }
            changes.extend(changed);
        }
        changes
    }

    /// Somebody says how the routes of others lead to a next hop.
    pub(crate) fn answer_next_hop(
        &mut self,
        address: &IpAddr,
        route: Result<ResolvingRoute, String>,
    ) {
        let Some(id) = self.reach.by_address.get(address).copied() else { return };
        self.reach.answer(
            id,
            match route {
                Ok(route) => Answer::Route(route),
                Err(why) => Answer::NoRoute(why.into()),
            },
        );
    }

    /// Ends the wait for answers that are late. Returns for how many.
    pub(crate) fn give_up_next_hops(&mut self, now: Instant) -> usize {
        let mut count: usize = 0;
        while let Some((at, id)) = self.reach.asked.front().copied()
            && at + PATIENCE <= now
        {
            self.reach.asked.pop_front();
            if self.reach.hop(id).is_some_and(|hop| hop.answer == Answer::None(at)) {
                self.reach.answer(id, Answer::Late);
                count = count.saturating_add(1);
            }
        }
        count
    }

    /// Replaces what cannot be reached because its link is dead, and looks at everything again.
    pub(crate) fn set_dead(&mut self, networks: Vec<Prefix>, interfaces: BTreeSet<String>) {
        let reach = &mut self.reach;
        if reach.dead != networks || reach.dead_interfaces != interfaces {
            reach.dead = networks;
            reach.dead_interfaces = interfaces;
            self.mark_all();
        }
    }

    /// A decision was taken: counts the prefix if a next hop stood in the way. Its paths may have changed, and with them how
    /// next hops within it are reached.
    pub(super) fn note_next_hops(&mut self, id: SlotId, interner: &Interner) {
        if !self.reach.may_obstruct() && self.obstructed == 0 {
            return;
        }
        let Some(slot) = self.slot(id) else { return };
        let prefix = slot.prefix;
        let is_obstructed = self.reach.may_obstruct()
            && slot.paths().iter().any(|path| {
                let counts = path.accepted().is_ok() && self.fate(prefix.family(), path).is_some();
                counts && self.usable(&prefix, path, interner).is_none()
            });
        if self.slot_mut(id).is_some_and(|slot| slot.set_obstructed(is_obstructed)) {
            let count = self.obstructed;
            self.obstructed =
                if is_obstructed { count.saturating_add(1) } else { count.saturating_sub(1) };
        }
        if !self.reach.by_address.is_empty() {
            let within: Vec<NextHopId> = self.reach.within(&prefix).collect();
            within.into_iter().for_each(|id| self.reach.look_at(id));
        }
    }

    /// Counts the prefixes with a path that is not used because of its next hop.
    pub(crate) const fn obstructed(&self) -> usize {
        self.obstructed
    }

    /// Finds out anew how the next hops that are due are reached, and has prefixes decided about again where that matters.
    pub(crate) fn look_at_next_hops(&mut self, interner: &Interner) {
        for id in self.reach.take_due() {
            let Some(hop) = self.reach.hop(id) else { continue };
            let mut search = Search::new(self, interner);
            let reached = search.reach(hop);
            if search.is_recursive() {
                self.reach.recursive.insert(id);
            } else {
                self.reach.recursive.remove(&id);
            }
            let Some(hop) = self.reach.hop_mut(id) else { continue };
            if hop.reached != reached {
                hop.reached = reached;
                self.recent_way = None;
                self.recheck.begin(id);
            }
        }
    }

    /// Returns a path as decisions see it.
    pub(super) fn candidate<'a>(
        &'a self,
        index: usize,
        path: &Path,
        attributes: &'a AttrSet,
        cost: u32,
    ) -> Option<Candidate<'a>> {
        let Source { origination, interface } = self.source(path.key.source)?;
        let (from, interface) = (*origination, interface.as_deref());
        let path_id = path.key.path_id;
        Some(Candidate { attributes, from, interface, cost, path_id, index })
    }

    /// Returns what the way to the next hop of a path costs.
    pub(super) fn cost(&self, path: &Path, set: &AttrSet) -> u32 {
        let is_own = path.key.source == PeerId::LOCAL;
        let hop = set.next_hop.filter(|_| self.reach.follows && !is_own);
        match hop.map(|id| self.reach.reached(id)) {
            Some(Reached::By(by)) => by.cost,
            _ => 0,
        }
    }

    /// The next hop itself.
    fn leg(&self, path: &Path, address: IpAddr) -> Option<FibNextHop> {
        let source = self.source(path.key.source).filter(|_| is_link_local(&address));
        let interface = source.and_then(|source| source.interface.clone());
        Some(FibNextHop { address, interface })
    }

    fn is_on_living_link(&self, path: &Path, address: &IpAddr) -> bool {
        if !is_link_local(address) {
            return !self.reach.dead.iter().any(|network| network.contains_address(*address));
        }
        // The same network is on every link.
        let interface = self.source(path.key.source).and_then(|source| source.interface.as_ref());
        interface.is_none_or(|interface| !self.reach.dead_interfaces.contains(interface))
    }

    /// Returns the attributes of a path that may be used.
    pub(super) fn usable<'a>(
        &self,
        prefix: &Prefix,
        path: &Path,
        interner: &'a Interner,
    ) -> Option<&'a AttrSet> {
        let set = interner.get(path.accepted().ok()?)?;
        self.fate(prefix.family(), path)?;
        // What is dropped needs no next hop, and our own routes have none.
        let needs_none = path.is_blackholed() || path.key.source == PeerId::LOCAL;
        (needs_none || self.is_reached(prefix, path, set, interner)).then_some(set)
    }

    fn is_reached(&self, prefix: &Prefix, path: &Path, set: &AttrSet, interner: &Interner) -> bool {
        let reach = &self.reach;
        let Some(id) = set.next_hop else { return true };
        if reach.follows
            && let Some(hop) = reach.hop(id)
        {
            return match &hop.reached {
                // RFC 4271 §9.1.2.1: not by itself.
                Reached::By(by) => !by.by_bgp || by.route != Some(*prefix),
                Reached::Waiting | Reached::No(_) => false,
            };
        }
        if !reach.may_obstruct() {
            return true;
        }
        let Some(address) = interner.next_hops.address(id) else { return false };
        // It has just come.
        let unknown = reach.follows && !is_link_local(&address);
        !unknown && self.is_on_living_link(path, &address)
    }

    /// Returns why an accepted path is not used, if it is because of its next hop.
    pub(crate) fn obstacle(
        &self,
        prefix: &Prefix,
        path: &Path,
        interner: &Interner,
    ) -> Option<String> {
        let set = interner.get(path.accepted().ok()?)?;
        if self.usable(prefix, path, interner).is_some() {
            return None;
        }
        let id = set.next_hop?;
        let address = interner.next_hops.address(id)?;
        if !self.reach.follows || is_link_local(&address) {
            return Some(format!("the link of the next hop {address} is down"));
        }
        Some(match self.reach.reached(id) {
            Reached::Waiting => {
                format!("next hop {address}: the routing table has yet to be asked")
            }
            Reached::No(why) => format!("next hop {address} is not reachable: {why}"),
            Reached::By(_) => {
                format!("next hop {address} is not reachable: only through this route itself")
            }
        })
    }

    /// Says how the next hop of a path is reached, if it is through another router.
    pub(crate) fn way_in_words(&self, path: &Path, interner: &Interner) -> Option<String> {
        let set = interner.get(path.accepted().ok()?)?;
        let id = set.next_hop.filter(|_| self.reach.follows && path.key.source != PeerId::LOCAL)?;
        let Reached::By(ReachedBy { legs, cost, route, .. }) = self.reach.reached(id) else {
            return None;
        };
        let address = interner.next_hops.address(id)?;
        if legs.iter().all(|leg| leg.address == address) {
            return None;
        }
        let legs: Vec<String> = legs.iter().map(|leg| leg.address.to_string()).collect();
        Some(format!("{address} by {} via {}, cost {cost}", (*route)?, legs.join(", ")))
    }

    /// The routers that packets are sent to because of a path. Routes of our own are not ours to put into the kernel.
    pub(super) fn legs(
        &self,
        path: &Path,
        set: &AttrSet,
        interner: &Interner,
    ) -> Vec<(FibNextHop, PeerId)> {
        let source = path.key.source;
        let Some(id) = set.next_hop.filter(|_| source != PeerId::LOCAL) else { return Vec::new() };
        if self.reach.follows
            && let Some(hop) = self.reach.hop(id)
        {
            let Reached::By(by) = &hop.reached else { return Vec::new() };
            return by.legs.iter().map(|leg| (leg.clone(), source)).collect();
        }
        let address = interner.next_hops.address(id);
        let leg = address.and_then(|address| self.leg(path, address));
        leg.into_iter().map(|leg| (leg, source)).collect()
    }

    /// Takes the next slots whose next hops changed, or all of them.
    pub(super) fn take_recheck(&mut self, limit: usize, interner: &Interner) -> Vec<SlotId> {
        let part = self.recheck.step(limit, self.slots.len());
        let count = part.slots.len();
        let slots = self.range(part.slots.start, count);
        let has = |id: &SlotId| {
            part.all
                || self.paths(*id).iter().any(|path| {
                    let set = path.accepted().ok().and_then(|set| interner.get(set));
                    let hop = set.and_then(|set| set.next_hop);
                    hop.is_some_and(|hop| part.hops.binary_search(&hop).is_ok())
                })
        };
        slots.filter(has).collect()
    }
}
