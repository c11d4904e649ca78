//! A pod's wishes, turned into a request.

use std::net::IpAddr;

use api::AllowedUse;

use super::watches::Watches;
use crate::{
    AssignError, AssignRequest, AutoAssign, Family,
    pool::{Asker, select},
    wishes::Wishes,
};

/// What a pod is to get.
pub(super) enum Wish {
    /// Addresses out of the pools: these, or any when there are none.
    Assign(AutoAssign, Vec<IpAddr>),
    /// Addresses that its owner manages: nothing is assigned or released.
    Given(Vec<IpAddr>),
}

pub(super) fn read(request: AssignRequest, watches: &Watches) -> Result<Wish, AssignError> {
    let wishes = Wishes::read(&request.pod_annotations, &request.namespace_annotations)?;
    if !wishes.unmanaged.is_empty() {
        return Ok(Wish::Given(wishes.unmanaged));
    }
    let mut addresses = wishes.addresses.clone();
    if addresses.is_empty() {
        addresses = request.requested;
    }
    let node_labels = watches.node_labels();
    let asker = Asker {
        node_labels: &node_labels,
        namespace_labels: Some(&request.namespace_labels),
        intended_use: AllowedUse::Workload,
    };
    let objects = watches.pools.list();
    let wants = |family| {
        let candidates = objects.iter().map(|stored| &***stored);
        wishes.wants(family, || !select(candidates, family, &[], &asker).pools.is_empty())
    };
    let mut num4 = u32::from(wants(Family::V4));
    let num6 = u32::from(wants(Family::V6));
    if num4 + num6 == 0 {
        // Let the allocator say which pools there are and why none will do.
        num4 = 1;
    }
    let auto = AutoAssign {
        handle: request.handle,
        owner: request.owner,
        num4,
        num6,
        pools4: wishes.pools4,
        pools6: wishes.pools6,
        namespace_labels: Some(request.namespace_labels),
        intended_use: AllowedUse::Workload,
    };
    Ok(Wish::Assign(auto, addresses))
}
