//! What is on its way: requests, blocks that wait to be written, and writes whose answers are not in. No conversations here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use api::{AllocationAttribute, IpamBlock};
use ipnet::IpNet;
use store::{StoreError, Stored};
use tokio::task::{JoinError, JoinSet};

use super::{HandleResult, Job, State, Want};
use crate::{AssignError, AutoAssign, block};

/// One wanted address of a request.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::allocator) struct Place {
    pub(super) job: u64,
    pub(super) want: usize,
}

/// A block as it was written.
#[derive(Debug)]
pub(in crate::allocator) struct Written {
    pub(super) net: IpNet,
    /// Of the block before.
    pub(super) sequence: u64,
    pub(super) taken: Vec<(Place, IpAddr)>,
}

impl Written {
    pub(super) fn places(&self) -> Vec<Place> {
        self.taken.iter().map(|(place, _)| *place).collect()
    }
}

/// Something that ended.
#[derive(Debug)]
pub(in crate::allocator) enum Done {
    Handles(Vec<HandleResult>),
    Block(Written, Box<Result<Option<Stored<IpamBlock>>, StoreError>>),
    /// A request that lost its place has waited.
    Again(u64),
}

/// A block that addresses are wanted of.
#[derive(Debug, Default)]
struct Lane {
    /// Their handles are being written.
    promised: BTreeSet<Place>,
    /// They may be written.
    ready: Vec<Place>,
    /// How many are being written.
    writing: usize,
    /// Writes in a row that failed.
    missed: u32,
}

/// Everything on its way.
#[derive(Default)]
pub(in crate::allocator) struct Line {
    jobs: BTreeMap<u64, Job>,
    next: u64,
    lanes: BTreeMap<IpNet, Lane>,
    /// Requests whose handle another one is using.
    held: VecDeque<Job>,
    begin: Vec<u64>,
    work: JoinSet<Done>,
}

impl Line {
    /// What it remembers, while no more than so many writes are on their way. With several requests at once nobody asks.
    #[cfg(test)]
    pub(in crate::allocator) fn told(&self, writes: usize) -> Option<String> {
        let Self { jobs, next, lanes, held, begin, work } = self;
        let is_simple = jobs.len() <= 1 && held.is_empty() && work.len() <= writes;
        let jobs: Vec<String> = jobs.values().map(Job::told).collect();
        is_simple.then(|| format!("{jobs:?} {next} {lanes:?} {begin:?}"))
    }

    /// Waits for something to end; `None` when nothing is on its way. Cancelling loses nothing.
    pub(in crate::allocator) async fn next(&mut self) -> Option<Done> {
        self.work.join_next().await.map(ended)
    }

    pub(super) fn done_already(&mut self) -> Option<Done> {
        self.work.try_join_next().map(ended)
    }

    pub(super) fn spawn(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.work.spawn(work);
    }

    pub(super) fn add(&mut self, job: Job) {
        let handle = &job.request.handle;
        if self.jobs.values().any(|other| other.request.handle == *handle) {
            self.held.push_back(job);
            return;
        }
        self.next += 1;
        self.begin.push(self.next);
        self.jobs.insert(self.next, job);
    }

    pub(super) fn begin_again(&mut self, id: u64) {
        self.begin.push(id);
    }

