//! Names of chains, sets and maps: any string becomes one that nft accepts.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};

/// Longest name we give; nf_tables allows 255, nft's listings stay readable below this.
const MAX_LEN: usize = 120;

/// Makes a legal nft identifier: letters, digits, `_`, `-`, `.`, `/`, starting with a letter.
///
/// Different inputs give different names: whatever had to be changed gets a hash of the original appended.
fn legal(raw: &str) -> Arc<str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let starts_well = raw.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    if starts_well && raw.len() <= MAX_LEN && raw.chars().all(plain) {
        return Arc::from(raw);
    }
    let hash = Sha256::digest(raw.as_bytes());
    let tail: String = hash.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    let head: String =
        raw.chars().map(|c| if plain(c) { c } else { '_' }).take(MAX_LEN - 14).collect();
    let prefix = if starts_well { "" } else { "n" };
    Arc::from(format!("{prefix}{head}-{tail}"))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Makes the name; a string nft would refuse is changed into one it accepts, without collisions.
            #[must_use]
            pub fn new(raw: impl AsRef<str>) -> Self {
                Self(legal(raw.as_ref()))
            }

            /// The name as the kernel knows it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(raw: &str) -> Self {
                Self::new(raw)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// Name of a chain.
    ChainName
}
name! {
    /// Name of a named set.
    SetName
}
name! {
    /// Name of a named map; the kernel keeps maps and sets under one roof, so a map and a set can't share a name.
    MapName
}
