//! What assigning addresses costs: round trips to a slow datastore, time, and memory with many blocks.
//!
//! The datastore is the reference backend in memory behind a delay for each call, as an API server has. It counts.

mod slow;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use api::{BlockAffinity, IpPool, IpPoolSpec, IpamBlock, Node, NodeSpec};
use futures::future::{join_all, try_join_all};
use ipam::{Allocator, AutoAssign, Clock, Family, Owner, affinity, block};
use ipnet::{IpNet, Ipv4Net};
use store::{
    Store as _,
    memory::{MemoryStore, Verb},
};

use crate::{
    process,
    report::{Column, Row, Section, Unit, quantile},
};
use slow::Slow;

/// What each call to the datastore takes.
pub const LATENCY: Duration = Duration::from_millis(5);
/// Pods of the burst.
const BURST: u64 = 100;
/// Nodes that claim at once.
const NODES: u64 = 200;
/// Assignments one after the other.
const SERIAL: u64 = 50;
/// More allocators, whose memory is weighed: the first one's lists have made room that these use again.
const OTHERS: u64 = 4;
/// The first row of every table.
const WANTED: &str = "wanted";
const MEASURED: &str = "measured";
const NODE: &str = "node-0";

fn section(name: &str, what: &str, columns: Vec<Column>, rows: Vec<Row>) -> Section {
    let (name, what) = (name.to_owned(), what.to_owned());
    Section { name, what, baseline: WANTED, columns, rows }
}

fn column(key: &'static str, title: &'static str, unit: Unit, ratio: bool) -> Column {
    Column { key, title, unit, ratio }
}

