//! Parts of tables, and what happens now, as data that programs exchange and as text for people.

use serde::{Deserialize, Serialize};

use super::{
    AnnouncementReport, AttributesReport, KernelReport, PathReport, announcement, kernel, path_of,
};
use crate::{
    session::State,
    snapshot::{Happenings, PolicySide, Table, TablePart, TableRoute},
    types::Prefix,
};

/// A part of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TableReport {
    /// Prefixes in order.
    pub routes: Vec<TableRouteReport>,
    /// There may be more behind this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Prefix>,
}

/// A prefix of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TableRouteReport {
    /// The prefix.
    pub prefix: String,
    /// Of Adj-RIB-In the paths received, of Loc-RIB those used; of Adj-RIB-Out those that come into question.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathReport>,
    /// Of Adj-RIB-Out what the peers are told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub announcements: Vec<AnnouncementReport>,
    /// Of Loc-RIB the kernel's part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelReport>,
}

impl From<&TablePart> for TableReport {
    fn from(part: &TablePart) -> Self {
        Self { routes: part.routes.iter().map(TableRouteReport::from).collect(), next: part.next }
    }
}

impl From<&TableRoute> for TableRouteReport {
    fn from(route: &TableRoute) -> Self {
        let accepted = |place: Option<usize>| route.paths.get(place?)?.accepted.as_ref();
        let announcements = route.announcements.iter();
        Self {
            prefix: route.prefix.to_string(),
            paths: route.paths.iter().enumerate().map(|(at, path)| path_of(at, path)).collect(),
            announcements: announcements
                .map(|each| announcement(each, accepted(each.path)))
                .collect(),
            kernel: route.fib.as_ref().map(|fib| kernel(fib, route.paths.first())),
        }
    }
}

impl TableReport {
    /// Names the columns of a table.
    pub fn head(table: Table, wide: bool) -> Vec<&'static str> {
        let mut head = vec!["PREFIX", "PEER", "NEXT HOP", "AS PATH", "MED"];
        if wide {
            head.extend(["ID", "ORIGIN"]);
        }
        head.extend(match table {
            Table::AdjIn => &["COMMUNITIES", "IMPORT"][..],
            Table::Loc => &["PREF", "COMMUNITIES", "USED", "KERNEL"],
            Table::AdjOut => &["COMMUNITIES", "EXPORT"],
        });
        if wide && table != Table::Loc {
            head.push("CHANGES");
        }
        head
    }

    /// Returns the cells of each path; what is not there is `-`.
    pub fn rows(&self, table: Table, policy: PolicySide, wide: bool) -> Vec<Vec<String>> {
        let routes = self.routes.iter();
        match table {
            Table::AdjIn => routes.flat_map(|route| route.received(policy, wide)).collect(),
            Table::Loc => routes.flat_map(|route| route.used(wide)).collect(),
            Table::AdjOut => routes.flat_map(|route| route.told(policy, wide)).collect(),
        }
    }
}

impl TableRouteReport {
    fn received(&self, policy: PolicySide, wide: bool) -> Vec<Vec<String>> {
        let rows = self.paths.iter().map(|path| {
            let shown = match policy {
                PolicySide::Pre => &path.received,
                PolicySide::Post => path.accepted.as_ref().unwrap_or(&path.received),
            };
            let mut row = self.start(path.peer.as_deref(), shown, path.path_id, wide);
            // Loops and the like come before policy; then the reason is another.
            let why = path.why.as_deref().filter(|_| path.import.contains("before policy"));
            let stale = if path.stale { " (stale)" } else { "" };
            row.push(words(&shown.communities));
            row.push(match why {
                Some(why) => format!("{}: {why}{stale}", path.import),
                None => format!("{}{stale}", path.import),
            });
            if wide {
                row.push(listed(&path.changes));
            }
            row
        });
        rows.collect()
    }

    fn used(&self, wide: bool) -> Vec<Vec<String>> {
        let rows = self.paths.iter().map(|path| {
            let shown = path.accepted.as_ref().unwrap_or(&path.received);
            let mut row = self.start(path.peer.as_deref(), shown, path.path_id, wide);
            row.push(shown.local_pref.map_or_else(dash, |number| number.to_string()));
            row.push(words(&shown.communities));
            let why = path.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let stale = if path.stale { " (stale)" } else { "" };
            row.push(format!("{}{stale}{why}", path.usage));
            row.push(match &self.kernel {
                Some(KernelReport { state, why: Some(why), .. }) if state == "refused" => {
                    format!("REFUSED: {why}")
                }
                Some(kernel) => kernel.state.clone(),
                None => dash(),
            });
            row
        });
        rows.collect()
    }

