//! The node's allocator: one task that owns the node's blocks. Assignments that come together share their writes; everything
//! else is done by itself, when no assignment is on its way.

mod assign;
mod claim;
mod machine;
mod place;
mod recover;
mod release;
#[cfg(test)]
mod tests;
mod watches;
mod wishes;
mod write;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{IpamBlock, IpamHandle, Toggle};
use ipnet::IpNet;
use store::{Store, Stored};
use tokio::{sync::mpsc, sync::oneshot, task::AbortHandle};

use crate::{
    AssignError, AssignRequest, AutoAssign, Clock, Family, MachinePod, affinity, block::Cooldown,
    memory::Frame, pool::Reservations,
};
use assign::Line;
use machine::MachineAsk;
use watches::Watches;
use wishes::Wish;

/// What was looked at up to here is told.
#[cfg(test)]
pub(crate) fn looks_are_over() {
    watches::looks::are_over();
}

/// How the allocator behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where wall time comes from.
    pub clock: Clock,
    /// How long a request waits for the first lists of pools and blocks.
    pub ready_within: Duration,
    /// How often a write is tried when others win or the datastore does not answer.
    pub tries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { clock: Clock::system(), ready_within: Duration::from_secs(10), tries: 12 }
    }
}

/// Addresses that were released.
pub type Released = Vec<IpAddr>;

/// Assigns and releases addresses for one node. Clones share the task, which ends with the last clone.
///
/// A request whose future is dropped may still be served; its addresses go with the handle's release.
pub struct Allocator<S> {
    commands: mpsc::UnboundedSender<Command>,
    watches: Watches,
    store: S,
    task: Arc<Task>,
}

impl<S: Clone> Clone for Allocator<S> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            watches: self.watches.clone(),
            store: self.store.clone(),
            task: Arc::clone(&self.task),
        }
    }
}

impl<S> std::fmt::Debug for Allocator<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allocator").field("task", &self.task).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Reply<T> = oneshot::Sender<Result<T, AssignError>>;

/// An address to release, as far as it is still the same allocation.
struct Address {
    address: IpAddr,
    handle: Option<String>,
    sequence: Option<u64>,
}

enum Command {
    Auto(AutoAssign, Reply<Vec<IpNet>>),
    Certain(AutoAssign, Vec<IpAddr>, Reply<Vec<IpNet>>),
    ReleaseHandle(String, Reply<Released>),
    Machine(MachineAsk, Reply<Vec<IpNet>>),
    MachineMoved(String, MachinePod, Reply<()>),
    LeaveMachine(String, MachinePod, bool, Reply<Released>),
    ReleaseAddress(Address, Reply<Released>),
    EnsureBlock(Family, Reply<IpNet>),
    ClaimBlock(IpNet, Reply<IpNet>),
    ReleaseAffinity(IpNet, Reply<()>),
}

