//! Garbage collection for the whole cluster: what nobody uses any more is found, seen twice, and released.
//!
//! [`plan`] is pure: an inventory, what was observed before and the time go in; what was observed now and a [`ReleasePlan`]
//! come out. [`apply`] carries a plan out and looks at everything again before it touches it. It does not decide when to
//! run, or who leads.
//!
//! | What | Released when | After |
//! |---|---|---|
//! | address of a pod | the pod is gone, over, elsewhere, or has other addresses | the grace period; [`Rules::settle`] when its node is gone |
//! | address of a virtual machine | the machine is gone, and no pod has the address | the grace period, five minutes at least |
//! | address of a tunnel | its node is gone | `settle` |
//! | empty block | its node has another block of the family | `settle`, not written meanwhile |
//! | empty block that overlaps another, or that nobody owns | at once | `settle`, not written meanwhile |
//! | claim of a dead node | nobody alive has an address of the block | `settle` |
//! | claim that was never finished, or owns nothing | nobody finished it | the grace period |
//! | address that was released | it cooled down: nobody else may write its block for long | `ipCooldownSeconds` |
//! | handle that disagrees with the blocks | nobody finished it | the grace period |
//!
//! Of a handle all addresses go, or none. One goes alone if the pod has others and says so itself, in Calico's annotation, which
//! names all that it has: somebody died who released them one by one.

mod apply;
mod block;
mod handle;
mod machines;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use api::{BlockAffinity, IpPool, IpamBlock, IpamHandle, Node, Pod};
use ipnet::IpNet;

#[cfg(test)]
pub(crate) use apply::apply_patiently;
pub use apply::{Applied, apply};
pub use machines::machines;

use crate::{UnixNanos, block::Cooldown, machine};

/// Everything that the collector looks at, of about one moment.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names are the kinds")]
pub struct Inventory<'a> {
    pub blocks: Vec<&'a IpamBlock>,
    pub affinities: Vec<&'a BlockAffinity>,
    pub handles: Vec<&'a IpamHandle>,
    pub nodes: Vec<&'a Node>,
    pub pods: Vec<&'a Pod>,
    /// `None`: nobody looked, and then every block is taken to be in one.
    pub pools: Option<Vec<&'a IpPool>>,
    /// Virtual machines, as (namespace, name). `None`: nobody looked, and then their addresses are kept.
    pub machines: Option<&'a BTreeSet<(String, String)>>,
}

/// Returns whether an address belongs to a virtual machine: only then is there a reason to ask which machines there are.
#[must_use]
pub fn is_of_machine(owner: &api::AllocationAttribute) -> bool {
    owner.secondary.contains_key(machine::NAME)
        || owner.alternate_owner_attrs.contains_key(machine::NAME)
        || verdict::waits_for_machine(owner)
}

/// How patient the collector is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// How long an address must have been unused (`leakGracePeriod`); `None` releases no address and mends no handle.
    pub grace: Option<Duration>,
    /// How long a released address rests (`ipCooldownSeconds`).
    pub cooldown: Duration,
    /// How long two observations must lie apart, so that work in progress is not taken for what was left over.
    pub settle: Duration,
    /// Whether empty blocks go that their nodes can spare; those of pools that are gone or disabled go in any case.
    pub spare_blocks: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            grace: Some(Duration::from_secs(15 * 60)),
            cooldown: Duration::ZERO,
            settle: Duration::from_secs(60),
            spare_blocks: true,
        }
    }
}

/// What was observed, with the time since when; the collector's only memory. A new leader starts with none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observations {
    seen: BTreeMap<Subject, Seen>,
    candidates: BTreeMap<String, usize>,
}

impl Observations {
    /// Returns how many addresses of each node look unused at the moment (`ipam_allocations_gc_candidates`).
    #[must_use]
    pub fn candidates(&self) -> &BTreeMap<String, usize> {
        &self.candidates
    }
}

/// Something that should not be there.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Subject {
    Address(IpAddr),
    Block(String),
    Misfit(String),
    Affinity(String),
    Handle(String),
}

/// As it was; a subject that changed is a new one.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Seen {
    mark: String,
    since: UnixNanos,
}

/// What to release, and why.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ReleasePlan {
    /// Handles with all their addresses.
    pub handles: Vec<HandleRelease>,
    /// Blocks that their nodes lose.
    pub blocks: Vec<BlockRelease>,
    /// Claims that own no block: object name, and the revision that was seen.
    pub affinities: Vec<(String, Option<String>)>,
    /// Handles that disagree with the blocks.
    pub repairs: Vec<HandleRepair>,
    /// Blocks with addresses that cooled down, and empty ones without an owner: written as they should be.
    pub tidy: Vec<IpNet>,
    /// How long released addresses rest.
    pub cooldown: Duration,
}

impl ReleasePlan {
    /// Returns whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == (Self { cooldown: self.cooldown, ..Self::default() })
    }
}

