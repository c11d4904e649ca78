//! What a node releases by itself: addresses of sandboxes that no longer exist here. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use api::IpamBlock;

use crate::{block, clock::UnixNanos, machine};

/// Returns the handles to release: those that say they are pods of this node, are in no sandbox here, and are older than
/// `grace` (a sandbox being set up has its address before it is known).
#[must_use]
pub fn stale_handles(
    node: &str,
    blocks: &[IpamBlock],
    living: &BTreeSet<String>,
    now: UnixNanos,
    grace: Duration,
) -> BTreeSet<String> {
    let mut stale = BTreeSet::new();
    let mut fresh = BTreeSet::new();
    for (_, owner) in blocks.iter().flat_map(|one| block::assigned(&one.spec)) {
        let get = |key: &str| owner.secondary.get(key).map(String::as_str);
        let Some(handle) = &owner.handle_id else { continue };
        // A machine's address outlives its pod.
        let is_pod_here =
            get("node") == Some(node) && get("pod").is_some() && get(machine::NAME).is_none();
        if !is_pod_here || living.contains(handle) {
            continue;
        }
        let age = get("timestamp").and_then(born).map(|born| now.0.saturating_sub(born.0));
        // Without a readable time of birth nobody knows its age: leave it to the controller.
        if age.is_some_and(|age| u128::from(age) >= grace.as_nanos()) {
            stale.insert(handle.clone());
        } else {
            fresh.insert(handle.clone());
        }
    }
    // All or none of a handle.
    &stale - &fresh
}

/// Reads the time that Go prints, such as `2026-09-21 14:13:20.12 +0000 UTC`.
fn born(text: &str) -> Option<UnixNanos> {
    let (date, rest) = text.split_once(' ')?;
    let time = rest.split([' ', '.']).next()?;
    UnixNanos::parse_rfc3339(&format!("{date}T{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Owner;

    #[test]
    fn only_old_pods_of_this_node_without_a_sandbox_go() {
        let second = 1_000_000_000;
        let now = UnixNanos(1_790_000_000 * second);
        let then = |ago: u64| UnixNanos(now.0 - ago * second);
        let net = "10.0.0.0/28".parse().unwrap();
        let mut one = block::empty(&net, Some("host:n"), then(1000));
        let give = |one: &mut IpamBlock, handle: &str, owner: Owner, ago| {
            block::take_any(&mut one.spec, &owner.attribute(handle, then(ago)), |_| false).unwrap();
        };
        give(&mut one, "old", Owner::pod("n", "ns", "a"), 100);
        give(&mut one, "young", Owner::pod("n", "ns", "b"), 10);
        give(&mut one, "alive", Owner::pod("n", "ns", "c"), 100);
        give(&mut one, "elsewhere", Owner::pod("m", "ns", "d"), 100);
        give(&mut one, "tunnel", Owner::tunnel("n", "vxlanTunnelAddress"), 100);
        give(&mut one, "machine", Owner::pod("n", "ns", "f").with("vmi-name", "vm"), 100);
        give(&mut one, "both", Owner::pod("n", "ns", "e"), 100);
        give(&mut one, "both", Owner::pod("n", "ns", "e"), 1);
        let living = BTreeSet::from(["alive".to_owned()]);
        let stale = stale_handles("n", &[one], &living, now, Duration::from_secs(60));
        assert_eq!(stale, BTreeSet::from(["old".to_owned()]));
    }
}
