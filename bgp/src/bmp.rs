//! BMP, the BGP Monitoring Protocol (RFC 7854, with RFC 9069 for the Loc-RIB and RFC 8671 for the Adj-RIB-Out): everything that
//! peers send, what we make of it and what we tell them, for a collector.
//!
//! A collector pulls: what it has not taken yet is kept as the set of prefixes that changed, not as messages, so a slow one
//! costs little and hears the newest state. One that is too slow even for that is cut off and gets the whole table again.

mod batch;
mod encode;
mod monitor;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use self::{
    encode::{DownReason, Ends, Statistic},
    monitor::{Description, Monitor, Watched},
};

/// A place that wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Where it listens: `host:port`, a name or an address, looked up at every attempt to connect.
    pub address: String,
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
    /// Makes a collector of what peers send and of what is chosen.
    pub fn new(address: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            views: Views::USUAL,
            statistics: Some(Duration::from_secs(60)),
            retry: Duration::from_secs(30),
            name: name.into(),
        }
    }

    /// Says what is wrong with an address.
    ///
    /// # Errors
    /// Text that is no `host:port`.
    pub fn check_address(text: &str) -> Result<(), String> {
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let is_plain_ipv6 = host.contains(':') && !host.starts_with('[');
        if host.is_empty() || is_plain_ipv6 || port.parse::<u16>().is_err() {
            return Err(format!(
                "'{text}' is no address; write host:port, or [address]:port for IPv6"
            ));
        }
        Ok(())
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
    /// Adj-RIB-Out before export policy (RFC 8671): what comes into question for the peer.
    pub out_pre_policy: bool,
    /// Adj-RIB-Out as sent.
    pub out_post_policy: bool,
}

impl Views {
    /// Nothing.
    pub const NONE: Self = Self {
        pre_policy: false,
        post_policy: false,
        loc_rib: false,
        out_pre_policy: false,
        out_post_policy: false,
    };
    /// What collectors are told unless something else is wanted: what is sent to peers follows from it and costs the most.
    pub const USUAL: Self =
        Self { pre_policy: true, post_policy: true, loc_rib: true, ..Self::NONE };

    /// The names of the tables.
    pub const NAMES: [&str; 5] =
        ["adj-rib-in-pre", "adj-rib-in-post", "loc-rib", "adj-rib-out-pre", "adj-rib-out-post"];

    /// Says that there is no table of this name, and which there are.
    #[must_use]
    pub fn unknown(name: &str) -> String {
        format!("there is no table '{name}'; there are {}", Self::NAMES.join(", "))
    }

    /// Adds a table by its name; says whether there is such a one.
    #[must_use]
    pub fn add(&mut self, name: &str) -> bool {
        let place = match name {
            "adj-rib-in-pre" => &mut self.pre_policy,
            "adj-rib-in-post" => &mut self.post_policy,
            "loc-rib" => &mut self.loc_rib,
            "adj-rib-out-pre" => &mut self.out_pre_policy,
            "adj-rib-out-post" => &mut self.out_post_policy,
            _ => return false,
        };
        *place = true;
        true
    }

    pub(crate) const fn adj_rib_in(self) -> bool {
        self.pre_policy || self.post_policy
    }

    pub(crate) const fn adj_rib_out(self) -> bool {
        self.out_pre_policy || self.out_post_policy
    }

    pub(crate) const fn of_peers(self) -> bool {
        self.adj_rib_in() || self.adj_rib_out()
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
