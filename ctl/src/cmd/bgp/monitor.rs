//! `voilectl bgp monitor`: changes of sessions and of best paths on every node, as they happen.
//!
//! Each node is asked one question at a time, which it answers as soon as something happened; the next question follows.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use api::{BgpQuery, BgpQuerySpec, BgpWatchQuery, Key, QUERY_LABEL, Resource as _};
use bgp::report::HappeningsReport;
use futures::StreamExt as _;
use ipam::Clock;
use serde::Serialize;
use store::{
    DeletePreconditions, ListOptions, Store,
    informer::{Change, FollowOptions, follow},
};
use tokio::time::Instant;

use super::{Context, Outcome, ask, which::Which};
use crate::output::{Flow, Format};

/// A daemon answers at the latest after ten seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two questions to a node that does not answer.
const RETRY: Duration = Duration::from_secs(10);

/// What happened on one node, as `-o json` has it: one object a line.
#[derive(Debug, Serialize)]
struct NodeHappenings<'a> {
    node: &'a str,
    at: String,
    #[serde(flatten)]
    happened: HappeningsReport,
}

/// Runs `bgp monitor` until interrupted, until nobody reads any more, or for so long.
///
/// # Errors
/// A node that does not exist, and whatever the API server answers.
pub async fn monitor<S: Store>(
    context: &Context<S>,
    words: &[String],
    lasting: Option<Duration>,
) -> Result<Outcome> {
    let which = Which::read(words)?;
    let mut round = Round::begin(context, which).await?;
    let over = async {
        match lasting {
            Some(lasting) => tokio::time::sleep(lasting).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = round.run() => result,
        () = over => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    round.end().await;
    result.map(|()| Outcome::default())
}

/// The questions that are open.
struct Round<'a, S> {
    context: &'a Context<S>,
    id: String,
    which: Which,
    /// By node: the question, and when we give up on it.
    open: BTreeMap<String, (Key, Instant)>,
    /// Nodes that are asked again later.
    later: BTreeMap<String, Instant>,
}

impl<'a, S: Store> Round<'a, S> {
    async fn begin(context: &'a Context<S>, which: Which) -> Result<Self> {
        let nodes = ask::nodes(context, which.node.as_deref()).await?;
        let mut round = Self {
            context,
            id: ask::id(context),
            which,
            open: BTreeMap::new(),
            later: BTreeMap::new(),
        };
        for (node, silent) in nodes {
            match silent {
                None => round.put(&node).await?,
                Some(why) => drop(round.say(&node, &why)?),
            }
        }
        Ok(round)
    }

    async fn put(&mut self, node: &str) -> Result<()> {
        let watch = BgpWatchQuery {
            watcher: self.id.clone(),
            within: self.which.within.map(|prefix| prefix.to_string()),
        };
        let question = BgpQuerySpec { watch: Some(watch), ..BgpQuerySpec::default() };
        let query = ask::query(&self.id, node, &question);
        self.open.insert(node.to_owned(), (query.key(), Instant::now() + PATIENCE));
        ask::create(self.context, &query).await
    }

    /// Reads answers and asks again. Cancel-safe: what is open stays known.
    async fn run(&mut self) -> Result<()> {
        let ours = ListOptions::cached().label(QUERY_LABEL, &self.id);
        let store = self.context.store.clone();
        let mut changes = std::pin::pin!(follow::<BgpQuery>(store, FollowOptions::new(ours)));
        loop {
            let deadlines = self.open.values().map(|(_, at)| at).chain(self.later.values());
            let deadline = deadlines.min().copied();
            let deadline = deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
            let change = tokio::select! {
                change = changes.next() => change,
                () = tokio::time::sleep_until(deadline) => {
                    if self.expire().await? == Flow::Enough {
                        return Ok(());
                    }
                    continue;
                }
            };
            match change {
                Some(Change::Applied(query)) => {
                    if self.take(&query).await? == Flow::Enough {
                        return Ok(());
                    }
                }
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }

    async fn take(&mut self, query: &BgpQuery) -> Result<Flow> {
        let node = query.spec.node.clone();
        let is_open = self.open.get(&node).is_some_and(|(key, _)| *key == query.key());
        let Some(status) = query.status.as_ref().filter(|status| status.answered_at.is_some())
        else {
            return Ok(Flow::More);
        };
        if !is_open {
            return Ok(Flow::More);
        }
        self.open.remove(&node);
        self.delete(&query.key()).await;
        let flow = match (&status.answer, &status.error) {
            (Some(answer), _) => {
                let report: HappeningsReport = serde_json::from_str(answer)
                    .with_context(|| format!("{node} answers in another version's words"))?;
                self.put(&node).await?;
                self.print(&node, report)?
            }
            (None, error) => {
                self.later.insert(node.clone(), Instant::now() + RETRY);
                self.say(&node, error.as_deref().unwrap_or("an empty answer"))?
            }
        };
        Ok(flow)
    }

    async fn expire(&mut self) -> Result<Flow> {
        let now = Instant::now();
        let late: Vec<String> = self
            .open
            .iter()
            .filter(|(_, (_, at))| *at <= now)
            .map(|(node, _)| node.clone())
            .collect();
        for node in late {
            if let Some((key, _)) = self.open.remove(&node) {
                self.delete(&key).await;
            }
            let flow = self.say(&node, "no answer; look at the log of voile-node on it")?;
            self.later.insert(node, now + RETRY);
            if flow == Flow::Enough {
                return Ok(flow);
            }
        }
        let due = self.later.extract_if(.., |_, at| *at <= now);
        let due: Vec<String> = due.map(|(node, _)| node).collect();
        for node in due {
            self.put(&node).await?;
        }
        Ok(Flow::More)
    }

    /// What we cannot remove the daemons do.
    async fn delete(&self, key: &Key) {
        let none = DeletePreconditions::default();
        let _ = self.context.store.delete::<BgpQuery>(key, &none).await;
    }

    async fn end(&self) {
        for (key, _) in self.open.values() {
            self.delete(key).await;
        }
    }

    fn print(&self, node: &str, mut report: HappeningsReport) -> Result<Flow> {
        if let Some(peer) = &self.which.peer {
            report.sessions.retain(|each| each.peer == *peer || each.address.to_string() == *peer);
        }
        if report.is_empty() {
            return Ok(Flow::More);
        }
        let at = Clock::system().now().rfc3339();
        if self.context.format == Format::Json {
            let line = NodeHappenings { node, at, happened: report };
            return self.context.sink.write(&(serde_json::to_string(&line)? + "\n"));
        }
        let lines = report.lines();
        let clock = time_of_day(&at);
        let text: String = lines.iter().map(|line| format!("{clock} {node} {line}\n")).collect();
        self.context.sink.write(&text)
    }

    /// Something about the asking itself.
    fn say(&self, node: &str, what: &str) -> Result<Flow> {
        if self.context.format == Format::Json {
            let line = serde_json::json!({ "node": node, "error": what });
            return self.context.sink.write(&format!("{line}\n"));
        }
        let at = Clock::system().now().rfc3339();
        self.context.sink.write(&format!("{} {node} {what}\n", time_of_day(&at)))
    }
}

/// `09:00:00` of `2026-11-24T09:00:00Z`.
fn time_of_day(at: &str) -> &str {
    at.get(11..19).unwrap_or(at)
}
