//! CustomResourceDefinitions, made from the types: what `deploy/crds` holds.

pub(crate) mod rules;
mod structural;
#[cfg(test)]
mod tests;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{self as kinds, KindInfo, Scope, Spec};

/// What a kind shows and how it is called for short.
#[derive(Clone, Copy, Debug, Default)]
struct Face {
    short_names: &'static [&'static str],
    /// Name, type, JSON path.
    columns: &'static [(&'static str, &'static str, &'static str)],
    selectable: &'static [&'static str],
    /// Rules on the whole object.
    rules: &'static [rules::Rule],
}

const TIER_AND_ORDER: &[(&str, &str, &str)] =
    &[("Tier", "string", ".spec.tier"), ("Order", "number", ".spec.order")];
const BY_TIER: &[&str] = &[".spec.tier"];
const AGE: (&str, &str, &str) = ("Age", "date", ".metadata.creationTimestamp");

/// Returns the definitions of all kinds that Voile stores, ready to be applied.
#[must_use]
pub fn all() -> Vec<Value> {
    let mut all = networking();
    all.extend(ipam());
    all.extend(bgp());
    all.extend(policy());
    all.extend(cluster());
    all
}

/// Returns the definition of one kind, by its plural and group.
#[must_use]
pub fn find(plural: &str, group: &str) -> Option<Value> {
    all().into_iter().find(|crd| {
        crd.pointer("/spec/names/plural").is_some_and(|found| found == plural)
            && crd.pointer("/spec/group").is_some_and(|found| found == group)
    })
}

/// Returns every definition as a file: its name and its text.
#[must_use]
pub fn files() -> Vec<(String, String)> {
    all().iter().filter_map(file).collect()
}

fn file(crd: &Value) -> Option<(String, String)> {
    let group = crd.pointer("/spec/group")?.as_str()?;
    let plural = crd.pointer("/spec/names/plural")?.as_str()?;
    let body = serde_norway::to_string(crd).ok()?;
    let mut text =
        "# Made from the types of the crate `api`: UPDATE_EXPECT=1 cargo test -p api\n".to_owned();
    for line in body.lines() {
        text.push_str(&quote_old_booleans(line));
        text.push('\n');
    }
    Some((format!("{group}_{plural}.yaml"), text))
}

/// Our writer follows YAML 1.2, kubectl reads YAML 1.1, where `Off` is a boolean.
fn quote_old_booleans(line: &str) -> String {
    const OLD: [&str; 7] = ["On", "Off", "Yes", "No", "Y", "N", "~"];
    let word = line.rsplit(' ').next().unwrap_or_default();
    let alone = line.strip_suffix(word).map(str::trim_start).is_some_and(|before| {
        before == "- " || (before.ends_with(": ") && !before.trim_end().contains(' '))
    });
    match line.strip_suffix(word) {
        Some(before) if alone && OLD.iter().any(|old| old.eq_ignore_ascii_case(word)) => {
            format!("{before}'{word}'")
        }
        _ => line.to_owned(),
    }
}

fn networking() -> Vec<Value> {
    vec![
        definition::<kinds::IpPoolSpec>(Face {
            columns: &[
                ("CIDR", "string", ".spec.cidr"),
                ("VXLAN", "string", ".spec.vxlanMode"),
                ("IPIP", "string", ".spec.ipipMode"),
                ("NAT", "boolean", ".spec.natOutgoing"),
                ("Allocatable", "string", ".status.conditions[?(@.type=='Allocatable')].status"),
                AGE,
            ],
            ..Face::default()
        }),
        definition::<kinds::IpReservationSpec>(Face::default()),
        definition::<kinds::FelixConfigurationSpec>(Face::default()),
        definition::<kinds::HostEndpointSpec>(Face {
            short_names: &["hep", "heps"],
            columns: &[
                ("Node", "string", ".spec.node"),
                ("Interface", "string", ".spec.interfaceName"),
            ],
            ..Face::default()
        }),
    ]
}

