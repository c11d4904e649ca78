//! Stock calicoctl on a cluster that Voile filled: it reads what Voile wrote, finds what is wrong, and what it changes Voile takes over.
//!
//! Runs when `VOILE_CALICOCTL` names the program; docs/reference/ipam.md says how to build it.

use std::{ffi::OsString, net::IpAddr, path::Path, process::Command, time::Duration};

use ipam::{Allocator, AutoAssign, Owner};
use ipnet::IpNet;
use serde_json::{Value, json};
use store::kube::{KubeOptions, KubeStore};
use voile_tests::{skip, wait_for};

use super::cluster::Cluster;

const SOON: Duration = Duration::from_secs(20);

/// A node without a daemon: what it forgets stays forgotten.
const GUEST: &str = "n2";

pub(crate) fn story(cluster: &Cluster) {
    let Some(program) = std::env::var_os("VOILE_CALICOCTL") else {
        skip("real_cluster: calicoctl", "VOILE_CALICOCTL does not name a stock calicoctl");
        return;
    };
    assert!(Path::new(&program).is_file(), "VOILE_CALICOCTL: {program:?} is no file");
    let calicoctl = Calicoctl { program, cluster };
    every_pod_says_its_address(cluster);
    calicoctl.counts("10.244.0.0/16", 3);
    for block in cluster.api.list(super::cluster::BLOCKS) {
        calicoctl.counts(block["spec"]["cidr"].as_str().unwrap(), 3);
    }
    calicoctl.checks(0);

    let guest = Guest::new(cluster);
    let (address, block) = guest.assign("forgotten");
    calicoctl.counts(&block, 1);
    let shown = calicoctl.run(&["ipam", "show", &format!("--ip={address}")]);
    assert!(shown.contains("in use") && shown.contains("forgotten"), "{shown}");
    calicoctl.checks(1);
    let found = cluster.voilectl(&["ipam", "check"]);
    let named = format!("{address} is allocated to pod shop/forgotten, which does not use it");
    assert!(found.contains(&named), "both find the same: {found}");

    let released = calicoctl.run(&["ipam", "release", &format!("--ip={address}")]);
    assert!(released.contains("Successfully released"), "{released}");
    calicoctl.counts(&block, 0);
    calicoctl.checks(0);
    assert!(!cluster.handles().iter().any(|handle| handle.contains("forgotten")));

    strict_affinity_is_obeyed(&calicoctl, &guest);
    guest.leave(cluster, &block);
    let left = cluster.voilectl(&["ipam", "check"]);
    assert!(left.contains("found 0 problems"), "{left}");
}

