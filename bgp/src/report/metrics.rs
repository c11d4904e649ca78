//! The speaker as metrics, in the text exposition format 0.0.4 of Prometheus.
//!
//! Labels have few values: words that an error consists of are not among them, they are in the log and in the history of the
//! session. Counters are there from the first moment on, with 0, so that their first increase is one.

use std::fmt::{Display, Write as _};

use crate::{
    bfd,
    session::State,
    snapshot::{CollectorSnapshot, LossCause, PeerSnapshot, PrefixCounts, Snapshot},
};

/// Content type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is written so far.
#[derive(Clone, Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a metric: its name, `gauge`, `counter` or `histogram`, and what it means.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a value.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (key, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{key}=\"{escaped}\"", if index == 0 { '{' } else { ',' });
        }
        self.0.push_str(if labels.is_empty() { " " } else { "} " });
        let _ = writeln!(self.0, "{value}");
    }

    /// Adds a metric with one value.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// Returns the text.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// Writes down everything about a speaker.
pub fn speaker(snapshot: &Snapshot, out: &mut Exposition) {
    let help = "Prefixes with at least one path, whether it is used or not.";
    out.single("voile_bgp_table_prefixes", "gauge", help, snapshot.prefixes);
    let help = "Different sets of path attributes in the table.";
    out.single("voile_bgp_table_attribute_sets", "gauge", help, snapshot.attribute_sets);
    let help = "Routes learned by BGP that the kernel does not have although it should.";
    out.single("voile_bgp_routes_refused", "gauge", help, snapshot.routes_refused);
    let help = "Prefixes with a path that is not used because its next hop cannot be reached.";
    out.single("voile_bgp_prefixes_unreachable", "gauge", help, snapshot.prefixes_unreachable);
    let help = "Whether the speaker waits for its peers' tables after a restart.";
    out.single("voile_bgp_restarting", "gauge", help, u8::from(snapshot.restarting));
    sessions(&snapshot.peers, out);
    prefixes(&snapshot.peers, out);
    traffic(&snapshot.peers, out);
    collectors(&snapshot.collectors, out);
}

fn collectors(collectors: &[CollectorSnapshot], out: &mut Exposition) {
    let name = "voile_bmp_connected";
    out.family(name, "gauge", "Whether a collector of BMP is connected.");
    for each in collectors {
        out.sample(name, &[("collector", &each.address)], u8::from(each.connected));
    }
    let name = "voile_bmp_waiting_changes";
    out.family(name, "gauge", "Changes of routes that a collector of BMP has not taken yet.");
    for each in collectors {
        out.sample(name, &[("collector", &each.address)], each.waiting);
    }
}

