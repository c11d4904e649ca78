//! Which policies select which pods of this node, and which sets those policies need.

use std::collections::{BTreeMap, BTreeSet};

use api::Key;

use super::{
    catalog::{AppliedTier, Catalog, Changes},
    item::ItemId,
    members::{MemberIndex, SetSpec},
    model::{Direction, Policy, PolicyId},
};
use crate::update::Update;

/// What must be looked at again.
#[derive(Debug, Default)]
pub struct Dirty {
    /// Pods of this node.
    pub pods: BTreeSet<Key>,
    /// Policies, active or not.
    pub policies: BTreeSet<PolicyId>,
}

/// Sets that came and went with the policies that use them.
#[derive(Debug, Default)]
pub struct SetChanges {
    /// Sets that are needed from now on.
    pub new: BTreeSet<SetSpec>,
    /// Sets that nobody needs any more.
    pub gone: BTreeSet<SetSpec>,
}

/// The catalog, and what of it matters here.
#[derive(Debug, Default)]
pub struct Graph {
    catalog: Catalog,
    members: MemberIndex,
    /// Local pods and the policies that select them, in either direction.
    applied: BTreeMap<Key, BTreeSet<PolicyId>>,
    pods_of: BTreeMap<PolicyId, BTreeSet<Key>>,
    by_namespace: BTreeMap<String, BTreeSet<PolicyId>>,
    anywhere: BTreeSet<PolicyId>,
    uses: BTreeMap<PolicyId, BTreeSet<SetSpec>>,
    dirty: Dirty,
}

impl Graph {
    /// Takes an update in.
    pub fn on_update(&mut self, update: &Update) {
        let changes = self.catalog.apply(update);
        self.take(&changes);
        match update {
            // A new object under the same name may be another pod (its UID differs) with equal labels.
            Update::Pod(key, _) => self.pod_changed(key),
            Update::LocalEndpoint(_, Some(endpoint)) => self.pod_changed(&endpoint.pod),
            Update::LocalEndpoint(_, None) => {
                let gone: Vec<Key> = self
                    .applied
                    .keys()
                    .filter(|pod| self.catalog.endpoints_of(pod).next().is_none())
                    .cloned()
                    .collect();
                for pod in gone {
                    self.pod_changed(&pod);
                }
            }
            _ => {}
        }
    }

    fn take(&mut self, changes: &Changes) {
        for (old, new) in &changes.items {
            self.members.item_changed(old.as_deref(), new.as_deref());
            let item = new.as_ref().or(old.as_ref());
            if let Some(item) = item.filter(|item| item.is_pod()) {
                self.pod_changed(item.id.key());
            }
        }
        for (service, old, new) in &changes.services {
            self.members.service_changed(service, old, new);
        }
        for (id, old) in &changes.policies {
            self.policy_changed(id, old.as_deref());
        }
        if changes.tiers {
            self.dirty.pods.extend(self.applied.keys().cloned());
        }
    }

    fn policy_changed(&mut self, id: &PolicyId, old: Option<&Policy>) {
        if let Some(old) = old {
            self.unlist(id, old);
        }
        if let Some(new) = self.catalog.policy(id) {
            match new.subject.only_namespace() {
                Some(namespace) => {
                    let ids = self.by_namespace.entry(namespace.to_owned()).or_default();
                    ids.insert(id.clone());
                }
                None => {
                    self.anywhere.insert(id.clone());
                }
            }
        }
        let pods: Vec<Key> = self.applied.keys().cloned().collect();
        for pod in pods {
            let selected = self.selects(id, &pod);
            self.set_applied(&pod, id, selected);
        }
        self.dirty.policies.insert(id.clone());
        self.dirty.pods.extend(self.pods_of.get(id).into_iter().flatten().cloned());
    }

    fn unlist(&mut self, id: &PolicyId, old: &Policy) {
        self.anywhere.remove(id);
        let Some(namespace) = old.subject.only_namespace() else { return };
        if let Some(ids) = self.by_namespace.get_mut(namespace) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
    }

    fn selects(&self, id: &PolicyId, pod: &Key) -> bool {
        let item = self.catalog.item(&ItemId::Pod(pod.clone()));
        let policy = self.catalog.policy(id);
        policy.zip(item).is_some_and(|(policy, item)| policy.subject.matches(item))
    }

