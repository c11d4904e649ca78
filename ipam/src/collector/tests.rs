use std::time::Duration;

use api::{
    AffinityState, BlockAffinity, IpPool, IpamBlock, IpamHandle, Key, Node, Pod, PodSpec, PodStatus,
};
use store::{ListOptions, Store, Stored, memory::MemoryStore};

use super::*;
use crate::{Clock, Owner, affinity, block, check, handle};

const START: u64 = 1_790_000_000_000_000_000;

/// A cluster in memory and the collector's memory.
struct Cluster {
    store: MemoryStore,
    seen: Observations,
    now: UnixNanos,
    machines: Option<BTreeSet<(String, String)>>,
    rules: Rules,
}

impl Cluster {
    async fn new(nodes: &[&str]) -> Self {
        let store = MemoryStore::new();
        for node in nodes {
            store.create(&Node::new(*node, api::NodeSpec::default())).await.unwrap();
        }
        for (name, cidr) in [("pool", "10.0.0.0/16"), ("pool-6", "fd00::/64")] {
            let pool = api::IpPoolSpec { cidr: cidr.to_owned(), ..Default::default() };
            store.create(&IpPool::new(name, pool)).await.unwrap();
        }
        Self {
            store,
            seen: Observations::default(),
            now: UnixNanos(START),
            machines: None,
            rules: Rules::default(),
        }
    }

    async fn all<R: api::Resource>(&self) -> Vec<R> {
        let listing = self.store.list::<R>(&ListOptions::consistent()).await.unwrap();
        listing.items.into_iter().map(Stored::into_inner).collect()
    }

    /// A block of a node with addresses of these owners.
    async fn block(&self, net: &str, node: &str, owners: &[(&str, Owner)]) {
        let net: IpNet = net.parse().unwrap();
        let mut object = block::empty(&net, Some(&affinity::of_host(node)), UnixNanos(START));
        for (id, owner) in owners {
            block::take_any(&mut object.spec, &owner.attribute(id, UnixNanos(START)), |_| false);
            let before = self.store.get::<IpamHandle>(&Key::cluster(handle::object_name(id))).await;
            match before {
                Ok(mut stored) => {
                    *stored.spec.block.entry(net.to_string()).or_default() += 1;
                    self.store.update(&stored).await.unwrap();
                }
                Err(_) => drop(self.store.create(&handle::new(id, &net, 1)).await.unwrap()),
            }
        }
        self.store.create(&object).await.unwrap();
        let mut claim = affinity::pending(node, &net);
        claim.spec.state = AffinityState::Confirmed;
        self.store.create(&claim).await.unwrap();
    }

    async fn pod(&self, name: &str, node: &str, address: &str) {
        let spec = PodSpec { node_name: Some(node.to_owned()), ..PodSpec::default() };
        let mut pod = Pod::in_namespace("ns", name, spec);
        pod.metadata
            .annotations
            .insert("cni.projectcalico.org/podIPs".to_owned(), address.to_owned());
        self.store.create(&pod).await.unwrap();
    }

    async fn delete<R: api::Resource>(&self, key: Key) {
        self.store.delete::<R>(&key, &Default::default()).await.unwrap();
    }

    /// Lets time pass, looks, and returns the plan.
    async fn after(&mut self, seconds: u64) -> ReleasePlan {
        self.now.0 += seconds * 1_000_000_000;
        let blocks = self.all::<IpamBlock>().await;
        let affinities = self.all::<BlockAffinity>().await;
        let handles = self.all::<IpamHandle>().await;
        let (nodes, pods) = (self.all::<Node>().await, self.all::<Pod>().await);
        let pools = self.all::<IpPool>().await;
        let inventory = Inventory {
            blocks: blocks.iter().collect(),
            affinities: affinities.iter().collect(),
            handles: handles.iter().collect(),
            nodes: nodes.iter().collect(),
            pods: pods.iter().collect(),
            pools: Some(pools.iter().collect()),
            machines: self.machines.as_ref(),
        };
        let (seen, plan) = plan(&inventory, &self.seen, self.now, &self.rules);
        self.seen = seen;
        plan
    }

    async fn apply(&self, plan: &ReleasePlan) -> Applied {
        let now = self.now;
        let clock = Clock::new(move || now);
        let applied = apply(&self.store, plan, &clock).await;
        assert!(applied.errors.is_empty(), "{:?}", applied.errors);
        applied
    }

