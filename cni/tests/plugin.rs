//! The program as a runtime executes it, against a daemon made of a thread, in namespaces of their own. Needs root,
//! or `unshare -Urnm cargo test`.

#![cfg(test)]

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use cni::{
    host_interface_name, journal,
    rpc::{self, HEADER, Request, Response, Wired, Wiring},
    spec::{Attachment, CniError, code},
};
use ipnet::IpNet;
use kernel::{NetNs, Netlink, Route, address, link, route, sysctl};

const PATIENCE: Duration = Duration::from_secs(5);

/// A host with one daemon.
struct Host {
    netns: NetNs,
    netlink: Netlink,
    folder: tempfile::TempDir,
    requests: Receiver<Request>,
}

#[derive(Clone, Copy, PartialEq)]
enum Daemon {
    Obliging,
    /// Takes `Wired` and never answers.
    HangsAfterWiring,
    NotReady,
    Absent,
}

fn host(daemon: Daemon) -> Option<Host> {
    let netns = match NetNs::anonymous() {
        Ok(netns) => netns,
        Err(error) if error.is_denied() => {
            eprintln!("skipped: {error}: run as root or under `unshare -Urnm`");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let netlink = Netlink::open_in(&netns).unwrap();
    netns.run(|| sysctl::write("net/ipv6/conf/all/forwarding", "1")).unwrap().unwrap();
    link::set_up(&netlink, 1, true).unwrap();
    for prefix in ["192.0.2.1/32", "2001:db8::1/128"] {
        address::add(&netlink, &kernel::Address::new(1, prefix.parse().unwrap())).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let (told, requests) = mpsc::channel();
    let host = Host { netns, netlink, folder, requests };
    host.start(daemon, told);
    Some(host)
}

impl Host {
    fn socket(&self) -> PathBuf {
        self.folder.path().join("cni.sock")
    }

    fn start(&self, daemon: Daemon, told: Sender<Request>) {
        if daemon == Daemon::Absent {
            return;
        }
        let listener = UnixListener::bind(self.socket()).unwrap();
        let netlink = Netlink::open_in(&self.netns).unwrap();
        thread::spawn(move || {
            let mut wirings = BTreeMap::new();
            for stream in listener.incoming() {
                serve(stream.unwrap(), daemon, &netlink, &mut wirings, &told);
            }
        });
    }

    /// Executes the program like a runtime.
    fn spawn(&self, command: &str, pod: &NetNs, container: &str) -> Child {
        self.spawn_with(command, &pod.process_path(), container, "")
    }

    fn spawn_with(&self, command: &str, netns: &Path, container: &str, more: &str) -> Child {
        let conf = format!(
            r#"{{"cniVersion":"1.1.0","name":"net","type":"voile-cni","socket":{:?}{more}}}"#,
            self.socket()
        );
        let mut child = self
            .netns
            .run(|| {
                Command::new(env!("CARGO_BIN_EXE_voile-cni"))
                    .env_clear()
                    .envs([
                        ("CNI_COMMAND", command),
                        ("CNI_CONTAINERID", container),
                        ("CNI_IFNAME", "eth0"),
                    ])
                    .env("CNI_NETNS", netns)
                    .env("CNI_ARGS", format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={container}"))
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .unwrap();
        child.stdin.take().unwrap().write_all(conf.as_bytes()).unwrap();
        child
    }

    fn run(&self, command: &str, pod: &NetNs, container: &str) -> Output {
        self.spawn(command, pod, container).wait_with_output().unwrap()
    }

    fn links(&self) -> Vec<String> {
        names(&self.netlink)
    }
}

fn names(netlink: &Netlink) -> Vec<String> {
    link::list(netlink)
        .unwrap()
        .into_iter()
        .filter(|link| !link.loopback)
        .map(|link| link.name)
        .collect()
}

fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn refused(output: &Output) -> CniError {
    assert!(!output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn serve(
    mut stream: UnixStream,
    daemon: Daemon,
    netlink: &Netlink,
    wirings: &mut BTreeMap<Attachment, Wiring>,
    told: &Sender<Request>,
) {
    let mut header = [0; HEADER];
    while stream.read_exact(&mut header).is_ok() {
        let mut contents = vec![0; rpc::frame_length(header).unwrap()];
        stream.read_exact(&mut contents).unwrap();
        let request = rpc::decode_request(&contents).unwrap();
        let answer = answer(&request, daemon, netlink, wirings);
        drop(told.send(request));
        let Some(answer) = answer else { return std::mem::forget(stream) };
        drop(stream.write_all(&rpc::encode_response(&answer).unwrap()));
    }
}

fn answer(
    request: &Request,
    daemon: Daemon,
    netlink: &Netlink,
    wirings: &mut BTreeMap<Attachment, Wiring>,
) -> Option<Response> {
    Some(match request {
        Request::Add(add) => {
            let number = add.attachment.container_id.trim_start_matches('c');
            let addresses = [format!("10.0.0.{number}/32"), format!("fd00::{number}/128")];
            let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
            let name = host_interface_name(add.pod.as_ref(), &add.attachment.container_id);
            let wiring = Wiring::new(name, 1400, addresses);
            wirings.insert(add.attachment.clone(), wiring.clone());
            Response::Wire(wiring)
        }
        Request::Wired(Wired { attachment, host_ifindex, .. }) => {
            for prefix in &wirings[attachment].addresses {
                route::replace(netlink, &Route::device(*prefix, *host_ifindex)).unwrap();
            }
            if daemon == Daemon::HangsAfterWiring {
                return None;
            }
            Response::Done
        }
        Request::Check(check) => Response::Wire(wirings[&check.attachment].clone()),
        Request::Status if daemon == Daemon::NotReady => {
            Response::Error(CniError::new(code::NOT_AVAILABLE, "no pool has a free block", ""))
        }
        Request::Del(_) | Request::Gc(_) | Request::Status => Response::Done,
    })
}

/// A container's namespace as a runtime makes it: nothing in it is up.
fn pod() -> (NetNs, Netlink) {
    let netns = NetNs::anonymous().unwrap();
    let netlink = Netlink::open_in(&netns).unwrap();
    (netns, netlink)
}

#[test]
fn two_pods_reach_each_other_and_del_leaves_nothing() {
    let Some(host) = host(Daemon::Obliging) else { return };
    let ((one, _), (two, two_link)) = (pod(), pod());
    let result = succeeded(&host.run("ADD", &one, "c1"));
    succeeded(&host.run("ADD", &two, "c2"));
    let result: serde_json::Value = serde_json::from_str(&result).unwrap();
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["ips"][0]["address"], "10.0.0.1/32");
    assert_eq!(result["interfaces"][0]["mac"], "ee:ee:ee:ee:ee:ee");
    assert_eq!(result["interfaces"][1]["mtu"], 1400);
    assert_eq!(result["routes"][1]["gw"], "fe80::ecee:eeff:feee:eeee");

    for address in ["10.0.0.2", "fd00::2", "10.0.0.1", "fd00::1"] {
        let ip: IpAddr = address.parse().unwrap();
        let server = if address.ends_with('2') { &two } else { &one };
        let listener = server.run(|| TcpListener::bind(SocketAddr::new(ip, 0)).unwrap()).unwrap();
        let target = listener.local_addr().unwrap();
        for (from, client) in [("a pod", &one), ("a pod", &two), ("the host", &host.netns)] {
            client
                .run(|| TcpStream::connect_timeout(&target, PATIENCE))
                .unwrap()
                .unwrap_or_else(|error| panic!("{from} to {target}: {error}"));
        }
    }

    for _ in 0..2 {
        succeeded(&host.run("DEL", &two, "c2"));
    }
    assert_eq!(names(&two_link), Vec::<String>::new());
    assert_eq!(host.links().len(), 1);
    // The namespace may be gone before DEL.
    drop(one);
    let gone = Path::new("/run/netns/voile-test-that-does-not-exist");
    let output = host.spawn_with("DEL", gone, "c1", "").wait_with_output().unwrap();
    succeeded(&output);
    assert_eq!(host.links(), Vec::<String>::new());
}

#[test]
fn check_passes_after_add_and_names_what_is_missing() {
    let Some(host) = host(Daemon::Obliging) else { return };
    let (netns, netlink) = pod();
    let result = succeeded(&host.run("ADD", &netns, "c1"));
    let more = format!(r#","prevResult":{result}"#);
    let check =
        || host.spawn_with("CHECK", &netns.process_path(), "c1", &more).wait_with_output().unwrap();
    succeeded(&check());

    let eth0 = link::index_of(&netlink, "eth0").unwrap();
    let lost: IpNet = "10.0.0.1/32".parse().unwrap();
    address::delete(&netlink, eth0, lost).unwrap();
    let error = refused(&check());
    assert_eq!(error.code, code::CHECK_FAILED);
    assert!(error.details.contains("address 10.0.0.1/32 is missing on eth0"), "{error}");

    link::delete_by_name(&netlink, "eth0").unwrap();
    assert!(refused(&check()).details.contains("interface eth0 is missing"));
}

#[test]
fn killed_in_the_middle_the_retry_cleans_up() {
    let Some(host) = host(Daemon::HangsAfterWiring) else { return };
    let (netns, netlink) = pod();
    let mut child = host.spawn("ADD", &netns, "c1");
    loop {
        let request = host.requests.recv_timeout(PATIENCE).unwrap();
        if matches!(request, Request::Wired(_)) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((names(&netlink).len(), host.links().len()), (1, 1), "the half-made wire is there");

    std::fs::remove_file(host.socket()).unwrap();
    host.start(Daemon::Obliging, mpsc::channel().0);
    succeeded(&host.run("ADD", &netns, "c1"));
    assert_eq!((names(&netlink).len(), host.links().len()), (1, 1));
    succeeded(&host.run("DEL", &netns, "c1"));
    assert_eq!((names(&netlink).len(), host.links().len()), (0, 0));
}

#[test]
fn a_foreign_interface_is_left_alone_and_the_failure_leaves_nothing_else() {
    let Some(host) = host(Daemon::Obliging) else { return };
    let (netns, netlink) = pod();
    link::create_bridge(&netlink, "eth0").unwrap();
    let error = refused(&host.run("ADD", &netns, "c1"));
    assert_eq!(error.code, code::WIRING_FAILED);
    assert!(error.details.contains("eth0 already"), "{error}");
    assert_eq!(host.links(), Vec::<String>::new());
    assert_eq!(names(&netlink), ["eth0"]);
    let told: Vec<_> = host.requests.try_iter().collect();
    assert!(matches!(told.last(), Some(Request::Del(_))), "the address was released: {told:?}");
}

#[test]
fn without_the_daemon_add_says_what_to_check_and_del_is_journalled() {
    let Some(host) = host(Daemon::Absent) else { return };
    let (netns, netlink) = pod();
    let error = refused(&host.run("ADD", &netns, "c1"));
    assert_eq!(error.code, code::TRY_AGAIN);
    assert!(error.msg.contains(host.socket().to_str().unwrap()), "{error}");
    assert!(error.details.contains("voile-node pod of this node is running"), "{error}");
    assert_eq!(refused(&host.run("STATUS", &netns, "c1")).code, code::NOT_AVAILABLE);

    // Wired by a daemon that went away since.
    let near = link::VethEnd { name: "cali1".into(), ..link::VethEnd::default() };
    let far =
        link::VethEnd { name: "eth0".into(), netns: Some(&netns), ..link::VethEnd::default() };
    link::create_veth(&host.netlink, &near, &far).unwrap();
    let output = host.run("DEL", &netns, "c1");
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("released when it is back"));
    assert_eq!((names(&netlink).len(), host.links().len()), (0, 0));
    let pending = journal::pending(&host.socket()).unwrap();
    let [(path, Ok(del))] = pending.as_slice() else { panic!("{pending:?}") };
    assert!(path.ends_with("cni-del/c1-eth0.json"), "{}", path.display());
    assert_eq!((del.attachment.container_id.as_str(), del.network.as_str()), ("c1", "net"));
    journal::consume(path).unwrap();
    assert!(journal::pending(&host.socket()).unwrap().is_empty());
}

#[test]
fn gc_removes_what_is_not_listed_and_status_tells_the_daemons_reason() {
    let Some(host) = host(Daemon::NotReady) else { return };
    let ((one, _), (two, _)) = (pod(), pod());
    succeeded(&host.run("ADD", &one, "c1"));
    succeeded(&host.run("ADD", &two, "c2"));
    let more = r#","cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"}]"#;
    succeeded(&host.spawn_with("GC", Path::new(""), "", more).wait_with_output().unwrap());
    let pod = rpc::Pod { namespace: "shop".into(), name: "c2".into(), ..rpc::Pod::default() };
    assert_eq!(host.links(), [host_interface_name(Some(&pod), "c2")]);
    let error = refused(&host.run("STATUS", &one, "c1"));
    assert_eq!((error.code, error.msg.as_str()), (50, "no pool has a free block"));
    let versions = succeeded(&host.run("VERSION", &one, "c1"));
    assert!(versions.contains("supportedVersions"));
}
