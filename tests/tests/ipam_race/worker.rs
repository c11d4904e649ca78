//! An allocator's process: the node's real allocator with its watches, pods that come and go, and a journal of it.
//!
//! What a former life left is treated as a node does: addresses that the journal does not know for certain are released by
//! handle, as the runtime does with sandboxes that it lost, or found in the node's own blocks ([`ipam::reconcile`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, Read as _},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::IpamBlock;
use ipam::{
    Allocator, AssignError, AutoAssign, Clock, Family, Options, Owner, UnixNanos, affinity,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use store::{
    ListOptions, Store as _,
    kube::{KubeOptions, KubeStore},
    random::Random,
};
use tokio::{sync::watch, task::JoinSet};

use crate::journal::{Book, Fact, Reader, Record, Writer};

/// Time goes this much faster here: an empty block is ripe for others after three seconds instead of a minute.
const HASTE: u64 = 20;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Youngest address to be taken for left over, in hasty time: a second.
const GRACE: Duration = Duration::from_secs(20);
/// Namespace of the pods.
pub(crate) const NAMESPACE: &str = "race";

/// What a process is told on the first line of its input. The end of its input is the end of its work.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Task {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) journal: PathBuf,
    pub(crate) node: String,
    /// How many processes had the name before.
    pub(crate) life: u64,
    /// The first life of which something may be at work now: that of a process which ends while this one begins.
    pub(crate) oldest: u64,
    pub(crate) seed: u64,
    /// When hasty time began.
    pub(crate) epoch: u64,
    pub(crate) work: Work,
    /// Handles with addresses.
    pub(crate) held: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Handles of which a former life does not say how it ended.
    pub(crate) open: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Work {
    /// Pods come and go, at most so many at once, in so many places at the same time.
    Churn { pods: usize, places: u64 },
    /// End what is open, then end.
    Settle,
}

/// A sandbox that even the runtime lost: the allocator and the collector must find what it had.
pub(crate) fn is_forgotten(handle: &str) -> bool {
    handle.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % 16
        == 0
}

pub(crate) fn main() -> ExitCode {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let task: Task = serde_json::from_str(&line).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (stop, stopped) = watch::channel(false);
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        drop(std::io::stdin().lock().read_to_end(&mut rest));
        stop.send_replace(true);
    });
    runtime.block_on(run(task, stopped));
    ExitCode::SUCCESS
}

async fn run(task: Task, stopped: watch::Receiver<bool>) {
    let mut options = KubeOptions::default();
    (options.rate, options.timeout) = (None, PATIENCE);
    let store = KubeStore::from_kubeconfig(&task.kubeconfig, None, options).await.unwrap();
    let node = Arc::new(Node::new(store, &task, stopped));
    let mut random = Random::seeded(task.seed);
    match task.work {
        Work::Churn { pods, places } => {
            let mut jobs = JoinSet::new();
            // As the runtime does after a start, beside new work.
            for handle in task.open {
                if !is_forgotten(&handle) {
                    let node = Arc::clone(&node);
                    jobs.spawn(async move { node.release(&handle).await });
                }
            }
            jobs.spawn({
                let node = Arc::clone(&node);
                async move { node.repair_until_stopped().await }
            });
            for _ in 0..places {
                let (node, random) = (Arc::clone(&node), Random::seeded(random.next_u64()));
                jobs.spawn(async move { node.churn(random, pods).await });
            }
            while let Some(done) = jobs.join_next().await {
                done.unwrap();
            }
        }
        Work::Settle => {
            for handle in task.open.iter().filter(|handle| !is_forgotten(handle)) {
                node.release(handle).await;
            }
            node.settle().await;
        }
    }
}

struct Node {
    name: String,
    life: u64,
    store: KubeStore,
    ipam: Allocator<KubeStore>,
    clock: Clock,
    journal: Writer,
    /// What all processes of this node's name wrote: as a daemon reads the sandboxes of its node from disk.
    book: Mutex<(Reader, Book)>,
    oldest: u64,
    stopped: watch::Receiver<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Pods that run, with their addresses.
    held: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Handles of requests in work.
    busy: BTreeSet<String>,
    /// Blocks that addresses came from.
    blocks: BTreeSet<IpNet>,
    pods: u64,
    /// Whether there are to be fewer pods.
    ebbs: bool,
}

