//! Our kinds, as the lab's API server gets them.

use serde_json::Value;

use crate::apiserver::FieldError;

/// All CustomResourceDefinitions.
pub(crate) fn all() -> Vec<Value> {
    api::crd::all()
}

/// What validation beyond schemas finds; a real API server has CEL rules and a webhook for that.
pub(crate) fn admission(
    kind: &str,
    object: &Value,
    others: &mut dyn Iterator<Item = &Value>,
) -> Vec<FieldError> {
    let found = api::validate::check(kind, object).into_iter();
    let found = found.chain(api::validate::check_among(kind, object, others));
    found.map(|error| FieldError::invalid(error.field, error.message)).collect()
}
