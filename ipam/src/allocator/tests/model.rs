//! A model check of the real allocator: every order of the requests of three nodes, with a crash, a lost race or a lost answer
//! at any of them.
//!
//! The allocators run as they are, on a datastore that holds every request back until the explorer lets it pass. A run is a
//! list of choices: whose request is next, and what becomes of it. Runs are repeated from the start with one choice changed
//! until all are tried; a state that was seen is not explored twice. Two states are the same when the datastore holds the
//! same objects and every node has had the same conversation with it.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{BlockAffinity, IpPool, IpamBlock, IpamHandle, Key, Node, Resource};
use serde_json::Value;
use store::memory::MemoryStore;
use store::{
    DeletePreconditions, ListOptions, Listing, Revision, Store, StoreError, Stored, WatchStream,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Allocator, Options, all, findings, request};
use crate::{Clock, Family, UnixNanos, block, collector, ordinal};

const START: u64 = 1_790_000_000_000_000_000;
const MINUTE: u64 = 60_000_000_000;

/// What a node does, one after the other.
#[derive(Clone, Copy, Debug)]
enum Op {
    Assign(&'static str),
    Release(&'static str),
    Ensure,
    Claim(&'static str),
    GiveUp(&'static str),
    /// Collects without any patience: safety must not depend on it.
    Collect,
}

impl Op {
    fn collects(&self) -> bool {
        matches!(self, Self::Collect)
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    Passes,
    /// Somebody else wrote first, as far as the node can see.
    Conflicts,
    /// It is done, and the answer is lost.
    LosesAnswer,
    /// The node dies instead of sending it, and starts again.
    Crashes,
}

struct Waiting {
    label: String,
    turns: Vec<Turn>,
    tell: oneshot::Sender<Turn>,
}

/// A node: what the explorer knows of it.
#[derive(Default)]
struct Seat {
    waiting: Option<Waiting>,
    /// Everything that was asked and answered, as one number.
    conversation: u64,
    life: u64,
    reads_of_clock: u64,
    next: usize,
    /// Whose outcome is not known: the runtime deletes it after a crash.
    unsure: Option<&'static str>,
    /// Addresses that were answered and not released.
    held: BTreeMap<&'static str, IpAddr>,
}

type Table = Arc<Mutex<Vec<Seat>>>;

/// The datastore as one life of a node sees it.
#[derive(Clone)]
struct Gate {
    inner: MemoryStore,
    table: Table,
    seat: usize,
}

impl Gate {
    async fn turn(&self, label: String, turns: &[Turn]) -> Turn {
        let (tell, told) = oneshot::channel();
        {
            let mut table = self.table.lock().unwrap();
            let seat = &mut table[self.seat];
            note(seat, &label);
            seat.waiting = Some(Waiting { label, turns: turns.to_vec(), tell });
        }
        match told.await {
            Ok(turn) => turn,
            // Dead: this request is never sent.
            Err(_) => std::future::pending().await,
        }
    }

    fn heard<T: std::fmt::Debug>(&self, answer: Result<&Value, &T>) {
        let text = match answer {
            Ok(value) => plain(value),
            Err(error) => format!("{error:?}"),
        };
        note(&mut self.table.lock().unwrap()[self.seat], &text);
    }

    async fn write<T: Clone, F: Future<Output = Result<T, StoreError>>>(
        &self,
        label: String,
        may_conflict: bool,
        raw: impl Fn(&T) -> Value,
        act: F,
    ) -> Result<T, StoreError> {
        let turns = [Turn::Passes, Turn::LosesAnswer, Turn::Crashes, Turn::Conflicts];
        let turns = &turns[..if may_conflict { 4 } else { 3 }];
        let result = match self.turn(label.clone(), turns).await {
            Turn::Conflicts => Err(StoreError::Conflict { kind: "any", key: label }),
            Turn::LosesAnswer => {
                let _ = act.await;
                Err(StoreError::Unavailable { message: "answer lost".to_owned() })
            }
            _ => act.await,
        };
        self.heard(result.as_ref().map(&raw).as_ref());
        result
    }
}

fn note(seat: &mut Seat, text: &str) {
    let mut hasher = DefaultHasher::new();
    (seat.conversation, text).hash(&mut hasher);
    seat.conversation = hasher.finish();
}

/// An object without what depends on the order of unrelated writes.
fn plain(value: &Value) -> String {
    let mut value = value.clone();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for volatile in ["resourceVersion", "uid", "creationTimestamp", "generation"] {
            metadata.remove(volatile);
        }
    }
    value.to_string()
}

impl Store for Gate {
    async fn get<R: Resource>(&self, key: &Key) -> Result<Stored<R>, StoreError> {
        // To crash before a read is to crash before the next write.
        self.turn(format!("get {} {key}", R::KIND.kind), &[Turn::Passes]).await;
        let result = self.inner.get::<R>(key).await;
        self.heard(result.as_ref().map(Stored::raw));
        result
    }

    async fn list<R: Resource>(&self, options: &ListOptions) -> Result<Listing<R>, StoreError> {
        if !options.cached {
            self.turn(format!("list {}", R::KIND.kind), &[Turn::Passes]).await;
        }
        self.inner.list(options).await
    }

    async fn watch<R: Resource>(
        &self,
        options: &ListOptions,
        from: &Revision,
    ) -> Result<WatchStream<R>, StoreError> {
        self.inner.watch(options, from).await
    }

    async fn create<R: Resource>(&self, object: &R) -> Result<Stored<R>, StoreError> {
        let label = format!("create {} {}", R::KIND.kind, object.key());
        let raw = |stored: &Stored<R>| stored.raw().clone();
        self.write(label, false, raw, self.inner.create(object)).await
    }

    async fn update<R: Resource>(&self, object: &Stored<R>) -> Result<Stored<R>, StoreError> {
        let body = plain(&serde_json::to_value(&**object).unwrap());
        let label = format!("update {} {body}", R::KIND.kind);
        let raw = |stored: &Stored<R>| stored.raw().clone();
        self.write(label, true, raw, self.inner.update(object)).await
    }

    async fn update_status<R: Resource>(
        &self,
        object: &Stored<R>,
    ) -> Result<Stored<R>, StoreError> {
        self.inner.update_status(object).await
    }

    async fn patch<R: Resource>(
        &self,
        key: &Key,
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<Stored<R>, StoreError> {
        self.inner.patch(key, subresource, patch).await
    }

    async fn delete<R: Resource>(
        &self,
        key: &Key,
        preconditions: &DeletePreconditions,
    ) -> Result<(), StoreError> {
        let label = format!("delete {} {key}", R::KIND.kind);
        let delete = self.inner.delete::<R>(key, preconditions);
        self.write(label, true, |()| Value::Null, delete).await
    }
}

/// One life of a node: first what the last life left, then the rest of its program.
async fn live(gate: Gate, node: &'static str, program: &'static [Op], tick: u64) {
    let seats = Arc::clone(&gate.table);
    let seat = gate.seat;
    let clock = Clock::new(move || {
        let seat = &mut seats.lock().unwrap()[seat];
        seat.reads_of_clock += 1;
        // Every node's clock goes by itself, and no two show the same time.
        UnixNanos(START + seat.reads_of_clock * tick + seat.life)
    });
    let options = Options { clock, ready_within: Duration::from_secs(3600), tries: 6 };
    let ipam = Allocator::with_options(gate.clone(), node, options);
    let table = |change: &mut dyn FnMut(&mut Seat)| change(&mut gate.table.lock().unwrap()[seat]);
    let mut left = None;
    table(&mut |seat| left = seat.unsure.take());
    if let Some(handle) = left {
        table(&mut |seat| seat.unsure = Some(handle));
        let _ = ipam.release_by_handle(handle).await;
        table(&mut |seat| seat.unsure = None);
    }
    loop {
        let mut next = None;
        table(&mut |seat| next = program.get(seat.next).copied());
        let Some(op) = next else { break };
        match op {
            Op::Assign(handle) => {
                table(&mut |seat| seat.unsure = Some(handle));
                match ipam.auto_assign(request(node, handle)).await {
                    Ok(got) => table(&mut |seat| {
                        seat.held.insert(handle, got[0].addr());
                    }),
                    // As the CNI plugin cleans up.
                    Err(_) => drop(ipam.release_by_handle(handle).await),
                }
            }
            Op::Release(handle) => {
                table(&mut |seat| {
                    seat.unsure = Some(handle);
                    seat.held.remove(handle);
                });
                let _ = ipam.release_by_handle(handle).await;
            }
            Op::Ensure => drop(ipam.ensure_block(Family::V4).await),
            Op::Claim(net) => drop(ipam.claim_block(net.parse().unwrap()).await),
            Op::GiveUp(net) => drop(ipam.release_affinity(net.parse().unwrap()).await),
            Op::Collect => collect(&gate).await,
        }
        table(&mut |seat| {
            seat.unsure = None;
            seat.next += 1;
        });
    }
    // The daemon stays: its watches go on, and so does its knowledge.
    std::future::pending::<()>().await;
}

/// Two observations, some requests of others apart, and then everything goes that was there both times.
async fn collect(gate: &Gate) {
    let rules = collector::Rules {
        grace: Some(Duration::ZERO),
        settle: Duration::ZERO,
        ..collector::Rules::default()
    };
    let mut seen = collector::Observations::default();
    let mut plan = collector::ReleasePlan::default();
    for look in ["first look", "second look"] {
        gate.turn(look.to_owned(), &[Turn::Passes]).await;
        (seen, plan) = look_at(&gate.inner, &seen, UnixNanos(START), &rules).await;
    }
    let clock = Clock::new(|| UnixNanos(START));
    collector::apply(gate, &plan, &clock).await;
}

async fn look_at(
    store: &MemoryStore,
    seen: &collector::Observations,
    now: UnixNanos,
    rules: &collector::Rules,
) -> (collector::Observations, collector::ReleasePlan) {
    let (blocks, affinities) = (all::<IpamBlock>(store).await, all::<BlockAffinity>(store).await);
    let (handles, nodes) = (all::<IpamHandle>(store).await, all::<Node>(store).await);
    let inventory = collector::Inventory {
        blocks: blocks.iter().collect(),
        affinities: affinities.iter().collect(),
        handles: handles.iter().collect(),
        nodes: nodes.iter().collect(),
        ..collector::Inventory::default()
    };
    collector::plan(&inventory, seen, now, rules)
}

/// A cluster and what its nodes do.
struct Scenario {
    /// Ranges of the pools and their block sizes.
    pools: &'static [(&'static str, u8)],
    /// Done in peace before the nodes start.
    before: &'static [(&'static str, Op)],
    programs: &'static [(&'static str, &'static [Op])],
    /// How far a clock goes at each look.
    tick: u64,
    faults: usize,
    /// How often a node is interrupted that could go on.
    switches: usize,
}

const UNBOUNDED: usize = usize::MAX;
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// The choices of a run: which of how many.
#[derive(Default)]
struct Explorer {
    path: Vec<(usize, usize)>,
    seen: HashSet<u64>,
    /// What was left when everything was done: the same needs no second look.
    ends: HashSet<u64>,
    runs: u64,
    steps: u64,
}

impl Explorer {
    fn all(scenario: &Scenario) -> Self {
        let mut explorer = Self::default();
        loop {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(explorer.run(scenario));
            explorer.runs += 1;
            while explorer.path.last().is_some_and(|(chosen, of)| chosen + 1 >= *of) {
                explorer.path.pop();
            }
            match explorer.path.last_mut() {
                Some((chosen, _)) => *chosen += 1,
                None => return explorer,
            }
        }
    }

