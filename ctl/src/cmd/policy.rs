//! `voilectl policy`: which policies there are, whom they select, and what they do with one flow.

mod explain;
mod show;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use api::{Key, Pod, Resource, Tier};
use felix::{
    calc::model::{Order, PolicyId, PolicyKind},
    evaluate::Model,
    update::Update,
};
use store::Store;

use super::Context;

pub use explain::explain;
pub use show::show;

/// Everything that policy depends on, parsed by the engine that the daemons run.
pub(super) struct World {
    /// The engine's view.
    pub(super) model: Model,
    /// Pods as the API has them.
    pub(super) pods: BTreeMap<Key, Arc<Pod>>,
    /// Orders of tiers that exist as objects.
    tiers: BTreeMap<String, Order>,
    /// What could not be read or understood.
    pub(super) problems: Vec<String>,
}

impl World {
    /// Reads it all.
    pub(super) async fn load<S: Store>(context: &Context<S>) -> Result<Self> {
        let mut world = Self {
            model: Model::default(),
            pods: BTreeMap::new(),
            tiers: BTreeMap::new(),
            problems: Vec::new(),
        };
        world.take(context, Update::Namespace, |_| {}).await?;
        world.take(context, Update::ServiceAccount, |_| {}).await?;
        let mut pods = BTreeMap::new();
        let keep = |pod: &Arc<Pod>| drop(pods.insert(pod.key(), Arc::clone(pod)));
        world.take(context, Update::Pod, keep).await?;
        world.pods = pods;
        let mut tiers = BTreeMap::new();
        let order = |tier: &Arc<Tier>| {
            tiers.insert(tier.metadata.name.clone(), Order(tier.spec.order));
        };
        world.take(context, Update::Tier, order).await?;
        world.tiers = tiers;
        world.take(context, Update::NetworkSet, |_| {}).await?;
        world.take(context, Update::GlobalNetworkSet, |_| {}).await?;
        world.take(context, Update::EndpointSlice, |_| {}).await?;
        world.take(context, Update::KubernetesNetworkPolicy, |_| {}).await?;
        world.take(context, Update::NetworkPolicy, |_| {}).await?;
        world.take(context, Update::GlobalNetworkPolicy, |_| {}).await?;
        let understood = world.model.problems();
        world.problems.extend(understood.iter().map(ToString::to_string));
        Ok(world)
    }

    async fn take<S: Store, R: Resource>(
        &mut self,
        context: &Context<S>,
        update: fn(Key, Option<Arc<R>>) -> Update,
        mut look: impl FnMut(&Arc<R>),
    ) -> Result<()> {
        let listing = context.list::<R>().await?;
        for item in listing.items {
            let object = Arc::new(item.into_inner());
            look(&object);
            self.model.apply(update(object.key(), Some(object)));
        }
        let kind = R::KIND.kind;
        let malformed = listing.malformed.iter();
        self.problems.extend(
            malformed
                .map(|(key, why)| format!("{kind} {key}: cannot be read and does nothing: {why}")),
        );
        Ok(())
    }

    /// Policies in the order in which they are asked: tier, order, name.
    pub(super) fn policies(&self) -> Vec<&felix::calc::model::Policy> {
        let mut policies: Vec<_> = self.model.catalog().policies().collect();
        policies.sort_by_cached_key(|policy| {
            (self.tier_order(&policy.tier), policy.tier.clone(), policy.order, policy.id.clone())
        });
        policies
    }

    /// The built-in tiers exist without objects (Calico's `kube-admin`, `default`, `kube-baseline`).
    fn tier_order(&self, name: &str) -> Order {
        let built_in = match name {
            "kube-admin" => Some(1_000.0),
            "default" => Some(1_000_000.0),
            "kube-baseline" => Some(10_000_000.0),
            _ => None,
        };
        self.tiers.get(name).copied().unwrap_or(Order(built_in))
    }
}

/// The kind of a policy in words.
fn kind_name(id: &PolicyId) -> &'static str {
    match id.kind {
        PolicyKind::GlobalNetworkPolicy => "GlobalNetworkPolicy",
        PolicyKind::KubernetesNetworkPolicy => "NetworkPolicy(k8s)",
        PolicyKind::NetworkPolicy => "NetworkPolicy",
    }
}

#[cfg(test)]
mod tests;
