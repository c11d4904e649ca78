//! Reading and writing blocks and handles.

use std::time::Duration;

use api::{IpamBlock, IpamHandle, Key, Resource};
use ipnet::IpNet;
use store::{DeletePreconditions, Store, StoreError, Stored, random::Random};

use super::{Worker, may_retry};
use crate::{block, handle};

/// Deletes exactly what was read: the revision guards it as Calico's soft delete followed by a UID precondition does,
/// with one write instead of two.
pub(super) async fn delete_as_read<R: Resource>(
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

/// Waits a little longer after every attempt, never in step with others.
pub(super) async fn pause(attempt: u32) {
    let full = Duration::from_millis(5 << attempt.min(7));
    tokio::time::sleep(Random::from_entropy().jitter(full)).await;
}

/// Makes a handle say that it has `count` addresses in a block; returns what is stored, `None` when it is gone.
pub(super) async fn write_handle<S: Store>(
    store: &S,
    cached: Option<Stored<IpamHandle>>,
    id: &str,
    block: &IpNet,
    count: u32,
    tries: u32,
) -> Result<Option<Stored<IpamHandle>>, StoreError> {
    let mut known = cached;
    // Without a copy, a new handle is the likely case of an assignment and an existing one that of a release.
    let mut read_first = known.is_none() && count == 0;
    let mut attempt = 0;
    loop {
        let result = if read_first {
            match store.get::<IpamHandle>(&Key::cluster(handle::object_name(id))).await {
                Ok(stored) => {
                    known = Some(stored);
                    read_first = false;
                    continue;
                }
                Err(StoreError::NotFound { .. }) if count == 0 => return Ok(None),
                Err(StoreError::NotFound { .. }) => {
                    known = None;
                    read_first = false;
                    continue;
                }
                Err(error) => Err(error),
            }
        } else {
            write_once(store, known.clone(), id, block, count).await
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

async fn write_once<S: Store>(
    store: &S,
    known: Option<Stored<IpamHandle>>,
    id: &str,
    block: &IpNet,
    count: u32,
) -> Result<Option<Stored<IpamHandle>>, StoreError> {
    let Some(mut stored) = known else {
        return store.create(&handle::new(id, block, count)).await.map(Some);
    };
    if stored.spec.deleted {
        // Someone's soft delete that was not finished.
        delete_as_read(store, &stored).await?;
        return if count == 0 {
            Ok(None)
        } else {
            store.create(&handle::new(id, block, count)).await.map(Some)
        };
    }
    let changed = handle::set_count(&mut stored.spec, block, count);
    if stored.spec.block.is_empty() {
        return delete_as_read(store, &stored).await.map(|()| None);
    }
    if changed { store.update(&stored).await.map(Some) } else { Ok(Some(stored)) }
}

impl<S: Store> Worker<S> {
    /// Reads a block again. A block that is being deleted counts as absent, and its deletion is finished.
    pub(super) async fn load(
        &mut self,
        net: IpNet,
    ) -> Result<Option<Stored<IpamBlock>>, StoreError> {
        let key = Key::cluster(api::cidr_name(&net));
        match self.store.get::<IpamBlock>(&key).await {
            Ok(stored) if stored.spec.deleted => {
                delete_as_read(&self.store, &stored).await?;
                self.blocks.remove(&net);
                Ok(None)
            }
            Ok(stored) => {
                self.blocks.insert(net, stored.clone());
                Ok(Some(stored))
            }
            Err(StoreError::NotFound { .. }) => {
                self.blocks.remove(&net);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Like [`Worker::load`], patient with a datastore that does not answer.
    pub(super) async fn load_patiently(
        &mut self,
        net: IpNet,
    ) -> Result<Option<Stored<IpamBlock>>, StoreError> {
        let mut attempt = 0;
        loop {
            match self.load(net).await {
                Err(error) if may_retry(&error) && attempt < self.options.tries => {
                    attempt += 1;
                    pause(attempt).await;
                }
                result => return result,
            }
        }
    }

    /// Returns a block as last seen, reading it when it was never seen.
    pub(super) async fn block(
        &mut self,
        net: IpNet,
    ) -> Result<Option<Stored<IpamBlock>>, StoreError> {
        match self.blocks.get(&net) {
            Some(stored) => Ok(Some(stored.clone())),
            None => self.load_patiently(net).await,
        }
    }

    /// Writes a block; empty and owned by nobody, it is deleted instead.
    pub(super) async fn save(
        &mut self,
        net: IpNet,
        mut changed: Stored<IpamBlock>,
    ) -> Result<(), StoreError> {
        if block::is_empty(&changed.spec) && changed.spec.affinity.is_none() {
            delete_as_read(&self.store, &changed).await?;
            self.blocks.remove(&net);
            return Ok(());
        }
        changed.spec.sequence_number += 1;
        let stored = self.store.update(&changed).await?;
        self.blocks.insert(net, stored);
        Ok(())
    }

    /// Writes the counts of handles in one block, all at once.
    pub(super) async fn write_handles(
        &mut self,
        net: IpNet,
        counts: &[(String, u32)],
    ) -> Vec<Result<(), StoreError>> {
        let (store, tries) = (&self.store, self.options.tries);
        let writes = counts.iter().map(|(id, count)| {
            write_handle(store, self.handles.get(id).cloned(), id, &net, *count, tries)
        });
        let results = futures::future::join_all(writes).await;
        let mut outcomes = Vec::with_capacity(counts.len());
        for ((id, _), result) in counts.iter().zip(results) {
            outcomes.push(match result {
                Ok(Some(stored)) => {
                    self.handles.insert(id.clone(), stored);
                    Ok(())
                }
                Ok(None) => {
                    self.handles.remove(id);
                    Ok(())
                }
                Err(error) => {
                    self.handles.remove(id);
                    Err(error)
                }
            });
        }
        outcomes
    }
}
