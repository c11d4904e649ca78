//! First figures of a whole node: pods coming and going, policy on its way into the kernel, memory.
//!
//! One node in a namespace: the lab's API server, `voile-node`, and `voile-cni` executed as a container runtime does.
//! Debian's ptp and host-local do the same work beside it, pod for pod.

mod commits;
mod http;
mod plugin;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kernel::NetNs;
use serde_json::json;

use crate::{
    interrupt::Interrupt,
    link::Pair,
    process::Daemon,
    report::{Column, Row, Section, Unit, quantile},
};
use commits::Commits;
use http::Http;
use plugin::Plugin;

/// Name of the node in the API.
const NODE: &str = "n1";
/// Pods that are added; memory is read after the first [`SETTLED`].
const PODS: usize = 100;
const SETTLED: usize = 30;
/// Policy changes that are timed.
const CHANGES: u16 = 100;
/// Where Debian puts the plugins.
const PLUGINS: &str = "/usr/lib/cni";
const METRICS: &str = "127.0.0.1:9091";
/// How long a program may take to be ready.
const START: Duration = Duration::from_secs(30);

/// A pod's namespaces: one for each of the two networks.
type Homes = (NetNs, NetNs);

/// Measures everything of this module; `programs` holds voile-lab, voile-node and voile-cni.
pub fn run(
    programs: &Path,
    interrupt: &Interrupt,
    progress: &mut dyn FnMut(&str),
    emit: &mut dyn FnMut(Section),
) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("voile-bench-").tempdir()?;
    let pair = Pair::new(Ipv4Addr::new(10, 0, 0, 1), &[Ipv4Addr::new(10, 0, 1, 1)])?;
    progress("starting an API server and a node");
    let mut bench = Bench::start(programs, folder.path(), &pair, interrupt)?;
    bench.pods(&pair, progress, emit)
}

struct Bench<'a> {
    api: Http,
    apiserver: Daemon,
    node: Daemon,
    ours: Plugin,
    theirs: Option<Plugin>,
    interrupt: &'a Interrupt,
}

