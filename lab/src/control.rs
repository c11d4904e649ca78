//! How clients ask a lab's supervisor for things that the API server does not know: one JSON line there, one back.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

use crate::{
    cluster::cache::Cache, fabric, paths::Layout, processes::Processes, topology::Topology,
};

/// What a client can ask.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// All programs and what they are doing.
    List,
    /// SIGKILL, as a crash; the supervisor starts it again.
    Kill {
        /// Program.
        name: String,
    },
    /// SIGKILL, and it stays dead until it is resumed.
    Stop {
        /// Program.
        name: String,
    },
    /// Runs a stopped program again.
    Resume {
        /// Program.
        name: String,
    },
    /// Switches all links of a topology node.
    Links {
        /// Node.
        node: String,
        /// On or off.
        up: bool,
    },
    /// Where a pod (`NAME` or `NAMESPACE/NAME`) or a topology node lives.
    Place {
        /// Its name.
        name: String,
    },
}

/// Where something lives.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Place {
    /// Its network namespace.
    pub netns: PathBuf,
    /// Its host name.
    pub hostname: String,
}

/// Asks the supervisor of a lab; blocks.
pub fn ask<T: DeserializeOwned>(layout: &Layout, request: &Request) -> Result<T> {
    let socket = layout.control();
    let mut stream = connect(&socket).with_context(|| {
        format!("lab {:?} does not answer; `cargo xtask lab status` tells what is up", layout.name)
    })?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let mut answer: Value = serde_json::from_str(&line).context("the supervisor hung up")?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        bail!("{error}");
    }
    let value = answer.get_mut("ok").map(Value::take).unwrap_or_default();
    Ok(serde_json::from_value(value)?)
}

/// Socket addresses hold 107 bytes; a long path is reached through its folder.
fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    UnixStream::connect(short(socket)?.0)
}

/// A path that fits into a socket address, and what keeps it valid.
pub fn short(socket: &Path) -> std::io::Result<(PathBuf, Option<std::fs::File>)> {
    use std::os::fd::AsRawFd as _;
    if socket.as_os_str().len() < 100 {
        return Ok((socket.to_owned(), None));
    }
    let folder = std::fs::File::open(socket.parent().unwrap_or(Path::new("/")))?;
    let name = socket.file_name().unwrap_or_default();
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((path, Some(folder)))
}

/// The supervisor's side.
#[derive(Clone, Debug)]
pub struct Control {
    /// All programs.
    pub processes: Processes,
    /// All pods.
    pub pods: Cache<Pod>,
    /// The topology.
    pub topology: Topology,
    /// Names and files.
    pub layout: Layout,
}

impl Control {
    /// Answers until the lab ends.
    pub async fn serve(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let control = self.clone();
                    tokio::spawn(async move { control.talk(stream).await });
                }
                Err(error) => tracing::warn!(%error, "control socket"),
            }
        }
    }

    async fn talk(self, stream: tokio::net::UnixStream) {
        let (reader, mut writer) = stream.into_split();
        let mut lines = tokio::io::BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = match serde_json::from_str(&line) {
                Ok(request) => self.answer(request).await,
                Err(error) => Err(error.into()),
            };
            let answer = match answer {
                Ok(value) => json!({"ok": value}),
                Err(error) => json!({"error": format!("{error:#}")}),
            };
            if writer.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, request: Request) -> Result<Value> {
        Ok(match request {
            Request::List => serde_json::to_value(self.processes.list())?,
            Request::Kill { name } => serde_json::to_value(self.processes.kill(&name)?)?,
            Request::Stop { name } => {
                self.processes.stop(&name, Signal::SIGKILL, Duration::ZERO).await?;
                Value::Null
            }
            Request::Resume { name } => {
                self.processes.resume(&name).await?;
                Value::Null
            }
            Request::Links { node, up } => {
                fabric::set_links(&self.topology, &node, &self.layout, up)?;
                Value::Null
            }
            Request::Place { name } => serde_json::to_value(self.place(&name)?)?,
        })
    }

    fn place(&self, name: &str) -> Result<Place> {
        if self.topology.node(name).is_some() {
            return Ok(Place { netns: self.layout.netns(name), hostname: name.to_owned() });
        }
        let pods = self.pods.get();
        let found: Vec<_> = pods
            .iter()
            .filter(|(key, pod)| key.as_str() == name || pod.name_any() == name)
            .collect();
        match found.as_slice() {
            [(_, pod)] => {
                let netns = self.layout.pod_netns(&pod.uid().unwrap_or_default());
                Ok(Place { netns, hostname: pod.name_any() })
            }
            [] => {
                let mut known: Vec<_> = pods.keys().cloned().collect();
                known.extend(self.topology.nodes.iter().map(|node| node.name.clone()));
                Err(anyhow!("no pod or node {name:?}; there are {}", known.join(", ")))
            }
            several => {
                let names: Vec<_> = several.iter().map(|(key, _)| key.as_str()).collect();
                Err(anyhow!("several pods are called {name:?}; name one of {}", names.join(", ")))
            }
        }
    }
}
