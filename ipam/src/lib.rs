//! The allocator: which node has which block, which pod has which address.
//!
//! Arithmetic and rules are pure ([`ordinal`], [`block`], [`affinity`], [`pool`], [`space`], [`handle`],
//! [`Machine`], [`check`], [`reconcile`], [`collector`]);
//! [`Allocator`] holds the conversations with the datastore. The data is Calico's field for field, so that both can work
//! on one pool. What it adds: a block that overlaps another of any size is refused, and requests that come together
//! share one write.

pub mod affinity;
mod allocator;
pub mod block;
pub mod check;
pub mod clock;
pub mod collector;
mod datastore;
pub mod explain;
pub mod handle;
mod machine;
mod memory;
pub mod ordinal;
pub mod pool;
pub mod reconcile;
mod request;
pub mod show;
pub mod space;
pub mod wishes;

pub use allocator::{Allocator, Options, Released};
pub use clock::{Clock, UnixNanos};
pub use handle::handle_id;
pub use machine::{Machine, MachinePod};
pub use request::{AssignError, AssignRequest, AutoAssign, Family, Owner};
