//! Everything known, parsed: items with their labels, policies, tiers, backends of services.
//!
//! The state depends only on the last value of each object, never on the order in which they came.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use api::{Key, Resource};

use super::{
    calico,
    facts::{self, PodFacts},
    item::{Item, ItemId, Labels},
    kubernetes,
    model::{Direction, Order, Policy, PolicyId, PolicyKind, Tier},
    problem::Problem,
    ranges::NetSet,
};
use crate::update::{EndpointId, LocalEndpoint, Update};

/// An address and port behind a service.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Backend {
    /// Address.
    pub addr: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Port.
    pub port: u16,
}

/// Something before and after a change.
pub type BeforeAfter<T> = (T, T);

/// What an update changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Items before and after.
    pub items: Vec<BeforeAfter<Option<Arc<Item>>>>,
    /// Policies that came, went or changed, with what they were.
    pub policies: Vec<(PolicyId, Option<Arc<Policy>>)>,
    /// Whether a tier changed.
    pub tiers: bool,
    /// Services whose backends changed, before and after.
    pub services: Vec<(Key, Vec<Backend>, Vec<Backend>)>,
}

/// A tier that applies to an endpoint, with the policies that select it, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AppliedTier {
    /// Name.
    pub name: String,
    /// Whether undecided traffic goes on to the next tier instead of being dropped.
    pub pass_by_default: bool,
    /// Policies in the order they are asked.
    pub policies: Vec<PolicyId>,
}

/// Prefixes and labels of a network set.
#[derive(Clone, Debug, Default, PartialEq)]
struct NetFacts {
    labels: Labels,
    nets: NetSet,
    problems: Vec<String>,
}

/// The objects, parsed.
#[derive(Debug, Default)]
pub struct Catalog {
    pods: BTreeMap<Key, PodFacts>,
    net_sets: BTreeMap<ItemId, NetFacts>,
    namespaces: BTreeMap<String, Labels>,
    accounts: BTreeMap<Key, Labels>,
    items: BTreeMap<ItemId, Arc<Item>>,
    by_namespace: BTreeMap<String, BTreeSet<ItemId>>,
    policies: BTreeMap<PolicyId, Arc<Policy>>,
    tiers: BTreeMap<String, Tier>,
    slices: BTreeMap<Key, (Key, Vec<Backend>)>,
    slices_of: BTreeMap<Key, BTreeSet<Key>>,
    endpoints: BTreeMap<EndpointId, LocalEndpoint>,
    endpoints_of: BTreeMap<Key, BTreeSet<EndpointId>>,
}

impl Catalog {
    /// Takes an update in.
    pub fn apply(&mut self, update: &Update) -> Changes {
        let mut changes = Changes::default();
        match update {
            Update::Pod(key, pod) => {
                put(&mut self.pods, key, pod.as_deref().map(facts::pod));
                self.rebuild(&ItemId::Pod(key.clone()), &mut changes);
            }
            Update::Namespace(key, namespace) => {
                let labels = namespace.as_deref().map(labels_of);
                if put(&mut self.namespaces, &key.name, labels) {
                    self.rebuild_namespace(&key.name, &mut changes);
                }
            }
            Update::ServiceAccount(key, account) => {
                let labels = account.as_deref().map(labels_of);
                if put(&mut self.accounts, key, labels)
                    && let Some(namespace) = &key.namespace
                {
                    self.rebuild_namespace(namespace, &mut changes);
                }
            }
            Update::KubernetesNetworkPolicy(key, policy) => {
                let id = PolicyId::new(PolicyKind::KubernetesNetworkPolicy, key.clone());
                let parsed = policy.as_deref().map(|policy| kubernetes::policy(&id, policy));
                self.put_policy(id, parsed, &mut changes);
            }
            Update::NetworkPolicy(key, policy) => {
                let id = PolicyId::new(PolicyKind::NetworkPolicy, key.clone());
                let parsed = policy.as_deref().map(|policy| calico::policy(&id, policy));
                self.put_policy(id, parsed, &mut changes);
            }
            Update::GlobalNetworkPolicy(key, policy) => {
                let id = PolicyId::new(PolicyKind::GlobalNetworkPolicy, key.clone());
                let parsed =
                    policy.as_deref().and_then(|policy| calico::global_policy(&id, policy));
                self.put_policy(id, parsed, &mut changes);
            }
            Update::Tier(key, tier) => {
                let parsed = tier.as_deref().map(calico::tier);
                changes.tiers = put(&mut self.tiers, &key.name, parsed);
            }
            Update::NetworkSet(key, set) => {
                let parsed = set.as_deref().map(|set| net_facts(set, &set.spec.nets));
                self.put_nets(ItemId::NetworkSet(key.clone()), parsed, &mut changes);
            }
            Update::GlobalNetworkSet(key, set) => {
                let parsed = set.as_deref().map(|set| net_facts(set, &set.spec.nets));
                self.put_nets(ItemId::GlobalNetworkSet(key.clone()), parsed, &mut changes);
            }
            Update::EndpointSlice(key, slice) => {
                self.put_slice(key, slice.as_deref().and_then(facts::slice), &mut changes);
            }
            Update::LocalEndpoint(id, endpoint) => {
                self.put_endpoint(id, endpoint.clone(), &mut changes);
            }
            Update::Service(..)
            | Update::IpPool(..)
            | Update::BlockAffinity(..)
            | Update::InSync => {}
        }
        changes
    }

