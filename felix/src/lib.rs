//! The policy engine: from what the cluster wants to what the kernel holds.

pub mod nft;
#[cfg(feature = "linux")]
pub mod linux;