impl<S: Store> Allocator<S> {
    /// Starts the allocator of a node. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(store: S, node_name: impl Into<String>) -> Self {
        Self::with_options(store, node_name, Options::default())
    }

    /// Like [`Allocator::new`], with options.
    #[must_use]
    pub fn with_options(store: S, node_name: impl Into<String>, options: Options) -> Self {
        let node = node_name.into();
        let watches = Watches::new(&store, &node, options.ready_within);
        let (commands, inbox) = mpsc::unbounded_channel();
        let worker = Worker {
            affinity: affinity::of_host(&node),
            node,
            store: store.clone(),
            watches: watches.clone(),
            blocks: BTreeMap::new(),
            claimed: BTreeMap::new(),
            handles: BTreeMap::new(),
            reservations: Reservations::default(),
            line: Line::default(),
            options,
        };
        let task = Arc::new(Task(tokio::spawn(worker.run(inbox)).abort_handle()));
        Self { commands, watches, store, task }
    }

    /// Assigns addresses out of the node's blocks, claiming blocks and borrowing as needed: all or none.
    /// The result is in the order IPv4, IPv6 and carries the block's mask.
    pub async fn auto_assign(&self, request: AutoAssign) -> Result<Vec<IpNet>, AssignError> {
        self.ask(|reply| Command::Auto(request, reply)).await
    }

    /// Assigns certain addresses.
    pub async fn assign_ip(
        &self,
        request: AutoAssign,
        addresses: Vec<IpAddr>,
    ) -> Result<Vec<IpNet>, AssignError> {
        self.ask(|reply| Command::Certain(request, addresses, reply)).await
    }

    /// Assigns what a pod's and its namespace's annotations ask for, IPv4 first. Addresses of `ipAddrsNoIpam` come back as they
    /// are: their owner manages them.
    pub async fn assign_for_pod(&self, request: AssignRequest) -> Result<Vec<IpAddr>, AssignError> {
        self.watches.ready().await?;
        let machine = request.machine.clone();
        let (request, addresses) = match wishes::read(request, &self.watches)? {
            Wish::Assign(request, addresses) => (request, addresses),
            Wish::Given(addresses) => return Ok(addresses),
        };
        let assigned = if let Some(machine) = machine {
            let wants = assign::wants(&request, &addresses);
            let ask = MachineAsk { request, wants, is_target: machine.is_target() };
            self.ask(|reply| Command::Machine(ask, reply)).await?
        } else if addresses.is_empty() {
            self.auto_assign(request).await?
        } else {
            self.assign_ip(request, addresses).await?
        };
        Ok(assigned.into_iter().map(|net| net.addr()).collect())
    }

    /// Releases everything that a handle has. Releasing nothing is success.
    pub async fn release_by_handle(&self, handle: &str) -> Result<Released, AssignError> {
        self.ask(|reply| Command::ReleaseHandle(handle.to_owned(), reply)).await
    }

    /// Returns whether machines keep their addresses (`kubeVirtVMAddressPersistence`, on unless disabled).
    pub async fn keeps_machine_addresses(&self) -> Result<bool, AssignError> {
        self.watches.ready().await?;
        let wanted = self.watches.configuration().kube_virt_vm_address_persistence;
        Ok(wanted != Some(Toggle::Disabled))
    }

    /// Notes that a machine now runs in the pod that it was to migrate to.
    pub async fn machine_moved(&self, handle: &str, pod: MachinePod) -> Result<(), AssignError> {
        self.ask(|reply| Command::MachineMoved(handle.to_owned(), pod, reply)).await
    }

    /// Notes that a machine's pod is gone. Its addresses stay, unless the machine goes too and no other pod has them.
    pub async fn leave_machine(
        &self,
        handle: &str,
        pod: MachinePod,
        machine_ends: bool,
    ) -> Result<Released, AssignError> {
        self.ask(|reply| Command::LeaveMachine(handle.to_owned(), pod, machine_ends, reply)).await
    }

    /// Releases one address, if it is still the allocation that is meant: of `handle`, made at `sequence` (where given).
    pub async fn release_ip(
        &self,
        address: IpAddr,
        handle: Option<&str>,
        sequence: Option<u64>,
    ) -> Result<Released, AssignError> {
        let address = Address { address, handle: handle.map(str::to_owned), sequence };
        self.ask(|reply| Command::ReleaseAddress(address, reply)).await
    }

    /// Makes sure that the node owns a block, so that the first pod need not wait for a claim.
    pub async fn ensure_block(&self, family: Family) -> Result<IpNet, AssignError> {
        self.ask(|reply| Command::EnsureBlock(family, reply)).await
    }

    /// Claims a certain block.
    pub async fn claim_block(&self, block: IpNet) -> Result<IpNet, AssignError> {
        self.ask(|reply| Command::ClaimBlock(block, reply)).await
    }

    /// Gives a block back: deleted when empty, else left without an owner until its last address goes.
    pub async fn release_affinity(&self, block: IpNet) -> Result<(), AssignError> {
        self.ask(|reply| Command::ReleaseAffinity(block, reply)).await
    }

    /// Returns the datastore in use.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, AssignError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || AssignError::NotReady("the allocator has stopped");
        self.commands.send(command(reply)).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// Owns the node's blocks. Everything it knows of them is a copy with a revision; a lost race shows as a conflict.
struct Worker<S> {
    node: String,
    affinity: String,
    store: S,
    watches: Watches,
    /// Blocks as last seen or written: the node's own and those it borrowed from.
    blocks: BTreeMap<IpNet, Stored<IpamBlock>>,
    /// Claims that this process made or ended, until the watch shows them.
    claimed: BTreeMap<IpNet, bool>,
    /// Handles that this process wrote.
    handles: BTreeMap<String, Stored<IpamHandle>>,
    /// As of the current batch.
    reservations: Reservations,
    /// Assignments on their way.
    line: Line,
    options: Options,
}

/// Requests taken up at once.
const BATCH: usize = 256;

