//! The datastore port: get, list, watch, create, update, delete with compare-and-swap on revisions.
//!
//! Every backend passes the one suite in `conformance`. A type `R` read and written back keeps the fields that our Rust
//! type does not know: [`Stored`] remembers the raw object, and an update sends raw + (what changed in `R`).

mod error;
mod port;
mod stored;

pub use error::StoreError;
pub use port::{DeletePreconditions, ListOptions, Listing, Revision, Store, WatchEvent, WatchStream};
pub use stored::Stored;
