//! Which virtual machines there are: their addresses wait for them, with or without a pod.

use std::collections::BTreeSet;

use api::{VirtualMachine, VirtualMachineInstance};
use store::{ListOptions, Store, StoreError};

use crate::Machine;

/// Returns the machines as (namespace, name), and the instances that no machine owns. `None`: KubeVirt is not there, or says
/// nothing, and then nobody knows.
///
/// # Errors
/// Whatever the datastore answers.
pub async fn machines<S: Store>(
    store: &S,
) -> Result<Option<BTreeSet<(String, String)>>, StoreError> {
    let options = ListOptions::consistent();
    let machines = match store.list::<VirtualMachine>(&options).await {
        Err(StoreError::NotFound { .. }) => return Ok(None),
        result => result?,
    };
    let instances = match store.list::<VirtualMachineInstance>(&options).await {
        Err(StoreError::NotFound { .. }) => return Ok(None),
        result => result?,
    };
    if !machines.malformed.is_empty() || !instances.malformed.is_empty() {
        return Ok(None);
    }
    let key =
        |meta: &api::ObjectMeta| (meta.namespace.clone().unwrap_or_default(), meta.name.clone());
    let mut known: BTreeSet<_> = machines.items.iter().map(|one| key(&one.metadata)).collect();
    let alone = instances.items.iter().filter(|one| Machine::owner_of(one).is_none());
    known.extend(alone.map(|one| key(&one.metadata)));
    Ok(Some(known))
}
