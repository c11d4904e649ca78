//! The topologies and manifests in `deploy/containerlab` are what the lab and the API accept.

#![expect(clippy::unwrap_used, reason = "a test: what fails here fails it, with the reason")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use lab::{
    cluster::manifests,
    supervisor::sidecar,
    topology::{Role, RouterKind, Topology},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/containerlab")
}

fn topologies() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).unwrap().flatten().map(|entry| entry.path());
    let mut found: Vec<_> =
        entries.filter(|path| path.to_string_lossy().ends_with(".clab.yml")).collect();
    found.sort();
    found
}

#[test]
fn every_shipped_topology_is_a_leaf_spine_of_three_nodes() {
    let mut kinds = Vec::new();
    for path in topologies() {
        let topology = Topology::load(&path).unwrap();
        assert_eq!(topology.kubernetes_nodes().count(), 3, "{}", path.display());
        kinds.extend(topology.routers().map(|(_, kind)| kind));
        for node in topology.nodes.iter().filter(|node| matches!(node.role, Role::Router(_))) {
            assert!(!node.binds.is_empty(), "{}: {}", path.display(), node.name);
        }
        assert!(sidecar(&topology).is_some_and(|folder| folder.join("demo/pods.yaml").is_file()));
    }
    let expected = [RouterKind::Bird, RouterKind::Frr, RouterKind::Voile].map(|kind| [kind; 3]);
    assert_eq!(kinds, expected.as_flattened());
}

#[test]
fn every_shipped_manifest_is_valid() {
    let mut count = 0;
    for place in ["leaf-spine", "leaf-spine/demo", "leaf-spine/demo/policies"] {
        for (name, text) in manifests::read_folder(&folder().join(place)).unwrap() {
            for object in manifests::parse(&text, &name).unwrap() {
                let kind = object.get("kind").and_then(serde_json::Value::as_str).unwrap();
                assert_eq!(api::validate::check(kind, &object), [], "{name}: {object}");
                count += 1;
            }
        }
    }
    assert!(count > 15, "only {count} objects");
}
