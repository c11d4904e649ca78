//! Affinities: which node owns which block, and how far a claim has come.
//!
//! `pending` -> `confirmed` -> `pendingDeletion` -> gone. Only confirmed counts; every other state is somebody's crash or
//! somebody's work in progress, and whoever owns the node finishes it.

use std::collections::BTreeMap;

use api::{AffinityState, BlockAffinity, BlockAffinitySpec};
use ipnet::IpNet;
use sha3::{Digest, Sha3_256};

/// Label by which a node finds its affinities.
pub const HOST_LABEL: &str = "projectcalico.org/hostname-hash";
const TYPE_LABEL: &str = "projectcalico.org/affinity-type";
const VERSION_LABEL: &str = "projectcalico.org/ip-version";

/// Object names end here (DNS subdomain).
const NAME_LIMIT: usize = 253;

/// Returns what a block's `affinity` says when a node owns it.
#[must_use]
pub fn of_host(node: &str) -> String {
    format!("host:{node}")
}

/// Returns the value of [`HOST_LABEL`]: base32 without padding of the name's SHA3-256 (Calico `block_affinity.go`).
#[must_use]
pub fn host_hash(node: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha3_256::digest(node.as_bytes());
    let (mut text, mut bits, mut held) = (String::new(), 0_u32, 0_u32);
    let mut push = |index: u32| {
        let letter = usize::try_from(index & 31).ok().and_then(|index| ALPHABET.get(index));
        text.extend(letter.map(|letter| char::from(*letter)));
    };
    for byte in digest {
        held = (held << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            push(held >> bits);
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        push(held << (5 - bits));
    }
    text
}

/// Returns how far a claim has come that does not count; `None` for one that does.
#[must_use]
pub fn unfinished(claim: &BlockAffinitySpec) -> Option<&'static str> {
    match claim.state {
        _ if claim.deleted => Some("deleted"),
        AffinityState::Confirmed | AffinityState::Unset => None,
        AffinityState::Pending => Some("pending"),
        AffinityState::PendingDeletion => Some("pendingDeletion"),
    }
}

/// Returns the labels of an affinity; without them a stock client does not find it.
#[must_use]
pub fn labels(node: &str, block: &IpNet) -> BTreeMap<String, String> {
    let version = if block.addr().is_ipv4() { "4" } else { "6" };
    BTreeMap::from([
        (HOST_LABEL.to_owned(), host_hash(node)),
        (TYPE_LABEL.to_owned(), "host".to_owned()),
        (VERSION_LABEL.to_owned(), version.to_owned()),
    ])
}

/// Returns the object name of a node's affinity to a block.
#[must_use]
pub fn object_name(node: &str, block: &IpNet) -> String {
    let cidr = api::cidr_name(block);
    let name = format!("{node}-{cidr}");
    if name.len() <= NAME_LIMIT {
        return name;
    }
    let hash = host_hash(node).to_lowercase();
    let room = NAME_LIMIT.saturating_sub(hash.len() + cidr.len() + 2);
    let head: String = node.chars().take(room).collect();
    format!("{head}-{hash}-{cidr}")
}

/// Makes an affinity that is not stored yet.
#[must_use]
pub fn pending(node: &str, block: &IpNet) -> BlockAffinity {
    let spec = BlockAffinitySpec {
        cidr: block.to_string(),
        node: node.to_owned(),
        affinity_type: Some("host".to_owned()),
        state: AffinityState::Pending,
        deleted: false,
    };
    let mut affinity = BlockAffinity::new(object_name(node, block), spec);
    affinity.metadata.labels = labels(node, block);
    affinity
}

/// Returns whether the affinity gives its node the block.
#[must_use]
pub fn is_confirmed(affinity: &BlockAffinitySpec) -> bool {
    unfinished(affinity).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_calicos() {
        let block: IpNet = "10.244.0.64/26".parse().unwrap();
        assert_eq!(object_name("node-1", &block), "node-1-10-244-0-64-26");
        let hash = host_hash("node-1");
        assert_eq!(hash.len(), 52);
        // echo -n "" | openssl dgst -sha3-256 begins a7ffc6f8bf1e...: in base32 U774N6F7D...
        assert!(host_hash("").starts_with("U774N6F7D"), "{}", host_hash(""));
        assert!(object_name(&"n".repeat(253), &block).len() <= 253);
        assert_eq!(labels("node-1", &block)[VERSION_LABEL], "4");
    }
}
