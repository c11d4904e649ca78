//! The truth tables, step by step.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{endpoint, namespace, object, pod};
use crate::update::Update;

/// One step: everything that exists after it, and the verdicts expected.
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) pods: Vec<(String, String, String)>,
    pub(crate) updates: Vec<Update>,
    pub(crate) endpoints: Vec<Update>,
    pub(crate) expected: Vec<Expected>,
}

/// The verdict for a source, a destination, a protocol and a port.
pub(crate) struct Expected {
    pub(crate) source: usize,
    pub(crate) destination: usize,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    /// Combined, ingress only, egress only.
    pub(crate) verdicts: [bool; 3],
}

/// The files, or why there are none.
pub(crate) fn files() -> Result<Vec<PathBuf>, String> {
    let folder = std::env::var("VOILE_NETPOL_CASES")
        .map_err(|_| "VOILE_NETPOL_CASES is not set to the folder of the truth tables")?;
    let files = ["cases-v4.json", "cases-v6.json"];
    Ok(files.iter().map(|name| PathBuf::from(&folder).join(name)).collect())
}

/// All steps of a file, by case.
pub(crate) fn read(path: &PathBuf) -> Vec<Vec<Step>> {
    let text = std::fs::read_to_string(path).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let cases = file["cases"].as_array().unwrap();
    cases
        .iter()
        .map(|case| {
            let steps = case["steps"].as_array().unwrap();
            steps.iter().map(|one| step(&format!("case {}", case["id"]), one)).collect()
        })
        .collect()
}

fn step(name: &str, step: &Value) -> Step {
    let state = &step["stateAfter"];
    let mut updates: Vec<Update> = state["namespaces"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, labels)| namespace(name, labels))
        .collect();
    let mut pods = Vec::new();
    let mut endpoints = Vec::new();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for one in state["pods"].as_array().unwrap() {
        let (ns, name, ip) = (text(&one["namespace"]), text(&one["name"]), text(&one["ip"]));
        updates.push(pod(&ns, &name, &one["labels"], &ip, &one["ports"]));
        endpoints.push(endpoint(&ns, &name, &ip));
        pods.push((ns, name, ip));
    }
    for policy in step["policiesAfter"].as_array().into_iter().flatten() {
        let mut policy = policy.clone();
        policy["apiVersion"] = json!("networking.k8s.io/v1");
        policy["kind"] = json!("NetworkPolicy");
        let (key, value) = object(policy);
        updates.push(Update::KubernetesNetworkPolicy(key, value));
    }
    let expected = expected(step, &pods);
    Step { name: name.to_owned(), pods, updates, endpoints, expected }
}

fn expected(step: &Value, pods: &[(String, String, String)]) -> Vec<Expected> {
    let order: Vec<usize> = step["order"]
        .as_array()
        .unwrap()
        .iter()
        .map(|wanted| {
            let is = |(ns, name, _): &(String, String, String)| {
                format!("{ns}/{name}") == wanted.as_str().unwrap()
            };
            pods.iter().position(is).unwrap()
        })
        .collect();
    let mut out = Vec::new();
    for (what, table) in step["expected"].as_object().unwrap() {
        let (protocol, port) = what.split_once('/').unwrap();
        let protocol = crate::calc::model::parse_protocol(protocol).unwrap();
        let cell = |kind: &str, row: usize, column: usize| match table[kind][row]
            .as_str()
            .unwrap()
            .as_bytes()[column]
        {
            b'.' => true,
            b'X' => false,
            other => panic!("verdict {other} is not known"),
        };
        for (row, source) in order.iter().enumerate() {
            for (column, destination) in order.iter().enumerate() {
                let kinds = ["combined", "ingress", "egress"];
                out.push(Expected {
                    source: *source,
                    destination: *destination,
                    protocol,
                    port: port.parse().unwrap(),
                    verdicts: kinds.map(|kind| cell(kind, row, column)),
                });
            }
        }
    }
    out
}