fn row(subject: &str, values: &[Option<f64>]) -> Row {
    Row { subject: subject.to_owned(), values: values.to_vec(), fault: None }
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests, far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

/// A cluster of nodes and one pool of /26 blocks.
async fn cluster(pool: &str, nodes: u64) -> Result<MemoryStore> {
    let store = MemoryStore::new();
    let spec = IpPoolSpec { cidr: pool.to_owned(), block_size: Some(26), ..IpPoolSpec::default() };
    store.create(&IpPool::new("pool", spec)).await?;
    for node in 0..nodes {
        store.create(&Node::new(format!("node-{node}"), NodeSpec::default())).await?;
    }
    Ok(store)
}

/// A node's allocator whose watches have seen everything.
async fn allocator(store: &MemoryStore, node: &str) -> Result<Allocator<Slow>> {
    let allocator = Allocator::new(Slow::new(store.clone(), LATENCY), node);
    // Nothing to release: the watches are ready when this is answered.
    allocator.release_by_handle("none").await?;
    Ok(allocator)
}

fn request(node: &str, handle: &str) -> AutoAssign {
    let owner = Owner::pod(node, "default", handle);
    AutoAssign { handle: handle.to_owned(), owner, num4: 1, ..AutoAssign::default() }
}

/// Requests that changed something, and those that only looked.
fn writes_and_reads(store: &MemoryStore) -> (f64, f64) {
    let requests = store.requests();
    let writes = requests.iter().filter(|request| request.verb.writes()).count();
    let count = |count: usize| number(u64::try_from(count).unwrap_or(u64::MAX));
    (count(writes), count(requests.len() - writes))
}

fn block_writes(store: &MemoryStore) -> f64 {
    let verbs = [Verb::Create, Verb::Update, Verb::Patch, Verb::Delete];
    number(verbs.into_iter().map(|verb| store.count::<IpamBlock>(verb)).sum())
}

fn all_different(addresses: &[Vec<IpNet>], wanted: u64) -> Result<()> {
    let different: BTreeSet<IpAddr> = addresses.iter().flatten().map(IpNet::addr).collect();
    let count = u64::try_from(different.len())?;
    ensure!(count == wanted, "{count} different addresses for {wanted} pods");
    Ok(())
}

/// Assignments one after the other on a node that has its block.
pub async fn assign() -> Result<Section> {
    let store = cluster("10.0.0.0/16", 1).await?;
    let ipam = allocator(&store, NODE).await?;
    ipam.ensure_block(Family::V4).await?;
    store.forget_requests();
    let mut times = Vec::new();
    let mut addresses = Vec::new();
    for pod in 0..SERIAL {
        let start = Instant::now();
        addresses.push(ipam.auto_assign(request(NODE, &format!("pod-{pod}"))).await?);
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    all_different(&addresses, SERIAL)?;
    let (writes, reads) = writes_and_reads(&store);
    let (writes, reads) = (writes / number(SERIAL), reads / number(SERIAL));
    let measured = [Some(writes), Some(reads), quantile(&times, 0.5), quantile(&times, 0.99)];
    Ok(section(
        "assign",
        "one address after the other on a node that has a block, figures of one assignment",
        vec![
            column("writes", "writes", Unit::Count, true),
            column("reads", "reads", Unit::Count, false),
            column("p50_ms", "p50", Unit::Milliseconds, false),
            column("p99_ms", "p99", Unit::Milliseconds, false),
        ],
        vec![row(WANTED, &[Some(2.0), Some(0.0), None, None]), row(MEASURED, &measured)],
    ))
}

/// Many pods at once on one node.
pub async fn burst() -> Result<Section> {
    let store = cluster("10.0.0.0/16", 1).await?;
    let ipam = allocator(&store, NODE).await?;
    ipam.ensure_block(Family::V4).await?;
    store.forget_requests();
    let start = Instant::now();
    let asks = (0..BURST).map(|pod| ipam.auto_assign(request(NODE, &format!("pod-{pod}"))));
    let addresses = try_join_all(asks).await?;
    let seconds = start.elapsed().as_secs_f64();
    all_different(&addresses, BURST)?;
    let (writes, reads) = writes_and_reads(&store);
    let measured = [Some(block_writes(&store)), Some(writes), Some(reads), Some(seconds)];
    Ok(section(
        "burst",
        "100 pods at once on a node with one block of 64 addresses",
        vec![
            column("block_writes", "block writes", Unit::Count, true),
            column("writes", "all writes", Unit::Count, false),
            column("reads", "reads", Unit::Count, false),
            column("seconds", "time", Unit::Seconds, true),
        ],
        vec![row(WANTED, &[Some(12.0), None, Some(0.0), Some(0.5)]), row(MEASURED, &measured)],
    ))
}

/// Many nodes that claim their first block at the same moment.
pub async fn claims() -> Result<Section> {
    let store = cluster("10.0.0.0/16", NODES).await?;
    let names = (0..NODES).map(|node| format!("node-{node}"));
    let names: Vec<String> = names.collect();
    let allocators = try_join_all(names.iter().map(|node| allocator(&store, node))).await?;
    store.forget_requests();
    let start = Instant::now();
    let claims = join_all(allocators.iter().map(|ipam| ipam.ensure_block(Family::V4))).await;
    let seconds = start.elapsed().as_secs_f64();
    let claimed = claims.into_iter().collect::<std::result::Result<BTreeSet<IpNet>, _>>()?;
    let count = u64::try_from(claimed.len())?;
    ensure!(count == NODES, "{count} different blocks for {NODES} nodes");
    let attempts = number(store.count::<IpamBlock>(Verb::Create)) / number(NODES);
    let affinities = number(store.count::<BlockAffinity>(Verb::Create)) / number(NODES);
    let (writes, reads) = writes_and_reads(&store);
    let measured = [
        Some(attempts.max(affinities)),
        Some(writes / number(NODES)),
        Some(reads / number(NODES)),
        Some(seconds),
    ];
    Ok(section(
        "claims",
        "200 nodes claim their first block of an empty /16 at the same moment, figures of one node",
        vec![
            column("attempts", "attempts", Unit::Count, true),
            column("writes", "writes", Unit::Count, false),
            column("reads", "reads", Unit::Count, false),
            column("seconds", "time of all", Unit::Seconds, false),
        ],
        vec![row(WANTED, &[Some(1.5), None, None, None]), row(MEASURED, &measured)],
    ))
}

/// One node among many blocks of others.
pub async fn scale() -> Result<Section> {
    let mut rows = Vec::new();
    for blocks in [1_024, 65_536] {
        rows.push(among(blocks).await.with_context(|| format!("with {blocks} blocks"))?);
    }
    Ok(section(
        "scale",
        "a new node among blocks of others, each with 4 addresses in use",
        vec![
            column("start_seconds", "ready after", Unit::Seconds, false),
            column("memory_kib", "memory", Unit::Kib, false),
            column("claim_ms", "first block", Unit::Milliseconds, false),
            column("p50_ms", "assign p50", Unit::Milliseconds, false),
            column("p99_ms", "p99", Unit::Milliseconds, false),
            column("cpu_ms", "CPU of one", Unit::Milliseconds, false),
        ],
        rows,
    ))
}

async fn among(blocks: u32) -> Result<Row> {
    // 65,536 blocks are a /10: half of the pool.
    let store = cluster("10.0.0.0/9", 1 + OTHERS).await?;
    fill(&store, blocks).await?;
    let own = std::process::id();
    let start = Instant::now();
    let ipam = allocator(&store, NODE).await?;
    let ready = start.elapsed().as_secs_f64();
    let start = Instant::now();
    ipam.ensure_block(Family::V4).await?;
    let claim = start.elapsed().as_secs_f64() * 1000.0;
    let after = process::usage(own);
    let mut times = Vec::new();
    for pod in 0..SERIAL {
        let start = Instant::now();
        ipam.auto_assign(request(NODE, &format!("pod-{pod}"))).await?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let cpu = process::usage(own).cpu.saturating_sub(after.cpu).as_secs_f64() * 1000.0;
    let before = process::usage(own).resident_kib;
    let mut others = Vec::new();
    for node in 1..=OTHERS {
        others.push(allocator(&store, &format!("node-{node}")).await?);
    }
    let grown = process::usage(own).resident_kib.saturating_sub(before);
    let memory = number(grown / OTHERS);
    let values = [
        Some(ready),
        Some(memory),
        Some(claim),
        quantile(&times, 0.5),
        quantile(&times, 0.99),
        Some(cpu / number(SERIAL)),
    ];
    Ok(row(&format!("{blocks} blocks"), &values))
}

/// Makes blocks of other nodes, with their affinities: 16 blocks a node, 4 addresses a block.
async fn fill(store: &MemoryStore, blocks: u32) -> Result<()> {
    let now = Clock::system().now();
    for index in 0..blocks {
        let address = (0x0A00_0000 + index * 64).into();
        let net = IpNet::V4(Ipv4Net::new(address, 26)?);
        let node = format!("other-{}", index / 16);
        let mut object = block::empty(&net, Some(&affinity::of_host(&node)), now);
        for pod in 0..4 {
            let handle = format!("k8s-pod-network.{index}-{pod}");
            let attribute = api::AllocationAttribute {
                handle_id: Some(handle),
                secondary: [("node".to_owned(), node.clone())].into(),
                ..api::AllocationAttribute::default()
            };
            object.spec.attributes.push(attribute);
            if let Some(slot) = object.spec.allocations.get_mut(pod) {
                *slot = Some(u32::try_from(pod)?);
            }
        }
        object.spec.unallocated.retain(|ordinal| *ordinal >= 4);
        store.create(&object).await?;
        let mut claim = affinity::pending(&node, &net);
        claim.spec.state = api::AffinityState::Confirmed;
        store.create(&claim).await?;
    }
    Ok(())
}
