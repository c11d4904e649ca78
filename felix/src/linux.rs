//! nf_tables over netlink: encoding, sending, reading back, and hearing of changes.

pub mod dump;
pub mod encode;
mod expr;
pub mod monitor;
pub mod nft;
pub mod socket;
mod uapi;
mod wire;

#[cfg(test)]
mod tests;
