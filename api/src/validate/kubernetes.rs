//! Kubernetes' own network policy, as `k8s.io/kubernetes/pkg/apis/networking/validation` has it.

use super::Findings;
use crate::{
    KubernetesNetworkPolicySpec, LabelSelector, NetworkPolicyPeer, NetworkPolicyPort, Selector, net,
};

pub(super) fn policy(spec: &KubernetesNetworkPolicySpec, found: &mut Findings) {
    label_selector("spec.podSelector", &spec.pod_selector, found);
    for (index, kind) in spec.policy_types.iter().enumerate() {
        if !matches!(kind.as_str(), "Ingress" | "Egress") {
            let field = format!("spec.policyTypes[{index}]");
            found.add(field, "must be one of Ingress, Egress", kind.as_str());
        }
    }
    for (index, rule) in spec.ingress.iter().enumerate() {
        let at = format!("spec.ingress[{index}]");
        parts(&at, &rule.ports, ("from", &rule.from), found);
    }
    for (index, rule) in spec.egress.iter().enumerate() {
        let at = format!("spec.egress[{index}]");
        parts(&at, &rule.ports, ("to", &rule.to), found);
    }
}

fn parts(
    at: &str,
    ports: &[NetworkPolicyPort],
    (name, peers): (&str, &[NetworkPolicyPeer]),
    found: &mut Findings,
) {
    for (index, entry) in ports.iter().enumerate() {
        port(&format!("{at}.ports[{index}]"), entry, found);
    }
    for (index, entry) in peers.iter().enumerate() {
        peer(&format!("{at}.{name}[{index}]"), entry, found);
    }
}

fn port(at: &str, entry: &NetworkPolicyPort, found: &mut Findings) {
    if let Some(protocol) = entry.protocol.as_deref()
        && !matches!(protocol, "TCP" | "UDP" | "SCTP")
    {
        found.add(format!("{at}.protocol"), "must be one of TCP, UDP, SCTP", protocol);
    }
    let first = entry.port.as_ref().and_then(crate::IntOrString::as_port);
    if let Some(given) = &entry.port
        && first.is_none()
        && given.as_name().is_none()
    {
        let message = "must be a port from 1 to 65535 or the name of a container port";
        found.add(format!("{at}.port"), message, given.to_string());
    }
    if let Some(end) = entry.end_port {
        let fits = u16::try_from(end).is_ok_and(|end| first.is_some_and(|first| first <= end));
        if !fits {
            let message = "must be at least port, which must then be a number, and at most 65535";
            found.add(format!("{at}.endPort"), message, end);
        }
    }
}

fn peer(at: &str, entry: &NetworkPolicyPeer, found: &mut Findings) {
    if let Some(selector) = &entry.pod_selector {
        label_selector(&format!("{at}.podSelector"), selector, found);
    }
    if let Some(selector) = &entry.namespace_selector {
        label_selector(&format!("{at}.namespaceSelector"), selector, found);
    }
    let selects = entry.pod_selector.is_some() || entry.namespace_selector.is_some();
    let Some(block) = &entry.ip_block else {
        if !selects {
            found.add(at, "must have podSelector, namespaceSelector or ipBlock", "");
        }
        return;
    };
    if selects {
        let message = "excludes podSelector and namespaceSelector: make another peer";
        found.add(format!("{at}.ipBlock"), message, block.cidr.as_str());
    }
    let whole = match block.cidr.parse::<ipnet::IpNet>() {
        Ok(whole) => whole.trunc(),
        Err(_) => {
            let message = net::CidrError::Syntax(block.cidr.clone()).to_string();
            found.add(format!("{at}.ipBlock.cidr"), message, block.cidr.as_str());
            return;
        }
    };
    for (index, text) in block.except.iter().enumerate() {
        let field = format!("{at}.ipBlock.except[{index}]");
        match text.parse::<ipnet::IpNet>() {
            Ok(hole) if whole.contains(&hole) && hole.prefix_len() > whole.prefix_len() => {}
            Ok(_) => found.add(field, format!("must lie inside {whole}"), text.as_str()),
            Err(_) => {
                let message = net::CidrError::Syntax(text.clone()).to_string();
                found.add(field, message, text.as_str());
            }
        }
    }
}

fn label_selector(field: &str, selector: &LabelSelector, found: &mut Findings) {
    for (key, value) in &selector.match_labels {
        if !is_label_key(key) {
            let message = "must be a label's name: letters, digits, `-`, `_` and `.`, at most 63, after `PREFIX/` if any";
            found.add(format!("{field}.matchLabels"), message, key.as_str());
        }
        if !is_label_value(value) {
            let message = "must be a label's value: letters, digits, `-`, `_` and `.`, at most 63";
            found.add(format!("{field}.matchLabels.{key}"), message, value.as_str());
        }
    }
    if let Err(error) = Selector::from_label_selector(selector) {
        found.add(format!("{field}.matchExpressions"), error.message, "");
    }
}

/// Kubernetes `content.IsLabelKey`.
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("x", key));
    let domain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    domain && !prefix.is_empty() && !name.is_empty() && is_label_value(name)
}

/// Kubernetes `content.IsLabelValue`.
fn is_label_value(value: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    value.len() <= 63
        && edge(value.bytes().next())
        && edge(value.bytes().next_back())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
