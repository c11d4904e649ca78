//! The reasons for one prefix as data that programs exchange, and as text for people: what `voile-bgpd` and `voilectl`
//! print is made here, from the same words.

mod metrics;
mod peer;
mod serial;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub(crate) use self::serial::{optional_seconds, seconds};
pub use self::{
    metrics::{CONTENT_TYPE, Exposition, speaker as speaker_metrics},
    peer::duration,
    table::{Columns, HappeningsReport, RouteChange, SessionChange, TableReport, TableRouteReport},
};
use crate::{
    FibNextHop, FibRoute,
    attr::{Community, DEFAULT_LOCAL_PREF, PathAttributes},
    snapshot::{
        Announcement, BlackholeState, FibState, ImportReason, PathExplanation, Rank,
        RouteExplanation, Usage,
    },
};

/// One prefix with all reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteReport {
    /// The prefix.
    pub prefix: String,
    /// All paths, the best one first; those that are not considered last.
    pub paths: Vec<PathReport>,
    /// What each peer is told, or why it is not.
    pub announcements: Vec<AnnouncementReport>,
    /// The kernel's part.
    pub kernel: KernelReport,
}

/// One path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathReport {
    /// Name of the peer it is from; none: originated here.
    pub peer: Option<String>,
    /// Address of the peer.
    pub address: Option<IpAddr>,
    /// The identifier that the peer gave it (RFC 7911); 0 without ADD-PATH.
    pub path_id: u32,
    /// `best`, `multipath`, `lost`, `unreachable` or `rejected`.
    pub usage: String,
    /// The step of the decision process that put it where it is, with what was compared; or why it is not considered.
    pub why: Option<String>,
    /// Whether the peer is away or has not repeated it yet.
    pub stale: bool,
    /// What import policy said, and by which rule.
    pub import: String,
    /// What import changed, in words.
    pub changes: Vec<String>,
    /// Attributes as received.
    pub received: AttributesReport,
    /// Attributes after import policy; none if it was refused.
    pub accepted: Option<AttributesReport>,
    /// How the next hop is reached, where that is through another router.
    pub reached: Option<String>,
}

/// Attributes of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttributesReport {
    /// ORIGIN.
    pub origin: String,
    /// AS_PATH.
    pub as_path: String,
    /// The next hop; none: this speaker.
    pub next_hop: Option<String>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// Communities, small and large ones.
    pub communities: Vec<String>,
    /// ORIGINATOR_ID.
    pub originator_id: Option<String>,
    /// CLUSTER_LIST.
    pub cluster_list: Vec<String>,
}

/// What a peer is told about a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnnouncementReport {
    /// Name of the peer.
    pub peer: String,
    /// Which path: its place in the list, from 0; none: no path comes into question.
    pub path: Option<usize>,
    /// The identifier that we give it (RFC 7911); 0 without ADD-PATH.
    pub path_id: u32,
    /// Whether it went into the messages for the peer.
    pub told: bool,
    /// The rule that let it pass, or what stopped it.
    pub why: String,
    /// What export changed, in words.
    pub changes: Vec<String>,
    /// Attributes as they go out; none: not for this peer.
    pub attributes: Option<AttributesReport>,
}

/// The kernel's part of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KernelReport {
    /// `installed`, `waiting` (for the writer's answer), `refused`, `local`, `none`, `kept` (while restarting) or `off`.
    pub state: String,
    /// The next hops that the kernel has, or should have.
    pub next_hops: Vec<String>,
    /// Whether the route drops packets (RFC 7999); `why` names who asked for it.
    pub blackhole: bool,
    /// Why the kernel does not have the route, or what it has instead.
    pub why: Option<String>,
}

impl From<&RouteExplanation> for RouteReport {
    fn from(route: &RouteExplanation) -> Self {
        let accepted = |place: Option<usize>| route.paths.get(place?)?.accepted.as_ref();
        let announcements = route.announcements.iter();
        Self {
            prefix: route.prefix.to_string(),
            paths: route
                .paths
                .iter()
                .enumerate()
                .map(|(place, path)| path_of(place, path))
                .collect(),
            announcements: announcements
                .map(|each| announcement(each, accepted(each.path)))
                .collect(),
            kernel: kernel(&route.fib, route.paths.first()),
        }
    }
}

