//! Two controllers over a store in memory, on virtual time.

use std::time::Duration;

use api::{IpPool, IpPoolSpec, IpamBlock, Key, Lease, Node, Pod, PodSpec};
use clap::Parser as _;
use ipam::{Allocator, AssignRequest, Clock, Owner, UnixNanos};
use store::{ListOptions, Store, memory::MemoryStore};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::*;

const START: u64 = 1_790_000_000_000_000_000;

/// The clock of the virtual time.
fn clock() -> Clock {
    let begun = Instant::now();
    Clock::new(move || {
        UnixNanos(START + u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX))
    })
}

struct Cluster {
    store: MemoryStore,
    clock: Clock,
}

impl Cluster {
    async fn new() -> Self {
        let store = MemoryStore::new();
        for node in ["n1", "n2"] {
            store.create(&Node::new(node, api::NodeSpec::default())).await.unwrap();
        }
        let spec = IpPoolSpec { cidr: "10.244.0.0/16".to_owned(), ..IpPoolSpec::default() };
        store.create(&IpPool::new("pool", spec)).await.unwrap();
        Self { store, clock: clock() }
    }

    fn start(&self, identity: &str) -> (JoinSet<()>, Controller) {
        let args = Args::parse_from(["voile-controller", "--namespace", "net"]);
        let mut tasks = JoinSet::new();
        let controller = start(&mut tasks, self.store.clone(), &args, identity, self.clock.clone());
        (tasks, controller)
    }

    /// Gives an address to a pod of a node, and makes the pod if it shall live.
    async fn assign(&self, node: &str, pod: &str, lives: bool) {
        let mut options = ipam::Options::default();
        options.clock = self.clock.clone();
        let allocator = Allocator::with_options(self.store.clone(), node, options);
        let request = AssignRequest {
            handle: format!("k8s-pod-network.{pod}"),
            owner: Owner::pod(node, "ns", pod),
            pod_annotations: Default::default(),
            namespace_annotations: Default::default(),
            namespace_labels: Default::default(),
            requested: Vec::new(),
            machine: None,
        };
        let addresses = allocator.assign_for_pod(request).await.unwrap();
        if lives {
            let spec = PodSpec { node_name: Some(node.to_owned()), ..PodSpec::default() };
            let mut object = Pod::in_namespace("ns", pod, spec);
            let text: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let annotation = "cni.projectcalico.org/podIPs".to_owned();
            object.metadata.annotations.insert(annotation, text.join(","));
            self.store.create(&object).await.unwrap();
        }
    }

    async fn handles(&self) -> Vec<String> {
        let blocks = self.store.list::<IpamBlock>(&ListOptions::consistent()).await.unwrap();
        let assigned = blocks.items.iter().flat_map(|block| ipam::block::assigned(&block.spec));
        assigned.filter_map(|(_, owner)| owner.handle_id.clone()).collect()
    }

    async fn holder(&self) -> String {
        let lease = self.store.get::<Lease>(&Key::namespaced("net", LEASE)).await.unwrap();
        lease.spec.holder_identity.clone().unwrap_or_default()
    }
}

async fn page(controller: &Controller, path: &str) -> String {
    let page = pages(controller.clone())(path).expect("a page");
    page.await.body
}

