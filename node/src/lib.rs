//! The daemon of one node: composition of the speaker, IPAM, the policy engine and the CNI server. Beside it the controller,
//! of which a cluster needs one.
//!
//! Composition only: a file here that holds an algorithm is in the wrong crate. [`tasks`] draws all tasks and channels.

pub mod args;
pub mod controller;
pub mod daemon;
pub mod tasks;

mod bootstrap;
mod cni_server;
mod endpoints;
mod http;
mod identity;
mod metrics;
mod peering;
mod pods;
mod report;
mod speaker_config;
mod speaker_task;
mod status;
mod sync;
