//! What a pod's status says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::processes::Status;

/// Before the network is there.
pub(super) fn creating(pod: &Pod, problem: &str) -> Value {
    let containers: Vec<_> = containers(pod)
        .map(|(name, image)| {
            let waiting = json!({"waiting": {"reason": "ContainerCreating", "message": problem}});
            container(name, image, false, &waiting)
        })
        .collect();
    json!({"status": {
        "phase": "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "False", "reason": "FailedCreatePodSandBox", "message": problem},
        ],
        "containerStatuses": containers,
    }})
}

/// With the network there and containers in these states.
pub(super) fn running(
    pod: &Pod,
    states: &BTreeMap<&str, Status>,
    addresses: &[String],
    host: &[String],
) -> Value {
    let since = pod
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref())
        .map_or_else(Timestamp::now, |time| time.0);
    let since = time(since);
    let containers: Vec<_> = containers(pod)
        .map(|(name, image)| {
            let state = states.get(name).copied().unwrap_or_default();
            let value = match state {
                Status::Running(_) => json!({"running": {"startedAt": since}}),
                Status::Ended(code) => json!({"terminated": {
                    "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
                }}),
                Status::Waiting | Status::Stopped => {
                    json!({"waiting": {"reason": "CrashLoopBackOff"}})
                }
            };
            container(name, image, matches!(state, Status::Running(_)), &value)
        })
        .collect();
    let ready = states.values().all(|state| matches!(state, Status::Running(_)));
    let ips = |list: &[String]| list.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
    let yes_no = |yes: bool| if yes { "True" } else { "False" };
    json!({"status": {
        "phase": phase(states),
        "podIP": addresses.first(), "podIPs": ips(addresses),
        "hostIP": host.first(), "hostIPs": ips(host),
        "startTime": since,
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Initialized", "status": "True"},
            {"type": "ContainersReady", "status": yes_no(ready)},
            {"type": "Ready", "status": yes_no(ready), "reason": null, "message": null},
        ],
        "containerStatuses": containers,
    }})
}

fn phase(states: &BTreeMap<&str, Status>) -> &'static str {
    let ended: Vec<_> = states
        .values()
        .map_while(|state| match state {
            Status::Ended(code) => Some(*code),
            _ => None,
        })
        .collect();
    if ended.len() < states.len() || states.is_empty() {
        "Running"
    } else if ended.iter().all(|code| *code == 0) {
        "Succeeded"
    } else {
        "Failed"
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = (&str, &str)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.map(|container| (container.name.as_str(), container.image.as_deref().unwrap_or("")))
}

fn container(name: &str, image: &str, ready: bool, state: &Value) -> Value {
    json!({
        "name": name, "image": image, "imageID": "", "ready": ready, "started": ready, "restartCount": 0, "state": state,
    })
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
