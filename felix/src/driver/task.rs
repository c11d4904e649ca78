//! The driver's thread: waits for commands, for others' changes, and for its own retries.

#![expect(clippy::disallowed_methods, reason = "the rim reads the clock")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant, SystemTime},
};

use ipnet::IpNet;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot},
};

use super::{
    Command, Config, Engine, Event, FibOutcome, Outcome,
    apply::{Applied, Applier},
    routes::{self, Routes},
    status::Outputs,
};
use crate::{
    linux::{
        monitor::{Heard, Monitor},
        nft::Nft,
    },
    nft::Table,
    update::{EndpointId, Update},
};

/// Longest that updates are gathered while more keep coming.
const COALESCE: Duration = Duration::from_millis(5);
/// First and longest pause after a refusal.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Sizes of a big table are counted at most this often.
const COUNT_EVERY: Duration = Duration::from_millis(200);

/// The sockets, opened in the namespace of whoever starts the driver.
pub(super) struct Ports {
    nft: Nft,
    monitor: Monitor,
    links: kernel::Monitor,
    routes: Routes,
}

impl Ports {
    pub(super) fn open(table: &str) -> io::Result<Self> {
        let nft = Nft::open()?;
        // Listen before anything is read, so that there is no gap.
        let monitor = Monitor::open(table, nft.port())?;
        let links = kernel::Monitor::open().map_err(io::Error::other)?;
        let routes = Routes::open().map_err(io::Error::other)?;
        Ok(Self { nft, monitor, links, routes })
    }
}

struct Driver<E> {
    engine: E,
    applier: Applier,
    routes: Routes,
    outputs: Outputs,
    /// Whether the engine knows everything there is.
    in_sync: bool,
    /// Whether the kernel's table was read.
    read: bool,
    ready: BTreeSet<EndpointId>,
    /// Ready once the table is committed.
    staged: Option<Vec<EndpointId>>,
    endpoint_waiters: Vec<(EndpointId, oneshot::Sender<()>)>,
    route_waiters: Vec<(Vec<IpNet>, oneshot::Sender<()>)>,
    /// When the first update not yet in the kernel came.
    pending_since: Option<Instant>,
    engine_dirty: bool,
    backoff: Duration,
    /// When to try again what the kernel refused; nothing is committed before.
    retry_at: Option<Instant>,
    /// When to try quarantined chains and refused routes again; everything else goes on meanwhile.
    recheck_at: Option<Instant>,
    counted_at: Option<Instant>,
    count_due: bool,
    drift: Option<Heard>,
    /// Who wants to know what became of routes learned by BGP.
    fib_follower: Option<mpsc::UnboundedSender<Vec<FibOutcome>>>,
}

enum Wake {
    Command(Option<Command>),
    Rules,
    Links,
    Timer,
}

pub(super) fn run<E: Engine>(
    config: Config,
    engine: E,
    ports: Ports,
    commands: mpsc::Receiver<Command>,
    outputs: Outputs,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime
        .and_then(|runtime| runtime.block_on(serve(config, engine, ports, commands, outputs)));
    if let Err(error) = result {
        tracing::error!(%error, "policy driver stopped");
    }
}

async fn serve<E: Engine>(
    config: Config,
    engine: E,
    ports: Ports,
    mut commands: mpsc::Receiver<Command>,
    outputs: Outputs,
) -> io::Result<()> {
    let (mut rules, mut links) = (ports.monitor, ports.links);
    let (rules_ready, links_ready) = (readiness(rules.as_fd())?, readiness(links.as_fd())?);
    let mut driver = Driver::new(config, engine, ports.nft, ports.routes, outputs);
    driver.flush(&mut rules);
    loop {
        let alarm = driver.alarm();
        let wake = tokio::select! {
            command = commands.recv() => Wake::Command(command),
            ready = rules_ready.readable() => { ready?.clear_ready(); Wake::Rules }
            ready = links_ready.readable() => { ready?.clear_ready(); Wake::Links }
            () = tokio::time::sleep_until(alarm.into()) => Wake::Timer,
        };
        match wake {
            Wake::Command(None) => return Ok(()),
            Wake::Command(Some(command)) => {
                if let Some(stopped) = driver.take(command, &mut commands) {
                    driver.flush(&mut rules);
                    let _ = stopped.send(());
                    return Ok(());
                }
            }
            Wake::Rules => driver.hear(&mut rules),
            Wake::Links => driver.observe(&mut links),
            Wake::Timer => driver.retry(),
        }
        driver.flush(&mut rules);
    }
}

/// Readiness of a socket, through a descriptor of its own.
#[expect(
    deprecated,
    reason = "the replacement is unsafe; an owned descriptor that never moves is not"
)]
fn readiness(socket: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket.try_clone_to_owned()?, Interest::READABLE)
}