    fn told(&self, policy: PolicySide, wide: bool) -> Vec<Vec<String>> {
        let rows = self.announcements.iter().filter_map(|each| {
            let path = each.path.and_then(|place| self.paths.get(place));
            let before = path.and_then(|path| path.accepted.as_ref());
            let shown = match policy {
                PolicySide::Pre => before,
                PolicySide::Post => each.attributes.as_ref(),
            }?;
            let mut row = self.start(Some(&each.peer), shown, each.path_id, wide);
            row.push(words(&shown.communities));
            row.push(match (&each.attributes, each.told) {
                (Some(_), true) => each.why.clone(),
                (Some(_), false) => format!("not yet: {}", each.why),
                (None, _) => format!("NO: {}", each.why),
            });
            if wide {
                row.push(listed(&each.changes));
            }
            Some(row)
        });
        rows.collect()
    }

    /// The cells that all tables have.
    fn start(
        &self,
        peer: Option<&str>,
        shown: &AttributesReport,
        path_id: u32,
        wide: bool,
    ) -> Vec<String> {
        let hop = shown.next_hop.clone().unwrap_or_else(|| "self".to_owned());
        let path = if shown.as_path.is_empty() { dash() } else { shown.as_path.clone() };
        let med = shown.med.map_or_else(dash, |number| number.to_string());
        let peer = peer.unwrap_or("local").to_owned();
        let mut row = vec![self.prefix.clone(), peer, hop, path, med];
        if wide {
            let id = if path_id == 0 { dash() } else { path_id.to_string() };
            row.extend([id, shown.origin.clone()]);
        }
        row
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn words(all: &[String]) -> String {
    if all.is_empty() { dash() } else { all.join(" ") }
}

fn listed(all: &[String]) -> String {
    if all.is_empty() { dash() } else { all.join(", ") }
}

/// Columns of a table that is printed part by part: as wide as the widest cell so far; the last one is not padded.
#[derive(Clone, Debug)]
pub struct Columns {
    gap: usize,
    widths: Vec<usize>,
}

impl Columns {
    /// Begins a table whose columns are so far apart.
    pub const fn new(gap: usize) -> Self {
        Self { gap, widths: Vec::new() }
    }

    /// Renders the next rows; the first one ever is the head.
    pub fn render(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&self.widths) {
                line += &format!("{cell:width$}{:gap$}", "", gap = self.gap);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// What happened since somebody looked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HappeningsReport {
    /// Changes of sessions, in order.
    pub sessions: Vec<SessionChange>,
    /// Prefixes with another best path than before, each once.
    pub routes: Vec<RouteChange>,
    /// More changed than is remembered.
    pub missed: bool,
}

/// A session changed its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionChange {
    /// How long ago.
    pub seconds_ago: u64,
    /// Name of the peer.
    pub peer: String,
    /// Its address.
    pub address: std::net::IpAddr,
    /// Before.
    pub from: State,
    /// Now.
    pub to: State,
    /// Why, in words.
    pub cause: String,
}

/// A prefix goes another way than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteChange {
    /// The prefix.
    pub prefix: Prefix,
    /// The best path that it has now; none: it has no usable one any more.
    pub best: Option<PathReport>,
}

impl From<&Happenings> for HappeningsReport {
    fn from(all: &Happenings) -> Self {
        let sessions = all.sessions.iter().map(|(ago, event)| SessionChange {
            seconds_ago: ago.as_secs(),
            peer: event.peer.clone(),
            address: event.address,
            from: event.from,
            to: event.to,
            cause: event.cause.clone(),
        });
        let routes = all.routes.iter().map(|(prefix, best)| RouteChange {
            prefix: *prefix,
            best: best.as_ref().map(|path| path_of(0, path)),
        });
        Self { sessions: sessions.collect(), routes: routes.collect(), missed: all.missed }
    }
}

impl HappeningsReport {
    /// Says whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.routes.is_empty() && !self.missed
    }

    /// Renders a line for each thing that happened.
    pub fn lines(&self) -> Vec<String> {
        let sessions = self.sessions.iter().map(|each| {
            let SessionChange { peer, from, to, cause, .. } = each;
            format!("session {peer}: {from} -> {to}: {cause}")
        });
        let routes = self.routes.iter().map(|each| match &each.best {
            None => format!("- {}: no path left", each.prefix),
            Some(path) => {
                let from = match &path.peer {
                    Some(peer) => format!("from {peer} "),
                    None => "originated here, ".to_owned(),
                };
                let shown = path.accepted.as_ref().unwrap_or(&path.received);
                format!("+ {} {from}{}", each.prefix, shown.line(false))
            }
        });
        let missed =
            self.missed.then(|| "more changed than is remembered; look at the tables".to_owned());
        sessions.chain(routes).chain(missed).collect()
    }
}
