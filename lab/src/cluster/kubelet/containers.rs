//! Containers as processes of this machine: their own `command`, or else the built-in server on their ports.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;

use crate::{
    cluster::cni::Attachment,
    paths::Layout,
    processes::{Restart, Spec},
};

/// Programs of a pod, by container.
pub(super) fn specs(pod: &Pod, attachment: &Attachment, layout: &Layout) -> Vec<(String, Spec)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let restart = match spec.restart_policy.as_deref() {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    };
    let short: String = attachment.uid.chars().take(8).collect();
    spec.containers
        .iter()
        .map(|container| {
            let name = format!(
                "pod-{}-{}-{}-{short}",
                attachment.namespace, attachment.name, container.name
            );
            let program = Spec {
                log: layout.log(&name),
                name,
                command: command(container),
                env: environment(container),
                netns: Some(attachment.pod_netns.clone()),
                hostname: Some(spec.hostname.clone().unwrap_or_else(|| pod.name_any())),
                restart,
            };
            (container.name.clone(), program)
        })
        .collect()
}

fn environment(container: &Container) -> BTreeMap<String, String> {
    let variables = container.env.iter().flatten();
    variables
        .map(|variable| (variable.name.clone(), variable.value.clone().unwrap_or_default()))
        .collect()
}

/// There are no images here: without a command, the container serves its ports.
fn command(container: &Container) -> Vec<String> {
    let own = container.command.clone().unwrap_or_default();
    if !own.is_empty() {
        return own.into_iter().chain(container.args.clone().unwrap_or_default()).collect();
    }
    let mut command = vec!["/proc/self/exe".to_owned(), "pod-server".to_owned()];
    for port in container.ports.iter().flatten() {
        let option = match port.protocol.as_deref() {
            Some("UDP") => "--udp",
            Some("SCTP") => continue,
            _ => "--tcp",
        };
        command.extend([option.to_owned(), port.container_port.to_string()]);
    }
    command
}