    fn set_applied(&mut self, pod: &Key, id: &PolicyId, selected: bool) {
        let policies = self.applied.entry(pod.clone()).or_default();
        let changed = if selected { policies.insert(id.clone()) } else { policies.remove(id) };
        if !changed {
            return;
        }
        let pods = self.pods_of.entry(id.clone()).or_default();
        if selected {
            pods.insert(pod.clone());
        } else {
            pods.remove(pod);
        }
        if pods.is_empty() {
            self.pods_of.remove(id);
        }
        self.dirty.pods.insert(pod.clone());
        self.dirty.policies.insert(id.clone());
    }

    /// Finds again which policies select a pod, if it is one of this node.
    fn pod_changed(&mut self, pod: &Key) {
        let is_local = self.catalog.endpoints_of(pod).next().is_some();
        if !is_local && !self.applied.contains_key(pod) {
            return;
        }
        self.dirty.pods.insert(pod.clone());
        let namespace = pod.namespace.as_deref().unwrap_or_default();
        let nearby = self.by_namespace.get(namespace).into_iter().flatten();
        let candidates: BTreeSet<PolicyId> = nearby
            .chain(&self.anywhere)
            .filter(|id| is_local && self.selects(id, pod))
            .cloned()
            .collect();
        let before = self.applied.get(pod).cloned().unwrap_or_default();
        for id in before.difference(&candidates) {
            self.set_applied(pod, id, false);
        }
        for id in candidates.difference(&before) {
            self.set_applied(pod, id, true);
        }
        if is_local {
            self.applied.entry(pod.clone()).or_default();
        } else {
            self.applied.remove(pod);
        }
    }

    /// The objects, parsed.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The sets in use.
    #[must_use]
    pub const fn members(&self) -> &MemberIndex {
        &self.members
    }

    /// The sets in use, for taking their changes.
    pub const fn members_mut(&mut self) -> &mut MemberIndex {
        &mut self.members
    }

    /// Whether a policy selects a pod of this node.
    #[must_use]
    pub fn is_active(&self, id: &PolicyId) -> bool {
        self.pods_of.contains_key(id)
    }

    /// Policies that select pods of this node.
    pub fn active(&self) -> impl Iterator<Item = &PolicyId> {
        self.pods_of.keys()
    }

    /// Pods of this node.
    pub fn pods(&self) -> impl Iterator<Item = &Key> {
        self.applied.keys()
    }

    /// Pods of this node that a policy selects.
    pub fn pods_of(&self, id: &PolicyId) -> impl Iterator<Item = &Key> {
        self.pods_of.get(id).into_iter().flatten()
    }

    /// The tiers that apply to a pod of this node.
    #[must_use]
    pub fn tiers(&self, pod: &Key, direction: Direction) -> Vec<AppliedTier> {
        let policies = self.applied.get(pod).into_iter().flatten().cloned();
        self.catalog.tiers_for(policies, direction)
    }

    /// What must be looked at again; forgets it.
    pub fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    /// Brings the sets in use in line with policies that changed.
    pub fn settle<'a>(&mut self, policies: impl IntoIterator<Item = &'a PolicyId>) -> SetChanges {
        let mut changes = SetChanges::default();
        let mut released = Vec::new();
        for id in policies {
            let wanted: BTreeSet<SetSpec> = match self.catalog.policy(id) {
                Some(policy) if self.pods_of.contains_key(id) => {
                    policy.all_rules().flat_map(SetSpec::of_rule).collect()
                }
                _ => BTreeSet::new(),
            };
            let before = self.uses.remove(id).unwrap_or_default();
            for spec in wanted.difference(&before) {
                if self.members.acquire(spec, id, &self.catalog) {
                    changes.new.insert(spec.clone());
                }
            }
            released.extend(before.difference(&wanted).map(|spec| (spec.clone(), id.clone())));
            if !wanted.is_empty() {
                self.uses.insert(id.clone(), wanted);
            }
        }
        // Last, so that a set handed from one policy to another is not filled anew.
        for (spec, id) in released {
            if self.members.release(&spec, &id) && !changes.new.remove(&spec) {
                changes.gone.insert(spec);
            }
        }
        changes
    }
}
