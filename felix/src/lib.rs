//! The policy engine: from what the cluster wants to what the kernel holds.

pub mod calc;
pub mod dataplane;
#[cfg(feature = "linux")]
pub mod driver;
pub mod evaluate;
#[cfg(feature = "linux")]
pub mod linux;
pub mod nft;
pub mod rules;
#[cfg(test)]
mod testing;
pub mod update;
