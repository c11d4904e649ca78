//! Who reaches whom: asked of the network, compared with what the policies say.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use tokio::task::spawn_blocking;

use super::{
    oracle::{self, Attempt},
    output::{self, Cell, Verdict},
    probe::{self, PATIENT, Plan, QUICK, Target},
    view::DemoPod,
};
use crate::procfs::now;

/// One connection of the matrix.
#[derive(Clone, Debug)]
struct Probe {
    from: usize,
    to: usize,
    address: SocketAddr,
    /// The port that the matrix shows; others are only checked.
    main: bool,
    open: bool,
    expected: bool,
}

/// All pods, and all connections among them.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub(super) pods: Vec<DemoPod>,
    probes: Vec<Probe>,
}

impl Matrix {
    /// Everyone to all ports of everyone else, over both families.
    pub(super) fn new(pods: Vec<DemoPod>) -> Self {
        let mut probes = Vec::new();
        for (from, source) in pods.iter().enumerate() {
            for (to, destination) in pods.iter().enumerate().filter(|(to, _)| *to != from) {
                for (nth, port) in destination.ports.iter().enumerate() {
                    let reachable = destination.addresses.iter().filter(|address| {
                        probe::of_family(&source.addresses, address.is_ipv4()).is_some()
                    });
                    probes.extend(reachable.map(|address| Probe {
                        from,
                        to,
                        address: SocketAddr::new(*address, *port),
                        main: nth == 0,
                        open: false,
                        expected: true,
                    }));
                }
            }
        }
        Self { pods, probes }
    }

    /// Sets what the policies allow.
    fn expect(&mut self, policies: &[NetworkPolicy]) {
        let pods = &self.pods;
        for probe in &mut self.probes {
            let (Some(from), Some(to)) = (pods.get(probe.from), pods.get(probe.to)) else {
                continue;
            };
            let destination = probe.address.ip();
            let source = probe::of_family(&from.addresses, destination.is_ipv4());
            probe.expected = source.is_some_and(|source| {
                let (from, to) = (&from.subject, &to.subject);
                oracle::allowed(
                    policies,
                    Attempt { from, source, to, destination, port: probe.address.port() },
                )
            });
        }
    }

    /// Asks the network about some connections; all at once.
    async fn ask(&mut self, limit: Duration, which: impl Fn(&Probe) -> bool) -> Result<()> {
        let mut plan: Plan = self.pods.iter().map(|pod| (pod.netns.clone(), Vec::new())).collect();
        let mut order: Vec<Vec<usize>> = vec![Vec::new(); self.pods.len()];
        for (number, probe) in self.probes.iter().enumerate().filter(|(_, probe)| which(probe)) {
            let (Some((_, targets)), Some(numbers), Some(to)) =
                (plan.get_mut(probe.from), order.get_mut(probe.from), self.pods.get(probe.to))
            else {
                continue;
            };
            targets.push(Target { address: probe.address, name: to.name.clone() });
            numbers.push(number);
        }
        let answers = spawn_blocking(move || probe::run(&plan, limit)).await??;
        for (numbers, answers) in order.iter().zip(answers) {
            for (number, open) in numbers.iter().zip(answers) {
                if let Some(probe) = self.probes.get_mut(*number) {
                    probe.open = open;
                }
            }
        }
        Ok(())
    }

    /// Asks about everything until it is as the policies say, and returns what still is not when time is up.
    pub(super) async fn settle(
        &mut self,
        policies: &[NetworkPolicy],
        patience: Duration,
    ) -> Result<Vec<String>> {
        self.expect(policies);
        let end = now() + patience;
        self.ask(PATIENT, |_| true).await?;
        while now() < end && self.probes.iter().any(|probe| probe.open != probe.expected) {
            self.ask(PATIENT, |probe| probe.open != probe.expected).await?;
        }
        Ok(self.surprises())
    }

    /// Waits until connections that new policies close or open are so; says when the last one was.
    pub(super) async fn converge(&mut self, policies: &[NetworkPolicy]) -> Result<Option<Instant>> {
        self.expect(policies);
        let end = now() + Duration::from_secs(5);
        let mut last = None;
        // One pod's view of one change is enough, and probes of what is still open answer at once.
        while let Some(position) = self.probes.iter().position(|probe| probe.open != probe.expected)
        {
            let at = now();
            self.ask_one(position).await?;
            if self.probes.get(position).is_some_and(|probe| probe.open == probe.expected) {
                last = Some(at);
                return Ok(last);
            }
            if now() > end {
                return Ok(None);
            }
        }
        Ok(last)
    }

    async fn ask_one(&mut self, position: usize) -> Result<()> {
        let Some(probe) = self.probes.get(position).cloned() else { return Ok(()) };
        let same = |other: &Probe| (other.from, other.address) == (probe.from, probe.address);
        self.ask(QUICK, same).await
    }

    /// Connections that are not as expected.
    fn surprises(&self) -> Vec<String> {
        let unexpected = self.probes.iter().filter(|probe| probe.open != probe.expected);
        unexpected
            .map(|probe| {
                format!("{} {}", self.describe(probe), if probe.open { "open" } else { "closed" })
            })
            .collect()
    }

    fn describe(&self, probe: &Probe) -> String {
        let name = |index: usize| self.pods.get(index).map(DemoPod::key).unwrap_or_default();
        format!("{} → {} ({})", name(probe.from), name(probe.to), probe.address)
    }

    /// Asks about everything once, without waiting for better, and returns connections that policy should have stopped.
    pub(super) async fn leaks(&mut self) -> Result<(usize, Vec<String>)> {
        self.ask(QUICK, |probe| !probe.expected).await?;
        let asked = self.probes.iter().filter(|probe| !probe.expected);
        let leaks =
            asked.clone().filter(|probe| probe.open).map(|probe| self.describe(probe)).collect();
        Ok((asked.count(), leaks))
    }

    /// Open connections and all connections.
    pub(super) fn open(&self) -> (usize, usize) {
        (self.probes.iter().filter(|probe| probe.open).count(), self.probes.len())
    }

    /// Allowed connections between pods on different nodes: source, destination, address.
    pub(super) fn paths(&self) -> Vec<(&DemoPod, &DemoPod, SocketAddr)> {
        self.probes
            .iter()
            .filter(|probe| probe.expected)
            .filter_map(|probe| {
                Some((self.pods.get(probe.from)?, self.pods.get(probe.to)?, probe.address))
            })
            .filter(|(from, to, _)| from.node != to.node)
            .collect()
    }

    /// The picture: main ports only.
    pub(super) fn render(&self) -> String {
        let names: Vec<_> = self.pods.iter().map(DemoPod::key).collect();
        let mut cells = vec![vec![Cell::default(); names.len()]; names.len()];
        for probe in self.probes.iter().filter(|probe| probe.main) {
            let Some(cell) = cells.get_mut(probe.from).and_then(|row| row.get_mut(probe.to)) else {
                continue;
            };
            let verdict = Some(Verdict { open: probe.open, expected: probe.expected });
            if probe.address.is_ipv4() {
                cell.v4 = verdict;
            } else {
                cell.v6 = verdict;
            }
        }
        output::matrix(&names, &cells)
    }
}
