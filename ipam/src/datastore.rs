//! Single steps of the conversations with the datastore, which the allocator and the collector share. Every step is one
//! compare-and-swap, and can be repeated.

use std::time::Duration;

use api::{AffinityState, BlockAffinity, IpamBlock, IpamHandle, Key, Resource};
use ipnet::IpNet;
use store::{DeletePreconditions, Revision, Store, StoreError, Stored, random::Random};

use crate::{
    affinity, block, handle,
    memory::{self, Frame},
};

/// Errors after which the state is read again and the step repeated.
pub(crate) fn may_retry(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Conflict { .. }
            | StoreError::AlreadyExists { .. }
            | StoreError::NotFound { .. }
            | StoreError::Unavailable { .. }
            | StoreError::TooManyRequests { .. }
    )
}

/// Waits a little longer after every attempt, never in step with others.
pub(crate) async fn pause(attempt: u32) {
    let full = Duration::from_millis(5 << attempt.min(7));
    tokio::time::sleep(Random::from_entropy().jitter(full)).await;
}

/// Deletes exactly what was read: the revision guards it as Calico's soft delete followed by a UID precondition does,
/// with one write instead of two.
pub(crate) async fn delete_as_read<R: Resource>(
    store: &impl Store,
    object: &Stored<R>,
) -> Result<(), StoreError> {
    let preconditions =
        DeletePreconditions { uid: object.meta().uid.clone(), revision: Some(object.revision()) };
    match store.delete::<R>(&object.key(), &preconditions).await {
        Err(StoreError::NotFound { .. }) => Ok(()),
        result => result,
    }
}

/// Reads an object; absence is an answer.
pub(crate) async fn find<R: Resource>(
    store: &impl Store,
    key: &Key,
) -> Result<Option<Stored<R>>, StoreError> {
    match store.get::<R>(key).await {
        Ok(stored) => Ok(Some(stored)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a block. One that is being deleted counts as absent, and its deletion is finished.
pub(crate) async fn find_block(
    store: &impl Store,
    net: &IpNet,
) -> Result<Option<Stored<IpamBlock>>, StoreError> {
    let found = find::<IpamBlock>(store, &Key::cluster(api::cidr_name(net))).await?;
    match found {
        Some(stored) if stored.spec.deleted => {
            delete_as_read(store, &stored).await?;
            Ok(None)
        }
        found => Ok(found),
    }
}

/// Writes a block; empty and owned by nobody, it is deleted instead. Returns what is stored.
pub(crate) async fn save_block(
    store: &impl Store,
    mut changed: Stored<IpamBlock>,
) -> Result<Option<Stored<IpamBlock>>, StoreError> {
    if block::is_empty(&changed.spec) && changed.spec.affinity.is_none() {
        delete_as_read(store, &changed).await?;
        return Ok(None);
    }
    changed.spec.sequence_number += 1;
    store.update(&changed).await.map(Some)
}

/// When a node's claim on a block ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum GiveBack {
    /// Now: a block with addresses stays without an owner until the last one goes.
    Always,
    /// Only if the block is empty and was not written since (`None`: whenever it was written).
    IfEmpty(Option<u64>),
}

/// Whose work it is to end a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Authority {
    /// The node's own, or the collector's: what somebody else began is taken over.
    Full,
    /// Another node's, which wants the block: it leaves alone what somebody else works on.
    Guest,
}

/// The end of a claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending<'a> {
    pub(crate) node: &'a str,
    pub(crate) net: &'a IpNet,
    pub(crate) when: GiveBack,
    pub(crate) authority: Authority,
}

/// Ends a node's claim on a block: affinity to `pendingDeletion`, block deleted or left without owner, affinity deleted.
/// Returns whether the claim is gone; one that stays is confirmed again.
///
/// Whoever wrote `pendingDeletion` works on the claim until somebody else writes the affinity. So a claim is never confirmed
/// again by one while another deletes its block.
pub(crate) async fn release_claim(
    store: &impl Store,
    ending: Ending<'_>,
    tries: u32,
) -> Result<bool, StoreError> {
    let mut attempt = 0;
    let mut marked = None;
    let part = Frame::enter();
    loop {
        part.remembers(|| format!("ends {ending:?}, {attempt} {marked:?}"));
        match release_claim_once(store, ending, &mut marked).await {
            Err(error) if may_retry(&error) && attempt < tries => {
                attempt += 1;
                pause(attempt).await;
            }
            result => return result,
        }
    }
}

/// `marked` is the revision at which this conversation wrote `pendingDeletion`.
async fn release_claim_once(
    store: &impl Store,
    ending: Ending<'_>,
    marked: &mut Option<Revision>,
) -> Result<bool, StoreError> {
    let Ending { node, net, when, authority } = ending;
    let key = Key::cluster(affinity::object_name(node, net));
    let Ok(mut claim) = take_over(find(store, &key).await?, store, authority, marked).await? else {
        return Ok(false);
    };
    let owner = affinity::of_host(node);
    let block = find_block(store, net).await?;
    let block = block.filter(|block| block.spec.affinity.as_deref() == Some(&owner));
    let is_used = block.as_ref().is_some_and(|block| !block::is_empty(&block.spec));
    let was_written = block.as_ref().is_some_and(|block| match when {
        GiveBack::IfEmpty(Some(sequence)) => sequence != block.spec.sequence_number,
        GiveBack::IfEmpty(None) | GiveBack::Always => false,
    });
    if was_written || (is_used && when != GiveBack::Always) {
        // With an address the block cannot vanish under us; without one only our own mark keeps others off.
        let Some(mut claim) = claim.filter(|_| is_used || marked.is_some()) else {
            return Ok(false);
        };
        if claim.spec.state != AffinityState::Confirmed {
            claim.spec.state = AffinityState::Confirmed;
            store.update(&claim).await?;
        }
        return Ok(false);
    }
    if let Some(found) = claim.as_mut().filter(|_| marked.is_none()) {
        found.spec.state = AffinityState::PendingDeletion;
        *found = store.update(found).await?;
        *marked = Some(found.revision());
    }
    if let Some(mut block) = block {
        block.spec.affinity = None;
        block.spec.affinity_claim_time = None;
        save_block(store, block).await?;
    }
    if let Some(claim) = claim {
        delete_as_read(store, &claim).await?;
    }
    Ok(true)
}

