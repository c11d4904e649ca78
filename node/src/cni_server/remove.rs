//! DEL and GC: forget the endpoint, release its addresses, and remember what could not be released yet.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use api::{Key, Pod};
use cni::{
    rpc::{Del, Gc, Response},
    spec::{CniError, code},
};
use felix::update::Update;
use serde_json::json;
use store::{Store, StoreError};

use super::{Server, endpoint_id, machines::Leave};
use crate::endpoints::Record;

/// How long DEL waits for the datastore before it leaves the release to later.
const RELEASE_PATIENCE: Duration = Duration::from_secs(3);
/// How often what could not be released is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// How often annotating a pod is tried, with doubling waits from 200 ms.
const ANNOTATE_TRIES: u32 = 8;

/// Handles whose release is owed to the datastore, one empty file each, so that a restart does not forget them.
#[derive(Debug)]
pub(crate) struct Releases {
    dir: PathBuf,
}

impl Releases {
    /// Uses `<run-dir>/releases`.
    pub(crate) fn new(run_dir: &Path) -> Self {
        Self { dir: run_dir.join("releases") }
    }

    fn owe(&self, handle: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        fs::File::create(self.dir.join(handle))?.sync_all()
    }

    /// Like [`Releases::owe`], of a machine's pod: the machine keeps its addresses.
    fn owe_leave(&self, name: &str, leave: &Leave) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut file = fs::File::create(self.dir.join(name))?;
        file.write_all(&serde_json::to_vec(leave)?)?;
        file.sync_all()
    }

    /// Returns what a file says about a machine's pod; `None` for every other handle.
    fn leave(&self, name: &str) -> Option<Leave> {
        serde_json::from_slice(&fs::read(self.dir.join(name)).ok()?).ok()
    }

    fn paid(&self, handle: &str) {
        if let Err(error) = fs::remove_file(self.dir.join(handle))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(handle, %error, "cannot forget a release that was made");
        }
    }

    fn owed(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.collect()
    }
}

impl<S: Store> Server<S> {
    pub(super) async fn del(&self, del: Del) -> Result<Response, CniError> {
        let attachment = &del.attachment;
        let known =
            self.endpoints.lock().await.get(&attachment.container_id, &attachment.ifname).cloned();
        match known {
            Some(record) => self.forget(&record).await,
            // An ADD that died between address and record leaves a handle only.
            None => {
                self.release_handle(&ipam::handle_id(&del.network, &attachment.container_id)).await
            }
        }
        Ok(Response::Done)
    }

    /// GC (CNI specification 1.1): what is not in the list goes, and what no record holds goes with it.
    pub(super) async fn gc(&self, gc: Gc) -> Result<Response, CniError> {
        let stale: Vec<Record> = {
            let endpoints = self.endpoints.lock().await;
            let valid = |record: &Record| {
                gc.valid_attachments.iter().any(|attachment| {
                    attachment.container_id == record.container_id
                        && attachment.ifname == record.ifname
                })
            };
            // An ADD that began after the list was made is not garbage, nor is another network's endpoint.
            let ours = |record: &Record| {
                let handle = ipam::handle_id(&gc.network, &record.container_id);
                let machine = record.machine.as_ref().map(|machine| machine.handle(&gc.network));
                record.handle == machine.unwrap_or_else(|| handle.clone())
                    && !self.in_flight.is_adding(&handle)
            };
            endpoints.iter().filter(|record| ours(record) && !valid(record)).cloned().collect()
        };
        for record in stale {
            tracing::info!(pod = %record.pod, namespace = %record.namespace, "garbage: the runtime no longer knows it");
            self.delete_link(&record)?;
            self.forget(&record).await;
        }
        if let Err(error) = self.release_stale().await {
            return Err(CniError::new(
                code::TRY_AGAIN,
                "endpoints are collected, addresses are not",
                format!("{error}; they go when the datastore answers"),
            ));
        }
        Ok(Response::Done)
    }

    fn delete_link(&self, record: &Record) -> Result<(), CniError> {
        let delete = || {
            let netlink = kernel::Netlink::open()?;
            kernel::link::delete_by_name(&netlink, &record.host_interface)
        };
        delete().map(drop).map_err(|error| {
            CniError::new(
                code::IO_FAILURE,
                "cannot delete the link",
                format!("{}: {error}", record.host_interface),
            )
        })
    }

