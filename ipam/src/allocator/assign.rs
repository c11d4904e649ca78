//! Assignment: requests that wait together are placed in blocks together, and every block is written once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::AllocationAttribute;
use ipnet::IpNet;
use store::{ListOptions, Store, Stored};

use super::{
    Command, Reply, Worker,
    claim::{Inventory, LIMIT},
};
use crate::{
    AssignError, AutoAssign, Family, affinity, block,
    datastore::{may_retry, pause},
    ordinal,
    pool::{Asker, Pool, select},
};

/// One wanted address.
#[derive(Clone, Copy, Debug)]
enum Want {
    Any(Family),
    Certain(IpAddr),
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
        let mut inventory = None;
        // A want is open again only when somebody else took its place.
        for round in 0..=self.options.tries {
            let mut plan: BTreeMap<IpNet, Vec<Place>> = BTreeMap::new();
            for place in open(&jobs) {
                let planned = |net: &IpNet| plan.get(net).map_or(0, Vec::len);
                let Some((request, want)) = wanted(&jobs, place) else { continue };
                match self.place(&request, want, &planned, &mut inventory).await {
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
            inventory = None;
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
            if let Err(error) = self.release_address(address, Some(&job.request.handle)).await {
                tracing::warn!(%address, %error, "address of a failed request stays until its handle is released");
            }
        }
    }

    /// Finds a block for one address: own blocks, then a new block, then another node's.
    async fn place(
        &mut self,
        request: &AutoAssign,
        want: Want,
        planned: &impl Fn(&IpNet) -> usize,
        inventory: &mut Option<Inventory>,
    ) -> Result<IpNet, AssignError> {
        let family = match want {
            Want::Certain(address) => return self.place_certain(request, address, inventory).await,
            Want::Any(family) => family,
        };
        let selection = self.select(request, family);
        let own = self.own_blocks();
        for pool in &selection.pools {
            for net in own.iter().filter(|net| pool.cidr.contains(*net)) {
                let Some(stored) = self.block(*net).await? else {
                    self.claimed.insert(*net, false);
                    continue;
                };
                if stored.spec.affinity.as_deref() == Some(&self.affinity)
                    && self.room(*net, &stored) > planned(net)
                {
                    return Ok(*net);
                }
            }
        }
        if inventory.is_none() {
            *inventory = Some(self.inventory(ListOptions::cached()).await?);
        }
        let Some(inventory) = inventory else { return Err(AssignError::NotReady("no inventory")) };
        let mut tried = selection.refused;
        let mut may_borrow = Vec::new();
        for pool in selection.pools {
            match self.claim_from(&pool, inventory).await? {
                Ok(net) => {
                    inventory
                        .blocks
                        .extend(self.blocks.get(&net).map(|block| (net, block.clone())));
                    return Ok(net);
                }
                Err(why) => {
                    if !why.starts_with(LIMIT) {
                        may_borrow.push(pool.clone());
                    }
                    tried.push((pool.name, why));
                }
            }
        }
        if !self.watches.configuration().strict_affinity {
            for (net, stored) in &inventory.blocks {
                let in_pool = may_borrow.iter().any(|pool| pool.cidr.contains(net));
                if in_pool && !stored.spec.deleted && self.room(*net, stored) > planned(net) {
                    let fresh = self.load_patiently(*net).await?;
                    if fresh.is_some_and(|stored| self.room(*net, &stored) > planned(net)) {
                        return Ok(*net);
                    }
                }
            }
        }
        Err(AssignError::NoAddress { family, tried })
    }

    fn select(&self, request: &AutoAssign, family: Family) -> crate::pool::Selection {
        let node_labels = self.watches.node_labels();
        let asker = Asker {
            node_labels: &node_labels,
            namespace_labels: request.namespace_labels.as_ref(),
            intended_use: request.intended_use,
        };
        let requested = match family {
            Family::V4 => &request.pools4,
            Family::V6 => &request.pools6,
        };
        let objects = self.watches.pools.list();
        select(objects.iter().map(|stored| &***stored), family, requested, &asker)
    }

    /// Returns how many addresses of a block automatic assignment may take.
    fn room(&self, net: IpNet, stored: &Stored<api::IpamBlock>) -> usize {
        let reservations = self.watches.reservations();
        let addresses =
            stored.spec.unallocated.iter().filter_map(|one| ordinal::address(&net, *one));
        addresses.filter(|address| !reservations.contains(*address)).count()
    }

    async fn place_certain(
        &mut self,
        request: &AutoAssign,
        address: IpAddr,
        inventory: &mut Option<Inventory>,
    ) -> Result<IpNet, AssignError> {
        let refused = |reason: String| AssignError::Refused { address, reason };
        let pools = self.watches.readable_pools();
        let pool: Option<&Pool> = pools.iter().find(|pool| pool.cidr.contains(&address));
        let pool = pool.ok_or_else(|| refused("is in no pool".to_owned()))?;
        pool.usable(request.intended_use)
            .map_err(|why| refused(format!("is in pool {}, which {why}", pool.name)))?;
        if inventory.is_none() {
            *inventory = Some(self.inventory(ListOptions::cached()).await?);
        }
        let stored = inventory
            .as_ref()
            .and_then(|inventory| inventory.blocks.iter().find(|(net, _)| net.contains(&address)))
            .map(|(net, _)| *net);
        let net = IpNet::new(address, pool.block_prefix).map(|net| net.trunc());
        let net = stored.or(net.ok()).ok_or_else(|| refused("is in no block".to_owned()))?;
        let found = match self.load_patiently(net).await? {
            Some(found) => found,
            None if self.claim(net).await? => return Ok(net),
            None => return Err(refused(format!("is in block {net}, which overlaps another"))),
        };
        let foreign =
            found.spec.affinity.as_deref() != Some(affinity::of_host(&self.node).as_str());
        if foreign && self.watches.configuration().strict_affinity {
            return Err(refused(format!("is in block {net} of another node, see strictAffinity")));
        }
        Ok(net)
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
        let reservations = self.watches.reservations();
        for attempt in 0..=self.options.tries {
            let Ok(Some(base)) = self.block(net).await else { return true };
            let mut changed = base.clone();
            let mut taken = Vec::new();
            for place in &places {
                let Some(job) = jobs.get(place.0) else { continue };
                let want = job.wants.get(place.1).map(|(want, _)| *want);
                let result = match want {
                    Some(Want::Certain(address)) => {
                        block::take(&mut changed.spec, address, &job.owner).map(|()| address)
                    }
                    _ => block::take_any(&mut changed.spec, &job.owner, |address| {
                        reservations.contains(address)
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
                        Ok(Some(now)) if holds(&now, net, sequence, &taken, jobs) => {
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
    net: IpNet,
    sequence: u64,
    taken: &[(Place, IpAddr)],
    jobs: &[Job],
) -> bool {
    taken.iter().all(|((job, _), address)| {
        let owner = jobs.get(*job).map(|job| &job.owner);
        let found = block::assigned(&stored.spec).find(|(one, _)| one == address);
        let ordinal = ordinal::ordinal(&net, *address).unwrap_or_default();
        let at = stored.spec.sequence_number_for_allocation.get(&ordinal.to_string());
        found.map(|(_, owner)| owner) == owner && at == Some(&sequence)
    })
}

fn job(command: Command, now: crate::UnixNanos) -> Option<Job> {
    let (request, wants, reply) = match command {
        Command::Auto(request, reply) => {
            let v4 = (0..request.num4).map(|_| (Want::Any(Family::V4), None));
            let v6 = (0..request.num6).map(|_| (Want::Any(Family::V6), None));
            let wants = v4.chain(v6).collect();
            (request, wants, reply)
        }
        Command::Certain(request, addresses, reply) => {
            let wants = addresses.into_iter().map(|one| (Want::Certain(one), None)).collect();
            (request, wants, reply)
        }
        _ => return None,
    };
    let owner = request.owner.attribute(&request.handle, now);
    Some(Job { request, owner, reply, wants, failed: None })
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
