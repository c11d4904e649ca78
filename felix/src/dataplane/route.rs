//! Routes of this node: to each pod by its interface, and nowhere for the rest of the node's blocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use api::{BlockAffinity, Key};
use ipnet::IpNet;

use crate::{
    calc,
    update::{EndpointId, LocalEndpoint},
};

/// A route that the kernel must have.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Route {
    /// Where to.
    pub prefix: IpNet,
    /// By what.
    pub target: Target,
}

/// Where a route leads.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Target {
    /// Directly out of an interface.
    Device(String),
    /// Nowhere: addresses of a local block that no pod has must not follow the default route and loop.
    Blackhole,
}

/// What changed since the last flush.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RouteChanges {
    /// Wanted from now on.
    pub added: Vec<Route>,
    /// Not wanted any more.
    pub removed: Vec<Route>,
}

/// The routes of this node.
#[derive(Debug, Default)]
pub(super) struct Routes {
    blocks: BTreeMap<Key, IpNet>,
    wanted: BTreeSet<Route>,
    dirty: bool,
}

impl Routes {
    pub(super) const fn endpoints_changed(&mut self) {
        self.dirty = true;
    }

    /// Only confirmed affinities count: a pending block may still be lost to another node.
    pub(super) fn put_block(&mut self, key: &Key, affinity: Option<&BlockAffinity>, node: &str) {
        let ours = affinity.filter(|one| calc::is_confirmed(one, node));
        let cidr = ours.and_then(calc::block_cidr);
        let wide = cidr.filter(|cidr| cidr.prefix_len() < cidr.max_prefix_len());
        match wide {
            Some(cidr) => self.blocks.insert(key.clone(), cidr),
            None => self.blocks.remove(key),
        };
        self.dirty = true;
    }

    pub(super) const fn wanted(&self) -> &BTreeSet<Route> {
        &self.wanted
    }

    pub(super) fn flush(
        &mut self,
        endpoints: &BTreeMap<EndpointId, LocalEndpoint>,
    ) -> RouteChanges {
        if !std::mem::take(&mut self.dirty) {
            return RouteChanges::default();
        }
        // By prefix first: two endpoints can hold one address while a pod is replaced; the last by name gets it.
        let mut by_prefix: BTreeMap<IpNet, Target> =
            self.blocks.values().map(|cidr| (*cidr, Target::Blackhole)).collect();
        for endpoint in endpoints.values() {
            for addr in &endpoint.addresses {
                by_prefix.insert(host(*addr), Target::Device(endpoint.host_interface.clone()));
            }
        }
        let now: BTreeSet<Route> =
            by_prefix.into_iter().map(|(prefix, target)| Route { prefix, target }).collect();
        let changes = RouteChanges {
            added: now.difference(&self.wanted).cloned().collect(),
            removed: self.wanted.difference(&now).cloned().collect(),
        };
        self.wanted = now;
        changes
    }
}

fn host(addr: IpAddr) -> IpNet {
    addr.into()
}