type Claim = Option<Stored<BlockAffinity>>;

/// Makes sure that nobody else is ending a claim. `Ok(Err(()))`: somebody is, or made it anew, and may.
async fn take_over(
    found: Claim,
    store: &impl Store,
    authority: Authority,
    marked: &mut Option<Revision>,
) -> Result<Result<Claim, ()>, StoreError> {
    let Some(mut claim) = found else { return Ok(Ok(None)) };
    if claim.spec.deleted {
        // Someone's soft delete that was not finished.
        delete_as_read(store, &claim).await?;
        return Ok(Ok(None));
    }
    if marked.as_ref() == Some(&claim.revision()) {
        return Ok(Ok(Some(claim)));
    }
    let is_others = marked.take().is_some() || claim.spec.state == AffinityState::PendingDeletion;
    if is_others && authority == Authority::Guest {
        return Ok(Err(()));
    }
    if claim.spec.state == AffinityState::PendingDeletion {
        claim.spec.state = AffinityState::Pending;
        claim = store.update(&claim).await?;
    }
    Ok(Ok(Some(claim)))
}

/// Makes a handle say how many addresses it has in some blocks; returns what is stored, `None` when it is gone.
pub(crate) async fn write_handle<S: Store>(
    store: &S,
    cached: Option<Stored<IpamHandle>>,
    id: &str,
    counts: &[(IpNet, u32)],
    tries: u32,
) -> Result<Option<Stored<IpamHandle>>, StoreError> {
    let mut known = cached;
    let key = Key::cluster(handle::object_name(id));
    let is_release = counts.iter().all(|(_, count)| *count == 0);
    // Without a copy, a new handle is the likely case of an assignment and an existing one that of a release.
    let mut read_first = known.is_none() && is_release;
    let mut attempt = 0;
    let part = Frame::enter();
    loop {
        part.remembers(|| {
            let known = known.as_ref().map(memory::copy);
            format!("writes {id} {counts:?}, {attempt} {read_first} {known:?}")
        });
        let result = match read_first {
            true => match find::<IpamHandle>(store, &key).await {
                Ok(None) if is_release => return Ok(None),
                Ok(found) => {
                    known = found;
                    read_first = false;
                    continue;
                }
                Err(error) => Err(error),
            },
            false => write_handle_once(store, known.clone(), id, counts).await,
        };
        match result {
            Err(error) if may_retry(&error) && attempt < tries => {
                read_first = true;
                attempt += 1;
                if !matches!(error, StoreError::AlreadyExists { .. }) {
                    pause(attempt).await;
                }
            }
            result => return result,
        }
    }
}

/// Makes a handle say what is left in some blocks after a release, if nobody wrote it since it was read: whoever did has seen the
/// blocks after that, or fails with what it is about to write there. A machine's next pod may use the handle already.
pub(crate) async fn settle_handle<S: Store>(
    store: &S,
    read: Stored<IpamHandle>,
    left: &[(IpNet, u32)],
    tries: u32,
) -> Result<(), StoreError> {
    let id = read.spec.handle_id.clone();
    let mut attempt = 0;
    let part = Frame::enter();
    loop {
        part.remembers(|| format!("settles {} {left:?}, {attempt}", memory::copy(&read)));
        match write_handle_once(store, Some(read.clone()), &id, left).await {
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => return Ok(()),
            Err(error) if may_retry(&error) && attempt < tries => {
                attempt += 1;
                pause(attempt).await;
            }
            result => return result.map(drop),
        }
    }
}

async fn write_handle_once<S: Store>(
    store: &S,
    known: Option<Stored<IpamHandle>>,
    id: &str,
    counts: &[(IpNet, u32)],
) -> Result<Option<Stored<IpamHandle>>, StoreError> {
    let some = counts.iter().filter(|(_, count)| *count > 0);
    let new = handle::with_blocks(id, some.map(|(net, count)| (net.to_string(), *count)).collect());
    let Some(mut stored) = known else { return store.create(&new).await.map(Some) };
    if stored.spec.deleted {
        // Someone's soft delete that was not finished.
        delete_as_read(store, &stored).await?;
        let is_release = new.spec.block.is_empty();
        return if is_release { Ok(None) } else { store.create(&new).await.map(Some) };
    }
    let mut changed = false;
    for (net, count) in counts {
        changed |= handle::set_count(&mut stored.spec, net, *count);
    }
    if stored.spec.block.is_empty() {
        return delete_as_read(store, &stored).await.map(|()| None);
    }
    if changed { store.update(&stored).await.map(Some) } else { Ok(Some(stored)) }
}
