//! The files in deploy/install: they parse, belong together, and name what exists. tests/real_cluster applies them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: what fails here fails it, with the reason"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// All documents of a file.
fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    serde_norway::Deserializer::from_str(&text)
        .map(|document| {
            let parsed = serde::Deserialize::deserialize(document);
            parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect()
}

fn manifests() -> Vec<Value> {
    let folder = deploy().join("install");
    let kustomization = documents(&folder.join("kustomization.yaml")).remove(0);
    let listed: BTreeSet<String> = kustomization["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    let present: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name != "kustomization.yaml")
        .collect();
    assert_eq!(listed, present, "kustomization.yaml lists other files than there are");
    listed.iter().flat_map(|name| documents(&folder.join(name))).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn every_object_is_complete_and_in_our_namespace() {
    let objects = manifests();
    assert_eq!(of_kind(&objects, "Namespace").len(), 1);
    let cluster_scoped = [
        "Namespace",
        "ClusterRole",
        "ClusterRoleBinding",
        "IPPool",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    for object in &objects {
        let (kind, name) = (object["kind"].as_str().unwrap(), &object["metadata"]["name"]);
        assert!(object["apiVersion"].is_string() && name.is_string(), "{object}");
        if !cluster_scoped.contains(&kind) {
            assert_eq!(object["metadata"]["namespace"], "voile-system", "{kind} {name}");
        }
    }
}

#[test]
fn bindings_point_at_roles_and_accounts_that_exist() {
    let objects = manifests();
    let named = |kind: &str, name: &Value| {
        of_kind(&objects, kind).iter().any(|object| object["metadata"]["name"] == *name)
    };
    let bindings =
        of_kind(&objects, "ClusterRoleBinding").into_iter().chain(of_kind(&objects, "RoleBinding"));
    for binding in bindings {
        let role = &binding["roleRef"];
        assert!(named(role["kind"].as_str().unwrap(), &role["name"]), "{binding}");
        for subject in binding["subjects"].as_array().unwrap() {
            assert!(named("ServiceAccount", &subject["name"]), "{binding}");
        }
    }
    for kind in ["DaemonSet", "Deployment"] {
        for workload in of_kind(&objects, kind) {
            let account = workload.pointer("/spec/template/spec/serviceAccountName").unwrap();
            assert!(named("ServiceAccount", account), "{workload}");
        }
    }
}

/// Nothing by wildcard, no kind that does not exist, and nothing that would let a stolen token change pods or read secrets
/// of others.
#[test]
fn roles_are_narrow() {
    let objects = manifests();
    let roles = of_kind(&objects, "ClusterRole").into_iter().chain(of_kind(&objects, "Role"));
    for role in roles {
        let name = &role["metadata"]["name"];
        for rule in role["rules"].as_array().unwrap() {
            assert!(!rule.to_string().contains('*'), "{name}: {rule}");
            let texts = |key: &str| -> Vec<&str> {
                rule[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
            };
            let writes = texts("verbs").iter().any(|verb| !["get", "list", "watch"].contains(verb));
            for group in texts("apiGroups") {
                for resource in texts("resources") {
                    if group == "projectcalico.org" || group == "voile.dev" {
                        let plural = resource.split('/').next().unwrap();
                        let file = deploy().join(format!("crds/{group}_{plural}.yaml"));
                        assert!(file.exists(), "{name}: there is no kind {plural} in {group}");
                    }
                    if ["pods", "nodes", "secrets"].contains(&resource) {
                        assert!(!writes, "{name} may write {resource}");
                    }
                    if resource == "secrets" {
                        assert_eq!(role["kind"], "Role", "{name} may read every secret");
                    }
                }
            }
        }
    }
}

#[test]
fn the_image_has_what_the_manifests_start() {
    let dockerfile = fs::read_to_string(deploy().join("Dockerfile")).unwrap();
    let objects = manifests();
    let mut programs = BTreeSet::from(["voile-cni".to_owned(), "voilectl".to_owned()]);
    for kind in ["DaemonSet", "Deployment"] {
        for workload in of_kind(&objects, kind) {
            let pod = workload.pointer("/spec/template/spec").unwrap();
            let containers = ["initContainers", "containers"];
            let containers = containers.iter().filter_map(|key| pod[key].as_array()).flatten();
            for container in containers {
                assert_eq!(container["image"], "voile", "kustomization.yaml sets the image");
                let command = container["command"][0].as_str().unwrap();
                let program = command.strip_prefix("/usr/local/bin/").unwrap();
                programs.insert(program.to_owned());
                let privileged = container.pointer("/securityContext/privileged");
                if privileged.is_none() {
                    let dropped = container.pointer("/securityContext/capabilities/drop/0");
                    assert_eq!(dropped.and_then(Value::as_str), Some("ALL"), "{program}");
                }
            }
        }
    }
    for program in programs {
        assert!(dockerfile.contains(&program), "the Dockerfile does not install {program}");
    }
}

/// Alerts on metrics that nobody has never fire.
#[test]
fn alerts_ask_for_metrics_that_exist() {
    let root = deploy().join("..");
    let sources = [
        "bgp/src/report/metrics.rs",
        "node/src/metrics.rs",
        "node/src/controller.rs",
        "node/src/controller/numbers.rs",
    ];
    let sources: String =
        sources.iter().map(|path| fs::read_to_string(root.join(path)).unwrap()).collect();
    let page = fs::read_to_string(root.join("docs/how-to/monitor.md")).unwrap();
    let rule = documents(&deploy().join("monitoring/prometheus-rule.yaml")).remove(0);
    let groups = rule.pointer("/spec/groups").unwrap().as_array().unwrap();
    let mut alerts = 0;
    for alert in groups.iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let (name, expression) =
            (alert["alert"].as_str().unwrap(), alert["expr"].as_str().unwrap());
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for metric in words.filter(|word| word.starts_with("voile_") || word.starts_with("ipam_")) {
            assert!(sources.contains(&format!("\"{metric}\"")), "{name}: there is no {metric}");
        }
        assert!(page.contains(name), "docs/how-to/monitor.md does not explain {name}");
        for text in ["summary", "description"] {
            assert!(alert["annotations"][text].is_string(), "{name} has no {text}");
        }
        alerts += 1;
    }
    assert!(alerts >= 15);
}

/// Prometheus itself takes the rules, and the alerts of `prometheus-rule.test.yaml` fire when they should and not otherwise.
#[test]
fn promtool_takes_the_rules_and_they_fire_when_they_should() {
    if !Path::new("/usr/bin/promtool").exists() {
        voile_tests::skip("promtool and the alerts", "prometheus is not installed");
        return;
    }
    let rule = documents(&deploy().join("monitoring/prometheus-rule.yaml")).remove(0);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.yaml"), rule["spec"].to_string()).unwrap();
    let tests = folder.path().join("tests.yaml");
    let _ = fs::copy(deploy().join("monitoring/prometheus-rule.test.yaml"), tests).unwrap();
    for words in [["check", "rules", "rules.yaml"], ["test", "rules", "tests.yaml"]] {
        let mut promtool = Command::new("promtool");
        let output = promtool.args(words).current_dir(folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && text.contains("SUCCESS"), "{words:?}: {text}");
    }
}