/// What calicoctl configures, an allocator that runs obeys.
fn strict_affinity_is_obeyed(calicoctl: &Calicoctl<'_>, guest: &Guest) {
    let configured = calicoctl.run(&["ipam", "configure", "--strictaffinity=true"]);
    assert!(configured.contains("Successfully set StrictAffinity"), "{configured}");
    let shown = calicoctl.run(&["ipam", "show", "--show-configuration"]);
    let row = shown.lines().find(|line| line.contains("StrictAffinity")).unwrap_or_default();
    assert!(row.contains("true"), "{shown}");
    let shown = calicoctl.cluster.voilectl(&["ipam", "show", "--show-configuration"]);
    assert!(shown.lines().any(|line| line.contains("trict") && line.contains("true")), "{shown}");
    let foreign = last_free(calicoctl.cluster, "host:n1");
    wait_for("the node takes no address of another's block", SOON, || match guest.take(foreign) {
        Err(error) if error.contains("strictAffinity") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    calicoctl.run(&["ipam", "configure", "--strictaffinity=false"]);
    wait_for("the node borrows again", SOON, || guest.take(foreign));
    let released = calicoctl.run(&["ipam", "release", &format!("--ip={foreign}")]);
    assert!(released.contains("Successfully released"), "{released}");
}

/// The last free address of a node's block.
fn last_free(cluster: &Cluster, owner: &str) -> IpAddr {
    let blocks = cluster.api.list(super::cluster::BLOCKS);
    let block = blocks.iter().find(|one| one["spec"]["affinity"] == owner).unwrap();
    let net: IpNet = block["spec"]["cidr"].as_str().unwrap().parse().unwrap();
    let free = block["spec"]["unallocated"].as_array().unwrap();
    let ordinal = free.last().and_then(Value::as_u64).unwrap();
    ipam::ordinal::address(&net, u32::try_from(ordinal).unwrap()).unwrap()
}

/// calicoctl believes annotations before a kubelet has said anything.
fn every_pod_says_its_address(cluster: &Cluster) {
    for name in ["web", "client", "other"] {
        wait_for("the pod's annotation", SOON, || {
            let pod = cluster.api.get(&format!("/api/v1/namespaces/shop/pods/{name}")).unwrap();
            let said = pod.pointer("/metadata/annotations/cni.projectcalico.org~1podIPs");
            if said.is_some_and(Value::is_string) { Ok(()) } else { Err(format!("{pod}")) }
        });
    }
}

struct Calicoctl<'a> {
    program: OsString,
    cluster: &'a Cluster,
}

impl Calicoctl<'_> {
    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.program)
            .args(arguments)
            .args(["--allow-version-mismatch"])
            .env("DATASTORE_TYPE", "kubernetes")
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("CALICO_API_GROUP", "projectcalico.org/v3")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        eprintln!("$ calicoctl {}\n{text}", arguments.join(" "));
        assert!(output.status.success(), "calicoctl {arguments:?}: {text}");
        text
    }

    /// The row of a pool or a block says how many addresses are in use.
    fn counts(&self, cidr: &str, in_use: usize) {
        let shown = self.run(&["ipam", "show", "--show-blocks"]);
        let row = shown.lines().find(|line| line.contains(cidr));
        let row = row.unwrap_or_else(|| panic!("no row of {cidr}: {shown}"));
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let used = cells.get(4).and_then(|cell| cell.split(' ').next());
        assert_eq!(used, Some(in_use.to_string().as_str()), "{row}");
    }

    fn checks(&self, problems: usize) {
        let checked = self.run(&["ipam", "check"]);
        assert!(checked.contains(&format!("found {problems} problems.")), "{checked}");
    }
}

/// The allocator of a node, without its daemon.
struct Guest {
    runtime: tokio::runtime::Runtime,
    ipam: Allocator<KubeStore>,
}

impl Guest {
    fn new(cluster: &Cluster) -> Self {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": GUEST}});
        cluster.api.create("/api/v1/nodes", &node);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let ipam = runtime.block_on(async {
            let kubeconfig = cluster.kubeconfig();
            let store = KubeStore::from_kubeconfig(&kubeconfig, None, KubeOptions::default());
            Allocator::new(store.await.unwrap(), GUEST)
        });
        Self { runtime, ipam }
    }

    fn request(pod: &str) -> AutoAssign {
        AutoAssign {
            handle: format!("k8s-pod-network.{pod}"),
            owner: Owner::pod(GUEST, "shop", pod),
            num4: 1,
            ..AutoAssign::default()
        }
    }

    /// An address of a pod that never was, and its block.
    fn assign(&self, pod: &str) -> (IpAddr, String) {
        let got = self.runtime.block_on(self.ipam.auto_assign(Self::request(pod))).unwrap();
        (got[0].addr(), got[0].trunc().to_string())
    }

    fn take(&self, address: IpAddr) -> Result<(), String> {
        let taken = self.ipam.assign_ip(Self::request("borrower"), vec![address]);
        self.runtime.block_on(taken).map(drop).map_err(|error| error.to_string())
    }

    /// The node goes, with its block.
    fn leave(self, cluster: &Cluster, block: &str) {
        self.runtime.block_on(self.ipam.release_affinity(block.parse().unwrap())).unwrap();
        cluster.api.delete(&format!("/api/v1/nodes/{GUEST}"));
    }
}
