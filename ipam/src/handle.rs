//! Handles: names by which all addresses of an owner are released.

use std::collections::BTreeMap;

use api::{IpamHandle, IpamHandleSpec};
use ipnet::IpNet;

/// Returns the handle of a sandbox: `<network>.<containerID>`, as Calico's CNI plugin names it.
#[must_use]
pub fn handle_id(network: &str, container_id: &str) -> String {
    format!("{network}.{container_id}")
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
