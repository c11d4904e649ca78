//! Binds pods to nodes: selectors, cordons, then the node with the fewest pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{cache::Cache, kubelet};

/// Runs until the lab ends.
pub async fn run(client: Client, mut pods: Cache<Pod>, mut nodes: Cache<Node>) {
    // Bound by us, but not in the cache yet: a pod must not be bound twice, and must count at once.
    let mut assumed: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let (known_pods, known_nodes) = (pods.get(), nodes.get());
        let waiting: BTreeMap<_, _> = known_pods
            .values()
            .filter(|pod| waits(pod))
            .filter_map(|pod| Some((pod.uid()?, pod)))
            .collect();
        assumed.retain(|uid, _| waiting.contains_key(uid));
        let mut load = load(known_pods.values().map(AsRef::as_ref));
        for node in assumed.values() {
            *load.entry(node.clone()).or_default() += 1;
        }
        for (uid, pod) in waiting {
            if assumed.contains_key(&uid) {
                continue;
            }
            match choose(pod, known_nodes.values().map(AsRef::as_ref), &load) {
                Ok(node) => match bind(&client, pod, node).await {
                    Ok(()) => {
                        *load.entry(node.to_owned()).or_default() += 1;
                        assumed.insert(uid, node.to_owned());
                    }
                    Err(error) => tracing::warn!(pod = pod.name_any(), %error, "cannot bind"),
                },
                Err(reason) => unschedulable(&client, pod, &reason).await,
            }
        }
        let going_on = tokio::select! {
            next = pods.next() => next.is_some(),
            next = nodes.next() => next.is_some(),
        };
        if !going_on {
            return;
        }
    }
}

fn waits(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.node_name.is_none()
            && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
            && spec.scheduler_name.as_deref().is_none_or(|name| name == "default-scheduler")
    }) && pod.metadata.deletion_timestamp.is_none()
}

/// Counts pods of each node.
pub fn load<'a>(pods: impl Iterator<Item = &'a Pod>) -> BTreeMap<String, usize> {
    let mut load = BTreeMap::new();
    for node in pods.filter_map(|pod| pod.spec.as_ref()?.node_name.clone()) {
        *load.entry(node).or_default() += 1;
    }
    load
}

/// Chooses a node for a pod, or says as a real scheduler would why none fits.
pub fn choose<'a>(
    pod: &Pod,
    nodes: impl Iterator<Item = &'a Node>,
    load: &BTreeMap<String, usize>,
) -> Result<&'a str, String> {
    let selector =
        pod.spec.as_ref().and_then(|spec| spec.node_selector.clone()).unwrap_or_default();
    let (mut all, mut not_ready, mut cordoned, mut unmatched) = (0, 0, 0, 0);
    let mut best: Option<(usize, &str)> = None;
    for node in nodes {
        all += 1;
        let labels = node.labels();
        if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
            cordoned += 1;
        } else if !ready(node) {
            not_ready += 1;
        } else if !selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
            unmatched += 1;
        } else if let Some(name) = node.metadata.name.as_deref() {
            let pods = load.get(name).copied().unwrap_or(0);
            if best.is_none_or(|best| (pods, name) < best) {
                best = Some((pods, name));
            }
        }
    }
    best.map(|(_, name)| name).ok_or_else(|| {
        let reasons = [
            (cordoned, "node(s) were unschedulable"),
            (not_ready, "node(s) were not ready"),
            (unmatched, "node(s) didn't match Pod's node selector"),
        ];
        let reasons: Vec<_> = reasons
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, reason)| format!("{count} {reason}"))
            .collect();
        format!("0/{all} nodes are available: {}", reasons.join(", "))
    })
}

fn ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

async fn bind(client: &Client, pod: &Pod, node: &str) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    // A real scheduler creates a Binding; the lab's API server takes the field itself.
    let patch = json!({"metadata": {"uid": pod.uid()}, "spec": {"nodeName": node}});
    api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
}

async fn unschedulable(client: &Client, pod: &Pod, reason: &str) {
    let told = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).is_some_and(
        |conditions| {
            conditions.iter().any(|condition| condition.message.as_deref() == Some(reason))
        },
    );
    if told {
        return;
    }
    let status = json!({"status": {"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": reason,
    }]}});
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    if let Err(error) = kubelet::patch_status(&api, &pod.name_any(), &status).await {
        tracing::warn!(pod = pod.name_any(), %error, "cannot say why it can't be scheduled");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, ready: &str, extra: serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"rack": name}}, "spec": extra,
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn least_pods_win_and_names_break_ties() {
        let nodes = [
            node("b", "True", json!({})),
            node("a", "True", json!({})),
            node("c", "True", json!({})),
        ];
        let any = pod(json!({"containers": []}));
        let chosen = |load: &[(&str, usize)]| {
            let load = load.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            choose(&any, nodes.iter(), &load).unwrap().to_owned()
        };
        assert_eq!(chosen(&[]), "a");
        assert_eq!(chosen(&[("a", 1)]), "b");
        assert_eq!(chosen(&[("a", 1), ("b", 2)]), "c");
        assert_eq!(chosen(&[("a", 1), ("b", 2), ("c", 1)]), "a");
    }

    #[test]
    fn says_why_no_node_fits() {
        let nodes = [
            node("a", "False", json!({})),
            node("b", "True", json!({"unschedulable": true})),
            node("c", "True", json!({})),
        ];
        let picky = pod(json!({"containers": [], "nodeSelector": {"rack": "z"}}));
        expect_test::expect![
            "0/3 nodes are available: 1 node(s) were unschedulable, 1 node(s) were not ready, 1 node(s) didn't match Pod's node selector"
        ]
        .assert_eq(&choose(&picky, nodes.iter(), &BTreeMap::new()).unwrap_err());
        let fitting = pod(json!({"containers": [], "nodeSelector": {"rack": "c"}}));
        assert_eq!(choose(&fitting, nodes.iter(), &BTreeMap::new()), Ok("c"));
    }
}
