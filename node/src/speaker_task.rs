//! The speaker beside the cluster: what it shall be told (configuration, blocks to announce, links that went down), and
//! where what it tells goes (routes to felix, state to the report).

mod links;
mod passwords;
mod queries;
mod report;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use api::{
    AffinityState, BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, IpPool, Key, Node, Resource,
};
use bgp::{
    FibOutcome, LocalRoute, Prefix, SpeakerConfig,
    bmp::Collector,
    driver::{FibReceiver, Handle, Options},
};
use felix::driver::{FibEntry, FibRoute};
use futures::StreamExt as _;
use ipnet::IpNet;
use store::{
    Store,
    informer::{Change, FollowOptions, follow},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use self::{links::Ask, passwords::Passwords};
use crate::{
    peering::{BgpView, Peering, Problem},
    report::BgpReport,
    speaker_config::{Spoken, speaker_config},
    tasks::Context,
};

/// Changes that come close together are one configuration.
const SETTLE: Duration = Duration::from_millis(50);
/// How long routes of a former life stay after a restart is complete. A neighbour that restarts too says End-of-RIB before
/// it knows everything again (RFC 4724 §4.1 lets it not wait for us), and forwarding must survive that.
const SWEEP_DELAY: Duration = Duration::from_secs(10);
/// When to try again what failed.
const RETRY: Duration = Duration::from_secs(5);

/// One change of what BGP depends on.
pub(crate) enum Seen {
    Configuration(Key, Option<BgpConfiguration>),
    Peer(Key, Option<BgpPeer>),
    Filter(Key, Option<BgpFilter>),
    Node(Key, Option<Box<Node>>),
    Pool(Key, Option<Arc<IpPool>>),
    Affinity(Key, Option<Arc<BlockAffinity>>),
    Password(passwords::Told),
    /// Networks by interface.
    Links(BTreeMap<String, Vec<Prefix>>),
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
///
/// Pools and affinities come from the policy engine's watches (`sender`'s other clones); the rest is watched here.
pub(crate) fn start<S: Store>(
    tasks: &mut JoinSet<()>,
    context: &Context,
    store: S,
    (sender, receiver): (mpsc::Sender<Seen>, mpsc::Receiver<Seen>),
) -> Ends {
    spawn_feeds(tasks, &store, &sender);
    let (handle_sender, handle) = watch::channel(None);
    let (told_sender, told) = watch::channel(Told::default());
    let (routes_sender, routes) = watch::channel(0);
    let (report_sender, report) = watch::channel(BgpReport::default());
    let (asks_sender, asks) = mpsc::unbounded_channel();
    let conductor = Conductor {
        node_name: context.node_name.clone(),
        collectors: context.collectors.clone(),
        felix: context.felix.clone(),
        passwords: Passwords::new(store.clone(), &context.namespace, sender.clone()),
        view: BgpView { links: links::read(), ..BgpView::default() },
        affinities: BTreeMap::new(),
        announced: BTreeSet::new(),
        synced: 0,
        told: told_sender,
        handle: handle_sender,
        routes: Some(routes_sender),
        left: OnceCell::new(),
        blocks: context.blocks.clone(),
        gateways: Gateways::default(),
        asks: asks_sender,
    };
    tasks.spawn(conductor.run(receiver, context.addresses.subscribe()));
    tasks.spawn(report::run(handle.clone(), told.clone(), routes, report_sender));
    tasks.spawn(links::run(handle.clone(), sender, asks));
    let blocks = context.blocks.subscribe();
    tasks.spawn(queries::run(store, context.node_name.clone(), handle.clone(), told, blocks));
    Ends { handle, report }
}

fn spawn_feeds<S: Store>(tasks: &mut JoinSet<()>, store: &S, sender: &mpsc::Sender<Seen>) {
    tasks.spawn(feed(store.clone(), sender.clone(), Seen::Configuration));
    tasks.spawn(feed(store.clone(), sender.clone(), Seen::Peer));
    tasks.spawn(feed(store.clone(), sender.clone(), Seen::Filter));
    tasks.spawn(feed(store.clone(), sender.clone(), |key, node: Option<Node>| {
        Seen::Node(key, node.map(Box::new))
    }));
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

/// What the speaker was told last: for the report, for questions, and to go on with where something cannot be understood any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) spoken: Option<Spoken>,
    pub(super) blocks: Vec<String>,
}

struct Conductor<S> {
    node_name: String,
    collectors: Vec<Collector>,
    felix: felix::driver::Handle,
    passwords: Passwords<S>,
    view: BgpView,
    affinities: BTreeMap<Key, Arc<BlockAffinity>>,
    announced: BTreeSet<Prefix>,
    synced: usize,
    told: watch::Sender<Told>,
    handle: watch::Sender<Option<Handle>>,
    routes: Option<watch::Sender<u64>>,
    /// The routes of a former run, if there were any.
    left: OnceCell<Option<Left>>,
    blocks: watch::Sender<BTreeSet<IpNet>>,
    /// Routes to peers by their `reachableBy`: those that are wanted, and those that felix knows of.
    gateways: Gateways,
    /// What is to be watched in the kernel.
    asks: mpsc::UnboundedSender<Ask>,
}

#[derive(Debug, Default)]
struct Gateways {
    wanted: BTreeMap<IpNet, IpAddr>,
    told: BTreeMap<IpNet, IpAddr>,
}

impl Gateways {
    fn want(&mut self, peerings: &[Peering]) {
        let routes = peerings.iter().filter_map(|peer| Some((peer.address, peer.reachable_by?)));
        self.wanted = routes.map(|(peer, gateway)| (IpNet::from(peer), gateway)).collect();
    }

    /// Returns what changed since the last time.
    fn changes(&mut self) -> Vec<FibEntry> {
        let gone = self.told.keys().filter(|peer| !self.wanted.contains_key(peer));
        let gone = gone.map(|peer| FibEntry { prefix: *peer, route: FibRoute::Absent });
        let new = self.wanted.iter().filter(|(peer, gateway)| self.told.get(peer) != Some(gateway));
        let via = |gateway: &IpAddr| FibRoute::Via(vec![(*gateway, None)]);
        let new = new.map(|(peer, gateway)| FibEntry { prefix: *peer, route: via(gateway) });
        let changes = gone.chain(new).collect();
        self.told.clone_from(&self.wanted);
        changes
    }
}

impl<S: Store> Conductor<S> {
    async fn run(
        mut self,
        mut receiver: mpsc::Receiver<Seen>,
        mut addresses: watch::Receiver<BTreeSet<IpAddr>>,
    ) {
        let mut batch = Vec::new();
        let mut retry = None;
        loop {
            let alarm = retry.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                count = receiver.recv_many(&mut batch, 1024) => if count == 0 { return },
                changed = addresses.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(alarm) => {}
            }
            let only_addresses = batch.is_empty() && retry.is_none();
            for seen in batch.drain(..) {
                self.note(seen);
            }
            if self.synced < KINDS {
                continue;
            }
            self.passwords.follow(self.view.wanted_secrets());
            if !self.passwords.complete() {
                // Without its key a peer would count as gone, and its routes with it.
                retry = self.passwords.deadline();
                continue;
            }
            let local = addresses.borrow_and_update().clone();
            let done = if only_addresses { Ok(()) } else { self.conduct() };
            let routes = self.gateways.changes();
            if !routes.is_empty() {
                let prefixes = self.gateways.wanted.keys().copied().collect();
                // The listener lives as long as we do.
                let _ = self.asks.send(Ask::Gateways(prefixes));
                self.felix.set_fib(routes).await;
            }
            retry = match done.and_then(|()| self.announce(&local)) {
                Ok(()) => None,
                Err(error) => {
                    tracing::error!(%error, "BGP cannot start; trying again on the next change or in 5 s");
                    Some(Instant::now() + RETRY)
                }
            };
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
                let (spec, annotations) =
                    value.map(|it| (it.spec, it.metadata.annotations)).unzip();
                view.default = spec;
                view.annotations = annotations.unwrap_or_default();
            }
            Seen::Configuration(..) => {}
            Seen::Peer(key, value) => put(&mut view.peers, key.name, value),
            Seen::Filter(key, value) => {
                put(&mut view.filters, key.name, value.map(|value| value.spec))
            }
            Seen::Node(key, value) => put(&mut view.nodes, key.name, value.map(|value| *value)),
            Seen::Pool(key, value) => {
                put(&mut view.pools, key.name, value.map(|value| value.spec.clone()))
            }
            Seen::Affinity(key, value) => put(&mut self.affinities, key, value),
            Seen::Links(links) => view.links = links,
            Seen::Password(told) => self.passwords.take(told, &mut view.passwords),
            Seen::Synced => self.synced += 1,
        }
    }

    /// Starts or reconfigures the speaker.
    fn conduct(&mut self) -> anyhow::Result<()> {
        let spoken =
            speaker_config(&self.view, &self.node_name, self.told.borrow().spoken.as_ref());
        let Some(mut spoken) = spoken else { return Ok(()) };
        self.gateways.want(&spoken.peerings);
        let config = &mut spoken.config;
        config.collectors.clone_from(&self.collectors);
        config.follow_next_hops = true;
        // As it started, so it stays: peers must hear in every OPEN that forwarding went on (RFC 4724 §3).
        let left = self.left.get_or_init(|| Left::read(&self.gateways.wanted));
        config.restarting = left.is_some();
        config.forwarding_via = left.as_ref().and_then(|left| left.via.clone());
        let blocks = self.blocks();
        self.blocks.send_if_modified(|known| {
            let changed = *known != blocks;
            known.clone_from(&blocks);
            changed
        });
        self.warn_of(&spoken.problems);
        let config = spoken.config.clone();
        let blocks = blocks.iter().map(ToString::to_string).collect();
        self.told.send_replace(Told { spoken: Some(spoken), blocks });
        let handle = self.handle.borrow().clone();
        match handle {
            Some(handle) => handle.configure(config)?,
            None => self.spawn(config)?,
        }
        Ok(())
    }

    /// Logs the problems that were none before.
    fn warn_of(&self, problems: &[Problem]) {
        let told = self.told.borrow();
        let known = told.spoken.as_ref().map_or(&[][..], |last| &last.problems);
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!(%problem, "BGP configuration");
        }
    }

    /// Announces exactly the blocks that are ours, and what pods here borrowed.
    fn announce(&mut self, local: &BTreeSet<IpAddr>) -> anyhow::Result<()> {
        let Some(handle) = self.handle.borrow().clone() else { return Ok(()) };
        let announce = announcements(&self.blocks.borrow(), local);
        for prefix in announce.difference(&self.announced) {
            handle.originate(*prefix, LocalRoute::default())?;
        }
        for prefix in self.announced.difference(&announce) {
            handle.withdraw(*prefix)?;
        }
        self.announced = announce;
        Ok(())
    }

    fn spawn(&mut self, config: SpeakerConfig) -> anyhow::Result<()> {
        let port =
            self.view.default.as_ref().and_then(|default| default.listen_port).unwrap_or(179);
        let restarting = config.restarting;
        tracing::info!(asn = %config.local_as, router_id = %config.router_id, restarting, port, "BGP speaker starts");
        let (handle, fib) = bgp::driver::spawn(config, self.listen(port))?;
        handle.networks(links::local())?;
        // Before anything can be answered.
        self.handle.send_replace(Some(handle.clone()));
        if let Some(routes) = self.routes.take() {
            let ends = (self.felix.clone(), handle, self.asks.clone());
            tokio::spawn(carry(fib, ends, routes, restarting));
        }
        Ok(())
    }

    /// Where to listen: everywhere, or on the addresses of the node (`bindMode`). A change needs a restart.
    fn listen(&self, port: u16) -> Options {
        let everywhere = Options::on_port(port);
        let mode = self.view.default.as_ref().and_then(|default| default.bind_mode);
        let local = self.view.local(&self.node_name);
        match (mode, local) {
            (Some(api::BindMode::NodeIp), Some(local)) => {
                let addresses = [local.ipv4, local.ipv6].into_iter().flatten();
                let listen = addresses.map(|address| SocketAddr::new(address, port)).collect();
                Options { listen, ..everywhere }
            }
            _ => everywhere,
        }
    }

    /// Confirmed blocks of this node.
    fn blocks(&self) -> BTreeSet<IpNet> {
        let ours = self.affinities.values().filter(|affinity| {
            affinity.spec.node == self.node_name
                && !affinity.spec.deleted
                && matches!(affinity.spec.state, AffinityState::Confirmed | AffinityState::Unset)
        });
        ours.filter_map(|affinity| affinity.spec.cidr.parse().ok()).collect()
    }
}