    async fn findings(&self) -> Vec<String> {
        let state = check::State {
            blocks: &self.all().await,
            affinities: &self.all().await,
            handles: &self.all().await,
            pools: &self.all().await,
            pods: &self.all().await,
            nodes: &self.all().await,
            services: &[],
        };
        check::check(&state).iter().map(ToString::to_string).collect()
    }
}

fn names(plan: &ReleasePlan) -> Vec<String> {
    let handles = plan.handles.iter().map(|one| format!("handle {}: {}", one.handle, one.reason));
    let blocks = plan.blocks.iter().map(|one| {
        let guard = if one.if_empty_at.is_some() { ", if still empty" } else { "" };
        format!("block {} of {}{guard}", one.block, one.node)
    });
    let claims = plan.affinities.iter().map(|(name, _)| format!("affinity {name}"));
    let repairs = plan.repairs.iter().map(|one| format!("repair {} {:?}", one.handle, one.block));
    handles.chain(blocks).chain(claims).chain(repairs).collect()
}

#[tokio::test(start_paused = true)]
async fn a_leak_goes_after_two_observations_and_the_grace_period() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let owner = |pod: &str| Owner::pod("n1", "ns", pod);
    cluster.block("10.0.0.0/28", "n1", &[("h1", owner("a")), ("h2", owner("b"))]).await;
    cluster.pod("a", "n1", "10.0.0.0/32").await;
    assert!(cluster.after(0).await.is_empty());
    assert_eq!(cluster.seen.candidates(), &BTreeMap::from([("n1".to_owned(), 1)]));
    assert!(cluster.after(899).await.is_empty());
    let plan = cluster.after(1).await;
    assert_eq!(names(&plan), ["handle h2: pod ns/b is gone"]);
    assert_eq!(cluster.apply(&plan).await.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(cluster.findings().await, [""; 0]);
    assert!(cluster.after(3600).await.is_empty());
    assert!(cluster.seen.candidates().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_back_or_was_missed_by_the_watch_keeps_its_address() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.block("10.0.0.0/28", "n1", &[("h1", Owner::pod("n1", "ns", "a"))]).await;
    cluster.after(0).await;
    let plan = cluster.after(900).await;
    assert_eq!(plan.handles.len(), 1);
    cluster.pod("a", "n1", "10.0.0.0/32").await;
    assert!(cluster.apply(&plan).await.addresses.is_empty(), "looked again before releasing");
    assert!(cluster.after(0).await.is_empty());
    cluster.delete::<Pod>(Key::namespaced("ns", "a")).await;
    assert!(cluster.after(900).await.is_empty(), "the time starts over");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_assigned_anew_is_another_one() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.block("10.0.0.0/32", "n1", &[("h1", Owner::pod("n1", "ns", "a"))]).await;
    cluster.after(0).await;
    let plan = cluster.after(900).await;
    let mut stored = cluster.store.get::<IpamBlock>(&Key::cluster("10-0-0-0-32")).await.unwrap();
    block::release(&mut stored.spec, Cooldown::none(UnixNanos(START)), |_, _| true);
    stored.spec.sequence_number += 1;
    let again = Owner::pod("n1", "ns", "a").attribute("h1", UnixNanos(START));
    block::take_any(&mut stored.spec, &again, |_| false).unwrap();
    cluster.store.update(&stored).await.unwrap();
    assert!(cluster.apply(&plan).await.addresses.is_empty());
    assert!(cluster.after(0).await.handles.is_empty());
}

#[tokio::test(start_paused = true)]
async fn all_addresses_of_a_handle_go_or_none() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let owner = |pod: &str| Owner::pod("n1", "ns", pod);
    cluster.block("10.0.0.0/28", "n1", &[("both", owner("a")), ("both", owner("b"))]).await;
    cluster.block("10.0.0.16/28", "n1", &[("both", owner("b"))]).await;
    cluster.pod("a", "n1", "10.0.0.0/32").await;
    cluster.after(0).await;
    assert!(cluster.after(900).await.is_empty());
    cluster.delete::<Pod>(Key::namespaced("ns", "a")).await;
    assert!(cluster.after(0).await.is_empty(), "one of them is unused since just now");
    let plan = cluster.after(900).await;
    assert_eq!(cluster.apply(&plan).await.addresses.len(), 3);
    assert_eq!(cluster.findings().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn every_use_of_an_address_is_judged() {
    let pod = |name: &str| Owner::pod("n1", "ns", name);
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster
        .block(
            "10.0.0.0/27",
            "n1",
            &[
                ("here", pod("here")),
                ("starting", pod("starting")),
                ("elsewhere", pod("elsewhere")),
                ("other", pod("other")),
                ("over", pod("over")),
                ("host", pod("host")),
                ("tunnel", Owner::tunnel("n1", "vxlanTunnelAddress")),
                ("dead-tunnel", Owner::tunnel("n9", "ipipTunnelAddress")),
                ("dead-node", Owner::pod("n9", "ns", "gone")),
                ("machine", pod("launcher").with("vmi-name", "vm1")),
                ("machine-gone", pod("launcher").with("vmi-name", "vm2")),
                ("service", Owner::default().with("service", "web")),
                ("windows-reserved-ipam-handle", Owner::default().with("note", "windows")),
            ],
        )
        .await;
    cluster.machines = Some(BTreeSet::from([("ns".to_owned(), "vm1".to_owned())]));
    cluster.pod("here", "n1", "10.0.0.0/32").await;
    cluster.pod("starting", "n1", "").await;
    cluster.pod("elsewhere", "n2", "").await;
    cluster.pod("other", "n1", "10.0.0.99/32").await;
    for (name, host_network, phase) in [("over", false, "Succeeded"), ("host", true, "Running")] {
        let spec = PodSpec { host_network, node_name: Some("n1".to_owned()), ..PodSpec::default() };
        let mut pod = Pod::in_namespace("ns", name, spec);
        pod.status = Some(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() });
        cluster.store.create(&pod).await.unwrap();
        cluster
            .store
            .update_status(&{
                let mut stored =
                    cluster.store.get::<Pod>(&Key::namespaced("ns", name)).await.unwrap();
                stored.status = pod.status.clone();
                stored
            })
            .await
            .unwrap();
    }
    let mut story = String::new();
    for seconds in [0, 60, 840] {
        let plan = cluster.after(seconds).await;
        for line in names(&plan) {
            story.push_str(&format!("+{seconds} s: {line}\n"));
        }
        cluster.apply(&plan).await;
    }
    expect_test::expect![[r#"
        +60 s: handle dead-node: pod ns/gone is gone
        +60 s: handle dead-tunnel: its node n9 is gone
        +840 s: handle elsewhere: pod ns/elsewhere is on node n2
        +840 s: handle host: pod ns/host uses its node's address
        +840 s: handle machine-gone: virtual machine ns/vm2 is gone
        +840 s: handle other: pod ns/other has other addresses
        +840 s: handle over: pod ns/over is over
    "#]]
    .assert_eq(&story);
    cluster.machines = None;
    assert!(cluster.after(9000).await.is_empty(), "without knowing the machines, none is gone");
}

#[tokio::test(start_paused = true)]
async fn spare_empty_blocks_go_and_each_node_keeps_one() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    for net in ["10.0.0.0/28", "10.0.0.16/28", "10.0.0.32/28"] {
        cluster.block(net, "n1", &[]).await;
    }
    cluster.block("10.0.1.0/28", "n2", &[("h", Owner::pod("n2", "ns", "a"))]).await;
    cluster.block("10.0.1.16/28", "n2", &[]).await;
    cluster.block("fd00::/124", "n2", &[]).await;
    cluster.pod("a", "n2", "10.0.1.0/32").await;
    assert!(cluster.after(0).await.is_empty());
    let plan = cluster.after(60).await;
    expect_test::expect![[r#"
        [
            "block 10.0.0.16/28 of n1, if still empty",
            "block 10.0.0.32/28 of n1, if still empty",
            "block 10.0.1.16/28 of n2, if still empty",
        ]
    "#]]
    .assert_debug_eq(&names(&plan));
    // The node used one of them meanwhile.
    let mut used = cluster.store.get::<IpamBlock>(&Key::cluster("10-0-0-16-28")).await.unwrap();
    used.spec.sequence_number += 1;
    cluster.store.update(&used).await.unwrap();
    let applied = cluster.apply(&plan).await;
    assert_eq!(
        applied.blocks,
        ["10.0.0.32/28", "10.0.1.16/28"].map(|net| net.parse::<IpNet>().unwrap())
    );
    let claim = Key::cluster("n1-10-0-0-16-28");
    let claim = cluster.store.get::<BlockAffinity>(&claim).await.unwrap();
    assert_eq!(claim.spec.state, AffinityState::Confirmed);
    assert!(cluster.after(0).await.is_empty());
}

/// They give no address any more, so they do not count as the block that each node keeps; whatever has an address stays.
#[tokio::test(start_paused = true)]
async fn empty_blocks_go_whose_pool_is_gone_or_disabled() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let pool =
        api::IpPoolSpec { cidr: "10.1.0.0/16".to_owned(), disabled: true, ..Default::default() };
    cluster.store.create(&IpPool::new("disabled", pool)).await.unwrap();
    for net in ["10.0.0.0/28", "10.1.0.0/28", "10.9.0.0/28"] {
        cluster.block(net, "n1", &[]).await;
    }
    cluster.block("10.9.0.16/28", "n1", &[("h", Owner::pod("n1", "ns", "a"))]).await;
    cluster.pod("a", "n1", "10.9.0.16/32").await;
    // Also for who asks for no spare block to go: `ipam check --repair`.
    for spare_blocks in [true, false] {
        cluster.rules.spare_blocks = spare_blocks;
        cluster.seen = Observations::default();
        assert!(cluster.after(0).await.is_empty());
        let plan = cluster.after(60).await;
        let wanted =
            ["block 10.1.0.0/28 of n1, if still empty", "block 10.9.0.0/28 of n1, if still empty"];
        assert_eq!(names(&plan), wanted);
    }
    let plan = cluster.after(60).await;
    cluster.apply(&plan).await;
    assert_eq!(
        cluster.findings().await,
        [
            "block 10.9.0.16/28 is in no pool",
            "10.9.0.16 is used by pod ns/a and in no enabled pool"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_loses_everything_and_one_that_comes_back_nothing() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    cluster.block("10.0.0.0/28", "n1", &[("h", Owner::pod("n1", "ns", "a"))]).await;
    cluster.block("10.0.0.16/28", "n1", &[]).await;
    cluster.block("10.0.1.0/28", "n2", &[]).await;
    let twice = affinity::pending("n1", &"10.0.9.0/28".parse().unwrap());
    cluster.store.create(&twice).await.unwrap();
    for node in ["n1", "n2"] {
        cluster.delete::<Node>(Key::cluster(node)).await;
    }
    assert!(cluster.after(0).await.is_empty());
    let plan = cluster.after(60).await;
    cluster.store.create(&Node::new("n2", api::NodeSpec::default())).await.unwrap();
    cluster.apply(&plan).await;
    assert_eq!(cluster.findings().await, [""; 0]);
    assert_eq!(cluster.all::<IpamBlock>().await.len(), 1);
    assert_eq!(cluster.all::<BlockAffinity>().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_crashes_left_over_is_finished() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.block("10.0.0.0/28", "n1", &[("h", Owner::pod("n1", "ns", "a"))]).await;
    cluster.pod("a", "n1", "10.0.0.0/32").await;
    let net: IpNet = "10.0.0.0/28".parse().unwrap();
    let far: IpNet = "10.0.9.0/28".parse().unwrap();
    cluster.store.create(&handle::new("orphan", &net, 1)).await.unwrap();
    cluster.store.create(&affinity::pending("n1", &far)).await.unwrap();
    let mut counted = cluster.store.get::<IpamHandle>(&Key::cluster("h")).await.unwrap();
    counted.spec.block = [(net.to_string(), 5), (far.to_string(), 1)].into();
    cluster.store.update(&counted).await.unwrap();
    assert_eq!(cluster.findings().await.len(), 4);
    cluster.after(0).await;
    assert!(cluster.after(899).await.is_empty());
    let plan = cluster.after(1).await;
    expect_test::expect![[r#"
        [
            "affinity n1-10-0-9-0-28",
            "repair h {\"10.0.0.0/28\": 1}",
            "repair orphan {}",
        ]
    "#]]
    .assert_debug_eq(&names(&plan));
    cluster.apply(&plan).await;
    assert_eq!(cluster.findings().await, [""; 0]);
}

/// Somebody died who gave a block back, and it has an address: it stays its node's.
#[tokio::test(start_paused = true)]
async fn a_block_in_use_is_not_given_back_to_the_end() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.block("10.0.0.0/28", "n1", &[("h", Owner::pod("n1", "ns", "a"))]).await;
    cluster.pod("a", "n1", "10.0.0.0/32").await;
    let name = affinity::object_name("n1", &"10.0.0.0/28".parse().unwrap());
    let mut claim = cluster.store.get::<BlockAffinity>(&Key::cluster(name)).await.unwrap();
    claim.spec.state = AffinityState::PendingDeletion;
    cluster.store.update(&claim).await.unwrap();
    assert_eq!(cluster.findings().await.len(), 2);
    cluster.after(0).await;
    let plan = cluster.after(900).await;
    assert_eq!(names(&plan), ["block 10.0.0.0/28 of n1, if still empty"]);
    cluster.apply(&plan).await;
    assert_eq!(cluster.findings().await, [""; 0]);
    let blocks = cluster.all::<IpamBlock>().await;
    assert_eq!(blocks[0].spec.affinity.as_deref(), Some("host:n1"));
}

#[tokio::test(start_paused = true)]
async fn addresses_cool_down_and_then_their_block_may_go() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.rules.cooldown = Duration::from_secs(300);
    cluster.block("10.0.0.0/28", "n1", &[("h", Owner::pod("gone", "ns", "a"))]).await;
    cluster.block("10.0.0.16/28", "n1", &[]).await;
    let mut story = String::new();
    for seconds in [0, 60, 60, 239, 1, 0, 60] {
        let plan = cluster.after(seconds).await;
        let applied = cluster.apply(&plan).await;
        story.push_str(&format!("+{seconds} s: {:?} {:?}\n", applied.addresses, applied.blocks));
    }
    expect_test::expect![[r#"
        +0 s: [] []
        +60 s: [10.0.0.0] [10.0.0.16/28]
        +60 s: [] []
        +239 s: [] []
        +1 s: [] []
        +0 s: [] []
        +60 s: [] []
    "#]]
    .assert_eq(&story);
    let left = cluster.all::<IpamBlock>().await;
    assert!(left.len() == 1 && block::is_empty(&left[0].spec));
    assert_eq!(cluster.findings().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn without_a_grace_period_no_address_goes() {
    let cluster = Cluster::new(&["n1"]).await;
    cluster.block("10.0.0.0/28", "n1", &[("h", Owner::pod("n1", "ns", "a"))]).await;
    let blocks = cluster.all::<IpamBlock>().await;
    let inventory = Inventory { blocks: blocks.iter().collect(), ..Inventory::default() };
    let rules = Rules { grace: None, settle: Duration::from_secs(1), ..Rules::default() };
    let (seen, _) = plan(&inventory, &Observations::default(), UnixNanos(START), &rules);
    let later = UnixNanos(START + 1_000_000_000_000_000);
    let (_, plan) = plan(&inventory, &seen, later, &rules);
    assert!(plan.handles.is_empty() && plan.repairs.is_empty());
}

/// One who releases a pod's addresses one by one may die between two.
#[tokio::test(start_paused = true)]
async fn an_address_goes_alone_when_its_pod_names_others() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let owner = || Owner::pod("n1", "ns", "a");
    cluster.block("10.0.0.0/28", "n1", &[("h1", owner()), ("h1", owner())]).await;
    cluster.block("10.0.0.16/28", "n1", &[("h1", owner())]).await;
    cluster.pod("a", "n1", "10.0.0.1/32").await;
    assert!(cluster.after(0).await.is_empty());
    let plan = cluster.after(900).await;
    assert_eq!(names(&plan), ["handle h1: pod ns/a has other addresses"]);
    let mut gone = cluster.apply(&plan).await.addresses;
    gone.sort();
    assert_eq!(gone.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0", "10.0.0.16"]);
    assert_eq!(cluster.findings().await, [""; 0]);
}

/// A status may name one of several addresses: only the annotation is known to name all.
#[tokio::test(start_paused = true)]
async fn no_address_goes_alone_because_of_a_status() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let owner = || Owner::pod("n1", "ns", "a");
    cluster.block("10.0.0.0/28", "n1", &[("h1", owner()), ("h1", owner())]).await;
    let spec = PodSpec { node_name: Some("n1".to_owned()), ..PodSpec::default() };
    let mut pod = Pod::in_namespace("ns", "a", spec);
    pod.status = Some(PodStatus { pod_ip: Some("10.0.0.1".to_owned()), ..PodStatus::default() });
    cluster.store.create(&pod).await.unwrap();
    assert!(cluster.after(0).await.is_empty());
    assert_eq!(names(&cluster.after(9000).await), [""; 0]);
}
