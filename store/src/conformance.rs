//! What every backend must do, as one suite: call [`run`] from a test.
//!
//! It panics with a message on the first difference. It works on shared servers: every object it makes has a name that
//! starts with `conf-` and carries the label `conformance=<case>`, and leftovers of an earlier run are removed first.

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test suite in library form: a failed expectation is a panic"
)]

pub mod kinds;
mod objects;
mod watches;

use api::Resource;

use crate::{DeletePreconditions, ListOptions, Store, StoreError, Stored};
use kinds::Labelled;

/// Runs the suite. `make_store` may give a fresh store every time or clones of one.
///
/// The server must know the kinds of [`kinds`]: `IPPool` and `IPAMBlock` of projectcalico.org/v3, `Namespace` and `Pod`.
pub async fn run<S: Store>(make_store: impl AsyncFn() -> S) {
    let store = make_store().await;
    kinds::make_namespace(&store).await;
    objects::create_get_update(&make_store().await).await;
    objects::errors(&make_store().await).await;
    objects::delete_preconditions(&make_store().await).await;
    objects::unknown_fields(&make_store().await).await;
    objects::large_numbers(&make_store().await).await;
    objects::status_is_apart(&make_store().await).await;
    objects::patches(&make_store().await).await;
    objects::namespaced(&make_store().await).await;
    objects::many(&make_store().await).await;
    watches::exactly_once_in_order(&make_store().await).await;
    watches::resumes(&make_store().await).await;
    watches::selected(&make_store().await).await;
    watches::concurrent_writers(&make_store().await).await;
}

/// Lists what one case made.
fn of_case(case: &str) -> ListOptions {
    ListOptions::consistent().label("conformance", case)
}

/// Removes what an earlier run of a case left.
async fn clean<R: Resource>(store: &impl Store, case: &str) {
    let listing = store.list::<R>(&of_case(case)).await.expect("list leftovers");
    for item in listing.items {
        match store.delete::<R>(&item.key(), &DeletePreconditions::default()).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => panic!("{case}: cannot remove {}: {error}", item.key()),
        }
    }
}

/// Creates, riding out a server that is not quite ready.
async fn created<R: Resource + Labelled>(
    store: &impl Store,
    case: &str,
    mut object: R,
) -> Stored<R> {
    object.meta_mut().labels.insert("conformance".to_owned(), case.to_owned());
    match store.create(&object).await {
        Ok(stored) => stored,
        Err(error) => panic!("{case}: create {}: {error}", object.key()),
    }
}
