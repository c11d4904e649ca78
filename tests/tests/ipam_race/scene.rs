//! One race: an API server, pools, the crowd, and what must hold in the end.

use std::{
    any::Any,
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use api::{IpPool, IpPoolSpec, IpamBlock, Key, Node, NodeSpec, Pod};
use serde_json::{Value, json};
use store::{
    DeletePreconditions, ListOptions, Store as _, StoreError,
    kube::{KubeOptions, KubeStore},
    random::Random,
    testing::{ApiServer, StartError},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use voile_tests::{Process, built, wait_for};

use crate::{
    crowd::{self, Crowd, NODES},
    judge::{Stored, judge, stories},
    proxy::{Counts, Proxy},
    witness::{Witness, owners},
    worker::{NAMESPACE, Work, is_forgotten},
};

/// Operations, each an assignment or a release.
const OPERATIONS: u64 = 20_000;
/// Longest time for them.
const PATIENCE: Duration = Duration::from_secs(600);
/// Operations between two kills, on average, and the longest time: a slow machine kills as often for the same work.
const KILL_EVERY: u64 = 120;
const KILL_WITHIN: Duration = Duration::from_secs(2);
/// Kills between two changes of a pool's block size.
const RESIZE_EVERY: u64 = 20;
const CHURN: Work = Work::Churn { pods: 40, places: 32 };

/// Pools: name, range, block size, and whether it is for everybody or only for those who name it.
const POOLS: &[(&str, &str, u8, &str)] = &[
    ("large", "10.77.0.0/24", 27, "Automatic"),
    ("other", "10.77.1.0/25", 28, "Automatic"),
    ("small", "10.77.2.0/25", 30, "Automatic"),
    ("single", "10.77.3.0/28", 32, "Manual"),
    ("six", "fd00:77::/119", 124, "Automatic"),
];
/// The pool that is made anew again and again, with other blocks, while addresses are in use.
const RESIZED: usize = 2;
const SIZES: [u8; 3] = [29, 31, 30];

/// An API server, which ends with the value.
type Server = Box<dyn Any>;

/// Starts the lab's API server.
pub(crate) fn lab(_: &Runtime, dir: &Path) -> Result<(Server, PathBuf), StartError> {
    let kubeconfig = dir.join("kubeconfig");
    let mut command = Command::new(built("voile-lab"));
    command.args(["apiserver", "--kubeconfig"]).arg(&kubeconfig);
    let process = Process::spawn(&mut command, &dir.join("apiserver.log"));
    wait_for("the lab's API server", Duration::from_secs(20), || {
        if kubeconfig.exists() { Ok(()) } else { Err(process.log()) }
    });
    Ok((Box::new(process), kubeconfig))
}

/// Starts the real one.
pub(crate) fn real(runtime: &Runtime, _: &Path) -> Result<(Server, PathBuf), StartError> {
    let server = runtime.block_on(ApiServer::start())?;
    runtime.block_on(server.install_crds(&api::crd::all()))?;
    let kubeconfig = server.kubeconfig();
    Ok((Box::new(server), kubeconfig))
}

/// How a server is started.
pub(crate) type Start = fn(&Runtime, &Path) -> Result<(Server, PathBuf), StartError>;

/// Runs the race. `Err` says why it cannot be run here.
pub(crate) fn race(name: &str, start: Start, seed: u64) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = TempDir::with_prefix("voile-race-").unwrap();
    let (_server, kubeconfig) = match start(&runtime, dir.path()) {
        Ok(started) => started,
        Err(StartError::Skip(why)) => return Err(why),
        Err(error) => panic!("{error}"),
    };
    let mut options = KubeOptions::default();
    options.rate = None;
    let store = runtime.block_on(KubeStore::from_kubeconfig(&kubeconfig, None, options)).unwrap();
    runtime.block_on(prepare(&store));
    let mut crowd = Crowd::new(dir.path(), seed);
    let journal = Crowd::journal_in(dir.path());
    let witness = Witness::start(runtime.handle(), store.clone(), journal);
    let proxy = runtime.block_on(Proxy::start(upstream(&runtime, &kubeconfig), seed));
    let through = dir.path().join("kubeconfig-proxy");
    std::fs::write(&through, lab_kubeconfig(&proxy)).unwrap();

    eprintln!("{name}: VOILE_SEED={seed}");
    let took = churn(&mut crowd, &runtime, &store, &through, seed);
    if !crowd.found.is_empty() {
        // What the datastore said of it is a little behind the journal.
        runtime.block_on(tokio::time::sleep(Duration::from_millis(500)));
        let seen = witness.end();
        let told = stories(&crowd.found, &crowd.journal, &seen);
        panic!("VOILE_SEED={seed}: {}", told.join("\n"));
    }
    let operations = crowd.book.operations();
    proxy.behave();
    crowd.end_all(Duration::from_secs(30));
    eprintln!("{name}: {}", figures(&crowd, &proxy.counts, operations, took));

    crowd.start_all(&kubeconfig, Work::Settle);
    crowd.wait_all(Duration::from_secs(60));
    runtime.block_on(make_pods(&store, &crowd));
    let left = check(&kubeconfig, &[]);
    eprintln!("{name}: left for the collector: {}", left.text.lines().count() - 1);
    let unexplained: Vec<&str> =
        left.text.lines().filter(|line| !is_explained(line, &proxy)).collect();
    let repaired = check(&kubeconfig, &["--repair"]);
    let checked = check(&kubeconfig, &[]);

    let stored = runtime.block_on(stored(&store));
    wait_for("the witness has seen what is stored", Duration::from_secs(10), || {
        if witness.stored() == stored { Ok(()) } else { Err(format!("{:?}", witness.stored())) }
    });
    let holdings = crowd.book.holdings.iter();
    let forgotten: BTreeSet<String> =
        holdings.filter(|(name, _)| is_forgotten(name)).map(|(name, _)| name.clone()).collect();
    let seen = witness.end();
    let (book, violations) = judge(&crowd.journal, &seen, &stored, &forgotten);
    eprintln!(
        "{name}: {} addresses held, {} changes of owners seen, {} lines in the journal",
        book.holders.len(),
        seen.len(),
        crowd.journal.len()
    );
    let told = stories(&violations, &crowd.journal, &seen);
    assert!(told.is_empty(), "VOILE_SEED={seed}: {} violations:\n{}", told.len(), told.join("\n"));
    let told = stories(&unexplained, &crowd.journal, &seen);
    assert!(
        told.is_empty(),
        "VOILE_SEED={seed}: nodes should have ended this themselves:\n{}",
        told.join("\n")
    );
    assert_eq!(
        checked.text.trim(),
        "Check complete; found 0 problems.",
        "VOILE_SEED={seed}, after\n{}",
        repaired.text
    );
    assert_eq!(checked.code, Some(0));
    Ok(())
}

/// Lets the crowd work, kills its members and changes pools, until the operations are done.
#[expect(clippy::disallowed_methods, reason = "the driver of the test")]
fn churn(
    crowd: &mut Crowd,
    runtime: &Runtime,
    store: &KubeStore,
    kubeconfig: &Path,
    seed: u64,
) -> Duration {
    let mut random = Random::seeded(seed);
    let wanted = std::env::var("VOILE_RACE_OPERATIONS").ok().and_then(|text| text.parse().ok());
    let wanted = wanted.unwrap_or(OPERATIONS);
    let start = Instant::now();
    let mut sizes = SIZES.iter().cycle();
    crowd.start_all(kubeconfig, CHURN);
    while crowd.book.operations() < wanted {
        // Between nothing and twice the mean.
        let until = crowd.book.operations() + random.below(2 * KILL_EVERY);
        let since = Instant::now();
        while crowd.book.operations() < until && since.elapsed() < KILL_WITHIN {
            std::thread::sleep(Duration::from_millis(5));
            crowd.read();
        }
        crowd.kill_one(kubeconfig, CHURN);
        if crowd.kills.is_multiple_of(RESIZE_EVERY) {
            runtime.block_on(resize(store, *sizes.next().unwrap()));
        }
        if !crowd.found.is_empty() {
            // The judge tells the story.
            return start.elapsed();
        }
        assert!(
            start.elapsed() < PATIENCE,
            "VOILE_SEED={seed}: only {} operations in {PATIENCE:?}; failed: {:?}",
            crowd.book.operations(),
            crowd.book.failed
        );
    }
    start.elapsed()
}

fn upstream(runtime: &Runtime, kubeconfig: &Path) -> kube::Client {
    runtime.block_on(async {
        let file = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
        let choice = kube::config::KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(file, &choice).await.unwrap();
        config.read_timeout = None;
        kube::Client::try_from(config).unwrap()
    })
}

fn lab_kubeconfig(proxy: &Proxy) -> String {
    let url = format!("http://{}", proxy.address);
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "race",
        "clusters": [{"name": "race", "cluster": {"server": url}}],
        "users": [{"name": "race", "user": {}}],
        "contexts": [{"name": "race", "context": {"cluster": "race", "user": "race"}}],
    })
    .to_string()
}

