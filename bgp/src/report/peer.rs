//! A session in words and numbers, with its history.

use std::{fmt, time::Duration};

use crate::{
    snapshot::{LossCause, PeerSnapshot, PrefixCounts},
    types::Families,
};

const NOTHING: &str = "-";

impl PeerSnapshot {
    /// Renders the session for people.
    pub fn to_text(&self) -> String {
        let mut lines = vec![
            ("name", self.name.clone()),
            ("address", self.address.to_string()),
            ("AS", self.asn.to_string()),
            ("type", self.peer_type.to_string()),
            ("state", format!("{} for {}", self.state, duration(self.since.as_secs()))),
            ("lost", self.losses_in_words()),
            ("last error", or_dash(self.last_error.as_ref())),
            ("router id", or_dash(self.router_id)),
            ("local address", or_dash(self.local_address)),
            ("families", names(self.families)),
            ("hold time", or_dash(self.hold_time.map(|time| format!("{} s", time.as_secs())))),
            (
                "graceful restart",
                if self.graceful_restart { "negotiated" } else { "no" }.to_owned(),
            ),
            ("stale", names(self.stale)),
            ("BFD", or_dash(self.bfd)),
        ];
        lines.extend(self.prefixes_in_words());
        let (installed, blackholed) = (self.prefixes_installed, self.prefixes_blackholed);
        lines.extend([
            ("in use", format!("{installed} installed, {blackholed} blackholed")),
            ("sent", self.sent.to_string()),
            ("received", self.received.to_string()),
            ("last UPDATE", or_dash(self.last_update.map(ago))),
            ("to be sent", format!("{} octets", self.queued_octets)),
            (
                "errors (RFC 7606)",
                format!(
                    "{} updates treated as withdraw, {} attributes discarded, {} routes ignored",
                    self.treated_as_withdraw, self.discarded_attributes, self.ignored_routes,
                ),
            ),
        ]);
        let mut text = String::new();
        for (label, value) in lines {
            let label = if label.is_empty() { String::new() } else { format!("{label}:") };
            text += &format!("{label:<19} {value}\n");
        }
        text += "history:\n";
        for each in &self.history {
            let times =
                if each.times > 1 { format!(" ({} times)", each.times) } else { String::new() };
            text += &format!(
                "  {:>7} ago  {} -> {}: {}{times}\n",
                duration(each.ago.as_secs()),
                each.from,
                each.to,
                each.cause,
            );
        }
        text
    }

    fn losses_in_words(&self) -> String {
        let times = match self.flaps {
            0 => return "never".to_owned(),
            1 => "once".to_owned(),
            flaps => format!("{flaps} times"),
        };
        let causes = self.losses.iter().map(|(cause, count)| format!("{count} {cause}"));
        match causes.collect::<Vec<_>>().join(", ") {
            causes if causes.is_empty() => times,
            causes => format!("{times} ({causes})"),
        }
    }

    /// A line for each family, and one for the limit.
    fn prefixes_in_words(&self) -> Vec<(&'static str, String)> {
        let families = self.prefixes.iter();
        let mut lines: Vec<String> =
            families.map(|(family, counts)| format!("{family}: {counts}")).collect();
        if lines.is_empty() {
            let all = PrefixCounts {
                received: self.prefixes_received,
                accepted: self.prefixes_accepted,
                stale: 0,
                advertised: self.prefixes_advertised,
            };
            lines.push(all.to_string());
        }
        if let Some(limit) = self.max_prefixes {
            let close = if self.near_limit { "; CLOSE TO IT" } else { "" };
            lines.push(format!("at most {limit} may be received{close}"));
        }
        let labels = std::iter::once("prefixes").chain(std::iter::repeat(""));
        labels.zip(lines).collect()
    }
}

fn or_dash<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

fn names(families: Families) -> String {
    if families.is_empty() { NOTHING.to_owned() } else { families.to_string() }
}

fn ago(time: Duration) -> String {
    format!("{} ago", duration(time.as_secs()))
}

impl fmt::Display for PrefixCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, accepted, stale, advertised } = self;
        write!(f, "{received} received, {accepted} accepted, {advertised} advertised")?;
        if *stale > 0 { write!(f, ", {stale} stale") } else { Ok(()) }
    }
}

impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transport => "connection broken or closed",
            Self::HoldTimer => "hold timer",
            Self::Bfd => "BFD",
            Self::NotificationReceived => "NOTIFICATION received",
            Self::NotificationSent => "error of the peer",
            Self::MaxPrefixes => "too many prefixes",
            Self::PeerRestarted => "restart of the peer",
            Self::Local => "ended here",
        })
    }
}

impl fmt::Display for crate::session::MessageCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opens, updates, notifications, keepalives, refreshes } = self;
        write!(
            f,
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
