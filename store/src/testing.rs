//! Starts a real kube-apiserver with its etcd on loopback ports, for tests.
//!
//! The programs come from the folder in `KUBEBUILDER_ASSETS`. Everything lives in a temporary directory and dies with
//! the value.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::kube::{KubeOptions, KubeStore};

/// Why there is no API server to test against.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not wanted here: skip the test and say so.
    #[error("skipped: {0}")]
    Skip(String),
    /// Wanted, and failed.
    #[error("{0}")]
    Failed(String),
}

/// A running kube-apiserver. Dropping it kills the server and its etcd.
#[derive(Debug)]
pub struct ApiServer {
    port: u16,
    dir: TempDir,
    program: PathBuf,
    args: Vec<String>,
    // Dropped in this order, each killed by its own process id.
    apiserver: Child,
    _etcd: Child,
}

const TOKEN: &str = "test-admin";

impl ApiServer {
    /// Starts etcd and kube-apiserver and waits until they are ready.
    pub async fn start() -> Result<Self, StartError> {
        let assets = assets()?;
        let dir =
            TempDir::with_prefix("voile-apiserver-").map_err(|error| failed("temp dir", &error))?;
        let [client, peer, secure] = free_ports()?;
        let etcd = spawn(&assets.join("etcd"), dir.path(), "etcd.log", &etcd_args(client, peer))?;
        write_files(dir.path()).await?;
        let args = apiserver_args(dir.path(), client, secure);
        let program = assets.join("kube-apiserver");
        let apiserver = spawn(&program, dir.path(), "apiserver.log", &args)?;
        let mut server = Self { port: secure, dir, program, args, apiserver, _etcd: etcd };
        server.write_kubeconfig().await?;
        server.wait_ready().await?;
        Ok(server)
    }

    /// Returns a kubeconfig file with all rights.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Returns the port of the API on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the certificate that clients shall trust.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("certs/apiserver.crt")
    }

    /// Kills the API server; its data stays.
    pub async fn stop(&mut self) -> Result<(), StartError> {
        self.apiserver.kill().await.map_err(|error| failed("kube-apiserver", &error))
    }

    /// Starts it again on the same port and data, and waits until it is ready.
    pub async fn resume(&mut self) -> Result<(), StartError> {
        self.apiserver = spawn(&self.program, self.dir.path(), "apiserver.log", &self.args)?;
        self.wait_ready().await
    }

    /// Connects without a rate limit.
    pub async fn store(&self) -> Result<KubeStore, StartError> {
        let options = KubeOptions { rate: None, ..KubeOptions::default() };
        KubeStore::from_kubeconfig(self.kubeconfig(), None, options)
            .await
            .map_err(|error| failed("client", &error))
    }

    /// Creates custom resource definitions, given as JSON, and waits until they are served.
    pub async fn install_crds(&self, crds: &[Value]) -> Result<(), StartError> {
        let store = self.store().await?;
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        for crd in crds {
            let created = store.raw(Method::POST, path, "application/json", Some(crd)).await;
            let name = crd.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            created.map_err(|error| failed(name, &error))?;
        }
        for crd in crds {
            let name = crd.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            wait_until(&store, &format!("{path}/{name}"), established).await?;
            // Established says that the API is known; its storage follows within a moment.
            wait_until(&store, &collection_of(crd), |_| true).await?;
        }
        Ok(())
    }

    async fn wait_ready(&mut self) -> Result<(), StartError> {
        let store = self.store().await?;
        for _ in 0..600 {
            if let Ok(Some(status)) = self.apiserver.try_wait() {
                let log = tokio::fs::read_to_string(self.dir.path().join("apiserver.log")).await;
                let log = log.unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(5).collect();
                return Err(StartError::Failed(format!("kube-apiserver: {status}: {tail:?}")));
            }
            // The default namespace comes last: made by the server's own controllers.
            let namespace = "/api/v1/namespaces/default";
            if store.raw(Method::GET, namespace, "application/json", None).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(StartError::Failed("kube-apiserver is not ready after a minute".to_owned()))
    }

    async fn write_kubeconfig(&self) -> Result<(), StartError> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{}', insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: test, user: {{token: {TOKEN}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n",
            self.port
        );
        tokio::fs::write(self.kubeconfig(), text)
            .await
            .map_err(|error| failed("kubeconfig", &error))
    }
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> StartError {
    StartError::Failed(format!("{what}: {error}"))
}

