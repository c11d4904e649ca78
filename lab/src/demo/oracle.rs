//! What Kubernetes says about who may talk to whom, computed the slow and obvious way from the objects: what the
//! matrix has to look like. Deliberately not the policy engine: it is the one being checked.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

type Labels = BTreeMap<String, String>;

/// A pod as policies see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Subject {
    /// Namespace.
    pub(super) namespace: String,
    /// Labels.
    pub(super) labels: Labels,
    /// Labels of its namespace.
    pub(super) namespace_labels: Labels,
}

/// A TCP connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    /// Who connects.
    pub(super) from: &'a Subject,
    /// Its address.
    pub(super) source: IpAddr,
    /// To whom.
    pub(super) to: &'a Subject,
    /// Its address.
    pub(super) destination: IpAddr,
    /// Port.
    pub(super) port: u16,
}

/// Says whether the policies let a connection through.
#[must_use]
pub(super) fn allowed(policies: &[NetworkPolicy], attempt: Attempt<'_>) -> bool {
    let egress = directed(policies, attempt.from, "Egress");
    let ingress = directed(policies, attempt.to, "Ingress");
    // A pod that no policy selects for a direction is open in that direction; otherwise one permission is enough.
    let out = egress.is_empty()
        || egress.iter().any(|(namespace, spec)| {
            spec.egress.iter().flatten().any(|rule| {
                ports(rule.ports.as_deref(), attempt.port)
                    && peers(rule.to.as_deref(), attempt.to, attempt.destination, namespace)
            })
        });
    let into = ingress.is_empty()
        || ingress.iter().any(|(namespace, spec)| {
            spec.ingress.iter().flatten().any(|rule| {
                ports(rule.ports.as_deref(), attempt.port)
                    && peers(rule.from.as_deref(), attempt.from, attempt.source, namespace)
            })
        });
    out && into
}

/// Policies that select a pod for a direction, with their namespaces.
fn directed<'a>(
    policies: &'a [NetworkPolicy],
    subject: &Subject,
    direction: &str,
) -> Vec<(&'a str, &'a NetworkPolicySpec)> {
    policies
        .iter()
        .filter_map(|policy| Some((policy.metadata.namespace.as_deref()?, policy.spec.as_ref()?)))
        .filter(|(namespace, spec)| {
            let selector = spec.pod_selector.clone().unwrap_or_default();
            *namespace == subject.namespace && selects(&selector, &subject.labels)
        })
        .filter(|(_, spec)| match &spec.policy_types {
            Some(types) if !types.is_empty() => types.iter().any(|kind| kind == direction),
            // Without policyTypes: Ingress always, Egress if there are egress rules.
            _ => {
                direction == "Ingress"
                    || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())
            }
        })
        .collect()
}

fn peers(
    peers: Option<&[NetworkPolicyPeer]>,
    subject: &Subject,
    address: IpAddr,
    namespace: &str,
) -> bool {
    match peers {
        None | Some([]) => true,
        Some(peers) => peers.iter().any(|peer| match &peer.ip_block {
            Some(block) => inside(block, address),
            None => {
                let space = match &peer.namespace_selector {
                    Some(selector) => selects(selector, &subject.namespace_labels),
                    None => subject.namespace == namespace,
                };
                space
                    && peer
                        .pod_selector
                        .as_ref()
                        .is_none_or(|selector| selects(selector, &subject.labels))
            }
        }),
    }
}

fn inside(block: &IPBlock, address: IpAddr) -> bool {
    let contains = |text: &String| text.parse::<IpNet>().is_ok_and(|net| net.contains(&address));
    contains(&block.cidr) && !block.except.iter().flatten().any(contains)
}

fn ports(ports: Option<&[NetworkPolicyPort]>, port: u16) -> bool {
    let port = i32::from(port);
    match ports {
        None | Some([]) => true,
        Some(ports) => ports.iter().any(|candidate| {
            let tcp = candidate.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
            tcp && match (&candidate.port, candidate.end_port) {
                (None, _) => true,
                (Some(IntOrString::Int(first)), None) => *first == port,
                (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&port),
                // Named ports need the pod's containers; the demonstration has none.
                (Some(IntOrString::String(_)), _) => false,
            }
        }),
    }
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal =
        selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let value = labels.get(&expression.key);
            let listed =
                value.is_some_and(|value| expression.values.iter().flatten().any(|v| v == value));
            match expression.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> NetworkPolicy {
        serde_norway::from_str(text).unwrap()
    }

    fn subject(namespace: &str, app: &str) -> Subject {
        let labels = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        Subject {
            namespace: namespace.into(),
            labels: labels("app", app),
            namespace_labels: labels("kubernetes.io/metadata.name", namespace),
        }
    }

    fn may(
        policies: &[NetworkPolicy],
        from: &Subject,
        to: &Subject,
        destination: &str,
        port: u16,
    ) -> bool {
        let destination: IpAddr = destination.parse().unwrap();
        let source =
            if destination.is_ipv4() { "10.244.9.9" } else { "fd00:10:244::9" }.parse().unwrap();
        allowed(policies, Attempt { from, source, to, destination, port })
    }

    #[test]
    fn the_seed_policies() {
        let (backend, other) = (subject("shop", "backend"), subject("shop", "frontend"));
        let (database, stranger) = (subject("shop", "database"), subject("ops", "backend"));
        let deny =
            policy("metadata: {namespace: shop}\nspec: {podSelector: {}, policyTypes: [Ingress]}");
        let db = policy(
            "metadata: {namespace: shop}\nspec:\n  podSelector: {matchLabels: {app: database}}\n  policyTypes: [Ingress]\n  \
             ingress: [{from: [{podSelector: {matchLabels: {app: backend}}}], ports: [{protocol: TCP, port: 5432}]}]",
        );
        let egress = policy(
            "metadata: {namespace: ops}\nspec:\n  podSelector: {}\n  policyTypes: [Egress]\n  \
             egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{protocol: TCP, port: 443}]}]",
        );
        assert!(may(&[], &other, &database, "10.244.0.1", 5432));
        assert!(!may(std::slice::from_ref(&deny), &other, &database, "10.244.0.1", 5432));
        let both = [deny, db];
        assert!(may(&both, &backend, &database, "10.244.0.1", 5432));
        assert!(may(&both, &backend, &database, "fd00:10:244::1", 5432));
        assert!(!may(&both, &backend, &database, "10.244.0.1", 8080));
        assert!(!may(&both, &other, &database, "10.244.0.1", 5432));
        // Same label, other namespace.
        assert!(!may(&both, &stranger, &database, "10.244.0.1", 5432));
        let web = subject("ops", "web");
        let egress = [egress];
        assert!(may(&egress, &web, &stranger, "10.244.0.1", 443));
        assert!(!may(&egress, &web, &stranger, "10.244.0.1", 80));
        assert!(!may(&egress, &web, &stranger, "fd00:10:244::1", 443));
        assert!(may(&egress, &backend, &stranger, "10.244.0.1", 80));
    }
}
