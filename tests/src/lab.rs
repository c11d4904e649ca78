//! A lab of a test: started bare, asked over its API server and its control socket, removed when dropped.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use crate::{Api, built, wait_for};
use serde_json::{Value, json};

const FOLDER: &str = "/run/voile-lab";

/// A cluster in namespaces of this machine.
#[derive(Debug)]
pub struct Lab {
    name: String,
    api: Api,
}

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct Pod {
    pub netns: PathBuf,
    pub addresses: Vec<IpAddr>,
}

impl Lab {
    /// Returns the folder of the topologies that are shipped.
    #[must_use]
    pub fn topologies() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/containerlab")
    }

    /// Starts three nodes below two leaves, or another topology.
    #[must_use]
    pub fn up(prefix: &str, file: Option<&Path>) -> Self {
        sweep(prefix);
        let name = format!("{prefix}{}", std::process::id());
        let usual = Self::topologies().join("leaf-spine.clab.yml");
        let file = file.unwrap_or(&usual);
        let output = voile_lab(&["up", "--bare", "--name", &name, "-f", &file.to_string_lossy()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let folder = Path::new(FOLDER).join(&name);
        Self { name, api: Api::new(&folder.join("kubeconfig")) }
    }

    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Asks the supervisor: one line there, one back.
    fn control(&self, request: &Value) -> Result<Value, String> {
        let socket = self.folder().join("control.sock");
        let mut stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
        writeln!(stream, "{request}").map_err(|error| error.to_string())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer.get("ok").cloned().unwrap_or_default()),
        }
    }

    /// Kills a program with SIGKILL, as soon as it runs; the supervisor starts it again.
    pub fn kill(&self, program: &str) -> u64 {
        wait_for(&format!("{program} runs, to be killed"), Duration::from_secs(10), || {
            let victim = self.control(&json!({"op": "kill", "name": program}))?;
            victim.get("pid").and_then(Value::as_u64).ok_or_else(|| victim.to_string())
        })
    }

    /// How often the supervisor started a program again.
    pub fn restarts(&self, program: &str) -> u64 {
        let rows = self.control(&json!({"op": "list"})).unwrap();
        let rows = rows.as_array().cloned().unwrap_or_default();
        let row = rows.iter().find(|row| row["name"] == program);
        row.and_then(|row| row["restarts"].as_u64()).unwrap()
    }

    pub fn create_pod(&self, namespace: &str, name: &str, node: &str, ports: &[(&str, u16)]) {
        let app = name.split('-').next().unwrap();
        let ports: Vec<Value> = ports
            .iter()
            .map(|(protocol, port)| json!({"protocol": protocol, "containerPort": port}))
            .collect();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "lab/pod-server", "ports": ports}]},
        });
        self.api.create(&format!("/api/v1/namespaces/{namespace}/pods"), &pod);
    }

    /// Returns a pod once it runs and has both addresses.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Pod, String> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let pod = self.api.get(&path).map_err(|error| error.to_string())?;
        let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
        let addresses: Vec<IpAddr> = pod
            .pointer("/status/podIPs")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.get("ip")?.as_str()?.parse().ok())
            .collect();
        if phase != "Running" || addresses.len() < 2 {
            return Err(format!("{name} is {phase} with {addresses:?}: {}", pod["status"]));
        }
        let uid = pod.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let short: String = uid.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        let netns = kernel::netns::named(&format!("{}-pod-{short}", self.name));
        Ok(Pod { netns, addresses })
    }

    pub fn running(&self, namespace: &str, name: &str) -> Pod {
        wait_for(&format!("pod {name}"), Duration::from_secs(30), || self.pod(namespace, name))
    }

    /// Counts the sessions that a node's daemon says are up; none when it does not answer.
    #[must_use]
    pub fn sessions(&self, node: &str) -> usize {
        let text = self.metrics(node).unwrap_or_default();
        let up = |line: &&str| {
            line.starts_with("voile_bgp_session_established{") && line.ends_with(" 1")
        };
        text.lines().filter(up).count()
    }

    /// Reads the metrics of a node's daemon.
    pub fn metrics(&self, node: &str) -> std::io::Result<String> {
        let ask = || metrics(SocketAddr::from(([127, 0, 0, 1], 9091)));
        kernel::netns::in_netns(self.netns(node), ask).expect("enter the namespace")
    }

    /// Returns the folder of its files.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    #[must_use]
    pub fn netns(&self, node: &str) -> PathBuf {
        kernel::netns::named(&format!("{}-{node}", self.name))
    }

    /// Runs voilectl; returns whether it ended with 0, and what it printed.
    pub fn voilectl(&self, arguments: &[&str]) -> (bool, String) {
        let kubeconfig = self.folder().join("kubeconfig");
        let output = Command::new(built("voilectl"))
            .args(arguments)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The last lines of a program's log, for a failure.
    pub fn log(&self, program: &str) -> String {
        let path = self.folder().join(format!("logs/{program}.log"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for program in ["voile-node-n1", "voile-node-n2", "voile-node-n3", "leaf1"] {
                eprintln!("== {program}\n{}", self.log(program));
            }
        }
        let output = voile_lab(&["down", "--name", &self.name]);
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Reads the metrics of a daemon that listens here.
pub fn metrics(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn voile_lab(arguments: &[&str]) -> Output {
    Command::new(built("voile-lab")).args(arguments).output().unwrap()
}

/// Removes labs of former runs of this test that were killed.
fn sweep(prefix: &str) {
    for entry in std::fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(prefix).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            drop(voile_lab(&["down", "--name", &name]));
        }
    }
}