impl<'a> Bench<'a> {
    fn start(
        programs: &Path,
        folder: &Path,
        pair: &Pair,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let kubeconfig = folder.join("kubeconfig");
        let socket = folder.join("cni.sock");
        let mut command = Command::new(programs.join("voile-lab"));
        command.arg("apiserver").arg("--kubeconfig").arg(&kubeconfig);
        let mut apiserver = Daemon::start(pair, &mut command, &folder.join("apiserver.log"))?;
        let kubeconfig_text = wait(interrupt, &mut apiserver, "the API server", || {
            std::fs::read_to_string(&kubeconfig).ok().filter(|text| text.contains("token"))
        })?;
        let api = Http::of_kubeconfig(&kubeconfig_text, &pair.subject)?;
        api.create("/api/v1/nodes", &json!({"metadata": {"name": NODE}}))?;
        api.create(
            "/apis/projectcalico.org/v3/ippools",
            &json!({
                "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "pool"},
                "spec": {"cidr": "10.244.0.0/16", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never"},
            }),
        )?;
        let mut command = Command::new(programs.join("voile-node"));
        command.arg("--kubeconfig").arg(&kubeconfig).args(["--node-name", NODE, "--log", "warn"]);
        command.arg("--cni-socket").arg(&socket).arg("--run-dir").arg(folder.join("run"));
        command.args(["--metrics-address", METRICS, "--ip6", "none"]);
        let mut node = Daemon::start(pair, &mut command, &folder.join("node.log"))?;
        let metrics = Http::new(METRICS, "", &pair.subject)?;
        wait(interrupt, &mut node, "voile-node", || {
            metrics.get("/readyz").ok().filter(|answer| answer.status == 200)
        })?;
        let ours = Plugin {
            program: programs.join("voile-cni"),
            config: json!({
                "cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "voile-cni", "socket": socket,
            }),
            folder: programs.to_owned(),
        };
        Ok(Self { api, apiserver, node, ours, theirs: ptp(folder), interrupt })
    }

    fn pods(
        &mut self,
        pair: &Pair,
        progress: &mut dyn FnMut(&str),
        emit: &mut dyn FnMut(Section),
    ) -> Result<()> {
        for index in 0..PODS {
            self.api.create("/api/v1/namespaces/default/pods", &pod(index))?;
        }
        let homes = (0..PODS).map(|_| Ok((NetNs::anonymous()?, NetNs::anonymous()?)));
        let homes: Vec<Homes> = homes.collect::<kernel::Result<_>>()?;
        let mut ours = Times::default();
        let mut theirs = Times::default();
        progress(&format!("adding {PODS} pods with each plugin"));
        let (before, after) = homes.split_at_checked(SETTLED).context("pods")?;
        self.add(pair, before, 0, &mut ours, &mut theirs)?;
        // What an ADD leaves behind for later belongs to the node's memory too.
        std::thread::sleep(Duration::from_secs(1));
        let memory = self.memory();
        progress(&format!("changing a policy {CHANGES} times"));
        let policy = self.policy(pair);
        progress("adding the other pods");
        self.add(pair, after, SETTLED, &mut ours, &mut theirs)?;
        self.delete(pair, &homes, &mut ours, &mut theirs)?;
        emit(cni_section(&ours, self.theirs.is_some().then_some(&theirs)));
        emit(policy?);
        emit(memory);
        Ok(())
    }

    fn add(
        &mut self,
        pair: &Pair,
        homes: &[Homes],
        first: usize,
        ours: &mut Times,
        theirs: &mut Times,
    ) -> Result<()> {
        for (index, (home, other)) in homes.iter().enumerate() {
            self.interrupt.check()?;
            if let Some(death) = self.node.death() {
                bail!("voile-node: {death}");
            }
            let number = first + index;
            ours.add.push(self.ours.execute("ADD", number, home, &pair.subject)?);
            if let Some(plugin) = &self.theirs {
                theirs.add.push(plugin.execute("ADD", number, other, &pair.load)?);
            }
        }
        Ok(())
    }

    fn delete(
        &self,
        pair: &Pair,
        homes: &[Homes],
        ours: &mut Times,
        theirs: &mut Times,
    ) -> Result<()> {
        for (number, (home, other)) in homes.iter().enumerate() {
            self.interrupt.check()?;
            ours.del.push(self.ours.execute("DEL", number, home, &pair.subject)?);
            if let Some(plugin) = &self.theirs {
                theirs.del.push(plugin.execute("DEL", number, other, &pair.load)?);
            }
        }
        Ok(())
    }

    /// Edits a policy that selects every pod and waits each time until the kernel reports the commit.
    fn policy(&self, pair: &Pair) -> Result<Section> {
        const PATH: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
        let mut commits = Commits::open(&pair.subject)?;
        self.api.create(PATH, &policy(1))?;
        commits.next(START)?;
        let (mut whole, mut answered, mut answer_times) = (Vec::new(), Vec::new(), Vec::new());
        for change in 0..CHANGES {
            self.interrupt.check()?;
            // The daemon's own pace must not hide behind the measurement's: nothing is left over from the last change.
            std::thread::sleep(Duration::from_millis(50));
            commits.forget()?;
            let start = Instant::now();
            self.api.replace(&format!("{PATH}/bench"), &policy(1000 + change))?;
            let answer = start.elapsed();
            let commit = commits.next(START)?.saturating_duration_since(start);
            whole.push(milliseconds(commit));
            answered.push(milliseconds(commit.saturating_sub(answer)));
            answer_times.push(milliseconds(answer));
        }
        let column = |key, title| Column { key, title, unit: Unit::Milliseconds, ratio: false };
        let values = [(&whole, 0.5), (&whole, 0.99), (&answered, 0.5), (&answered, 0.99)];
        let mut values: Vec<_> = values.map(|(list, part)| quantile(list, part)).to_vec();
        values.push(quantile(&answer_times, 0.5));
        Ok(Section {
            name: "policy".to_owned(),
            what: format!(
                "a policy of {SETTLED} pods is changed at the API {CHANGES} times, until the kernel's commit"
            ),
            baseline: "",
            columns: vec![
                column("request_p50_ms", "from request: p50"),
                column("request_p99_ms", "p99"),
                column("answer_p50_ms", "from answer: p50"),
                column("answer_p99_ms", "p99"),
                column("api_p50_ms", "API alone: p50"),
            ],
            rows: vec![Row { subject: "voile-node".to_owned(), values, fault: None }],
        })
    }

    fn memory(&self) -> Section {
        let column = |key, title| Column { key, title, unit: Unit::Kib, ratio: false };
        #[expect(clippy::cast_precision_loss, reason = "KiB of memory, far below 2^52")]
        let kib = |kib: u64| Some(kib as f64);
        let row = |subject: &str, daemon: &Daemon| {
            let usage = daemon.usage();
            let values = vec![kib(usage.resident_kib), kib(usage.peak_kib)];
            Row { subject: subject.to_owned(), values, fault: None }
        };
        Section {
            name: "memory".to_owned(),
            what: format!("resident memory with {SETTLED} pods on the node"),
            baseline: "",
            columns: vec![column("rss_kib", "RSS"), column("peak_rss_kib", "peak RSS")],
            rows: vec![row("voile-node", &self.node), row("voile-lab apiserver", &self.apiserver)],
        }
    }
}

/// Milliseconds of one plugin.
#[derive(Default)]
struct Times {
    add: Vec<f64>,
    del: Vec<f64>,
}

fn cni_section(ours: &Times, theirs: Option<&Times>) -> Section {
    let column = |key, title| Column { key, title, unit: Unit::Milliseconds, ratio: true };
    let row = |subject: &str, times: &Times| {
        let values = [(&times.add, 0.5), (&times.add, 0.99), (&times.del, 0.5), (&times.del, 0.99)];
        let values = values.map(|(list, part)| quantile(list, part)).to_vec();
        Row { subject: subject.to_owned(), values, fault: None }
    };
    let mut rows = vec![row("voile-cni + voile-node", ours)];
    rows.push(theirs.map_or_else(
        || Row {
            subject: "ptp + host-local".to_owned(),
            values: vec![None; 4],
            fault: Some(format!("not in {PLUGINS}: install containernetworking-plugins")),
        },
        |theirs| row("ptp + host-local", theirs),
    ));
    Section {
        name: "cni".to_owned(),
        what: format!("{PODS} pods one after the other, each plugin executed as a runtime does"),
        baseline: "ptp",
        columns: vec![
            column("add_p50_ms", "ADD p50"),
            column("add_p99_ms", "p99"),
            column("del_p50_ms", "DEL p50"),
            column("del_p99_ms", "p99"),
        ],
        rows,
    }
}

/// Debian's plugins, if they are here.
fn ptp(folder: &Path) -> Option<Plugin> {
    let program = PathBuf::from(PLUGINS).join("ptp");
    let data = folder.join("host-local");
    program.is_file().then(|| Plugin {
        program,
        config: json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "ptp",
            "ipam": {"type": "host-local", "subnet": "10.245.0.0/16", "dataDir": data},
        }),
        folder: PLUGINS.into(),
    })
}

fn pod(index: usize) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": plugin::pod_name(index), "labels": {"app": "bench"}},
        "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "none"}]},
    })
}

fn policy(port: u16) -> serde_json::Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "bench"},
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "bench"}}}],
                         "ports": [{"protocol": "TCP", "port": port}]}],
        },
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Asks again and again until there is an answer, the program dies, or patience ends.
fn wait<T>(
    interrupt: &Interrupt,
    daemon: &mut Daemon,
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        interrupt.check()?;
        if let Some(death) = daemon.death() {
            bail!("{what}: {death}");
        }
        let late = || format!("{what} is not ready after {} s", START.as_secs());
        ensure!(Instant::now() < deadline, "{}: {}", late(), daemon.last_words());
        std::thread::sleep(Duration::from_millis(50));
    }
}