fn path_of(place: usize, path: &PathExplanation) -> PathReport {
    let (usage, why) = usage(&path.usage);
    let why = match (&path.rank, place.checked_sub(1)) {
        (Some(rank), before) => Some(ranked(rank, before)),
        (None, _) => why,
    };
    let changed = path.accepted.as_ref().map(|accepted| changes(&path.received, accepted));
    let blackhole = match path.blackhole {
        None => "",
        Some(BlackholeState::Honoured) => "; packets are dropped (BLACKHOLE, RFC 7999)",
        Some(BlackholeState::NotAgreed) => "; its BLACKHOLE is not agreed with this peer",
    };
    let import = match &path.import {
        ImportReason::Local => "originated here".to_owned(),
        ImportReason::Accepted(rule) => format!("accepted: {rule}"),
        ImportReason::Changed(rule) => format!("accepted with changes: {rule}"),
        ImportReason::Rejected(rule) => format!("rejected: {rule}"),
        ImportReason::BeforePolicy => "refused before policy".to_owned(),
    };
    PathReport {
        peer: path.peer.clone(),
        address: path.address,
        path_id: path.path_id,
        usage: usage.to_owned(),
        why,
        stale: path.stale,
        import: import + blackhole,
        changes: changed.unwrap_or_default(),
        received: AttributesReport::from(&path.received),
        accepted: path.accepted.as_ref().map(AttributesReport::from),
        reached: path.reached.clone(),
    }
}

/// The step that put the path behind the one before it; of the first path, the second behind it.
fn ranked(rank: &Rank, before: Option<usize>) -> String {
    let step = rank.step;
    let other = match before {
        Some(before) => format!("path {}", before.saturating_add(1)),
        None => "path 2".to_owned(),
    };
    match &rank.compared {
        Some((this, that)) => format!("{step}: {this}, {other} has {that}"),
        None => step.to_string(),
    }
}

/// What became of a path, and why.
pub fn usage(usage: &Usage) -> (&'static str, Option<String>) {
    match usage {
        Usage::Best(why) => ("best", Some(why.to_string())),
        Usage::Multipath => ("multipath", None),
        Usage::Lost(why) => ("lost", Some(why.to_string())),
        Usage::Unreachable(why) => ("unreachable", Some(why.clone())),
        Usage::Rejected(why) => ("rejected", Some((*why).into())),
    }
}

fn announcement(each: &Announcement, accepted: Option<&PathAttributes>) -> AnnouncementReport {
    let changed = accepted.zip(each.attributes.as_ref()).map(|(from, to)| changes(from, to));
    AnnouncementReport {
        peer: each.peer.clone(),
        path: each.path,
        path_id: each.path_id,
        told: each.told,
        why: each.reason.clone(),
        changes: changed.unwrap_or_default(),
        attributes: each.attributes.as_ref().map(AttributesReport::from),
    }
}

fn kernel(state: &FibState, best: Option<&PathExplanation>) -> KernelReport {
    let routed = |state: &str, route: &FibRoute, why: Option<&str>| KernelReport {
        state: state.to_owned(),
        next_hops: route.next_hops().iter().map(next_hop).collect(),
        blackhole: *route == FibRoute::Blackhole,
        why: why.map(str::to_owned),
    };
    let report = |state: &str, why: &str| routed(state, &FibRoute::Absent, Some(why));
    match state {
        FibState::Installed(FibRoute::Blackhole) => {
            routed("installed", &FibRoute::Blackhole, Some(&blackholed(best)))
        }
        FibState::Installed(route) => routed("installed", route, None),
        FibState::Told(route) => routed("waiting", route, Some("being written")),
        FibState::Refused { route, why } => routed("refused", route, Some(why)),
        FibState::Local => report("local", "originated here: the way to it is not BGP's to write"),
        FibState::NoPath => report("none", "no path is usable"),
        FibState::Unreachable(why) => report("none", why),
        FibState::Restarting => {
            report("kept", "as before the restart, until peers have sent their tables")
        }
        FibState::Off => report("off", "this speaker writes no routes"),
    }
}

