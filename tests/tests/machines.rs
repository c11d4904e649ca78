//! A KubeVirt machine keeps its address: from one pod to the next, from node to node, and while it moves. The daemons, the
//! CNI plugin and the fabric are real; KubeVirt's objects are written by the test.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a test: what fails here fails it, with the reason"
)]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};
use voile_tests::{
    can_make_namespaces,
    lab::{Lab, Pod},
    skip, wait_for,
};

const KUBEVIRT: &str = "/apis/kubevirt.io/v1/namespaces/vms";
const PODS: &str = "/api/v1/namespaces/vms/pods";
const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_machine_keeps_its_address_when_its_pod_is_replaced_and_when_it_migrates() {
    if !can_make_namespaces() {
        skip("machines", "needs root");
        return;
    }
    let lab = Lab::up("vtvm", None);
    kubevirt(&lab);
    let uid = create_machine(&lab);
    lab.create_pod("vms", "client", "n1", &[("TCP", PORT)]);
    let client = lab.running("vms", "client");

    launch(&lab, "virt-launcher-vm1-a", "n2", &uid, None);
    let first = lab.running("vms", "virt-launcher-vm1-a").addresses;
    answers(&client, &first, "virt-launcher-vm1-a");

    // Stopped, and started on another node: the block is n2's, so n3 announces the address alone.
    end(&lab, "virt-launcher-vm1-a");
    let (_, shown) = lab.voilectl(&["ipam", "show", "--ip", &first[0].to_string()]);
    assert!(shown.contains("is in use by a stopped virtual machine"), "{shown}");
    assert!(shown.contains(".vmi.vms.vm1"), "{shown}");
    launch(&lab, "virt-launcher-vm1-b", "n3", &uid, None);
    assert_eq!(lab.running("vms", "virt-launcher-vm1-b").addresses, first);
    answers(&client, &first, "virt-launcher-vm1-b");
    no_problems(&lab);

    // A live migration back: the target has the address at once, and its traffic only when the machine is there.
    run_on(&lab, "n3");
    launch(&lab, "virt-launcher-vm1-c", "n2", &uid, Some("migration-1"));
    assert_eq!(lab.running("vms", "virt-launcher-vm1-c").addresses, first);
    std::thread::sleep(Duration::from_secs(2));
    answers(&client, &first, "virt-launcher-vm1-b");
    no_problems(&lab);
    run_on(&lab, "n2");
    end(&lab, "virt-launcher-vm1-b");
    answers(&client, &first, "virt-launcher-vm1-c");
    no_problems(&lab);

    // With the machine its address goes.
    for kind in ["virtualmachines", "virtualmachineinstances"] {
        lab.api().delete(&format!("{KUBEVIRT}/{kind}/vm1"));
    }
    end(&lab, "virt-launcher-vm1-c");
    for address in &first {
        wait_for("the address is free", PATIENCE, || {
            let (_, shown) = lab.voilectl(&["ipam", "show", "--ip", &address.to_string()]);
            if shown.contains("vmi.vms.vm1") { Err(shown) } else { Ok(()) }
        });
    }
    no_problems(&lab);
}

/// The kinds of KubeVirt that a network reads.
fn kubevirt(lab: &Lab) {
    for (kind, plural) in [
        ("VirtualMachine", "virtualmachines"),
        ("VirtualMachineInstance", "virtualmachineinstances"),
    ] {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let version = json!({
            "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
        });
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.kubevirt.io")},
            "spec": {
                "group": "kubevirt.io", "scope": "Namespaced", "versions": [version],
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            },
        });
        lab.api().create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd);
        assert!(lab.api().list(&format!("{KUBEVIRT}/{plural}")).is_empty());
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "vms"}});
    lab.api().create("/api/v1/namespaces", &namespace);
}

/// Makes a machine and its instance; returns the instance's UID.
fn create_machine(lab: &Lab) -> String {
    let object = |kind: &str, owners: Value| {
        let metadata = json!({"name": "vm1", "namespace": "vms", "ownerReferences": owners});
        json!({"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": metadata, "spec": {}})
    };
    let uid = |plural: &str| {
        let stored = lab.api().get(&format!("{KUBEVIRT}/{plural}/vm1")).unwrap();
        stored["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let machine = object("VirtualMachine", json!([]));
    lab.api().create(&format!("{KUBEVIRT}/virtualmachines"), &machine);
    let owner = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "vm1",
        "uid": uid("virtualmachines"), "controller": true,
    });
    let instance = object("VirtualMachineInstance", json!([owner]));
    lab.api().create(&format!("{KUBEVIRT}/virtualmachineinstances"), &instance);
    uid("virtualmachineinstances")
}

/// KubeVirt's word of where the machine runs.
fn run_on(lab: &Lab, node: &str) {
    let path = format!("{KUBEVIRT}/virtualmachineinstances/vm1");
    lab.api().merge(&path, &json!({"status": {"nodeName": node}})).unwrap();
}

fn launch(lab: &Lab, name: &str, node: &str, instance_uid: &str, migration: Option<&str>) {
    let owner = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm1",
        "uid": instance_uid, "controller": true,
    });
    let labels = migration.map_or(json!({}), |uid| json!({"kubevirt.io/migrationJobUID": uid}));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "vms", "labels": labels, "ownerReferences": [owner]},
        "spec": {
            "nodeName": node, "hostname": name,
            "containers": [{"name": "main", "image": "lab/pod-server",
                            "ports": [{"protocol": "TCP", "containerPort": PORT}]}],
        },
    });
    lab.api().create(PODS, &pod);
}

fn end(lab: &Lab, name: &str) {
    let path = format!("{PODS}/{name}");
    lab.api().delete(&path);
    wait_for(&format!("{name} is gone"), PATIENCE, || match lab.api().get(&path) {
        Ok(pod) => Err(pod["status"].to_string()),
        Err(_) => Ok(()),
    });
}

/// Waits until a pod answers at each address.
fn answers(client: &Pod, addresses: &[IpAddr], name: &str) {
    for address in addresses {
        wait_for(&format!("{name} answers at {address}"), PATIENCE, || {
            let asked = kernel::netns::in_netns(client.netns.clone(), || ask(*address));
            match asked.unwrap() {
                Ok(text) if text.contains(name) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

fn ask(address: IpAddr) -> std::io::Result<String> {
    let limit = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, PORT)), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vm\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn no_problems(lab: &Lab) {
    let (good, text) = lab.voilectl(&["ipam", "check"]);
    assert!(good && text.contains("found 0 problems"), "{text}");
}