fn ipam() -> Vec<Value> {
    vec![
        definition::<kinds::IpamConfigurationSpec>(Face {
            short_names: &["ipamconfig", "ipamconfigs"],
            columns: &[
                ("StrictAffinity", "boolean", ".spec.strictAffinity"),
                ("MaxBlocksPerHost", "integer", ".spec.maxBlocksPerHost"),
                ("AutoAllocateBlocks", "boolean", ".spec.autoAllocateBlocks"),
            ],
            ..Face::default()
        }),
        definition::<kinds::IpamBlockSpec>(Face {
            columns: &[
                ("CIDR", "string", ".spec.cidr"),
                ("Affinity", "string", ".spec.affinity"),
                ("ClaimTime", "date", ".spec.affinityClaimTime"),
            ],
            ..Face::default()
        }),
        definition::<kinds::BlockAffinitySpec>(Face {
            short_names: &["affinity", "affinities"],
            columns: &[
                ("CIDR", "string", ".spec.cidr"),
                ("Node", "string", ".spec.node"),
                ("Type", "string", ".spec.type"),
            ],
            ..Face::default()
        }),
        definition::<kinds::IpamHandleSpec>(Face {
            columns: &[("ID", "string", ".spec.handleID")],
            ..Face::default()
        }),
    ]
}

fn bgp() -> Vec<Value> {
    vec![
        definition::<kinds::BgpConfigurationSpec>(Face {
            short_names: &["bgpconfig", "bgpconfigs"],
            ..Face::default()
        }),
        definition::<kinds::BgpPeerSpec>(Face {
            columns: &[
                ("Node Selector", "string", ".spec.nodeSelector"),
                ("Node", "string", ".spec.node"),
                ("Local ASN", "integer", ".spec.localASNumber"),
                ("Peer Selector", "string", ".spec.peerSelector"),
                ("Peer IP", "string", ".spec.peerIP"),
                ("Peer ASN", "integer", ".spec.asNumber"),
            ],
            ..Face::default()
        }),
        definition::<kinds::BgpFilterSpec>(Face::default()),
        definition::<kinds::CalicoNodeStatusSpec>(Face {
            columns: &[("Node", "string", ".spec.node"), ("Classes", "string", ".spec.classes")],
            ..Face::default()
        }),
        definition::<kinds::BgpQuerySpec>(Face {
            columns: &[
                ("Node", "string", ".spec.node"),
                ("Destination", "string", ".spec.destination"),
                ("Peer", "string", ".spec.peer"),
                ("Table", "string", ".spec.table.view"),
                ("Action", "string", ".spec.action"),
                ("Answered", "date", ".status.answeredAt"),
            ],
            ..Face::default()
        }),
        definition::<kinds::NodeNetworkStateSpec>(Face {
            short_names: &["nns"],
            columns: &[
                ("Version", "string", ".status.daemon.version"),
                ("AS", "integer", ".status.bgp.localAs"),
                ("Endpoints", "integer", ".status.policy.localEndpoints"),
                ("Policies", "integer", ".status.policy.policies"),
                ("BGP Routes", "integer", ".status.routes.bgp"),
                ("Updated", "date", ".status.updatedAt"),
            ],
            ..Face::default()
        }),
    ]
}

fn policy() -> Vec<Value> {
    let tiered = |short_names| Face {
        short_names,
        columns: TIER_AND_ORDER,
        selectable: BY_TIER,
        ..Face::default()
    };
    vec![
        definition::<kinds::TierSpec>(Face {
            columns: &[
                ("Order", "number", ".spec.order"),
                ("DefaultAction", "string", ".spec.defaultAction"),
                ("Status", "string", ".status.conditions[?(@.type=='Ready')].status"),
            ],
            rules: rules::TIER,
            ..Face::default()
        }),
        definition::<kinds::NetworkPolicySpec>(tiered(&["cnp", "caliconetworkpolicy"])),
        definition::<kinds::GlobalNetworkPolicySpec>(Face {
            columns: &[("Tier", "string", ".spec.tier"), ("Order", "number", ".spec.order"), AGE],
            ..tiered(&["gnp", "cgnp"])
        }),
        definition::<kinds::StagedNetworkPolicySpec>(tiered(&["scnp", "snp"])),
        definition::<kinds::StagedGlobalNetworkPolicySpec>(tiered(&["sgnp"])),
        definition::<kinds::StagedKubernetesNetworkPolicySpec>(Face {
            short_names: &["sknp"],
            ..Face::default()
        }),
        definition::<kinds::NetworkSetSpec>(Face::default()),
        definition::<kinds::GlobalNetworkSetSpec>(Face {
            short_names: &["gns"],
            columns: &[AGE],
            ..Face::default()
        }),
    ]
}

