//! Daemons die at any instruction, again and again; nothing that runs notices.
//!
//! Every daemon of a lab (three `voile-node`, three routers) gets SIGKILL ten times in turn, while TCP streams and datagrams
//! run between pods, forbidden connections are tried, and pods come and go.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a test: what fails here fails it, with the reason"
)]

mod traffic;

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use traffic::{Datagrams, Forbidden, Stream, Worker, datagrams, forbidden, stream};
use voile_tests::{
    can_make_namespaces,
    lab::{Lab, Pod},
    skip, wait_for,
};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const ROUTERS: [&str; 3] = ["leaf1", "leaf2", "spine"];
const ROUNDS: usize = 10;
/// Sessions of the lab: each node with both leaves, over both families.
const SESSIONS: usize = 12;

const TCP: u16 = 8080;
const UDP: u16 = 8081;
const CLOSED: u16 = 5432;

#[test]
fn sixty_deaths_cost_no_packet_no_policy_and_no_address() {
    if !can_make_namespaces() {
        skip("resilience", "needs root");
        return;
    }
    let lab = Lab::up("vtres", None);
    let cast = cast(&lab);
    // A network that is still coming up may lose packets without any death.
    sessions_return(&lab);
    let traffic = Traffic::start(&cast);
    std::thread::sleep(Duration::from_millis(500));

    let stop = AtomicBool::new(false);
    let (deaths, churned) = std::thread::scope(|scope| {
        let churn = scope.spawn(|| churn(&lab, &stop));
        let deaths = kill_everything(&lab);
        stop.store(true, Ordering::Relaxed);
        (deaths, churn.join().expect("churn"))
    });
    std::thread::sleep(Duration::from_secs(1));
    traffic.judge(&deaths);
    assert!(churned > 0, "no pod came up in the meantime");
    eprintln!("{} deaths; {churned} pods came up and went in the meantime", deaths.len());

    sessions_return(&lab);
    new_pods_work(&lab, &cast);
    routes_are_explained(&lab, &cast);
    nothing_leaked(&lab);
}

/// The pods of the story.
struct Cast {
    servers: Vec<Pod>,
    clients: Vec<Pod>,
    outsider: Pod,
}

fn cast(lab: &Lab) -> Cast {
    for namespace in ["res", "out"] {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        lab.api().create("/api/v1/namespaces", &object);
    }
    let policy = |namespace: &str, name: &str, spec: serde_json::Value| {
        let path = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies");
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        });
        lab.api().create(&path, &object);
    };
    let ports = json!([{"protocol": "TCP", "port": TCP}, {"protocol": "UDP", "port": UDP}]);
    policy(
        "res",
        "servers",
        json!({
            "podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": ports}],
        }),
    );
    policy("out", "stay", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": []}));
    let open = [("TCP", TCP), ("UDP", UDP), ("TCP", CLOSED)];
    for node in NODES {
        lab.create_pod("res", &format!("server-{node}"), node, &open);
        lab.create_pod("res", &format!("client-{node}"), node, &[("TCP", TCP)]);
    }
    lab.create_pod("out", "outsider", "n1", &[("TCP", TCP)]);
    let all = |role: &str| NODES.map(|node| lab.running("res", &format!("{role}-{node}"))).to_vec();
    Cast {
        servers: all("server"),
        clients: all("client"),
        outsider: lab.running("out", "outsider"),
    }
}

struct Traffic {
    streams: Vec<Worker<Result<Stream, String>>>,
    datagrams: Vec<Worker<std::io::Result<Datagrams>>>,
    forbidden: Vec<Worker<Forbidden>>,
}

