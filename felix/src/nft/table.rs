//! The table we want, what the kernel has of it, and the difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    element::Element,
    expr::{Expr, Match, Operand, Source},
    fingerprint::Fingerprint,
    ir::{Base, Chain, Map, MapData, MapValue, Set},
    name::{ChainName, MapName, SetName},
    plan::{Batch, Op, Shape},
    tracked::Tracked,
};

/// A chain as found in the kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ActualChain {
    /// Hook, if it has one.
    pub base: Option<Base>,
    /// One entry per rule; `None` for a rule that does not carry our fingerprint.
    pub rules: Vec<Option<Fingerprint>>,
}

/// The table as found in the kernel. Something not understood is given an empty key or no fingerprint, so that it
/// differs from anything wanted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Actual {
    /// Whether the table is there at all.
    pub exists: bool,
    /// Chains.
    pub chains: BTreeMap<ChainName, ActualChain>,
    /// Sets.
    pub sets: BTreeMap<SetName, Set>,
    /// Maps.
    pub maps: BTreeMap<MapName, Map>,
}

/// How much there is in a table.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TableStats {
    /// Chains wanted.
    pub chains: usize,
    /// Rules wanted.
    pub rules: usize,
    /// Sets and maps wanted.
    pub sets: usize,
    /// Members wanted of all sets and maps.
    pub elements: usize,
}

