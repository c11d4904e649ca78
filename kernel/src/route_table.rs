//! The reconciler of kernel routes: what we want, what is there, and only the difference gets written.
//!
//! It owns routes by protocol number and nothing else. A route of another protocol is never replaced or removed, not
//! even when it stands where ours should: that is reported as a failure with the owner's number.
//!
//! Routes of ours that the kernel has and nobody wants stay until [`RouteTable::allow_sweep`] was called for their
//! protocol: after a restart they keep traffic flowing until the new desired state is complete.

mod tracker;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use nix::errno::Errno;

use self::tracker::{Action, Resolution, Tracker};
use crate::{
    Event, Interface, Netlink, Result, Route, RouteKind, link,
    netlink::Refusal,
    route::{self, Filter},
};

/// Desired and actual routes of a set of protocols, in the tables that desired routes name (the main table always).
#[derive(Debug)]
pub struct RouteTable {
    tracker: Tracker,
    tables: BTreeSet<u32>,
    reload: bool,
}

/// What one [`RouteTable::apply`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Routes written.
    pub written: Vec<Route>,
    /// Routes removed.
    pub removed: Vec<Route>,
    /// Desired routes whose interface does not exist yet, with its name; retried when it appears.
    pub pending: Vec<(Route, String)>,
    /// Routes that the kernel refused, with the reason; retried by [`RouteTable::retry`] and by events that may help.
    pub failed: Vec<(Route, String)>,
}

impl Report {
    /// Counts the changes made in the kernel.
    pub fn changed(&self) -> usize {
        self.written.len().saturating_add(self.removed.len())
    }
}

impl RouteTable {
    /// Makes a table that owns these protocols and knows nothing yet; call [`RouteTable::load`] (or just apply).
    pub fn new(protocols: impl IntoIterator<Item = u8>) -> Self {
        Self {
            tracker: Tracker::new(protocols.into_iter().collect()),
            tables: BTreeSet::from([route::TABLE_MAIN]),
            reload: true,
        }
    }

    /// Wants this route, instead of the one that its protocol wanted for the prefix before. When two of our protocols
    /// want the same prefix with the same metric, the lower protocol number wins (local workloads before BGP).
    pub fn set(&mut self, route: Route) {
        if self.tables.insert(route.table) {
            self.reload = true;
        }
        self.tracker.set(route.normalized());
    }

    /// No longer wants the route of this protocol for the prefix.
    pub fn unset(&mut self, prefix: IpNet, protocol: u8) {
        self.tracker.unset(prefix.trunc(), protocol);
    }

    /// Replaces everything a protocol wants.
    pub fn replace_all(&mut self, protocol: u8, routes: impl IntoIterator<Item = Route>) {
        let routes: Vec<_> = routes.into_iter().collect();
        let kept: BTreeSet<IpNet> = routes.iter().map(|route| route.prefix.trunc()).collect();
        for prefix in self.tracker.prefixes_of(protocol) {
            if !kept.contains(&prefix) {
                self.tracker.unset(prefix, protocol);
            }
        }
        for route in routes {
            self.set(route);
        }
    }

    /// Allows routes of this protocol that nobody wants to be removed: its desired state is complete from now on.
    pub fn allow_sweep(&mut self, protocol: u8) {
        self.tracker.allow_sweep(protocol);
    }

    /// Lists what is wanted, by prefix and protocol.
    pub fn desired(&self) -> impl Iterator<Item = &Route> {
        self.tracker.desired()
    }

    /// Lists what the kernel has of ours, as far as known.
    pub fn actual(&self) -> impl Iterator<Item = &Route> {
        self.tracker.actual()
    }

    /// Says whether [`RouteTable::apply`] has something to do.
    pub fn is_dirty(&self) -> bool {
        self.reload || self.tracker.is_dirty()
    }

    /// Tries refused routes again at the next apply.
    pub fn retry(&mut self) {
        self.tracker.retry_failed();
    }

    /// Reads our routes from the kernel; the next apply compares all of them.
    pub fn load(&mut self, netlink: &Netlink) -> Result<()> {
        let mut found = Vec::new();
        for table in &self.tables {
            // One dump per protocol: the kernel filters, so foreign full tables cost nothing.
            for protocol in self.tracker.protocols() {
                let filter = Filter { protocol: Some(*protocol), table: Some(*table) };
                found.extend(route::list(netlink, filter)?);
            }
        }
        self.tracker.load(found);
        self.reload = false;
        Ok(())
    }

    /// Takes note of a change in the kernel and says whether an apply is due. `netlink` is the connection that
    /// apply uses: its own echoes are ignored.
    pub fn observe(&mut self, event: &Event, netlink: &Netlink) -> bool {
        match event {
            Event::RouteAdded { origin, .. } | Event::RouteRemoved { origin, .. }
                if *origin == netlink.port() => {}
            Event::RouteAdded { route, .. } => self.observe_route_added(route),
            Event::RouteRemoved { route, .. } => self.observe_route_removed(route),
            Event::LinkNew(link) | Event::LinkUp(link) => {
                self.tracker.retry_pending(&link.name);
                self.tracker.retry_failed();
            }
            // IPv4 routes vanish with their interface without a word.
            Event::LinkDown(link) | Event::LinkDeleted(link) => {
                self.reload |= self.tracker.forget_interface(link.index);
            }
            Event::AddressAdded(_) => self.tracker.retry_failed(),
            // Routes with that preferred source, or whose gateway was reached through it, are gone.
            Event::AddressRemoved(address) => {
                self.reload |=
                    self.tracker.depends_on_address(address.interface, address.prefix.addr());
            }
            Event::Overrun => self.reload = true,
            Event::LinkChanged(_) => (),
        }
        self.is_dirty()
    }

