//! Assignment, in two stages that overlap: the handles of requests that come together are written at once, and then each block,
//! with everything whose handle is written by then. While a block is being written, the handles of the next requests are.
//!
//! Handles come before blocks: a crash in between leaves a handle that releases nothing, never an address that no handle
//! releases. Requests of one handle wait for each other.

mod job;
mod line;

use api::{IpamBlock, IpamHandle};
use futures::future::join_all;
use ipnet::IpNet;
use store::{Store, StoreError, Stored};

use super::{Address, Command, Worker};
use crate::{
    AssignError, block,
    datastore::{may_retry, pause, save_block, write_handle},
    memory::Frame,
};
use job::{Job, State};
pub(super) use job::{Want, wants};
pub(super) use line::{Done, Line};
use line::{Place, Written};

/// Why a request ends that others won from again and again.
const LOST: AssignError = AssignError::NotReady("others won every race, try again");

impl<S: Store> Worker<S> {
    /// Begins to serve requests.
    pub(super) async fn assign(&mut self, commands: Vec<Command>) {
        let now = self.options.clock.now();
        let jobs = commands.into_iter().filter_map(|command| Job::new(command, now));
        jobs.for_each(|job| self.line.add(job));
        self.move_on().await;
    }

    /// Goes on with what was written.
    pub(super) async fn go_on(&mut self, done: Done) {
        self.take_in(done).await;
        // What ended in the same moment shares the next write.
        while let Some(done) = self.line.done_already() {
            self.take_in(done).await;
        }
        self.move_on().await;
    }

    /// Begins every write that can begin, and answers whoever can be answered.
    async fn move_on(&mut self) {
        loop {
            for net in self.line.waiting_blocks() {
                self.begin_block(net).await;
            }
            let ended = self.line.ended();
            let is_over = ended.is_empty();
            for job in ended {
                self.answer(job).await;
            }
            let begun = self.line.begun();
            if begun.is_empty() && is_over {
                return;
            }
            self.write_all_handles(begun).await;
        }
    }

    /// Waits until every request is answered.
    pub(super) async fn finish_line(&mut self) {
        while let Some(done) = self.line.next().await {
            self.go_on(done).await;
        }
    }

    async fn take_in(&mut self, done: Done) {
        match done {
            Done::Handles(results) => {
                for (id, handle, result) in results {
                    let kept = self.keep_handle(&handle, result);
                    let is_written = kept.is_ok();
                    if let Err(error) = kept {
                        self.line.fail(id, error.into());
                    }
                    self.line.handle_written(id, is_written);
                }
            }
            Done::Block(written, result) => self.block_written(written, *result).await,
            Done::Again(id) => self.line.begin_again(id),
        }
    }

    /// Finds blocks for requests, and writes their handles, all at once.
    async fn write_all_handles(&mut self, jobs: Vec<u64>) {
        let mut writes = Vec::new();
        let part = Frame::enter();
        for id in jobs {
            self.remembers(&part, || format!("finds places for {id} after {writes:?}"));
            match self.find_places(id).await {
                Ok(Some((handle, counts))) => {
                    writes.push((id, self.handles.get(&handle).cloned(), handle, counts));
                }
                Ok(None) => {}
                Err(error) => {
                    self.line.fail(id, error);
                    self.line.handle_written(id, false);
                }
            }
        }
        if writes.is_empty() {
            return;
        }
        writes.iter().for_each(|(id, ..)| self.line.writes_handle(*id));
        let (store, tries) = (self.store.clone(), self.options.tries);
        self.line.spawn(async move {
            let writes = writes.into_iter().map(|(id, known, handle, counts)| {
                let store = &store;
                async move {
                    let result = write_handle(store, known, &handle, &counts, tries).await;
                    (id, handle, result)
                }
            });
            Done::Handles(join_all(writes).await)
        });
    }

    /// Finds a block for everything that a request still wants. Returns what its handle must say.
    async fn find_places(
        &mut self,
        id: u64,
    ) -> Result<Option<(String, Vec<(IpNet, u32)>)>, AssignError> {
        let Some((request, open)) = self.line.open_wants(id) else { return Ok(None) };
        let part = Frame::enter();
        for (index, want) in open {
            self.remembers(&part, || format!("place {index}"));
            let promised = self.line.promised();
            let planned = |net: &IpNet| promised.get(net).copied().unwrap_or_default();
            let net = self.place(&request, want, &planned).await?;
            self.line.promise(Place { job: id, want: index }, net);
        }
        let nets = self.line.nets(id);
        let counts = nets
            .into_iter()
            .map(|(net, moving)| (net, self.count_of(net, &request.handle).saturating_add(moving)));
        Ok(Some((request.handle.clone(), counts.collect())))
    }