/// Routes of a former run that are still in use: peers are asked to bear with us (RFC 4724 §4.1).
#[derive(Debug, PartialEq)]
struct Left {
    /// Their next hops. None: a blackhole is among them, and nobody knows who asked for it.
    via: Option<BTreeSet<IpAddr>>,
}

impl Left {
    /// Reads them from the kernel; `gateways` are those that we made ourselves.
    fn read(gateways: &BTreeMap<IpNet, IpAddr>) -> Option<Self> {
        let filter = kernel::route::Filter::protocol(kernel::route::PROTOCOL_BGP);
        let routes = kernel::Netlink::open().and_then(|link| kernel::route::list(&link, filter));
        Self::of(&routes.ok()?, gateways)
    }

    fn of(routes: &[kernel::Route], gateways: &BTreeMap<IpNet, IpAddr>) -> Option<Self> {
        let blackholes = routes.iter().any(|route| route.kind == kernel::RouteKind::Blackhole);
        // The way to a peer behind its `reachableBy` was not learned from anybody.
        let is_ours = |route: &&kernel::Route| {
            let wanted = gateways.get(&route.prefix);
            wanted.is_some_and(|gateway| route.gateways().eq([*gateway]))
        };
        let learned = routes.iter().filter(|route| !is_ours(route));
        let via = (!blackholes).then(|| learned.flat_map(kernel::Route::gateways).collect());
        (!routes.is_empty()).then_some(Self { via })
    }
}

