//! The state for people: tables from the JSON that the speaker answers with.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use bgp::{
    Prefix,
    report::{Columns, HappeningsReport, RouteReport, TableReport, duration},
    snapshot::{PeerSnapshot, TableQuestion},
};
use serde_json::{Value, json};

use crate::{
    args::Output,
    control::{self, Request},
};

/// Blanks between columns.
const GAP: usize = 2;

/// What to print of an answer.
#[derive(Debug)]
pub(crate) enum View {
    Peers {
        json: bool,
    },
    Peer {
        name: String,
        json: bool,
    },
    Routes {
        prefix: Option<Prefix>,
        json: bool,
    },
    Route {
        output: Output,
    },
    /// An MRT file, not printed but written.
    Dump {
        file: PathBuf,
    },
    /// Numbers.
    Metrics,
    /// What was done.
    Done,
    /// All of it, as JSON.
    Raw,
}

/// Whether the reader of standard output wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    More,
    /// `| head` has seen enough.
    Enough,
}

fn print(text: &str) -> anyhow::Result<Flow> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Flow::More),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Flow::Enough),
        Err(error) => Err(error).context("cannot print"),
    }
}

/// Prints a table part by part, as it comes.
pub(crate) async fn table(
    socket: &Path,
    mut question: TableQuestion,
    output: Output,
) -> anyhow::Result<()> {
    let (table, policy, wide) = (question.table, question.policy, output == Output::Wide);
    let head = TableReport::head(table, wide).into_iter().map(str::to_owned).collect();
    let mut head = vec![head];
    let (mut columns, mut any) = (Columns::new(GAP), false);
    loop {
        let answer = control::ask(socket, &Request::Table(question.clone())).await?;
        let part: TableReport =
            serde_json::from_value(answer).context("the answer is of another version")?;
        let text = if output == Output::Json {
            // One array, over all parts.
            let routes = part.routes.iter().map(|route| {
                let begin = if std::mem::replace(&mut any, true) { "," } else { "[" };
                Ok(format!("{begin}\n{}", serde_json::to_string(route)?))
            });
            routes.collect::<anyhow::Result<String>>()?
        } else {
            let mut rows = std::mem::take(&mut head);
            rows.extend(part.rows(table, policy, wide));
            columns.render(&rows)
        };
        if print(&text)? == Flow::Enough {
            return Ok(());
        }
        if part.next.is_none() {
            break;
        }
        question.after = part.next;
    }
    if output == Output::Json {
        let _ = print(if any { "\n]\n" } else { "[]\n" })?;
    }
    Ok(())
}

/// Prints what happens, until interrupted.
pub(crate) async fn monitor(
    socket: &Path,
    within: Option<Prefix>,
    json: bool,
) -> anyhow::Result<()> {
    control::listen(socket, &Request::Monitor { within }, |answer| {
        let report: HappeningsReport =
            serde_json::from_value(answer.clone()).context("the answer is of another version")?;
        if report.is_empty() {
            return Ok(Flow::More);
        }
        let text = if json {
            format!("{answer}\n")
        } else {
            #[expect(clippy::disallowed_methods, reason = "the rim: lines say when they came")]
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let clock = clock(now.as_secs());
            report.lines().iter().map(|line| format!("{clock} {line}\n")).collect()
        };
        print(&text)
    })
    .await
}

/// The time of day, UTC.
fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

impl View {
    pub(crate) fn print(&self, answer: &Value) -> anyhow::Result<()> {
        print(&self.render(answer)?).map(drop)
    }

