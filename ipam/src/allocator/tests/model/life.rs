//! The real programs: one life of a node, from its start until it is done or dead. What it does depends on nothing but what it
//! hears: its clock is its own, and its timers run when it is told that time passes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{BlockAffinity, IpamBlock, IpamHandle, Node, NodeSpec, Pod};
use serde_json::Value;
use store::{ListOptions, Store, StoreError};
use tokio::runtime::Runtime;

use super::super::super::watches::looks;
use super::super::{Allocator, Options};
use super::gate::{Desk, Gate, Reply};
use super::scenarios::{Op, Scenario};
use crate::memory::{Frame, tests as memory};
use crate::{AutoAssign, Clock, Family, Owner, UnixNanos, collector};

pub(super) const START: u64 = 1_790_000_000_000_000_000;
pub(super) const MINUTE: u64 = 60_000_000_000;
/// From the clock of one life to that of the next.
const LIFE: u64 = 24 * 60 * MINUTE;

/// What the world knows of a node that is not in the datastore: it survives a crash.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Facts {
    pub(super) life: u8,
    /// Which operation is next.
    pub(super) next: usize,
    /// Whose outcome is not known: the runtime deletes it after a crash.
    pub(super) unsure: Option<&'static str>,
    /// Addresses that were answered and not released.
    pub(super) held: BTreeMap<&'static str, Vec<IpAddr>>,
}

/// Who is to live.
#[derive(Clone, Copy)]
pub(super) struct Role<'s> {
    pub(super) scenario: &'s Scenario,
    pub(super) seat: usize,
}

impl Role<'_> {
    pub(super) fn node(&self) -> &'static str {
        self.scenario.programs[self.seat].0
    }

    pub(super) fn program(&self) -> &'static [Op] {
        self.scenario.programs[self.seat].1
    }
}

/// A life that goes on.
pub(super) struct Run {
    runtime: Runtime,
    gate: Gate,
    facts: Arc<Mutex<Facts>>,
    memory: memory::Shared,
}

/// Turns of the runtime after which nothing can go on by itself; each runs everything that can run, and what that wakes.
const TURNS: u32 = 6;
/// Longer than everything that a program waits for.
const PATIENCE: u32 = 60;

impl Run {
    /// Starts a life; what it sees at once is on the desk.
    pub(super) fn start(role: Role<'_>, facts: Facts, desk: Desk) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let gate = Gate(Arc::new(Mutex::new(desk)));
        let facts = Arc::new(Mutex::new(facts));
        let life = Life {
            node: role.node(),
            program: role.program(),
            gate: gate.clone(),
            facts: Arc::clone(&facts),
            clock: clock(role, &gate, &facts),
            tries: role.scenario.tries,
        };
        runtime.spawn(life.live());
        let run = Self { runtime, gate, facts, memory: memory::Shared::default() };
        run.settle();
        run.settle();
        run
    }

    pub(super) fn facts(&self) -> Facts {
        self.facts.lock().unwrap().clone()
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.gate.desk()
    }

    /// Lets everything happen that needs no time.
    pub(super) fn settle(&self) {
        let turns = async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        };
        memory::listening(&self.memory, || self.runtime.block_on(turns));
    }

    /// All that it remembered, when it said so last.
    pub(super) fn told(&self) -> Option<String> {
        memory::take(&self.memory)
    }

    pub(super) fn answer(&self, which: usize, reply: Reply) {
        let (_, tell) = self.desk().waiting.remove(which);
        let _ = tell.send(reply);
        self.settle();
    }

    /// Lets time pass until something is asked or all is done.
    pub(super) fn wait(&self, until: impl Fn(&Self) -> bool) {
        for _ in 0..PATIENCE {
            let second = async { tokio::time::sleep(Duration::from_secs(1)).await };
            memory::listening(&self.memory, || self.runtime.block_on(second));
            self.settle();
            if until(self) {
                return;
            }
        }
        panic!("waits for nothing: {:?}", self.facts());
    }
}

/// Every node's clock goes by itself. It moves on where that matters, and only there: a later operation or life finds old what others did
/// in an earlier one, and no two blocks are made at the same time.
fn clock(role: Role<'_>, gate: &Gate, facts: &Arc<Mutex<Facts>>) -> Clock {
    let seat = u64::try_from(role.seat).unwrap();
    let (gate, facts, haste) = (gate.clone(), Arc::clone(facts), role.scenario.haste);
    Clock::new(move || {
        let Facts { life, next, .. } = facts.lock().unwrap().clone();
        let ops = u64::try_from(next).unwrap();
        let minutes = (seat * 2 + ops * 10) * haste;
        let time = START + u64::from(life) * LIFE + minutes * MINUTE;
        UnixNanos(time + gate.desk().created * 1000 + seat)
    })
}

pub(super) fn request(node: &str, handle: &str, both: bool) -> AutoAssign {
    AutoAssign {
        handle: handle.to_owned(),
        owner: Owner::pod(node, "ns", handle),
        num4: 1,
        num6: u32::from(both),
        ..AutoAssign::default()
    }
}

struct Life {
    node: &'static str,
    program: &'static [Op],
    gate: Gate,
    facts: Arc<Mutex<Facts>>,
    clock: Clock,
    tries: u32,
}

