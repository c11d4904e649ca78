//! The node's allocator: one task that owns the node's blocks; requests that wait together are served together.

mod assign;
mod claim;
mod release;
#[cfg(test)]
mod tests;
mod wishes;
mod write;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{
    BlockAffinity, IpPool, IpReservation, IpamBlock, IpamConfiguration, IpamConfigurationSpec,
    IpamHandle, Node,
};
use ipnet::IpNet;
use store::{
    ListOptions, Store, Stored,
    informer::{Cache, FollowOptions},
};
use tokio::{sync::mpsc, sync::oneshot, task::AbortHandle};

use crate::{
    AssignError, AssignRequest, AutoAssign, Clock, Family, affinity,
    pool::{Pool, Reservations},
};

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

enum Command {
    Auto(AutoAssign, Reply<Vec<IpNet>>),
    Certain(AutoAssign, Vec<IpAddr>, Reply<Vec<IpNet>>),
    ReleaseHandle(String, Reply<Released>),
    ReleaseAddress(IpAddr, Option<String>, Reply<Released>),
    EnsureBlock(Family, Reply<IpNet>),
    ClaimBlock(IpNet, Reply<IpNet>),
    ReleaseAffinity(IpNet, Reply<()>),
}

/// What the allocator watches.
#[derive(Clone)]
struct Watches {
    pools: Cache<IpPool>,
    reservations: Cache<IpReservation>,
    configuration: Cache<IpamConfiguration>,
    node: Cache<Node>,
    affinities: Cache<BlockAffinity>,
    ready_within: Duration,
}

impl Watches {
    fn new(store: &impl Store, node: &str, ready_within: Duration) -> Self {
        let own = ListOptions::cached().label(affinity::HOST_LABEL, affinity::host_hash(node));
        let this = ListOptions::cached().field("metadata.name", node);
        Self {
            pools: Cache::follow(store.clone(), FollowOptions::default()),
            reservations: Cache::follow(store.clone(), FollowOptions::default()),
            configuration: Cache::follow(store.clone(), FollowOptions::default()),
            node: Cache::follow(store.clone(), FollowOptions::new(this)),
            affinities: Cache::follow(store.clone(), FollowOptions::new(own).keep_raw()),
            ready_within,
        }
    }

    async fn ready(&self) -> Result<(), AssignError> {
        let all = async {
            self.pools.wait_synced().await;
            self.reservations.wait_synced().await;
            self.configuration.wait_synced().await;
            self.node.wait_synced().await;
            self.affinities.wait_synced().await;
        };
        tokio::time::timeout(self.ready_within, all)
            .await
            .map_err(|_| AssignError::NotReady("pools and affinities are not read yet"))
    }

    fn reservations(&self) -> Reservations {
        let list = self.reservations.list();
        Reservations::read(list.iter().map(|stored| &***stored))
    }

    fn configuration(&self) -> IpamConfigurationSpec {
        let stored = self.configuration.get(&api::Key::cluster("default"));
        stored.map(|stored| stored.spec.clone()).unwrap_or_default()
    }

    fn node_labels(&self) -> BTreeMap<String, String> {
        self.node.list().first().map(|node| node.metadata.labels.clone()).unwrap_or_default()
    }

    fn readable_pools(&self) -> Vec<Pool> {
        self.pools.list().iter().filter_map(|stored| Pool::read(stored).ok()).collect()
    }
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

    /// Assigns what a pod's and its namespace's annotations ask for, IPv4 first.
    pub async fn assign_for_pod(&self, request: AssignRequest) -> Result<Vec<IpAddr>, AssignError> {
        self.watches.ready().await?;
        let (request, addresses) = wishes::read(request, &self.watches)?;
        let assigned = if addresses.is_empty() {
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

    /// Releases one address, if `handle` (where given) still has it.
    pub async fn release_ip(
        &self,
        address: IpAddr,
        handle: Option<&str>,
    ) -> Result<Released, AssignError> {
        let handle = handle.map(str::to_owned);
        self.ask(|reply| Command::ReleaseAddress(address, handle, reply)).await
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
    /// Affinities confirmed by this process: the watch may be behind.
    claimed: BTreeMap<IpNet, bool>,
    /// Handles that this process wrote.
    handles: BTreeMap<String, Stored<IpamHandle>>,
    options: Options,
}

/// Requests served with one round of writes.
const BATCH: usize = 256;

impl<S: Store> Worker<S> {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let mut batch = Vec::new();
        while inbox.recv_many(&mut batch, BATCH).await > 0 {
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
            self.recover().await;
            self.release_handles(releases).await;
            self.assign_all(assigns).await;
            for command in others {
                self.single(command).await;
            }
        }
    }

    async fn single(&mut self, command: Command) {
        // A caller that went away needs no answer.
        match command {
            Command::ReleaseAddress(address, handle, reply) => {
                let _ = reply.send(self.release_address(address, handle.as_deref()).await);
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

    /// Returns the blocks that this node owns, in order.
    fn own_blocks(&self) -> Vec<IpNet> {
        let watched = self.watches.affinities.list();
        let mut own: BTreeMap<IpNet, bool> = watched
            .iter()
            .filter(|one| one.spec.node == self.node)
            .filter_map(|one| {
                Some((one.spec.cidr.parse().ok()?, affinity::is_confirmed(&one.spec)))
            })
            .collect();
        own.extend(&self.claimed);
        own.into_iter().filter(|(_, confirmed)| *confirmed).map(|(block, _)| block).collect()
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
            Command::ReleaseHandle(_, reply) | Command::ReleaseAddress(_, _, reply) => {
                drop(reply.send(Err(error)));
            }
            Command::EnsureBlock(_, reply) | Command::ClaimBlock(_, reply) => {
                drop(reply.send(Err(error)));
            }
            Command::ReleaseAffinity(_, reply) => drop(reply.send(Err(error))),
        }
    }
}
