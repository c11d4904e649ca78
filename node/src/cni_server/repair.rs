//! The node's own garbage collection, seconds after a fault: addresses that no sandbox here holds, and endpoints whose
//! interface is gone.
//!
//! What a daemon that died between writing the block and the endpoint's record leaves behind is released here; the cluster's
//! collector would need its grace period. Only the node's own blocks are looked at: what it borrowed is the collector's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use api::{IpamBlock, Key, Pod, Resource as _};
use ipam::Clock;
use store::{Store, StoreError};
use tokio::time::Instant;

use super::Server;
use crate::endpoints::Record;

/// Pauses between passes after the start, while a former life's faults show.
const SOON: Duration = Duration::from_secs(5);
/// Passes with that pause.
const SOON_PASSES: u32 = 12;
/// Pause between passes later.
const EVERY: Duration = Duration::from_secs(60);
/// Youngest address to be taken for stale. What this process assigns itself is known to be in work.
const GRACE: Duration = Duration::from_secs(3);
/// How long a pod may be without its interface while it is being added: longer than a shim waits.
const WIRING: Duration = Duration::from_secs(90);

/// Repairs until the task is dropped.
pub(crate) async fn run<S: Store>(server: Arc<Server<S>>) {
    let mut sync = server.sync.clone();
    // Before that nobody knows which pods there are.
    if sync.wait_for(|state| state.synced).await.is_err() {
        return;
    }
    let mut missing = BTreeMap::new();
    let mut passes: u32 = 0;
    loop {
        server.drop_vanished(&mut missing).await;
        if let Err(error) = server.release_stale().await {
            tracing::debug!(%error, "cannot look for stale addresses");
        }
        passes = passes.saturating_add(1);
        tokio::time::sleep(if passes < SOON_PASSES { SOON } else { EVERY }).await;
    }
}

impl<S: Store> Server<S> {
    /// Forgets endpoints whose interface did not survive (reboot, or a shim that died with us), before anything is served.
    pub(crate) async fn drop_vanished_at_start(&self) {
        for record in self.vanished().await {
            self.report_vanished(&record).await;
        }
    }

    /// The same while serving: an interface must be missing twice, and long enough for an ADD to end.
    async fn drop_vanished(&self, missing: &mut BTreeMap<String, Instant>) {
        let vanished = self.vanished().await;
        let ids: BTreeSet<String> = vanished.iter().map(Record::id).collect();
        missing.retain(|id, _| ids.contains(id));
        for record in vanished {
            let since = *missing.entry(record.id()).or_insert_with(Instant::now);
            let patience = if record.wired { SOON } else { WIRING };
            if since.elapsed() >= patience {
                self.report_vanished(&record).await;
            }
        }
    }

    async fn vanished(&self) -> Vec<Record> {
        let links = kernel::Netlink::open().and_then(|netlink| kernel::link::list(&netlink));
        let links = match links {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!(%error, "cannot list links; keeping every endpoint");
                return Vec::new();
            }
        };
        let names: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let endpoints = self.endpoints.lock().await;
        let gone = endpoints.iter().filter(|record| !names.contains(&*record.host_interface));
        gone.cloned().collect()
    }

    async fn report_vanished(&self, record: &Record) {
        let (pod, namespace) = (&record.pod, &record.namespace);
        tracing::info!(%pod, %namespace, interface = %record.host_interface, "the endpoint's interface is gone; releasing its addresses");
        self.forget(record).await;
    }

    /// Releases what this node's blocks say of pods here that no sandbox, no request and no pod of the API has.
    pub(super) async fn release_stale(&self) -> Result<(), StoreError> {
        let blocks = self.own_blocks().await?;
        // After the blocks were read: what is in them is recorded or in work by now.
        let mut living: BTreeSet<String> =
            self.endpoints.lock().await.iter().map(|record| record.handle.clone()).collect();
        living.extend(self.used_by_pods(&blocks));
        let now = Clock::system().now();
        let node = &self.context.node_name;
        for handle in ipam::reconcile::stale_handles(node, &blocks, &living, now, GRACE) {
            let Some(_guard) = self.in_flight.release(&handle) else { continue };
            tracing::info!(%handle, "no sandbox holds these addresses; releasing them");
            self.release_handle(&handle).await;
        }
        Ok(())
    }

    async fn own_blocks(&self) -> Result<Vec<IpamBlock>, StoreError> {
        let own: Vec<String> = self.context.blocks.borrow().iter().map(api::cidr_name).collect();
        let mut blocks = Vec::new();
        for name in own {
            match self.store.get::<IpamBlock>(&Key::cluster(name)).await {
                Ok(block) => blocks.push(block.into_inner()),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(blocks)
    }

    /// Handles of pods that have their address although no record says so: another plugin made them, or our records are lost.
    fn used_by_pods(&self, blocks: &[IpamBlock]) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        for (address, owner) in blocks.iter().flat_map(|block| ipam::block::assigned(&block.spec)) {
            let get = |key: &str| owner.secondary.get(key);
            let (Some(handle), Some(namespace), Some(name)) =
                (&owner.handle_id, get("namespace"), get("pod"))
            else {
                continue;
            };
            let pod = self.context.view.pod(&Key::namespaced(namespace, name), None);
            if pod.is_some_and(|pod| has(&pod, address)) {
                used.insert(handle.clone());
            }
        }
        used
    }
}

/// Whether a pod says that it has an address: in Calico's annotation, or in its status.
fn has(pod: &Pod, address: IpAddr) -> bool {
    let annotation = pod.meta().annotations.get("cni.projectcalico.org/podIPs");
    let annotated = annotation.is_some_and(|text| {
        text.split(',').any(|one| {
            one.split('/').next().and_then(|one| one.trim().parse().ok()) == Some(address)
        })
    });
    let status = pod.status.as_ref();
    annotated
        || status.is_some_and(|status| {
            status.pod_ips.iter().any(|one| one.ip.parse().ok() == Some(address))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_has_what_its_annotation_or_status_says() {
        let pod = |annotation: &str, status: &str| -> Pod {
            let annotations = json!({"cni.projectcalico.org/podIPs": annotation});
            let object = json!({
                "metadata": {"name": "p", "namespace": "ns", "annotations": annotations},
                "spec": {"containers": []}, "status": {"podIPs": [{"ip": status}]},
            });
            serde_json::from_value(object).unwrap()
        };
        let address = "10.244.0.1".parse().unwrap();
        assert!(has(&pod("fd00::1/128,10.244.0.1/32", "10.244.0.9"), address));
        assert!(has(&pod("", "10.244.0.1"), address));
        assert!(!has(&pod("10.244.0.11/32", "10.244.0.9"), address));
    }
}
