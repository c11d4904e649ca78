//! Pods of KubeVirt: their addresses are their machine's, which may stop, start elsewhere, or move while it runs.
//!
//! A pod that a machine is to move into gets the machine's addresses at once and its traffic only when the machine has moved:
//! until then there is no route to it, and the speaker does not announce it.

use std::{sync::Arc, time::Duration};

use api::{Key, Pod, Resource as _, VirtualMachine, VirtualMachineInstance};
use cni::spec::{CniError, code};
use ipam::{Machine, MachinePod};
use serde::{Deserialize, Serialize};
use store::{Store, StoreError};

use super::{Server, endpoint_update};
use crate::endpoints::Record;

/// How often the API is asked whether a machine has moved here, while one is on its way.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A pod of a machine that is gone, which the datastore is to know.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Leave {
    handle: String,
    machine: Machine,
    pod: MachinePod,
}

impl Leave {
    /// Returns what is to be told when an endpoint goes; `None` when its pod runs no machine.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let machine = record.machine.clone()?;
        Some(Self { handle: record.handle.clone(), machine, pod: pod_of(record) })
    }
}

fn pod_of(record: &Record) -> MachinePod {
    MachinePod { namespace: record.namespace.clone(), name: record.pod.clone() }
}

impl<S: Store> Server<S> {
    /// Returns the machine of a pod, if its addresses are to stay with it.
    pub(super) async fn machine_of(&self, pod: &Pod) -> Result<Option<Machine>, CniError> {
        let Some(mut machine) = Machine::of_pod(pod) else { return Ok(None) };
        let keeps = self.ipam.keeps_machine_addresses().await.map_err(|error| {
            let details = format!("{}: {error}", pod.key());
            CniError::new(code::TRY_AGAIN, "no address for the machine", details)
        })?;
        if !keeps && machine.is_target() {
            return Err(CniError::new(
                code::INVALID_ENVIRONMENT,
                "no live migration without address persistence",
                format!(
                    "{}: IPAMConfiguration default has kubeVirtVMAddressPersistence: Disabled, so the machine cannot bring its address",
                    pod.key()
                ),
            ));
        }
        if !keeps {
            return Ok(None);
        }
        let key = Key::namespaced(&machine.namespace, &machine.name);
        let unknown = |details: String| {
            CniError::new(code::TRY_AGAIN, "the pod's machine cannot be read", details)
        };
        let instance = self.store.get::<VirtualMachineInstance>(&key).await;
        let instance = instance.map_err(|error| unknown(error.to_string()))?;
        if instance.meta().uid.as_deref() != Some(&machine.instance_uid) {
            let wanted = &machine.instance_uid;
            return Err(unknown(format!(
                "VirtualMachineInstance {key} is not the pod's, {wanted}"
            )));
        }
        machine.uid = Machine::owner_of(&instance);
        Ok(Some(machine))
    }

    /// Takes a pod that is gone off its machine's addresses; they go with the last pod of a machine that goes too.
    pub(super) async fn leave(&self, leave: &Leave) -> Result<(), String> {
        let ends = self.ends(&leave.machine).await.map_err(|error| error.to_string())?;
        let released = self.ipam.leave_machine(&leave.handle, leave.pod.clone(), ends).await;
        let released = released.map_err(|error| error.to_string())?;
        let Machine { namespace, name, .. } = &leave.machine;
        tracing::info!(machine = %name, %namespace, pod = %leave.pod.name, ?released, "a machine's pod is gone");
        Ok(())
    }

    async fn ends(&self, machine: &Machine) -> Result<bool, StoreError> {
        let key = Key::namespaced(&machine.namespace, &machine.name);
        let (meta, uid) = match &machine.uid {
            Some(uid) => {
                let found = self.store.get::<VirtualMachine>(&key).await;
                (found.map(|found| found.meta().clone()), uid)
            }
            None => {
                let found = self.store.get::<VirtualMachineInstance>(&key).await;
                (found.map(|found| found.meta().clone()), &machine.instance_uid)
            }
        };
        match meta {
            Ok(meta) => Ok(meta.deletion_timestamp.is_some() || meta.uid.as_ref() != Some(uid)),
            Err(StoreError::NotFound { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn receive_machines(&self) {
        let awaiting: Vec<Record> = {
            let endpoints = self.endpoints.lock().await;
            endpoints.iter().filter(|record| record.awaits_machine).cloned().collect()
        };
        for record in awaiting {
            if let Err(error) = self.receive(&record).await {
                tracing::warn!(pod = %record.pod, namespace = %record.namespace, %error, "cannot see whether the machine has moved here");
            }
        }
    }

    /// Lets packets come once the machine runs here.
    async fn receive(&self, record: &Record) -> anyhow::Result<()> {
        let Some(machine) = &record.machine else { return Ok(()) };
        let key = Key::namespaced(&machine.namespace, &machine.name);
        let instance = match self.store.get::<VirtualMachineInstance>(&key).await {
            // The pod will be deleted.
            Err(StoreError::NotFound { .. }) => return Ok(()),
            result => result?,
        };
        if !runs_on(&instance, machine, &self.context.node_name) {
            return Ok(());
        }
        self.ipam.machine_moved(&record.handle, pod_of(record)).await?;
        let mut endpoints = self.endpoints.lock().await;
        // A DEL may have come meanwhile, or the shim's last word.
        let Some(now) = endpoints.get(&record.container_id, &record.ifname) else { return Ok(()) };
        let now = Record { awaits_machine: false, ..now.clone() };
        endpoints.put(now.clone())?;
        self.context.felix.updates(vec![endpoint_update(&now)]).await;
        self.tell_addresses(&endpoints);
        tracing::info!(machine = %machine.name, namespace = %machine.namespace, pod = %record.pod, "the machine has moved here");
        Ok(())
    }
}

/// Whether a machine that was to move to a node has: KubeVirt says so with the node's name, or of the migration itself.
fn runs_on(instance: &VirtualMachineInstance, machine: &Machine, node: &str) -> bool {
    let Some(status) = &instance.status else { return false };
    let has_moved = status.migration_state.as_ref().is_some_and(|state| {
        state.migration_uid == machine.migration_uid && state.completed && !state.failed
    });
    has_moved || status.node_name.as_deref() == Some(node)
}

/// Watches for machines that are on their way here, until the task is dropped.
pub(crate) async fn receive<S: Store>(server: Arc<Server<S>>) {
    loop {
        server.receive_machines().await;
        tokio::time::sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_machine_has_moved_when_kubevirt_says_so() {
        let machine = Machine { migration_uid: Some("m1".to_owned()), ..Machine::default() };
        let moved = |status: serde_json::Value| {
            let instance =
                serde_json::from_value(json!({"metadata": {"name": "vm"}, "status": status}));
            runs_on(&instance.unwrap(), &machine, "n2")
        };
        assert!(!moved(json!({"nodeName": "n1"})));
        assert!(!moved(json!({"nodeName": "n1", "migrationState": {"migrationUid": "m1"}})));
        let over = |failed| json!({"migrationUid": "m1", "completed": true, "failed": failed});
        assert!(moved(json!({"nodeName": "n1", "migrationState": over(false)})));
        assert!(!moved(json!({"nodeName": "n1", "migrationState": over(true)})));
        assert!(moved(json!({"nodeName": "n2"})));
    }
}
