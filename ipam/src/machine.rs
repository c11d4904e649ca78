//! KubeVirt machines: an address stays with its machine when the pod that runs it is replaced, or moves to another node.
//! Pure; the allocator has the conversations.
//!
//! An address of a machine has two owners at most (Calico `secondary` and `alternateOwnerAttrs`): the pod that runs it, and
//! while it migrates the pod that will. With none it waits for the machine's next pod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{AllocationAttribute, IpamBlockSpec, OwnerReference, Pod};
use serde::{Deserialize, Serialize};

use crate::{Owner, block, handle};

/// Attribute of an address: the machine's name. Collectors find machines' addresses by it.
pub(crate) const NAME: &str = "vmi-name";
/// KubeVirt names the pods of machines so.
const POD_PREFIX: &str = "virt-launcher-";
/// Label of a pod that a machine is to migrate to: the migration's UID.
const MIGRATION_LABEL: &str = "kubevirt.io/migrationJobUID";
const GROUP_VERSION: &str = "kubevirt.io/v1";

/// The machine that a pod runs, or will run.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Namespace of machine and pod.
    pub namespace: String,
    /// Name of the instance, and of the machine that owns it.
    pub name: String,
    /// UID of the instance (VirtualMachineInstance).
    pub instance_uid: String,
    /// UID of the machine (VirtualMachine); absent when the instance stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// UID of the live migration whose target the pod is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_uid: Option<String>,
}

impl Machine {
    /// Returns the machine of a pod; `None` for every other pod. Who owns the instance is not known from the pod.
    #[must_use]
    pub fn of_pod(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        if !meta.name.starts_with(POD_PREFIX) {
            return None;
        }
        let is_instance = |owner: &&OwnerReference| {
            owner.api_version == GROUP_VERSION
                && owner.kind == "VirtualMachineInstance"
                && owner.extra.get("controller").and_then(serde_json::Value::as_bool) == Some(true)
        };
        let owner = meta.owner_references.iter().find(is_instance)?;
        Some(Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: owner.name.clone(),
            instance_uid: owner.uid.clone(),
            uid: None,
            migration_uid: meta.labels.get(MIGRATION_LABEL).filter(|uid| !uid.is_empty()).cloned(),
        })
    }

    /// Returns the UID of the machine that owns an instance, from the instance's owner references.
    #[must_use]
    pub fn owner_of(instance: &api::VirtualMachineInstance) -> Option<String> {
        let owners = &instance.metadata.owner_references;
        let machine = owners
            .iter()
            .find(|owner| owner.api_version == GROUP_VERSION && owner.kind == "VirtualMachine");
        machine.map(|owner| owner.uid.clone())
    }

    /// Returns the handle of the machine's addresses.
    #[must_use]
    pub fn handle(&self, network: &str) -> String {
        handle::machine_handle_id(network, &self.namespace, &self.name)
    }

    /// Returns whether the pod is the target of a live migration: the machine does not run in it yet.
    #[must_use]
    pub fn is_target(&self) -> bool {
        self.migration_uid.is_some()
    }

    /// Adds the machine to what is said of a pod.
    #[must_use]
    pub fn owner(&self, pod: Owner) -> Owner {
        let mut owner = pod.with(NAME, &self.name).with("vmi-uid", &self.instance_uid);
        for (key, value) in [("vm-uid", &self.uid), ("vmim-uid", &self.migration_uid)] {
            if let Some(value) = value {
                owner = owner.with(key, value);
            }
        }
        owner
    }
}

/// A pod that has, or had, an address of a machine.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MachinePod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl MachinePod {
    fn is(&self, attributes: &BTreeMap<String, String>) -> bool {
        attributes.get("namespace") == Some(&self.namespace)
            && attributes.get("pod") == Some(&self.name)
    }
}

