//! The pure half of the reconciler: desired, actual, and the actions between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::resolve;
use crate::{Interface, Route};

/// What the kernel allows once: prefix, table, metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    prefix: IpNet,
    table: u32,
    priority: u32,
}

impl Key {
    fn of(route: &Route) -> Self {
        Self { prefix: route.prefix, table: route.table, priority: route.priority }
    }
}

/// One write to the kernel; interfaces are indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Add(Route),
    Replace(Route),
    Delete(Route),
}

impl Action {
    pub(super) fn into_route(self) -> Route {
        match self {
            Self::Add(route) | Self::Replace(route) | Self::Delete(route) => route,
        }
    }
}

/// A desired route that waits for an interface.
#[derive(Debug, Clone)]
pub(super) struct Resolution {
    pub(super) route: Route,
    pub(super) missing: String,
}

#[derive(Debug, Default)]
pub(super) struct Tracker {
    protocols: BTreeSet<u8>,
    sweepable: BTreeSet<u8>,
    /// No longer wanted by someone who wanted them: removed even before a sweep is allowed.
    withdrawn: BTreeSet<Key>,
    desired: BTreeMap<IpNet, BTreeMap<u8, Route>>,
    actual: BTreeMap<Key, Route>,
    dirty: BTreeSet<Key>,
    failed: BTreeSet<Key>,
    pending: BTreeMap<Key, String>,
}

impl Tracker {
    pub(super) fn new(protocols: BTreeSet<u8>) -> Self {
        Self { protocols, ..Self::default() }
    }

    pub(super) fn protocols(&self) -> &BTreeSet<u8> {
        &self.protocols
    }

    pub(super) fn owns(&self, protocol: u8) -> bool {
        self.protocols.contains(&protocol)
    }

    pub(super) fn set(&mut self, route: Route) {
        let key = Key::of(&route);
        let wanted = self.desired.entry(route.prefix).or_default();
        let before = wanted.get(&route.protocol);
        if before == Some(&route) {
            return;
        }
        let before = before.map(Key::of).filter(|before| *before != key);
        self.withdrawn.extend(before);
        self.dirty.extend(before);
        self.dirty.insert(key);
        self.withdrawn.remove(&key);
        wanted.insert(route.protocol, route);
    }

    pub(super) fn unset(&mut self, prefix: IpNet, protocol: u8) {
        let Some(wanted) = self.desired.get_mut(&prefix) else { return };
        let key = wanted.remove(&protocol).as_ref().map(Key::of);
        self.withdrawn.extend(key);
        self.dirty.extend(key);
        if wanted.is_empty() {
            self.desired.remove(&prefix);
        }
    }

    pub(super) fn prefixes_of(&self, protocol: u8) -> Vec<IpNet> {
        let mut prefixes = Vec::new();
        for (prefix, wanted) in &self.desired {
            if wanted.contains_key(&protocol) {
                prefixes.push(*prefix);
            }
        }
        prefixes
    }

    pub(super) fn allow_sweep(&mut self, protocol: u8) {
        if self.sweepable.insert(protocol) {
            let stale = self.actual.values().filter(|route| route.protocol == protocol);
            self.dirty.extend(stale.map(Key::of));
        }
    }

    pub(super) fn desired(&self) -> impl Iterator<Item = &Route> {
        self.desired.values().flat_map(BTreeMap::values)
    }

