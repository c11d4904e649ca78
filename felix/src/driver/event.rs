//! What the driver tells those who listen.

use crate::nft::ChainName;

/// Something an operator may want to know.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Someone else changed our table; it has been repaired.
    Drift {
        /// The first changes heard of, in words.
        changes: Vec<String>,
        /// How many there were.
        count: usize,
        /// Whether notifications were lost, so that there may have been more.
        lost: bool,
    },
    /// The kernel refused a transaction; nothing of it was written, and it will be tried again.
    ApplyFailed {
        /// What was refused and why.
        error: String,
    },
    /// The kernel refused these chains: they drop everything until it takes them.
    Quarantined {
        /// The chains.
        chains: Vec<ChainName>,
        /// What was refused and why.
        error: String,
    },
    /// Routes of ours that were missing or changed have been written again.
    RoutesRepaired {
        /// The routes, in words.
        routes: Vec<String>,
    },
    /// The kernel refused routes.
    RoutesFailed {
        /// The routes and the reasons.
        routes: Vec<String>,
    },
}