    /// Removes an endpoint everywhere: record, policy, route, addresses, annotation.
    pub(super) async fn forget(&self, record: &Record) {
        self.context.felix.updates(vec![Update::LocalEndpoint(endpoint_id(record), None)]).await;
        self.release(record).await;
        let mut endpoints = self.endpoints.lock().await;
        if let Err(error) = endpoints.remove(&record.container_id, &record.ifname) {
            tracing::warn!(%error, record = %record.id(), "cannot remove the endpoint's record");
        }
        self.tell_addresses(&endpoints);
        drop(endpoints);
        self.annotate(record, false);
    }

    pub(super) async fn release(&self, record: &Record) {
        let Some(leave) = Leave::of(record) else {
            return self.release_handle(&record.handle).await;
        };
        let name = record.id();
        if let Err(error) = self.releases.owe_leave(&name, &leave) {
            tracing::warn!(handle = record.handle, %error, "cannot write down that a machine's pod is gone; telling it at once");
        }
        match tokio::time::timeout(RELEASE_PATIENCE, self.leave(&leave)).await {
            Ok(Ok(())) => self.releases.paid(&name),
            Ok(Err(error)) => {
                tracing::warn!(handle = record.handle, %error, "a machine's pod is gone; this will be told again")
            }
            Err(_) => {
                tracing::warn!(
                    handle = record.handle,
                    "a machine's pod is gone; the datastore does not answer"
                )
            }
        }
    }

    /// Releases now if the datastore answers in time, otherwise writes down that it is owed.
    pub(super) async fn release_handle(&self, handle: &str) {
        if let Err(error) = self.releases.owe(handle) {
            tracing::warn!(handle, %error, "cannot write down a release; trying it at once");
        }
        match tokio::time::timeout(RELEASE_PATIENCE, self.ipam.release_by_handle(handle)).await {
            Ok(Ok(_)) => self.releases.paid(handle),
            Ok(Err(error)) => {
                tracing::warn!(handle, %error, "release is owed, will be tried again")
            }
            Err(_) => tracing::warn!(handle, "release is owed: the datastore does not answer"),
        }
    }

    /// Tells the API which addresses the pod has, so that other nodes need not wait for the kubelet's status.
    ///
    /// Calico's nodes read the same annotations (`libcalico-go/lib/backend/k8s/resources/workloadendpoint.go`).
    pub(super) fn annotate(&self, record: &Record, present: bool) {
        let addresses = record.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (first, all, container) = if present {
            (
                addresses.first().cloned().unwrap_or_default(),
                addresses.join(","),
                record.container_id.clone(),
            )
        } else {
            Default::default()
        };
        let mut patch = json!({"metadata": {"annotations": {
            "cni.projectcalico.org/podIP": first,
            "cni.projectcalico.org/podIPs": all,
            "cni.projectcalico.org/containerID": container,
        }}});
        // A pod of the same name that came later is not ours to annotate.
        if let Some(uid) = &record.pod_uid
            && let Some(metadata) =
                patch.get_mut("metadata").and_then(|metadata| metadata.as_object_mut())
        {
            metadata.insert("uid".to_owned(), json!(uid));
        }
        let (store, key) = (self.store.clone(), Key::namespaced(&record.namespace, &record.pod));
        tokio::spawn(async move {
            let mut wait = Duration::from_millis(200);
            for _ in 0..ANNOTATE_TRIES {
                match store.patch::<Pod>(&key, Some("status"), &patch).await {
                    Ok(_)
                    | Err(
                        StoreError::NotFound { .. }
                        | StoreError::Conflict { .. }
                        | StoreError::Invalid { .. },
                    ) => return,
                    Err(error) => {
                        tracing::debug!(pod = %key, %error, "cannot annotate the pod yet")
                    }
                }
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            tracing::warn!(pod = %key, "gave up annotating the pod; its status has the address too");
        });
    }
}

/// Tries what is owed until the task is dropped.
pub(crate) async fn retry_releases<S: Store>(server: Arc<Server<S>>) {
    loop {
        for handle in server.releases.owed() {
            let pay = async {
                match server.releases.leave(&handle) {
                    Some(leave) => server.leave(&leave).await.is_ok(),
                    None => server.ipam.release_by_handle(&handle).await.is_ok(),
                }
            };
            if tokio::time::timeout(RELEASE_PATIENCE, pay).await == Ok(true) {
                server.releases.paid(&handle);
            }
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}
