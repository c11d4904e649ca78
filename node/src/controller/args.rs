//! What the operator typed.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;

use super::lease::Timing;
use crate::args::{Cluster, Log};

/// The cluster-wide part of Voile: collects addresses and blocks that nobody uses any more.
///
/// Several copies may run; a Lease elects the one that works.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "voile-controller",
    version,
    after_help = "Examples:\n  \
    voile-controller --kubeconfig ~/.kube/config\n  \
    voile-controller --leak-grace 5m --metrics-address 127.0.0.1:9094\n\n\
    Without --kubeconfig the service account of the pod is used (KUBERNETES_SERVICE_HOST), then ~/.kube/config."
)]
pub struct Args {
    /// Where the API server is
    #[command(flatten)]
    pub cluster: Cluster,

    /// Name of this copy in the Lease; default: the host name, which in a pod is the pod's name
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,

    /// Address of the HTTP server with /metrics, /healthz, /readyz and /status
    #[arg(
        long,
        env = "VOILE_METRICS_ADDRESS",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:9094"
    )]
    pub metrics_address: SocketAddr,

    /// Time between two looks at the cluster's addresses
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive)]
    pub period: Duration,

    /// How long an address must be unused before it is released; 0 releases none.
    /// Default: what KubeControllersConfiguration `default` says (leakGracePeriod), or 15m
    #[arg(long, env = "VOILE_LEAK_GRACE", value_name = "DURATION", value_parser = duration)]
    pub leak_grace: Option<Duration>,

    /// How long the others wait for a leader that is silent
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = positive)]
    pub lease_duration: Duration,

    /// What is logged, and how
    #[command(flatten)]
    pub log: Log,
}

impl Args {
    /// Name of this copy.
    pub(super) fn identity(&self) -> Result<String> {
        if let Some(name) = &self.identity {
            return Ok(name.clone());
        }
        let name =
            nix::unistd::gethostname().context("cannot read the host name; give --identity")?;
        // Two copies on one host are two.
        Ok(format!("{}_{}", name.to_string_lossy(), std::process::id()))
    }

    /// Times of the election.
    pub(super) fn lease(&self) -> Timing {
        Timing::new(self.lease_duration)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    api::net::parse_duration(text)
        .ok_or_else(|| format!("'{text}' is no duration; write 90s, 15m or 1h30m"))
}

fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        some => Ok(some),
    }
}