#[derive(Clone, Debug, Default)]
struct ChainState {
    desired: Option<Arc<Chain>>,
    kernel: Option<ActualChain>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct MapShape {
    key: Vec<super::KeyType>,
    data: MapData,
}

/// The table: fill it, take [`Table::plan`], and say [`Table::committed`] when the kernel took it.
///
/// Nothing may be put or removed between a plan and its `committed`; after a refused plan just plan again, or
/// [`Table::adopt`] what the kernel really has.
#[derive(Clone, Debug)]
pub struct Table {
    name: String,
    in_kernel: bool,
    chains: BTreeMap<ChainName, ChainState>,
    sets: BTreeMap<SetName, Tracked<Shape, ()>>,
    maps: BTreeMap<MapName, Tracked<MapShape, MapValue>>,
    dirty_chains: BTreeSet<ChainName>,
    dirty_sets: BTreeSet<SetName>,
    dirty_maps: BTreeSet<MapName>,
}

impl Table {
    /// An empty table of the `inet` family, of which the kernel has nothing yet.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            in_kernel: false,
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
            maps: BTreeMap::new(),
            dirty_chains: BTreeSet::new(),
            dirty_sets: BTreeSet::new(),
            dirty_maps: BTreeSet::new(),
        }
    }

    /// Name of the table.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Wants a chain; says whether that is a change.
    pub fn put_chain(&mut self, chain: Chain) -> bool {
        let state = self.chains.entry(chain.name.clone()).or_default();
        if state.desired.as_deref() == Some(&chain) {
            return false;
        }
        self.dirty_chains.insert(chain.name.clone());
        state.desired = Some(Arc::new(chain));
        true
    }

    /// Wants a chain gone; says whether it was wanted.
    pub fn remove_chain(&mut self, name: &ChainName) -> bool {
        let Some(state) = self.chains.get_mut(name) else { return false };
        let was_wanted = state.desired.take().is_some();
        if state.kernel.is_none() {
            self.chains.remove(name);
            self.dirty_chains.remove(name);
        } else {
            self.dirty_chains.insert(name.clone());
        }
        was_wanted
    }

    /// The chain wanted under a name.
    #[must_use]
    pub fn chain(&self, name: &ChainName) -> Option<&Chain> {
        self.chains.get(name)?.desired.as_deref()
    }

    /// All chains wanted, by name.
    pub fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.chains.values().filter_map(|state| state.desired.as_deref())
    }

    /// Wants a set with exactly these members; says whether that is a change.
    pub fn put_set(&mut self, set: Set) -> bool {
        let shape = Shape { key: set.key, interval: set.interval };
        let members = set.elements.into_iter().map(|element| (element, ())).collect();
        let changed = self.sets.entry(set.name.clone()).or_default().replace(shape, members);
        self.touch_set(set.name);
        changed
    }

    /// Wants a set gone; says whether it was wanted.
    pub fn remove_set(&mut self, name: &SetName) -> bool {
        let Some(set) = self.sets.get_mut(name) else { return false };
        let was_wanted = set.remove();
        self.touch_set(name.clone());
        was_wanted
    }

    /// Wants a member in a set that was put before; says whether that is a change (never for an unknown set).
    pub fn insert_element(&mut self, set: &SetName, element: Element) -> bool {
        self.set_element(set, element, Some(()))
    }

    /// Wants a member out of a set; says whether that is a change.
    pub fn remove_element(&mut self, set: &SetName, element: &Element) -> bool {
        self.set_element(set, element.clone(), None)
    }

    fn set_element(&mut self, name: &SetName, element: Element, value: Option<()>) -> bool {
        let Some(set) = self.sets.get_mut(name).filter(|set| set.desired.is_some()) else {
            return false;
        };
        let changed = set.set(element, value);
        if changed {
            self.touch_set(name.clone());
        }
        changed
    }

    fn touch_set(&mut self, name: SetName) {
        let Some(set) = self.sets.get(&name) else { return };
        if set.is_gone() {
            self.sets.remove(&name);
            self.dirty_sets.remove(&name);
        } else if set.is_dirty() {
            self.dirty_sets.insert(name);
        } else {
            self.dirty_sets.remove(&name);
        }
    }

    /// Whether a set is wanted under this name.
    #[must_use]
    pub fn has_set(&self, name: &SetName) -> bool {
        self.sets.get(name).is_some_and(|set| set.desired.is_some())
    }

    /// The set wanted under a name.
    #[must_use]
    pub fn set(&self, name: &SetName) -> Option<Set> {
        let set = self.sets.get(name)?;
        let Shape { key, interval } = set.desired.clone()?;
        let elements = set.elements().keys().cloned().collect();
        Some(Set { name: name.clone(), key, interval, elements })
    }

    /// All sets wanted, by name.
    pub fn sets(&self) -> impl Iterator<Item = Set> {
        self.sets.keys().filter_map(|name| self.set(name))
    }

    /// Wants a map with exactly these members; says whether that is a change.
    pub fn put_map(&mut self, map: Map) -> bool {
        let shape = MapShape { key: map.key, data: map.data };
        let changed = self.maps.entry(map.name.clone()).or_default().replace(shape, map.elements);
        self.touch_map(map.name);
        changed
    }

    /// Wants a map gone; says whether it was wanted.
    pub fn remove_map(&mut self, name: &MapName) -> bool {
        let Some(map) = self.maps.get_mut(name) else { return false };
        let was_wanted = map.remove();
        self.touch_map(name.clone());
        was_wanted
    }

    /// Wants a key of a map to give a value; says whether that is a change (never for an unknown map).
    pub fn map_insert(&mut self, map: &MapName, key: Element, value: impl Into<MapValue>) -> bool {
        self.map_element(map, key, Some(value.into()))
    }

    /// Wants a key out of a map; says whether that is a change.
    pub fn map_remove(&mut self, map: &MapName, key: &Element) -> bool {
        self.map_element(map, key.clone(), None)
    }

    fn map_element(&mut self, name: &MapName, key: Element, value: Option<MapValue>) -> bool {
        let Some(map) = self.maps.get_mut(name).filter(|map| map.desired.is_some()) else {
            return false;
        };
        let changed = map.set(key, value);
        if changed {
            self.touch_map(name.clone());
        }
        changed
    }

    fn touch_map(&mut self, name: MapName) {
        let Some(map) = self.maps.get(&name) else { return };
        if map.is_gone() {
            self.maps.remove(&name);
            self.dirty_maps.remove(&name);
        } else if map.is_dirty() {
            self.dirty_maps.insert(name);
        } else {
            self.dirty_maps.remove(&name);
        }
    }

    /// What a key of a map is wanted to give.
    #[must_use]
    pub fn map_value(&self, map: &MapName, key: &Element) -> Option<&MapValue> {
        self.maps.get(map)?.elements().get(key)
    }

    /// The map wanted under a name.
    #[must_use]
    pub fn map(&self, name: &MapName) -> Option<Map> {
        let map = self.maps.get(name)?;
        let MapShape { key, data } = map.desired.clone()?;
        Some(Map { name: name.clone(), key, data, elements: map.elements().clone() })
    }

    /// All maps wanted, by name.
    pub fn maps(&self) -> impl Iterator<Item = Map> {
        self.maps.keys().filter_map(|name| self.map(name))
    }

    /// How much is wanted.
    #[must_use]
    pub fn stats(&self) -> TableStats {
        let sets = self.sets.values().filter(|set| set.desired.is_some());
        let maps = self.maps.values().filter(|map| map.desired.is_some());
        TableStats {
            chains: self.chains().count(),
            rules: self.chains().map(|chain| chain.rules.len()).sum(),
            sets: sets.clone().count() + maps.clone().count(),
            elements: sets.map(|set| set.elements().len()).sum::<usize>()
                + maps.map(|map| map.elements().len()).sum::<usize>(),
        }
    }

    /// Takes what the kernel has as read by a dump; the next plan writes only what differs.
    pub fn adopt(&mut self, actual: Actual) {
        let Actual { exists, mut chains, mut sets, mut maps } = actual;
        self.in_kernel = exists;
        for (name, state) in &mut self.chains {
            state.kernel = chains.remove(name);
        }
        let unknown = |(name, chain)| (name, ChainState { desired: None, kernel: Some(chain) });
        self.chains.extend(chains.into_iter().map(unknown));
        self.chains.retain(|_, state| state.desired.is_some() || state.kernel.is_some());

        for name in
            self.sets.keys().filter(|name| !sets.contains_key(*name)).cloned().collect::<Vec<_>>()
        {
            self.sets.entry(name).or_default().adopt(None);
        }
        while let Some((name, set)) = sets.pop_first() {
            let shape = Shape { key: set.key, interval: set.interval };
            let members = set.elements.into_iter().map(|element| (element, ())).collect();
            self.sets.entry(name).or_default().adopt(Some((shape, members)));
        }
        for name in
            self.maps.keys().filter(|name| !maps.contains_key(*name)).cloned().collect::<Vec<_>>()
        {
            self.maps.entry(name).or_default().adopt(None);
        }
        while let Some((name, map)) = maps.pop_first() {
            let shape = MapShape { key: map.key, data: map.data };
            self.maps.entry(name).or_default().adopt(Some((shape, map.elements)));
        }
        self.sets.retain(|_, set| !set.is_gone());
        self.maps.retain(|_, map| !map.is_gone());
        self.mark_all_dirty();
    }

    fn mark_all_dirty(&mut self) {
        self.dirty_chains = self
            .chains
            .iter()
            .filter(|(_, state)| state.desired.as_deref().map(actual_of) != state.kernel)
            .map(|(name, _)| name.clone())
            .collect();
        let sets = self.sets.iter().filter(|(_, set)| set.is_dirty());
        self.dirty_sets = sets.map(|(name, _)| name.clone()).collect();
        let maps = self.maps.iter().filter(|(_, map)| map.is_dirty());
        self.dirty_maps = maps.map(|(name, _)| name.clone()).collect();
    }

    /// Whether there may be anything to write.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.in_kernel
            || !self.dirty_chains.is_empty()
            || !self.dirty_sets.is_empty()
            || !self.dirty_maps.is_empty()
    }

    /// What must be written for the kernel to match; `None` when it does.
    ///
    /// References go before their referents on the way out, and after them on the way in: rules of changed chains and
    /// map members first, then what they pointed at; then new chains and sets, their members, rules, and last the map
    /// members that point at chains.
    #[must_use]
    pub fn plan(&self) -> Option<Batch> {
        let mut ops = Vec::new();
        if !self.in_kernel {
            ops.push(Op::AddTable);
        }
        let rewritten = self.rewritten_chains();
        for (name, state) in &rewritten {
            if state.kernel.as_ref().is_some_and(|chain| !chain.rules.is_empty()) {
                ops.push(Op::FlushChain((*name).clone()));
            }
        }
        self.plan_removals(&rewritten, &mut ops);
        self.plan_definitions(&rewritten, &mut ops);
        self.plan_set_members(&mut ops);
        for state in rewritten.values() {
            if let Some(chain) = state.desired.as_ref().filter(|chain| !chain.rules.is_empty()) {
                ops.push(Op::AddRules(Arc::clone(chain)));
            }
        }
        self.plan_map_additions(&mut ops);
        (!ops.is_empty()).then(|| Batch { table: self.name.clone(), ops })
    }

    /// Chains whose rules must be written, or that must go.
    fn rewritten_chains(&self) -> BTreeMap<&ChainName, &ChainState> {
        let differs = |state: &ChainState| state.desired.as_deref().map(actual_of) != state.kernel;
        let mut chains: BTreeMap<_, _> = self
            .dirty_chains
            .iter()
            .filter_map(|name| self.chains.get_key_value(name))
            .filter(|(_, state)| differs(state))
            .collect();
        let redefined = self.redefined();
        if !redefined.is_empty() {
            let refers = |state: &ChainState| {
                let chain = state.desired.as_deref();
                chain.is_some_and(|chain| refers_to(chain, &redefined))
            };
            chains.extend(self.chains.iter().filter(|(_, state)| refers(state)));
        }
        chains
    }

    /// Sets and maps that must be deleted and made anew: rules that refer to them have to let go for a moment.
    fn redefined(&self) -> BTreeSet<&str> {
        let sets = self
            .dirty_sets
            .iter()
            .filter(|name| self.sets.get(*name).is_some_and(Tracked::is_redefined));
        let maps = self
            .dirty_maps
            .iter()
            .filter(|name| self.maps.get(*name).is_some_and(Tracked::is_redefined));
        sets.map(SetName::as_str).chain(maps.map(MapName::as_str)).collect()
    }

    fn plan_removals(&self, rewritten: &BTreeMap<&ChainName, &ChainState>, ops: &mut Vec<Op>) {
        for (name, map) in self.dirty_maps() {
            match (&map.desired, &map.kernel) {
                (desired, Some(_)) if *desired != map.kernel => {
                    ops.push(Op::DeleteMap(name.clone()))
                }
                (Some(shape), Some(_)) => {
                    let gone = map.deletions();
                    if !gone.is_empty() {
                        ops.push(Op::DeleteMapElements(name.clone(), shape.key.clone(), gone));
                    }
                }
                _ => {}
            }
        }
        for (name, set) in self.dirty_sets() {
            if set.kernel.is_some() && set.desired != set.kernel {
                ops.push(Op::DeleteSet(name.clone()));
            }
        }
        for (name, state) in rewritten {
            if let Some(kernel) = &state.kernel
                && state.desired.as_ref().is_none_or(|chain| chain.base != kernel.base)
            {
                ops.push(Op::DeleteChain((*name).clone()));
            }
        }
    }

    fn plan_definitions(&self, rewritten: &BTreeMap<&ChainName, &ChainState>, ops: &mut Vec<Op>) {
        for (name, state) in rewritten {
            let Some(chain) = &state.desired else { continue };
            if state.kernel.as_ref().is_none_or(|kernel| kernel.base != chain.base) {
                ops.push(Op::AddChain((*name).clone(), chain.base));
            }
        }
        for (name, set) in self.dirty_sets() {
            if let Some(shape) = &set.desired
                && set.desired != set.kernel
            {
                ops.push(Op::AddSet(name.clone(), shape.clone()));
            }
        }
        for (name, map) in self.dirty_maps() {
            if let Some(shape) = &map.desired
                && map.desired != map.kernel
            {
                let MapShape { key, data } = shape.clone();
                ops.push(Op::AddMap(name.clone(), key, data));
            }
        }
    }

    fn plan_set_members(&self, ops: &mut Vec<Op>) {
        for (name, set) in self.dirty_sets() {
            let Some(shape) = &set.desired else { continue };
            if set.desired == set.kernel {
                let gone = set.deletions();
                if !gone.is_empty() {
                    ops.push(Op::DeleteElements(name.clone(), shape.clone(), gone));
                }
            }
            let new: Vec<Element> =
                set.additions().into_iter().map(|(element, ())| element).collect();
            if !new.is_empty() {
                ops.push(Op::AddElements(name.clone(), shape.clone(), new));
            }
        }
    }

    fn plan_map_additions(&self, ops: &mut Vec<Op>) {
        for (name, map) in self.dirty_maps() {
            let Some(MapShape { key, data }) = map.desired.clone() else { continue };
            let new = map.additions();
            if !new.is_empty() {
                ops.push(Op::AddMapElements(name.clone(), key, data, new));
            }
        }
    }

    fn dirty_sets(&self) -> impl Iterator<Item = (&SetName, &Tracked<Shape, ()>)> {
        self.dirty_sets.iter().filter_map(|name| self.sets.get_key_value(name))
    }

    fn dirty_maps(&self) -> impl Iterator<Item = (&MapName, &Tracked<MapShape, MapValue>)> {
        self.dirty_maps.iter().filter_map(|name| self.maps.get_key_value(name))
    }

    /// The kernel took the last plan: it has now what is wanted.
    pub fn committed(&mut self) {
        self.in_kernel = true;
        for name in std::mem::take(&mut self.dirty_chains) {
            let Some(state) = self.chains.get_mut(&name) else { continue };
            state.kernel = state.desired.as_deref().map(actual_of);
            if state.kernel.is_none() {
                self.chains.remove(&name);
            }
        }
        for name in std::mem::take(&mut self.dirty_sets) {
            let Some(set) = self.sets.get_mut(&name) else { continue };
            set.committed();
            if set.is_gone() {
                self.sets.remove(&name);
            }
        }
        for name in std::mem::take(&mut self.dirty_maps) {
            let Some(map) = self.maps.get_mut(&name) else { continue };
            map.committed();
            if map.is_gone() {
                self.maps.remove(&name);
            }
        }
    }
}

fn actual_of(chain: &Chain) -> ActualChain {
    let rules = chain.rules.iter().map(|rule| Some(Fingerprint::of(rule))).collect();
    ActualChain { base: chain.base, rules }
}

fn refers_to(chain: &Chain, names: &BTreeSet<&str>) -> bool {
    chain.rules.iter().flat_map(|rule| &rule.exprs).any(|expr| match expr {
        Expr::Match(Match { operand: Operand::In(set), .. }) => names.contains(set.as_str()),
        Expr::Vmap(_, map)
        | Expr::SetMark(Source::Map(_, map))
        | Expr::Dnat(_, Source::Map(_, map)) => names.contains(map.as_str()),
        _ => false,
    })
}
