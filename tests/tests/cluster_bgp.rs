//! BGP of a cluster as those around it see it: a collector of BMP (pmacct's), a neighbour that is under attack, Prometheus.

#![expect(clippy::unwrap_used, reason = "a test: what fails here fails it, with the reason")]

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use voile_tests::{
    Process,
    bgp::{PATIENCE, wait_gone, wait_text},
    built, can_make_namespaces,
    lab::Lab,
    skip, wait_for,
};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const COLLECTOR: &str = "/usr/sbin/pmbmpd";
/// Where the collector listens: at leaf1.
const STATION: &str = "172.20.1.1:1790";
/// What leaf1 asks its neighbours to drop.
const ATTACKED: &str = "203.0.113.7";

#[test]
fn a_cluster_is_watched_and_drops_what_it_is_asked_to() {
    if !can_make_namespaces() {
        skip("cluster_bgp", "needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::up("vtcbg", Some(&topology(folder.path())));
    wait_for("the sessions of n1", PATIENCE, || match lab.sessions("n1") {
        4 => Ok(()),
        some => Err(format!("{some} of 4")),
    });
    blackhole(&lab);
    alerts_find_their_metrics(&lab, folder.path());
    if Path::new(COLLECTOR).exists() {
        collector(&lab, folder.path());
    } else {
        skip("a collector of BMP in a cluster", "pmacct is not installed");
    }
}

/// The usual topology, whose nodes know a collector and whose first leaf announces an attacked address.
fn topology(folder: &Path) -> PathBuf {
    let copy = folder.join("leaf-spine");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(Lab::topologies().join("leaf-spine")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            let _ = fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    let leaf = copy.join("leaf1.toml");
    let network =
        format!("\n[[network]]\nprefix = \"{ATTACKED}/32\"\ncommunities = [\"blackhole\"]\n");
    fs::write(&leaf, fs::read_to_string(&leaf).unwrap() + &network).unwrap();
    let text = fs::read_to_string(Lab::topologies().join("leaf-spine.clab.yml")).unwrap();
    let image = "      image: voile-node\n";
    assert_eq!(text.matches(image).count(), 1, "{text}");
    let environment = format!("{image}      env:\n        VOILE_BMP: {STATION}\n");
    let file = folder.join("leaf-spine.clab.yml");
    fs::write(&file, text.replace(image, &environment)).unwrap();
    file
}

/// Nothing is dropped until the cluster's operator agrees, for as long as that holds, and within what was agreed.
fn blackhole(lab: &Lab) {
    let routes = |node: &'static str| {
        let netns = lab.netns(node);
        move || {
            let show = || Command::new("ip").args(["-4", "route", "show", "proto", "bgp"]).output();
            let output = kernel::netns::in_netns(&netns, show).unwrap().unwrap();
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
    };
    let dropped = format!("blackhole {ATTACKED}");
    let agree = |networks: Value| {
        let patch = json!({"metadata": {"annotations": {"voile.dev/blackhole": networks}}});
        let path = "/apis/projectcalico.org/v3/bgppeers/leaf1-ipv4";
        let _ = lab.api().merge(path, &patch).unwrap();
    };
    let way = format!("{ATTACKED} via 172.20.1.1");
    wait_text("an ordinary route", &[&way], routes("n1"));
    agree(json!("203.0.113.0/24"));
    for node in NODES {
        wait_text("a blackhole", &[&dropped], routes(node));
    }
    let (fine, explained) = lab.voilectl(&["bgp", "route", ATTACKED]);
    assert!(fine && explained.contains("blackhole"), "{explained}");
    let to = SocketAddr::new(ATTACKED.parse().unwrap(), 80);
    let tried = kernel::netns::in_netns(lab.netns("n1"), || {
        TcpStream::connect_timeout(&to, Duration::from_secs(1))
    });
    assert_eq!(tried.unwrap().unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    // It stays while the daemon is away and when it is back.
    let before = lab.restarts("voile-node-n1");
    let _ = lab.kill("voile-node-n1");
    wait_for("n1 is back", PATIENCE, || {
        assert!(routes("n1")()?.contains(&dropped));
        let back = lab.restarts("voile-node-n1") > before && lab.sessions("n1") == 4;
        if back { Ok(()) } else { Err(lab.log("voile-node-n1")) }
    });
    // Somewhere else.
    agree(json!("198.51.100.0/24"));
    wait_text("an ordinary route again", &[&way], routes("n1"));
    agree(json!("true"));
    wait_text("a blackhole again", &[&dropped], routes("n1"));
    agree(Value::Null);
    for node in NODES {
        wait_gone("the blackhole", &dropped, routes(node));
        wait_text("an ordinary route", &[&way], routes(node));
    }
}

/// Every metric that an alert names is one of a node or of the controller, as they serve them.
fn alerts_find_their_metrics(lab: &Lab, folder: &Path) {
    let kubeconfig = lab.folder().join("kubeconfig");
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let mut command = Command::new(built("voile-controller"));
    command.args(["--metrics-address", &port.to_string(), "--identity", "c1", "--kubeconfig"]);
    let controller = Process::spawn(command.arg(kubeconfig), &folder.join("controller.log"));
    let served = wait_for("the controller's numbers", PATIENCE, || {
        let text = voile_tests::lab::metrics(port).map_err(|error| error.to_string())?;
        let counted = text.contains("\nvoile_controller_passes_total 1\n");
        if counted { Ok(text) } else { Err(format!("{text}{}", controller.log())) }
    });
    let served = served + &lab.metrics("n1").unwrap();
    let types: Vec<&str> =
        served.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let rules = Lab::topologies().join("../monitoring/prometheus-rule.yaml");
    let text = fs::read_to_string(rules).unwrap();
    let document: Value = serde_norway::from_str(&text).unwrap();
    let mut metrics = 0;
    let groups = document.pointer("/spec/groups").and_then(Value::as_array).unwrap();
    for rule in groups.iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let expression = rule["expr"].as_str().unwrap();
        let words = expression.split(|each: char| !each.is_ascii_alphanumeric() && each != '_');
        for metric in words.filter(|word| word.starts_with("voile_") || word.starts_with("ipam_")) {
            assert!(types.contains(&metric), "{}: nobody serves {metric}", rule["alert"]);
            metrics += 1;
        }
    }
    assert!(metrics >= 20, "{metrics}");
}

/// A collector beside the cluster hears who the nodes are, what their peers send, what they use, and what ends.
fn collector(lab: &Lab, folder: &Path) {
    let stream = folder.join("bmp.json");
    let config = folder.join("pmbmpd.conf");
    let (address, port) = STATION.split_once(':').unwrap();
    let text = format!(
        "bmp_daemon_ip: {address}\nbmp_daemon_port: {port}\nbmp_daemon_max_peers: 10\n\
         bmp_daemon_msglog_file: {}\nbmp_daemon_msglog_output: json\n",
        stream.display()
    );
    fs::write(&config, text).unwrap();
    let _pmbmpd = kernel::netns::in_netns(lab.netns("leaf1"), || {
        Process::spawn(Command::new(COLLECTOR).arg("-f").arg(&config), &folder.join("pmbmpd.log"))
    })
    .unwrap();
    // A collector that was not there is tried again after half a minute; a node that starts tries at once.
    for node in NODES {
        let _ = lab.kill(&format!("voile-node-{node}"));
    }
    let heard = |wanted: &[(&str, &str)]| {
        let text = fs::read_to_string(&stream).map_err(|error| error.to_string())?;
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let fits = |event: &Value| wanted.iter().all(|(field, value)| event[*field] == *value);
        if events.into_iter().any(|event| fits(&event)) {
            Ok(())
        } else {
            Err(format!("no {wanted:?} in\n{text}"))
        }
    };
    let wait = |what: &str, wanted: &[(&str, &str)]| wait_for(what, PATIENCE, || heard(wanted));
    for node in NODES {
        wait(node, &[("bmp_msg_type", "init"), ("bmp_init_info_sysname", node)]);
    }
    wait("a session", &[("bmp_msg_type", "peer_up"), ("peer_ip", "172.20.1.1")]);
    wait("a session", &[("bmp_msg_type", "peer_up"), ("peer_ip", "fd00:20:2::1")]);
    let route = ("bmp_msg_type", "route_monitor");
    let attacked = format!("{ATTACKED}/32");
    let blackhole = ("comms", "65535:666");
    wait(
        "what leaf1 sends",
        &[route, ("ip_prefix", &attacked), ("peer_ip", "172.20.1.1"), blackhole],
    );
    wait("what is used", &[route, ("ip_prefix", &attacked), ("peer_ip", "0.0.0.0"), blackhole]);
    let connected = format!("voile_bmp_connected{{collector=\"{STATION}\"}} 1");
    wait_text("the collector in the metrics", &[&connected], || {
        lab.metrics("n1").map_err(|error| error.to_string())
    });
    let _ = lab.kill("leaf2");
    wait("the end of a session", &[("bmp_msg_type", "peer_down"), ("peer_ip", "172.20.2.1")]);
}
