//! What is asked of the allocator, and how it says no.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use api::{AllocationAttribute, AllowedUse};
use store::StoreError;

use crate::{Machine, clock::UnixNanos};

/// An address family.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Returns the family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Who an address is for: what garbage collectors decide by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owner(BTreeMap<String, String>);

impl Owner {
    /// A pod on a node.
    #[must_use]
    pub fn pod(node: &str, namespace: &str, pod: &str) -> Self {
        Self::default().with("node", node).with("namespace", namespace).with("pod", pod)
    }

    /// A tunnel device of a node; `kind` such as `vxlanTunnelAddress`.
    #[must_use]
    pub fn tunnel(node: &str, kind: &str) -> Self {
        Self::default().with("node", node).with("type", kind)
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.0.insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn attribute(&self, handle: &str, now: UnixNanos) -> AllocationAttribute {
        let mut secondary = self.0.clone();
        secondary.entry("timestamp".to_owned()).or_insert_with(|| now.go_string());
        AllocationAttribute {
            handle_id: Some(handle.to_owned()),
            secondary,
            ..AllocationAttribute::default()
        }
    }
}

/// A request for addresses of one owner.
#[derive(Clone, Debug, Default)]
pub struct AutoAssign {
    /// By which they are released.
    pub handle: String,
    /// Who has them.
    pub owner: Owner,
    /// How many IPv4 addresses.
    pub num4: u32,
    /// How many IPv6 addresses.
    pub num6: u32,
    /// IPv4 pools by name or CIDR; empty means those meant for everybody.
    pub pools4: Vec<String>,
    /// The same for IPv6.
    pub pools6: Vec<String>,
    /// Labels of the pod's namespace, where there is one.
    pub namespace_labels: Option<BTreeMap<String, String>>,
    /// What for.
    pub intended_use: AllowedUse,
}

/// Everything known of a pod that decides about its addresses.
#[derive(Clone, Debug, Default)]
pub struct AssignRequest {
    /// By which they are released.
    pub handle: String,
    /// Who has them.
    pub owner: Owner,
    /// Annotations of the pod (`cni.projectcalico.org/ipv4pools` and others).
    pub pod_annotations: BTreeMap<String, String>,
    /// Annotations of its namespace; the pod's win.
    pub namespace_annotations: BTreeMap<String, String>,
    /// Labels of its namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// Addresses that the runtime asks for; empty means any.
    pub requested: Vec<IpAddr>,
    /// The machine that the pod runs, where it keeps its addresses; the handle is the machine's then.
    pub machine: Option<Machine>,
}

/// Why there is no address.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssignError {
    /// Every pool was tried or refused.
    #[error("no {family} address: {}", list(.tried))]
    NoAddress {
        /// Family asked for.
        family: Family,
        /// Pool and reason, for each pool.
        tried: Vec<(String, String)>,
    },
    /// A certain address was asked for and cannot be had.
    #[error("address {address} {reason}")]
    Refused {
        /// The address.
        address: IpAddr,
        /// Why.
        reason: String,
    },
    /// An annotation cannot be read.
    #[error("annotation {name}: {reason}")]
    Annotation {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A machine is to move into a pod, and has no address to bring.
    #[error(
        "no address is assigned by handle {handle}; a live migration keeps the address of the pod that it leaves"
    )]
    Machine {
        /// The machine's handle.
        handle: String,
    },
    /// The datastore does not answer, or others won every race.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The allocator does not know the datastore yet, or is being shut down.
    #[error("address management is not ready: {0}")]
    NotReady(&'static str),
}

impl AssignError {
    /// Returns whether the same request can succeed a moment later without anyone changing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::NotReady(_) => true,
            Self::Store(error) => !matches!(
                error,
                StoreError::Invalid { .. }
                    | StoreError::Forbidden { .. }
                    | StoreError::Malformed { .. }
            ),
            _ => false,
        }
    }
}

fn list(tried: &[(String, String)]) -> String {
    if tried.is_empty() {
        return "there are no pools of this family".to_owned();
    }
    let lines: Vec<_> = tried.iter().map(|(pool, why)| format!("pool {pool} {why}")).collect();
    lines.join("; ")
}
