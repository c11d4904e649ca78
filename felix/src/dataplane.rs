//! The engine of a node: updates in, a table and routes out.

#[cfg(feature = "linux")]
mod engine;
pub mod route;

use std::collections::{BTreeMap, BTreeSet};

use api::Key;

pub use self::route::{Route, RouteChanges, Target};
use crate::{
    calc::{
        Graph,
        catalog::Catalog,
        members::{Member, SetSpec},
        model::{Direction, PolicyId},
        problem::Problem,
    },
    nft::{Chain, ChainName, Element, Family, KeyType, Set, SetName, Table, Value, Verdict},
    rules::{
        self, Families,
        endpoint::{self, Dispatch},
        policy,
    },
    update::{EndpointId, LocalEndpoint, Update},
};

/// What the engine is told once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Name of this node, as in BlockAffinity.
    pub node_name: String,
    /// How names of pod interfaces begin; unknown ones are closed.
    pub interface_prefix: String,
}

impl Config {
    /// The usual settings for a node.
    pub fn new(node_name: impl Into<String>) -> Self {
        Self { node_name: node_name.into(), interface_prefix: "cali".to_owned() }
    }
}

/// Why an endpoint is closed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum NotReady {
    /// Not everything has been told yet.
    NotInSync,
    /// The API has no such pod (or an older one of that name): its labels are not known.
    PodUnknown,
    /// Another sandbox has the interface now.
    Superseded,
}

impl std::fmt::Display for NotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotInSync => "waiting for the first complete list of objects",
            Self::PodUnknown => "the pod is not known from the API yet",
            Self::Superseded => "another sandbox of the pod has the interface",
        })
    }
}

/// What a flush did. The endpoints in `ready` are programmed once the kernel took the table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Flush {
    /// All endpoints whose policy is complete in the table now.
    pub ready: BTreeSet<EndpointId>,
    /// All other endpoints; the kernel drops their traffic.
    pub not_ready: BTreeMap<EndpointId, NotReady>,
    /// What changed in the routes.
    pub routes: RouteChanges,
    /// Whether everything is known, so that [`Felix::routes`] is all there should be.
    pub routes_settled: bool,
    /// How much there is.
    pub stats: Stats,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Endpoints of this node.
    pub endpoints: usize,
    /// Policies that select some of them.
    pub active_policies: usize,
    /// Sets those policies need.
    pub sets: usize,
    /// Chains that endpoints share.
    pub group_chains: usize,
}

/// What is in the table for an interface.
#[derive(Clone, Debug, Default)]
struct Interface {
    chains: Vec<ChainName>,
    addresses: BTreeSet<std::net::IpAddr>,
}

/// The engine.
#[derive(Debug)]
pub struct Felix {
    config: Config,
    graph: Graph,
    in_sync: bool,
    started: bool,
    families: Families,
    by_interface: BTreeMap<String, BTreeSet<EndpointId>>,
    interfaces: BTreeMap<String, Interface>,
    dirty_interfaces: BTreeSet<String>,
    group_users: BTreeMap<ChainName, usize>,
    policy_chains: BTreeMap<PolicyId, BTreeSet<ChainName>>,
    routes: route::Routes,
    /// Whether an object came that may not be understood.
    problems_due: bool,
}