impl<S: Store> Worker<S> {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let mut batch = Vec::new();
        let part = Frame::enter();
        loop {
            self.tells(&part, 1, String::new);
            // Neither loses anything when the other is faster.
            tokio::select! {
                biased;
                Some(done) = self.line.next() => {
                    self.remembers(&part, || format!("goes on with {done:?}"));
                    self.go_on(done).await;
                    continue;
                }
                count = inbox.recv_many(&mut batch, BATCH) => if count == 0 { return },
            }
            let asked: Vec<_> = batch.iter().map(std::mem::discriminant).collect();
            let mut assigns = Vec::new();
            let mut releases = Vec::new();
            let mut others = Vec::new();
            for command in batch.drain(..) {
                match command {
                    Command::Auto(..) | Command::Certain(..) => assigns.push(command),
                    Command::ReleaseHandle(handle, reply) => releases.push((handle, reply)),
                    other => others.push(other),
                }
            }
            if let Err(error) = self.watches.ready().await {
                refuse(assigns, others, releases, &error);
                continue;
            }
            if !releases.is_empty() || !others.is_empty() {
                self.finish_line().await;
            }
            self.reservations = self.watches.reservations();
            self.remembers(&part, || format!("recovers before {asked:?}"));
            self.recover().await;
            self.remembers(&part, || format!("does {asked:?}"));
            self.release_handles(releases).await;
            self.assign(assigns).await;
            if !others.is_empty() {
                self.finish_line().await;
            }
            for command in others {
                self.single(command).await;
            }
        }
    }

    async fn single(&mut self, command: Command) {
        // A caller that went away needs no answer.
        match command {
            Command::ReleaseAddress(address, reply) => {
                let _ = reply.send(self.release_address(&address).await);
            }
            Command::Machine(ask, reply) => {
                let _ = reply.send(self.assign_machine(&ask).await);
            }
            Command::MachineMoved(handle, pod, reply) => {
                let _ = reply.send(self.machine_moved(&handle, &pod).await);
            }
            Command::LeaveMachine(handle, pod, machine_ends, reply) => {
                let _ = reply.send(self.leave_machine(&handle, &pod, machine_ends).await);
            }
            Command::EnsureBlock(family, reply) => {
                let _ = reply.send(self.ensure_block(family).await);
            }
            Command::ClaimBlock(block, reply) => {
                let _ = reply.send(self.claim_certain(block).await);
            }
            Command::ReleaseAffinity(block, reply) => {
                let _ = reply.send(self.release_affinity(block).await);
            }
            Command::Auto(..) | Command::Certain(..) | Command::ReleaseHandle(..) => {}
        }
    }

    /// A part tells what it remembers; the worker's own memory is part of it.
    fn remembers(&self, part: &Frame, what: impl FnOnce() -> String) {
        // A write that ends meanwhile would be remembered too.
        self.tells(part, 0, what);
    }

    /// The same, while so many writes may be on their way.
    fn tells(&self, part: &Frame, writes: usize, what: impl FnOnce() -> String) {
        #[cfg(test)]
        {
            let Self { blocks, claimed, handles, line, .. } = self;
            let blocks: Vec<String> = blocks.values().map(crate::memory::copy).collect();
            let handles: Vec<String> = handles.values().map(crate::memory::copy).collect();
            let own =
                line.told(writes).map(|line| format!("{blocks:?} {claimed:?} {handles:?} {line}"));
            part.remembers_all(own, what());
        }
        #[cfg(not(test))]
        let _ = (part, writes, what);
    }

    /// Returns the blocks that this node owns, in order.
    fn own_blocks(&self) -> Vec<IpNet> {
        let mut own = self.watched_claims();
        own.extend(&self.claimed);
        own.into_iter().filter(|(_, confirmed)| *confirmed).map(|(block, _)| block).collect()
    }

    /// Returns the claims of this node that the watch shows, and whether they are confirmed.
    fn watched_claims(&self) -> BTreeMap<IpNet, bool> {
        let watched = self.watches.claims();
        let own = watched.iter().filter(|one| one.node == self.node);
        own.filter_map(|one| Some((one.cidr.parse().ok()?, affinity::is_confirmed(one)))).collect()
    }

    fn cooldown(&self) -> Cooldown {
        let seconds = self.watches.configuration().ip_cooldown_seconds.unwrap_or_default();
        Cooldown { now: self.options.clock.now(), rest: Duration::from_secs(seconds.into()) }
    }
}

fn refuse(
    assigns: Vec<Command>,
    others: Vec<Command>,
    releases: Vec<(String, Reply<Released>)>,
    error: &AssignError,
) {
    for (_, reply) in releases {
        let _ = reply.send(Err(error.clone()));
    }
    for command in assigns.into_iter().chain(others) {
        let error = error.clone();
        match command {
            Command::Auto(_, reply) | Command::Certain(_, _, reply) => drop(reply.send(Err(error))),
            Command::Machine(_, reply) => drop(reply.send(Err(error))),
            Command::MachineMoved(_, _, reply) => drop(reply.send(Err(error))),
            Command::ReleaseHandle(_, reply)
            | Command::ReleaseAddress(_, reply)
            | Command::LeaveMachine(_, _, _, reply) => drop(reply.send(Err(error))),
            Command::EnsureBlock(_, reply) | Command::ClaimBlock(_, reply) => {
                drop(reply.send(Err(error)));
            }
            Command::ReleaseAffinity(_, reply) => drop(reply.send(Err(error))),
        }
    }
}