    /// One run: the choices of the path, then the first one everywhere. Ends early where a known state is reached.
    async fn run(&mut self, scenario: &Scenario) {
        let inner = prepared(scenario).await;
        let table: Table = Arc::new(Mutex::new(Vec::new()));
        let mut lives = Vec::new();
        for (seat, (node, program)) in scenario.programs.iter().enumerate() {
            table.lock().unwrap().push(Seat { life: seat as u64, ..Seat::default() });
            let gate = Gate { inner: inner.clone(), table: Arc::clone(&table), seat };
            lives.push(tokio::spawn(live(gate, node, program, scenario.tick)));
        }
        let (mut faults, mut switches) = (scenario.faults, scenario.switches);
        let (mut depth, mut last, mut story) = (0, 0, Vec::new());
        loop {
            // Virtual time: passes when every task waits for something else.
            tokio::time::sleep(Duration::from_secs(20)).await;
            let options = options(&table, scenario, faults, (last, switches));
            if options.is_empty() {
                break;
            }
            let is_new = depth >= self.path.len();
            let chosen = match self.path.get(depth) {
                Some((chosen, of)) => {
                    assert_eq!(*of, options.len(), "a run is repeated exactly: {story:#?}");
                    *chosen
                }
                None => {
                    if !self.seen.insert(state(&inner, &table, (faults, last, switches)).await) {
                        return;
                    }
                    self.path.push((0, options.len()));
                    0
                }
            };
            depth += 1;
            self.steps += 1;
            let (seat, turn) = options[chosen];
            let is_switch = last != seat && table.lock().unwrap()[last].waiting.is_some();
            switches -= usize::from(is_switch && switches < UNBOUNDED);
            last = seat;
            faults -= usize::from(turn != Turn::Passes);
            let waiting = table.lock().unwrap()[seat].waiting.take().unwrap();
            story.push(format!("{} {turn:?}: {}", scenario.programs[seat].0, waiting.label));
            if turn == Turn::Crashes {
                lives[seat].abort();
                {
                    let seat = &mut table.lock().unwrap()[seat];
                    seat.life += 10;
                    // The dead know nothing: what was said does not matter any more.
                    seat.conversation = 0;
                }
                let gate = Gate { inner: inner.clone(), table: Arc::clone(&table), seat };
                let (node, program) = scenario.programs[seat];
                lives[seat] = tokio::spawn(live(gate, node, program, scenario.tick));
            } else {
                let _ = waiting.tell.send(turn);
            }
            if is_new {
                tokio::time::sleep(Duration::from_millis(1)).await;
                nothing_twice(&inner, &table, &story).await;
            }
        }
        let held: Vec<_> =
            table.lock().unwrap().iter().map(|seat| format!("{:?}", seat.held)).collect();
        let mut hasher = DefaultHasher::new();
        (objects(&inner).await, held).hash(&mut hasher);
        if self.ends.insert(hasher.finish()) {
            finish(&inner, &table, scenario, lives, &story).await;
        }
    }
}

/// What may happen next. A node that could go on is interrupted at most `switches` times in a run.
fn options(
    table: &Table,
    scenario: &Scenario,
    faults: usize,
    (last, switches): (usize, usize),
) -> Vec<(usize, Turn)> {
    let table = table.lock().unwrap();
    let mut waiting: Vec<(usize, &Waiting)> = table
        .iter()
        .enumerate()
        .filter_map(|(at, seat)| Some((at, seat.waiting.as_ref()?)))
        .collect();
    // A node's handles are its own, unless somebody collects: it does not matter when it writes them.
    let collects = scenario.programs.iter().any(|(_, ops)| ops.iter().any(Op::collects));
    let private = waiting
        .iter()
        .find(|(_, one)| !collects && one.label.split(' ').nth(1) == Some("IPAMHandle"));
    if let Some(private) = private {
        waiting = vec![*private];
    } else if switches == 0 && waiting.iter().any(|(at, _)| *at == last) {
        waiting.retain(|(at, _)| *at == last);
    }
    let mut options = Vec::new();
    for (seat, one) in waiting {
        let possible = one.turns.iter().filter(|turn| faults > 0 || **turn == Turn::Passes);
        options.extend(possible.map(|turn| (seat, *turn)));
    }
    options
}

async fn prepared(scenario: &Scenario) -> MemoryStore {
    let store = MemoryStore::new();
    for (number, (cidr, size)) in scenario.pools.iter().enumerate() {
        let spec = api::IpPoolSpec {
            cidr: (*cidr).to_owned(),
            block_size: Some(*size),
            ..api::IpPoolSpec::default()
        };
        store.create(&IpPool::new(format!("pool-{number}"), spec)).await.unwrap();
    }
    for node in NODES {
        store.create(&Node::new(node, api::NodeSpec::default())).await.unwrap();
    }
    for (node, op) in scenario.before {
        let options =
            Options { clock: Clock::new(|| UnixNanos(START - 10 * MINUTE)), ..Options::default() };
        let ipam = Allocator::with_options(store.clone(), *node, options);
        match op {
            Op::Assign(handle) => drop(ipam.auto_assign(request(node, handle)).await.unwrap()),
            Op::Claim(net) => drop(ipam.claim_block(net.parse().unwrap()).await.unwrap()),
            other => panic!("{other:?} is not a preparation"),
        }
    }
    store
}

async fn state(store: &MemoryStore, table: &Table, left: (usize, usize, usize)) -> u64 {
    let (faults, last, switches) = left;
    let mut hasher = DefaultHasher::new();
    faults.hash(&mut hasher);
    if switches < UNBOUNDED {
        (last, switches).hash(&mut hasher);
    }
    objects(store).await.hash(&mut hasher);
    for seat in table.lock().unwrap().iter() {
        (seat.conversation, seat.life, seat.reads_of_clock, seat.next).hash(&mut hasher);
        (seat.unsure, &seat.held).hash(&mut hasher);
    }
    hasher.finish()
}

/// Everything that is stored, as one number.
async fn objects(store: &MemoryStore) -> u64 {
    async fn add<R: Resource>(store: &MemoryStore, hasher: &mut DefaultHasher) {
        for stored in store.list::<R>(&ListOptions::consistent()).await.unwrap().items {
            plain(stored.raw()).hash(hasher);
        }
    }
    let mut hasher = DefaultHasher::new();
    add::<IpamBlock>(store, &mut hasher).await;
    add::<BlockAffinity>(store, &mut hasher).await;
    add::<IpamHandle>(store, &mut hasher).await;
    hasher.finish()
}

/// What holds at every moment: no address belongs to two, no two confirmed blocks overlap, and who was answered has its
/// address.
async fn nothing_twice(store: &MemoryStore, table: &Table, story: &[String]) {
    let blocks = all::<IpamBlock>(store).await;
    let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
    for one in &blocks {
        assert_eq!(block::defects(&one.spec), [""; 0], "{story:#?}");
        for (address, owner) in block::assigned(&one.spec) {
            let handle = owner.handle_id.clone().unwrap_or_default();
            let other = owners.insert(address, handle);
            assert!(other.is_none(), "{address} is also {other:?}'s: {story:#?}");
        }
    }
    for seat in table.lock().unwrap().iter() {
        for (handle, address) in &seat.held {
            let owner = owners.get(address).map(String::as_str);
            assert_eq!(owner, Some(*handle), "{address}: {story:#?}");
        }
    }
    let claims = all::<BlockAffinity>(store).await;
    let confirmed: Vec<ipnet::IpNet> = claims
        .iter()
        .filter(|one| crate::affinity::is_confirmed(&one.spec))
        .map(|one| one.spec.cidr.parse().unwrap())
        .collect();
    for (at, one) in confirmed.iter().enumerate() {
        let other = confirmed[..at].iter().find(|other| ordinal::overlap(one, other));
        assert_eq!(other, None, "overlaps {one}: {story:#?}");
    }
}

/// Every node starts once more, releases what it holds, the collector runs: then nothing is left, and nothing wrong.
async fn finish(
    store: &MemoryStore,
    table: &Table,
    scenario: &Scenario,
    lives: Vec<JoinHandle<()>>,
    story: &[String],
) {
    for life in lives {
        life.abort();
    }
    for (seat, (node, _)) in scenario.programs.iter().enumerate() {
        let options =
            Options { clock: Clock::new(|| UnixNanos(START + MINUTE)), ..Options::default() };
        let ipam = Allocator::with_options(store.clone(), *node, options);
        let held: Vec<_> = table.lock().unwrap()[seat].held.keys().copied().collect();
        for handle in held {
            assert!(!ipam.release_by_handle(handle).await.unwrap().is_empty(), "{story:#?}");
        }
        ipam.release_by_handle("none").await.unwrap();
    }
    let rules = collector::Rules::default();
    let mut seen = collector::Observations::default();
    for quarter in 0..4 {
        let now = UnixNanos(START + quarter * 16 * MINUTE);
        let plan;
        (seen, plan) = look_at(store, &seen, now, &rules).await;
        let applied = collector::apply(store, &plan, &Clock::new(move || now)).await;
        assert!(applied.errors.is_empty(), "{:?}", applied.errors);
    }
    assert_eq!(findings(store).await, [""; 0], "{story:#?}");
    let left = all::<IpamHandle>(store).await;
    let expected = scenario.before.iter().filter(|(_, op)| matches!(op, Op::Assign(_))).count();
    assert!(left.len() <= expected, "{left:?} are left: {story:#?}");
}

/// Explores within these bounds: how many faults, how many interruptions of a node that could go on. `VOILE_MODEL_FAULTS` and
/// `VOILE_MODEL_SWITCHES` set others, for a longer look: without interruptions named, every order is tried.
const BOUNDS: [(usize, usize); 2] = [(0, 2), (1, 1)];

fn explore(name: &str, scenario: &Scenario) {
    let wanted = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let bounds = match (wanted("VOILE_MODEL_FAULTS"), wanted("VOILE_MODEL_SWITCHES")) {
        (None, None) => BOUNDS.to_vec(),
        (faults, switches) => vec![(faults.unwrap_or(1), switches.unwrap_or(UNBOUNDED))],
    };
    for (faults, switches) in bounds {
        let explored = Explorer::all(&Scenario { faults, switches, ..*scenario });
        eprintln!(
            "{name}: faults {faults}, interruptions {switches:?}: {} states, {} runs, {} steps",
            explored.seen.len(),
            explored.runs,
            explored.steps
        );
        assert!(explored.seen.len() > 20, "the explorer did explore");
    }
}

/// Two blocks for three nodes: one of them borrows or waits.
#[test]
fn three_nodes_assign_and_release() {
    explore(
        "assign and release",
        &Scenario {
            pools: &[("10.0.0.0/30", 31)],
            before: &[("n1", Op::Claim("10.0.0.0/31"))],
            programs: &[
                ("n1", &[Op::Assign("a"), Op::Release("a")]),
                ("n2", &[Op::Assign("b"), Op::Release("b")]),
                ("n3", &[Op::Assign("c")]),
            ],
            tick: 1000,
            faults: 0,
            switches: 0,
        },
    );
}

/// The owner of an old empty block needs it just when two others want it.
#[test]
fn a_block_is_reclaimed_while_its_owner_uses_it() {
    explore(
        "reclaim",
        &Scenario {
            pools: &[("10.0.0.0/31", 31)],
            before: &[("n1", Op::Claim("10.0.0.0/31"))],
            programs: &[
                ("n1", &[Op::Assign("a"), Op::Release("a")]),
                ("n2", &[Op::Assign("b")]),
                ("n3", &[Op::Ensure]),
            ],
            tick: 2 * MINUTE,
            faults: 0,
            switches: 0,
        },
    );
}

/// Pools of other block sizes over the same space, as after a pool was made anew.
#[test]
fn blocks_of_different_sizes_are_claimed_at_once() {
    explore(
        "overlap",
        &Scenario {
            pools: &[("10.0.0.0/30", 30), ("10.0.0.0/30", 31)],
            before: &[],
            programs: &[
                ("n1", &[Op::Claim("10.0.0.0/30"), Op::Assign("a")]),
                ("n2", &[Op::Claim("10.0.0.2/31")]),
                ("n3", &[Op::Assign("c")]),
            ],
            tick: 1000,
            faults: 0,
            switches: 0,
        },
    );
}

/// A node gives a block up, another borrows from it, and a collector without patience cleans up behind them.
#[test]
fn a_block_is_given_up_while_others_borrow_and_collect() {
    explore(
        "give up, borrow, collect",
        &Scenario {
            pools: &[("10.0.0.0/31", 31)],
            before: &[("n1", Op::Assign("old"))],
            programs: &[
                ("n1", &[Op::Release("old"), Op::GiveUp("10.0.0.0/31")]),
                ("n2", &[Op::Assign("b"), Op::Release("b")]),
                ("n3", &[Op::Collect]),
            ],
            tick: 1000,
            faults: 0,
            switches: 0,
        },
    );
}

/// Every order of every request, with a crash, a lost race or a lost answer at any one of them: for programs this small the
/// exploration is whole.
const WHOLE: (usize, usize) = (1, UNBOUNDED);

fn explore_whole(name: &str, scenario: &Scenario) {
    let (faults, switches) = WHOLE;
    let explored = Explorer::all(&Scenario { faults, switches, ..*scenario });
    eprintln!(
        "{name}, whole: {} states, {} runs, {} steps",
        explored.seen.len(),
        explored.runs,
        explored.steps
    );
    assert!(explored.seen.len() > 20, "the explorer did explore");
}

/// Three nodes, one block: whoever claims it first lends to the others.
#[test]
fn whole_three_nodes_want_the_only_block() {
    explore_whole(
        "claim and borrow",
        &Scenario {
            pools: &[("10.0.0.0/31", 31)],
            before: &[],
            programs: &[("n1", &[Op::Ensure]), ("n2", &[Op::Assign("b")]), ("n3", &[Op::Ensure])],
            tick: 1000,
            faults: 0,
            switches: 0,
        },
    );
}