impl Felix {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            graph: Graph::default(),
            in_sync: false,
            started: false,
            families: Families::default(),
            by_interface: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            dirty_interfaces: BTreeSet::new(),
            group_users: BTreeMap::new(),
            policy_chains: BTreeMap::new(),
            routes: route::Routes::default(),
            problems_due: true,
        }
    }

    /// Takes an update in. Nothing is written before [`Felix::flush`].
    pub fn on_update(&mut self, update: Update) {
        match &update {
            Update::InSync => self.in_sync = true,
            Update::LocalEndpoint(id, endpoint) => self.endpoint_changed(id, endpoint.as_ref()),
            Update::BlockAffinity(key, affinity) => {
                self.routes.put_block(key, affinity.as_deref(), &self.config.node_name);
            }
            Update::KubernetesNetworkPolicy(..)
            | Update::NetworkPolicy(..)
            | Update::GlobalNetworkPolicy(..)
            | Update::Tier(..)
            | Update::NetworkSet(..)
            | Update::GlobalNetworkSet(..) => self.problems_due = true,
            _ => {}
        }
        self.graph.on_update(&update);
    }

    /// The objects, parsed.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        self.graph.catalog()
    }

    /// What could not be understood.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.graph.catalog().problems()
    }

    /// All routes wanted now.
    #[must_use]
    pub const fn routes(&self) -> &BTreeSet<Route> {
        self.routes.wanted()
    }

    /// Brings the table in line with what is known. Without changes this costs next to nothing.
    pub fn flush(&mut self, table: &mut Table) -> Flush {
        if self.in_sync {
            self.write(table);
        }
        let mut flush = self.states();
        if self.in_sync {
            flush.routes = self.routes.flush(self.graph.catalog().endpoints());
            flush.routes_settled = true;
        }
        flush
    }

    fn endpoint_changed(&mut self, id: &EndpointId, endpoint: Option<&LocalEndpoint>) {
        let old = self.graph.catalog().endpoints().get(id);
        if let Some(old) = old {
            self.dirty_interfaces.insert(old.host_interface.clone());
            if let Some(ids) = self.by_interface.get_mut(&old.host_interface) {
                ids.remove(id);
                if ids.is_empty() {
                    self.by_interface.remove(&old.host_interface);
                }
            }
        }
        if let Some(new) = endpoint {
            self.dirty_interfaces.insert(new.host_interface.clone());
            let ids = self.by_interface.entry(new.host_interface.clone()).or_default();
            ids.insert(id.clone());
        }
        self.routes.endpoints_changed();
    }

    /// The endpoint that has an interface: the current pod's before any other.
    fn owner(&self, interface: &str) -> Option<(&EndpointId, &LocalEndpoint, bool)> {
        let catalog = self.graph.catalog();
        let ids = self.by_interface.get(interface).into_iter().flatten();
        let known = ids.filter_map(|id| catalog.endpoints().get_key_value(id));
        known
            .map(|(id, endpoint)| (id, endpoint, catalog.is_current(endpoint)))
            .max_by_key(|(id, _, current)| (*current, *id))
    }

    fn states(&self) -> Flush {
        let mut flush = Flush::default();
        for (id, endpoint) in self.graph.catalog().endpoints() {
            let owner = self.owner(&endpoint.host_interface);
            let reason = if !self.in_sync {
                Some(NotReady::NotInSync)
            } else if !self.is_open(endpoint) {
                Some(NotReady::PodUnknown)
            } else if owner.is_some_and(|(owner, _, _)| owner != id) {
                Some(NotReady::Superseded)
            } else {
                None
            };
            match reason {
                Some(reason) => {
                    flush.not_ready.insert(id.clone(), reason);
                }
                None => {
                    flush.ready.insert(id.clone());
                }
            }
        }
        flush.stats = Stats {
            endpoints: self.graph.catalog().endpoints().len(),
            active_policies: self.graph.active().count(),
            sets: self.graph.members().len(),
            group_chains: self.group_users.len(),
        };
        flush
    }

    fn is_open(&self, endpoint: &LocalEndpoint) -> bool {
        self.graph.catalog().is_current(endpoint)
    }

    fn write(&mut self, table: &mut Table) {
        if !self.started {
            rules::base::put(table, &self.config.interface_prefix);
            self.started = true;
        }
        let mut dirty = self.graph.take_dirty();
        let families = self.families_now();
        let all = families != self.families;
        self.families = families;
        if all {
            dirty.policies.extend(self.graph.active().cloned());
            dirty.pods.extend(self.graph.pods().cloned());
        }
        for spec in self.graph.members_mut().take_nets_changed() {
            dirty.policies.extend(self.graph.members().users(&spec).cloned());
            self.put_nets(table, &spec);
        }
        let sets = self.graph.settle(&dirty.policies);
        for spec in &sets.gone {
            remove_sets(table, spec);
        }
        let fresh: Vec<SetSpec> =
            if all { self.sets_in_use() } else { sets.new.into_iter().collect() };
        for spec in &fresh {
            self.put_set(table, spec);
            self.put_nets(table, spec);
        }
        self.write_members(table);
        for id in &dirty.policies {
            dirty.pods.extend(self.graph.pods_of(id).cloned());
            self.write_policy(table, id);
        }
        self.write_interfaces(table, &dirty.pods);
    }

    fn families_now(&self) -> Families {
        let endpoints = self.graph.catalog().endpoints().values();
        let mut families = Families::default();
        for addr in endpoints.flat_map(|endpoint| &endpoint.addresses) {
            families.v4 |= addr.is_ipv4();
            families.v6 |= addr.is_ipv6();
        }
        families
    }

    fn sets_in_use(&self) -> Vec<SetSpec> {
        let policies = self.graph.active().filter_map(|id| self.graph.catalog().policy(id));
        let specs: BTreeSet<SetSpec> = policies.flat_map(policy::sets).collect();
        specs.into_iter().collect()
    }

    fn put_set(&self, table: &mut Table, spec: &SetSpec) {
        let Some(set) = self.graph.members().get(spec) else { return };
        for family in [Family::V4, Family::V6] {
            let name = rules::member_set(spec, family);
            if !self.families.iter().any(|used| used == family) {
                table.remove_set(&name);
                continue;
            }
            let of_family = set.members().filter(|member| is_of(member, family));
            let elements = of_family.map(element);
            table.put_set(Set::exact(name, &key(spec, family)).with(elements));
        }
    }

    fn put_nets(&self, table: &mut Table, spec: &SetSpec) {
        for family in [Family::V4, Family::V6] {
            let name = rules::nets_set(spec, family);
            let nets =
                self.graph.members().get(spec).map(|set| policy::elements(set.nets(), family));
            let used = self.families.iter().any(|used| used == family);
            match nets.filter(|nets| used && !nets.is_empty()) {
                Some(nets) => {
                    table.put_set(Set::interval(name, &[addr_type(family)]).with(nets));
                }
                None => {
                    table.remove_set(&name);
                }
            }
        }
    }

    fn write_members(&mut self, table: &mut Table) {
        for (spec, members) in self.graph.members_mut().take_changed() {
            let Some(set) = self.graph.members().get(&spec) else { continue };
            let names: BTreeMap<bool, SetName> = [Family::V4, Family::V6]
                .into_iter()
                .map(|family| (family == Family::V4, rules::member_set(&spec, family)))
                .collect();
            for member in members {
                let Some(name) = names.get(&member.addr().is_ipv4()) else { continue };
                if set.holds(&member) {
                    table.insert_element(name, element(&member));
                } else {
                    table.remove_element(name, &element(&member));
                }
            }
        }
    }

    fn context(&self) -> policy::Context<'_> {
        policy::Context { families: self.families, members: self.graph.members() }
    }

    /// Writes the chains of a policy, or removes them when no endpoint needs it.
    fn write_policy(&mut self, table: &mut Table, id: &PolicyId) {
        let mut names = BTreeSet::new();
        let active = self.graph.catalog().policy(id).filter(|_| self.graph.is_active(id));
        for direction in [Direction::Ingress, Direction::Egress] {
            let Some(policy) = active else { continue };
            let Some(own) = policy.rules(direction) else { continue };
            // Written out in the chains of tiers instead, where `return` leaves the tier.
            if policy.passes(direction) {
                continue;
            }
            let name = rules::policy_chain(id, direction);
            table.put_chain(Chain::new(name.clone(), policy::render(self.context(), id, own)));
            names.insert(name);
        }
        let before = self.policy_chains.remove(id).unwrap_or_default();
        for gone in before.difference(&names) {
            table.remove_chain(gone);
        }
        if !names.is_empty() {
            self.policy_chains.insert(id.clone(), names);
        }
    }

    fn write_interfaces(&mut self, table: &mut Table, pods: &BTreeSet<Key>) {
        let mut interfaces = std::mem::take(&mut self.dirty_interfaces);
        for pod in pods {
            let endpoints = self.graph.catalog().endpoints_of(pod);
            interfaces.extend(endpoints.map(|(_, endpoint)| endpoint.host_interface.clone()));
        }
        for interface in interfaces {
            self.write_interface(table, &interface);
        }
    }

    fn write_interface(&mut self, table: &mut Table, interface: &str) {
        let before = self.interfaces.remove(interface).unwrap_or_default();
        let now = self.put_interface(table, interface);
        let key = Element::ifname(interface);
        let now = now.unwrap_or_else(|| {
            table.map_remove(&rules::from_endpoint(), &key);
            table.map_remove(&rules::to_endpoint(), &key);
            Interface::default()
        });
        for addr in before.addresses.difference(&now.addresses) {
            table.remove_element(&rules::own_addresses(family(*addr)), &own(interface, *addr));
        }
        // After the new ones were counted: a chain that stays never reaches zero.
        for chain in before.chains {
            let left = self.group_users.get(&chain).copied().unwrap_or(0).saturating_sub(1);
            if left == 0 {
                self.group_users.remove(&chain);
                table.remove_chain(&chain);
            } else {
                self.group_users.insert(chain, left);
            }
        }
        let pair = [Value::Ifname(interface.to_owned()), Value::Ifname(interface.to_owned())];
        if now.addresses.is_empty() && now.chains.is_empty() {
            table.remove_element(&rules::hairpin(), &Element::new(&pair));
        } else {
            table.insert_element(&rules::hairpin(), Element::new(&pair));
            self.interfaces.insert(interface.to_owned(), now);
        }
    }

    /// Writes what an interface needs; `None` when no endpoint has it.
    fn put_interface(&mut self, table: &mut Table, interface: &str) -> Option<Interface> {
        let (_, endpoint, current) = self.owner(interface)?;
        let (egress, ingress) = if current {
            let dispatch = |direction| {
                let tiers = self.graph.tiers(&endpoint.pod, direction);
                endpoint::dispatch(self.context(), self.graph.catalog(), &tiers, direction)
            };
            (dispatch(Direction::Egress), dispatch(Direction::Ingress))
        } else {
            (Dispatch::closed(), Dispatch::closed())
        };
        let addresses: BTreeSet<_> =
            if current { endpoint.addresses.iter().copied().collect() } else { BTreeSet::new() };
        let key = Element::ifname(interface);
        let mut chains = Vec::new();
        for (map, dispatch) in [(rules::from_endpoint(), egress), (rules::to_endpoint(), ingress)] {
            for chain in dispatch.chains {
                chains.push(chain.name.clone());
                *self.group_users.entry(chain.name.clone()).or_insert(0) += 1;
                table.put_chain(chain);
            }
            put_verdict(table, &map, &key, dispatch.verdict);
        }
        for addr in &addresses {
            table.insert_element(&rules::own_addresses(family(*addr)), own(interface, *addr));
        }
        Some(Interface { chains, addresses })
    }
}

