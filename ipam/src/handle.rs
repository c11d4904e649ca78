//! Handles: names by which all addresses of an owner are released.

use std::collections::BTreeMap;

use api::{IpamHandle, IpamHandleSpec};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ipnet::IpNet;
use sha2::{Digest, Sha256};

/// Returns the handle of a sandbox: `<network>.<containerID>`, as Calico's CNI plugin names it.
#[must_use]
pub fn handle_id(network: &str, container_id: &str) -> String {
    format!("{network}.{container_id}")
}

/// Longest handle of a virtual machine.
const MACHINE_HANDLE_LIMIT: usize = 128;

/// Returns the handle of a KubeVirt machine, which keeps its address from one pod to the next:
/// `<network>.vmi.<namespace>.<name>`, with the end hashed where that is too long (Calico `vmipam`).
#[must_use]
pub fn machine_handle_id(network: &str, namespace: &str, name: &str) -> String {
    let network = if network.is_empty() { "k8s-pod-network" } else { network };
    let (prefix, suffix) = (format!("{network}.vmi."), format!("{namespace}.{name}"));
    if prefix.len() + suffix.len() <= MACHINE_HANDLE_LIMIT {
        return prefix + &suffix;
    }
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(suffix.as_bytes()));
    let room = MACHINE_HANDLE_LIMIT.saturating_sub(prefix.len() + 1);
    let hash: String = hash.chars().take(room).collect();
    format!("{prefix}_{hash}")
}

/// Returns the object name of a handle.
#[must_use]
pub fn object_name(handle: &str) -> String {
    handle.to_lowercase()
}

/// Makes a handle that is not stored yet.
#[must_use]
pub fn new(handle: &str, block: &IpNet, count: u32) -> IpamHandle {
    with_blocks(handle, [(block.to_string(), count)].into())
}

/// Makes a handle with addresses in several blocks that is not stored yet.
#[must_use]
pub fn with_blocks(handle: &str, block: BTreeMap<String, u32>) -> IpamHandle {
    let spec = IpamHandleSpec { handle_id: handle.to_owned(), block, deleted: false };
    IpamHandle::new(object_name(handle), spec)
}

/// Sets how many addresses of the handle a block has. Returns whether that changed anything.
///
/// A set, not an increment: repeating it after a lost answer is harmless, and it heals a count that is wrong.
pub fn set_count(handle: &mut IpamHandleSpec, block: &IpNet, count: u32) -> bool {
    let key = block.to_string();
    let before = handle.block.get(&key).copied();
    if count == 0 {
        handle.block.remove(&key);
    } else {
        handle.block.insert(key, count);
    }
    before.unwrap_or_default() != count || (count == 0 && before.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_have_calicos_handles() {
        assert_eq!(machine_handle_id("", "default", "vm1"), "k8s-pod-network.vmi.default.vm1");
        assert_eq!(machine_handle_id("net1", "a", "b.c"), "net1.vmi.a.b.c");
        // printf 'ns.%0120d' 0 | openssl sha256 -binary | basenc --base64url
        let long = machine_handle_id("net", "ns", &"0".repeat(120));
        assert_eq!(long, "net.vmi._QSci2Xsef4uA7YxH6-iUNORInzXy1CQcIQCfG60O6SQ");
    }
}