fn assets() -> Result<PathBuf, StartError> {
    let folder = std::env::var_os("KUBEBUILDER_ASSETS")
        .ok_or_else(|| StartError::Skip("KUBEBUILDER_ASSETS is not set".to_owned()))?;
    let folder = PathBuf::from(folder);
    for program in ["etcd", "kube-apiserver"] {
        if !folder.join(program).exists() {
            return Err(StartError::Skip(format!("no {program} in {}", folder.display())));
        }
    }
    Ok(folder)
}

/// Asks the kernel for free ports. They stay free for the moment that it takes to start.
fn free_ports<const N: usize>() -> Result<[u16; N], StartError> {
    let listeners: Vec<_> = (0..N)
        .map(|_| std::net::TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()
        .map_err(|error| failed("loopback port", &error))?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr().map_err(|error| failed("loopback port", &error))?.port();
    }
    Ok(ports)
}

fn spawn(program: &Path, dir: &Path, log: &str, args: &[String]) -> Result<Child, StartError> {
    let name = program.display().to_string();
    let log = std::fs::File::create(dir.join(log)).map_err(|error| failed(&name, &error))?;
    let copy = log.try_clone().map_err(|error| failed(&name, &error))?;
    Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(copy)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&name, &error))
}

fn etcd_args(client: u16, peer: u16) -> Vec<String> {
    vec![
        "--data-dir=etcd".to_owned(),
        format!("--listen-client-urls=http://127.0.0.1:{client}"),
        format!("--advertise-client-urls=http://127.0.0.1:{client}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=error".to_owned(),
    ]
}

fn apiserver_args(dir: &Path, etcd: u16, secure: u16) -> Vec<String> {
    let key = dir.join("service-account.key").display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={secure}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        "--cert-dir=certs".to_owned(),
        "--token-auth-file=tokens.csv".to_owned(),
        // The kubeconfig is of system:masters, who may do everything.
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={key}"),
        format!("--service-account-signing-key-file={key}"),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        // The admission plugin waits for accounts that only the controller manager makes.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--profiling=false".to_owned(),
        "--enable-priority-and-fairness=false".to_owned(),
    ]
}

async fn write_files(dir: &Path) -> Result<(), StartError> {
    let tokens = format!("{TOKEN},admin,1,\"system:masters\"\n");
    tokio::fs::write(dir.join("tokens.csv"), tokens)
        .await
        .map_err(|error| failed("tokens", &error))?;
    let made = Command::new("openssl")
        .args([
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            "service-account.key",
        ])
        .current_dir(dir)
        .output()
        .await
        .map_err(|error| StartError::Skip(format!("openssl: {error}")))?;
    if made.status.success() {
        Ok(())
    } else {
        Err(failed("openssl", &String::from_utf8_lossy(&made.stderr)))
    }
}

fn established(crd: &Value) -> bool {
    let conditions = crd.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

fn collection_of(crd: &Value) -> String {
    let text = |pointer| crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = (text("/spec/group"), text("/spec/versions/0/name"));
    format!("/apis/{group}/{version}/{}", text("/spec/names/plural"))
}

async fn wait_until(
    store: &KubeStore,
    path: &str,
    holds: impl Fn(&Value) -> bool,
) -> Result<(), StartError> {
    let mut last = String::new();
    for _ in 0..150 {
        match store.raw(Method::GET, path, "application/json", None).await {
            Ok(answer) if holds(&answer) => return Ok(()),
            Ok(_) => {}
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(StartError::Failed(format!("{path} is not ready after 15 seconds: {last}")))
}
