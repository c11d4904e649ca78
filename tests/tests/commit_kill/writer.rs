//! The process that dies: the policy engine and its driver, told two states of a cluster in turn.

use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};

use api::{Key, KubernetesNetworkPolicy, Namespace, Pod, Resource};
use felix::{
    dataplane::{Config as FelixConfig, Felix},
    driver::{Config, Handle, spawn},
    update::{EndpointId, LocalEndpoint, Update},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::node::{PODS, interface};

/// The argument by which this program knows that it is the writer.
pub(crate) const WRITER: &str = "policy-writer";
/// Policies that change with each transaction beside those that are probed, so that it takes a while.
const FILLERS: usize = 150;

/// What the cluster wants. Both allow and forbid the same, by policies and sets of other names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    A,
    B,
}

impl State {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The policies that exist in this state, and only in this one.
    fn policies(self) -> Vec<Value> {
        let (name, own) = (self.name(), usize::from(self == Self::B));
        let mut policies = vec![
            policy(
                &format!("server-{name}"),
                json!({
                    "podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
                    "ingress": [{
                        "from": [{"podSelector": {"matchLabels": {"app": "client", "state": "any"}}},
                                 {"ipBlock": {"cidr": format!("192.0.2.{own}/32")}}],
                        "ports": [{"protocol": "UDP", "port": crate::probe::PORT}],
                    }],
                }),
            ),
            policy(
                &format!("outsider-{name}"),
                json!({
                    "podSelector": {"matchLabels": {"app": "outsider"}}, "policyTypes": ["Egress"],
                    "egress": [{"to": [{"ipBlock": {"cidr": format!("198.51.100.{own}/32")}}]}],
                }),
            ),
        ];
        policies.extend((0..FILLERS).map(|number| {
            // The same name in both states: rewritten in place.
            policy(
                &format!("filler-{number}"),
                json!({
                    "podSelector": {"matchLabels": {"app": "filled"}}, "policyTypes": ["Ingress"],
                    "ingress": [{
                        "from": [{"ipBlock": {"cidr": format!("203.0.{own}.{number}/32")}}],
                        "ports": [{"protocol": "TCP", "port": 1000 + 1000 * own + number}],
                    }],
                }),
            )
        }));
        policies
    }
}

/// What the writer says, a line each.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    /// The kernel has what the writer was told first.
    Synced,
    /// A transaction begins.
    Begins,
    /// It is committed.
    Done,
}

impl Word {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Begins => "begins",
            Self::Done => "done",
        }
    }

    fn say(self) {
        println!("{}", self.name());
        std::io::stdout().flush().unwrap();
    }
}

pub(crate) fn main(first: Option<&str>) -> ExitCode {
    let state = if first == Some("b") { State::B } else { State::A };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(write(state));
    ExitCode::SUCCESS
}

async fn write(mut state: State) {
    let handle = spawn(Config::default(), Felix::new(FelixConfig::new("node"))).unwrap();
    let mut updates = cluster();
    updates.extend(told(&state.policies(), true));
    updates.push(Update::InSync);
    handle.updates(updates).await;
    settle(&handle).await;
    Word::Synced.say();
    let mut leave = std::io::stdin().lines();
    while let Some(Ok(_)) = leave.next() {
        // What goes and what comes in one transaction.
        let kept = state.other().policies();
        let names: Vec<&Value> = kept.iter().map(|policy| &policy["metadata"]["name"]).collect();
        let mut gone = state.policies();
        gone.retain(|policy| !names.contains(&&policy["metadata"]["name"]));
        let mut updates = told(&gone, false);
        updates.extend(told(&kept, true));
        let mut status = handle.status();
        let before = status.borrow().commits;
        Word::Begins.say();
        handle.updates(updates).await;
        let committed = status.wait_for(|status| status.commits > before).await.unwrap();
        assert_eq!((committed.commits, &committed.last_error), (before + 1, &None));
        drop(committed);
        Word::Done.say();
        state = state.other();
    }
}

/// Waits until all endpoints have their rules and routes.
async fn settle(handle: &Handle) {
    let deadline = Instant::now() + Duration::from_secs(30);
    for (number, _) in (1..).zip(PODS) {
        handle.wait_endpoint(id(number), deadline).await.unwrap();
        handle.wait_routes(&[crate::node::address(number)], deadline).await.unwrap();
    }
    let mut status = handle.status();
    let _ = status.wait_for(|status| status.in_sync).await.unwrap();
}

fn id(number: u8) -> EndpointId {
    EndpointId { container_id: format!("sandbox{number}"), ifname: "eth0".to_owned() }
}

/// The namespace and the pods, which stay as they are.
fn cluster() -> Vec<Update> {
    let namespace = json!({"metadata": {"name": "default", "labels": {}}});
    let (key, namespace) = object::<Namespace>(namespace);
    let mut updates = vec![Update::Namespace(key, namespace)];
    for (number, name) in (1..).zip(PODS) {
        let address = crate::node::address(number);
        let (key, pod) = object::<Pod>(json!({
            "metadata": {"name": name, "namespace": "default", "labels": {"app": name, "state": "any"}},
            "spec": {"containers": [{"name": "main"}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        }));
        let local = LocalEndpoint {
            pod: key.clone(),
            pod_uid: None,
            host_interface: interface(number),
            addresses: vec![address],
            mac: None,
        };
        updates.push(Update::Pod(key, pod));
        updates.push(Update::LocalEndpoint(id(number), Some(local)));
    }
    updates
}

fn policy(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

fn told(policies: &[Value], exist: bool) -> Vec<Update> {
    let update = |policy: &Value| {
        let (key, object) = object::<KubernetesNetworkPolicy>(policy.clone());
        Update::KubernetesNetworkPolicy(key, object.filter(|_| exist))
    };
    policies.iter().map(update).collect()
}

fn object<R: Resource>(value: Value) -> (Key, Option<Arc<R>>) {
    let object: R = serde_json::from_value(value).unwrap();
    (object.key(), Some(Arc::new(object)))
}
