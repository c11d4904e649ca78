//! Start and shutdown of the daemon: the order is the design.
//!
//! Start: what must not wait comes first (the kernel is read, known endpoints are told, the CNI socket answers), what needs
//! the API server follows and is tried until it is done. Shutdown: no more CNI requests, the speaker leaves its sessions for
//! graceful restart, felix finishes its transaction. Rules and routes stay.

use std::{collections::BTreeSet, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use felix::dataplane::Felix;
use ipam::Allocator;
use store::kube::{KubeOptions, KubeStore};
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
    init_log(&args.log, args.log_json);
    if args.prepare_host {
        return if bootstrap::sysctls() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("cannot start the runtime").and_then(|runtime| {
        let result = runtime.block_on(run(args));
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %format!("{error:#}"), "voile-node ends");
            ExitCode::FAILURE
        }
    }
}

/// Sends the log to standard error.
pub(crate) fn init_log(filter: &str, json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // Saying on standard error that standard error fails would be a panic: the log's disk may be full.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if json { builder.json().init() } else { builder.with_ansi(false).init() }
}

async fn run(args: Args) -> Result<()> {
    let node_name = node_name(&args)?;
    std::fs::create_dir_all(&args.run_dir)
        .with_context(|| format!("cannot create --run-dir {}", args.run_dir.display()))?;
    let store = connect(&args).await?;
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
        namespace: args.namespace.clone(),
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
    let snapshots = status::Snapshots::new(&context, speaker.report, sync);
    tasks.spawn(status::run(store, snapshots.clone()));
    tasks.spawn(http::serve(http, metrics::pages(snapshots)));
    tracing::info!(node = %node_name, version = env!("CARGO_PKG_VERSION"), "voile-node runs");

    let ended = wait(&mut tasks).await;
    tasks.shutdown().await;
    let handle = speaker.handle.borrow().clone();
    if let Some(handle) = handle {
        handle.shutdown(bgp::Shutdown::Restart).await;
    }
    felix.shutdown().await;
    ended
}

/// Waits for a signal or for the end of a task, which is always a fault.
async fn wait(tasks: &mut JoinSet<()>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: leaving rules and routes in place"),
        _ = interrupt.recv() => tracing::info!("SIGINT: leaving rules and routes in place"),
        ended = tasks.join_next() => match ended {
            Some(Err(error)) => return Err(error).context("a task panicked"),
            _ => anyhow::bail!("a task ended that never should"),
        },
    }
    Ok(())
}

async fn connect(args: &Args) -> Result<KubeStore> {
    connect_to(args.kubeconfig.as_deref(), &args.service_account).await
}

/// Connects with a kubeconfig, with the pod's service account, or with what kubectl would use.
pub(crate) async fn connect_to(
    kubeconfig: Option<&Path>,
    service_account: &Path,
) -> Result<KubeStore> {
    let options = KubeOptions::default();
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let store = match kubeconfig {
        Some(path) => KubeStore::from_kubeconfig(path, None, options).await,
        None if in_cluster => KubeStore::in_cluster_at(service_account, options),
        None => KubeStore::infer(options).await,
    };
    store.context("cannot use the API server's credentials; see --kubeconfig and --service-account")
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
