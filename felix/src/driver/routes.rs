//! The only writer of our kernel routes: pods and blocks (protocol 80), BGP (protocol 186).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use kernel::{
    Event, Monitor, Netlink, NextHop, Report, Route, RouteTable,
    route::{PROTOCOL_BGP, PROTOCOL_WORKLOAD},
};

use super::{FibEntry, FibOutcome, FibRoute, LocalRoute};

/// Metric of every route of ours, as Calico has it.
pub const METRIC: u32 = 1024;

/// Wanted and actual routes, and the sockets in between.
pub(super) struct Routes {
    table: RouteTable,
    netlink: Netlink,
    /// Prefixes of ours that are in the kernel.
    present: BTreeSet<IpNet>,
    /// Whether a refused route waits for another attempt.
    refused: bool,
    /// Routes of BGP that were set since the last write.
    told: Vec<IpNet>,
}

/// What happened to routes.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Routes written that had been there before.
    pub(super) repaired: Vec<IpNet>,
    /// Refusals in words.
    pub(super) failed: Vec<String>,
    /// What became of routes of BGP.
    pub(super) fib: Vec<FibOutcome>,
}

impl Routes {
    pub(super) fn open() -> kernel::Result<Self> {
        Ok(Self {
            table: RouteTable::new([PROTOCOL_WORKLOAD, PROTOCOL_BGP]),
            netlink: Netlink::open()?,
            present: BTreeSet::new(),
            refused: false,
            told: Vec::new(),
        })
    }

    /// Replaces the routes of pods and blocks. They are complete: leftovers of a former run may go.
    pub(super) fn set_local(&mut self, routes: Vec<LocalRoute>) {
        let route = |local: LocalRoute| {
            let route = match local.interface {
                Some(interface) => Route::device(local.prefix, interface),
                None => Route::blackhole(local.prefix),
            };
            route.with_protocol(PROTOCOL_WORKLOAD).with_priority(METRIC)
        };
        self.table.replace_all(PROTOCOL_WORKLOAD, routes.into_iter().map(route));
        self.table.allow_sweep(PROTOCOL_WORKLOAD);
    }

    /// Sets or removes routes learned by BGP.
    pub(super) fn set_fib(&mut self, entries: Vec<FibEntry>) {
        for entry in entries {
            let hop = |(gateway, interface): (_, Option<String>)| NextHop::told(gateway, interface);
            let route = match entry.route {
                FibRoute::Absent => {
                    self.table.unset(entry.prefix, PROTOCOL_BGP);
                    continue;
                }
                FibRoute::Via(hops) => {
                    Route::unicast(entry.prefix, hops.into_iter().map(hop).collect())
                }
                FibRoute::Blackhole => Route::blackhole(entry.prefix),
            };
            self.told.push(entry.prefix);
            self.table.set(route.with_protocol(PROTOCOL_BGP).with_priority(METRIC));
        }
    }

    /// BGP has told everything.
    pub(super) fn fib_synced(&mut self) {
        self.table.allow_sweep(PROTOCOL_BGP);
    }

    /// Takes note of everything that changed in the kernel; says whether routes of ours may be missing.
    pub(super) fn observe(&mut self, monitor: &mut Monitor) -> kernel::Result<bool> {
        let mut due = false;
        while let Some(event) = monitor.try_next()? {
            due |= self.table.observe(&event, &self.netlink);
            due |= matches!(event, Event::Overrun);
        }
        Ok(due)
    }

    /// Tries refused routes again.
    pub(super) fn retry(&mut self) {
        self.table.retry();
    }

    pub(super) const fn has_refused(&self) -> bool {
        self.refused
    }

    /// Number of our routes in the kernel.
    pub(super) fn count(&self) -> usize {
        self.present.len()
    }

    /// Whether all of these are in the kernel.
    pub(super) fn has(&self, prefixes: &[IpNet]) -> bool {
        prefixes.iter().all(|prefix| self.present.contains(prefix))
    }

    /// Writes the difference.
    pub(super) fn apply(&mut self) -> Applied {
        if !self.table.is_dirty() {
            // What is told again as it was is there already.
            let fib = outcomes(std::mem::take(&mut self.told), &Report::default());
            return Applied { fib, ..Applied::default() };
        }
        match self.table.apply(&self.netlink) {
            Ok(report) => {
                let fib = outcomes(std::mem::take(&mut self.told), &report);
                let written = report.written.iter().map(|route| route.prefix);
                let repaired = written.filter(|prefix| self.present.contains(prefix)).collect();
                self.present = self.table.actual().map(|route| route.prefix).collect();
                self.refused = !report.failed.is_empty();
                Applied { repaired, failed: report.failed.into_iter().map(words).collect(), fib }
            }
            Err(error) => {
                self.refused = true;
                Applied { failed: vec![error.to_string()], ..Applied::default() }
            }
        }
    }
}

/// What became of these routes, and of others of BGP that changed.
fn outcomes(told: Vec<IpNet>, report: &Report) -> Vec<FibOutcome> {
    let is_ours = |route: &Route| route.protocol == PROTOCOL_BGP;
    let mut answers: BTreeMap<IpNet, Option<String>> = BTreeMap::new();
    answers.extend(told.into_iter().map(|prefix| (prefix, None)));
    let written = report.written.iter().filter(|route| is_ours(route));
    answers.extend(written.map(|route| (route.prefix, None)));
    let pending = report.pending.iter().filter(|(route, _)| is_ours(route));
    answers.extend(pending.map(|(route, interface)| {
        (route.prefix, Some(format!("waits for the interface {interface}")))
    }));
    let failed = report.failed.iter().filter(|(route, _)| is_ours(route));
    answers.extend(failed.map(|(route, why)| (route.prefix, Some(why.clone()))));
    answers.into_iter().map(|(prefix, refused)| FibOutcome { prefix, refused }).collect()
}

fn words((route, reason): (Route, String)) -> String {
    format!("{}: {reason}", route.prefix)
}
