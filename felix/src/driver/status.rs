//! What is in the kernel, and how it went.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio::sync::{broadcast, watch};

use super::event::Event;
use crate::{nft::TableStats, update::EndpointId};

/// Upper bounds of the histogram's buckets in microseconds.
const BOUNDS: [u64; 16] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000,
];

/// How long things took.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    /// Sum of all samples in microseconds.
    pub sum_micros: u64,
    /// Number of samples.
    pub count: u64,
}

impl Histogram {
    fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum_micros = self.sum_micros.saturating_add(micros);
        self.count += 1;
    }

    /// Upper bound in microseconds (`None`: no bound) and number of samples of each bucket, not cumulated.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        BOUNDS.iter().copied().map(Some).chain([None]).zip(self.counts)
    }
}

/// What is in the kernel, and how it went.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// Whether [`crate::update::Update::InSync`] was told and the first transaction after it committed.
    pub in_sync: bool,
    /// Counts flushes whose result is in the kernel.
    pub revision: u64,
    /// Transactions committed.
    pub commits: u64,
    /// When the last one was; none since this process started: the table was right as it was.
    pub last_commit: Option<SystemTime>,
    /// From the first update of a transaction to the kernel's acknowledgement, the last one.
    pub last_apply_micros: u64,
    /// The same over time.
    pub apply: Histogram,
    /// Endpoints whose policy is in the kernel.
    pub endpoints: usize,
    /// Endpoints that wait, and for what.
    pub not_ready: BTreeMap<EndpointId, String>,
    /// Objects that are not enforced as written, and why.
    pub problems: Vec<String>,
    /// Policies that select a local endpoint.
    pub policies: usize,
    /// Size of the table.
    pub table: TableStats,
    /// Routes in the kernel that are ours.
    pub routes: usize,
    /// The last refusal of rules; none when the last transaction was taken.
    pub last_error: Option<String>,
    /// The last refusal of a route; none when all wanted routes are there.
    pub last_route_error: Option<String>,
    /// Times that our table was repaired after someone else changed it.
    pub drift_repairs: u64,
    /// Routes written again after someone else removed or changed them.
    pub route_repairs: u64,
}

/// Where the driver's thread tells what happens.
pub(super) struct Outputs {
    pub(super) status: Status,
    sender: watch::Sender<Status>,
    events: broadcast::Sender<Event>,
}

impl Outputs {
    pub(super) fn new(sender: watch::Sender<Status>, events: broadcast::Sender<Event>) -> Self {
        Self { status: Status::default(), sender, events }
    }

    pub(super) fn event(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    pub(super) fn committed(&mut self, at: SystemTime, took: Duration) {
        self.status.commits += 1;
        self.status.last_commit = Some(at);
        self.status.last_apply_micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.status.apply.record(took);
    }

    pub(super) fn publish(&self) {
        self.sender.send_if_modified(|published| {
            let changed = *published != self.status;
            if changed {
                published.clone_from(&self.status);
            }
            changed
        });
    }
}
