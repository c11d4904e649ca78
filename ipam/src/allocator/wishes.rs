//! What a pod asks for in annotations (Calico's `cni.projectcalico.org/`), turned into a request.

use std::net::IpAddr;

use api::AllowedUse;

use super::watches::Watches;
use crate::{
    AssignError, AssignRequest, AutoAssign, Family,
    pool::{Asker, select},
};

const POOLS4: &str = "cni.projectcalico.org/ipv4pools";
const POOLS6: &str = "cni.projectcalico.org/ipv6pools";
const ADDRESSES: &str = "cni.projectcalico.org/ipAddrs";
const UNMANAGED: &str = "cni.projectcalico.org/ipAddrsNoIpam";
const FLOATING: &str = "cni.projectcalico.org/floatingIPs";
const FAMILIES: &str = "cni.projectcalico.org/ipFamilies";

/// What a pod is to get.
pub(super) enum Wish {
    /// Addresses out of the pools: these, or any when there are none.
    Assign(AutoAssign, Vec<IpAddr>),
    /// Addresses that its owner manages: nothing is assigned or released.
    Given(Vec<IpAddr>),
}

pub(super) fn read(request: AssignRequest, watches: &Watches) -> Result<Wish, AssignError> {
    if request.pod_annotations.contains_key(FLOATING) {
        return Err(AssignError::Annotation {
            name: FLOATING,
            reason: "floating IPs are not supported; remove the annotation".to_owned(),
        });
    }
    let given = addresses(&request, UNMANAGED)?;
    if !given.is_empty() {
        if request.pod_annotations.contains_key(ADDRESSES) {
            return Err(AssignError::Annotation {
                name: UNMANAGED,
                reason: format!("cannot be used together with {ADDRESSES}"),
            });
        }
        return Ok(Wish::Given(given));
    }
    let pools4 = wish(&request, POOLS4)?;
    let pools6 = wish(&request, POOLS6)?;
    let mut addresses = addresses(&request, ADDRESSES)?;
    if addresses.is_empty() {
        addresses.clone_from(&request.requested);
    }
    let families = wish(&request, FAMILIES)?;
    let node_labels = watches.node_labels();
    let asker = Asker {
        node_labels: &node_labels,
        namespace_labels: Some(&request.namespace_labels),
        intended_use: AllowedUse::Workload,
    };
    let objects = watches.pools.list();
    let wanted = |family: Family, name: &str, pools: &[String]| {
        if !families.is_empty() {
            return families.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
        }
        // A family is given when there is a pool to give it from.
        let candidates = objects.iter().map(|stored| &***stored);
        !pools.is_empty() || !select(candidates, family, &[], &asker).pools.is_empty()
    };
    let mut num4 = u32::from(wanted(Family::V4, "IPv4", &pools4));
    let num6 = u32::from(wanted(Family::V6, "IPv6", &pools6));
    if num4 + num6 == 0 {
        // Let the allocator say which pools there are and why none will do.
        num4 = 1;
    }
    let auto = AutoAssign {
        handle: request.handle,
        owner: request.owner,
        num4,
        num6,
        pools4,
        pools6,
        namespace_labels: Some(request.namespace_labels),
        intended_use: AllowedUse::Workload,
    };
    Ok(Wish::Assign(auto, addresses))
}

fn addresses(request: &AssignRequest, name: &'static str) -> Result<Vec<IpAddr>, AssignError> {
    let refused = |text: &str| AssignError::Annotation {
        name,
        reason: format!("{text:?} is not an address"),
    };
    let texts = wish(request, name)?;
    texts.iter().map(|text| text.parse().map_err(|_| refused(text))).collect()
}

/// Reads an annotation that is a JSON list of strings; the pod's wins over the namespace's.
fn wish(request: &AssignRequest, name: &'static str) -> Result<Vec<String>, AssignError> {
    let text = request
        .pod_annotations
        .get(name)
        .or_else(|| request.namespace_annotations.get(name).filter(|_| name.ends_with("pools")));
    let Some(text) = text else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|error| AssignError::Annotation {
        name,
        reason: format!("{text:?} is not a JSON list of strings: {error}"),
    })
}
