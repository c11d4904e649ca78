//! The leader's work: look, plan, apply, report; again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use api::{
    BlockAffinity, ClusterInformation, IpPool, IpReservation, IpamBlock, IpamConfiguration,
    IpamHandle, Key, KubeControllersConfiguration, Node, Pod, Resource,
};
use ipam::{
    Clock,
    collector::{self, Applied, Inventory, Observations, ReleasePlan, Rules},
};
use store::{
    Store, Stored,
    informer::{Cache, FollowOptions},
};
use tokio::sync::watch;

use super::numbers::Numbers;

/// When to ask again whether everything is read.
const SOON: Duration = Duration::from_secs(1);

/// What is known of the work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Looks since this copy leads.
    pub(crate) passes: u64,
    /// When the last one was, RFC 3339.
    pub(crate) last_pass: Option<String>,
    /// Why nothing is collected at the moment.
    pub(crate) not_ready: Option<String>,
    /// What could not be released in the last pass.
    pub(crate) errors: Vec<String>,
    /// Counts for the metrics.
    pub(crate) numbers: Numbers,
}

/// Watches of everything that the collector looks at.
struct Watches {
    blocks: Cache<IpamBlock>,
    affinities: Cache<BlockAffinity>,
    handles: Cache<IpamHandle>,
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    pools: Cache<IpPool>,
    reservations: Cache<IpReservation>,
    configuration: Cache<IpamConfiguration>,
    cluster: Cache<ClusterInformation>,
    settings: Cache<KubeControllersConfiguration>,
}

impl Watches {
    fn new<S: Store>(store: &S) -> Self {
        fn follow<R: Resource>(store: &impl Store) -> Cache<R> {
            Cache::follow(store.clone(), FollowOptions::default())
        }
        Self {
            blocks: follow(store),
            affinities: follow(store),
            handles: follow(store),
            nodes: follow(store),
            pods: follow(store),
            pools: follow(store),
            reservations: follow(store),
            configuration: follow(store),
            cluster: follow(store),
            settings: follow(store),
        }
    }

    /// Why a look at the caches would not be a look at the cluster.
    fn not_ready(&self) -> Option<String> {
        let all = [
            ("IPAMBlocks", self.blocks.status()),
            ("BlockAffinities", self.affinities.status()),
            ("IPAMHandles", self.handles.status()),
            ("Nodes", self.nodes.status()),
            ("Pods", self.pods.status()),
            ("IPPools", self.pools.status()),
            ("IPAMConfiguration", self.configuration.status()),
            ("ClusterInformation", self.cluster.status()),
            ("KubeControllersConfiguration", self.settings.status()),
        ];
        let open = all.iter().find(|(_, status)| !status.synced || !status.connected);
        if let Some((kind, status)) = open {
            let how =
                if status.synced { "are not watched at the moment" } else { "are not read yet" };
            return Some(format!("{kind} {how}"));
        }
        let cluster = self.cluster.get(&Key::cluster("default"));
        let locked = cluster.is_some_and(|one| one.spec.datastore_ready == Some(false));
        locked.then(|| {
            "the datastore is locked: ClusterInformation default has datastoreReady: false"
                .to_owned()
        })
    }

    /// `ipCooldownSeconds`; absent means none.
    fn cooldown(&self) -> Duration {
        let stored = self.configuration.get(&Key::cluster("default"));
        let seconds = stored.and_then(|stored| stored.spec.ip_cooldown_seconds);
        Duration::from_secs(seconds.unwrap_or_default().into())
    }

    /// `leakGracePeriod`; absent means the default, 0 means never.
    fn grace(&self) -> Option<Duration> {
        let settings = self.settings.get(&Key::cluster("default"))?;
        let text = settings.spec.controllers.node.as_ref()?.leak_grace_period.clone()?;
        let parsed = api::net::parse_duration(&text);
        if parsed.is_none() {
            tracing::warn!(leak_grace_period = %text, "KubeControllersConfiguration default: no duration; using the default");
        }
        parsed
    }
}

/// The collector and its memory.
pub(crate) struct Collector<S> {
    store: S,
    watches: Watches,
    period: Duration,
    grace: Option<Duration>,
    clock: Clock,
}

impl<S: Store> Collector<S> {
    pub(crate) fn new(store: S, period: Duration, grace: Option<Duration>, clock: Clock) -> Self {
        Self { watches: Watches::new(&store), store, period, grace, clock }
    }