#[tokio::test(start_paused = true)]
async fn the_leader_collects_what_leaked_after_the_grace_period_and_nothing_else() {
    let cluster = Cluster::new().await;
    cluster.assign("n1", "lives", true).await;
    cluster.assign("n1", "leaked", false).await;
    let (_tasks, controller) = cluster.start("a");
    sleep(Duration::from_secs(14 * 60)).await;
    assert_eq!(cluster.handles().await.len(), 2, "{}", page(&controller, "/status").await);
    let metrics = page(&controller, "/metrics").await;
    for line in [
        "voile_controller_leader 1",
        "ipam_allocations_in_use{ippool=\"pool\",node=\"n1\"} 2",
        "ipam_allocations_gc_candidates{node=\"n1\"} 1",
        "ipam_blocks{ippool=\"pool\",node=\"n1\"} 1",
        "ipam_ippool_size{ippool=\"pool\"} 65536",
    ] {
        assert!(metrics.lines().any(|one| one == line), "no {line} in\n{metrics}");
    }
    sleep(Duration::from_secs(3 * 60)).await;
    assert_eq!(cluster.handles().await, ["k8s-pod-network.lives"]);
    sleep(Duration::from_secs(60)).await;
    let metrics = page(&controller, "/metrics").await;
    let line = "ipam_allocations_gc_reclamations{node=\"n1\"} 1";
    assert!(metrics.lines().any(|one| one == line), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_other_takes_over_with_a_memory_of_its_own() {
    let cluster = Cluster::new().await;
    cluster.assign("n1", "leaked", false).await;
    let (mut first, leads) = cluster.start("a");
    sleep(Duration::from_secs(5)).await;
    let (_second, follows) = cluster.start("b");
    for _ in 0..10 {
        sleep(Duration::from_secs(60)).await;
        assert!(*leads.leading.borrow() && !*follows.leading.borrow());
    }
    assert!(!page(&follows, "/metrics").await.contains("ipam_"), "a follower counted too");
    assert_eq!(page(&follows, "/readyz").await, "ok\n");
    // Dies without a word.
    first.shutdown().await;
    sleep(Duration::from_secs(20)).await;
    assert!(*follows.leading.borrow());
    assert_eq!(cluster.holder().await, "b");
    // What the first one saw for ten minutes does not count.
    sleep(Duration::from_secs(14 * 60)).await;
    assert_eq!(cluster.handles().await.len(), 1);
    sleep(Duration::from_secs(3 * 60)).await;
    assert_eq!(cluster.handles().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_ends_in_peace_hands_over_at_once() {
    let cluster = Cluster::new().await;
    let (mut first, leads) = cluster.start("a");
    sleep(Duration::from_secs(5)).await;
    let (_second, follows) = cluster.start("b");
    sleep(Duration::from_secs(5)).await;
    first.shutdown().await;
    leads.give_back().await;
    sleep(Duration::from_secs(3)).await;
    assert!(*follows.leading.borrow());
}

#[tokio::test(start_paused = true)]
async fn a_locked_datastore_and_a_grace_of_zero_release_nothing() {
    let cluster = Cluster::new().await;
    cluster.assign("n1", "leaked", false).await;
    let spec = api::ClusterInformationSpec {
        datastore_ready: Some(false),
        ..api::ClusterInformationSpec::default()
    };
    let lock = api::ClusterInformation::new("default", spec);
    let lock = cluster.store.create(&lock).await.unwrap();
    let (_tasks, controller) = cluster.start("a");
    sleep(Duration::from_secs(40 * 60)).await;
    assert_eq!(cluster.handles().await.len(), 1);
    assert!(page(&controller, "/readyz").await.contains("datastoreReady: false"));

    let settings: api::KubeControllersConfiguration = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "default"}, "spec": {"controllers": {"node": {"leakGracePeriod": "0"}}},
    }))
    .unwrap();
    cluster.store.create(&settings).await.unwrap();
    let mut unlocked = lock;
    unlocked.spec.datastore_ready = Some(true);
    cluster.store.update(&unlocked).await.unwrap();
    sleep(Duration::from_secs(40 * 60)).await;
    assert_eq!(cluster.handles().await.len(), 1);
    assert_eq!(page(&controller, "/readyz").await, "ok\n");
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_loses_its_blocks() {
    let cluster = Cluster::new().await;
    cluster.assign("n1", "lives", true).await;
    cluster.assign("n2", "gone", false).await;
    let (_tasks, _controller) = cluster.start("a");
    sleep(Duration::from_secs(30)).await;
    cluster.store.delete::<Node>(&Key::cluster("n2"), &Default::default()).await.unwrap();
    sleep(Duration::from_secs(10 * 60)).await;
    assert_eq!(cluster.handles().await, ["k8s-pod-network.lives"]);
    let blocks = cluster.store.list::<IpamBlock>(&ListOptions::consistent()).await.unwrap();
    let owners: Vec<_> = blocks.items.iter().map(|block| block.spec.affinity.as_deref()).collect();
    assert_eq!(owners, [Some("host:n1")]);
}
