//! Reading what Go programs write: absent, `null` and empty mean the same there.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the default.
pub(crate) fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads an empty string as absent.
pub(crate) fn empty_as_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// Whether a flag is off and need not be written.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape serde calls")]
pub(crate) const fn is_false(flag: &bool) -> bool {
    !*flag
}
