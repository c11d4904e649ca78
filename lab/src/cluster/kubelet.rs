//! Runs pods: namespace, CNI plugin, containers as processes, status; and all of it backwards.

mod containers;
mod status;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    cache::Cache,
    cni::{Added, Attachment},
};
use crate::{
    fabric,
    paths::Layout,
    processes::{Processes, Status},
    state::Ledger,
};

/// A lab's longest wait for a container to end; nobody wants to wait half a minute for a `sleep`.
const LONGEST_GRACE: Duration = Duration::from_secs(2);

/// What all pods of a lab share.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "the client has none")]
pub struct Kubelet {
    /// Connection to the API server.
    pub client: Client,
    /// Names and files.
    pub layout: Layout,
    /// Where namespaces are written down.
    pub ledger: Ledger,
    /// Who runs the containers.
    pub processes: Processes,
    /// The CNI plugin.
    pub plugin: PathBuf,
    /// Addresses of each node, for `hostIP`.
    pub host_addresses: BTreeMap<String, Vec<String>>,
}

impl Kubelet {
    /// Runs the pods of all nodes until the lab ends.
    pub async fn run(self, mut pods: Cache<Pod>) {
        let mut workers: BTreeMap<String, watch::Sender<Option<Arc<Pod>>>> = BTreeMap::new();
        loop {
            let known = pods.get();
            let bound: BTreeMap<String, &Arc<Pod>> = known
                .values()
                .filter(|pod| self.is_ours(pod))
                .filter_map(|pod| Some((pod.uid()?, pod)))
                .collect();
            for (uid, pod) in &bound {
                match workers.get(uid) {
                    Some(worker) => drop(worker.send_if_modified(|seen| {
                        let changed = seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, pod));
                        if changed {
                            *seen = Some(Arc::clone(pod));
                        }
                        changed
                    })),
                    None => {
                        let (sender, receiver) = watch::channel(Some(Arc::clone(pod)));
                        workers.insert(uid.clone(), sender);
                        tokio::spawn(Worker::new(self.clone(), pod, uid.clone(), receiver).run());
                    }
                }
            }
            workers.retain(|uid, worker| {
                if !bound.contains_key(uid) {
                    worker.send_if_modified(|seen| seen.take().is_some());
                }
                !worker.is_closed()
            });
            if pods.next().await.is_none() {
                return;
            }
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        node.is_some_and(|node| self.host_addresses.contains_key(node))
    }
}