    pub(super) fn count_of(&self, net: IpNet, handle: &str) -> u32 {
        let stored = self.blocks.get(&net);
        let count = stored.map_or(0, |stored| block::of_handle(&stored.spec, handle).len());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Writes a block with everything that waits for it.
    async fn begin_block(&mut self, net: IpNet) {
        let places = self.line.take_ready(net);
        let part = Frame::enter();
        self.remembers(&part, || format!("begins {net} {places:?}"));
        let base = match self.usable(net).await {
            Ok(Some(base)) => base,
            Ok(None) => return self.lose(places),
            Err(error) => return self.line.fail_places(&places, &error),
        };
        let mut changed = base.clone();
        block::thaw(&mut changed.spec, self.cooldown());
        let (mut taken, mut lost) = (Vec::new(), Vec::new());
        for place in places {
            let Some((want, owner)) = self.line.want(place) else { continue };
            let result = match want {
                Want::Certain(address) => block::take(&mut changed.spec, address, owner)
                    .map(|()| address)
                    .map_err(|error| {
                        let reason = format!("cannot be taken: {error}");
                        Some(AssignError::Refused { address, reason })
                    }),
                Want::Any(_) => {
                    let reserved = |address| self.reservations.contains(address);
                    block::take_any(&mut changed.spec, owner, reserved).ok_or(None)
                }
            };
            match result {
                Ok(address) => taken.push((place, address)),
                Err(Some(error)) => {
                    self.line.settle(place, State::Open);
                    self.line.fail(place.job, error);
                }
                Err(None) => lost.push(place),
            }
        }
        self.lose(lost);
        if taken.is_empty() {
            return;
        }
        let written = Written { net, sequence: base.spec.sequence_number, taken };
        self.line.writes(net, written.taken.len());
        let store = self.store.clone();
        self.line.spawn(async move {
            let result = save_block(&store, changed).await;
            Done::Block(written, Box::new(result))
        });
    }

    async fn block_written(
        &mut self,
        written: Written,
        result: Result<Option<Stored<IpamBlock>>, StoreError>,
    ) {
        let net = written.net;
        self.line.writes(net, 0);
        let places = written.places();
        match result {
            Ok(stored) => {
                match stored {
                    Some(stored) => drop(self.blocks.insert(net, stored)),
                    None => drop(self.blocks.remove(&net)),
                }
                self.line.record(&written);
            }
            Err(error) if !may_retry(&error) => self.line.fail_places(&places, &error),
            Err(error) => {
                let attempt = self.line.missed(net);
                tracing::debug!(block = %net, %error, attempt, "block was not written");
                let part = Frame::enter();
                self.remembers(&part, || format!("looks after {written:?}, {attempt}"));
                pause(attempt).await;
                match self.load_patiently(net).await {
                    Ok(Some(now)) => {
                        // The answer was lost, the write was not; or one before it came late, with some of the addresses.
                        let (there, missing) = self.line.holds(&now, written);
                        self.line.record(&there);
                        match attempt <= self.options.tries {
                            true => self.line.ready_again(net, missing),
                            false => self.lose(missing),
                        }
                    }
                    Ok(None) => self.lose(places),
                    Err(error) => self.line.fail_places(&places, &error),
                }
            }
        }
    }

    /// Somebody else took the place: the request looks for another, a little later.
    fn lose(&mut self, places: Vec<Place>) {
        for (id, round) in self.line.lose(places) {
            if round > self.options.tries {
                self.line.fail(id, LOST);
                continue;
            }
            self.line.spawn(async move {
                pause(round).await;
                Done::Again(id)
            });
        }
    }

    async fn answer(&mut self, job: Job) {
        let got = job.got();
        let complete = job.failed.is_none() && got.len() == job.wants.len();
        let handle = job.request.handle;
        let delivered = if complete {
            job.reply.send(Ok(got.clone())).is_ok()
        } else {
            drop(job.reply.send(Err(job.failed.unwrap_or(LOST))));
            false
        };
        if delivered && job.rounds == 0 {
            return;
        }
        let _silent = Frame::enter();
        // All or none; and nobody waits for an answer that was dropped.
        for got in got.iter().filter(|_| !delivered) {
            let address = got.addr();
            let release = Address { address, handle: Some(handle.clone()), sequence: None };
            if let Err(error) = self.release_at(got.trunc(), &release).await {
                tracing::warn!(%address, %error, "address of a failed request stays until its handle is released");
            }
        }
        // A block may have fewer addresses of the handle than was written down.
        let counts: Vec<(IpNet, u32)> =
            job.nets.into_iter().map(|net| (net, self.count_of(net, &handle))).collect();
        if counts.is_empty() {
            return;
        }
        let known = self.handles.get(&handle).cloned();
        let result = write_handle(&self.store, known, &handle, &counts, self.options.tries).await;
        if let Err(error) = self.keep_handle(&handle, result) {
            tracing::debug!(handle, %error, "handle is not mended; its next write or the collector does");
        }
    }
}

/// A handle that was written, or why it was not.
type HandleResult = (u64, String, Result<Option<Stored<IpamHandle>>, StoreError>);