fn labels(peer: &PeerSnapshot) -> [(&'static str, String); 2] {
    [("peer", peer.name.clone()), ("address", peer.address.to_string())]
}

/// A metric with one value for each peer that has it.
fn each<T: Display>(
    (name, kind, help): (&str, &str, &str),
    peers: &[PeerSnapshot],
    value: impl Fn(&PeerSnapshot) -> Option<T>,
    out: &mut Exposition,
) {
    out.family(name, kind, help);
    for peer in peers {
        if let Some(value) = value(peer) {
            several(name, peer, &[], value, out);
        }
    }
}

fn several(
    name: &str,
    peer: &PeerSnapshot,
    more: &[(&str, &str)],
    value: impl Display,
    out: &mut Exposition,
) {
    let labels = labels(peer);
    let labels = labels.iter().map(|(key, value)| (*key, value.as_str()));
    let labels: Vec<(&str, &str)> = labels.chain(more.iter().copied()).collect();
    out.sample(name, &labels, value);
}

fn sessions(peers: &[PeerSnapshot], out: &mut Exposition) {
    let what = ("voile_bgp_session_established", "gauge", "Whether a session is Established.");
    each(what, peers, |peer| Some(u8::from(peer.state == State::Established)), out);
    let name = "voile_bgp_session_state";
    out.family(name, "gauge", "The state of a session is the one with 1 (RFC 4271).");
    for peer in peers {
        for state in State::ALL {
            let (word, value) = (state.to_string(), u8::from(peer.state == state));
            several(name, peer, &[("state", &word)], value, out);
        }
    }
    let what = ("voile_bgp_session_state_age_seconds", "gauge", "Time since the state changed.");
    each(what, peers, |peer| Some(peer.since.as_secs()), out);
    let name = "voile_bgp_session_info";
    out.family(name, "gauge", "What a session is, as labels.");
    for peer in peers {
        let (asn, kind) = (peer.asn.to_string(), peer.peer_type.to_string());
        several(name, peer, &[("peer_as", &asn), ("type", &kind)], 1, out);
    }
    let name = "voile_bgp_session_flaps_total";
    out.family(name, "counter", "Times that an established session was lost, by what ended it.");
    for peer in peers {
        for cause in LossCause::ALL {
            let count = peer.losses.get(&cause).copied().unwrap_or(0);
            several(name, peer, &[("cause", cause.label())], count, out);
        }
    }
    let help = "Whether the BFD session beside a BGP session is up.";
    let up = |peer: &PeerSnapshot| peer.bfd.map(|state| u8::from(state == bfd::State::Up));
    each(("voile_bfd_session_up", "gauge", help), peers, up, out);
}

fn prefixes(peers: &[PeerSnapshot], out: &mut Exposition) {
    type Count = fn(&PrefixCounts) -> usize;
    let families: [(&str, &str, Count); 5] = [
        ("voile_bgp_prefixes_received", "Prefixes received, before import policy.", |all| {
            all.received
        }),
        ("voile_bgp_prefixes_accepted", "Of those received, prefixes let in.", |all| all.accepted),
        (
            "voile_bgp_prefixes_rejected",
            "Of those received, prefixes stopped by import policy or a loop.",
            |all| all.received.saturating_sub(all.accepted),
        ),
        (
            "voile_bgp_prefixes_stale",
            "Of those received, prefixes not repeated since the session was lost.",
            |all| all.stale,
        ),
        ("voile_bgp_prefixes_advertised", "Prefixes told to the peer.", |all| all.advertised),
    ];
    for (name, help, count) in families {
        out.family(name, "gauge", help);
        for peer in peers {
            for (family, counts) in &peer.prefixes {
                several(name, peer, &[("family", &family.to_string())], count(counts), out);
            }
        }
    }
    let help = "Prefixes whose packets go to the peer, in the kernel.";
    let count = |peer: &PeerSnapshot| Some(peer.prefixes_installed);
    each(("voile_bgp_prefixes_installed", "gauge", help), peers, count, out);
    let help = "Prefixes whose packets are dropped, as agreed (RFC 7999).";
    let count = |peer: &PeerSnapshot| Some(peer.prefixes_blackholed);
    each(("voile_bgp_prefixes_blackholed", "gauge", help), peers, count, out);
    let help = "Most prefixes that a peer may announce, of all families together.";
    each(("voile_bgp_max_prefixes", "gauge", help), peers, |peer| peer.max_prefixes, out);
}

fn traffic(peers: &[PeerSnapshot], out: &mut Exposition) {
    let name = "voile_bgp_messages_total";
    out.family(name, "counter", "Messages, by direction and type.");
    for peer in peers {
        for (direction, counters) in [("sent", peer.sent), ("received", peer.received)] {
            let counts = [
                ("open", counters.opens),
                ("update", counters.updates),
                ("notification", counters.notifications),
                ("keepalive", counters.keepalives),
                ("route-refresh", counters.refreshes),
            ];
            for (kind, count) in counts {
                several(name, peer, &[("direction", direction), ("type", kind)], count, out);
            }
        }
    }
    let help = "Time since the last UPDATE came.";
    let age = |peer: &PeerSnapshot| peer.last_update.map(|time| time.as_secs());
    each(("voile_bgp_last_update_age_seconds", "gauge", help), peers, age, out);
    let help = "Octets that wait to be sent to the peer.";
    let queue = |peer: &PeerSnapshot| Some(peer.queued_octets);
    each(("voile_bgp_send_queue_bytes", "gauge", help), peers, queue, out);
    let help = "Messages with errors whose routes counted as withdrawn (RFC 7606).";
    let count = |peer: &PeerSnapshot| Some(peer.treated_as_withdraw);
    each(("voile_bgp_treated_as_withdraw_total", "counter", help), peers, count, out);
    let help = "Routes that were ignored because next hop or prefix makes no sense (RFC 4271 6.3).";
    let count = |peer: &PeerSnapshot| Some(peer.ignored_routes);
    each(("voile_bgp_routes_ignored_total", "counter", help), peers, count, out);
    let help = "Attributes that were ignored because of errors (RFC 7606).";
    let count = |peer: &PeerSnapshot| Some(peer.discarded_attributes);
    each(("voile_bgp_discarded_attributes_total", "counter", help), peers, count, out);
}