impl Traffic {
    fn start(cast: &Cast) -> Self {
        let mut traffic =
            Self { streams: Vec::new(), datagrams: Vec::new(), forbidden: Vec::new() };
        for (index, client) in cast.clients.iter().enumerate() {
            let neighbour = &cast.servers[(index + 1) % cast.servers.len()];
            let both = [neighbour, &cast.servers[index]];
            for (server, address) in
                both.iter().flat_map(|server| server.addresses.iter().map(move |ip| (server, *ip)))
            {
                settled(client, address);
                let name = format!("client-{}", NODES[index]);
                let to = |port| SocketAddr::new(address, port);
                traffic.streams.push(stream(&name, &client.netns, to(TCP)));
                if server.addresses == neighbour.addresses {
                    traffic.datagrams.push(datagrams(&name, &client.netns, to(UDP)));
                    traffic.forbidden.push(forbidden(&name, &client.netns, to(CLOSED)));
                }
            }
        }
        // Not on the outsider's node, so that it is its own egress policy that holds it back from a pod without policy.
        for address in &cast.clients[1].addresses {
            let to = SocketAddr::new(*address, TCP);
            traffic.forbidden.push(forbidden("outsider", &cast.outsider.netns, to));
        }
        traffic
    }

    fn judge(self, deaths: &[(Instant, String)]) {
        let after = |when: &Instant| {
            let last = deaths.iter().rev().find(|(died, _)| died <= when);
            let relation = last.map_or("before all deaths".to_owned(), |(died, who)| {
                format!("{} ms after the death of {who}", when.duration_since(*died).as_millis())
            });
            format!("{} ({relation})", wall_time(*when))
        };
        let mut complaints = Vec::new();
        let (mut echoed, mut silence) = (0, Duration::ZERO);
        for (name, report) in self.streams.into_iter().map(Worker::finish) {
            match report {
                Ok(report) => {
                    echoed += report.echoed;
                    silence = silence.max(report.longest_silence);
                }
                Err(error) => complaints.push(format!("stream {name}: {error}")),
            }
        }
        eprintln!("streams: {echoed} numbers echoed, longest silence {} ms", silence.as_millis());
        let (mut sent, mut lost, mut losses) = (0, 0, Vec::new());
        for (name, report) in self.datagrams.into_iter().map(Worker::finish) {
            let report = report.expect("a socket for datagrams");
            (sent, lost) = (sent + report.sent, lost + report.lost.len());
            let examples: Vec<String> = report.lost.iter().take(3).map(after).collect();
            if !examples.is_empty() {
                let count = report.lost.len();
                losses.push(format!("{name}: {count} datagrams lost: {}", examples.join(", ")));
            }
        }
        eprintln!("datagrams: {sent} sent, {lost} lost\n{}", losses.join("\n"));
        complaints.append(&mut losses);
        let mut tried = 0;
        for (name, report) in self.forbidden.into_iter().map(Worker::finish) {
            tried += report.tried;
            if let Some(first) = report.through.first() {
                let count = report.through.len();
                complaints.push(format!("{name}: {count} forbidden connections, {}", after(first)));
            }
        }
        eprintln!("forbidden connections: {tried} tried");
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        assert!(echoed > 0 && sent > 0 && tried > 0);
        assert!(silence < Duration::from_secs(5), "a stream was silent for {silence:?}");
    }
}

/// Time of day as the daemons' logs have it.
fn wall_time(when: Instant) -> String {
    let then = SystemTime::now() - when.elapsed();
    let millis = then.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() % 86_400_000;
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", millis / 1000 % 60, millis % 1000)
}

/// Waits until one pod reaches another: routes spread a moment after pods run.
fn settled(client: &Pod, address: IpAddr) {
    let to = SocketAddr::new(address, TCP);
    wait_for(&format!("a connection to {to}"), Duration::from_secs(20), || {
        kernel::netns::in_netns(&client.netns, || {
            std::net::TcpStream::connect_timeout(&to, Duration::from_millis(300)).map(drop)
        })
        .unwrap()
        .map_err(|error| error.to_string())
    });
}

