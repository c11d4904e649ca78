//! Stage 6: a leaf dies, a node's daemon dies; traffic and policy go on.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    Demo,
    reach::Matrix,
    stages::{few, with_surprises},
    stream::{Report, Stream},
    view,
};
use crate::{
    control::{self, Request},
    processes::{Row, Status},
    procfs::{ProcessId, now},
};

/// Streams of one kind of path; enough that ports spread them over all next hops.
const STREAMS: usize = 12;
/// Longest silence that counts as "traffic continues".
const TOLERABLE: Duration = Duration::from_secs(3);

impl Demo {
    pub(super) async fn failures(&mut self, matrix: &mut Matrix) -> Result<()> {
        self.out.stage(6, "failures");
        self.leaf_dies(matrix).await?;
        self.daemon_dies(matrix).await
    }

    fn ask(&self, request: &Request) -> Result<serde_json::Value> {
        control::ask(&self.layout, request)
    }

    async fn leaf_dies(&mut self, matrix: &mut Matrix) -> Result<()> {
        let uplinks = self.uplinks();
        let leaf = uplinks.values().flatten().next().cloned();
        let Some(leaf) = leaf.filter(|_| uplinks.values().all(|routers| routers.len() > 1)) else {
            self.out.progress("no node has two uplinks here: no router is killed");
            return Ok(());
        };
        let streams = self.start_streams(matrix, None)?;
        sleep(Duration::from_millis(300)).await;
        self.out.progress(&format!(
            "{} streams run; {leaf} is killed and its cables are pulled",
            streams.len()
        ));
        let (killed, killed_at) = (now(), Timestamp::now());
        for name in self.programs(&leaf) {
            self.ask(&Request::Stop { name })?;
        }
        self.ask(&Request::Links { node: leaf.clone(), up: false })?;
        let policies = view::policies(&self.client).await?;
        let report = matrix.settle(&policies, Duration::from_secs(5)).await?;
        let (open, all) = matrix.open();
        let detail = format!(
            "{open} of {all} connections open, as before, {:.1} s later",
            killed.elapsed().as_secs_f64()
        );
        let detail = with_surprises(detail, &report);
        self.check(&format!("connectivity without {leaf}"), report.is_empty(), &detail);
        sleep(Duration::from_secs(1).saturating_sub(killed.elapsed())).await;
        self.finish_streams(&format!("streams survive the death of {leaf}"), streams).await;
        self.ask(&Request::Links { node: leaf.clone(), up: true })?;
        for name in self.programs(&leaf) {
            self.ask(&Request::Resume { name })?;
        }
        let own = view::addresses(&self.layout, &leaf)?;
        let name = format!("sessions return with {leaf}");
        self.await_sessions(&name, killed_at, |_, peer| {
            peer.address.parse().is_ok_and(|address| own.contains(&address))
        })
        .await
    }

    async fn daemon_dies(&mut self, matrix: &mut Matrix) -> Result<()> {
        let Some(node) = matrix.paths().first().map(|(_, to, _)| to.node.clone()) else {
            return Ok(());
        };
        let streams = self.start_streams(matrix, Some(&node))?;
        sleep(Duration::from_millis(300)).await;
        let program = format!("voile-node-{node}");
        let (killed, killed_at) = (now(), Timestamp::now());
        let victim: ProcessId =
            serde_json::from_value(self.ask(&Request::Kill { name: program.clone() })?)?;
        self.out.progress(&format!(
            "{} streams run through {node}; its daemon got SIGKILL",
            streams.len()
        ));
        let (mut asked, mut rounds, mut leaks) = (0, 0, Vec::new());
        // Through the time without a daemon, its start, and its first look at the API server.
        while killed.elapsed() < Duration::from_secs(3) {
            let (count, found) = matrix.leaks().await?;
            asked += count;
            rounds += 1;
            leaks.extend(found);
        }
        let detail = format!(
            "{asked} forbidden connections tried in {rounds} rounds, {} came through",
            leaks.len()
        );
        let detail = with_surprises(detail, &leaks);
        self.check(
            &format!("policy holds while the daemon of {node} is dead and while it starts"),
            leaks.is_empty(),
            &detail,
        );
        self.await_daemon(&node, &program, victim).await?;
        self.finish_streams(&format!("streams survive the death of the daemon of {node}"), streams)
            .await;
        let policies = view::policies(&self.client).await?;
        let report = matrix.settle(&policies, Duration::from_secs(5)).await?;
        let (open, all) = matrix.open();
        let detail = with_surprises(format!("{open} of {all} connections open"), &report);
        self.check(
            &format!("connectivity and policy after the restart on {node}"),
            report.is_empty(),
            &detail,
        );
        let name = format!("sessions return with the daemon of {node}");
        self.await_sessions(&name, killed_at, |on, _| on == node).await
    }