    fn render(&self, answer: &Value) -> anyhow::Result<String> {
        Ok(match self {
            Self::Peers { json: true } => format!("{:#}\n", answer["peers"]),
            Self::Peers { json: false } => peers(answer),
            Self::Peer { name, json } => {
                let called = |peer: &&Value| peer["name"] == **name || peer["address"] == **name;
                let peer = list(&answer["peers"]).iter().find(called);
                let Some(peer) = peer else {
                    bail!("there is no peer '{name}'; see `voile-bgpd show peers`");
                };
                if *json {
                    format!("{peer:#}\n")
                } else {
                    let report: PeerSnapshot = serde_json::from_value(peer.clone())
                        .context("the answer is of another version")?;
                    report.to_text()
                }
            }
            Self::Routes { prefix, json } => {
                let within = |route: &&Value| {
                    let own = route["prefix"].as_str().and_then(|text| text.parse::<Prefix>().ok());
                    prefix.is_none_or(|wanted| own.is_some_and(|own| wanted.contains(&own)))
                };
                let routes: Vec<&Value> = list(&answer["routes"]).iter().filter(within).collect();
                match (json, prefix) {
                    (true, _) => format!("{:#}\n", json!(routes)),
                    (false, Some(prefix)) if routes.is_empty() => {
                        bail!("nothing within {prefix} is in the table")
                    }
                    (false, _) => rows(&ROUTE_HEAD, routes.iter().flat_map(|each| paths(each))),
                }
            }
            Self::Route { output: Output::Json } => format!("{answer:#}\n"),
            Self::Route { output } => {
                let report: RouteReport = serde_json::from_value(answer.clone())
                    .context("the answer is of another version")?;
                format!("{}\n{}", report.prefix, report.to_text(*output == Output::Wide))
            }
            Self::Dump { file } => {
                let bytes = bytes(answer["mrt"].as_str().unwrap_or_default());
                std::fs::write(file, bytes)
                    .with_context(|| format!("cannot write {}", file.display()))?;
                String::new()
            }
            Self::Done => format!("{}\n", answer["done"].as_str().unwrap_or("done")),
            Self::Metrics => answer["metrics"].as_str().unwrap_or_default().to_owned(),
            Self::Raw => format!("{answer:#}\n"),
        })
    }
}

