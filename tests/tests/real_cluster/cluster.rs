//! The real API server with our manifests, programs started by hand, and a container runtime of one function.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use store::testing::ApiServer;
use tokio::runtime::Runtime;
use voile_tests::{Api, Namespace, Process, built, wait_for};

pub(crate) const BLOCKS: &str = "/apis/projectcalico.org/v3/ipamblocks";
const HANDLES: &str = "/apis/projectcalico.org/v3/ipamhandles";
const NETWORK: &str = "k8s-pod-network";

/// Why there can be no cluster here.
pub(crate) fn missing() -> Option<String> {
    let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS") else {
        return Some("KUBEBUILDER_ASSETS is not set".to_owned());
    };
    let folder = PathBuf::from(folder);
    let programs = ["etcd", "kube-apiserver", "kubectl"];
    let absent = programs.iter().find(|program| !folder.join(program).exists())?;
    Some(format!("no {absent} in {}", folder.display()))
}

pub(crate) struct Cluster {
    pub(crate) api: Api,
    server: ApiServer,
    runtime: Runtime,
    dir: PathBuf,
    sandboxes: std::cell::RefCell<Vec<Sandbox>>,
}

impl Cluster {
    /// Starts the API server in the namespace of this thread and applies what we ship with the stock kubectl.
    pub(crate) fn start() -> Self {
        // One thread: children shall be in its network namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(ApiServer::start()).unwrap();
        let dir = std::env::temp_dir().join(format!("voile-real-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        let api = Api::new(&server.kubeconfig());
        let cluster = Self { api, server, runtime, dir, sandboxes: Vec::new().into() };
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        cluster.kubectl(&["apply", "-f", &deploy.join("crds").to_string_lossy()]);
        cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]);
        wait_for("the manifests are taken", Duration::from_secs(20), || {
            // A kind that was just defined may answer 429 for a moment.
            cluster.try_kubectl(&["apply", "-k", &deploy.join("install").to_string_lossy()])
        });
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
        cluster.api.create("/api/v1/nodes", &node);
        cluster
    }

    fn try_kubectl(&self, arguments: &[&str]) -> Result<(), String> {
        let assets = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS").unwrap());
        let output = Command::new(assets.join("kubectl"))
            .arg("--kubeconfig")
            .arg(self.server.kubeconfig())
            .args(arguments)
            .env("HOME", &self.dir)
            .output()
            .unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A kubeconfig file with all rights.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.server.kubeconfig()
    }

