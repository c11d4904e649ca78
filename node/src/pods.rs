//! What the CNI server must know of pods, namespaces and the cluster without asking the API server.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, RwLock},
};

use api::{Key, Namespace, Pod, Resource as _};

/// A view shared between the sync task, which writes it, and the CNI server, which reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodView(Arc<RwLock<View>>);

#[derive(Debug, Default)]
struct View {
    pods: HashMap<Key, Arc<Pod>>,
    namespaces: BTreeMap<String, Arc<Namespace>>,
    datastore_locked: bool,
}

impl PodView {
    /// Stores or forgets a pod of this node.
    pub(crate) fn set_pod(&self, key: &Key, pod: Option<Arc<Pod>>) {
        self.write(|view| match pod {
            Some(pod) => drop(view.pods.insert(key.clone(), pod)),
            None => drop(view.pods.remove(key)),
        });
    }

    /// Stores or forgets a namespace.
    pub(crate) fn set_namespace(&self, key: &Key, namespace: Option<Arc<Namespace>>) {
        self.write(|view| match namespace {
            Some(namespace) => drop(view.namespaces.insert(key.name.clone(), namespace)),
            None => drop(view.namespaces.remove(&key.name)),
        });
    }

    /// Remembers `ClusterInformation.spec.datastoreReady == false`: no address may be given out.
    pub(crate) fn set_datastore_locked(&self, locked: bool) {
        self.write(|view| view.datastore_locked = locked);
    }

    /// Returns a pod of this node, if its UID is the one asked for.
    pub(crate) fn pod(&self, key: &Key, uid: Option<&str>) -> Option<Arc<Pod>> {
        self.read(|view| view.pods.get(key).cloned())
            .filter(|pod| uid.is_none() || pod.meta().uid.as_deref() == uid)
    }

    /// Returns labels and annotations of a namespace.
    pub(crate) fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.read(|view| view.namespaces.get(name).cloned())
    }

    /// Whether the datastore is locked for a migration.
    pub(crate) fn datastore_locked(&self) -> bool {
        self.read(|view| view.datastore_locked)
    }

    fn read<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}