/// Our blocks as they are, and each address of a local pod that is in none of them: it was borrowed from another node's
/// block, and the longer prefix wins over the aggregate of its owner (Calico: `bird_aggr.cfg.template`).
fn announcements(blocks: &BTreeSet<IpNet>, local: &BTreeSet<IpAddr>) -> BTreeSet<Prefix> {
    let borrowed = local.iter().filter(|address| !blocks.iter().any(|net| net.contains(*address)));
    let hosts = borrowed.copied().map(IpNet::from);
    let prefixes = blocks.iter().copied().chain(hosts);
    prefixes.filter_map(|net| Prefix::new(net.network(), net.prefix_len()).ok()).collect()
}

/// Carries routes from the speaker to felix, which alone writes them, and back what became of them.
async fn carry(
    mut fib: FibReceiver,
    (felix, speaker, asks): (felix::driver::Handle, Handle, mpsc::UnboundedSender<Ask>),
    count: watch::Sender<u64>,
    restarting: bool,
) {
    let mut known = BTreeSet::new();
    let mut sweep_at = None;
    let mut outcomes = felix.follow_fib().await;
    loop {
        let alarm = sweep_at.unwrap_or_else(Instant::now);
        let batch = tokio::select! {
            batch = fib.recv() => batch,
            Some(outcomes) = outcomes.recv() => {
                let outcomes = outcomes.into_iter().filter_map(outcome).collect();
                // The next batch tells that it has stopped.
                let _ = speaker.fib_outcomes(outcomes);
                continue;
            }
            () = tokio::time::sleep_until(alarm), if sweep_at.is_some() => {
                sweep_at = None;
                felix.fib_synced().await;
                continue;
            }
        };
        let Some(batch) = batch else { return };
        if !batch.next_hops.is_empty() {
            // The listener lives as long as we do.
            let _ = asks.send(Ask::NextHops(batch.next_hops));
        }
        let mut entries = Vec::new();
        for update in batch.updates {
            let address = update.prefix.address();
            let Ok(prefix) = IpNet::new(address, update.prefix.length()) else { continue };
            let route = fib_route(&update.route);
            if route == FibRoute::Absent {
                known.remove(&prefix);
            } else {
                known.insert(prefix);
            }
            entries.push(FibEntry { prefix, route });
        }
        felix.set_fib(entries).await;
        if batch.complete && restarting {
            sweep_at = Some(Instant::now() + SWEEP_DELAY);
        } else if batch.complete {
            felix.fib_synced().await;
        }
        count.send_replace(u64::try_from(known.len()).unwrap_or(u64::MAX));
    }
}