async fn prepare(store: &KubeStore) {
    for node in 0..NODES {
        store.create(&Node::new(crowd::name(node), NodeSpec::default())).await.unwrap();
    }
    let path = "/api/v1/namespaces";
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    store.raw(http::Method::POST, path, "application/json", Some(&namespace)).await.unwrap();
    for (index, (_, _, size, _)) in POOLS.iter().enumerate() {
        store.create(&pool(index, *size)).await.unwrap();
    }
}

fn pool(index: usize, size: u8) -> IpPool {
    let (name, cidr, _, mode) = POOLS[index];
    let spec = json!({"cidr": cidr, "blockSize": size, "assignmentMode": mode});
    let spec: IpPoolSpec = serde_json::from_value(spec).unwrap();
    IpPool::new(name, spec)
}

/// Makes a pool anew with blocks of another size; those that exist stay.
async fn resize(store: &KubeStore, size: u8) {
    let new = pool(RESIZED, size);
    let key = Key::cluster(new.metadata.name.clone());
    store.delete::<IpPool>(&key, &DeletePreconditions::default()).await.unwrap();
    loop {
        match store.create(&new).await {
            Ok(_) => return,
            Err(StoreError::AlreadyExists { .. }) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("pool {key}: {error}"),
        }
    }
}

/// Makes the pods whose sandboxes the crowd holds, as the API would have had them from the start.
async fn make_pods(store: &KubeStore, crowd: &Crowd) {
    for (name, holding) in &crowd.book.holdings {
        if holding.addresses.is_empty() {
            continue;
        }
        let texts: Vec<String> = holding.addresses.iter().map(ToString::to_string).collect();
        let object = json!({
            "metadata": {
                "name": name, "namespace": NAMESPACE,
                "annotations": {"cni.projectcalico.org/podIPs": texts.join(",")},
            },
            "spec": {"nodeName": holding.node, "containers": [{"name": "main", "image": "none"}]},
        });
        let pod: Pod = serde_json::from_value(object).unwrap();
        store.create(&pod).await.unwrap();
    }
}