    /// Takes the requests that need places.
    pub(super) fn begun(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.begin)
    }

    /// Takes the requests that can be answered. Whoever waited for their handles begins after that.
    pub(super) fn ended(&mut self) -> Vec<Job> {
        let over: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| job.is_over()).map(|(id, _)| *id).collect();
        let over: Vec<Job> = over.into_iter().filter_map(|id| self.jobs.remove(&id)).collect();
        if !over.is_empty() {
            for job in std::mem::take(&mut self.held) {
                self.add(job);
            }
        }
        over
    }

    /// Returns what a request still needs blocks for.
    pub(super) fn open_wants(&mut self, id: u64) -> Option<(AutoAssign, Vec<(usize, Want)>)> {
        let job = self.jobs.get_mut(&id).filter(|job| job.failed.is_none())?;
        if job.writes_handle {
            job.again = true;
            return None;
        }
        let open = job.wants.iter().enumerate().filter(|(_, (_, state))| *state == State::Open);
        let open: Vec<_> = open.map(|(index, (want, _))| (index, *want)).collect();
        (!open.is_empty()).then(|| (job.request.clone(), open))
    }

    /// Counts the addresses of each block that are promised and not in our copy of it.
    pub(in crate::allocator) fn promised(&self) -> BTreeMap<IpNet, usize> {
        let count = |lane: &Lane| lane.promised.len() + lane.ready.len() + lane.writing;
        self.lanes.iter().map(|(net, lane)| (*net, count(lane))).collect()
    }

    pub(super) fn promise(&mut self, place: Place, net: IpNet) {
        self.lanes.entry(net).or_default().promised.insert(place);
        self.settle(place, State::Moving(net));
        if let Some(job) = self.jobs.get_mut(&place.job) {
            job.nets.insert(net);
        }
    }

    /// Returns the blocks of a request, and how many of its addresses are on their way to each.
    pub(super) fn nets(&self, id: u64) -> BTreeMap<IpNet, u32> {
        let Some(job) = self.jobs.get(&id) else { return BTreeMap::new() };
        let mut nets: BTreeMap<IpNet, u32> = job.nets.iter().map(|net| (*net, 0)).collect();
        for (_, state) in &job.wants {
            if let State::Moving(net) = state {
                *nets.entry(*net).or_default() += 1;
            }
        }
        nets
    }

    /// A request's handle is being written.
    pub(super) fn writes_handle(&mut self, id: u64) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.writes_handle = true;
        }
    }

    /// A request's handle is written, or will not be.
    pub(super) fn handle_written(&mut self, id: u64, is_written: bool) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.writes_handle = false;
            if std::mem::take(&mut job.again) {
                self.begin.push(id);
            }
        }
        let mut dropped = Vec::new();
        for lane in self.lanes.values_mut() {
            let places: Vec<Place> =
                lane.promised.iter().filter(|place| place.job == id).copied().collect();
            for place in places {
                lane.promised.remove(&place);
                match is_written {
                    true => lane.ready.push(place),
                    false => dropped.push(place),
                }
            }
        }
        for place in dropped {
            self.settle(place, State::Open);
        }
    }

    /// Returns the blocks that can be written.
    pub(super) fn waiting_blocks(&mut self) -> Vec<IpNet> {
        self.lanes.retain(|_, lane| {
            !lane.promised.is_empty() || !lane.ready.is_empty() || lane.writing > 0
        });
        let waiting = self.lanes.iter().filter(|(_, lane)| lane.writing == 0);
        waiting.filter(|(_, lane)| !lane.ready.is_empty()).map(|(net, _)| *net).collect()
    }

    pub(super) fn take_ready(&mut self, net: IpNet) -> Vec<Place> {
        let ready = self.lanes.get_mut(&net).map(|lane| std::mem::take(&mut lane.ready));
        let mut ready = ready.unwrap_or_default();
        ready.retain(|place| {
            let failed = self.jobs.get(&place.job).is_none_or(|job| job.failed.is_some());
            if failed {
                self.settle(*place, State::Open);
            }
            !failed
        });
        ready
    }

    /// They come first again, and get the same addresses, should the write that failed be on its way still ([`Line::holds`]).
    pub(super) fn ready_again(&mut self, net: IpNet, places: Vec<Place>) {
        self.lanes.entry(net).or_default().ready.splice(0..0, places);
    }

    pub(super) fn writes(&mut self, net: IpNet, addresses: usize) {
        self.lanes.entry(net).or_default().writing = addresses;
    }

    pub(in crate::allocator) fn is_writing(&self, net: &IpNet) -> bool {
        self.lanes.get(net).is_some_and(|lane| lane.writing > 0)
    }

    /// Counts a write that failed.
    pub(super) fn missed(&mut self, net: IpNet) -> u32 {
        let lane = self.lanes.entry(net).or_default();
        lane.missed += 1;
        lane.missed
    }

    pub(super) fn want(&self, place: Place) -> Option<(Want, &AllocationAttribute)> {
        let job = self.jobs.get(&place.job)?;
        Some((job.wants.get(place.want)?.0, &job.owner))
    }

    pub(super) fn settle(&mut self, place: Place, state: State) {
        let job = self.jobs.get_mut(&place.job);
        if let Some((_, now)) = job.and_then(|job| job.wants.get_mut(place.want)) {
            *now = state;
        }
    }

    /// Notes addresses that are written.
    pub(super) fn record(&mut self, written: &Written) {
        for (place, address) in &written.taken {
            if let Ok(net) = IpNet::new(*address, written.net.prefix_len()) {
                self.settle(*place, State::Got(net));
            }
        }
        if let Some(lane) = self.lanes.get_mut(&written.net).filter(|_| !written.taken.is_empty()) {
            lane.missed = 0;
        }
    }

    /// Returns what a block has of all that one write was to put there, and the places without.
    pub(super) fn holds(
        &self,
        stored: &Stored<IpamBlock>,
        written: Written,
    ) -> (Written, Vec<Place>) {
        let is_there = |(place, address): &(Place, IpAddr)| {
            let owner = self.jobs.get(&place.job).map(|job| &job.owner);
            let found = block::assigned(&stored.spec).find(|(one, _)| one == address);
            let at = block::sequence_of(&stored.spec, *address);
            found.map(|(_, owner)| owner) == owner && at == Some(written.sequence)
        };
        let (there, missing) = written.taken.into_iter().partition(is_there);
        let missing = Written { taken: missing, ..written };
        (Written { taken: there, ..missing }, missing.places())
    }

    /// Opens wants again; returns the requests that go on, and how often that happened to them.
    pub(super) fn lose(&mut self, places: Vec<Place>) -> BTreeMap<u64, u32> {
        let mut rounds = BTreeMap::new();
        for place in places {
            self.settle(place, State::Open);
            let job = self.jobs.get_mut(&place.job).filter(|job| job.failed.is_none());
            let Some(job) = job.filter(|_| !rounds.contains_key(&place.job)) else { continue };
            job.rounds += 1;
            rounds.insert(place.job, job.rounds);
        }
        rounds
    }

    pub(super) fn fail(&mut self, id: u64, error: AssignError) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.failed.get_or_insert(error);
        }
    }

    pub(super) fn fail_places(&mut self, places: &[Place], error: &StoreError) {
        for place in places {
            self.settle(*place, State::Open);
            self.fail(place.job, error.clone().into());
        }
    }
}

