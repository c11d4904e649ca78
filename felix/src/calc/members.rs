//! Members of the sets that rules refer to, kept up to date change by change.
//!
//! An address stays a member as long as one item contributes it: two pods may hold the same address for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    catalog::{Backend, Catalog},
    item::{Item, ItemId},
    model::{Entity, PolicyId, Rule, ServiceMatch},
    ranges::NetSet,
    selector::Selector,
};

/// What a set holds; equal specs share a set.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SetSpec {
    /// Addresses and prefixes of what any of these selectors selects.
    Selectors(BTreeSet<Arc<Selector>>),
    /// Addresses and numbers of a named port.
    NamedPort {
        /// Name.
        name: String,
        /// IP protocol number.
        protocol: u8,
    },
    /// Backends of a service.
    Service(ServiceMatch),
}

/// A member of an exact set.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Member {
    /// An address.
    Addr(IpAddr),
    /// An address and a port.
    Port(IpAddr, u16),
    /// An address, a protocol and a port.
    Backend(IpAddr, u8, u16),
}

impl Member {
    /// The address of the member.
    #[must_use]
    pub const fn addr(&self) -> IpAddr {
        match self {
            Self::Addr(addr) | Self::Port(addr, _) | Self::Backend(addr, _, _) => *addr,
        }
    }
}

impl SetSpec {
    /// The text that identifies the set.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Selectors(selectors) => {
                let texts: Vec<&str> = selectors.iter().map(|one| one.text()).collect();
                texts.join(" | ")
            }
            Self::NamedPort { name, protocol } => format!("port {name} {protocol}"),
            Self::Service(wanted) => {
                format!("service {} {}", wanted.service, if wanted.ports { "ports" } else { "" })
            }
        }
    }

    /// The sets a rule refers to.
    pub fn of_rule(rule: &Rule) -> impl Iterator<Item = Self> {
        let entities = [&rule.source, &rule.destination];
        entities.into_iter().flat_map(|entity| Self::of_entity(entity, rule.protocol))
    }

    fn of_entity(entity: &Entity, protocol: Option<u8>) -> Vec<Self> {
        let peers = entity.peers.iter().chain(&entity.not_peers);
        let selectors = peers
            .filter(|peers| !peers.selectors.is_empty())
            .map(|peers| Self::Selectors(peers.selectors.clone()));
        let names = entity.ports.iter().chain(&entity.not_ports).flat_map(|ports| &ports.named);
        let named = names
            .filter_map(|name| Some(Self::NamedPort { name: name.clone(), protocol: protocol? }));
        selectors.chain(named).chain(entity.service.clone().map(Self::Service)).collect()
    }

    /// The namespaces outside of which nothing can be a member; `None` when there is no such limit.
    fn namespaces(&self) -> Option<BTreeSet<&str>> {
        match self {
            Self::Selectors(selectors) => {
                selectors.iter().map(|selector| selector.only_namespace()).collect()
            }
            Self::NamedPort { .. } | Self::Service(_) => None,
        }
    }

    fn selects(&self, item: &Item) -> bool {
        match self {
            Self::Selectors(selectors) => selectors.iter().any(|selector| selector.matches(item)),
            Self::NamedPort { .. } => item.is_pod(),
            Self::Service(_) => false,
        }
    }

    fn members(&self, item: &Item) -> Vec<Member> {
        if !self.selects(item) {
            return Vec::new();
        }
        match self {
            Self::NamedPort { name, protocol } => {
                let named = item.ports.iter();
                let ports: BTreeSet<u16> = named
                    .filter(|port| port.name == *name && port.protocol == *protocol)
                    .map(|port| port.port)
                    .collect();
                let addresses: BTreeSet<IpAddr> = item.addresses.iter().copied().collect();
                let pairs = addresses
                    .into_iter()
                    .flat_map(|addr| ports.iter().map(move |port| Member::Port(addr, *port)));
                pairs.collect()
            }
            _ => item.addresses.iter().map(|addr| Member::Addr(*addr)).collect(),
        }
    }

    fn backend(&self, backend: &Backend) -> Option<Member> {
        match self {
            Self::Service(ServiceMatch { ports: true, .. }) => {
                Some(Member::Backend(backend.addr, backend.protocol, backend.port))
            }
            Self::Service(_) => Some(Member::Addr(backend.addr)),
            _ => None,
        }
    }
}

/// A set that some active policy refers to.
#[derive(Debug, Default)]
pub struct MemberSet {
    users: BTreeSet<PolicyId>,
    counts: BTreeMap<Member, u32>,
    nets_of: BTreeMap<ItemId, NetSet>,
    nets: NetSet,
    changed: BTreeSet<Member>,
}

impl MemberSet {
    /// Members now, in order.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.counts.keys()
    }

    /// Whether something is a member now.
    #[must_use]
    pub fn holds(&self, member: &Member) -> bool {
        self.counts.contains_key(member)
    }

    /// Prefixes of the network sets selected.
    #[must_use]
    pub const fn nets(&self) -> &NetSet {
        &self.nets
    }

    fn count(&mut self, members: Vec<Member>, up: bool) {
        for member in members {
            let count = self.counts.entry(member).or_insert(0);
            let before = *count;
            *count = if up { before.saturating_add(1) } else { before.saturating_sub(1) };
            let after = *count;
            if after == 0 {
                self.counts.remove(&member);
            }
            if (before == 0) != (after == 0) {
                self.changed.insert(member);
            }
        }
    }

    /// Sets the prefixes of one item; says whether the prefixes of the set changed.
    fn set_nets(&mut self, id: &ItemId, nets: NetSet) -> bool {
        let unchanged = if nets.is_empty() {
            self.nets_of.remove(id).is_none()
        } else {
            self.nets_of.insert(id.clone(), nets.clone()) == Some(nets)
        };
        if unchanged {
            return false;
        }
        let all = NetSet::union_of(self.nets_of.values());
        let changed = all != self.nets;
        self.nets = all;
        changed
    }
}