/// Kills every daemon in turn, `ROUNDS` times; returns when who died.
fn kill_everything(lab: &Lab) -> Vec<(Instant, String)> {
    let programs: Vec<String> = NODES
        .iter()
        .map(|node| format!("voile-node-{node}"))
        .chain(ROUTERS.map(str::to_owned))
        .collect();
    let mut deaths = Vec::new();
    for _ in 0..ROUNDS {
        for program in &programs {
            let before = lab.restarts(program);
            lab.kill(program);
            deaths.push((Instant::now(), program.clone()));
            wait_for(&format!("{program} lives again"), Duration::from_secs(20), || {
                let now = lab.restarts(program);
                if now > before { Ok(()) } else { Err(format!("{now} restarts")) }
            });
            sessions_return(lab);
        }
    }
    for program in &programs {
        let restarts = lab.restarts(program);
        let wanted = u64::try_from(ROUNDS).unwrap() - 1;
        assert!(restarts >= wanted, "{program} was started again {restarts} times only");
    }
    deaths
}

/// Adds and deletes pods until told to stop; returns how many came up.
fn churn(lab: &Lab, stop: &AtomicBool) -> usize {
    let path = |name: &str| format!("/api/v1/namespaces/res/pods/{name}");
    let (mut came_up, mut number) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let pods: Vec<String> = NODES
            .iter()
            .map(|node| {
                number += 1;
                let name = format!("churn-{number}");
                lab.create_pod("res", &name, node, &[("TCP", TCP)]);
                name
            })
            .collect();
        let patience = Instant::now() + Duration::from_secs(4);
        let all_up =
            |pods: &[String]| pods.iter().filter(|pod| lab.pod("res", pod).is_ok()).count();
        while all_up(&pods) < pods.len() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(100));
        }
        came_up += all_up(&pods);
        for pod in &pods {
            lab.api().delete(&path(pod));
        }
    }
    wait_for("deleted pods are gone", Duration::from_secs(30), || {
        let pods = lab.api().list("/api/v1/namespaces/res/pods");
        let left: Vec<_> = pods
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str())
            .filter(|name| name.starts_with("churn-"))
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    came_up
}

/// The next one dies when the network has recovered from the last. Asked of the daemons themselves: what the API says of a
/// daemon that just died is its former life's word.
fn sessions_return(lab: &Lab) {
    wait_for("all sessions are back", Duration::from_secs(20), || {
        let up: usize = NODES.iter().map(|node| lab.sessions(node)).sum();
        if up == SESSIONS { Ok(()) } else { Err(format!("{up} of {SESSIONS} sessions are up")) }
    });
}

/// After it all, a node serves as on its first day.
fn new_pods_work(lab: &Lab, cast: &Cast) {
    for node in NODES {
        lab.create_pod("res", &format!("client-late-{node}"), node, &[("TCP", TCP)]);
    }
    for node in NODES {
        let pod = lab.running("res", &format!("client-late-{node}"));
        for address in cast.servers.iter().flat_map(|server| &server.addresses) {
            settled(&pod, *address);
        }
    }
}

/// Every node says how it reaches a pod, and that the kernel has the route.
fn routes_are_explained(lab: &Lab, cast: &Cast) {
    let address = cast.servers[0].addresses[0].to_string();
    wait_for("every node explains a route", Duration::from_secs(20), || {
        let (clean, text) = lab.voilectl(&["bgp", "route", &address]);
        let installed = text.matches("kernel:   installed via").count();
        let own = text.matches("block of this node").count();
        let all = clean && installed == NODES.len() - 1 && own == 1;
        if all { Ok(()) } else { Err(text) }
    });
    let (clean, text) = lab.voilectl(&["bgp", "neighbors", NODES[0]]);
    assert!(clean && text.contains("-> Established: received KEEPALIVE"), "{text}");
}

fn nothing_leaked(lab: &Lab) {
    wait_for("ipam check finds nothing", Duration::from_secs(30), || {
        let (clean, text) = lab.voilectl(&["ipam", "check"]);
        if clean && text.contains("found 0 problems") { Ok(()) } else { Err(text) }
    });
    let mut interfaces = 0;
    for node in NODES {
        let netlink =
            kernel::Netlink::open_in(&kernel::NetNs::open(lab.netns(node)).unwrap()).unwrap();
        let links = kernel::link::list(&netlink).unwrap();
        interfaces += links.iter().filter(|link| link.name.starts_with("cali")).count();
    }
    // Three servers, three clients, three late ones, the outsider.
    assert_eq!(interfaces, 10, "interfaces of pods that are gone were left behind");
}
