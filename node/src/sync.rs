//! From the datastore to the policy engine: one watch for each kind, one ordered stream of batches.
//!
//! The watches feed a bounded channel; the collector takes what is there and hands it to felix in one batch. When felix
//! is busy the channel fills and the watches wait: back-pressure, nothing is dropped.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    BlockAffinity, ClusterInformation, GlobalNetworkPolicy, GlobalNetworkSet, IpPool, Key,
    KubernetesNetworkPolicy, Namespace, NetworkPolicy, NetworkSet, Pod, Resource, ServiceAccount,
    Tier,
};
use felix::update::Update;
use futures::StreamExt as _;
use store::{
    Store,
    informer::{Change, FollowOptions, follow},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{pods::PodView, speaker_task::Seen as ForSpeaker};

/// Whether everything has been read once, and which watches are in trouble.
#[derive(Clone, Debug, Default)]
pub(crate) struct SyncState {
    /// Every kind was listed once.
    pub(crate) synced: bool,
    /// Kinds that cannot be watched at the moment, with the reason.
    pub(crate) trouble: BTreeMap<String, String>,
    /// Objects that could not be read, with the reason.
    pub(crate) malformed: BTreeMap<String, String>,
}

enum Seen {
    Update(Update),
    Synced(String),
    Trouble(String, String),
    Recovered(String),
    Malformed(String, String),
}

const DEPTH: usize = 1024;
const MAX_BATCH: usize = 4096;

/// Watches everything the policy engine needs and feeds it until the task is dropped.
pub(crate) async fn run<S: Store>(
    store: S,
    node_name: String,
    felix: felix::driver::Handle,
    view: PodView,
    state: watch::Sender<SyncState>,
    speaker: mpsc::Sender<ForSpeaker>,
) {
    let (sender, receiver) = mpsc::channel(DEPTH);
    let mut watches = JoinSet::new();
    let kinds = spawn_watches(&mut watches, &store, &node_name, &view, (&sender, speaker));
    drop(sender);
    collect(receiver, kinds, felix, state).await;
}

/// Starts one watch for each kind and returns how many there are.
fn spawn_watches<S: Store>(
    tasks: &mut JoinSet<()>,
    store: &S,
    node_name: &str,
    view: &PodView,
    (sender, speaker): (&mpsc::Sender<Seen>, mpsc::Sender<ForSpeaker>),
) -> usize {
    let mut kinds = 0;
    macro_rules! feed {
        ($kind:ty, $look:expr, $update:expr) => {
            feed!($kind, $look, $update, None)
        };
        ($kind:ty, $look:expr, $update:expr, $also:expr) => {
            kinds += 1;
            tasks.spawn(feed::<S, $kind>(store.clone(), sender.clone(), $look, $update, $also));
        };
    }
    let (pods, node) = (view.clone(), node_name.to_owned());
    feed!(
        Pod,
        move |key, pod: Option<&Arc<Pod>>| {
            let local = pod.filter(|pod| pod.spec.node_name.as_deref() == Some(node.as_str()));
            pods.set_pod(key, local.cloned());
        },
        Update::Pod
    );
    let namespaces = view.clone();
    feed!(
        Namespace,
        move |key, namespace: Option<&Arc<Namespace>>| namespaces
            .set_namespace(key, namespace.cloned()),
        Update::Namespace
    );
    feed!(ServiceAccount, ignore, Update::ServiceAccount);
    feed!(KubernetesNetworkPolicy, ignore, Update::KubernetesNetworkPolicy);
    feed!(NetworkPolicy, ignore, Update::NetworkPolicy);
    feed!(GlobalNetworkPolicy, ignore, Update::GlobalNetworkPolicy);
    feed!(Tier, ignore, Update::Tier);
    feed!(NetworkSet, ignore, Update::NetworkSet);
    feed!(GlobalNetworkSet, ignore, Update::GlobalNetworkSet);
    let also = Also { speaker: speaker.clone(), seen: ForSpeaker::Pool };
    feed!(IpPool, ignore, Update::IpPool, Some(also));
    let also = Also { speaker, seen: ForSpeaker::Affinity };
    feed!(BlockAffinity, ignore, Update::BlockAffinity, Some(also));
    let lock = view.clone();
    tasks.spawn(watch_lock(store.clone(), lock));
    kinds
}

fn ignore<R>(_: &Key, _: Option<&Arc<R>>) {}

/// The speaker needs this kind too: one watch serves both.
struct Also<R> {
    speaker: mpsc::Sender<ForSpeaker>,
    seen: fn(Key, Option<Arc<R>>) -> ForSpeaker,
}

impl<R> Also<R> {
    async fn tell(also: Option<&Self>, change: Option<(&Key, Option<&Arc<R>>)>) {
        let Some(also) = also else { return };
        let seen = match change {
            Some((key, object)) => (also.seen)(key.clone(), object.cloned()),
            None => ForSpeaker::Synced,
        };
        // Without its receiver the daemon is ending.
        drop(also.speaker.send(seen).await);
    }
}

async fn feed<S: Store, R: Resource>(
    store: S,
    sender: mpsc::Sender<Seen>,
    look: impl Fn(&Key, Option<&Arc<R>>) + Send,
    update: fn(Key, Option<Arc<R>>) -> Update,
    also: Option<Also<R>>,
) {
    // The kind alone is not unique: Kubernetes and Calico both have a NetworkPolicy.
    let kind = [R::KIND.plural, R::KIND.group].join(".").trim_end_matches('.').to_owned();
    let mut changes = std::pin::pin!(follow::<R>(store, FollowOptions::default()));
    let mut in_trouble = false;
    while let Some(change) = changes.next().await {
        let seen = match change {
            Change::Applied(object) => {
                let object = Arc::new(object.into_inner());
                let key = object.key();
                look(&key, Some(&object));
                Also::tell(also.as_ref(), Some((&key, Some(&object)))).await;
                Seen::Update(update(key, Some(object)))
            }
            Change::Deleted(key, _) => {
                look(&key, None);
                Also::tell(also.as_ref(), Some((&key, None))).await;
                Seen::Update(update(key, None))
            }
            Change::Synced => {
                Also::tell(also.as_ref(), None).await;
                Seen::Synced(kind.clone())
            }
            Change::Malformed { key, message } => Seen::Malformed(format!("{kind} {key}"), message),
            Change::Disconnected { reason, retry_in } => {
                tracing::warn!(%kind, %reason, ?retry_in, "watch lost");
                in_trouble = true;
                Seen::Trouble(kind.clone(), reason.to_string())
            }
        };
        let recovered = in_trouble && !matches!(seen, Seen::Trouble(..));
        if recovered {
            in_trouble = false;
            if sender.send(Seen::Recovered(kind.clone())).await.is_err() {
                return;
            }
        }
        if sender.send(seen).await.is_err() {
            return;
        }
    }
}

/// `calicoctl datastore migrate lock` sets `datastoreReady` to false: no address is given out meanwhile.
async fn watch_lock<S: Store>(store: S, view: PodView) {
    let mut changes = std::pin::pin!(follow::<ClusterInformation>(store, FollowOptions::default()));
    while let Some(change) = changes.next().await {
        match change {
            Change::Applied(object) => {
                view.set_datastore_locked(object.spec.datastore_ready == Some(false));
            }
            Change::Deleted(..) => view.set_datastore_locked(false),
            Change::Synced | Change::Malformed { .. } | Change::Disconnected { .. } => {}
        }
    }
}

async fn collect(
    mut receiver: mpsc::Receiver<Seen>,
    kinds: usize,
    felix: felix::driver::Handle,
    state: watch::Sender<SyncState>,
) {
    let mut synced = std::collections::BTreeSet::new();
    let mut batch = Vec::new();
    let mut seen = Vec::new();
    loop {
        seen.clear();
        if receiver.recv_many(&mut seen, MAX_BATCH).await == 0 {
            return;
        }
        for item in seen.drain(..) {
            match item {
                Seen::Update(update) => batch.push(update),
                Seen::Synced(kind) => {
                    if synced.insert(kind) && synced.len() == kinds {
                        batch.push(Update::InSync);
                        state.send_modify(|state| state.synced = true);
                        tracing::info!("in sync with the datastore");
                    }
                }
                Seen::Trouble(kind, reason) => {
                    state.send_modify(|state| drop(state.trouble.insert(kind, reason)));
                }
                Seen::Recovered(kind) => {
                    tracing::info!(%kind, "watch is back");
                    state.send_modify(|state| drop(state.trouble.remove(&kind)));
                }
                Seen::Malformed(object, message) => {
                    tracing::warn!(%object, %message, "object cannot be read; treated as absent");
                    state.send_modify(|state| drop(state.malformed.insert(object, message)));
                }
            }
        }
        if !batch.is_empty() {
            felix.updates(std::mem::take(&mut batch)).await;
        }
    }
}
