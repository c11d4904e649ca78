//! Addresses of services of type LoadBalancer, where they come from pools for them (`allowedUses: [LoadBalancer]`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{AllowedUse, IpPool, IpamBlock, Service};
use ipnet::IpNet;

use super::{Finding, State};
use crate::block;

/// Returns which services say that they have an address of a load balancer, whoever gave it to them.
pub(super) fn of_services(services: &[Service]) -> BTreeMap<IpAddr, Vec<String>> {
    let mut users: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    let balanced =
        services.iter().filter(|one| one.spec.service_type.as_deref() == Some("LoadBalancer"));
    for service in balanced {
        let ingress = service.status.iter().flat_map(|status| &status.load_balancer.ingress);
        for address in ingress.filter_map(|one| one.ip.as_deref()?.parse().ok()) {
            users.entry(address).or_default().push(name(service));
        }
    }
    users
}

fn name(service: &Service) -> String {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", service.metadata.name)
}

fn is_for_services(pool: &IpPool) -> bool {
    pool.spec.allowed_uses.contains(&AllowedUse::LoadBalancer)
}

pub(super) fn check(
    state: &State<'_>,
    blocks: &[(IpNet, &IpamBlock)],
    findings: &mut Vec<Finding>,
) {
    let users = of_services(state.services);
    let services: BTreeSet<String> = state.services.iter().map(name).collect();
    let mut allocated = BTreeSet::new();
    for (_, block) in blocks {
        for (address, owner) in block::assigned(&block.spec) {
            allocated.insert(address);
            let get = |key: &str| owner.secondary.get(key);
            let (Some(namespace), Some(service)) = (get("namespace"), get("service")) else {
                continue;
            };
            let service = format!("{namespace}/{service}");
            // Its status may be on its way: only a service that is gone, or has other addresses, leaks.
            let has_others = users.values().any(|users| users.contains(&service));
            let has_this = users.get(&address).is_some_and(|users| users.contains(&service));
            if !services.contains(&service) || (has_others && !has_this) {
                findings.push(Finding::Leaked { address, owner: format!("service {service}") });
            }
        }
    }
    let pools: Vec<(IpNet, bool)> = state
        .pools
        .iter()
        .filter(|pool| is_for_services(pool))
        .filter_map(|pool| Some((pool.spec.cidr.parse().ok()?, !pool.spec.disabled)))
        .collect();
    for (address, users) in users {
        let inside = pools.iter().filter(|(cidr, _)| cidr.contains(&address));
        let enabled: Vec<bool> = inside.map(|(_, enabled)| *enabled).collect();
        let user = format!("service {}", users.first().cloned().unwrap_or_default());
        if !enabled.is_empty() && !allocated.contains(&address) {
            findings.push(Finding::NotAllocated { address, pod: user.clone() });
        }
        if !enabled.is_empty() && !enabled.contains(&true) {
            findings.push(Finding::UsedOutsidePools { address, pod: user });
        }
        if !enabled.is_empty() && users.len() > 1 {
            findings.push(Finding::SharedService { address, services: users });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Owner, UnixNanos};

    #[test]
    fn services_and_blocks_must_agree() {
        let service = |name: &str, ips: &[&str]| -> Service {
            let ingress: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            let object = json!({
                "metadata": {"namespace": "ns", "name": name}, "spec": {"type": "LoadBalancer"},
                "status": {"loadBalancer": {"ingress": ingress}},
            });
            serde_json::from_value(object).unwrap()
        };
        let mut one = block::empty(
            &"10.0.0.0/28".parse().unwrap(),
            Some("virtual:load-balancer"),
            UnixNanos(1),
        );
        for name in ["fits", "starts", "gone", "moved"] {
            let owner = Owner::default().with("namespace", "ns").with("service", name);
            let owner = owner.with("type", "LoadBalancer").attribute(name, UnixNanos(1));
            block::take_any(&mut one.spec, &owner, |_| false).unwrap();
        }
        let pool = |name: &str, cidr: &str, allowed_uses: Vec<AllowedUse>, disabled| {
            let spec = api::IpPoolSpec {
                cidr: cidr.to_owned(),
                allowed_uses,
                disabled,
                ..Default::default()
            };
            IpPool::new(name, spec)
        };
        let state = State {
            blocks: &[one],
            pools: &[
                pool("services", "10.0.0.0/24", vec![AllowedUse::LoadBalancer], false),
                pool("closed", "10.0.9.0/24", vec![AllowedUse::LoadBalancer], true),
                pool("pods", "10.0.1.0/24", vec![AllowedUse::Workload], false),
            ],
            services: &[
                service("fits", &["10.0.0.0"]),
                service("starts", &[]),
                service("moved", &["10.0.0.9"]),
                service("elsewhere", &["192.0.2.1", "10.0.1.1"]),
                service("twin", &["10.0.0.0"]),
                service("closed", &["10.0.9.1"]),
            ],
            ..State::default()
        };
        let mut findings = Vec::new();
        let blocks = [("10.0.0.0/28".parse().unwrap(), &state.blocks[0])];
        check(&state, &blocks, &mut findings);
        let text: String = findings.iter().map(|one| format!("{one}\n")).collect();
        expect_test::expect![[r#"
            10.0.0.2 is allocated to service ns/gone, which does not use it
            10.0.0.3 is allocated to service ns/moved, which does not use it
            10.0.0.0 is used by several services: ns/fits, ns/twin
            10.0.0.9 is used by service ns/moved and not allocated
            10.0.9.1 is used by service ns/closed and not allocated
            10.0.9.1 is used by service ns/closed and in no enabled pool
        "#]]
        .assert_eq(&text);
    }
}
