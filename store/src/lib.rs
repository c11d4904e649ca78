//! The datastore port: get, list, watch, create, update, delete with compare-and-swap on revisions.
//!
//! Every backend passes the one suite in [`conformance`]. A type `R` read and written back keeps the fields that our Rust
//! type does not know: [`Stored`] remembers the raw object, and an update sends raw + (what changed in `R`).
//!
//! * [`memory`]: the reference backend, with faults on demand, for tests and the lab.
//! * `kube`: the Kubernetes API server (feature `kube`).
//! * [`informer`]: list, watch, resume and relist as one stream that never ends, and a cache fed by it.

pub mod conformance;
mod error;
pub mod informer;
#[cfg(feature = "kube")]
pub mod kube;
pub mod memory;
mod port;
pub mod random;
mod stored;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::StoreError;
pub use port::{
    DeletePreconditions, ListOptions, Listing, Revision, Store, WatchEvent, WatchStream,
};
pub use stored::Stored;
