//! The speaker beside the cluster: what it shall be told (configuration, blocks to announce, links that went down), and
//! where what it tells goes (routes to felix, state to the report).

mod links;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use api::{
    AffinityState, BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, IpPool, Key, Node,
    Resource, Secret,
};
use base64::Engine as _;
use bgp::{
    LocalRoute, Prefix, SpeakerConfig,
    driver::{FibReceiver, Handle, Options},
};
use felix::driver::FibEntry;
use futures::StreamExt as _;
use ipnet::IpNet;
use store::{
    Store,
    informer::{Change, FollowOptions, follow},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{peering::BgpView, report::BgpReport, speaker_config::speaker_config, tasks::Context};

/// Where Calico keeps the secrets of BGP passwords: the namespace of the daemon itself.
const SECRETS: &str = "kube-system";
/// Changes that come close together are one configuration.
const SETTLE: Duration = Duration::from_millis(50);

/// One change of what BGP depends on.
enum Seen {
    Configuration(Key, Option<BgpConfiguration>),
    Peer(Key, Option<BgpPeer>),
    Filter(Key, Option<BgpFilter>),
    Node(Key, Option<Box<Node>>),
    Pool(Key, Option<IpPool>),
    Affinity(Key, Option<BlockAffinity>),
    Synced,
}

/// Kinds that must be known before the first configuration.
const KINDS: usize = 6;

/// The running speaker, once there is one, and what it reports.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) handle: watch::Receiver<Option<Handle>>,
    pub(crate) report: watch::Receiver<BgpReport>,
}

/// Starts the tasks around the speaker; the speaker itself starts when its first configuration is known.
pub(crate) fn start<S: Store>(tasks: &mut JoinSet<()>, context: &Context, store: S) -> Ends {
    let (sender, receiver) = mpsc::channel(256);
    spawn_feeds(tasks, &store, &sender);
    let (handle_sender, handle) = watch::channel(None);
    let (problems_sender, problems) = watch::channel(Told::default());
    let (routes_sender, routes) = watch::channel(0);
    let (report_sender, report) = watch::channel(BgpReport::default());
    let conductor = Conductor {
        node_name: context.node_name.clone(),
        felix: context.felix.clone(),
        store,
        view: BgpView::default(),
        affinities: BTreeMap::new(),
        announced: BTreeSet::new(),
        synced: 0,
        told: problems_sender,
        handle: handle_sender,
        routes: Some(routes_sender),
    };
    tasks.spawn(conductor.run(receiver));
    tasks.spawn(report::run(handle.clone(), problems, routes, report_sender));
    tasks.spawn(links::run(handle.clone()));
    Ends { handle, report }
}

fn spawn_feeds<S: Store>(tasks: &mut JoinSet<()>, store: &S, sender: &mpsc::Sender<Seen>) {
    tasks.spawn(feed(store.clone(), sender.clone(), Seen::Configuration));
    tasks.spawn(feed(store.clone(), sender.clone(), Seen::Peer));
    tasks.spawn(feed(store.clone(), sender.clone(), Seen::Filter));
    tasks.spawn(feed(store.clone(), sender.clone(), |key, node: Option<Node>| {
        Seen::Node(key, node.map(Box::new))
    }));
    tasks.spawn(feed(store.clone(), sender.clone(), Seen::Pool));
    tasks.spawn(feed(store.clone(), sender.clone(), Seen::Affinity));
}

async fn feed<S: Store, R: Resource>(
    store: S,
    sender: mpsc::Sender<Seen>,
    seen: impl Fn(Key, Option<R>) -> Seen + Send,
) {
    let mut changes = std::pin::pin!(follow::<R>(store, FollowOptions::default()));
    while let Some(change) = changes.next().await {
        let change = match change {
            Change::Applied(object) => {
                let object = object.into_inner();
                seen(object.key(), Some(object))
            }
            Change::Deleted(key, _) => seen(key, None),
            Change::Synced => Seen::Synced,
            // The policy side reports both; routes stay as they are meanwhile.
            Change::Malformed { .. } | Change::Disconnected { .. } => continue,
        };
        if sender.send(change).await.is_err() {
            return;
        }
    }
}