/// What happens to the owners of a machine's addresses.
#[derive(Clone, Debug)]
pub(crate) enum Change<'a> {
    /// A pod runs the machine, whoever did before: that pod may be stuck in its deletion.
    Runs(&'a BTreeMap<String, String>),
    /// A pod is to run it, whoever was to before: that migration may have failed.
    WillRun(&'a BTreeMap<String, String>),
    /// The pod that was to run it does; the former one stays until it leaves.
    RunsNow(&'a MachinePod),
    /// A pod is gone. The one that was to run the machine does then.
    Leaves(&'a MachinePod),
}

/// Changes the owners of a handle's addresses. Returns whether that made a difference.
pub(crate) fn change(block: &mut IpamBlockSpec, handle: &str, change: &Change<'_>) -> bool {
    let mut changed = false;
    let of_handle = |one: &&mut AllocationAttribute| {
        one.handle_id.as_deref() == Some(handle) && one.released_at.is_none()
    };
    for owner in block.attributes.iter_mut().filter(of_handle) {
        let before = owner.clone();
        match change {
            Change::Runs(pod) => owner.secondary = (*pod).clone(),
            Change::WillRun(pod) => owner.alternate_owner_attrs = (*pod).clone(),
            Change::RunsNow(pod) if pod.is(&owner.alternate_owner_attrs) => {
                std::mem::swap(&mut owner.secondary, &mut owner.alternate_owner_attrs);
            }
            Change::Leaves(pod) if pod.is(&owner.secondary) => {
                owner.secondary = std::mem::take(&mut owner.alternate_owner_attrs);
            }
            Change::Leaves(pod) if pod.is(&owner.alternate_owner_attrs) => {
                owner.alternate_owner_attrs.clear();
            }
            Change::RunsNow(_) | Change::Leaves(_) => {}
        }
        changed |= *owner != before;
    }
    changed
}

/// Returns whether no pod has an address that its machine keeps.
pub(crate) fn is_free(owner: &AllocationAttribute) -> bool {
    owner.secondary.is_empty() && owner.alternate_owner_attrs.is_empty()
}

/// Returns the addresses of a handle.
pub(crate) fn addresses(block: &IpamBlockSpec, handle: &str) -> Vec<IpAddr> {
    block::assigned(block)
        .filter(|(_, owner)| {
            owner.handle_id.as_deref() == Some(handle) && owner.released_at.is_none()
        })
        .map(|(address, _)| address)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::UnixNanos;

    fn launcher(owner: &serde_json::Value) -> Pod {
        let object = json!({
            "metadata": {
                "name": "virt-launcher-vm1-abcde", "namespace": "ns", "ownerReferences": [owner],
                "labels": {"kubevirt.io/migrationJobUID": "m1"},
            },
            "spec": {"containers": []},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_launcher_pod_says_which_machine_it_runs() {
        let owner = |controller: bool| {
            json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm1", "uid": "u1",
                   "controller": controller})
        };
        let mut pod = launcher(&owner(true));
        let machine = Machine::of_pod(&pod).unwrap();
        assert_eq!(machine.handle("net"), "net.vmi.ns.vm1");
        assert!(machine.is_target());
        assert_eq!(Machine::of_pod(&launcher(&owner(false))), None);
        pod.metadata.name = "web".to_owned();
        assert_eq!(Machine::of_pod(&pod), None);
    }

    #[test]
    fn owners_change_as_a_machine_migrates_and_stops() {
        let mut object =
            block::empty(&"10.0.0.0/30".parse().unwrap(), Some("host:n1"), UnixNanos(1));
        let attributes = |node: &str, pod: &str| {
            let owner = Owner::pod(node, "ns", pod).attribute("h", UnixNanos(1));
            owner.secondary
        };
        let (one, two) = (attributes("n1", "one"), attributes("n2", "two"));
        let start = Owner::pod("n1", "ns", "one").attribute("h", UnixNanos(1));
        block::take_any(&mut object.spec, &start, |_| false).unwrap();
        let pod = |name: &str| MachinePod { namespace: "ns".to_owned(), name: name.to_owned() };
        let mut step = |what: Change<'_>| {
            let changed = change(&mut object.spec, "h", &what);
            let owner = &object.spec.attributes[0];
            let name = |of: &BTreeMap<String, String>| of.get("pod").cloned().unwrap_or_default();
            format!("{changed} {}/{}", name(&owner.secondary), name(&owner.alternate_owner_attrs))
        };
        assert_eq!(step(Change::WillRun(&two)), "true one/two");
        assert_eq!(step(Change::RunsNow(&pod("other"))), "false one/two");
        assert_eq!(step(Change::RunsNow(&pod("two"))), "true two/one");
        assert_eq!(step(Change::RunsNow(&pod("two"))), "false two/one");
        assert_eq!(step(Change::Leaves(&pod("one"))), "true two/");
        assert_eq!(step(Change::WillRun(&one)), "true two/one");
        assert_eq!(step(Change::Leaves(&pod("two"))), "true one/");
        assert_eq!(step(Change::Leaves(&pod("one"))), "true /");
        assert_eq!(step(Change::Runs(&two)), "true two/");
        assert!(!change(&mut object.spec, "another", &Change::Runs(&one)));
    }
}
