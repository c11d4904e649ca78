//! ADD: address, record, policy in the kernel, wiring, host route.

use std::{net::IpAddr, sync::Arc};

use api::{Key, Pod, Resource as _};
use cni::{
    rpc::{Add, Response, Wired},
    spec::{CniError, code},
};
use felix::update::Update;
use ipam::{AssignRequest, Machine, Owner};
use ipnet::IpNet;
use store::{Store, StoreError};
use tokio::time::Instant;

use super::{KERNEL_PATIENCE, Server, endpoint_id, endpoint_update, locked, wiring};
use crate::endpoints::Record;

impl<S: Store> Server<S> {
    pub(super) async fn add(&self, add: Add) -> Result<Response, CniError> {
        if self.context.view.datastore_locked() {
            return Err(locked());
        }
        let handle = ipam::handle_id(&add.network, &add.attachment.container_id);
        let Some(_guard) = self.in_flight.add(&handle) else {
            return Err(CniError::new(
                code::TRY_AGAIN,
                "the container is being worked on",
                format!("handle {handle} is in another ADD, or is being released"),
            ));
        };
        // A runtime may repeat an ADD that it did not see the end of: same container, same answer.
        let known = self.known(&add).await;
        let record = match known {
            Some(record) => record,
            None => self.assign(&add, handle).await?,
        };
        self.context.felix.updates(vec![endpoint_update(&record)]).await;
        let deadline = Instant::now() + KERNEL_PATIENCE;
        if let Err(error) = self.context.felix.wait_endpoint(endpoint_id(&record), deadline).await {
            self.forget(&record).await;
            return Err(CniError::new(
                code::TRY_AGAIN,
                "the pod's policy is not in the kernel",
                format!("{}/{}: {error}", record.namespace, record.pod),
            ));
        }
        self.annotate(&record, true);
        Ok(Response::Wire(wiring(&record)))
    }

    pub(super) async fn wired(&self, wired: Wired) -> Result<Response, CniError> {
        let attachment = &wired.attachment;
        let record = {
            let mut endpoints = self.endpoints.lock().await;
            let Some(record) = endpoints.get(&attachment.container_id, &attachment.ifname).cloned()
            else {
                return Err(CniError::new(
                    code::UNKNOWN_CONTAINER,
                    "unknown container",
                    format!(
                        "container {} was deleted while it was being added",
                        attachment.container_id
                    ),
                ));
            };
            let record = Record { wired: true, ..record };
            endpoints.put(record.clone()).map_err(|error| disk(&error))?;
            record
        };
        let deadline = Instant::now() + KERNEL_PATIENCE;
        self.context.felix.wait_routes(&record.ips(), deadline).await.map_err(|error| {
            CniError::new(
                code::TRY_AGAIN,
                "the pod's host route is not in the kernel",
                format!("{} via {}: {error}", record.pod, record.host_interface),
            )
        })?;
        Ok(Response::Done)
    }

    async fn known(&self, add: &Add) -> Option<Record> {
        let attachment = &add.attachment;
        self.endpoints.lock().await.get(&attachment.container_id, &attachment.ifname).cloned()
    }

    /// Finds the pod, assigns addresses and stores the endpoint.
    async fn assign(&self, add: &Add, handle: String) -> Result<Record, CniError> {
        let Some(pod) = &add.pod else {
            return Err(CniError::new(
                code::INVALID_ENVIRONMENT,
                "no pod named",
                "CNI_ARGS must have K8S_POD_NAMESPACE and K8S_POD_NAME; voile-node serves Kubernetes pods",
            ));
        };
        let key = Key::namespaced(&pod.namespace, &pod.name);
        let object = self.find_pod(&key, pod.uid.as_deref()).await?;
        let machine = self.machine_of(&object).await?;
        let handle = machine.as_ref().map_or(handle, |machine| machine.handle(&add.network));
        let addresses = self.addresses(add, &object, &handle, machine.as_ref()).await?;
        let awaits_machine = machine.as_ref().is_some_and(Machine::is_target);
        let record = Record {
            container_id: add.attachment.container_id.clone(),
            ifname: add.attachment.ifname.clone(),
            netns: add.netns.display().to_string(),
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            pod_uid: object.meta().uid.clone(),
            host_interface: cni::host_interface_name(Some(pod), &add.attachment.container_id),
            addresses,
            handle,
            machine,
            awaits_machine,
            mtu: add.mtu.unwrap_or(self.mtu),
            wired: false,
        };
        let mut endpoints = self.endpoints.lock().await;
        if let Err(error) = endpoints.put(record.clone()) {
            drop(endpoints);
            self.release(&record).await;
            return Err(disk(&error));
        }
        self.tell_addresses(&endpoints);
        drop(endpoints);
        Ok(record)
    }

    /// Returns the pod from the watch, or from the API server when the watch is behind the kubelet.
    async fn find_pod(&self, key: &Key, uid: Option<&str>) -> Result<Arc<Pod>, CniError> {
        if let Some(pod) = self.context.view.pod(key, uid) {
            return Ok(pod);
        }
        let pod = self.store.get::<Pod>(key).await.map_err(|error| match error {
            StoreError::NotFound { .. } => CniError::new(
                code::UNKNOWN_CONTAINER,
                "no such pod",
                format!("pod {key} does not exist in the API; was it deleted?"),
            ),
            error => CniError::new(
                code::TRY_AGAIN,
                "cannot read the pod",
                format!("pod {key} is not in the watch yet and {error}"),
            ),
        })?;
        let pod = Arc::new(pod.into_inner());
        if uid.is_some_and(|uid| pod.meta().uid.as_deref() != Some(uid)) {
            return Err(CniError::new(
                code::UNKNOWN_CONTAINER,
                "another pod of this name",
                format!(
                    "pod {key} was deleted and created again; this sandbox belongs to the former one"
                ),
            ));
        }
        self.context.felix.updates(vec![Update::Pod(key.clone(), Some(Arc::clone(&pod)))]).await;
        Ok(pod)
    }

    async fn addresses(
        &self,
        add: &Add,
        pod: &Pod,
        handle: &str,
        machine: Option<&Machine>,
    ) -> Result<Vec<IpNet>, CniError> {
        let key = pod.key();
        let namespace = key.namespace.clone().unwrap_or_default();
        let owner = Owner::pod(&self.context.node_name, &namespace, &key.name);
        let namespace_object = self.context.view.namespace(&namespace);
        let request = AssignRequest {
            handle: handle.to_owned(),
            owner: machine.map_or(owner.clone(), |machine| machine.owner(owner)),
            pod_annotations: pod.meta().annotations.clone(),
            namespace_annotations: namespace_object
                .as_ref()
                .map(|object| object.meta().annotations.clone())
                .unwrap_or_default(),
            namespace_labels: namespace_object
                .map(|object| object.meta().labels.clone())
                .unwrap_or_default(),
            requested: add.requested_ips.clone(),
            machine: machine.cloned(),
        };
        let assigned = self.ipam.assign_for_pod(request).await.map_err(|error| {
            let code = if error.is_temporary() { code::TRY_AGAIN } else { code::IO_FAILURE };
            CniError::new(code, "no address for the pod", format!("{key}: {error}"))
        })?;
        Ok(assigned.into_iter().map(|address: IpAddr| IpNet::from(address)).collect())
    }
}

fn disk(error: &std::io::Error) -> CniError {
    CniError::new(
        code::IO_FAILURE,
        "cannot store the endpoint",
        format!("{error}; is the disk of --run-dir full or read-only?"),
    )
}
