//! Addresses that stay with their machine. A handle is the machine's, whichever pods and nodes it has had, so these requests
//! read it first; they are served one by one.
//!
//! Two nodes may ask for one machine at once. Who adds a block to the handle has read it, and all its blocks, before; the
//! handle's revision guards that. Who finds a block in the handle that has no address of it writes that block, so that
//! the other's write, still on its way, fails and begins anew; then the handle, without that block: to write what is there
//! already would leave its revision as it is, and guard nothing.

use std::collections::{BTreeMap, BTreeSet};

use api::{IpamHandle, Key};
use ipnet::IpNet;
use store::{Store, StoreError, Stored};

use super::{Released, Worker, assign::Want};
use crate::{
    AssignError, AutoAssign, Family, block,
    datastore::{delete_as_read, find, may_retry, pause, settle_handle},
    handle,
    machine::{self, Change, MachinePod},
};

/// A machine's pod wants the machine's addresses.
pub(super) struct MachineAsk {
    /// The pod, as for any other.
    pub(super) request: AutoAssign,
    /// Wanted, if the machine has none yet.
    pub(super) wants: Vec<Want>,
    /// The machine runs elsewhere, and is to move into the pod.
    pub(super) is_target: bool,
}

/// Where a machine's addresses are.
struct Held {
    handle: Option<Stored<IpamHandle>>,
    addresses: Vec<IpNet>,
    counts: BTreeMap<String, u32>,
    /// Blocks of the handle without an address of it.
    empty: BTreeSet<IpNet>,
}

impl<S: Store> Worker<S> {
    pub(super) async fn assign_machine(
        &mut self,
        ask: &MachineAsk,
    ) -> Result<Vec<IpNet>, AssignError> {
        let mut attempt = 0;
        loop {
            match self.try_machine(ask).await {
                Err(AssignError::Store(error))
                    if may_retry(&error) && attempt < self.options.tries =>
                {
                    attempt += 1;
                    pause(attempt).await;
                }
                result => return result,
            }
        }
    }

    async fn try_machine(&mut self, ask: &MachineAsk) -> Result<Vec<IpNet>, AssignError> {
        let id = &ask.request.handle;
        let owner = ask.request.owner.attribute(id, self.options.clock.now()).secondary;
        let change = if ask.is_target { Change::WillRun(&owner) } else { Change::Runs(&owner) };
        for want in &ask.wants {
            let held = self.settled(id).await?;
            let family = want.family();
            if held.addresses.iter().any(|one| Family::of(one.addr()) == family) {
                continue;
            }
            if ask.is_target {
                return Err(AssignError::Machine { handle: id.clone() });
            }
            self.add(ask, *want, held).await?;
        }
        let held = self.settled(id).await?;
        for net in held.counts.keys().filter_map(|text| text.parse::<IpNet>().ok()) {
            self.change_owners(net, id, &change).await?;
        }
        self.still_has(ask, &held)?;
        Ok(held.addresses)
    }

    /// Fails, so that it is tried again, when what was found was released meanwhile: the machine's last pod left, and the machine
    /// with it.
    fn still_has(&self, ask: &MachineAsk, held: &Held) -> Result<(), StoreError> {
        for found in &held.addresses {
            let net = found.trunc();
            let copy = self.blocks.get(&net);
            let here = copy.map(|copy| machine::addresses(&copy.spec, &ask.request.handle));
            if !here.is_some_and(|here| here.contains(&found.addr())) {
                return Err(gone(&net));
            }
        }
        let has = |family| held.addresses.iter().any(|one| Family::of(one.addr()) == family);
        if ask.wants.iter().all(|want| has(want.family())) {
            return Ok(());
        }
        let key = handle::object_name(&ask.request.handle);
        Err(StoreError::Conflict { kind: "IPAMHandle", key })
    }

    /// Reads what a handle has, and makes it say just that.
    async fn settled(&mut self, id: &str) -> Result<Held, StoreError> {
        let held = self.held(id).await?;
        let Some(mut stored) = held.handle.clone() else { return Ok(held) };
        if stored.spec.block == held.counts {
            return Ok(held);
        }
        self.fence(&held).await?;
        if held.counts.is_empty() {
            delete_as_read(&self.store, &stored).await?;
            return Ok(Held { handle: None, empty: BTreeSet::new(), ..held });
        }
        stored.spec.block.clone_from(&held.counts);
        let handle = Some(self.store.update(&stored).await?);
        Ok(Held { handle, empty: BTreeSet::new(), ..held })
    }

    /// Reads what a handle has, IPv4 first. Copies are of no use: other nodes write here.
    async fn held(&mut self, id: &str) -> Result<Held, StoreError> {
        self.handles.remove(id);
        let key = Key::cluster(handle::object_name(id));
        let mut found = find::<IpamHandle>(&self.store, &key).await?;
        if let Some(stored) = found.take_if(|stored| stored.spec.deleted) {
            delete_as_read(&self.store, &stored).await?;
        }
        let mut held = Held {
            handle: found,
            addresses: Vec::new(),
            counts: BTreeMap::new(),
            empty: BTreeSet::new(),
        };
        let listed = held.handle.iter().flat_map(|stored| stored.spec.block.keys());
        let nets: BTreeSet<IpNet> = listed.filter_map(|text| text.parse().ok()).collect();
        for net in nets {
            let Some(stored) = self.load(net).await? else { continue };
            let addresses = machine::addresses(&stored.spec, id);
            if addresses.is_empty() {
                held.empty.insert(net);
                continue;
            }
            held.counts.insert(net.to_string(), u32::try_from(addresses.len()).unwrap_or(u32::MAX));
            let nets = addresses.iter().filter_map(|one| IpNet::new(*one, net.prefix_len()).ok());
            held.addresses.extend(nets);
        }
        held.addresses.sort_by_key(|one| Family::of(one.addr()));
        Ok(held)
    }