fn fib_route(route: &bgp::FibRoute) -> FibRoute {
    let hop = |hop: &bgp::FibNextHop| (hop.address, hop.interface.clone());
    match route {
        bgp::FibRoute::Absent => FibRoute::Absent,
        bgp::FibRoute::Via(hops) => FibRoute::Via(hops.iter().map(hop).collect()),
        bgp::FibRoute::Blackhole => FibRoute::Blackhole,
    }
}

fn outcome(outcome: felix::driver::FibOutcome) -> Option<FibOutcome> {
    let felix::driver::FibOutcome { prefix, refused } = outcome;
    let prefix = Prefix::new(prefix.network(), prefix.prefix_len()).ok()?;
    Some(FibOutcome { prefix, refused })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_to_peers_behind_gateways_come_change_and_go() {
        let view = |gateway: Option<&str>| {
            let mut view = BgpView::default();
            let node = serde_json::json!({"metadata": {"name": "n1", "annotations": {"projectcalico.org/IPv4Address": "10.0.0.1/24"}}, "spec": {}});
            view.nodes.insert("n1".into(), serde_json::from_value(node).unwrap());
            let spec =
                serde_json::json!({"peerIP": "10.9.0.1", "asNumber": 1, "reachableBy": gateway});
            let peer = serde_json::json!({"metadata": {"name": "leaf"}, "spec": spec});
            view.peers.insert("leaf".into(), serde_json::from_value(peer).unwrap());
            crate::peering::peerings(&view, "n1").0
        };
        let mut gateways = Gateways::default();
        let mut told = |peerings: Vec<Peering>| {
            gateways.want(&peerings);
            let changes = gateways.changes();
            assert!(gateways.changes().is_empty());
            let text = changes.iter().map(|each| format!("{} {:?}", each.prefix, each.route));
            text.collect::<Vec<_>>().join("\n")
        };
        assert_eq!(told(view(None)), "");
        assert_eq!(told(view(Some("10.0.0.254"))), "10.9.0.1/32 Via([(10.0.0.254, None)])");
        assert_eq!(told(view(Some("10.0.0.253"))), "10.9.0.1/32 Via([(10.0.0.253, None)])");
        assert_eq!(told(view(None)), "10.9.0.1/32 Absent");
    }

    /// A peer that nothing was learned from is not waited for, although there is a route to it.
    #[test]
    fn after_a_restart_only_those_count_that_traffic_flows_to_because_of_bgp() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let route = |prefix: &str, gateway: &str| {
            let hops = vec![kernel::NextHop::gateway(address(gateway))];
            kernel::Route::unicast(prefix.parse().unwrap(), hops)
        };
        let gateways = BTreeMap::from([("10.9.0.1/32".parse().unwrap(), address("10.0.0.254"))]);
        let left = |routes: &[kernel::Route]| Left::of(routes, &gateways);
        let via =
            |all: &[&str]| Some(Left { via: Some(all.iter().map(|each| address(each)).collect()) });
        assert_eq!(left(&[]), None);
        let way = route("10.9.0.1/32", "10.0.0.254");
        assert_eq!(left(std::slice::from_ref(&way)), via(&[]));
        let learned = route("10.244.0.0/26", "10.0.0.7");
        assert_eq!(left(&[way.clone(), learned.clone()]), via(&["10.0.0.7"]));
        // Not the gateway that is wanted now: it may have been learned.
        assert_eq!(left(&[route("10.9.0.1/32", "10.0.0.253")]), via(&["10.0.0.253"]));
        let blackhole = kernel::Route::blackhole("192.0.2.1/32".parse().unwrap());
        assert_eq!(left(&[way, learned, blackhole]), Some(Left { via: None }));
    }

    #[test]
    fn own_blocks_are_announced_whole_and_borrowed_addresses_alone() {
        let blocks = ["10.244.0.0/26", "fd00:10:244::/122"].map(|net| net.parse().unwrap());
        let local = ["10.244.0.5", "10.244.9.9", "fd00:10:244::7", "fd00:10:244:1::7"]
            .map(|address| address.parse().unwrap());
        let announced = announcements(&BTreeSet::from(blocks), &BTreeSet::from(local));
        let text: Vec<String> = announced.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["10.244.0.0/26", "10.244.9.9/32", "fd00:10:244::/122", "fd00:10:244:1::7/128"]
        );
    }
}