    /// Collects while this copy leads, until the task is dropped.
    pub(crate) async fn run(
        self,
        mut leading: watch::Receiver<bool>,
        report: watch::Sender<Report>,
    ) {
        loop {
            self.wait(&mut leading, &report).await;
            let mut seen = Observations::default();
            report.send_replace(Report::default());
            while *leading.borrow_and_update() {
                tokio::select! {
                    // Whoever lost the Lease stops in the middle: every single write is guarded by what was read.
                    changed = leading.changed() => if changed.is_err() { return },
                    looked = self.pass(&mut seen, &report) => {
                        let pause = if looked { self.period } else { self.period.min(SOON) };
                        tokio::select! {
                            changed = leading.changed() => if changed.is_err() { return },
                            () = tokio::time::sleep(pause) => {}
                        }
                    }
                }
            }
        }
    }

    /// Waits to lead; says meanwhile whether it could.
    async fn wait(&self, leading: &mut watch::Receiver<bool>, report: &watch::Sender<Report>) {
        while !*leading.borrow_and_update() {
            report
                .send_replace(Report { not_ready: self.watches.not_ready(), ..Report::default() });
            tokio::select! {
                _ = leading.changed() => {}
                () = tokio::time::sleep(SOON) => {}
            }
        }
    }

    fn rules(&self) -> Rules {
        let mut rules = Rules { cooldown: self.watches.cooldown(), ..Rules::default() };
        if let Some(grace) = self.grace.or_else(|| self.watches.grace()) {
            rules.grace = Some(grace).filter(|grace| !grace.is_zero());
        }
        rules
    }

    /// Asks which virtual machines there are when one has an address. `None`: nobody knows, and their addresses are kept.
    async fn machines(
        &self,
        blocks: &[Arc<Stored<IpamBlock>>],
    ) -> Option<BTreeSet<(String, String)>> {
        let mut owners = blocks.iter().flat_map(|block| &block.spec.attributes);
        if !owners.any(collector::is_of_machine) {
            return None;
        }
        collector::machines(&self.store).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "virtual machines cannot be read; their addresses are kept");
            None
        })
    }

    /// One look; returns whether there was something to look at.
    async fn pass(&self, seen: &mut Observations, report: &watch::Sender<Report>) -> bool {
        if let Some(reason) = self.watches.not_ready() {
            report.send_modify(|report| report.not_ready = Some(reason));
            return false;
        }
        let watches = &self.watches;
        let (blocks, affinities) = (watches.blocks.list(), watches.affinities.list());
        let (handles, nodes) = (watches.handles.list(), watches.nodes.list());
        let (pods, pools) = (watches.pods.list(), watches.pools.list());
        let machines = self.machines(&blocks).await;
        let inventory = Inventory {
            blocks: blocks.iter().map(inner).collect(),
            affinities: affinities.iter().map(inner).collect(),
            handles: handles.iter().map(inner).collect(),
            nodes: nodes.iter().map(inner).collect(),
            pods: pods.iter().map(inner).collect(),
            pools: Some(pools.iter().map(inner).collect()),
            machines: machines.as_ref(),
        };
        let now = self.clock.now();
        let (next, plan) = collector::plan(&inventory, seen, now, &self.rules());
        *seen = next;
        let owners = owners(&inventory, &plan);
        let applied = if plan.is_empty() {
            Applied::default()
        } else {
            collector::apply(&self.store, &plan, &self.clock).await
        };
        tell(&applied);
        let (pools, reservations) = (watches.pools.list(), watches.reservations.list());
        let counted = Numbers::count(
            &inventory.blocks,
            pools.iter().map(inner),
            reservations.iter().map(inner),
        );
        report.send_modify(|report| {
            let reclaimed = report.numbers.take_reclaimed();
            report.numbers = counted;
            report.numbers.observe(seen.candidates());
            report.numbers.reclaim(reclaimed, applied.addresses.iter().map(|one| owners.get(one)));
            report.passes += 1;
            report.last_pass = Some(now.rfc3339());
            report.not_ready = None;
            report.errors =
                applied.errors.iter().map(|(what, error)| format!("{what}: {error}")).collect();
        });
        true
    }
}

fn inner<R>(stored: &Arc<Stored<R>>) -> &R {
    stored
}

/// Nodes of the addresses that a plan releases.
fn owners(inventory: &Inventory<'_>, plan: &ReleasePlan) -> BTreeMap<IpAddr, String> {
    if plan.handles.is_empty() {
        return BTreeMap::new();
    }
    let assigned = inventory.blocks.iter().flat_map(|block| ipam::block::assigned(&block.spec));
    let node = |owner: &api::AllocationAttribute| owner.secondary.get("node").cloned();
    assigned.filter_map(|(address, owner)| Some((address, node(owner)?))).collect()
}

fn tell(applied: &Applied) {
    for block in &applied.blocks {
        tracing::info!(%block, "block released");
    }
    for affinity in &applied.affinities {
        tracing::info!(%affinity, "claim that owned nothing removed");
    }
    for handle in &applied.handles {
        tracing::info!(%handle, "handle brought in line with its blocks");
    }
    for (what, error) in &applied.errors {
        tracing::warn!(%what, %error, "not released; the next pass tries again");
    }
}
