//! Executes a CNI plugin exactly as a container runtime does (CNI specification 1.1, section 2).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// A runtime gives up on a plugin after this.
const LIMIT: Duration = Duration::from_secs(30);
const VERSION: &str = "1.1.0";

/// One container's attachment to the node's network.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Namespace of the node, where the plugin runs.
    pub node_netns: PathBuf,
    /// Namespace of the pod.
    pub pod_netns: PathBuf,
    /// The plugin.
    pub plugin: PathBuf,
    /// Socket of the node's daemon.
    pub socket: PathBuf,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

/// What ADD returned.
#[derive(Clone, Debug)]
pub struct Added {
    /// Addresses, without prefix length.
    pub addresses: Vec<String>,
    /// The whole result, which CHECK and DEL get back.
    pub result: Value,
}

#[derive(Deserialize)]
struct AddResult {
    #[serde(default)]
    ips: Vec<ResultIp>,
}

#[derive(Deserialize)]
struct ResultIp {
    address: String,
}

impl Attachment {
    /// Connects the container.
    pub async fn add(&self) -> Result<Added> {
        let text = self.execute("ADD", None).await?;
        let result: Value =
            serde_json::from_str(&text).context("ADD printed something that is not JSON")?;
        let parsed: AddResult = serde_json::from_value(result.clone()).context("result of ADD")?;
        let host = |ip: ResultIp| ip.address.split('/').next().unwrap_or_default().to_owned();
        Ok(Added { addresses: parsed.ips.into_iter().map(host).collect(), result })
    }

    /// Disconnects the container; as often as one likes.
    pub async fn del(&self, added: Option<&Value>) -> Result<()> {
        self.execute("DEL", added).await.map(drop)
    }

    async fn execute(&self, command: &str, previous: Option<&Value>) -> Result<String> {
        let mut config = json!({
            "cniVersion": VERSION, "name": "voile", "type": "voile-cni", "socket": self.socket,
        });
        if let (Some(previous), Some(fields)) = (previous, config.as_object_mut()) {
            fields.insert("prevResult".into(), previous.clone());
        }
        let mut child = Command::new("/proc/self/exe")
            .arg0("voile-lab")
            .arg("enter")
            .args(["--die-with", &std::process::id().to_string()])
            .arg("--netns")
            .arg(&self.node_netns)
            .arg("--")
            .arg(&self.plugin)
            .env_clear()
            .envs(self.environment(command))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot execute {}", self.plugin.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that ends without reading has its reasons on stdout.
            drop(stdin.write_all(config.to_string().as_bytes()).await);
        }
        let output = tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .map_err(|_| anyhow!("{command} did not answer within {} s", LIMIT.as_secs()))??;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        match serde_json::from_str::<Value>(&stdout) {
            Ok(error) => bail!("{command} failed: {}", describe(&error)),
            Err(_) => {
                bail!("{command} failed ({}): {} {}", output.status, stdout.trim(), stderr.trim())
            }
        }
    }

    fn environment(&self, command: &str) -> BTreeMap<&'static str, String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        BTreeMap::from([
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", self.uid.clone()),
            ("CNI_NETNS", text(&self.pod_netns)),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", text(self.plugin.parent().unwrap_or(Path::new("/")))),
            (
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
                    self.namespace, self.name, self.uid, self.uid
                ),
            ),
            ("PATH", path),
        ])
    }
}

fn describe(error: &Value) -> String {
    let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
    let code = error.get("code").and_then(Value::as_u64).unwrap_or_default();
    match text("details") {
        "" => format!("{} (code {code})", text("msg")),
        details => format!("{}: {details} (code {code})", text("msg")),
    }
}