/// Who asked for packets to be dropped.
fn blackholed(best: Option<&PathExplanation>) -> String {
    let who = best.and_then(|path| match path.address {
        Some(address) => Some(address.to_string()),
        None => path.peer.clone(),
    });
    let who = who.unwrap_or_else(|| "a peer that is gone".to_owned());
    format!("blackholed: community {} from {who}, RFC 7999", Community::BLACKHOLE.number())
}

fn next_hop(hop: &FibNextHop) -> String {
    match &hop.interface {
        Some(interface) => format!("{} dev {interface}", hop.address),
        None => hop.address.to_string(),
    }
}

impl From<&PathAttributes> for AttributesReport {
    fn from(attributes: &PathAttributes) -> Self {
        Self {
            origin: attributes.origin.to_string(),
            as_path: attributes.as_path.to_string(),
            next_hop: attributes.next_hop.map(|next_hop| next_hop.address.to_string()),
            med: attributes.med,
            local_pref: attributes.local_pref,
            communities: communities(attributes),
            originator_id: attributes.originator_id.map(|id| id.to_string()),
            cluster_list: attributes.cluster_list.iter().map(ToString::to_string).collect(),
        }
    }
}

fn communities(attributes: &PathAttributes) -> Vec<String> {
    let standard = attributes.communities.iter().map(ToString::to_string);
    let large = attributes.large_communities.iter().map(ToString::to_string);
    standard.chain(large).collect()
}

/// Says what is different, one change each.
fn changes(from: &PathAttributes, to: &PathAttributes) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |what: &str, from: Option<String>, to: Option<String>| {
        let word = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        if from != to {
            found.push(format!("{what} {} -> {}", word(from), word(to)));
        }
    };
    let number = |value: Option<u32>| value.map(|number| number.to_string());
    note("next hop", hop_of(from), hop_of(to));
    note("local preference", number(from.local_pref), number(to.local_pref));
    note("MED", number(from.med), number(to.med));
    let prepended = to.as_path.0.strip_suffix(from.as_path.0.as_slice());
    match prepended {
        Some([]) => {}
        Some(asns) => {
            let asns: Vec<String> = asns.iter().map(ToString::to_string).collect();
            found.push(format!("AS path: {} put in front", asns.join(" ")));
        }
        None => found.push(format!("AS path {} -> {}", from.as_path, to.as_path)),
    }
    let (before, after) = (communities(from), communities(to));
    let added = after.iter().filter(|each| !before.contains(each));
    found.extend(added.map(|each| format!("community {each} added")));
    let removed = before.iter().filter(|each| !after.contains(each));
    found.extend(removed.map(|each| format!("community {each} removed")));
    if from.only_to_customer() != to.only_to_customer()
        && let Some(asn) = to.only_to_customer()
    {
        found.push(format!("ONLY_TO_CUSTOMER {asn} added (RFC 9234)"));
    }
    if from.cluster_list.len() < to.cluster_list.len() {
        found.push("reflected: ORIGINATOR_ID and CLUSTER_LIST (RFC 4456)".to_owned());
    }
    found
}

fn hop_of(attributes: &PathAttributes) -> Option<String> {
    let hop = attributes.next_hop.map(|next_hop| next_hop.address.to_string());
    Some(hop.unwrap_or_else(|| "self".to_owned()))
}

impl RouteReport {
    /// Says whether packets to the prefix have a way, here or to a peer.
    pub fn is_used(&self) -> bool {
        self.paths.iter().any(|path| path.usage == "best")
    }
}

impl AttributesReport {
    /// LOCAL_PREF as decisions see it.
    fn preference(&self) -> u32 {
        self.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
    }
}
