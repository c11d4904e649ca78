//! The commands: one file for each noun, each returning what to print and whether it was a finding.

pub mod bgp;
pub mod get;
pub mod ipam;
pub mod policy;
pub mod status;
pub mod write;

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use api::Resource;
use store::{ListOptions, Listing, Store, StoreError};

use crate::{
    cli::{Command, IpamCommand, PolicyCommand},
    output::{Format, Screen, Sink},
};

/// What a command ran to: its text and whether something is wrong in the cluster (exit code 1).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// What to print on standard output.
    pub text: String,
    /// Whether the command found something wrong.
    pub finding: bool,
}

impl Outcome {
    /// Nothing wrong.
    pub fn ok(text: impl Into<String>) -> Self {
        Self { text: text.into(), finding: false }
    }
}

/// What every command gets: the datastore, the options of all commands, and the time.
#[derive(Clone, Debug)]
pub struct Context<S> {
    /// The datastore.
    pub store: S,
    /// Output format.
    pub format: Format,
    /// File for a report.
    pub report: Option<PathBuf>,
    /// The terminal.
    pub screen: Screen,
    /// Where long answers go as they come; what an [`Outcome`] holds comes after.
    pub sink: Sink,
    /// Seconds since 1970.
    pub now: u64,
}

impl<S: Store> Context<S> {
    /// Lists a kind in all namespaces.
    ///
    /// # Errors
    /// What the datastore answers; a kind that it does not know is named with the remedy.
    pub async fn list<R: Resource>(&self) -> Result<Listing<R>> {
        self.list_with(&ListOptions::consistent()).await
    }

    pub(crate) async fn list_with<R: Resource>(&self, options: &ListOptions) -> Result<Listing<R>> {
        match self.store.list::<R>(options).await {
            Ok(listing) => Ok(listing),
            Err(StoreError::NotFound { .. }) => {
                let (plural, group) = (R::KIND.plural, R::KIND.group);
                Err(anyhow!(
                    "this cluster has no {plural}.{group}; install the CRDs: kubectl apply -f deploy/crds"
                ))
            }
            Err(error) => Err(error).with_context(|| format!("cannot list {}", R::KIND.plural)),
        }
    }
}

/// Runs a command that needs a datastore.
///
/// # Errors
/// Why it could not be done.
pub async fn run<S: Store>(context: &Context<S>, command: &Command) -> Result<Outcome> {
    let reports = matches!(command, Command::Ipam(IpamCommand::Check { .. }));
    if let Some(file) = context.report.as_ref().filter(|_| !reports) {
        bail!("-o {}: only `ipam check` writes a report", file.display());
    }
    match command {
        Command::Get(args) => get::run(context, args).await,
        Command::Apply(args) => write::files(context, args, write::Verb::Apply).await,
        Command::Create(args) => write::files(context, args, write::Verb::Create).await,
        Command::Replace(args) => write::files(context, args, write::Verb::Replace).await,
        Command::Patch(args) => write::patch(context, args).await,
        Command::Delete(args) => write::delete(context, args).await,
        Command::Label(args) => write::label(context, args).await,
        Command::Validate(args) => write::validate(args),
        Command::Bgp(command) => bgp::run(context, command).await,
        Command::Ipam(command) => ipam::run(context, command).await,
        Command::Policy(PolicyCommand::Show { pod }) => policy::show(context, pod.as_deref()).await,
        Command::Policy(PolicyCommand::Explain(args)) => policy::explain(context, args).await,
        Command::Status => status::status(context).await,
        Command::Version => status::version(context).await,
        Command::Completion { .. } => Ok(Outcome::default()),
    }
}
