//! Whether an object makes sense: what `voilectl validate`, the lab's API server and the daemon say before using it.
//!
//! First the schema of the kind (types, enums, bounds, required fields), then what a schema can't say: selectors,
//! prefixes, ports, fields that exclude each other. Every finding names the field and what to write instead.

mod addresses;
mod bgp;
mod kubernetes;
mod policy;
mod schema;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

use crate::{self as kinds, Object, Selector, Spec, net};

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Path, such as `spec.ingress[0].source.selector`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
    /// What is there.
    pub value: Value,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Checks an object of any kind that Voile knows; kinds it does not know have no findings.
///
/// `NetworkPolicy` means the kind of `networking.k8s.io` when the object's `apiVersion` says so, else Calico's.
#[must_use]
pub fn check(kind: &str, object: &Value) -> Vec<FieldError> {
    let mut found = Findings::default();
    name(object, &mut found);
    let group = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if kind == "NetworkPolicy" && group.starts_with("networking.k8s.io/") {
        typed::<kinds::KubernetesNetworkPolicySpec>(object, &mut found, kubernetes::policy);
    } else if schema::check(kind, object, &mut found) {
        // Only what has the right shape is looked at more closely.
        meaning(kind, object, &mut found);
    }
    found.0
}

/// Checks an object against the others of its kind, such as a pool against the pools there are.
#[must_use]
pub fn check_among<'a>(
    kind: &str,
    object: &Value,
    others: impl Iterator<Item = &'a Value>,
) -> Vec<FieldError> {
    let mut found = Findings::default();
    if kind == "IPPool" {
        addresses::pool_among(object, others, &mut found);
    }
    found.0
}

fn meaning(kind: &str, object: &Value, found: &mut Findings) {
    match kind {
        "IPPool" => typed::<kinds::IpPoolSpec>(object, found, addresses::pool),
        "IPReservation" => typed::<kinds::IpReservationSpec>(object, found, addresses::reservation),
        "IPAMConfiguration" => {
            typed::<kinds::IpamConfigurationSpec>(object, found, addresses::configuration)
        }
        "IPAMBlock" => typed::<kinds::IpamBlockSpec>(object, found, addresses::block),
        "BlockAffinity" => typed::<kinds::BlockAffinitySpec>(object, found, addresses::affinity),
        "IPAMHandle" => typed::<kinds::IpamHandleSpec>(object, found, addresses::handle),
        "BGPConfiguration" => {
            typed::<kinds::BgpConfigurationSpec>(object, found, bgp::configuration)
        }
        "BGPPeer" => typed::<kinds::BgpPeerSpec>(object, found, bgp::peer),
        "BGPFilter" => typed::<kinds::BgpFilterSpec>(object, found, bgp::filter),
        "FelixConfiguration" => {
            typed::<kinds::FelixConfigurationSpec>(object, found, addresses::felix)
        }
        "Tier" => tier(object, found),
        "NetworkPolicy" => typed::<kinds::NetworkPolicySpec>(object, found, policy::namespaced),
        "GlobalNetworkPolicy" => {
            typed::<kinds::GlobalNetworkPolicySpec>(object, found, policy::global)
        }
        "StagedNetworkPolicy" => {
            typed::<kinds::StagedNetworkPolicySpec>(object, found, |spec, found| {
                policy::namespaced(&spec.policy, found);
            });
        }
        "StagedGlobalNetworkPolicy" => {
            typed::<kinds::StagedGlobalNetworkPolicySpec>(object, found, |spec, found| {
                policy::global(&spec.policy, found);
            });
        }
        "StagedKubernetesNetworkPolicy" => {
            typed::<kinds::StagedKubernetesNetworkPolicySpec>(object, found, |spec, found| {
                kubernetes::policy(&spec.policy, found);
            });
        }
        "NetworkSet" => typed::<kinds::NetworkSetSpec>(object, found, |spec, found| {
            found.nets("spec.nets", &spec.nets);
        }),
        "GlobalNetworkSet" => typed::<kinds::GlobalNetworkSetSpec>(object, found, |spec, found| {
            found.nets("spec.nets", &spec.nets);
        }),
        "HostEndpoint" => typed::<kinds::HostEndpointSpec>(object, found, addresses::host_endpoint),
        _ => {}
    }
}

