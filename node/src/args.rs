//! What the operator typed.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use bgp::bmp::{Collector, Views};
use clap::Parser;
use store::kube::{KubeOptions, KubeStore};

/// The Voile daemon of one node: BGP speaker, IPAM, network policy and CNI server.
///
/// Runs in the network namespace that it is started in, as a DaemonSet pod or by hand.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "voile-node",
    version,
    after_help = "Examples:\n  \
    voile-node --kubeconfig ~/.kube/config --node-name worker-1\n  \
    voile-node --node-name n1 --cni-socket /tmp/n1/cni.sock --run-dir /tmp/n1 --metrics-address 127.0.0.1:9091\n\n\
    Without --kubeconfig the service account of the pod is used (KUBERNETES_SERVICE_HOST), then ~/.kube/config."
)]
pub struct Args {
    /// Where the API server is
    #[command(flatten)]
    pub cluster: Cluster,

    /// Name of this node in the API; default: the host name in lower case
    #[arg(long, env = "NODENAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// Unix socket where voile-cni finds this daemon
    #[arg(
        long,
        env = "VOILE_CNI_SOCKET",
        value_name = "PATH",
        default_value = "/run/voile/cni.sock"
    )]
    pub cni_socket: PathBuf,

    /// Directory for state that must survive a restart of the daemon, but not a reboot
    #[arg(long, env = "VOILE_RUN_DIR", value_name = "DIR", default_value = "/run/voile")]
    pub run_dir: PathBuf,

    /// Address of the HTTP server with /metrics, /healthz, /readyz and /status
    #[arg(
        long,
        env = "VOILE_METRICS_ADDRESS",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:9091"
    )]
    pub metrics_address: SocketAddr,

    /// Node's IPv4 address with prefix length, or `autodetect`, or `none`
    #[arg(long, env = "IP", value_name = "CIDR", default_value = "autodetect")]
    pub ip: String,

    /// Node's IPv6 address with prefix length, or `autodetect`, or `none`
    #[arg(long, env = "IP6", value_name = "CIDR", default_value = "autodetect")]
    pub ip6: String,

    /// Collectors of the BGP Monitoring Protocol (RFC 7854) to tell what BGP does; several by commas
    #[arg(long, env = "VOILE_BMP", value_name = "HOST:PORT", value_delimiter = ',', value_parser = collector)]
    pub bmp: Vec<String>,

    /// Tables that they are told, by commas; besides the default there are adj-rib-out-pre and adj-rib-out-post
    #[arg(
        long,
        env = "VOILE_BMP_TABLES",
        value_name = "TABLES",
        default_value = "adj-rib-in-pre,adj-rib-in-post,loc-rib",
        value_parser = tables
    )]
    pub bmp_tables: Views,

    /// MTU of pod interfaces; default: the smallest MTU of the node's uplinks
    #[arg(long, env = "VOILE_MTU", value_name = "BYTES")]
    pub mtu: Option<u32>,

    /// Install voile-cni and its network configuration into these directories at start, as BIN_DIR:CONF_DIR
    #[arg(long, env = "VOILE_CNI_INSTALL", value_name = "BIN_DIR:CONF_DIR")]
    pub cni_install: Option<String>,

    /// Only switch on the kernel settings that routing needs, and end: for a privileged init container
    #[arg(long)]
    pub prepare_host: bool,

    /// What is logged, and how
    #[command(flatten)]
    pub log: Log,
}

impl Args {
    /// The collectors of BMP, each introduced to by the name of the node.
    #[must_use]
    pub fn collectors(&self, node_name: &str) -> Vec<Collector> {
        let all = self.bmp.iter().map(|address| {
            let mut collector = Collector::new(address.as_str(), node_name);
            collector.views = self.bmp_tables;
            collector
        });
        all.collect()
    }
}

fn collector(text: &str) -> Result<String, String> {
    Collector::check_address(text).map(|()| text.to_owned())
}

fn tables(text: &str) -> Result<Views, String> {
    let mut views = Views::NONE;
    for name in text.split(',') {
        if !views.add(name) {
            return Err(Views::unknown(name));
        }
    }
    Ok(views)
}

/// Where the API server is, and where we are in the cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Cluster {
    /// Credentials and address of the API server; default: the pod's service account
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Folder with `token` and `ca.crt` of the pod's service account
    #[arg(
        long,
        env = "VOILE_SERVICE_ACCOUNT",
        value_name = "DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    pub service_account: PathBuf,

    /// Namespace of this program: where its Lease and the secrets of BGP passwords are
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "kube-system")]
    pub namespace: String,
}

impl Cluster {
    /// Connects with the kubeconfig, with the pod's service account, or with what kubectl would use.
    ///
    /// # Errors
    /// Credentials that are missing or cannot be read.
    pub async fn connect(&self) -> anyhow::Result<KubeStore> {
        let options = KubeOptions::default();
        let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let store = match &self.kubeconfig {
            Some(path) => KubeStore::from_kubeconfig(path, None, options).await,
            None if in_cluster => KubeStore::in_cluster_at(&self.service_account, options),
            None => KubeStore::infer(options).await,
        };
        store.context(
            "cannot use the API server's credentials; see --kubeconfig and --service-account",
        )
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Log {
    /// Log filter, such as `info` or `bgp=debug,info`
    #[arg(long = "log", env = "VOILE_LOG", value_name = "FILTER", default_value = "info")]
    pub filter: String,

    /// Log as JSON lines
    #[arg(long = "log-json", env = "VOILE_LOG_JSON")]
    pub json: bool,
}

impl Log {
    /// Sends the log to standard error.
    pub fn init(&self) {
        let filter = tracing_subscriber::EnvFilter::try_new(&self.filter)
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
        // Saying on standard error that standard error fails would be a panic: the log's disk may be full.
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .log_internal_errors(false);
        if self.json { builder.json().init() } else { builder.with_ansi(false).init() }
    }
}