    /// Starts streams along allowed paths between nodes; only to or from `node` if given.
    fn start_streams(&self, matrix: &Matrix, node: Option<&str>) -> Result<Vec<Stream>> {
        let paths = matrix.paths();
        let chosen: Vec<_> = paths
            .iter()
            .filter(|(from, to, _)| node.is_none_or(|node| from.node == node || to.node == node))
            .collect();
        let (v4, v6): (Vec<&_>, Vec<&_>) =
            chosen.iter().partition(|(_, _, address)| address.is_ipv4());
        // Both families, as many different paths as there are, then the same ones again from other ports.
        let halves = [v4, v6].into_iter().filter(|half| !half.is_empty());
        halves
            .flat_map(|half| {
                half.into_iter().cycle().take(STREAMS / 2).copied().collect::<Vec<_>>()
            })
            .map(|(from, _, address)| Stream::start(from.netns.clone(), address))
            .collect()
    }

    async fn finish_streams(&mut self, name: &str, streams: Vec<Stream>) {
        let count = streams.len();
        let finished =
            spawn_blocking(move || streams.into_iter().map(Stream::finish).collect::<Vec<_>>())
                .await;
        let mut total = Report::default();
        let mut broken = Vec::new();
        for report in finished.unwrap_or_default() {
            match report {
                Ok(report) => {
                    total.sent += report.sent;
                    total.echoed += report.echoed;
                    total.longest_silence = total.longest_silence.max(report.longest_silence);
                }
                Err(error) => broken.push(format!("{error:#}")),
            }
        }
        let silence = total.longest_silence;
        let detail = format!(
            "{count} streams, {} numbers sent, {} came back in order, longest silence {} ms",
            total.sent,
            total.echoed,
            silence.as_millis()
        );
        let passed = broken.is_empty() && total.echoed > 0 && silence < TOLERABLE;
        let detail =
            if broken.is_empty() { detail } else { format!("{detail}; broken: {}", few(&broken)) };
        self.check(name, passed, &detail);
    }

    /// Waits for the next life of a node's daemon.
    async fn await_daemon(&mut self, node: &str, program: &str, victim: ProcessId) -> Result<()> {
        let name = format!("daemon of {node} is back");
        let end = now() + Duration::from_secs(15);
        while now() < end {
            let programs: Vec<Row> = control::ask(&self.layout, &Request::List)?;
            let reborn = programs.iter().find_map(|row| match row.status {
                Status::Running(process) if row.name == program => Some(process),
                _ => None,
            });
            let ready = view::ready_nodes(&self.client).await?.iter().any(|ready| ready == node);
            if let Some(process) = reborn.filter(|process| *process != victim && ready) {
                let detail = format!("process {} instead of {}", process.pid, victim.pid);
                self.check(&name, true, &detail);
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        self.check(&name, false, "not within 15 s");
        Ok(())
    }

    /// Waits until all sessions are up, and those that broke came up after the break.
    async fn await_sessions(
        &mut self,
        name: &str,
        broken_at: Timestamp,
        broke: impl Fn(&str, &api::PeerStatus) -> bool,
    ) -> Result<()> {
        let begun = now();
        // What daemons report is in whole seconds.
        let broken_at = broken_at.as_second();
        loop {
            let sessions = view::sessions(&self.client).await?;
            let fresh = |peer: &api::PeerStatus| {
                let since = peer.since.as_ref().and_then(|since| since.parse::<Timestamp>().ok());
                since.is_none_or(|since| since.as_second() >= broken_at)
            };
            let up = sessions
                .iter()
                .filter(|(_, peer)| peer.state == "Established")
                .filter(|(node, peer)| fresh(peer) || !broke(node, peer))
                .count();
            let all = !sessions.is_empty() && up == sessions.len();
            if all || begun.elapsed() > Duration::from_secs(20) {
                let seconds = begun.elapsed().as_secs_f64();
                self.check(name, all, &format!("{up} of {} after {seconds:.1} s", sessions.len()));
                return Ok(());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}