/// Applies a strategic merge patch to a pod's status.
pub async fn patch_status(api: &Api<Pod>, name: &str, status: &Value) -> kube::Result<()> {
    match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await {
        Ok(_) => Ok(()),
        // Gone in the meantime; there is nothing left to say about it.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

/// One pod's life. It sees the pod as the API server has it, `None` once it is gone.
struct Worker {
    kubelet: Kubelet,
    api: Api<Pod>,
    pod: Arc<Pod>,
    seen: watch::Receiver<Option<Arc<Pod>>>,
    attachment: Attachment,
    host_network: bool,
    node: String,
}

impl Worker {
    fn new(
        kubelet: Kubelet,
        pod: &Arc<Pod>,
        uid: String,
        seen: watch::Receiver<Option<Arc<Pod>>>,
    ) -> Self {
        let namespace = pod.namespace().unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        let node = spec.node_name.unwrap_or_default();
        let node_netns = kubelet.layout.netns(&node);
        let host_network = spec.host_network == Some(true);
        let pod_netns =
            if host_network { node_netns.clone() } else { kubelet.layout.pod_netns(&uid) };
        let attachment = Attachment {
            node_netns,
            pod_netns,
            plugin: kubelet.plugin.clone(),
            socket: kubelet.layout.cni_socket(&node),
            namespace: namespace.clone(),
            name: pod.name_any(),
            uid,
        };
        let api = Api::namespaced(kubelet.client.clone(), &namespace);
        Self { kubelet, api, pod: Arc::clone(pod), seen, attachment, host_network, node }
    }

    async fn run(mut self) {
        let mut added = None;
        if self.leaving().is_none() {
            added = self.connect().await;
        }
        let mut programs = BTreeMap::new();
        if let Some(added) = added.as_ref().filter(|_| self.leaving().is_none()) {
            programs = self.start_containers();
            self.report_until_leaving(&programs, &added.addresses).await;
        }
        self.tear_down(programs, added.as_ref()).await;
    }

    /// `Some(grace)` when the pod is to go.
    fn leaving(&self) -> Option<Duration> {
        let seen = self.seen.borrow();
        let Some(pod) = seen.as_ref() else { return Some(Duration::ZERO) };
        pod.metadata.deletion_timestamp.as_ref()?;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        Some(Duration::from_secs(u64::try_from(grace).unwrap_or(0)).min(LONGEST_GRACE))
    }

    /// Gives the pod its namespace and network; tries until it works or the pod is to go.
    async fn connect(&mut self) -> Option<Added> {
        if self.host_network {
            let addresses =
                self.kubelet.host_addresses.get(&self.node).cloned().unwrap_or_default();
            return Some(Added { addresses, result: Value::Null });
        }
        let mut pause = Duration::from_millis(100);
        let mut said = String::new();
        loop {
            let problem = match self.try_connect().await {
                Ok(added) => return Some(added),
                Err(error) => format!("{error:#}"),
            };
            if problem != said {
                tracing::warn!(pod = self.attachment.name, "{problem}");
                let status = status::creating(&self.pod, &problem);
                drop(patch_status(&self.api, &self.attachment.name, &status).await);
                said = problem;
            }
            tokio::select! {
                () = sleep(pause) => (),
                _ = self.seen.changed() => (),
            }
            if self.leaving().is_some() {
                return None;
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    async fn try_connect(&self) -> Result<Added> {
        if !self.attachment.pod_netns.exists() {
            drop(fabric::make_netns(&self.attachment.pod_netns, &self.kubelet.ledger)?);
        }
        match self.attachment.add().await {
            Ok(added) => Ok(added),
            Err(error) => {
                // A runtime cleans up after a failed ADD before it tries again.
                drop(self.attachment.del(None).await);
                Err(error)
            }
        }
    }

    fn start_containers(&self) -> BTreeMap<String, (String, watch::Receiver<Status>)> {
        containers::specs(&self.pod, &self.attachment, &self.kubelet.layout)
            .into_iter()
            .map(|(container, spec)| {
                let program = spec.name.clone();
                (container, (program, self.kubelet.processes.start(spec)))
            })
            .collect()
    }

    /// Writes the pod's status whenever a container's changes.
    async fn report_until_leaving(
        &mut self,
        programs: &BTreeMap<String, (String, watch::Receiver<Status>)>,
        addresses: &[String],
    ) {
        let host = self.kubelet.host_addresses.get(&self.node).cloned().unwrap_or_default();
        let mut receivers: Vec<_> =
            programs.values().map(|(_, receiver)| receiver.clone()).collect();
        let mut written = Value::Null;
        while self.leaving().is_none() {
            let states = programs
                .iter()
                .map(|(name, (_, status))| (name.as_str(), *status.borrow()))
                .collect();
            let status = status::running(&self.pod, &states, addresses, &host);
            if status != written {
                match patch_status(&self.api, &self.attachment.name, &status).await {
                    Ok(()) => written = status,
                    Err(error) => {
                        tracing::warn!(pod = self.attachment.name, %error, "cannot write status");
                        sleep(Duration::from_millis(200)).await;
                        continue;
                    }
                }
            }
            let changes = receivers.iter_mut().map(|receiver| Box::pin(receiver.changed()));
            tokio::select! {
                _ = self.seen.changed() => (),
                _ = futures::future::select_all(changes), if !programs.is_empty() => (),
            }
        }
    }

    async fn tear_down(
        mut self,
        programs: BTreeMap<String, (String, watch::Receiver<Status>)>,
        added: Option<&Added>,
    ) {
        let grace = self.leaving().unwrap_or_default();
        let signal = if grace.is_zero() { Signal::SIGKILL } else { Signal::SIGTERM };
        let stops = programs
            .values()
            .map(|(program, _)| self.kubelet.processes.remove(program, signal, grace));
        drop(futures::future::join_all(stops).await);
        if !self.host_network && self.attachment.pod_netns.exists() {
            self.disconnect(added.map(|added| &added.result)).await;
            if let Err(error) =
                fabric::remove_netns(&self.attachment.pod_netns, &self.kubelet.ledger)
            {
                tracing::warn!(pod = self.attachment.name, "{error:#}");
            }
        }
        self.forget().await;
    }

    async fn disconnect(&self, added: Option<&Value>) {
        let mut pause = Duration::from_millis(100);
        while let Err(error) = self.attachment.del(added).await {
            tracing::warn!(pod = self.attachment.name, "{error:#}; trying again");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Deletes the object for good, as a kubelet does when nothing of the pod is left.
    async fn forget(&mut self) {
        let parameters = DeleteParams::default().grace_period(0).preconditions(Preconditions {
            uid: Some(self.attachment.uid.clone()),
            resource_version: None,
        });
        while self.seen.borrow_and_update().is_some() {
            match self.api.delete(&self.attachment.name, &parameters).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(error) => {
                    tracing::warn!(pod = self.attachment.name, %error, "cannot delete the object");
                    drop(timeout(Duration::from_millis(500), self.seen.changed()).await);
                }
            }
        }
    }
}
