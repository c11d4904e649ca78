//! The vocabulary of Voile: resource types, selectors, CIDRs and validation. Plain data and parsing.
//!
//! Nothing here opens a socket, reads a clock or knows a Kubernetes client. A type lives here only if it is stored in,
//! or read from, the datastore.

mod core;
mod kind;
mod meta;
pub mod net;
mod wire;

pub use core::*;

pub use meta::{
    KindInfo, Key, NoStatus, Object, ObjectMeta, OwnerReference, Resource, Scope, Spec,
};
pub use net::{IntOrString, Port, PortRange, Protocol, cidr_name};
