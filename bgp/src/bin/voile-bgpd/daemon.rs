//! The loop of the program.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use bgp::{
    LocalRoute, Prefix, Shutdown, SpeakerConfig,
    driver::{self, FibReceiver, Handle, Options},
};
use kernel::{Event, Monitor};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::Instant,
};

use crate::{
    config::{self, Config},
    control,
    routes::Routes,
};

/// Changes of the kernel that are looked at together.
const EVENTS: usize = 256;
/// How soon the watching thread notices that we are gone.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long routes of a former life stay after a restart is complete: a neighbour that restarts too may say End-of-RIB before it
/// knows everything again (RFC 4724 §4.1 lets it not wait for us), and forwarding must survive that.
const SWEEP_DELAY: Duration = Duration::from_secs(10);

struct Daemon {
    config: Config,
    speaker: Handle,
    routes: Routes,
    originated: BTreeMap<Prefix, LocalRoute>,
}

pub(crate) async fn run(config: Config, path: &Path) -> anyhow::Result<()> {
    let routes = Routes::open(config.metric, config.install_routes)
        .context("cannot read the kernel's routes")?;
    let events = watch(Monitor::open().context("cannot watch the kernel")?);
    // Routes of a former run forward until peers have sent theirs again (RFC 4724).
    let restarting = routes.were_left();
    let forwarding_via = routes.forwarding_via().filter(|_| restarting);
    let fib = config.install_routes;
    let speaker_config =
        SpeakerConfig { restarting, forwarding_via, fib, ..config.speaker.clone() };
    let options = Options { listen: config.listen.clone(), seed: seed() };
    let (speaker, fib) = driver::spawn(speaker_config, options)?;
    if let Some(socket) = &config.status_socket {
        control::serve(socket, speaker.clone())?;
    }
    tracing::info!(asn = %config.speaker.local_as, router_id = %config.speaker.router_id,
        peers = config.speaker.peers.len(), restarting, "started");
    let mut daemon = Daemon { config, speaker, routes, originated: BTreeMap::new() };
    daemon.speaker.networks(daemon.routes.networks()?)?;
    daemon.originate()?;
    daemon.serve(fib, events, path, restarting).await
}

/// Reads the kernel's events on a thread of its own: the reading blocks.
fn watch(mut monitor: Monitor) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(EVENTS);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match monitor.next_within(PATIENCE) {
                Ok(Some(event)) => {
                    if sender.blocking_send(event).is_err() {
                        return;
                    }
                }
                Ok(None) => (),
                Err(error) => {
                    tracing::error!(%error, "cannot read the kernel's events");
                    return;
                }
            }
        }
    });
    receiver
}

/// Waits for an instant; for ever when there is none.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the rim: jitter must differ between routers")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ u64::from(std::process::id()) << 32
}

impl Daemon {
    /// Runs until a signal. Every branch is cancel-safe: they wait only.
    async fn serve(
        &mut self,
        mut fib: FibReceiver,
        mut events: mpsc::Receiver<Event>,
        path: &Path,
        restarting: bool,
    ) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut batch = Vec::new();
        let mut sweep_at = None;
        loop {
            tokio::select! {
                batch = fib.recv() => match batch {
                    Some(batch) => {
                        if batch.complete {
                            let delay = if restarting { SWEEP_DELAY } else { Duration::ZERO };
                            sweep_at = Some(Instant::now() + delay);
                        }
                        self.routes.apply(batch, &self.speaker)?;
                    }
                    None => anyhow::bail!("the speaker stopped"),
                },
                () = until(sweep_at) => {
                    sweep_at = None;
                    self.routes.sweep(&self.speaker)?;
                }
                count = events.recv_many(&mut batch, EVENTS) => {
                    if count == 0 {
                        anyhow::bail!("the kernel's events ended");
                    }
                    if self.routes.observe(batch.drain(..), &self.speaker)? {
                        self.originate()?;
                        self.speaker.networks(self.routes.networks()?)?;
                    }
                }
                _ = hangup.recv() => self.reload(path, restarting)?,
                _ = terminate.recv() => {
                    self.speaker.shutdown(Shutdown::Restart).await;
                    return Ok(());
                }
                _ = interrupt.recv() => {
                    self.speaker.shutdown(Shutdown::Final).await;
                    return self.routes.clear().context("cannot remove the routes");
                }
            }
        }
    }

    /// Announces what is wanted and was not yet, withdraws what is not wanted any more.
    fn originate(&mut self) -> anyhow::Result<()> {
        let mut wanted = BTreeMap::new();
        if self.config.redistribute_connected {
            let connected = self.routes.connected()?;
            wanted.extend(connected.into_iter().map(|prefix| (prefix, LocalRoute::default())));
        }
        wanted.extend(self.config.networks.clone());
        for prefix in self.originated.keys().filter(|prefix| !wanted.contains_key(prefix)) {
            self.speaker.withdraw(*prefix)?;
        }
        for (prefix, route) in &wanted {
            if self.originated.get(prefix) != Some(route) {
                self.speaker.originate(*prefix, route.clone())?;
            }
        }
        self.originated = wanted;
        Ok(())
    }

    /// A file with errors changes nothing.
    fn reload(&mut self, path: &Path, restarting: bool) -> anyhow::Result<()> {
        match config::read(path) {
            Ok(new) => {
                let fib = self.config.install_routes;
                let speaker = SpeakerConfig { restarting, fib, ..new.speaker.clone() };
                self.speaker.configure(speaker)?;
                if new.listen != self.config.listen
                    || new.install_routes != self.config.install_routes
                    || new.metric != self.config.metric
                {
                    tracing::warn!("listen, install-routes and metric need a restart");
                }
                self.config = new;
                self.originate()?;
                tracing::info!("configuration read again");
            }
            Err(error) => tracing::error!("kept the old configuration: {error:#}"),
        }
        Ok(())
    }
}
