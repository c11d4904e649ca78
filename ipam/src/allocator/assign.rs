//! Assignment: requests that wait together are placed in blocks together, and every block is written once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::AllocationAttribute;
use ipnet::IpNet;
use store::{Store, Stored};

use super::{Address, Command, Reply, Worker};
use crate::{
    AssignError, AutoAssign, Family, block,
    datastore::{may_retry, pause},
};

/// One wanted address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    Any(Family),
    Certain(IpAddr),
}

impl Want {
    pub(super) fn family(self) -> Family {
        match self {
            Self::Any(family) => family,
            Self::Certain(address) => Family::of(address),
        }
    }
}

struct Job {
    request: AutoAssign,
    owner: AllocationAttribute,
    reply: Reply<Vec<IpNet>>,
    /// Wanted, with the address once there is one.
    wants: Vec<(Want, Option<IpNet>)>,
    failed: Option<AssignError>,
}

/// Index of a job and of one of its wants.
type Place = (usize, usize);

impl<S: Store> Worker<S> {
    pub(super) async fn assign_all(&mut self, commands: Vec<Command>) {
        let now = self.options.clock.now();
        let mut jobs: Vec<Job> = commands.into_iter().filter_map(|one| job(one, now)).collect();
        // A want is open again only when somebody else took its place.
        for round in 0..=self.options.tries {
            let mut plan: BTreeMap<IpNet, Vec<Place>> = BTreeMap::new();
            for place in open(&jobs) {
                let planned = |net: &IpNet| plan.get(net).map_or(0, Vec::len);
                let Some((request, want)) = wanted(&jobs, place) else { continue };
                match self.place(&request, want, &planned).await {
                    Ok(net) => plan.entry(net).or_default().push(place),
                    Err(error) => fail(&mut jobs, place, error),
                }
            }
            for (net, places) in plan {
                self.commit(net, places, &mut jobs).await;
            }
            if open(&jobs).is_empty() {
                break;
            }
            pause(round).await;
        }
        for job in jobs {
            self.answer(job).await;
        }
    }

    async fn answer(&mut self, job: Job) {
        let got: Vec<IpNet> = job.wants.iter().filter_map(|(_, got)| *got).collect();
        let complete = got.len() == job.wants.len() && job.failed.is_none();
        let delivered = if complete {
            job.reply.send(Ok(got.clone())).is_ok()
        } else {
            let others = AssignError::NotReady("others won every race, try again");
            drop(job.reply.send(Err(job.failed.unwrap_or(others))));
            false
        };
        if delivered {
            return;
        }
        // All or none; and nobody waits for an answer that was dropped.
        for net in got {
            let address = net.addr();
            let handle = Some(job.request.handle.clone());
            let release = Address { address, handle, sequence: None };
            if let Err(error) = self.release_address(&release).await {
                tracing::warn!(%address, %error, "address of a failed request stays until its handle is released");
            }
        }
    }

    /// Writes the handles, then the block: a crash in between leaves a handle that releases nothing, never an address
    /// that no handle releases.
    async fn commit(&mut self, net: IpNet, places: Vec<Place>, jobs: &mut [Job]) {
        let counts = self.counts_with(net, &places, jobs);
        let outcomes = self.write_handles(net, &counts).await;
        let mut usable = Vec::new();
        for place in places {
            let handle =
                jobs.get(place.0).map(|job| job.request.handle.clone()).unwrap_or_default();
            let at = counts.iter().position(|(id, _)| *id == handle);
            match at.and_then(|at| outcomes.get(at)) {
                Some(Err(error)) => fail(jobs, place, error.clone().into()),
                _ => usable.push(place),
            }
        }
        let left = self.write_block(net, usable, jobs).await;
        if left {
            // The block has fewer of these handles than was written down.
            let actual: Vec<_> =
                counts.into_iter().map(|(id, _)| (id.clone(), self.count_of(net, &id))).collect();
            self.write_handles(net, &actual).await;
        }
    }

