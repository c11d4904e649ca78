//! BMP, the BGP Monitoring Protocol (RFC 7854, with RFC 9069 for the Loc-RIB): everything that peers send and what we make of
//! it, for a collector.
//!
//! A collector pulls: what it has not taken yet is kept as the set of prefixes that changed, not as messages, so a slow one
//! costs little and hears the newest state. One that is too slow even for that is cut off and gets the whole table again.

mod encode;
mod monitor;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, time::Duration};

pub(crate) use self::{
    encode::{DownReason, Ends, Statistic},
    monitor::{Description, Monitor, Watched},
};

/// A place that wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is told.
    pub views: Views,
    /// Time between statistics reports; none are sent when absent.
    pub statistics: Option<Duration>,
    /// First wait after a failure; doubles up to twelve minutes (RFC 7854 §3.2).
    pub retry: Duration,
    /// How we introduce ourselves.
    pub name: String,
}

impl Collector {
    /// Makes a collector of everything.
    pub fn new(address: SocketAddr, name: impl Into<String>) -> Self {
        Self {
            address,
            views: Views { pre_policy: true, post_policy: true, loc_rib: true },
            statistics: Some(Duration::from_secs(60)),
            retry: Duration::from_secs(30),
            name: name.into(),
        }
    }
}

/// Which tables a collector is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Views {
    /// Adj-RIB-In as received.
    pub pre_policy: bool,
    /// Adj-RIB-In after import policy.
    pub post_policy: bool,
    /// Loc-RIB: the best path of each prefix.
    pub loc_rib: bool,
}

impl Views {
    pub(crate) const fn adj_rib_in(self) -> bool {
        self.pre_policy || self.post_policy
    }
}

/// What there is for a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Messages, in order; none: wait for [`Output::BmpReady`](crate::Output::BmpReady).
    Messages(Vec<bytes::Bytes>),
    /// More changed than may wait: close the connection and begin anew.
    TooSlow,
}
