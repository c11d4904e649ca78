//! A real kube-apiserver, the manifests that we ship, and one daemon started by hand with the rights that they give it.
//!
//! Runs when `KUBEBUILDER_ASSETS` names a folder with etcd, kube-apiserver and kubectl. Everything is in one namespace: the
//! API server listens on the loopback of the node.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a test: what fails here fails it, with the reason"
)]

mod calicoctl;
mod cluster;

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use cluster::{Cluster, Sandbox};
use serde_json::{Value, json};
use voile_tests::{Namespace, can_make_namespaces, skip, wait_for, wire};

const OPEN: u16 = 8080;
const CLOSED: u16 = 9090;
const SOON: Duration = Duration::from_secs(20);
/// After an API server came back: it needs a while, and watches do not ask all the time.
const PATIENT: Duration = Duration::from_secs(45);

#[test]
fn a_node_lives_through_the_death_of_its_daemon_and_of_the_api_server() {
    if !can_make_namespaces() {
        skip("real_cluster", "needs root");
        return;
    }
    if let Some(reason) = cluster::missing() {
        skip("real_cluster", &reason);
        return;
    }
    let (node, router) = (Namespace::new("n1"), Namespace::new("tor"));
    wire(&node, "eth0", &router, "eth0");
    node.address("eth0", "192.0.2.10/24");
    router.address("eth0", "192.0.2.1/24");
    node.run(story);
}

/// What is checked in between: policy as it was applied.
struct Probe {
    client: Sandbox,
    other: Sandbox,
    web: IpAddr,
}

impl Probe {
    fn policy_holds(&self, when: &str) {
        let may = |from: &Sandbox, port| connects(from, SocketAddr::new(self.web, port));
        assert!(may(&self.client, OPEN), "{when}: the client cannot connect");
        assert!(!may(&self.client, CLOSED), "{when}: the client reaches a port that is closed");
        assert!(!may(&self.other, OPEN), "{when}: a stranger connects");
    }
}

fn story() {
    let mut cluster = Cluster::start();
    cluster.pods(&["web", "client", "other", "late", "last"]);
    let mut daemon = cluster.daemon();
    claims_a_block(&cluster);

    block_is_explained(&cluster);

    let web = cluster.sandbox("web");
    let added = web.add().expect("ADD");
    let address = first_address(&added);
    web.verb("CHECK", &json!({ "prevResult": added })).expect("CHECK");
    serve(&web, OPEN);
    serve(&web, CLOSED);
    let (client, other) = (cluster.sandbox("client"), cluster.sandbox("other"));
    for sandbox in [&client, &other] {
        sandbox.add().expect("ADD");
        assert!(connects(sandbox, SocketAddr::new(address, OPEN)), "without policy all is open");
    }
    pods_are_annotated(&cluster, address);
    calicoctl::story(&cluster);
    let probe = Probe { client, other, web: address };
    enforces(&cluster, &probe);

    leaked_address_returns(&cluster);
    daemon_dies(&cluster, &mut daemon, &probe);
    // Later not: an API server that starts forbids everything until it has read its roles.
    has_its_rights("voile-node", &daemon.log());
    api_server_dies(&mut cluster, &mut daemon, &probe);
    garbage_is_collected(&cluster, &probe);

    probe.client.del().expect("DEL");
    web.del().expect("DEL");
    nothing_is_left(&cluster);
    controller_leads(&cluster);
}

