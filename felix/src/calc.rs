//! The calculation: from objects to what this node's endpoints need, change by change.
//!
//! ```text
//! Update -> Catalog (parsed objects, items) -> Graph: policies that select local pods -> MemberIndex: their sets
//! ```
//! Pure and order independent: the state after any sequence of updates is that of the last value of each object.
//! Only what some endpoint of this node needs is followed; a pod elsewhere costs one look at the sets it could be in.

mod calico;
pub mod catalog;
mod facts;
pub mod graph;
pub mod item;
mod kubernetes;
pub mod members;
pub mod model;
pub mod problem;
pub mod ranges;
pub mod selector;

pub(crate) use facts::{block_cidr, is_confirmed};
pub use graph::Graph;