impl<E: Engine> Driver<E> {
    fn new(config: Config, engine: E, nft: Nft, routes: Routes, outputs: Outputs) -> Self {
        Self {
            engine,
            applier: Applier::new(Table::new(config.table), nft),
            routes,
            outputs,
            in_sync: false,
            read: false,
            ready: BTreeSet::new(),
            staged: None,
            endpoint_waiters: Vec::new(),
            route_waiters: Vec::new(),
            pending_since: None,
            engine_dirty: false,
            backoff: BACKOFF.0,
            retry_at: None,
            recheck_at: None,
            counted_at: None,
            count_due: false,
            drift: None,
            fib_follower: None,
        }
    }

    /// When to wake without being called.
    fn alarm(&self) -> Instant {
        let count = self.counted_at.filter(|_| self.count_due).map(|at| at + COUNT_EVERY);
        let idle = || Instant::now() + Duration::from_secs(3600);
        [self.retry_at, self.recheck_at, count].into_iter().flatten().min().unwrap_or_else(idle)
    }

    /// Takes a command and all that are queued behind it, for a few milliseconds at most.
    fn take(
        &mut self,
        first: Command,
        queue: &mut mpsc::Receiver<Command>,
    ) -> Option<oneshot::Sender<()>> {
        let until = Instant::now() + COALESCE;
        let mut next = Some(first);
        while let Some(command) = next {
            if let Command::Shutdown(stopped) = command {
                return Some(stopped);
            }
            self.command(command);
            next = if Instant::now() < until { queue.try_recv().ok() } else { None };
        }
        None
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Updates(updates) => {
                self.pending_since.get_or_insert_with(Instant::now);
                self.engine_dirty = true;
                // The update may be the cure for what was refused.
                let soon = Instant::now() + BACKOFF.0;
                self.retry_at = self.retry_at.map(|at| at.min(soon));
                for update in updates {
                    self.update(update);
                }
            }
            Command::SetFib(entries) => self.routes.set_fib(entries),
            Command::FibSynced => self.routes.fib_synced(),
            Command::FollowFib(follower) => self.fib_follower = Some(follower),
            Command::WaitEndpoint(id, done) => self.endpoint_waiters.push((id, done)),
            Command::WaitRoutes(prefixes, done) => self.route_waiters.push((prefixes, done)),
            Command::Shutdown(_) => {}
        }
    }

    fn update(&mut self, update: Update) {
        match &update {
            Update::InSync => self.in_sync = true,
            // What was committed may not be what this update asks for.
            Update::LocalEndpoint(id, _) => {
                self.ready.remove(id);
            }
            _ => {}
        }
        self.engine.on_update(update);
    }

    /// Others changed rules.
    fn hear(&mut self, monitor: &mut Monitor) {
        match monitor.drain() {
            Ok(heard) if heard.is_drift() => {
                self.drift.get_or_insert_with(Heard::default).merge(heard);
                self.retry_at = None;
            }
            // Another table: only the generation moved.
            Ok(_) => {
                if let Err(error) = self.applier.refresh() {
                    self.failed(error.to_string());
                }
            }
            Err(error) => self.failed(error.to_string()),
        }
    }

    /// Routes or links changed.
    fn observe(&mut self, links: &mut kernel::Monitor) {
        match self.routes.observe(links) {
            Ok(_) => {
                let applied = self.routes.apply();
                let count = u64::try_from(applied.repaired.len()).unwrap_or(0);
                self.outputs.status.route_repairs += count;
                if count > 0 {
                    let routes = applied.repaired.iter().map(ToString::to_string).collect();
                    self.outputs.event(Event::RoutesRepaired { routes });
                }
                self.note_routes(applied);
            }
            Err(error) => self.outputs.status.last_route_error = Some(error.to_string()),
        }
    }

    /// A pause is over.
    fn retry(&mut self) {
        let now = Instant::now();
        self.retry_at = self.retry_at.filter(|at| *at > now);
        if self.recheck_at.is_some_and(|at| at <= now) {
            self.recheck_at = None;
            if self.applier.has_quarantined() {
                // The table believes it is committed: reading shows the difference again.
                self.read = false;
            }
            if self.routes.has_refused() {
                self.routes.retry();
            }
        }
    }

    fn failed(&mut self, error: String) {
        tracing::warn!(%error, retry_in = ?self.backoff, "rules not applied");
        if self.outputs.status.last_error.as_ref() != Some(&error) {
            self.outputs.event(Event::ApplyFailed { error: error.clone() });
        }
        self.outputs.status.last_error = Some(error);
        self.retry_at = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
    }

    fn recheck_later(&mut self) {
        self.recheck_at.get_or_insert_with(|| Instant::now() + BACKOFF.1);
    }

    /// Brings kernel and engine together as far as possible now, and answers who waits.
    fn flush(&mut self, monitor: &mut Monitor) {
        if self.retry_at.is_none() {
            self.flush_rules(monitor);
        }
        let applied = self.routes.apply();
        self.note_routes(applied);
        self.answer();
        self.count();
        self.outputs.publish();
    }

    fn flush_rules(&mut self, monitor: &mut Monitor) {
        if !self.read || self.drift.is_some() {
            if let Err(error) = self.applier.read() {
                return self.failed(error.to_string());
            }
            self.read = true;
        }
        if !self.in_sync {
            self.drift = None;
            return;
        }
        if std::mem::take(&mut self.engine_dirty) {
            let outcome = self.engine.flush(&mut self.applier.table);
            self.stage(outcome);
        }
        let applied = self.applier.apply(monitor);
        self.note_rules(applied);
    }

    fn stage(&mut self, outcome: Outcome) {
        let ready: BTreeSet<EndpointId> = outcome.ready.iter().cloned().collect();
        self.ready.retain(|id| ready.contains(id));
        self.staged = Some(outcome.ready);
        // What the kernel has already is of that size too.
        self.count_due = true;
        self.outputs.status.policies = outcome.policies;
        if let Some(problems) = outcome.problems {
            for problem in problems.iter().filter(|one| !self.outputs.status.problems.contains(one))
            {
                tracing::warn!(%problem, "not enforced as written");
            }
            self.outputs.status.problems = problems;
        }
        self.outputs.status.not_ready = outcome.not_ready.into_iter().collect::<BTreeMap<_, _>>();
        if let Some(routes) = outcome.routes {
            self.routes.set_local(routes);
        }
    }

    fn note_rules(&mut self, applied: Applied) {
        let drift = [self.drift.take(), applied.drift].into_iter().flatten().reduce(|mut a, b| {
            a.merge(b);
            a
        });
        if let Some(Heard { changes, count, lost }) = drift {
            tracing::warn!(?changes, count, lost, "someone else changed our rules");
            self.outputs.status.drift_repairs += u64::from(applied.error.is_none());
            self.outputs.event(Event::Drift { changes, count, lost });
        }
        let known = self.outputs.status.last_error == applied.error;
        if !applied.quarantined.is_empty() && !known {
            tracing::warn!(chains = ?applied.quarantined, "refused rules replaced by drop");
            let error = applied.error.clone().unwrap_or_default();
            self.outputs.event(Event::Quarantined { chains: applied.quarantined.clone(), error });
        }
        if applied.commits > 0 {
            let since = self.pending_since.unwrap_or_else(Instant::now);
            self.outputs.committed(SystemTime::now(), since.elapsed());
        }
        match applied.error {
            Some(error) if applied.quarantined.is_empty() => return self.failed(error),
            Some(error) => {
                self.outputs.status.last_error = Some(error);
                self.recheck_later();
            }
            // Commits of others do not lift a quarantine.
            None if self.applier.has_quarantined() => self.recheck_later(),
            None => {
                self.outputs.status.last_error = None;
                self.backoff = BACKOFF.0;
            }
        }
        self.pending_since = None;
        self.outputs.status.in_sync = true;
        if let Some(staged) = self.staged.take() {
            self.ready.extend(staged);
            self.outputs.status.revision += 1;
        }
        self.outputs.status.endpoints = self.ready.len();
    }

    fn note_routes(&mut self, applied: routes::Applied) {
        self.outputs.status.routes = self.routes.count();
        if !applied.fib.is_empty()
            && let Some(follower) = &self.fib_follower
        {
            // It ends with the daemon.
            let _ = follower.send(applied.fib);
        }
        match applied.failed.first() {
            Some(first) => {
                if self.outputs.status.last_route_error.as_ref() != Some(first) {
                    tracing::warn!(routes = ?applied.failed, "routes refused");
                    let routes = applied.failed.clone();
                    self.outputs.event(Event::RoutesFailed { routes });
                }
                self.outputs.status.last_route_error = Some(first.clone());
                self.recheck_later();
            }
            None if !self.routes.has_refused() => self.outputs.status.last_route_error = None,
            None => {}
        }
    }

    fn answer(&mut self) {
        let (ready, routes) = (&self.ready, &self.routes);
        let met = self
            .endpoint_waiters
            .extract_if(.., |(id, done)| done.is_closed() || ready.contains(id));
        for (_, done) in met {
            let _ = done.send(());
        }
        let met = self
            .route_waiters
            .extract_if(.., |(prefixes, done)| done.is_closed() || routes.has(prefixes));
        for (_, done) in met {
            let _ = done.send(());
        }
    }

    fn count(&mut self) {
        let due = self.counted_at.is_none_or(|at| at.elapsed() >= COUNT_EVERY);
        if self.count_due && due {
            self.outputs.status.table = self.applier.table.stats();
            self.counted_at = Some(Instant::now());
            self.count_due = false;
        }
    }
}
