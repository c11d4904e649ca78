//! The rim to Linux networking: namespaces, links, addresses, routes, neighbours, sysctls and their events.
//!
//! Everything here blocks and speaks rtnetlink directly; no program is executed and no kernel module is loaded. It
//! decides nothing about Kubernetes or BGP: callers bring the desired state, [`RouteTable`] writes differences.
//!
//! A [`Netlink`] belongs for ever to the network namespace it was opened in, so one process can hold a connection
//! per namespace without ever switching a thread it does not own.

pub mod address;
mod error;
pub mod link;
mod mac;
pub mod monitor;
pub mod neighbour;
mod netlink;
pub mod netns;
pub mod resolver;
pub mod route;
pub mod route_table;
pub mod sysctl;

pub use address::Address;
pub use error::Error;
pub use link::Link;
pub use mac::{MacAddr, MalformedMac};
pub use monitor::{Event, Monitor};
pub use netlink::Netlink;
pub use netns::NetNs;
pub use resolver::Resolver;
pub use route::{Interface, NextHop, Route, RouteKind};
pub use route_table::{Report, RouteTable};

/// What every operation of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;
