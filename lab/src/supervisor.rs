//! The process that owns a lab: its namespaces, its programs, its API server and its control plane.

pub(crate) mod crds;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::{Api, Client};

use crate::{
    apiserver::{self, Options, Server},
    cluster::{
        self,
        cache::Cache,
        kubelet::Kubelet,
        manifests::{self, Applier},
        nodes, scheduler, slices,
    },
    control::{self, Control},
    fabric,
    paths::{Layout, make_private},
    processes::{Processes, Restart, Spec},
    procfs::ProcessId,
    rootless, routers,
    state::{Ledger, State, write_atomically},
    topology::{Role, Topology},
};

/// Where the API server listens inside each node's namespace.
const INNER_PORT: u16 = 6443;

/// Arguments of `voile-lab supervise`.
#[derive(clap::Args, Clone, Debug)]
pub struct SuperviseArgs {
    /// The lab's folder
    #[arg(long)]
    pub dir: PathBuf,
    /// The topology
    #[arg(long)]
    pub file: PathBuf,
    /// Bring a user namespace
    #[arg(long)]
    pub rootless: bool,
}

/// Tells whoever started us how far we are, until they hang up.
fn tell(kind: &str, text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be listening any more.
    drop(writeln!(out, "{kind} {text}").and_then(|()| out.flush()));
}

/// Builds the lab and keeps it until it is killed. Must be called while the process has a single thread.
pub fn run(args: &SuperviseArgs) -> Result<()> {
    let result = start(args);
    if let Err(error) = &result {
        tracing::error!("{error:#}");
        tell("failed", &format!("{error:#}").replace('\n', " "));
    }
    result
}

fn start(args: &SuperviseArgs) -> Result<()> {
    // Fails only for who leads a group already, which is as good.
    let _ = nix::unistd::setsid();
    let layout = Layout::at(&args.dir);
    let topology = Topology::load(&args.file)?;
    // Before the namespaces change: this is the listener that kubectl on the host reaches.
    let outer =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
    let outer_url = format!("http://{}", outer.local_addr()?);
    if args.rootless {
        rootless::enter_new(&args.dir)?;
    }
    let own = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
    let own_url = format!("http://{}", own.local_addr()?);
    let ledger = Ledger::begin(
        layout.state(),
        State {
            name: layout.name.clone(),
            topology: args.file.clone(),
            rootless: args.rootless,
            supervisor: ProcessId::own(),
            server: outer_url.clone(),
            ..State::default()
        },
    )?;
    for folder in ["logs", "nodes"] {
        make_private(&layout.dir.join(folder))?;
    }
    let (count, links) = (topology.nodes.len(), topology.links.len());
    tell("step", &format!("building {count} namespaces and {links} links"));
    fabric::build(&topology, &layout, &ledger)?;
    for node in &topology.nodes {
        fabric::configure(node, &layout)?;
    }
    let token = apiserver::random_token()?;
    let own_url = format!("{own_url}/{token}");
    ledger.change(|state| state.own_url.clone_from(&own_url))?;
    let mut listeners = vec![outer, own];
    for node in topology.kubernetes_nodes() {
        let netns = kernel::NetNs::open(layout.netns(&node.name))?;
        let listener = netns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, INNER_PORT)))?;
        listeners
            .push(listener.with_context(|| format!("node {:?}: port {INNER_PORT}", node.name))?);
    }
    serve_api(listeners, &token)?;
    write_atomically(&layout.kubeconfig(), apiserver::kubeconfig(&outer_url, &token).as_bytes())?;
    let inner_url = format!("http://127.0.0.1:{INNER_PORT}");
    write_atomically(
        &layout.inner_kubeconfig(),
        apiserver::kubeconfig(&inner_url, &token).as_bytes(),
    )?;
    // One thread, this one: children get their parent's death signal when the thread that forked them ends.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let lab = Lab { topology, layout, ledger };
    runtime.block_on(lab.run(&own_url))
}

/// Runs the API server on threads of its own.
fn serve_api(listeners: Vec<TcpListener>, token: &str) -> Result<()> {
    let server = Server::new(Options {
        crds: crds::all(),
        admission: crds::admission,
        ..Options::new(token)
    });
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("apiserver".into()).spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                let started = spawn_servers(&server, listeners);
                drop(sender.send(started));
                std::future::pending::<()>().await;
            }),
            Err(error) => drop(sender.send(Err(error.into()))),
        }
    })?;
    receiver.recv().map_err(|_| anyhow!("the API server's thread died"))?
}

fn spawn_servers(server: &Server, listeners: Vec<TcpListener>) -> Result<()> {
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = server.clone();
        tokio::spawn(async move {
            if let Err(error) = server.serve(listener).await {
                tracing::error!(%error, "API server");
            }
        });
    }
    Ok(())
}

struct Lab {
    topology: Topology,
    layout: Layout,
    ledger: Ledger,
}