/// Reads pairs of hexadecimal digits.
fn bytes(digits: &str) -> Vec<u8> {
    let (pairs, _) = digits.as_bytes().as_chunks::<2>();
    let text = pairs.iter().filter_map(|pair| std::str::from_utf8(pair).ok());
    text.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value without quotation marks; `-` if there is none.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

const PEER_HEAD: [&str; 9] =
    ["PEER", "ADDRESS", "AS", "STATE", "SINCE", "RECEIVED", "ACCEPTED", "ADVERTISED", "LAST ERROR"];

fn peers(answer: &Value) -> String {
    let head = format!(
        "AS {}, router id {}, up {}{}\n",
        word(&answer["as"]),
        word(&answer["routerId"]),
        duration(answer["uptimeSeconds"].as_u64().unwrap_or(0)),
        if answer["restarting"] == true { ", waiting for peers after a restart" } else { "" },
    );
    let rows = list(&answer["peers"]).iter().map(|peer| {
        let fields = ["name", "address", "as", "state"].map(|field| word(&peer[field]));
        let counts = ["prefixesReceived", "prefixesAccepted", "prefixesAdvertised"];
        let mut row = fields.to_vec();
        row.push(duration(peer["sinceSeconds"].as_u64().unwrap_or(0)));
        row.extend(counts.map(|field| word(&peer[field])));
        row.push(if peer["state"] == "Established" {
            "-".into()
        } else {
            word(&peer["lastError"])
        });
        row
    });
    head + &self::rows(&PEER_HEAD, rows)
}

const ROUTE_HEAD: [&str; 7] =
    ["PREFIX", "PEER", "NEXT HOP", "AS PATH", "COMMUNITIES", "USAGE", "WHY"];

fn paths(route: &Value) -> Vec<Vec<String>> {
    let rows = list(&route["paths"]).iter().enumerate().map(|(index, path)| {
        let stale = if path["stale"] == true { " (stale)" } else { "" };
        let peer = if path["peer"].is_null() { "local".into() } else { word(&path["peer"]) };
        vec![
            if index == 0 { word(&route["prefix"]) } else { String::new() },
            peer,
            word(&path["nextHop"]),
            match path["asPath"].as_str() {
                Some("") | None => "-".into(),
                Some(text) => text.to_owned(),
            },
            word(&path["communities"]),
            format!("{}{stale}", word(&path["usage"])),
            word(&path["why"]),
        ]
    });
    rows.collect()
}

fn rows(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    Columns::new(GAP).render(&all)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn answer() -> Value {
        let counters =
            json!({"opens": 1, "updates": 2, "notifications": 0, "keepalives": 3, "refreshes": 0});
        let leaf1 = json!({ "name": "leaf1", "address": "10.0.0.2", "as": 65002, "type": "eBGP",
                  "state": "Established", "sinceSeconds": 61, "lastError": "nothing listens on 10.0.0.2:179",
                  "families": ["ipv4"], "stale": [], "bfd": "Up", "gracefulRestart": true,
                  "flaps": 2, "losses": {"hold_timer": 1, "bfd": 1}, "nearLimit": true, "maxPrefixes": 4,
                  "lastUpdateSeconds": 5, "queuedOctets": 0, "sent": counters, "received": counters,
                  "prefixesReceived": 3, "prefixesAccepted": 1, "prefixesInstalled": 1, "prefixesBlackholed": 0, "prefixesAdvertised": 3,
                  "prefixes": {"ipv4": {"received": 3, "accepted": 1, "stale": 1, "advertised": 3}},
                  "treatedAsWithdraw": 0, "discardedAttributes": 0, "ignoredRoutes": 0,
                  "history": [{ "secondsAgo": 61, "from": "Connect", "to": "Active",
                      "cause": "nothing listens on 10.0.0.2:179", "times": 7 }] });
        json!({
            "as": 65001, "routerId": "10.0.0.1", "uptimeSeconds": 90_061, "restarting": false,
            "peers": [
                leaf1,
                { "name": "leaf2", "address": "10.0.0.3", "as": 65003, "state": "Idle",
                  "sinceSeconds": 3, "lastError": "peer is AS 65009, configured 65003" },
            ],
            "routes": [
                { "prefix": "10.1.0.0/16", "paths": [
                    { "peer": "leaf1", "nextHop": "10.0.0.2", "asPath": "65002 7", "stale": true,
                      "communities": ["65002:1"], "usage": "best", "why": "only path" } ] },
                { "prefix": "10.2.0.0/16", "paths": [
                    { "peer": null, "nextHop": null, "asPath": "", "communities": [],
                      "usage": "best", "why": "local origin" },
                    { "peer": "leaf1", "nextHop": "10.0.0.2", "asPath": "65002", "communities": [],
                      "usage": "lost", "why": "local origin" } ] },
            ],
        })
    }

    #[test]
    fn tables() {
        let show = |view: View| view.render(&answer()).unwrap();
        expect![[r#"
            AS 65001, router id 10.0.0.1, up 1d01h
            PEER   ADDRESS   AS     STATE        SINCE  RECEIVED  ACCEPTED  ADVERTISED  LAST ERROR
            leaf1  10.0.0.2  65002  Established  1m01s  3         1         3           -
            leaf2  10.0.0.3  65003  Idle         3s     -         -         -           peer is AS 65009, configured 65003
        "#]].assert_eq(&show(View::Peers { json: false }));
        expect![[r#"
            name:               leaf1
            address:            10.0.0.2
            AS:                 65002
            type:               eBGP
            state:              Established for 1m01s
            lost:               2 times (1 hold timer, 1 BFD)
            last error:         nothing listens on 10.0.0.2:179
            router id:          -
            local address:      -
            families:           ipv4
            hold time:          -
            graceful restart:   negotiated
            stale:              -
            BFD:                Up
            prefixes:           ipv4: 3 received, 1 accepted, 3 advertised, 1 stale
                                at most 4 may be received; CLOSE TO IT
            in use:             1 installed, 0 blackholed
            sent:               2 UPDATE, 3 KEEPALIVE, 1 OPEN, 0 NOTIFICATION, 0 ROUTE-REFRESH
            received:           2 UPDATE, 3 KEEPALIVE, 1 OPEN, 0 NOTIFICATION, 0 ROUTE-REFRESH
            last UPDATE:        5s ago
            to be sent:         0 octets
            errors (RFC 7606):  0 updates treated as withdraw, 0 attributes discarded, 0 routes ignored
            history:
                1m01s ago  Connect -> Active: nothing listens on 10.0.0.2:179 (7 times)
        "#]]
        .assert_eq(&show(View::Peer { name: "leaf1".into(), json: false }));
        expect![[r#"
            PREFIX       PEER   NEXT HOP  AS PATH  COMMUNITIES  USAGE         WHY
            10.1.0.0/16  leaf1  10.0.0.2  65002 7  65002:1      best (stale)  only path
            10.2.0.0/16  local  -         -        -            best          local origin
                         leaf1  10.0.0.2  65002    -            lost          local origin
        "#]]
        .assert_eq(&show(View::Routes { prefix: None, json: false }));
        let prefix = Some("10.1.0.0/16".parse().unwrap());
        let only = show(View::Routes { prefix, json: true });
        assert!(only.contains("10.1.0.0/16") && !only.contains("10.2.0.0/16"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = |view: View| view.render(&answer()).unwrap_err().to_string();
        let prefix = Some("192.0.2.0/24".parse().unwrap());
        assert_eq!(
            error(View::Routes { prefix, json: false }),
            "nothing within 192.0.2.0/24 is in the table"
        );
        assert_eq!(
            error(View::Peer { name: "x".into(), json: true }),
            "there is no peer 'x'; see `voile-bgpd show peers`"
        );
    }
}