fn cluster() -> Vec<Value> {
    vec![
        definition::<kinds::ClusterInformationSpec>(Face {
            short_names: &["clusterinfo", "clusterinfos"],
            columns: &[
                ("Version", "string", ".spec.calicoVersion"),
                ("Ready", "boolean", ".spec.datastoreReady"),
                ("Types", "string", ".spec.clusterType"),
            ],
            ..Face::default()
        }),
        definition::<kinds::KubeControllersConfigurationSpec>(Face {
            short_names: &["kcc", "kccs"],
            ..Face::default()
        }),
    ]
}

fn definition<S>(face: Face) -> Value
where
    S: Spec + JsonSchema,
    S::Status: JsonSchema + 'static,
{
    let status = (std::any::TypeId::of::<S::Status>() != std::any::TypeId::of::<crate::NoStatus>())
        .then(schema_of::<S::Status>);
    render(&S::KIND, face, schema_of::<S>(), status)
}

fn schema_of<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    structural::structural(settings.into_generator().into_root_schema_for::<T>().to_value())
}

fn render(kind: &KindInfo, face: Face, spec: Value, status: Option<Value>) -> Value {
    let empty = spec.get("properties").is_none();
    let has_status = status.is_some();
    let mut properties = json!({
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": spec,
    });
    if let (Some(status), Some(map)) = (status, properties.as_object_mut()) {
        map.insert("status".to_owned(), status);
    }
    let mut root = json!({"type": "object", "properties": properties});
    if let Some(root) = root.as_object_mut() {
        if !empty {
            root.insert("required".to_owned(), json!(["spec"]));
        }
        if !face.rules.is_empty() {
            root.insert("x-kubernetes-validations".to_owned(), json!(face.rules));
        }
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", kind.plural, kind.group),
            "labels": {"app.kubernetes.io/part-of": "voile"},
        },
        "spec": {
            "group": kind.group,
            "names": names(kind, &face),
            "scope": if kind.scope == Scope::Cluster { "Cluster" } else { "Namespaced" },
            "versions": [version(kind, &face, &root, has_status)],
        },
    })
}

fn names(kind: &KindInfo, face: &Face) -> Value {
    let mut names = json!({
        "kind": kind.kind,
        "listKind": format!("{}List", kind.kind),
        "plural": kind.plural,
        "singular": kind.kind.to_ascii_lowercase(),
    });
    if let (false, Some(map)) = (face.short_names.is_empty(), names.as_object_mut()) {
        map.insert("shortNames".to_owned(), json!(face.short_names));
    }
    names
}

fn version(kind: &KindInfo, face: &Face, root: &Value, has_status: bool) -> Value {
    let mut version = Map::new();
    version.insert("name".to_owned(), kind.version.into());
    version.insert("served".to_owned(), true.into());
    version.insert("storage".to_owned(), true.into());
    if has_status {
        version.insert("subresources".to_owned(), json!({"status": {}}));
    }
    if !face.selectable.is_empty() {
        let paths: Vec<Value> =
            face.selectable.iter().map(|path| json!({"jsonPath": path})).collect();
        version.insert("selectableFields".to_owned(), Value::Array(paths));
    }
    if !face.columns.is_empty() {
        let columns = face.columns.iter();
        let columns = columns
            .map(|(name, kind, path)| json!({"name": name, "type": kind, "jsonPath": path}))
            .collect();
        version.insert("additionalPrinterColumns".to_owned(), Value::Array(columns));
    }
    version.insert("schema".to_owned(), json!({"openAPIV3Schema": root}));
    Value::Object(version)
}