/// All sets in use, found by what could change them.
#[derive(Debug, Default)]
pub struct MemberIndex {
    sets: BTreeMap<SetSpec, MemberSet>,
    by_namespace: BTreeMap<String, BTreeSet<SetSpec>>,
    anywhere: BTreeSet<SetSpec>,
    changed: BTreeSet<SetSpec>,
    nets_changed: BTreeSet<SetSpec>,
}

impl MemberIndex {
    /// A set in use.
    #[must_use]
    pub fn get(&self, spec: &SetSpec) -> Option<&MemberSet> {
        self.sets.get(spec)
    }

    /// How many sets are in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether no set is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Users of a set.
    pub fn users(&self, spec: &SetSpec) -> impl Iterator<Item = &PolicyId> {
        self.sets.get(spec).into_iter().flat_map(|set| &set.users)
    }

    /// Sets whose exact members changed, with those members; forgets them.
    pub fn take_changed(&mut self) -> Vec<(SetSpec, BTreeSet<Member>)> {
        let mut out = Vec::new();
        for spec in std::mem::take(&mut self.changed) {
            if let Some(set) = self.sets.get_mut(&spec) {
                out.push((spec, std::mem::take(&mut set.changed)));
            }
        }
        out
    }

    /// Sets whose prefixes changed; forgets them.
    pub fn take_nets_changed(&mut self) -> BTreeSet<SetSpec> {
        std::mem::take(&mut self.nets_changed)
    }

    /// Adds a user; says whether the set is new, and then fills it.
    pub fn acquire(&mut self, spec: &SetSpec, user: &PolicyId, catalog: &Catalog) -> bool {
        if let Some(set) = self.sets.get_mut(spec) {
            set.users.insert(user.clone());
            return false;
        }
        let mut set = MemberSet::default();
        set.users.insert(user.clone());
        match (spec, spec.namespaces()) {
            (SetSpec::Service(wanted), _) => {
                let backends = catalog.backends(&wanted.service);
                let members = backends.iter().filter_map(|backend| spec.backend(backend));
                set.count(members.collect(), true);
            }
            (_, Some(namespaces)) => {
                for namespace in namespaces {
                    fill(&mut set, spec, catalog.items_in(namespace));
                    let known = self.by_namespace.entry(namespace.to_owned()).or_default();
                    known.insert(spec.clone());
                }
            }
            (_, None) => {
                fill(&mut set, spec, catalog.items());
                self.anywhere.insert(spec.clone());
            }
        }
        set.changed.clear();
        self.sets.insert(spec.clone(), set);
        true
    }

    /// Removes a user; says whether that was the last one, and then forgets the set.
    pub fn release(&mut self, spec: &SetSpec, user: &PolicyId) -> bool {
        let Some(set) = self.sets.get_mut(spec) else { return false };
        set.users.remove(user);
        if !set.users.is_empty() {
            return false;
        }
        self.sets.remove(spec);
        self.changed.remove(spec);
        self.nets_changed.remove(spec);
        self.anywhere.remove(spec);
        for namespace in spec.namespaces().into_iter().flatten() {
            if let Some(specs) = self.by_namespace.get_mut(namespace) {
                specs.remove(spec);
                if specs.is_empty() {
                    self.by_namespace.remove(namespace);
                }
            }
        }
        true
    }

    /// An item changed: only sets that could hold it are looked at.
    pub fn item_changed(&mut self, old: Option<&Item>, new: Option<&Item>) {
        let Some(item) = new.or(old) else { return };
        let namespace = item.namespace.as_deref();
        let nearby = namespace.and_then(|namespace| self.by_namespace.get(namespace));
        for spec in self.anywhere.iter().chain(nearby.into_iter().flatten()) {
            let Some(set) = self.sets.get_mut(spec) else { continue };
            let before = old.map(|item| spec.members(item)).unwrap_or_default();
            let after = new.map(|item| spec.members(item)).unwrap_or_default();
            if before != after {
                // Up before down: a member that stays never reaches zero.
                set.count(after, true);
                set.count(before, false);
                self.changed.insert(spec.clone());
            }
            if !item.is_pod() {
                let selected = new.filter(|item| spec.selects(item));
                let nets = selected.map(|item| item.nets.clone()).unwrap_or_default();
                if set.set_nets(&item.id, nets) {
                    self.nets_changed.insert(spec.clone());
                }
            }
        }
    }

    /// The backends of a service changed.
    pub fn service_changed(&mut self, service: &api::Key, old: &[Backend], new: &[Backend]) {
        for ports in [false, true] {
            let spec = SetSpec::Service(ServiceMatch { service: service.clone(), ports });
            let Some(set) = self.sets.get_mut(&spec) else { continue };
            set.count(new.iter().filter_map(|backend| spec.backend(backend)).collect(), true);
            set.count(old.iter().filter_map(|backend| spec.backend(backend)).collect(), false);
            self.changed.insert(spec);
        }
    }
}

fn fill<'a>(set: &mut MemberSet, spec: &SetSpec, items: impl Iterator<Item = &'a Item>) {
    for item in items {
        set.count(spec.members(item), true);
        if !item.is_pod() && spec.selects(item) {
            set.nets_of.insert(item.id.clone(), item.nets.clone());
        }
    }
    set.nets = NetSet::union_of(set.nets_of.values());
}
