//! A session in words and numbers, with its history. What another version does not tell counts as absent.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::snapshot::{MessageCounters, PeerSnapshot, TransitionSnapshot};

/// One peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerReport {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its autonomous system.
    pub r#as: u32,
    /// `eBGP` or `iBGP`.
    pub r#type: String,
    /// State of the session (RFC 4271).
    pub state: String,
    /// How long it has been in that state.
    pub since_seconds: u64,
    /// How often an established session was lost.
    pub flaps: u64,
    /// What ended the last session or attempt.
    pub last_error: Option<String>,
    /// Changes of state, oldest first; the oldest ones are forgotten.
    pub history: Vec<TransitionReport>,
    /// Its identifier, while a session is up.
    pub router_id: Option<String>,
    /// Our address in the session.
    pub local_address: Option<IpAddr>,
    /// Families that are exchanged.
    pub families: Vec<String>,
    /// Negotiated hold time.
    pub hold_time_seconds: Option<u64>,
    /// Whether the session survives a restart of the peer.
    pub graceful_restart: bool,
    /// Families whose routes are kept although the peer is away or has not repeated them yet.
    pub stale: Vec<String>,
    /// State of the BFD session, if one is wanted.
    pub bfd: Option<String>,
    /// Messages we sent.
    pub sent: CountersReport,
    /// Messages we got.
    pub received: CountersReport,
    /// Prefixes the peer announced.
    pub prefixes_received: usize,
    /// Whether that is close to the limit.
    pub near_limit: bool,
    /// Those that import policy and loop checks let through.
    pub prefixes_accepted: usize,
    /// Those whose packets are dropped, as agreed with the peer (RFC 7999).
    pub prefixes_blackholed: usize,
    /// Those that go the way of the peer, in the kernel.
    pub prefixes_installed: usize,
    /// Prefixes we announced.
    pub prefixes_advertised: usize,
    /// Messages whose routes counted as withdrawn because of errors (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Attributes that were ignored because of errors (RFC 7606).
    pub discarded_attributes: u64,
    /// Times that a route was ignored because its next hop or prefix makes no sense (RFC 4271 §6.3).
    pub ignored_routes: u64,
}

/// A session changed its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TransitionReport {
    /// How long ago, the last time.
    pub seconds_ago: u64,
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
    /// Why, in words.
    pub cause: String,
    /// How often, when it happened again and again.
    pub times: u32,
}

/// Messages of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CountersReport {
    /// OPEN.
    pub opens: u64,
    /// UPDATE.
    pub updates: u64,
    /// NOTIFICATION.
    pub notifications: u64,
    /// KEEPALIVE.
    pub keepalives: u64,
    /// ROUTE-REFRESH.
    pub refreshes: u64,
}

impl From<&PeerSnapshot> for PeerReport {
    fn from(peer: &PeerSnapshot) -> Self {
        let names =
            |families: crate::Families| families.iter().map(|each| each.to_string()).collect();
        Self {
            name: peer.name.clone(),
            address: peer.address.to_string(),
            r#as: peer.asn.0,
            r#type: peer.peer_type.to_string(),
            state: peer.state.to_string(),
            since_seconds: peer.since.as_secs(),
            flaps: peer.flaps,
            last_error: peer.last_error.clone(),
            history: peer.history.iter().map(TransitionReport::from).collect(),
            router_id: peer.router_id.map(|id| id.to_string()),
            local_address: peer.local_address,
            families: names(peer.families),
            hold_time_seconds: peer.hold_time.map(|time| time.as_secs()),
            graceful_restart: peer.graceful_restart,
            stale: names(peer.stale),
            bfd: peer.bfd.map(|state| state.to_string()),
            sent: peer.sent.into(),
            received: peer.received.into(),
            prefixes_received: peer.prefixes_received,
            near_limit: peer.near_limit,
            prefixes_accepted: peer.prefixes_accepted,
            prefixes_blackholed: peer.prefixes_blackholed,
            prefixes_installed: peer.prefixes_installed,
            prefixes_advertised: peer.prefixes_advertised,
            treated_as_withdraw: peer.treated_as_withdraw,
            discarded_attributes: peer.discarded_attributes,
            ignored_routes: peer.ignored_routes,
        }
    }
}

impl From<&TransitionSnapshot> for TransitionReport {
    fn from(transition: &TransitionSnapshot) -> Self {
        Self {
            seconds_ago: transition.ago.as_secs(),
            from: transition.from.to_string(),
            to: transition.to.to_string(),
            cause: transition.cause.clone(),
            times: transition.times,
        }
    }
}

impl From<MessageCounters> for CountersReport {
    fn from(counters: MessageCounters) -> Self {
        let MessageCounters { opens, updates, notifications, keepalives, refreshes } = counters;
        Self { opens, updates, notifications, keepalives, refreshes }
    }
}

impl PeerReport {
    /// Renders the report for people.
    pub fn to_text(&self) -> String {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let list =
            |words: &[String]| if words.is_empty() { "-".to_owned() } else { words.join(" ") };
        let lines = [
            ("name", self.name.clone()),
            ("address", self.address.clone()),
            ("AS", self.r#as.to_string()),
            ("type", self.r#type.clone()),
            ("state", format!("{} for {}", self.state, duration(self.since_seconds))),
            (
                "lost",
                match self.flaps {
                    0 => "never".to_owned(),
                    1 => "once".to_owned(),
                    flaps => format!("{flaps} times"),
                },
            ),
            ("last error", or_dash(self.last_error.clone())),
            ("router id", or_dash(self.router_id.clone())),
            ("local address", or_dash(self.local_address.map(|address| address.to_string()))),
            ("families", list(&self.families)),
            ("hold time", or_dash(self.hold_time_seconds.map(|seconds| format!("{seconds} s")))),
            (
                "graceful restart",
                if self.graceful_restart { "negotiated" } else { "no" }.to_owned(),
            ),
            ("stale", list(&self.stale)),
            ("BFD", or_dash(self.bfd.clone())),
            (
                "prefixes",
                format!(
                    "{} received, {} accepted, {} installed, {} blackholed, {} advertised{}",
                    self.prefixes_received,
                    self.prefixes_accepted,
                    self.prefixes_installed,
                    self.prefixes_blackholed,
                    self.prefixes_advertised,
                    if self.near_limit { "; CLOSE TO max-prefixes" } else { "" },
                ),
            ),
            ("sent", self.sent.words()),
            ("received", self.received.words()),
            (
                "errors (RFC 7606)",
                format!(
                    "{} updates treated as withdraw, {} attributes discarded, {} routes ignored",
                    self.treated_as_withdraw, self.discarded_attributes, self.ignored_routes,
                ),
            ),
        ];
        let mut text = String::new();
        for (label, value) in lines {
            text += &format!("{:<19} {value}\n", format!("{label}:"));
        }
        text += "history:\n";
        for each in &self.history {
            let times =
                if each.times > 1 { format!(" ({} times)", each.times) } else { String::new() };
            text += &format!(
                "  {:>7} ago  {} -> {}: {}{times}\n",
                duration(each.seconds_ago),
                each.from,
                each.to,
                each.cause,
            );
        }
        text
    }
}

impl CountersReport {
    fn words(self) -> String {
        let Self { opens, updates, notifications, keepalives, refreshes } = self;
        format!(
            "{updates} UPDATE, {keepalives} KEEPALIVE, {opens} OPEN, {notifications} NOTIFICATION, \
             {refreshes} ROUTE-REFRESH"
        )
    }
}

/// The two largest units.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{:02}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes:02}m"),
        (days, hours, _) => format!("{days}d{hours:02}h"),
    }
}