fn claims_a_block(cluster: &Cluster) {
    wait_for("the node claims a block", SOON, || {
        let blocks = cluster.api.list(cluster::BLOCKS);
        let owned = blocks.iter().any(|block| block["spec"]["affinity"] == "host:n1");
        if owned { Ok(()) } else { Err(format!("{blocks:?}")) }
    });
    wait_for("the daemon is ready", PATIENT, || match cluster::http("/readyz") {
        Ok(text) if text.starts_with("HTTP/1.1 200") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The question goes through the API server, with the rights that the manifests give.
fn block_is_explained(cluster: &Cluster) {
    let blocks = cluster.api.list(cluster::BLOCKS);
    let block = blocks[0].pointer("/spec/cidr").and_then(Value::as_str).unwrap();
    wait_for("the daemon explains its block", SOON, || {
        let text = cluster.voilectl(&["bgp", "route", block]);
        let here = text.contains(&format!("n1: {block}"))
            && text.contains("originated here: BEST")
            && text.contains("block of this node");
        if here { Ok(()) } else { Err(text) }
    });
    let text = cluster.voilectl(&["bgp", "neighbors", "n1"]);
    assert!(text.contains("n1: this node has no peers"), "{text}");
    assert!(cluster.api.list("/apis/voile.dev/v1/bgpqueries").is_empty(), "questions are left");
}

fn pods_are_annotated(cluster: &Cluster, address: IpAddr) {
    let wanted = format!("{address}/32");
    wait_for("the pod's annotation", SOON, || {
        let pod = cluster.api.get("/api/v1/namespaces/shop/pods/web").unwrap();
        let annotation = pod.pointer("/metadata/annotations/cni.projectcalico.org~1podIP");
        let found = annotation.and_then(Value::as_str).map(str::to_owned);
        if found.as_deref() == Some(&wanted) { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// A policy takes effect on real connections within a second.
fn enforces(cluster: &Cluster, probe: &Probe) {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                "ports": [{"protocol": "TCP", "port": OPEN}],
            }],
        },
    });
    let path = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";
    cluster.api.create(path, &policy);
    let begun = Instant::now();
    wait_for("the policy", Duration::from_secs(5), || {
        let open = connects(&probe.other, SocketAddr::new(probe.web, OPEN));
        if open { Err("a stranger still connects".to_owned()) } else { Ok(()) }
    });
    eprintln!("policy in force {} ms after it was created", begun.elapsed().as_millis());
    probe.policy_holds("with the policy");
}

/// What a daemon leaves that dies between the block's write and the endpoint's record: an address that nobody holds.
fn leaked_address_returns(cluster: &Cluster) {
    let handle = cluster.leak("ghost");
    let begun = Instant::now();
    wait_for("the leaked address is released", SOON, || {
        if cluster.handles().contains(&handle) { Err(handle.clone()) } else { Ok(()) }
    });
    let allocated = cluster.allocated();
    assert!(!allocated.contains(&handle), "still in a block: {allocated:?}");
    assert_eq!(allocated.len(), 3, "living pods lost their addresses: {allocated:?}");
    eprintln!("a leaked address was back after {} ms", begun.elapsed().as_millis());
}

/// SIGKILL: policy stays, DEL works without a daemon, and the next life releases the address.
fn daemon_dies(cluster: &Cluster, daemon: &mut voile_tests::Process, probe: &Probe) {
    daemon.kill();
    probe.policy_holds("without a daemon");
    probe.other.del().expect("DEL without a daemon");
    let late = cluster.sandbox("late");
    let refusal = late.add().expect_err("ADD without a daemon");
    assert_eq!(refusal["code"], 11, "{refusal}");
    assert!(refusal["msg"].as_str().unwrap().contains("voile-node does not answer"), "{refusal}");
    late.del().expect("DEL after a failed ADD");

    *daemon = cluster.daemon();
    claims_a_block(cluster);
    wait_for("the address of the deleted pod is released", SOON, || {
        let left = cluster.allocated();
        if left.len() == 2 { Ok(()) } else { Err(format!("{left:?}")) }
    });
    probe.other.add().expect("ADD after the restart");
    probe.policy_holds("after the restart");
}

/// The API server goes, then the daemon too: policy stays, DEL works, ADD says why it does not.
fn api_server_dies(cluster: &mut Cluster, daemon: &mut voile_tests::Process, probe: &Probe) {
    cluster.stop_api_server();
    probe.policy_holds("without an API server");
    daemon.kill();
    *daemon = cluster.daemon();
    probe.policy_holds("without an API server, while the daemon starts");
    let status = wait_for("the daemon answers", SOON, || {
        let late = cluster.sandbox("late");
        match late.verb("STATUS", &json!({})) {
            Err(error) if error["msg"] == "voile-node is starting" => Ok(error),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(status["code"], 50, "{status}");
    let begun = Instant::now();
    probe.other.del().expect("DEL without an API server");
    assert!(begun.elapsed() < Duration::from_secs(8), "DEL took {:?}", begun.elapsed());
    let late = cluster.sandbox("late");
    let begun = Instant::now();
    let refusal = late.add().expect_err("ADD without an API server");
    assert!(begun.elapsed() < Duration::from_secs(30), "ADD took {:?}", begun.elapsed());
    assert_eq!(refusal["code"], 11, "{refusal}");
    assert_eq!(refusal["msg"], "cannot read the pod", "{refusal}");
    late.del().expect("DEL after a failed ADD");
    assert!(connects(&probe.client, SocketAddr::new(probe.web, OPEN)));

    cluster.resume_api_server();
    claims_a_block(cluster);
    wait_for("what was owed is released", PATIENT, || {
        let left = cluster.allocated();
        if left.len() == 2 { Ok(()) } else { Err(format!("{left:?}")) }
    });
    late.add().expect("ADD with the API server back");
    probe.other.add().expect("ADD with the API server back");
    probe.policy_holds("with the API server back");
}

/// CNI GC: what the runtime no longer names goes, link and address.
fn garbage_is_collected(cluster: &Cluster, probe: &Probe) {
    let valid: Vec<Value> = ["web", "client", "other"]
        .iter()
        .map(|name| json!({"containerID": cluster::container(name), "ifname": "eth0"}))
        .collect();
    probe.web_is_counted(cluster, 4);
    let late = cluster.sandbox("late");
    late.verb("GC", &json!({ "cni.dev/valid-attachments": valid })).expect("GC");
    probe.web_is_counted(cluster, 3);
    let unknown = late.verb("CHECK", &json!({})).expect_err("CHECK of what was collected");
    assert_eq!(unknown["code"], 3, "{unknown}");
    probe.policy_holds("after GC");
    probe.other.del().expect("DEL");
}

impl Probe {
    fn web_is_counted(&self, cluster: &Cluster, wanted: usize) {
        let left = cluster.allocated();
        assert_eq!(left.len(), wanted, "{left:?} with {}", self.web);
    }
}

fn nothing_is_left(cluster: &Cluster) {
    wait_for("no address and no handle is left", SOON, || {
        let left = (cluster.allocated(), cluster.handles());
        if left.0.is_empty() && left.1.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let netlink = kernel::Netlink::open().unwrap();
    let links = kernel::link::list(&netlink).unwrap();
    let pods: Vec<_> = links.iter().filter(|link| link.name.starts_with("cali")).collect();
    assert!(pods.is_empty(), "{pods:?}");
}

fn controller_leads(cluster: &Cluster) {
    let controller = cluster.controller();
    let lease = "/apis/coordination.k8s.io/v1/namespaces/voile-system/leases/voile-controller";
    wait_for("the controller leads", SOON, || {
        let lease = cluster.api.get(lease).map_err(|error| error.to_string())?;
        match lease.pointer("/spec/holderIdentity").and_then(Value::as_str) {
            Some("controller-1") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    wait_for("the controller's first pass", SOON, || {
        let metrics = cluster::http_of(9094, "/metrics").map_err(|error| error.to_string())?;
        let counted = metrics.contains("ipam_blocks{ippool=\"default-ipv4\",node=\"n1\"} 1");
        if counted { Ok(()) } else { Err(format!("{metrics}\n{}", controller.log())) }
    });
    has_its_rights("voile-controller", &controller.log());
}

fn has_its_rights(program: &str, log: &str) {
    let refused: Vec<&str> = log.lines().filter(|line| line.contains("forbidden")).collect();
    assert!(refused.is_empty(), "{program} lacks a right:\n{}", refused.join("\n"));
}

fn first_address(result: &Value) -> IpAddr {
    let text = result.pointer("/ips/0/address").and_then(Value::as_str).unwrap();
    text.split('/').next().unwrap().parse().unwrap()
}

/// Accepts connections in a pod until the test ends.
fn serve(pod: &Sandbox, port: u16) {
    let listener = pod.inside(|| TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || for_each_connection(&listener));
}

fn for_each_connection(listener: &TcpListener) {
    while listener.accept().is_ok() {}
}

fn connects(from: &Sandbox, to: SocketAddr) -> bool {
    from.inside(|| TcpStream::connect_timeout(&to, Duration::from_millis(400)).is_ok())
}
