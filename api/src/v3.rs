//! The 22 kinds of `projectcalico.org/v3`, every field of them.
//!
//! Texts that need interpreting (prefixes, selectors, ports) stay as written: an object with one bad field must still be
//! readable, so that the rest of it can be used or its fault shown. [`validate`](crate::validate) judges them.

mod bgp_configuration;
mod bgp_filter;
mod bgp_peer;
mod common;
mod felix_configuration;
mod felix_groups;
mod felix_types;
mod ip_pool;
mod ipam;
mod kube_controllers;
mod node_status;
mod policy;
mod rule;
mod sets;
mod staged;

pub use bgp_configuration::*;
pub use bgp_filter::*;
pub use bgp_peer::*;
pub use common::*;
pub use felix_configuration::*;
pub use felix_groups::*;
pub use felix_types::*;
pub use ip_pool::*;
pub use ipam::*;
pub use kube_controllers::*;
pub use node_status::*;
pub use policy::*;
pub use rule::*;
pub use sets::*;
pub use staged::*;
