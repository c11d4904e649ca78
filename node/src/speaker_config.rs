//! From peerings to the speaker configuration.