    fn count_of(&self, net: IpNet, handle: &str) -> u32 {
        let stored = self.blocks.get(&net);
        let count = stored.map_or(0, |stored| block::of_handle(&stored.spec, handle).len());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn counts_with(&self, net: IpNet, places: &[Place], jobs: &[Job]) -> Vec<(String, u32)> {
        let mut counts: Vec<(String, u32)> = Vec::new();
        for job in places.iter().filter_map(|(job, _)| jobs.get(*job)) {
            let handle = &job.request.handle;
            match counts.iter_mut().find(|(id, _)| id == handle) {
                Some((_, count)) => *count += 1,
                None => counts.push((handle.clone(), self.count_of(net, handle) + 1)),
            }
        }
        counts
    }

    /// Returns whether some place did not get its address.
    async fn write_block(&mut self, net: IpNet, places: Vec<Place>, jobs: &mut [Job]) -> bool {
        let cooldown = self.cooldown();
        for attempt in 0..=self.options.tries {
            let Ok(Some(base)) = self.block(net).await else { return true };
            let mut changed = base.clone();
            block::thaw(&mut changed.spec, cooldown);
            let mut taken = Vec::new();
            for place in &places {
                let Some(job) = jobs.get(place.0) else { continue };
                let want = job.wants.get(place.1).map(|(want, _)| *want);
                let result = match want {
                    Some(Want::Certain(address)) => {
                        block::take(&mut changed.spec, address, &job.owner).map(|()| address)
                    }
                    _ => block::take_any(&mut changed.spec, &job.owner, |address| {
                        self.reservations.contains(address)
                    })
                    .ok_or(block::TakeError::InUse(net.addr())),
                };
                match (result, want) {
                    (Ok(address), _) => taken.push((*place, address)),
                    (Err(error), Some(Want::Certain(address))) => {
                        let reason = format!("cannot be taken: {error}");
                        fail(jobs, *place, AssignError::Refused { address, reason });
                    }
                    // Open again: the next round finds another block.
                    (Err(_), _) => {}
                }
            }
            if taken.is_empty() {
                return true;
            }
            match self.save(net, changed).await {
                Ok(()) => return self.record(net, &taken, jobs) < places.len(),
                Err(error) if !may_retry(&error) => {
                    for place in &places {
                        fail(jobs, *place, error.clone().into());
                    }
                    return true;
                }
                Err(error) => {
                    tracing::debug!(block = %net, %error, attempt, "block was not written");
                    pause(attempt).await;
                    let sequence = base.spec.sequence_number;
                    match self.load_patiently(net).await {
                        // The answer was lost, the write was not.
                        Ok(Some(now)) if holds(&now, sequence, &taken, jobs) => {
                            return self.record(net, &taken, jobs) < places.len();
                        }
                        Ok(Some(_)) => {}
                        _ => return true,
                    }
                }
            }
        }
        true
    }

    fn record(&self, net: IpNet, taken: &[(Place, IpAddr)], jobs: &mut [Job]) -> usize {
        for ((job, want), address) in taken {
            let slot = jobs.get_mut(*job).and_then(|job| job.wants.get_mut(*want));
            if let Some((_, got)) = slot {
                *got = IpNet::new(*address, net.prefix_len()).ok();
            }
        }
        taken.len()
    }
}

/// Returns whether a block has exactly what one write put there.
fn holds(
    stored: &Stored<api::IpamBlock>,
    sequence: u64,
    taken: &[(Place, IpAddr)],
    jobs: &[Job],
) -> bool {
    taken.iter().all(|((job, _), address)| {
        let owner = jobs.get(*job).map(|job| &job.owner);
        let found = block::assigned(&stored.spec).find(|(one, _)| one == address);
        let at = block::sequence_of(&stored.spec, *address);
        found.map(|(_, owner)| owner) == owner && at == Some(sequence)
    })
}

fn job(command: Command, now: crate::UnixNanos) -> Option<Job> {
    let (request, wants, reply) = match command {
        Command::Auto(request, reply) => {
            let wants = wants(&request, &[]);
            (request, wants, reply)
        }
        Command::Certain(request, addresses, reply) => {
            let wants = wants(&request, &addresses);
            (request, wants, reply)
        }
        _ => return None,
    };
    let owner = request.owner.attribute(&request.handle, now);
    let wants = wants.into_iter().map(|want| (want, None)).collect();
    Some(Job { request, owner, reply, wants, failed: None })
}

/// Returns what a request wants: these addresses, or as many as it says when there are none.
pub(super) fn wants(request: &AutoAssign, addresses: &[IpAddr]) -> Vec<Want> {
    if !addresses.is_empty() {
        return addresses.iter().map(|one| Want::Certain(*one)).collect();
    }
    let v4 = (0..request.num4).map(|_| Want::Any(Family::V4));
    v4.chain((0..request.num6).map(|_| Want::Any(Family::V6))).collect()
}

fn open(jobs: &[Job]) -> Vec<Place> {
    let mut places = Vec::new();
    for (index, job) in jobs.iter().enumerate().filter(|(_, job)| job.failed.is_none()) {
        let wants = job.wants.iter().enumerate();
        places.extend(wants.filter(|(_, (_, got))| got.is_none()).map(|(want, _)| (index, want)));
    }
    places
}

fn wanted(jobs: &[Job], place: Place) -> Option<(AutoAssign, Want)> {
    let job = jobs.get(place.0).filter(|job| job.failed.is_none())?;
    Some((job.request.clone(), job.wants.get(place.1)?.0))
}

fn fail(jobs: &mut [Job], place: Place, error: AssignError) {
    if let Some(job) = jobs.get_mut(place.0) {
        job.failed.get_or_insert(error);
    }
}
