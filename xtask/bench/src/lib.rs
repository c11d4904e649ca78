//! The measuring programs behind `cargo xtask bench`: one program a suite, all of them release builds.
//!
//! A figure is never judged alone: every suite runs a well-known peer in the same minute on the same machine and prints
//! the ratio. What dies, times out or loses something is printed as that and stays in the table.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark is there to read the clock; nothing here decides anything else"
)]

pub mod bgp;
pub mod interrupt;
#[cfg(feature = "ipam")]
pub mod ipam;
pub mod link;
pub mod process;
pub mod report;
pub mod smoke;