    /// An item.
    #[must_use]
    pub fn item(&self, id: &ItemId) -> Option<&Item> {
        self.items.get(id).map(AsRef::as_ref)
    }

    /// All items.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values().map(AsRef::as_ref)
    }

    /// All items of a namespace.
    pub fn items_in(&self, namespace: &str) -> impl Iterator<Item = &Item> {
        let ids = self.by_namespace.get(namespace).into_iter().flatten();
        ids.filter_map(|id| self.item(id))
    }

    /// UID of a pod as the API has it.
    #[must_use]
    pub fn pod_uid(&self, pod: &Key) -> Option<Option<&str>> {
        self.pods.get(pod).map(|facts| facts.uid.as_deref())
    }

    /// A policy.
    #[must_use]
    pub fn policy(&self, id: &PolicyId) -> Option<&Policy> {
        self.policies.get(id).map(AsRef::as_ref)
    }

    /// All policies, by kind and key.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values().map(AsRef::as_ref)
    }

    /// Endpoints of this node.
    #[must_use]
    pub const fn endpoints(&self) -> &BTreeMap<EndpointId, LocalEndpoint> {
        &self.endpoints
    }

    /// Endpoints of a pod on this node.
    pub fn endpoints_of(&self, pod: &Key) -> impl Iterator<Item = (&EndpointId, &LocalEndpoint)> {
        let ids = self.endpoints_of.get(pod).into_iter().flatten();
        ids.filter_map(|id| self.endpoints.get_key_value(id))
    }

    /// Pods with endpoints on this node.
    pub fn local_pods(&self) -> impl Iterator<Item = &Key> {
        self.endpoints_of.keys()
    }

    /// Backends of a service, of all its slices.
    #[must_use]
    pub fn backends(&self, service: &Key) -> Vec<Backend> {
        let slices = self.slices_of.get(service).into_iter().flatten();
        let all = slices.filter_map(|slice| self.slices.get(slice)).flat_map(|(_, list)| list);
        all.copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Sorts the policies that select an endpoint into tiers: by order, then name (libcalico-go's PolicySorter).
    #[must_use]
    pub fn tiers_for(
        &self,
        selecting: impl IntoIterator<Item = PolicyId>,
        direction: Direction,
    ) -> Vec<AppliedTier> {
        let mut sorted: Vec<(Order, &str, Order, PolicyId)> = Vec::new();
        for id in selecting {
            let Some(policy) = self.policies.get(&id) else { continue };
            if policy.rules(direction).is_some() {
                let tier = self.tier(&policy.tier);
                sorted.push((tier.order, &policy.tier, policy.order, id));
            }
        }
        sorted.sort();
        let mut tiers: Vec<AppliedTier> = Vec::new();
        for (_, name, _, id) in sorted {
            match tiers.last_mut() {
                Some(tier) if tier.name == name => tier.policies.push(id),
                _ => tiers.push(AppliedTier {
                    name: name.to_owned(),
                    pass_by_default: self.tier(name).pass_by_default,
                    policies: vec![id],
                }),
            }
        }
        tiers
    }

    /// A tier; the built-in ones exist without an object, an unknown one comes last and denies.
    fn tier(&self, name: &str) -> Tier {
        if let Some(tier) = self.tiers.get(name) {
            return tier.clone();
        }
        let (order, pass_by_default) = match name {
            "kube-admin" => (Some(1_000.0), true),
            "default" => (Some(1_000_000.0), false),
            "kube-baseline" => (Some(10_000_000.0), true),
            _ => (None, false),
        };
        Tier { order: Order(order), pass_by_default }
    }

    /// What could not be understood, in order.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for policy in self.policies() {
            let kind = match policy.id.kind {
                PolicyKind::GlobalNetworkPolicy => "GlobalNetworkPolicy",
                PolicyKind::KubernetesNetworkPolicy | PolicyKind::NetworkPolicy => "NetworkPolicy",
            };
            let key = &policy.id.key;
            let mut reasons = policy.problems.clone();
            let built_in = ["kube-admin", "default", "kube-baseline"];
            if !self.tiers.contains_key(&policy.tier) && !built_in.contains(&policy.tier.as_str()) {
                reasons.push(format!(
                    "tier {}: does not exist; the policy is asked last, and the tier denies at its end",
                    policy.tier
                ));
            }
            problems.extend(reasons.into_iter().map(|reason| Problem {
                kind,
                key: key.clone(),
                reason,
            }));
        }
        for (id, facts) in &self.net_sets {
            let kind = match id {
                ItemId::GlobalNetworkSet(_) => "GlobalNetworkSet",
                ItemId::NetworkSet(_) | ItemId::Pod(_) => "NetworkSet",
            };
            problems.extend(facts.problems.iter().map(|reason| Problem {
                kind,
                key: id.key().clone(),
                reason: reason.clone(),
            }));
        }
        problems
    }

    fn put_policy(&mut self, id: PolicyId, policy: Option<Policy>, changes: &mut Changes) {
        let old = self.policies.get(&id).cloned();
        if put(&mut self.policies, &id, policy.map(Arc::new)) {
            changes.policies.push((id, old));
        }
    }

    fn put_nets(&mut self, id: ItemId, facts: Option<NetFacts>, changes: &mut Changes) {
        if put(&mut self.net_sets, &id, facts) {
            self.rebuild(&id, changes);
        }
    }

    fn put_slice(&mut self, key: &Key, slice: Option<(Key, Vec<Backend>)>, changes: &mut Changes) {
        let old_service = self.slices.get(key).map(|(service, _)| service.clone());
        let new_service = slice.as_ref().map(|(service, _)| service.clone());
        let touched: BTreeSet<Key> = old_service.iter().chain(&new_service).cloned().collect();
        let before: Vec<Vec<Backend>> =
            touched.iter().map(|service| self.backends(service)).collect();
        if let Some(service) = &old_service
            && let Some(slices) = self.slices_of.get_mut(service)
        {
            slices.remove(key);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
        if let Some(service) = new_service {
            self.slices_of.entry(service).or_default().insert(key.clone());
        }
        put(&mut self.slices, key, slice);
        for (service, old) in touched.into_iter().zip(before) {
            let new = self.backends(&service);
            if old != new {
                changes.services.push((service, old, new));
            }
        }
    }

    fn put_endpoint(
        &mut self,
        id: &EndpointId,
        endpoint: Option<LocalEndpoint>,
        changes: &mut Changes,
    ) {
        let old = self.endpoints.get(id).map(|endpoint| endpoint.pod.clone());
        let new = endpoint.as_ref().map(|endpoint| endpoint.pod.clone());
        if let Some(pod) = &old
            && let Some(ids) = self.endpoints_of.get_mut(pod)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.endpoints_of.remove(pod);
            }
        }
        if let Some(pod) = &new {
            self.endpoints_of.entry(pod.clone()).or_default().insert(id.clone());
        }
        put(&mut self.endpoints, id, endpoint);
        for pod in old.into_iter().chain(new).collect::<BTreeSet<_>>() {
            self.rebuild(&ItemId::Pod(pod), changes);
        }
    }

    fn rebuild_namespace(&mut self, namespace: &str, changes: &mut Changes) {
        let ids = self.by_namespace.get(namespace).cloned().unwrap_or_default();
        for id in ids {
            self.rebuild(&id, changes);
        }
    }

    /// Builds an item anew from what is known, and notes the change if there is one.
    fn rebuild(&mut self, id: &ItemId, changes: &mut Changes) {
        let new = match id {
            ItemId::Pod(key) => self.pod_item(key),
            ItemId::NetworkSet(_) | ItemId::GlobalNetworkSet(_) => self.net_item(id),
        };
        let new = new.map(Arc::new);
        let old = self.items.get(id).cloned();
        if old == new {
            return;
        }
        if let Some(namespace) = &id.key().namespace {
            let ids = self.by_namespace.entry(namespace.clone()).or_default();
            if new.is_some() {
                ids.insert(id.clone());
            } else {
                ids.remove(id);
            }
            if ids.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
        put(&mut self.items, id, new.clone());
        changes.items.push((old, new));
    }

    fn pod_item(&self, key: &Key) -> Option<Item> {
        let facts = self.pods.get(key).filter(|facts| !facts.host_network)?;
        let account = Key { namespace: key.namespace.clone(), name: facts.service_account.clone() };
        Some(Item {
            id: ItemId::Pod(key.clone()),
            namespace: key.namespace.clone(),
            labels: Arc::clone(&facts.labels),
            namespace_labels: self.labels_of_namespace(key),
            service_account: Some(facts.service_account.clone()),
            account_labels: self.accounts.get(&account).cloned().unwrap_or_default(),
            addresses: self.addresses(key, facts),
            nets: NetSet::default(),
            ports: facts.ports.clone(),
        })
    }

    /// The addresses of local endpoints win: they are what the pod really has.
    fn addresses(&self, key: &Key, facts: &PodFacts) -> Vec<IpAddr> {
        let ours = self.endpoints_of(key).filter(|(_, endpoint)| facts.is(endpoint));
        let local: BTreeSet<IpAddr> =
            ours.flat_map(|(_, endpoint)| endpoint.addresses.iter().copied()).collect();
        if local.is_empty() { facts.addresses.clone() } else { local.into_iter().collect() }
    }

    fn net_item(&self, id: &ItemId) -> Option<Item> {
        let facts = self.net_sets.get(id)?;
        Some(Item {
            id: id.clone(),
            namespace: id.key().namespace.clone(),
            labels: Arc::clone(&facts.labels),
            namespace_labels: self.labels_of_namespace(id.key()),
            service_account: None,
            account_labels: Labels::default(),
            addresses: Vec::new(),
            nets: facts.nets.clone(),
            ports: Vec::new(),
        })
    }

    fn labels_of_namespace(&self, key: &Key) -> Labels {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        self.namespaces.get(namespace).cloned().unwrap_or_default()
    }

    /// Whether an endpoint is of the pod that the API knows now.
    #[must_use]
    pub fn is_current(&self, endpoint: &LocalEndpoint) -> bool {
        self.pods.get(&endpoint.pod).is_some_and(|facts| facts.is(endpoint))
    }
}

/// Puts or removes a value; says whether that is a change.
fn put<K: Ord + Clone, V: PartialEq>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) -> bool {
    match value {
        Some(value) if map.get(key) == Some(&value) => false,
        Some(value) => {
            map.insert(key.clone(), value);
            true
        }
        None => map.remove(key).is_some(),
    }
}

fn labels_of(object: &impl Resource) -> Labels {
    Arc::new(object.meta().labels.clone())
}

fn net_facts(object: &impl Resource, nets: &[impl ToString]) -> NetFacts {
    let mut problems = Vec::new();
    let nets = facts::nets(nets, "nets", &mut problems);
    NetFacts { labels: labels_of(object), nets: NetSet::new(&nets), problems }
}
