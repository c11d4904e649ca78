//! The report in words, for terminals of 80 columns.

use super::{AnnouncementReport, AttributesReport, PathReport, RouteReport};

const WIDTH: usize = 80;

impl RouteReport {
    /// Renders the report. `wide` shows every attribute, as received and as it goes out.
    pub fn to_text(&self, wide: bool) -> String {
        let mut text = String::new();
        for (path, number) in self.paths.iter().zip(1..) {
            path.write(number, wide, &mut text);
        }
        self.write_kernel(&mut text);
        self.write_announcements(wide, &mut text);
        text
    }

    fn write_kernel(&self, text: &mut String) {
        let why = self.kernel.why.as_deref().unwrap_or_default();
        let to = match self.kernel.blackhole {
            true => "as a blackhole".to_owned(),
            false => format!("via {}", self.kernel.next_hops.join(", ")),
        };
        let line = match self.kernel.state.as_str() {
            "installed" if self.kernel.blackhole => why.to_owned(),
            "installed" => format!("installed {to}"),
            "waiting" => format!("not there yet: {why}, {to}"),
            "refused" => format!("NOT installed {to}: {why}"),
            "local" => why.to_owned(),
            "none" => format!("no route: {why}"),
            "kept" => format!("unchanged: {why}"),
            _ => format!("not looked after: {why}"),
        };
        field("kernel:", 0, 10, &line, text);
    }

    fn write_announcements(&self, wide: bool, text: &mut String) {
        if self.announcements.is_empty() {
            field("told:", 0, 10, "nobody: there is no peer", text);
            return;
        }
        text.push_str("told:\n");
        let widest = self.announcements.iter().map(|each| each.peer.chars().count()).max();
        let column = widest.unwrap_or(0).clamp(4, 30).saturating_add(4);
        let several = self.announcements.iter().any(|each| each.path_id != 0);
        for each in &self.announcements {
            each.write(column, several, wide, text);
        }
    }
}

impl PathReport {
    fn write(&self, number: usize, wide: bool, text: &mut String) {
        let from = match (&self.peer, self.address) {
            (None, _) => "originated here".to_owned(),
            (Some(name), Some(address)) if *name != address.to_string() => {
                format!("from {name} ({address})")
            }
            (Some(name), _) => format!("from {name}"),
        };
        let id = if self.path_id == 0 { String::new() } else { format!(", id {}", self.path_id) };
        let verdict = match self.usage.as_str() {
            "best" => "BEST",
            "multipath" => "USED TOO (shares the load)",
            "lost" => "not used",
            "unreachable" => "not usable",
            _ => "REFUSED",
        };
        let stale = if self.stale { ", stale" } else { "" };
        field(&format!("{number}."), 0, 4, &format!("{from}{id}: {verdict}{stale}"), text);
        let shown = self.accepted.as_ref().unwrap_or(&self.received);
        field("route:", 4, 12, &shown.line(wide), text);
        if let Some(reached) = &self.reached {
            field("reach:", 4, 12, reached, text);
        }
        if let Some(why) = &self.why {
            field("why:", 4, 12, why, text);
        }
        let changes = if self.changes.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.changes.join(", "))
        };
        // Of our own routes that was said.
        if self.peer.is_some() {
            field("import:", 4, 12, &format!("{}{changes}", self.import), text);
        }
        if wide && self.accepted.as_ref().is_some_and(|accepted| *accepted != self.received) {
            field("before:", 4, 12, &self.received.line(true), text);
        }
    }
}

impl AnnouncementReport {
    fn write(&self, column: usize, several: bool, wide: bool, text: &mut String) {
        let verdict = match (&self.attributes, self.told) {
            (None, _) => "no ",
            (Some(_), true) => "yes",
            (Some(_), false) => "not yet",
        };
        let path = match self.path {
            Some(path) if several => format!(" path {}", path.saturating_add(1)),
            _ => String::new(),
        };
        let changes = if wide && !self.changes.is_empty() {
            format!(" ({})", self.changes.join(", "))
        } else {
            String::new()
        };
        let line = format!("{verdict}{path}  {}{changes}", self.why);
        field(&self.peer, 2, column, &line, text);
    }
}

impl AttributesReport {
    /// What people look at first; `wide` adds the rest.
    pub(super) fn line(&self, wide: bool) -> String {
        let hop = self.next_hop.as_deref().unwrap_or("self");
        let mut parts = vec![format!("via {hop}")];
        parts.push(match self.as_path.as_str() {
            "" => "no AS path".to_owned(),
            path => format!("AS path {path}"),
        });
        if wide || self.local_pref.is_some() {
            parts.push(format!("local preference {}", self.preference()));
        }
        if let Some(med) = self.med {
            parts.push(format!("MED {med}"));
        }
        if wide || self.origin != "igp" {
            parts.push(format!("origin {}", self.origin));
        }
        if !self.communities.is_empty() {
            parts.push(format!("communities {}", self.communities.join(" ")));
        }
        if wide {
            parts.extend(self.originator_id.iter().map(|id| format!("originator {id}")));
            if !self.cluster_list.is_empty() {
                parts.push(format!("clusters {}", self.cluster_list.join(" ")));
            }
        }
        parts.join(", ")
    }
}

/// Appends a label and its text, which goes on in its own column on the next lines.
fn field(label: &str, indent: usize, column: usize, line: &str, text: &mut String) {
    let mut row = format!("{:indent$}{label}", "");
    // A label that is too long has a line for itself.
    if row.chars().count() >= column {
        text.push_str(&row);
        text.push('\n');
        row.clear();
    }
    let mut empty = true;
    pad(&mut row, column);
    // Two spaces are a column inside the text and stay.
    for word in line.split(' ') {
        let length = row.chars().count().saturating_add(word.chars().count()).saturating_add(1);
        if !empty && length > WIDTH {
            text.push_str(row.trim_end());
            text.push('\n');
            row.clear();
            pad(&mut row, column);
            empty = true;
        }
        if !empty {
            row.push(' ');
        }
        row.push_str(word);
        empty = false;
    }
    text.push_str(row.trim_end());
    text.push('\n');
}

fn pad(row: &mut String, column: usize) {
    while row.chars().count() < column {
        row.push(' ');
    }
}