    fn observe_route_added(&mut self, route: &Route) {
        if !self.tables.contains(&route.table) {
            return;
        }
        if !self.tracker.owns(route.protocol) {
            // A connected route may make a gateway reachable.
            self.tracker.retry_failed();
        } else if route.prefix.addr().is_ipv6() && matches!(route.kind, RouteKind::Unicast { .. }) {
            // Notifications may carry one leg only: ask for the whole.
            self.reload = true;
        } else {
            self.tracker.found(route.clone());
        }
    }

    fn observe_route_removed(&mut self, route: &Route) {
        if !self.tables.contains(&route.table) {
            return;
        }
        if !self.tracker.owns(route.protocol) {
            self.tracker.retry_failed();
        } else if self.tracker.has_other_legs(route) {
            self.reload = true;
        } else {
            self.tracker.lost(route);
        }
    }

    /// Writes the difference. Goes on after refusals and reports them; `Err` only when the connection failed.
    pub fn apply(&mut self, netlink: &Netlink) -> Result<Report> {
        if self.reload {
            self.load(netlink)?;
        }
        let mut report = Report::default();
        let surprised = self.pass(netlink, &mut report)?;
        if surprised {
            // The kernel is not what we thought: look, then decide once more.
            self.load(netlink)?;
            self.tracker.retry_failed();
            report.failed.clear();
            report.pending.clear();
            self.pass(netlink, &mut report)?;
        }
        Ok(report)
    }

    /// Writes what is dirty; returns whether an answer showed that our picture of the kernel was wrong.
    fn pass(&mut self, netlink: &Netlink, report: &mut Report) -> Result<bool> {
        let indexes = self.resolve_names(netlink)?;
        let actions = self.tracker.plan(|name| indexes.get(name).copied());
        let mut requests = Vec::with_capacity(actions.len());
        let mut sent = Vec::with_capacity(actions.len());
        for action in actions {
            let request = match &action {
                Action::Add(route) => route::addition(route),
                Action::Replace(route) => route::replacement(route),
                Action::Delete(route) => Ok(route::deletion(route)),
            };
            match request {
                Ok(request) => {
                    requests.push(request);
                    sent.push(action);
                }
                Err(error) => report.failed.push((action.into_route(), error.to_string())),
            }
        }
        let outcomes = netlink.batch(requests).inspect_err(|_| self.reload = true)?;
        let mut surprised = false;
        for (action, outcome) in sent.into_iter().zip(outcomes) {
            surprised |= self.settle(action, outcome, report);
        }
        for Resolution { route, missing } in self.tracker.pending() {
            report.pending.push((route, missing));
        }
        Ok(surprised)
    }

    fn settle(
        &mut self,
        action: Action,
        outcome: std::result::Result<(), Refusal>,
        report: &mut Report,
    ) -> bool {
        match (action, outcome) {
            (Action::Delete(route), Err(refusal)) if refusal.errno == Errno::ESRCH => {
                self.tracker.lost(&route);
                false
            }
            (Action::Delete(route), Ok(())) => {
                self.tracker.lost(&route);
                report.removed.push(route);
                false
            }
            (Action::Add(route) | Action::Replace(route), Ok(())) => {
                self.tracker.written(route.clone());
                report.written.push(route);
                false
            }
            (action, Err(refusal)) => {
                let surprised =
                    matches!(refusal.errno, Errno::EEXIST | Errno::ENODEV | Errno::ENOENT);
                let reason = reason(&action, &refusal);
                let route = action.into_route();
                self.tracker.failed(&route);
                report.failed.push((route, reason));
                surprised
            }
        }
    }

    fn resolve_names(&self, netlink: &Netlink) -> Result<BTreeMap<String, u32>> {
        let mut indexes = BTreeMap::new();
        for name in self.tracker.names_to_resolve() {
            if let Some(link) = link::by_name(netlink, &name)? {
                indexes.insert(name, link.index);
            }
        }
        Ok(indexes)
    }
}

fn reason(action: &Action, refusal: &Refusal) -> String {
    let verb = match action {
        Action::Add(_) | Action::Replace(_) => "add",
        Action::Delete(_) => "delete",
    };
    match refusal.errno {
        Errno::EEXIST => {
            "another program's route has this prefix and metric; remove it or change its metric"
                .into()
        }
        Errno::ENETUNREACH => {
            format!("{verb}: the gateway is not on a connected network{}", refusal.note)
        }
        errno => format!("{verb}: {}{}", errno.desc(), refusal.note),
    }
}

/// Replaces names by indexes; the first unknown name otherwise.
fn resolve(
    route: &Route,
    index_of: &impl Fn(&str) -> Option<u32>,
) -> std::result::Result<Route, String> {
    let mut resolved = route.clone();
    if let RouteKind::Unicast { next_hops } = &mut resolved.kind {
        for hop in next_hops.iter_mut() {
            if let Some(Interface::Name(name)) = &hop.interface {
                hop.interface = Some(Interface::Index(index_of(name).ok_or_else(|| name.clone())?));
            }
        }
    }
    Ok(resolved.normalized())
}