    /// Writes the blocks that somebody may be about to write for this handle.
    async fn fence(&mut self, held: &Held) -> Result<(), StoreError> {
        for net in &held.empty {
            if let Some(stored) = self.block(*net).await? {
                self.save(*net, stored).await?;
            }
        }
        Ok(())
    }

    async fn add(&mut self, ask: &MachineAsk, want: Want, held: Held) -> Result<(), AssignError> {
        let id = &ask.request.handle;
        let net = self.place(&ask.request, want, &|_: &IpNet| 0).await?;
        let Some(mut changed) = self.usable(net).await? else { return Err(gone(&net).into()) };
        let owner = ask.request.owner.attribute(id, self.options.clock.now());
        block::thaw(&mut changed.spec, self.cooldown());
        match want {
            Want::Certain(address) => {
                block::take(&mut changed.spec, address, &owner).map_err(|error| {
                    let reason = format!("cannot be taken: {error}");
                    AssignError::Refused { address, reason }
                })?;
            }
            Want::Any(_) => {
                let reserved = |address| self.reservations.contains(address);
                let taken = block::take_any(&mut changed.spec, &owner, reserved);
                taken.ok_or_else(|| gone(&net))?;
            }
        }
        let mut counts = held.counts;
        *counts.entry(net.to_string()).or_default() += 1;
        match held.handle {
            Some(mut stored) => {
                stored.spec.block = counts;
                self.store.update(&stored).await?;
            }
            None => drop(self.store.create(&handle::with_blocks(id, counts)).await?),
        }
        let saved = self.save(net, changed).await;
        if saved.is_err() {
            self.blocks.remove(&net);
        }
        Ok(saved?)
    }

    async fn change_owners(
        &mut self,
        net: IpNet,
        id: &str,
        change: &Change<'_>,
    ) -> Result<(), StoreError> {
        let mut attempt = 0;
        loop {
            let Some(mut changed) = self.block(net).await? else { return Ok(()) };
            if !machine::change(&mut changed.spec, id, change) {
                return Ok(());
            }
            match self.save(net, changed).await {
                Err(error) if may_retry(&error) && attempt < self.options.tries => {
                    attempt += 1;
                    pause(attempt).await;
                    self.load_patiently(net).await?;
                }
                result => return result,
            }
        }
    }

    /// The pod that a machine moved into runs it now.
    pub(super) async fn machine_moved(
        &mut self,
        id: &str,
        pod: &MachinePod,
    ) -> Result<(), AssignError> {
        self.for_each_block(id, &Change::RunsNow(pod)).await.map(drop).map_err(AssignError::from)
    }

    /// A pod of a machine is gone. When the machine goes too, and no other pod has the addresses, they are released.
    pub(super) async fn leave_machine(
        &mut self,
        id: &str,
        pod: &MachinePod,
        machine_ends: bool,
    ) -> Result<Released, AssignError> {
        let (handle, nets) = self.for_each_block(id, &Change::Leaves(pod)).await?;
        let mut is_kept = !machine_ends;
        for net in &nets {
            let stored = self.block(*net).await?;
            is_kept |= stored.is_some_and(|stored| {
                let of_handle = |one: &&api::AllocationAttribute| {
                    one.handle_id.as_deref() == Some(id) && !machine::is_free(one)
                };
                stored.spec.attributes.iter().any(|one| of_handle(&one))
            });
        }
        let mut released = Released::new();
        if is_kept {
            return Ok(released);
        }
        let mut left = Vec::new();
        for net in nets {
            let wanted = |_, owner: &api::AllocationAttribute, _: Option<u64>| {
                owner.handle_id.as_deref() == Some(id) && machine::is_free(owner)
            };
            let freed = self.release_in(net, wanted).await?;
            released.extend(freed.into_iter().map(|(address, _)| address));
            left.push((net, self.count_of(net, id)));
        }
        if let Some(handle) = handle {
            settle_handle(&self.store, handle, &left, self.options.tries).await?;
        }
        Ok(released)
    }

    /// Changes owners wherever a handle has addresses. Returns the handle as it was read before, and those blocks.
    async fn for_each_block(
        &mut self,
        id: &str,
        change: &Change<'_>,
    ) -> Result<(Option<Stored<IpamHandle>>, Vec<IpNet>), StoreError> {
        let mut attempt = 0;
        let held = loop {
            match self.held(id).await {
                Err(error) if may_retry(&error) && attempt < self.options.tries => {
                    attempt += 1;
                    pause(attempt).await;
                }
                result => break result?,
            }
        };
        let nets: Vec<IpNet> = held.counts.keys().filter_map(|text| text.parse().ok()).collect();
        for net in &nets {
            self.change_owners(*net, id, change).await?;
        }
        Ok((held.handle, nets))
    }
}

fn gone(net: &IpNet) -> StoreError {
    StoreError::Conflict { kind: "IPAMBlock", key: api::cidr_name(net) }
}
