//! The demonstration: seven stages that show a lab at work and check what they show.

mod failure;
mod oracle;
mod output;
mod probe;
mod reach;
mod stages;
mod stream;
mod summary;
mod view;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use kube::Client;

pub use self::output::{Format, Output, Tone, say, table};
use self::summary::Summary;
use crate::{
    cluster::{
        self,
        manifests::{self, Applier},
    },
    paths::Layout,
    procfs::now,
    state::State,
    supervisor,
    topology::Topology,
};

/// Pools for topologies that bring no manifests.
pub const DEFAULT_CLUSTER: &str =
    include_str!("../../deploy/containerlab/leaf-spine/10-pools.yaml");
const DEFAULT_PODS: &str = include_str!("../../deploy/containerlab/leaf-spine/demo/pods.yaml");
const DEFAULT_POLICIES: [(&str, &str); 3] = [
    (
        "10-default-deny.yaml",
        include_str!("../../deploy/containerlab/leaf-spine/demo/policies/10-default-deny.yaml"),
    ),
    (
        "20-db-policy.yaml",
        include_str!("../../deploy/containerlab/leaf-spine/demo/policies/20-db-policy.yaml"),
    ),
    (
        "30-egress-policy.yaml",
        include_str!("../../deploy/containerlab/leaf-spine/demo/policies/30-egress-policy.yaml"),
    ),
];

/// Arguments of `voile-lab demo`.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// The lab's folder
    #[arg(long)]
    pub dir: PathBuf,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Seconds that have passed since the user's command
    #[arg(long, default_value_t = 0.0)]
    pub elapsed: f64,
}

/// What the stages share.
struct Demo {
    layout: Layout,
    topology: Topology,
    client: Client,
    applier: Applier,
    out: Output,
    summary: Summary,
}

/// Runs all stages; says whether every check passed. The process is inside the lab's namespaces already.
pub async fn run(args: &DemoArgs) -> Result<bool> {
    let begun = now()
        .checked_sub(Duration::try_from_secs_f64(args.elapsed).unwrap_or_default())
        .unwrap_or_else(now);
    let layout = Layout::at(&args.dir);
    let state = State::load(&layout.state())?;
    let topology = Topology::load(&state.topology)?;
    let client = cluster::connect(&state.own_url)?;
    let mut demo = Demo {
        applier: Applier::new(client.clone()),
        out: Output::new(args.output, begun),
        summary: Summary::default(),
        layout,
        topology,
        client,
    };
    let stopped = demo.stages().await;
    if let Err(error) = &stopped {
        demo.check("demonstration ran to its end", false, &format!("{error:#}"));
    }
    demo.out.stage(7, "summary");
    let passed = demo.summary.print(&demo.out, begun.elapsed());
    Ok(passed)
}

impl Demo {
    async fn stages(&mut self) -> Result<()> {
        self.sessions().await?;
        let policies = self.policy_files()?;
        self.pods().await?;
        self.routes().await?;
        let mut matrix = self.open_matrix().await?;
        self.policies(&policies, &mut matrix).await?;
        self.failures(&mut matrix).await
    }

    /// Prints a check and keeps it for the summary.
    fn check(&mut self, name: &str, passed: bool, detail: &str) {
        let text = if detail.is_empty() { name.to_owned() } else { format!("{name}: {detail}") };
        self.out.check(passed, &text);
        self.summary.add(name, passed, detail);
    }

    /// Manifests of the demonstration: those beside the topology, or the built-in ones.
    fn pod_manifests(&self) -> Result<Vec<(String, String)>> {
        match supervisor::sidecar(&self.topology).map(|folder| folder.join("demo")) {
            Some(folder) if folder.is_dir() => manifests::read_folder(&folder),
            _ => Ok(vec![("built-in pods".into(), DEFAULT_PODS.into())]),
        }
    }

    fn policy_files(&self) -> Result<Vec<(String, String)>> {
        match supervisor::sidecar(&self.topology).map(|folder| folder.join("demo/policies")) {
            Some(folder) if folder.is_dir() => {
                manifests::read_folder(&folder).context("policies of the demonstration")
            }
            _ => Ok(DEFAULT_POLICIES
                .iter()
                .map(|(name, text)| ((*name).into(), (*text).into()))
                .collect()),
        }
    }
}