impl Life {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// First what the last life left, then the rest of the program.
    async fn live(self) {
        let options = Options {
            clock: self.clock.clone(),
            ready_within: Duration::from_secs(3600),
            tries: self.tries,
        };
        let needs_allocator = self.program.iter().any(|op| !op.is_of_controller());
        let ipam =
            needs_allocator.then(|| Allocator::with_options(self.gate.clone(), self.node, options));
        let left = self.facts().unsure;
        if let (Some(handle), Some(ipam)) = (left, &ipam) {
            let _ = ipam.release_by_handle(handle).await;
            let mut facts = self.facts();
            facts.unsure = None;
            // It was in the middle of it.
            facts.next += 1;
        }
        loop {
            let next = self.facts().next;
            let Some(op) = self.program.get(next) else { break };
            match (&ipam, op) {
                (_, Op::Collect) => collect(&self.gate, self.tries).await,
                (_, Op::Join(node)) => {
                    let node = Node::new(*node, NodeSpec::default());
                    while let Err(StoreError::Unavailable { .. }) = self.gate.create(&node).await {}
                }
                (Some(ipam), op) => self.act(ipam, *op).await,
                (None, op) => panic!("{op:?} needs an allocator"),
            }
            let mut facts = self.facts();
            facts.unsure = None;
            facts.next += 1;
        }
        // The daemon stays: its watches go on, and so does its knowledge.
        std::future::pending::<()>().await;
    }

    async fn act(&self, ipam: &Allocator<Gate>, op: Op) {
        match op {
            Op::Assign(handle) | Op::AssignBoth(handle) | Op::AssignAt(handle, _) => {
                self.facts().unsure = Some(handle);
                let asked = request(self.node, handle, matches!(op, Op::AssignBoth(_)));
                let result = match op {
                    Op::AssignAt(_, address) => {
                        ipam.assign_ip(asked, vec![address.parse().unwrap()]).await
                    }
                    _ => ipam.auto_assign(asked).await,
                };
                match result {
                    Ok(got) => {
                        let got = got.iter().map(ipnet::IpNet::addr).collect();
                        self.facts().held.insert(handle, got);
                    }
                    // As the CNI plugin cleans up.
                    Err(_) => drop(ipam.release_by_handle(handle).await),
                }
            }
            Op::Release(handle) => {
                {
                    let mut facts = self.facts();
                    facts.unsure = Some(handle);
                    facts.held.remove(handle);
                }
                let _ = ipam.release_by_handle(handle).await;
            }
            Op::ReleaseOne(handle) => {
                let address = {
                    let mut facts = self.facts();
                    // The other one stays; and who died here does not go on.
                    let Some(held) = facts.held.get_mut(handle).filter(|held| held.len() > 1)
                    else {
                        return;
                    };
                    held.remove(0)
                };
                let _ = ipam.release_ip(address, Some(handle), None).await;
            }
            Op::Ensure => drop(ipam.ensure_block(Family::V4).await),
            Op::Claim(net) => drop(ipam.claim_block(net.parse().unwrap()).await),
            Op::GiveUp(net) => drop(ipam.release_affinity(net.parse().unwrap()).await),
            Op::Collect | Op::Join(_) => {}
        }
    }
}

/// Two observations, and then everything goes that was there both times: safety must not depend on patience. What it remembers is
/// what it saw and what it plans, so only that belongs to the conversation.
async fn collect(gate: &Gate, tries: u32) {
    let rules = collector::Rules {
        grace: Some(Duration::ZERO),
        settle: Duration::ZERO,
        ..collector::Rules::default()
    };
    let mut seen = collector::Observations::default();
    let mut plan = collector::ReleasePlan::default();
    let part = Frame::enter();
    for round in 0..2 {
        gate.look().await;
        let shown = ListOptions::cached();
        (seen, plan) = look(gate, &shown, &seen, UnixNanos(START), &rules).await.unwrap();
        looks::saw_claims(&(&seen, &plan));
        part.remembers(|| if round == 0 { format!("{seen:?}") } else { format!("{plan:?}") });
    }
    let clock = Clock::new(|| UnixNanos(START));
    collector::apply_patiently(gate, &plan, &clock, tries).await;
}

/// One observation of the collector.
pub(super) async fn look<S: Store>(
    store: &S,
    options: &ListOptions,
    seen: &collector::Observations,
    now: UnixNanos,
    rules: &collector::Rules,
) -> Result<(collector::Observations, collector::ReleasePlan), StoreError> {
    async fn all<S: Store, R: api::Resource>(
        store: &S,
        options: &ListOptions,
    ) -> Result<Vec<R>, StoreError> {
        let listing = store.list::<R>(options).await?;
        Ok(listing.items.into_iter().map(store::Stored::into_inner).collect())
    }
    let nodes = all::<S, Node>(store, options).await?;
    let pods = all::<S, Pod>(store, options).await?;
    let blocks = all::<S, IpamBlock>(store, options).await?;
    let affinities = all::<S, BlockAffinity>(store, options).await?;
    let handles = all::<S, IpamHandle>(store, options).await?;
    let inventory = collector::Inventory {
        blocks: blocks.iter().collect(),
        affinities: affinities.iter().collect(),
        handles: handles.iter().collect(),
        nodes: nodes.iter().collect(),
        pods: pods.iter().collect(),
        ..collector::Inventory::default()
    };
    Ok(collector::plan(&inventory, seen, now, rules))
}

/// Objects that never change while the programs run, by kind and name.
pub(super) type Constants = BTreeMap<(&'static str, String), Arc<Value>>;

/// Handles that programs or preparations use.
pub(super) fn handles(scenario: &Scenario) -> BTreeSet<&'static str> {
    let programs = scenario.programs.iter().flat_map(|(_, ops)| ops.iter());
    let before = scenario.before.iter().map(|(_, op)| op);
    programs.chain(before).filter_map(Op::handle).collect()
}
