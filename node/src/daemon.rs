//! Start and shutdown of the daemon: the order is the design.
//!
//! Start: what must not wait comes first (the kernel is read, known endpoints are told, the CNI socket answers), what needs
//! the API server follows and is tried until it is done. Shutdown: no more CNI requests, the speaker leaves its sessions for
//! graceful restart, felix finishes its transaction. Rules and routes stay.

use std::{collections::BTreeSet, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use felix::dataplane::Felix;
use ipam::Allocator;
use store::kube::KubeStore;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    args::Args,
    bootstrap,
    cni_server::{self, Server},
    endpoints::Endpoints,
    http, identity, metrics,
    pods::PodView,
    speaker_task, status,
    sync::{self, SyncState},
    tasks::Context as Tasks,
};

/// Runs the daemon and maps how it ended to an exit code.
#[must_use]
pub fn main(args: Args) -> ExitCode {
    args.log.init();
    if args.prepare_host {
        return if bootstrap::sysctls() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    to_its_end("voile-node", run(args))
}

/// Runs a program on two threads until it ends, and maps how that was to an exit code.
pub(crate) fn to_its_end(program: &str, work: impl Future<Output = Result<()>>) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("cannot start the runtime").and_then(|runtime| {
        let result = runtime.block_on(work);
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %format!("{error:#}"), "{program} ends");
            ExitCode::FAILURE
        }
    }
}

/// Waits for a signal or for the end of a task, which is always a fault. `then` is what the log says comes next.
pub(crate) async fn until_told(tasks: &mut JoinSet<()>, then: &str) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: {then}"),
        _ = interrupt.recv() => tracing::info!("SIGINT: {then}"),
        ended = tasks.join_next() => match ended {
            Some(Err(error)) => return Err(error).context("a task panicked"),
            _ => anyhow::bail!("a task ended that never should"),
        },
    }
    Ok(())
}

async fn run(args: Args) -> Result<()> {
    let node_name = node_name(&args)?;
    std::fs::create_dir_all(&args.run_dir)
        .with_context(|| format!("cannot create --run-dir {}", args.run_dir.display()))?;
    let store = args.cluster.connect().await?;
    bootstrap::sysctls();
    let (endpoints, complaints) = Endpoints::load(&args.run_dir)
        .with_context(|| format!("cannot read the endpoints below {}", args.run_dir.display()))?;
    for complaint in complaints {
        tracing::warn!(%complaint, "endpoint record");
    }
    let http = http::bind(args.metrics_address).await?;

    let felix = felix::driver::spawn(
        felix::driver::Config::default(),
        Felix::new(felix::dataplane::Config::new(&node_name)),
    )
    .context("cannot open the kernel's netlink sockets; voile-node needs CAP_NET_ADMIN")?;
    felix.updates(endpoints.iter().map(cni_server::endpoint_update).collect()).await;
    let context = Tasks {
        node_name: node_name.clone(),
        run_dir: args.run_dir.clone(),
        view: PodView::default(),
        felix: felix.clone(),
        collectors: args.collectors(&node_name),
        namespace: args.cluster.namespace.clone(),
        addresses: watch::channel(BTreeSet::new()).0,
        blocks: watch::channel(BTreeSet::new()).0,
    };
    let speaker_inbox = mpsc::channel(1024);

    let (sync_state, sync) = watch::channel(SyncState::default());
    let allocator = Allocator::new(store.clone(), &node_name);
    let mtu = args.mtu.map_or_else(bootstrap::uplink_mtu, Ok)?;
    let server = Arc::new(Server::new(
        context.clone(),
        store.clone(),
        allocator.clone(),
        endpoints,
        sync.clone(),
        mtu,
    ));
    server.drop_vanished_at_start().await;

    let mut tasks = JoinSet::new();
    tasks.spawn(sync::run(
        store.clone(),
        node_name.clone(),
        felix.clone(),
        context.view.clone(),
        sync_state,
        speaker_inbox.0.clone(),
    ));
    tasks.spawn(cni_server::remove::retry_releases(Arc::clone(&server)));
    tasks.spawn(cni_server::repair::run(Arc::clone(&server)));
    tasks.spawn(cni_server::machines::receive(Arc::clone(&server)));
    let listener = cni_server::listen(&args.cni_socket)?;
    tasks.spawn(cni_server::serve(Arc::clone(&server), listener));
    let (journal, socket) = (Arc::clone(&server), args.cni_socket.clone());
    tasks.spawn(async move {
        cni_server::consume_journal(&journal, &socket).await;
        std::future::pending().await
    });
    install_cni(&args)?;
    tasks.spawn(announce(store.clone(), args.clone(), node_name.clone(), allocator));
    let speaker = speaker_task::start(&mut tasks, &context, store.clone(), speaker_inbox);
    let snapshots = status::Snapshots::new(&context, &speaker, sync);
    tasks.spawn(status::run(store, snapshots.clone()));
    tasks.spawn(http::serve(http, metrics::pages(snapshots)));
    tracing::info!(node = %node_name, version = env!("CARGO_PKG_VERSION"), "voile-node runs");

    let ended = until_told(&mut tasks, "leaving rules and routes in place").await;
    tasks.shutdown().await;
    let handle = speaker.handle.borrow().clone();
    if let Some(handle) = handle {
        handle.shutdown(bgp::Shutdown::Restart).await;
    }
    felix.shutdown().await;
    ended
}

fn node_name(args: &Args) -> Result<String> {
    if let Some(name) = &args.node_name {
        return Ok(name.clone());
    }
    let name = nix::unistd::gethostname().context("cannot read the host name; give --node-name")?;
    Ok(name.to_string_lossy().to_lowercase())
}

fn install_cni(args: &Args) -> Result<()> {
    let Some(folders) = &args.cni_install else { return Ok(()) };
    let (bin, conf) = folders.split_once(':').context("--cni-install wants BIN_DIR:CONF_DIR")?;
    let ours = std::env::current_exe()?.with_file_name(cni::install::BINARY);
    cni::install::install_binary(&ours, bin.as_ref())
        .with_context(|| format!("cannot install {} into {bin}", ours.display()))?;
    let conflist =
        cni::install::Conflist { socket: args.cni_socket.clone(), mtu: args.mtu, portmap: true };
    cni::install::install_conflist(&conflist, conf.as_ref())
        .with_context(|| format!("cannot install the network configuration into {conf}"))?;
    Ok(())
}

/// Writes this node's addresses and the cluster's default objects, and claims a first block of each family.
async fn announce(
    store: KubeStore,
    args: Args,
    node_name: String,
    allocator: Allocator<KubeStore>,
) {
    bootstrap::until_done("this node's addresses", || {
        bootstrap::announce_addresses(&store, &node_name, &args)
    })
    .await;
    bootstrap::until_done("default objects of the cluster", || async {
        bootstrap::cluster_defaults(&store, bootstrap::guid()?).await
    })
    .await;
    let (v4, v6) = identity_families();
    for (wanted, family) in [(v4, ipam::Family::V4), (v6, ipam::Family::V6)] {
        if wanted {
            bootstrap::until_done("first block", || async {
                allocator.ensure_block(family).await.map(drop).map_err(anyhow::Error::from)
            })
            .await;
        }
    }
    std::future::pending().await
}

fn identity_families() -> (bool, bool) {
    let candidates: Vec<identity::Candidate> = bootstrap::candidates().unwrap_or_default();
    bootstrap::families(&candidates)
}
