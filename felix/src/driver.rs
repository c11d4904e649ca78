//! The driver: one thread that owns the engine, the table, the nf_tables socket and the kernel's routes.
//!
//! Callers send what became known and wait for what they need in the kernel; nothing else writes rules or routes.
//! It starts by reading the kernel and writes nothing before [`Update::InSync`]; it leaves everything in place when it
//! stops. The thread has its own little runtime, so a long calculation holds up no BGP timer.

mod apply;
mod event;
mod routes;
mod status;
mod task;

use std::{fmt, io, net::IpAddr};

use ipnet::IpNet;
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

pub use event::Event;
pub use routes::METRIC;
pub use status::{Histogram, Status};

use crate::{
    nft::Table,
    update::{EndpointId, Update},
};

/// What the driver needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of our nf_tables table.
    pub table: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { table: "voile".to_owned() }
    }
}

/// The policy core, as the driver sees it.
pub trait Engine: Send + 'static {
    /// Takes note of something.
    fn on_update(&mut self, update: Update);

    /// Brings the table up to date with everything noted.
    fn flush(&mut self, table: &mut Table) -> Outcome;
}

/// What a flush says beside the table.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Every local endpoint whose rules are in the table now.
    pub ready: Vec<EndpointId>,
    /// Every other local endpoint, and what it lacks.
    pub not_ready: Vec<(EndpointId, String)>,
    /// Policies that select a local endpoint.
    pub policies: usize,
    /// All routes of local workloads and blocks; `None`: as before.
    pub routes: Option<Vec<LocalRoute>>,
    /// All objects that are not enforced as written, and why; `None`: as before.
    pub problems: Option<Vec<String>>,
}

/// A route for a pod or a block of this node.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LocalRoute {
    /// Destination.
    pub prefix: IpNet,
    /// Interface of the pod; `None`: drop what no pod has.
    pub interface: Option<String>,
}

/// A route learned by BGP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FibEntry {
    /// Destination.
    pub prefix: IpNet,
    /// Where packets go.
    pub route: FibRoute,
}

/// What BGP makes of packets to a prefix.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FibRoute {
    /// Nothing: the route is removed.
    Absent,
    /// They go to these routers; where known, with the interfaces towards them.
    Via(Vec<(IpAddr, Option<String>)>),
    /// They are dropped.
    Blackhole,
}

/// What became of a route learned by BGP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FibOutcome {
    /// Destination.
    pub prefix: IpNet,
    /// Why the kernel does not have the route; `None`: it has it.
    pub refused: Option<String>,
}

/// Why waiting ended without what was waited for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline passed.
    #[error("not programmed in time: {0}")]
    Deadline(String),
    /// The driver is gone.
    #[error("the policy driver has stopped")]
    Stopped,
}

/// What callers ask of the driver's thread.
enum Command {
    Updates(Vec<Update>),
    SetFib(Vec<FibEntry>),
    FibSynced,
    FollowFib(mpsc::UnboundedSender<Vec<FibOutcome>>),
    WaitEndpoint(EndpointId, oneshot::Sender<()>),
    WaitRoutes(Vec<IpNet>, oneshot::Sender<()>),
    Shutdown(oneshot::Sender<()>),
}

/// Commands that may be queued before senders wait.
const QUEUE: usize = 1024;
/// Events kept for slow listeners.
const EVENTS: usize = 256;

/// A way to talk to the driver; clones talk to the same one.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    events: broadcast::Sender<Event>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("running", &self.is_running()).finish()
    }
}

/// Starts the driver in the network namespace of the calling thread.
pub fn spawn<E: Engine>(config: Config, engine: E) -> io::Result<Handle> {
    let (commands, received) = mpsc::channel(QUEUE);
    let (status_sender, status) = watch::channel(Status::default());
    let (events, _) = broadcast::channel(EVENTS);
    let outputs = status::Outputs::new(status_sender, events.clone());
    let ports = task::Ports::open(&config.table)?;
    std::thread::Builder::new().name("felix".to_owned()).spawn(move || {
        task::run(config, engine, ports, received, outputs);
    })?;
    Ok(Handle { commands, status, events })
}

impl Handle {
    /// Tells what became known; waits only while the queue is full.
    pub async fn updates(&self, updates: Vec<Update>) {
        self.tell(Command::Updates(updates)).await;
    }

    /// Sets or removes routes learned by BGP.
    pub async fn set_fib(&self, entries: Vec<FibEntry>) {
        self.tell(Command::SetFib(entries)).await;
    }

    /// Says that BGP has told all its routes: those of a former run that it did not tell are removed.
    pub async fn fib_synced(&self) {
        self.tell(Command::FibSynced).await;
    }

    /// Hears from now on what becomes of the routes that are set, and when that changes later.
    pub async fn follow_fib(&self) -> mpsc::UnboundedReceiver<Vec<FibOutcome>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.tell(Command::FollowFib(sender)).await;
        receiver
    }

    /// Waits until the policy of an endpoint, as of all updates sent before, is committed in the kernel.
    pub async fn wait_endpoint(&self, id: EndpointId, deadline: Instant) -> Result<(), WaitError> {
        let (done, wait) = oneshot::channel();
        self.tell(Command::WaitEndpoint(id.clone(), done)).await;
        self.finish(wait, deadline, || self.why_not(&id)).await
    }

    /// Waits until the kernel has our device routes for all these addresses.
    pub async fn wait_routes(
        &self,
        addresses: &[IpAddr],
        deadline: Instant,
    ) -> Result<(), WaitError> {
        let (done, wait) = oneshot::channel();
        let prefixes = addresses.iter().copied().map(IpNet::from).collect();
        self.tell(Command::WaitRoutes(prefixes, done)).await;
        let reason = || {
            let error = self.status.borrow().last_route_error.clone();
            error.unwrap_or_else(|| "no route wanted, or its interface does not exist".to_owned())
        };
        self.finish(wait, deadline, reason).await
    }

    /// What is in the kernel, and how it went.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Whether the driver still runs; it stops only when asked to, or by a defect.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Stops the driver after what it is doing; everything stays in the kernel.
    pub async fn shutdown(&self) {
        let (done, wait) = oneshot::channel();
        self.tell(Command::Shutdown(done)).await;
        let _ = wait.await;
    }

    async fn tell(&self, command: Command) {
        // A stopped driver needs to know nothing; those who wait for it learn that it stopped.
        let _ = self.commands.send(command).await;
    }

    async fn finish(
        &self,
        wait: oneshot::Receiver<()>,
        deadline: Instant,
        reason: impl FnOnce() -> String,
    ) -> Result<(), WaitError> {
        match timeout_at(deadline, wait).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(WaitError::Stopped),
            Err(_) => Err(WaitError::Deadline(reason())),
        }
    }

    fn why_not(&self, id: &EndpointId) -> String {
        let status = self.status.borrow();
        if let Some(reason) = status.not_ready.get(id) {
            return reason.clone();
        }
        if !status.in_sync {
            return "the objects of the cluster are not all known yet".to_owned();
        }
        match &status.last_error {
            Some(error) => error.clone(),
            None => format!("endpoint {id} is not known"),
        }
    }
}

#[cfg(test)]
mod tests;