/// What a pod asks for: families, and pools other than those for everybody.
const WISHES: &[(u32, u32, &[&str])] = &[
    (1, 0, &[]),
    (1, 0, &[]),
    (1, 0, &[]),
    (1, 0, &[]),
    (1, 0, &[]),
    (1, 1, &[]),
    (1, 1, &[]),
    (0, 1, &[]),
    (1, 0, &["small"]),
    (2, 0, &["small"]),
    (1, 0, &["single"]),
];

impl Node {
    fn new(store: KubeStore, task: &Task, stopped: watch::Receiver<bool>) -> Self {
        let (system, epoch) = (Clock::system(), task.epoch);
        let clock = Clock::new(move || {
            let passed = system.now().0.saturating_sub(epoch);
            UnixNanos(epoch + passed * HASTE)
        });
        let mut options = Options::default();
        options.clock = clock.clone();
        let ipam = Allocator::with_options(store.clone(), &task.node, options);
        let state = State { held: task.held.clone(), ..State::default() };
        Self {
            name: task.node.clone(),
            life: task.life,
            store,
            ipam,
            clock,
            journal: Writer::open(&task.journal),
            book: Mutex::new((Reader::open(&task.journal), Book::default())),
            oldest: task.oldest,
            stopped,
            state: Mutex::new(state),
        }
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    fn note(&self, handle: &str, fact: Fact) {
        let (node, handle) = (self.name.clone(), handle.to_owned());
        self.journal.write(&Record { node, handle, fact });
    }

    /// One place: a pod after the other, started or ended.
    async fn churn(&self, mut random: Random, most: usize) {
        while !self.is_stopped() {
            let victim = {
                let mut state = self.state.lock().unwrap();
                let count = state.held.len();
                if count >= most {
                    state.ebbs = true;
                } else if count <= most / 8 {
                    state.ebbs = false;
                }
                let fewer = random.chance(if state.ebbs { 800 } else { 200 });
                let nth = usize::try_from(random.below(count.max(1) as u64)).unwrap();
                let name = state.held.keys().nth(nth).filter(|_| fewer).cloned();
                name.and_then(|name| state.held.remove_entry(&name))
            };
            match victim {
                // Not of a sandbox that will be forgotten: half released it would still be a pod's, and neither node nor collector
                // takes one address of a handle and leaves the other.
                Some((handle, addresses)) if random.chance(250) && !is_forgotten(&handle) => {
                    self.release_singly(&handle, addresses).await;
                }
                Some((handle, _)) => self.release(&handle).await,
                None => self.assign(&mut random).await,
            }
            if random.chance(8) {
                self.upset(&mut random).await;
            }
        }
    }

    async fn assign(&self, random: &mut Random) {
        let handle = {
            let mut state = self.state.lock().unwrap();
            state.pods += 1;
            let handle = format!("race.{}-{}-{}", self.name, self.life, state.pods);
            state.busy.insert(handle.clone());
            handle
        };
        let which = usize::try_from(random.below(WISHES.len() as u64)).unwrap();
        let (num4, num6, pools) = WISHES[which];
        let request = AutoAssign {
            handle: handle.clone(),
            owner: Owner::pod(&self.name, NAMESPACE, &handle),
            num4,
            num6,
            pools4: pools.iter().map(ToString::to_string).collect(),
            ..AutoAssign::default()
        };
        self.note(&handle, Fact::Want);
        match self.ipam.auto_assign(request).await {
            Ok(nets) => {
                let addresses: BTreeSet<IpAddr> = nets.iter().map(IpNet::addr).collect();
                assert_eq!(addresses.len(), nets.len(), "{handle}: {nets:?}");
                self.note(&handle, Fact::Have(addresses.clone()));
                let mut state = self.state.lock().unwrap();
                state.blocks.extend(nets.iter().map(IpNet::trunc));
                state.busy.remove(&handle);
                state.held.insert(handle, addresses);
            }
            Err(error) => {
                self.note(&handle, Fact::Failed(word(&error).to_owned()));
                // As the plugin does.
                self.release(&handle).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Releases all of a handle. What cannot be released before the end stays open.
    async fn release(&self, handle: &str) {
        self.state.lock().unwrap().busy.insert(handle.to_owned());
        self.note(handle, Fact::Drop);
        while let Err(error) = self.ipam.release_by_handle(handle).await {
            if self.is_stopped() {
                return;
            }
            self.owed(handle, &error).await;
        }
        self.note(handle, Fact::Gone);
        self.state.lock().unwrap().busy.remove(handle);
    }

    async fn release_singly(&self, handle: &str, addresses: BTreeSet<IpAddr>) {
        self.state.lock().unwrap().busy.insert(handle.to_owned());
        for address in addresses {
            self.note(handle, Fact::DropOne(address));
            while let Err(error) = self.ipam.release_ip(address, Some(handle), None).await {
                if self.is_stopped() {
                    return;
                }
                self.owed(handle, &error).await;
            }
            self.note(handle, Fact::GoneOne(address));
        }
        self.state.lock().unwrap().busy.remove(handle);
    }

    async fn owed(&self, handle: &str, error: &AssignError) {
        assert!(error.is_temporary(), "release of {handle}: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// What an operator or a change of pools does: a block is given back, a node makes sure that it has one.
    async fn upset(&self, random: &mut Random) {
        let block = {
            let state = self.state.lock().unwrap();
            let nth = usize::try_from(random.below(state.blocks.len().max(1) as u64)).unwrap();
            state.blocks.iter().nth(nth).copied()
        };
        // Both may fail, and must do no harm.
        match block {
            Some(block) if random.chance(500) => drop(self.ipam.release_affinity(block).await),
            Some(block) if random.chance(500) => drop(self.ipam.claim_block(block).await),
            _ => drop(self.ipam.ensure_block(Family::V4).await),
        }
    }

    async fn repair_until_stopped(&self) {
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            self.repair().await;
        }
    }

    /// The node's own repair, as `cni_server::repair`. Returns whether there was something to do; `None`: nobody could look.
    async fn repair(&self) -> Option<bool> {
        let listing = self.store.list::<IpamBlock>(&ListOptions::consistent()).await.ok()?;
        let owner = affinity::of_host(&self.name);
        let blocks = listing.items.into_iter().map(store::Stored::into_inner);
        let own: Vec<IpamBlock> =
            blocks.filter(|block| block.spec.affinity.as_deref() == Some(&owner)).collect();
        // After the blocks were read: what is in them is held or in work by now.
        let mut living: BTreeSet<String> = {
            let state = self.state.lock().unwrap();
            state.held.keys().chain(&state.busy).cloned().collect()
        };
        living.extend(self.of_others());
        let now = self.clock.now();
        let stale = ipam::reconcile::stale_handles(&self.name, &own, &living, now, GRACE);
        for handle in &stale {
            self.release(handle).await;
        }
        Some(!stale.is_empty())
    }

    /// Handles of the other processes of this node's name.
    fn of_others(&self) -> Vec<String> {
        let mut guard = self.book.lock().unwrap();
        let (reader, book) = &mut *guard;
        for (_, record) in reader.read() {
            drop(book.apply(&record));
        }
        let own = format!("race.{}-", self.name);
        let life = |handle: &str| -> Option<u64> {
            handle.strip_prefix(&own)?.split('-').next()?.parse().ok()
        };
        let alive = |handle: &String| {
            life(handle).is_some_and(|life| life >= self.oldest && life != self.life)
        };
        book.holdings.keys().filter(|handle| alive(handle)).cloned().collect()
    }

    /// Some requests, so that claims are finished, until the repair finds nothing.
    async fn settle(&self) {
        let (mut random, mut quiet) = (Random::seeded(self.life), 0);
        while quiet < 3 {
            // Longer than addresses are too young to be taken for left over.
            tokio::time::sleep(Duration::from_millis(400)).await;
            self.assign(&mut random).await;
            let last = self.state.lock().unwrap().held.pop_last();
            if let Some((handle, _)) = last {
                self.release(&handle).await;
            }
            quiet = if self.repair().await == Some(false) { quiet + 1 } else { 0 };
        }
    }
}

fn word(error: &AssignError) -> &'static str {
    match error {
        AssignError::NoAddress { .. } => "no-address",
        AssignError::Refused { .. } => "refused",
        AssignError::Store(_) => "datastore",
        AssignError::NotReady(_) => "not-ready",
        _ => "other",
    }
}