fn tier(object: &Value, found: &mut Findings) {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    typed::<kinds::TierSpec>(object, found, |spec, found| policy::tier(name, spec, found));
}

/// Decodes the spec and looks at it; a spec that can't be decoded is itself the finding.
fn typed<S: Spec>(object: &Value, found: &mut Findings, look: impl FnOnce(&S, &mut Findings)) {
    match serde_json::from_value::<Object<S>>(object.clone()) {
        Ok(object) => look(&object.spec, found),
        Err(error) => found.add("spec", format!("can't be read: {error}"), Value::Null),
    }
}

/// Object names are DNS subdomains of at most 253 characters (Kubernetes `validation.NameIsDNSSubdomain`).
fn name(object: &Value, found: &mut Findings) {
    let Some(name) = object.pointer("/metadata/name").and_then(Value::as_str) else {
        if object.pointer("/metadata/generateName").is_none() {
            found.add("metadata.name", "is missing: give the object a name", Value::Null);
        }
        return;
    };
    if name.len() > 253 {
        found.add("metadata.name", "is longer than 253 characters: shorten it", name);
    }
    let label_ok = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        label.bytes().all(|byte| plain(byte) || byte == b'-')
            && label.bytes().next().is_some_and(plain)
            && label.bytes().next_back().is_some_and(plain)
    };
    if !name.split('.').all(label_ok) {
        let message = "must be lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit";
        found.add("metadata.name", message, name);
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<FieldError>);

impl Findings {
    fn add(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        value: impl Into<Value>,
    ) {
        self.0.push(FieldError {
            field: field.into(),
            message: message.into(),
            value: value.into(),
        });
    }

    /// A selector, where present.
    fn selector(&mut self, field: &str, text: Option<&str>) -> Option<Selector> {
        let text = text?;
        match Selector::parse(text) {
            Ok(selector) => Some(selector),
            Err(error) => {
                self.add(field, error.to_string(), text);
                None
            }
        }
    }

    /// A selector in which `global()` means nothing.
    fn plain_selector(&mut self, field: &str, text: Option<&str>) {
        if let (Some(selector), Some(text)) = (self.selector(field, text), text)
            && mentions_global(selector.expression())
        {
            let message = "global() is for the namespaceSelector of a rule only: remove it";
            self.add(field, message, text);
        }
    }

    /// Prefixes or single addresses.
    fn nets(&mut self, field: &str, nets: &[String]) {
        for (index, text) in nets.iter().enumerate() {
            if let Err(error) = net::parse_net(text) {
                self.add(format!("{field}[{index}]"), error.to_string(), text.as_str());
            }
        }
    }

    /// A prefix without host bits.
    fn cidr(&mut self, field: &str, text: &str) -> Option<ipnet::IpNet> {
        match net::parse_cidr(text) {
            Ok(cidr) => Some(cidr),
            Err(error) => {
                self.add(field, error.to_string(), text);
                None
            }
        }
    }

    /// A duration in Go's notation, where present.
    fn duration(&mut self, field: &str, text: Option<&str>) {
        if let Some(text) = text
            && net::parse_duration(text).is_none()
        {
            self.add(field, "is no duration: write for instance 90s, 2m or 1h30m", text);
        }
    }
}

fn mentions_global(expression: &crate::selector::Expression) -> bool {
    use crate::selector::Expression::{And, Global, Not, Or};
    match expression {
        Global => true,
        Not(inner) => mentions_global(inner),
        And(parts) | Or(parts) => parts.iter().any(mentions_global),
        _ => false,
    }
}