async fn stored(store: &KubeStore) -> Stored {
    let listing = store.list::<IpamBlock>(&ListOptions::consistent()).await.unwrap();
    assert!(listing.malformed.is_empty(), "{:?}", listing.malformed);
    listing.items.iter().flat_map(|block| owners(block)).collect()
}

/// What `voilectl ipam check` says.
struct Checked {
    text: String,
    code: Option<i32>,
}

fn check(kubeconfig: &Path, more: &[&str]) -> Checked {
    let mut command = Command::new(built("voilectl"));
    command.arg("--kubeconfig").arg(kubeconfig).args(["ipam", "check"]).args(more);
    let output = command.output().unwrap();
    let code = output.status.code();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(code, Some(0 | 1)), "voilectl ipam check {more:?}: {code:?} {complaint}");
    Checked { text: String::from_utf8_lossy(&output.stdout).into_owned(), code }
}

/// Whether a line of the check, before the collector was there, may be: headings, what is of handles that everybody forgot, and
/// of those whose last write came after the next life had cleaned up.
fn is_explained(line: &str, proxy: &Proxy) -> bool {
    let words = line.split([' ', ',', '/']);
    let mut handles = words.filter(|word| word.starts_with("race."));
    !line.starts_with(' ') || handles.any(|handle| is_forgotten(handle) || proxy.was_late(handle))
}

fn figures(crowd: &Crowd, counts: &Counts, operations: u64, took: Duration) -> String {
    let get = |counter: &AtomicU64| counter.load(Relaxed);
    let rate = operations as f64 / took.as_secs_f64();
    let values: Vec<(&str, Value)> = vec![
        ("kills", crowd.kills.into()),
        ("starts beside the former life", crowd.twins.into()),
        ("requests", get(&counts.requests).into()),
        ("conflicts", get(&counts.conflicts).into()),
        ("injected", get(&counts.injected_conflicts).into()),
        ("requests lost", get(&counts.lost_requests).into()),
        ("answers lost after commit", get(&counts.lost_answers).into()),
        ("late writes", get(&counts.late_writes).into()),
        ("refused", get(&counts.refusals).into()),
        ("old lists", get(&counts.old_lists).into()),
        ("watches late", get(&counts.lagging_watches).into()),
        ("watches cut", get(&counts.cut_watches).into()),
    ];
    let texts: Vec<String> = values.iter().map(|(name, value)| format!("{name} {value}")).collect();
    format!(
        "{operations} operations in {:.1} s ({rate:.0}/s); {}; failed {:?}",
        took.as_secs_f64(),
        texts.join(", "),
        crowd.book.failed
    )
}