    pub(super) fn actual(&self) -> impl Iterator<Item = &Route> {
        self.actual.values()
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes a whole listing of the kernel.
    pub(super) fn load(&mut self, routes: Vec<Route>) {
        let old = std::mem::take(&mut self.actual);
        self.dirty.extend(old.into_keys());
        for route in routes {
            self.actual.insert(Key::of(&route), route);
        }
        self.dirty.extend(self.actual.keys().copied());
        let desired: Vec<_> = self.desired().map(Key::of).collect();
        self.dirty.extend(desired);
        // What failed or waited stays so: it is retried when something speaks for it.
        self.dirty.retain(|key| !self.failed.contains(key) && !self.pending.contains_key(key));
    }

    /// Someone else wrote a route with one of our protocols.
    pub(super) fn found(&mut self, route: Route) {
        let key = Key::of(&route);
        self.actual.insert(key, route);
        self.dirty.insert(key);
    }

    /// We wrote it.
    pub(super) fn written(&mut self, route: Route) {
        self.actual.insert(Key::of(&route), route);
    }

    /// It is gone.
    pub(super) fn lost(&mut self, route: &Route) {
        let key = Key::of(route);
        let ours = self.actual.get(&key).is_some_and(|actual| actual.protocol == route.protocol);
        if ours {
            self.actual.remove(&key);
            self.withdrawn.remove(&key);
        }
        if self.wanted(key).is_some() {
            self.dirty.insert(key);
        }
    }

    /// The kernel refused it.
    pub(super) fn failed(&mut self, route: &Route) {
        self.failed.insert(Key::of(route));
    }

    pub(super) fn retry_failed(&mut self) {
        self.dirty.append(&mut self.failed);
    }

    pub(super) fn retry_pending(&mut self, name: &str) {
        let ready = self.pending.extract_if(.., |_, missing| missing == name);
        self.dirty.extend(ready.map(|(key, _)| key));
    }

    /// Forgets routes through an interface that is down or gone; says whether the kernel must be asked for the rest.
    pub(super) fn forget_interface(&mut self, index: u32) -> bool {
        let through = |route: &Route| {
            route.next_hops().iter().any(|hop| hop.interface == Some(Interface::Index(index)))
        };
        let several =
            self.actual.values().any(|route| route.next_hops().len() > 1 && through(route));
        let gone =
            self.actual.extract_if(.., |_, route| route.next_hops().len() == 1 && through(route));
        self.dirty.extend(gone.map(|(key, _)| key));
        several
    }

    /// Says whether a route may have vanished with that address.
    pub(super) fn depends_on_address(&self, interface: u32, address: IpAddr) -> bool {
        self.actual.values().any(|route| {
            route.source == Some(address)
                || route.next_hops().iter().any(|hop| {
                    hop.gateway.is_some() && hop.interface == Some(Interface::Index(interface))
                })
        })
    }

    /// Says whether the removal of `route` may be that of one leg only.
    pub(super) fn has_other_legs(&self, route: &Route) -> bool {
        route.prefix.addr().is_ipv6()
            && self.actual.get(&Key::of(route)).is_some_and(|actual| actual.next_hops().len() > 1)
    }

    /// Lists interface names that dirty routes need.
    pub(super) fn names_to_resolve(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for route in self.dirty.iter().filter_map(|key| self.wanted(*key)) {
            for hop in route.next_hops() {
                if let Some(Interface::Name(name)) = &hop.interface {
                    names.insert(name.clone());
                }
            }
        }
        names
    }

    /// Lists the desired routes that wait for an interface.
    pub(super) fn pending(&self) -> Vec<Resolution> {
        let waiting = self.pending.iter().filter_map(|(key, missing)| {
            Some(Resolution { route: self.wanted(*key)?.clone(), missing: missing.clone() })
        });
        waiting.collect()
    }

    /// Decides what to write for everything dirty, deletions first (a more specific stale route hides a new one), and
    /// takes all of it as being done: report failures with [`Tracker::failed`].
    pub(super) fn plan(&mut self, index_of: impl Fn(&str) -> Option<u32>) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut writes = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            self.pending.remove(&key);
            self.failed.remove(&key);
            let Some(wanted) = self.wanted(key) else {
                match self.stale(key) {
                    Some(stale) => actions.push(Action::Delete(stale.clone())),
                    None => {
                        self.withdrawn.remove(&key);
                    }
                }
                continue;
            };
            match resolve(wanted, &index_of) {
                Err(missing) => {
                    self.pending.insert(key, missing);
                }
                Ok(route) => writes.extend(self.write(key, route)),
            }
        }
        actions.append(&mut writes);
        actions
    }

    fn write(&self, key: Key, route: Route) -> Option<Action> {
        match self.actual.get(&key) {
            Some(actual) if route.is_met_by(actual) => None,
            Some(_) => Some(Action::Replace(route)),
            // Exclusive: whatever stands there unknown to us is not ours to replace.
            None => Some(Action::Add(route)),
        }
    }

    fn stale(&self, key: Key) -> Option<&Route> {
        let withdrawn = self.withdrawn.contains(&key);
        self.actual.get(&key).filter(|route| withdrawn || self.sweepable.contains(&route.protocol))
    }

    /// The lowest protocol number that wants this key.
    fn wanted(&self, key: Key) -> Option<&Route> {
        self.desired.get(&key.prefix)?.values().find(|route| Key::of(route) == key)
    }
}

#[cfg(test)]
mod tests;
