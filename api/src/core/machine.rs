//! KubeVirt's machines: whether they exist, and where they run. Their pods carry them; their addresses outlive the pods.

use serde::{Deserialize, Serialize};

use crate::{NoStatus, kind::kind};

kind!(
    /// A virtual machine: it may be stopped, and then has no instance.
    VirtualMachine, VirtualMachineSpec, NoStatus, "kubevirt.io", "v1", "VirtualMachine", "virtualmachines", Namespaced
);

/// What a machine is made of: nothing that Voile reads.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct VirtualMachineSpec {}

kind!(
    /// A machine that runs; of the same name as the [`VirtualMachine`] that owns it, if any does.
    VirtualMachineInstance, VirtualMachineInstanceSpec, VirtualMachineInstanceStatus, "kubevirt.io", "v1",
    "VirtualMachineInstance", "virtualmachineinstances", Namespaced
);

/// What an instance is made of: nothing that Voile reads.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct VirtualMachineInstanceSpec {}

/// Where an instance runs.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineInstanceStatus {
    /// The node; the former one until a live migration is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The last live migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration_state: Option<MigrationState>,
}

/// How far a live migration has come.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationState {
    /// Which migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration_uid: Option<String>,
    /// It is over, for good or bad.
    #[serde(skip_serializing_if = "crate::wire::is_false")]
    pub completed: bool,
    /// The machine stayed where it was.
    #[serde(skip_serializing_if = "crate::wire::is_false")]
    pub failed: bool,
}