/// A handle whose addresses go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HandleRelease {
    /// The handle.
    pub handle: String,
    /// Why.
    pub reason: String,
    /// Where.
    pub addresses: Vec<AddressRelease>,
    /// The handle keeps others, which its pod uses.
    pub is_part: bool,
}

/// An address that goes, if it is still the same allocation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddressRelease {
    /// Its block.
    pub block: IpNet,
    /// The address.
    pub address: IpAddr,
    /// Sequence number at which it was assigned; `None` in blocks that old versions wrote.
    pub sequence: Option<u64>,
}

/// A block that its node loses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BlockRelease {
    /// Who has it.
    pub node: String,
    /// The block.
    pub block: IpNet,
    /// Only if it is empty and still has this sequence number; `None` when the node is gone.
    pub if_empty_at: Option<u64>,
}

/// What a handle should say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HandleRepair {
    /// The handle.
    pub handle: String,
    /// The revision that was seen; `None` when the object is missing.
    pub revision: Option<String>,
    /// Blocks and numbers of addresses; with none the object is deleted.
    pub block: BTreeMap<String, u32>,
}

/// Decides what to release. `previous` is what the last call returned.
#[must_use]
pub fn plan(
    inventory: &Inventory<'_>,
    previous: &Observations,
    now: UnixNanos,
    rules: &Rules,
) -> (Observations, ReleasePlan) {
    let mut pass = Pass { previous, now, rules, next: Observations::default() };
    let facts = verdict::Facts::new(inventory);
    let mut plan = ReleasePlan { cooldown: rules.cooldown, ..ReleasePlan::default() };
    plan.tidy = block::rested(inventory, Cooldown { now, rest: rules.cooldown });
    let in_use = pass.addresses(inventory, &facts, &mut plan);
    pass.blocks(inventory, &facts, &in_use, &mut plan);
    pass.handles(inventory, &mut plan);
    (pass.next, plan)
}

/// One look at the cluster.
struct Pass<'a> {
    previous: &'a Observations,
    now: UnixNanos,
    rules: &'a Rules,
    next: Observations,
}

impl Pass<'_> {
    /// Notes something that should not be there. Returns whether it was seen before, as it is, for long enough.
    fn is_due(&mut self, subject: Subject, mark: String, wait: Option<Duration>) -> bool {
        let before = self.previous.seen.get(&subject).filter(|seen| seen.mark == mark);
        let since = before.map_or(self.now, |seen| seen.since);
        let age = u128::from(self.now.0.saturating_sub(since.0));
        let due = before.is_some() && wait.is_some_and(|wait| age >= wait.as_nanos());
        self.next.seen.insert(subject, Seen { mark, since });
        due
    }

    /// Finds unused addresses. Returns those that are in use, or of which nobody can say that they are not.
    fn addresses(
        &mut self,
        inventory: &Inventory<'_>,
        facts: &verdict::Facts<'_>,
        plan: &mut ReleasePlan,
    ) -> BTreeSet<IpAddr> {
        let mut handles: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        let mut in_use = BTreeSet::new();
        for spec in inventory.blocks.iter().map(|block| &block.spec).filter(|spec| !spec.deleted) {
            let Some(net) = crate::block::cidr(spec) else { continue };
            for (address, owner) in crate::block::assigned(spec) {
                let Some(leak) = facts.judge(address, owner) else {
                    // Without a handle nobody can say whose it is, or release it.
                    if let Some(handle) = &owner.handle_id {
                        kept.insert(handle.to_lowercase());
                        in_use.insert(address);
                    }
                    continue;
                };
                let sequence = crate::block::sequence_of(spec, address);
                let mark = format!("{} {sequence:?}", leak.handle);
                let wait = leak.patience.of(self.rules);
                let due = self.is_due(Subject::Address(address), mark, wait);
                let node = owner.secondary.get("node").cloned().unwrap_or_default();
                *self.next.candidates.entry(node).or_default() += 1;
                let release = AddressRelease { block: net, address, sequence };
                let candidate =
                    Candidate { release, reason: leak.reason, due, goes_alone: leak.goes_alone };
                handles.entry(leak.handle).or_default().push(candidate);
            }
        }
        for (handle, mut candidates) in handles {
            let is_part = kept.contains(&handle.to_lowercase());
            if is_part {
                candidates.retain(|one| one.due && one.goes_alone);
            }
            let Some(first) = candidates.first().filter(|_| candidates.iter().all(|one| one.due))
            else {
                continue;
            };
            let reason = first.reason.clone();
            let addresses = candidates.into_iter().map(|one| one.release).collect();
            plan.handles.push(HandleRelease { handle, reason, addresses, is_part });
        }
        in_use
    }
}

/// An address that nobody uses.
struct Candidate {
    release: AddressRelease,
    reason: String,
    /// Seen before, for long enough.
    due: bool,
    goes_alone: bool,
}