/// What the speaker was told last, for the report.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) config: Option<SpeakerConfig>,
    pub(super) origins: BTreeMap<IpAddr, api::PeerOrigin>,
    pub(super) blocks: Vec<String>,
    pub(super) problems: Vec<String>,
}

struct Conductor<S> {
    node_name: String,
    felix: felix::driver::Handle,
    store: S,
    view: BgpView,
    affinities: BTreeMap<Key, BlockAffinity>,
    announced: BTreeSet<Prefix>,
    synced: usize,
    told: watch::Sender<Told>,
    handle: watch::Sender<Option<Handle>>,
    routes: Option<watch::Sender<u64>>,
}

impl<S: Store> Conductor<S> {
    async fn run(mut self, mut receiver: mpsc::Receiver<Seen>) {
        let mut batch = Vec::new();
        while receiver.recv_many(&mut batch, 1024).await > 0 {
            for seen in batch.drain(..) {
                self.note(seen);
            }
            if self.synced < KINDS {
                continue;
            }
            self.read_passwords().await;
            if let Err(error) = self.conduct() {
                tracing::error!(%error, "BGP cannot start; trying again on the next change or in 5 s");
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    fn note(&mut self, seen: Seen) {
        fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => drop(map.insert(key, value)),
                None => drop(map.remove(&key)),
            }
        }
        let view = &mut self.view;
        match seen {
            Seen::Configuration(key, value) if key.name == "default" => {
                view.default = value.map(|value| value.spec);
            }
            Seen::Configuration(..) => {}
            Seen::Peer(key, value) => put(&mut view.peers, key.name, value),
            Seen::Filter(key, value) => {
                put(&mut view.filters, key.name, value.map(|value| value.spec))
            }
            Seen::Node(key, value) => put(&mut view.nodes, key.name, value.map(|value| *value)),
            Seen::Pool(key, value) => put(&mut view.pools, key.name, value.map(|value| value.spec)),
            Seen::Affinity(key, value) => put(&mut self.affinities, key, value),
            Seen::Synced => self.synced += 1,
        }
    }

    /// Reads the secrets that peers name and that are not known yet.
    async fn read_passwords(&mut self) {
        let peers = self.view.peers.values().filter_map(|peer| peer.spec.password.as_ref());
        let mesh =
            self.view.default.as_ref().and_then(|default| default.node_mesh_password.as_ref());
        let references = peers.chain(mesh).filter_map(|password| password.secret_key_ref.as_ref());
        let wanted: BTreeSet<(String, String)> =
            references.map(|reference| (reference.name.clone(), reference.key.clone())).collect();
        for (name, key) in wanted {
            let id = format!("{name}/{key}");
            if self.view.passwords.contains_key(&id) {
                continue;
            }
            match self.store.get::<Secret>(&Key::namespaced(SECRETS, &name)).await {
                Ok(secret) => {
                    let decoded = secret
                        .data
                        .get(&key)
                        .and_then(|text| {
                            base64::engine::general_purpose::STANDARD.decode(text).ok()
                        })
                        .and_then(|octets| String::from_utf8(octets).ok());
                    if let Some(password) = decoded {
                        self.view.passwords.insert(id, password);
                    }
                }
                Err(error) => tracing::warn!(secret = %name, %error, "cannot read a BGP password"),
            }
        }
    }

    /// Starts or reconfigures the speaker, and announces exactly the blocks that are ours.
    fn conduct(&mut self) -> anyhow::Result<()> {
        let Some((config, problems)) = speaker_config(&self.view, &self.node_name) else {
            return Ok(());
        };
        let (peerings, _) = crate::peering::peerings(&self.view, &self.node_name);
        let origin = |origin| match origin {
            crate::peering::Origin::Mesh => api::PeerOrigin::NodeMesh,
            crate::peering::Origin::Node => api::PeerOrigin::NodePeer,
            crate::peering::Origin::Global => api::PeerOrigin::GlobalPeer,
        };
        let blocks = self.blocks();
        for problem in &problems {
            tracing::warn!(%problem, "BGP configuration");
        }
        self.told.send_replace(Told {
            config: Some(config.clone()),
            origins: peerings.iter().map(|peer| (peer.address, origin(peer.origin))).collect(),
            blocks: blocks.iter().map(ToString::to_string).collect(),
            problems,
        });
        let handle = self.handle.borrow().clone();
        let handle = match handle {
            Some(handle) => {
                handle.configure(config)?;
                handle
            }
            None => self.spawn(config)?,
        };
        for prefix in blocks.difference(&self.announced) {
            handle.originate(*prefix, LocalRoute::default())?;
        }
        for prefix in self.announced.difference(&blocks) {
            handle.withdraw(*prefix)?;
        }
        self.announced = blocks;
        Ok(())
    }

    fn spawn(&mut self, config: SpeakerConfig) -> anyhow::Result<Handle> {
        let left = kernel::Netlink::open().and_then(|netlink| {
            kernel::route::list(
                &netlink,
                kernel::route::Filter::protocol(kernel::route::PROTOCOL_BGP),
            )
        });
        // Routes of a former run are still in use: ask peers to bear with us (RFC 4724 §4.1).
        let restarting = left.is_ok_and(|routes| !routes.is_empty());
        let port =
            self.view.default.as_ref().and_then(|default| default.listen_port).unwrap_or(179);
        tracing::info!(asn = %config.local_as, router_id = %config.router_id, restarting, port, "BGP speaker starts");
        let config = SpeakerConfig { restarting, ..config };
        let (handle, fib) = bgp::driver::spawn(config, Options::on_port(port))?;
        if let Some(routes) = self.routes.take() {
            tokio::spawn(carry(fib, self.felix.clone(), routes));
        }
        tokio::spawn(log_events(handle.clone()));
        self.handle.send_replace(Some(handle.clone()));
        Ok(handle)
    }

    /// Confirmed blocks of this node; a single address is announced by its block's owner or as borrowed.
    fn blocks(&self) -> BTreeSet<Prefix> {
        let ours = self.affinities.values().filter(|affinity| {
            affinity.spec.node == self.node_name
                && !affinity.spec.deleted
                && matches!(affinity.spec.state, AffinityState::Confirmed | AffinityState::Unset)
        });
        ours.filter_map(|affinity| affinity.spec.cidr.parse().ok()).collect()
    }
}

/// Carries routes from the speaker to felix, which alone writes them.
async fn carry(mut fib: FibReceiver, felix: felix::driver::Handle, count: watch::Sender<u64>) {
    let mut known = BTreeSet::new();
    while let Some(batch) = fib.recv().await {
        let mut entries = Vec::new();
        for update in batch.updates {
            let address = update.prefix.address();
            let Ok(prefix) = IpNet::new(address, update.prefix.length()) else { continue };
            if update.next_hops.is_empty() {
                known.remove(&prefix);
            } else {
                known.insert(prefix);
            }
            let next_hops = update.next_hops.iter();
            let next_hops = next_hops.map(|hop| (hop.address, hop.interface.clone())).collect();
            entries.push(FibEntry { prefix, next_hops });
        }
        felix.set_fib(entries).await;
        if batch.complete {
            felix.fib_synced().await;
        }
        count.send_replace(u64::try_from(known.len()).unwrap_or(u64::MAX));
    }
}

async fn log_events(handle: Handle) {
    let mut events = handle.events();
    loop {
        match events.recv().await {
            Ok(event) => {
                tracing::info!(peer = %event.peer, address = %event.address, from = %event.from, to = %event.to, cause = %event.cause, "BGP session");
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}