fn put_verdict(table: &mut Table, map: &crate::nft::MapName, key: &Element, verdict: Verdict) {
    table.map_insert(map, key.clone(), verdict);
}

fn remove_sets(table: &mut Table, spec: &SetSpec) {
    for family in [Family::V4, Family::V6] {
        table.remove_set(&rules::member_set(spec, family));
        table.remove_set(&rules::nets_set(spec, family));
    }
}

const fn family(addr: std::net::IpAddr) -> Family {
    if addr.is_ipv4() { Family::V4 } else { Family::V6 }
}

const fn addr_type(family: Family) -> KeyType {
    match family {
        Family::V4 => KeyType::Ipv4,
        Family::V6 => KeyType::Ipv6,
    }
}

fn is_of(member: &Member, wanted: Family) -> bool {
    family(member.addr()) == wanted
}

fn own(interface: &str, addr: std::net::IpAddr) -> Element {
    Element::new(&[Value::Ifname(interface.to_owned()), addr.into()])
}

fn key(spec: &SetSpec, family: Family) -> Vec<KeyType> {
    let addr = addr_type(family);
    match spec {
        SetSpec::Selectors(_) => vec![addr],
        SetSpec::NamedPort { .. } => vec![addr, KeyType::Port],
        SetSpec::Service(wanted) if wanted.ports => vec![addr, KeyType::L4Proto, KeyType::Port],
        SetSpec::Service(_) => vec![addr],
    }
}

fn element(member: &Member) -> Element {
    match member {
        Member::Addr(addr) => Element::addr(*addr),
        Member::Port(addr, port) => Element::new(&[(*addr).into(), Value::Port(*port)]),
        Member::Backend(addr, protocol, port) => {
            Element::new(&[(*addr).into(), Value::L4Proto(*protocol), Value::Port(*port)])
        }
    }
}

#[cfg(test)]
mod tests;