fn ended(result: Result<Done, JoinError>) -> Done {
    match result {
        Ok(done) => done,
        // Nothing cancels these tasks but the end of the line itself.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::{Owner, UnixNanos, allocator::Command};

    #[test]
    fn a_late_write_with_some_of_the_addresses_counts_for_those() {
        let mut line = Line::default();
        for handle in ["a", "b"] {
            let request = AutoAssign {
                handle: handle.to_owned(),
                owner: Owner::pod("n1", "ns", handle),
                num4: 1,
                ..AutoAssign::default()
            };
            let command = Command::Auto(request, oneshot::channel().0);
            line.add(Job::new(command, UnixNanos(1)).unwrap());
        }
        let places = [Place { job: 1, want: 0 }, Place { job: 2, want: 0 }];
        let net: IpNet = "10.0.0.0/30".parse().unwrap();
        let mut object = block::empty(&net, Some("host:n1"), UnixNanos(7));
        let owner = line.want(places[0]).unwrap().1.clone();
        let first = block::take_any(&mut object.spec, &owner, |_| false).unwrap();
        let second = IpAddr::from([10, 0, 0, 1]);
        let stored = Stored::parse(serde_json::to_value(&object).unwrap().into()).unwrap();
        let taken = vec![(places[0], first), (places[1], second)];
        let (there, missing) =
            line.holds(&stored, Written { net, sequence: 7, taken: taken.clone() });
        assert_eq!((there.places(), missing), (vec![places[0]], vec![places[1]]));
        // Who was in that write comes first again.
        line.ready_again(net, vec![places[1]]);
        line.ready_again(net, vec![places[0]]);
        assert_eq!(line.take_ready(net), places);
        // The same address, of a write that came before.
        let (there, missing) = line.holds(&stored, Written { net, sequence: 8, taken });
        assert_eq!((there.places(), missing), (vec![], places.to_vec()));
    }
}
