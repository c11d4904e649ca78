//! `voile-lab apiserver`: the server alone, for trying things by hand.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use serde_json::Value;
use tokio::net::TcpListener;

use super::{Options, Server, kubeconfig};
use crate::supervisor::crds;

/// Arguments of `voile-lab apiserver`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Address to listen on, such as 127.0.0.1:0.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where to write a kubeconfig for the server.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Folder of CustomResourceDefinitions (YAML files) to serve from the start [default: those of Voile].
    #[arg(long)]
    pub crds: Option<PathBuf>,
}

/// Serves until the process ends.
pub async fn cli(args: Args) -> anyhow::Result<()> {
    let token = random_token()?;
    let crds = args.crds.map_or_else(|| Ok(crds::all()), |folder| read_crds(&folder))?;
    let admission = crds::admission;
    let server = Server::new(Options { crds, admission, ..Options::new(token.clone()) });
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listening on {}", args.listen))?;
    let address = listener.local_addr()?;
    fs::write(&args.kubeconfig, kubeconfig(&format!("http://{address}"), &token))
        .with_context(|| format!("writing {}", args.kubeconfig.display()))?;
    tracing::info!(%address, kubeconfig = %args.kubeconfig.display(), "serving");
    server.serve(listener).await?;
    Ok(())
}

/// A token nobody can guess.
pub fn random_token() -> anyhow::Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")
        .context("reading a random token from the kernel")?;
    Ok(uuid.trim().replace('-', ""))
}

/// Reads the CustomResourceDefinitions in a folder's YAML files.
pub fn read_crds(folder: &std::path::Path) -> anyhow::Result<Vec<Value>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("reading the folder of CRDs {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
        })
        .collect();
    files.sort();
    let mut crds = Vec::new();
    for file in files {
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        for document in serde_norway::Deserializer::from_str(&text) {
            let value: Value = serde::Deserialize::deserialize(document)
                .with_context(|| format!("{} is not YAML", file.display()))?;
            if value.get("kind").is_some_and(|kind| kind == "CustomResourceDefinition") {
                crds.push(value);
            }
        }
    }
    Ok(crds)
}
