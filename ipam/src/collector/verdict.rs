//! Whether anybody uses an address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use api::{AllocationAttribute, Pod};

use super::{Inventory, Rules};
use crate::check::{annotated_addresses, is_over, known_addresses};
use crate::{handle::machine_handle_id, machine};

/// Keeps the addresses that Windows needs in every block.
const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";
/// A virtual machine's address is kept at least so long: its definition may be on its way from one namespace to another.
const MACHINE_FLOOR: Duration = Duration::from_secs(5 * 60);

/// Part of the handle of every virtual machine.
const MACHINE: &str = ".vmi.";

/// Whether an address has no owner but the machine that its handle names: the machine is stopped.
pub(super) fn waits_for_machine(owner: &AllocationAttribute) -> bool {
    machine::is_free(owner) && owner.handle_id.as_deref().is_some_and(|id| id.contains(MACHINE))
}

/// How long to wait before an unused address goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Patience {
    Settle,
    Grace,
    Machine,
}

impl Patience {
    /// Returns the time; `None` means for ever.
    pub(super) fn of(self, rules: &Rules) -> Option<Duration> {
        match self {
            Self::Settle => rules.grace.map(|_| rules.settle),
            Self::Grace => rules.grace,
            Self::Machine => rules.grace.map(|grace| grace.max(MACHINE_FLOOR)),
        }
    }
}

/// An address that nobody uses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Leak {
    pub(super) handle: String,
    pub(super) reason: String,
    pub(super) patience: Patience,
    /// The pod names its addresses, and this is none of them: it goes even if the pod keeps others.
    pub(super) goes_alone: bool,
}

/// Why a pod does not use an address.
struct Unused {
    reason: String,
    goes_alone: bool,
}

/// Nodes, pods and machines, by name.
pub(super) struct Facts<'a> {
    nodes: BTreeSet<&'a str>,
    pods: BTreeMap<(&'a str, &'a str), &'a Pod>,
    machines: Option<&'a BTreeSet<(String, String)>>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(inventory: &Inventory<'a>) -> Self {
        let key = |pod: &&'a Pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            (namespace, pod.metadata.name.as_str())
        };
        Self {
            nodes: inventory.nodes.iter().map(|node| node.metadata.name.as_str()).collect(),
            pods: inventory.pods.iter().map(|pod| (key(pod), *pod)).collect(),
            machines: inventory.machines,
        }
    }

    pub(super) fn has_node(&self, node: &str) -> bool {
        self.nodes.contains(node)
    }

    /// Says why an address is not used. `None`: it is, or nobody can say.
    pub(super) fn judge(&self, address: IpAddr, owner: &AllocationAttribute) -> Option<Leak> {
        let handle = owner.handle_id.clone()?;
        if handle.eq_ignore_ascii_case(WINDOWS_RESERVED) || owner.released_at.is_some() {
            return None;
        }
        let get = |key: &str| owner.secondary.get(key).map(String::as_str);
        let node = get("node");
        let dead = node.filter(|node| !self.has_node(node));
        let leak = |reason, patience| {
            Some(Leak { handle: handle.clone(), reason, patience, goes_alone: false })
        };
        if get("type").is_some_and(|kind| kind.ends_with("TunnelAddress")) {
            let dead = dead?;
            return leak(format!("its node {dead} is gone"), Patience::Settle);
        }
        if waits_for_machine(owner) {
            let waits = self.machines?.iter().any(|(namespace, name)| {
                let network = handle.split_once(MACHINE).map_or("", |(network, _)| network);
                machine_handle_id(network, namespace, name) == handle
            });
            let why = "its virtual machine is gone".to_owned();
            return if waits { None } else { leak(why, Patience::Machine) };
        }
        let (Some(namespace), Some(pod)) = (get("namespace"), get("pod")) else { return None };
        let why = self.unused_by(namespace, pod, node, address)?;
        // During a live migration the target waits for the address.
        let other = |key: &str| owner.alternate_owner_attrs.get(key).map(String::as_str);
        if let (Some(namespace), Some(pod)) = (other("namespace"), other("pod")) {
            self.unused_by(namespace, pod, other("node"), address)?;
        }
        if let Some(machine) = get(machine::NAME) {
            let known = self.machines?;
            let exists = known.contains(&(namespace.to_owned(), machine.to_owned()));
            let why = format!("virtual machine {namespace}/{machine} is gone");
            return if exists { None } else { leak(why, Patience::Machine) };
        }
        let patience = if dead.is_some() { Patience::Settle } else { Patience::Grace };
        let Unused { reason, goes_alone } = why;
        Some(Leak { handle, reason, patience, goes_alone })
    }

    /// Says why a pod does not use an address; `None` when it does, or is about to.
    fn unused_by(
        &self,
        namespace: &str,
        name: &str,
        node: Option<&str>,
        address: IpAddr,
    ) -> Option<Unused> {
        let unused = |what: &str| {
            Some(Unused { reason: format!("pod {namespace}/{name} {what}"), goes_alone: false })
        };
        let Some(pod) = self.pods.get(&(namespace, name)) else { return unused("is gone") };
        let addresses = known_addresses(pod);
        if is_over(pod) {
            return unused("is over");
        }
        if pod.spec.host_network {
            return unused("uses its node's address");
        }
        if addresses.contains(&address) {
            return None;
        }
        if !addresses.is_empty() {
            // The status may name some of them only; the annotation is written with all.
            let goes_alone = annotated_addresses(pod).is_some();
            return unused("has other addresses").map(|why| Unused { goes_alone, ..why });
        }
        let elsewhere = pod.spec.node_name.as_deref().filter(|on| Some(*on) != node);
        elsewhere.and_then(|on| unused(&format!("is on node {on}")))
    }
}