impl Lab {
    async fn run(self, url: &str) -> Result<()> {
        let client = cluster::connect(url)?;
        let processes = Processes::new(self.ledger.clone());
        self.start_routers(&processes)?;
        self.apply_manifests(&client).await?;
        let pods = self.start_nodes(&client, &processes).await?;
        let (_, listener) = self.control_listener()?;
        let control = Control {
            processes,
            pods,
            topology: self.topology.clone(),
            layout: self.layout.clone(),
        };
        let serving = tokio::spawn(control.serve(listener));
        self.ledger.change(|state| state.ready = true)?;
        tell("ready", "");
        // From now on the pipe of whoever started us must not be held open.
        let null = fs::OpenOptions::new().write(true).open("/dev/null")?;
        nix::unistd::dup2_stdout(null)?;
        serving.await.context("control socket")
    }

    fn control_listener(&self) -> Result<(Option<fs::File>, tokio::net::UnixListener)> {
        let socket = self.layout.control();
        let (path, folder) = control::short(&socket)?;
        let listener = tokio::net::UnixListener::bind(path)
            .with_context(|| format!("cannot listen on {}", socket.display()))?;
        Ok((folder, listener))
    }

    fn start_routers(&self, processes: &Processes) -> Result<()> {
        let mut count = 0;
        for (node, kind) in self.topology.routers() {
            for spec in routers::specs(node, kind, &self.layout)? {
                processes.start(spec);
            }
            count += 1;
        }
        for node in self.topology.nodes.iter().filter(|node| node.role == Role::Host) {
            if node.command.is_empty() {
                continue;
            }
            processes.start(Spec {
                name: node.name.clone(),
                command: node.command.iter().map(|word| fabric::seen(node, word)).collect(),
                env: node.env.clone(),
                netns: Some(self.layout.netns(&node.name)),
                hostname: Some(node.name.clone()),
                log: self.layout.log(&node.name),
                restart: Restart::OnFailure,
            });
        }
        tell("step", &format!("{count} routers started"));
        Ok(())
    }

    /// What the cluster needs from its first moment: pools, peers, settings.
    async fn apply_manifests(&self, client: &Client) -> Result<()> {
        let mut applier = Applier::new(client.clone());
        let manifests = match sidecar(&self.topology) {
            Some(folder) => manifests::read_folder(&folder)?,
            None => vec![("built-in pools".to_owned(), crate::demo::DEFAULT_CLUSTER.to_owned())],
        };
        let mut count = 0;
        for (name, text) in manifests {
            count += applier.apply_text(&text, &name).await?.len();
        }
        tell("step", &format!("API server serves, {count} cluster objects applied"));
        Ok(())
    }

    async fn start_nodes(&self, client: &Client, processes: &Processes) -> Result<Cache<Pod>> {
        let daemon = routers::ours("voile-node")?;
        let plugin = routers::ours("voile-cni")?;
        let mut host_addresses = BTreeMap::new();
        for node in self.topology.kubernetes_nodes() {
            make_private(&self.layout.node_dir(&node.name).join("run"))?;
            let addresses = nodes::register(client, node, &self.layout).await?;
            host_addresses.insert(node.name.clone(), addresses);
            processes.start(routers::node_spec(node, &self.layout, &daemon));
            tokio::spawn(nodes::follow(client.clone(), node.clone(), self.layout.clone()));
        }
        tell("step", &format!("{} nodes registered, their daemons start", host_addresses.len()));
        let pods = Cache::<Pod>::follow(Api::all(client.clone())).await;
        let nodes = Cache::<Node>::follow(Api::all(client.clone())).await;
        let services = Cache::<Service>::follow(Api::all(client.clone())).await;
        tokio::spawn(scheduler::run(client.clone(), pods.clone(), nodes));
        tokio::spawn(slices::run(client.clone(), services, pods.clone()));
        let kubelet = Kubelet {
            client: client.clone(),
            layout: self.layout.clone(),
            ledger: self.ledger.clone(),
            processes: processes.clone(),
            plugin,
            host_addresses,
        };
        tokio::spawn(kubelet.run(pods.clone()));
        Ok(pods)
    }
}

/// The folder of manifests that belongs to a topology: what the label `voile.dev/manifests` of a node says, or the
/// folder named like the file.
#[must_use]
pub fn sidecar(topology: &Topology) -> Option<PathBuf> {
    let folder = topology.file.parent().unwrap_or(Path::new("."));
    let label = topology.nodes.iter().find_map(|node| node.labels.get("voile.dev/manifests"));
    let stem = topology.file.file_name()?.to_string_lossy();
    let stem = stem.split('.').next().unwrap_or_default();
    [label.map(String::as_str), Some(stem)]
        .into_iter()
        .flatten()
        .map(|name| folder.join(name))
        .find(|path| path.is_dir())
}

/// Waits for the end of `after`, then removes every trace of the lab. Runs outside of it.
pub fn janitor(layout: &Layout, after: ProcessId) -> Result<()> {
    let _ = nix::unistd::setsid();
    while after.alive() {
        crate::procfs::pause(Duration::from_millis(200));
    }
    crate::cleanup::sweep(layout).map(drop)
}
