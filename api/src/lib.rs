//! The vocabulary of Voile: resource types, selectors, CIDRs and validation. Plain data and parsing.
//!
//! Nothing here opens a socket, reads a clock or knows a Kubernetes client. A type lives here only if it is stored in,
//! or read from, the datastore.

mod bgp_query;
mod core;
pub mod crd;
mod kind;
mod meta;
pub mod net;
mod node_state;
pub mod selector;
mod v3;
pub mod validate;
mod wire;

pub use bgp_query::*;
pub use core::*;

pub use meta::{
    Key, KindInfo, NoStatus, Object, ObjectMeta, OwnerReference, Resource, Scope, Spec,
};
pub use node_state::*;
pub use v3::*;

pub use net::{IntOrString, Port, PortRange, Protocol, cidr_name};
pub use selector::{Selector, SelectorError};
