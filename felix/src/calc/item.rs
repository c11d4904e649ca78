//! What selectors select: pods and network sets, with the labels of the namespace and service account they inherit.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use api::Key;

use super::ranges::NetSet;

/// Labels, shared between the items that inherit them.
pub type Labels = Arc<BTreeMap<String, String>>;

/// Which item.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ItemId {
    /// A pod that is an endpoint (not on the host's network).
    Pod(Key),
    /// A NetworkSet.
    NetworkSet(Key),
    /// A GlobalNetworkSet.
    GlobalNetworkSet(Key),
}

impl ItemId {
    /// Key of the object.
    #[must_use]
    pub const fn key(&self) -> &Key {
        match self {
            Self::Pod(key) | Self::NetworkSet(key) | Self::GlobalNetworkSet(key) => key,
        }
    }
}

/// A port that a pod gave a name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct NamedPort {
    /// Name.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Number.
    pub port: u16,
}

/// Something that selectors select.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Which object.
    pub id: ItemId,
    /// Namespace, if it has one.
    pub namespace: Option<String>,
    /// Own labels.
    pub labels: Labels,
    /// Labels of the namespace.
    pub namespace_labels: Labels,
    /// Name of the service account, for pods.
    pub service_account: Option<String>,
    /// Labels of the service account.
    pub account_labels: Labels,
    /// Addresses a pod holds now.
    pub addresses: Vec<IpAddr>,
    /// Prefixes of a network set.
    pub nets: NetSet,
    /// Named ports of a pod.
    pub ports: Vec<NamedPort>,
}

impl Item {
    /// Whether this is a pod.
    #[must_use]
    pub const fn is_pod(&self) -> bool {
        matches!(self.id, ItemId::Pod(_))
    }

    /// A label as endpoint selectors see it: own labels, the ones Calico adds, and inherited ones by prefix
    /// (libcalico-go/lib/backend/k8s/conversion).
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        if let Some(inherited) = key.strip_prefix("pcns.") {
            return self.namespace_label(inherited);
        }
        if let Some(inherited) = key.strip_prefix("pcsa.") {
            return self.account_label(inherited);
        }
        match key {
            "projectcalico.org/namespace" => self.namespace.as_deref(),
            "projectcalico.org/orchestrator" if self.is_pod() => Some("k8s"),
            "projectcalico.org/serviceaccount" if self.is_pod() => self.service_account.as_deref(),
            own => self.labels.get(own).map(String::as_str),
        }
    }

    /// A label of the namespace; its name is always there, also before the Namespace itself is known.
    #[must_use]
    pub fn namespace_label(&self, key: &str) -> Option<&str> {
        match key {
            "projectcalico.org/name" | "kubernetes.io/metadata.name" => self.namespace.as_deref(),
            other => self.namespace_labels.get(other).map(String::as_str),
        }
    }

    /// A label of the service account.
    #[must_use]
    pub fn account_label(&self, key: &str) -> Option<&str> {
        match key {
            "projectcalico.org/name" => self.service_account.as_deref(),
            other => self.account_labels.get(other).map(String::as_str),
        }
    }

    /// Whether an address is the item's.
    #[must_use]
    pub fn owns(&self, addr: IpAddr) -> bool {
        self.addresses.contains(&addr) || self.nets.contains(addr)
    }

    /// Whether a pod has a port of this name, protocol and number.
    #[must_use]
    pub fn has_port(&self, name: &str, protocol: u8, port: u16) -> bool {
        self.ports
            .iter()
            .any(|own| own.name == name && own.protocol == protocol && own.port == port)
    }
}