    /// Runs voilectl as the administrator; returns what it printed.
    pub(crate) fn voilectl(&self, arguments: &[&str]) -> String {
        let output = Command::new(built("voilectl"))
            .args(arguments)
            .arg("--kubeconfig")
            .arg(self.server.kubeconfig())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn kubectl(&self, arguments: &[&str]) {
        self.try_kubectl(arguments)
            .unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"));
    }

    pub(crate) fn pods(&self, names: &[&str]) {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        self.api.create("/api/v1/namespaces", &namespace);
        for name in names {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
                "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "none"}]},
            });
            self.api.create("/api/v1/namespaces/shop/pods", &pod);
        }
    }

    /// A folder as kubelet mounts it into a pod of this service account.
    fn service_account(&self, name: &str) -> PathBuf {
        let folder = self.dir.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        if !folder.join("token").exists() {
            let path = format!("/api/v1/namespaces/voile-system/serviceaccounts/{name}/token");
            let request = json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                "spec": {"expirationSeconds": 3600},
            });
            let answer = self.api.post(&path, &request).unwrap();
            let token = answer.pointer("/status/token").and_then(Value::as_str).unwrap();
            std::fs::write(folder.join("token"), token).unwrap();
            std::fs::copy(self.server.certificate(), folder.join("ca.crt")).unwrap();
        }
        folder
    }

    fn program(&self, name: &str, account: &str) -> Command {
        let mut command = Command::new(built(name));
        command
            .env_remove("KUBECONFIG")
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", self.server.port().to_string())
            .env("POD_NAMESPACE", "voile-system")
            .arg("--service-account")
            .arg(self.service_account(account));
        command
    }

    fn spawn(&self, command: &mut Command, log: &str) -> Process {
        Process::spawn(command, &self.dir.join(log))
    }

    pub(crate) fn daemon(&self) -> Process {
        let mut command = self.program("voile-node", "voile-node");
        command
            .args(["--node-name", "n1", "--metrics-address", "127.0.0.1:9091", "--ip6", "none"])
            .arg("--cni-socket")
            .arg(self.socket())
            .arg("--run-dir")
            .arg(self.dir.join("run"));
        self.spawn(&mut command, "voile-node.log")
    }

    pub(crate) fn controller(&self) -> Process {
        let mut command = self.program("voile-controller", "voile-controller");
        command.args(["--identity", "controller-1", "--metrics-address", "127.0.0.1:9094"]);
        self.spawn(&mut command, "voile-controller.log")
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("cni.sock")
    }

    pub(crate) fn stop_api_server(&mut self) {
        self.runtime.block_on(self.server.stop()).unwrap();
    }

    pub(crate) fn resume_api_server(&mut self) {
        self.runtime.block_on(self.server.resume()).unwrap();
    }

    /// The sandbox of a pod; the same one for the same name.
    pub(crate) fn sandbox(&self, name: &str) -> Sandbox {
        let mut sandboxes = self.sandboxes.borrow_mut();
        if let Some(known) = sandboxes.iter().find(|sandbox| sandbox.name == name) {
            return known.clone();
        }
        let netns = std::sync::Arc::new(Namespace::new(name));
        let sandbox = Sandbox { name: name.to_owned(), netns, socket: self.socket() };
        sandboxes.push(sandbox.clone());
        sandbox
    }

    /// Names of handles.
    pub(crate) fn handles(&self) -> Vec<String> {
        let handles = self.api.list(HANDLES);
        handles
            .iter()
            .filter_map(|one| Some(one["spec"]["handleID"].as_str()?.to_owned()))
            .collect()
    }

    /// Handles of the addresses that blocks say are in use.
    pub(crate) fn allocated(&self) -> Vec<String> {
        let mut found = Vec::new();
        for block in self.api.list(BLOCKS) {
            let attributes = block.pointer("/spec/attributes").and_then(Value::as_array).unwrap();
            let allocations = block.pointer("/spec/allocations").and_then(Value::as_array).unwrap();
            for index in allocations.iter().filter_map(Value::as_u64) {
                let attribute = &attributes[usize::try_from(index).unwrap()];
                found.push(attribute["handle_id"].as_str().unwrap().to_owned());
            }
        }
        found
    }

    /// Gives an address to a pod that never was, as a daemon does that dies right after it wrote the block.
    pub(crate) fn leak(&self, name: &str) -> String {
        let handle = format!("{NETWORK}.{}", container(name));
        let mut block = self.api.list(BLOCKS).into_iter().next().unwrap();
        let cidr = block["spec"]["cidr"].as_str().unwrap().to_owned();
        let object = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPAMHandle",
            "metadata": {"name": handle}, "spec": {"handleID": handle, "block": {cidr: 1}},
        });
        self.api.create(HANDLES, &object);
        let spec = &mut block["spec"];
        let sequence = spec["sequenceNumber"].as_u64().unwrap();
        let unallocated = spec["unallocated"].as_array_mut().unwrap();
        let ordinal = unallocated.remove(0).as_u64().unwrap();
        let attributes = spec["attributes"].as_array_mut().unwrap();
        attributes.push(json!({
            "handle_id": handle,
            "secondary": {
                "node": "n1", "namespace": "shop", "pod": name,
                "timestamp": "2026-01-02 03:04:05.6 +0000 UTC",
            },
        }));
        let index = attributes.len() - 1;
        spec["allocations"][usize::try_from(ordinal).unwrap()] = json!(index);
        spec["sequenceNumberForAllocation"][ordinal.to_string()] = json!(sequence);
        spec["sequenceNumber"] = json!(sequence + 1);
        let path = format!("{BLOCKS}/{}", block["metadata"]["name"].as_str().unwrap());
        self.api.replace(&path, &block).unwrap();
        handle
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["voile-node.log", "voile-controller.log"] {
                let text = std::fs::read_to_string(self.dir.join(log)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
                eprintln!("== {log}\n{}", tail.join("\n"));
            }
        }
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// Container id of a pod's sandbox.
pub(crate) fn container(name: &str) -> String {
    format!("sandbox-{name}")
}

/// A pod's namespace, and what a runtime does with it.
#[derive(Clone)]
pub(crate) struct Sandbox {
    name: String,
    netns: std::sync::Arc<Namespace>,
    socket: PathBuf,
}

impl Sandbox {
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work)
    }

    pub(crate) fn add(&self) -> Result<Value, Value> {
        self.verb("ADD", &json!({}))
    }

    pub(crate) fn del(&self) -> Result<Value, Value> {
        self.verb("DEL", &json!({}))
    }

    /// Executes the plugin as a runtime does; the answer, or the error that it printed.
    pub(crate) fn verb(&self, command: &str, more: &Value) -> Result<Value, Value> {
        let mut conf = json!({
            "cniVersion": "1.1.0", "name": NETWORK, "type": "voile-cni", "socket": self.socket,
        });
        for (key, value) in more.as_object().unwrap() {
            conf[key] = value.clone();
        }
        let mut child = Command::new(built("voile-cni"))
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container(&self.name))
            .env("CNI_NETNS", self.netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={}", self.name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command}: {error}: {text}"))
        };
        if output.status.success() { Ok(answer) } else { Err(answer) }
    }
}

/// Asks the daemon for a page.
pub(crate) fn http(path: &str) -> std::io::Result<String> {
    http_of(9091, path)
}

pub(crate) fn http_of(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
