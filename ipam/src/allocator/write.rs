//! Reading and writing blocks and handles, with the worker's copies kept true.

use api::{IpamBlock, IpamHandle};
use ipnet::IpNet;
use store::{Store, StoreError, Stored};

use super::Worker;
use crate::datastore::{find_block, may_retry, pause, save_block, write_handle};
use crate::memory::Frame;

impl<S: Store> Worker<S> {
    /// Reads a block again. A block that is being deleted counts as absent, and its deletion is finished.
    pub(super) async fn load(
        &mut self,
        net: IpNet,
    ) -> Result<Option<Stored<IpamBlock>>, StoreError> {
        let found = find_block(&self.store, &net).await?;
        match &found {
            Some(stored) => self.blocks.insert(net, stored.clone()),
            None => self.blocks.remove(&net),
        };
        Ok(found)
    }

    /// Like [`Worker::load`], patient with a datastore that does not answer.
    pub(super) async fn load_patiently(
        &mut self,
        net: IpNet,
    ) -> Result<Option<Stored<IpamBlock>>, StoreError> {
        let mut attempt = 0;
        let part = Frame::enter();
        loop {
            self.remembers(&part, || format!("reads {net}, {attempt}"));
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
        changed: Stored<IpamBlock>,
    ) -> Result<(), StoreError> {
        match save_block(&self.store, changed).await? {
            Some(stored) => self.blocks.insert(net, stored),
            None => self.blocks.remove(&net),
        };
        Ok(())
    }

    /// Writes the counts of handles in one block, all at once.
    pub(super) async fn write_handles(
        &mut self,
        net: IpNet,
        counts: &[(String, u32)],
    ) -> Vec<Result<(), StoreError>> {
        let part = Frame::enter();
        if counts.len() == 1 {
            self.remembers(&part, || format!("writes handles {net} {counts:?}"));
        }
        let (store, tries) = (&self.store, self.options.tries);
        let writes = counts.iter().map(|(id, count)| {
            let (known, counts) = (self.handles.get(id).cloned(), [(net, *count)]);
            async move { write_handle(store, known, id, &counts, tries).await }
        });
        let results = futures::future::join_all(writes).await;
        let results = counts.iter().zip(results);
        results.map(|((id, _), result)| self.keep_handle(id, result)).collect()
    }

    /// Keeps a copy of a handle that was written.
    pub(super) fn keep_handle(
        &mut self,
        id: &str,
        result: Result<Option<Stored<IpamHandle>>, StoreError>,
    ) -> Result<(), StoreError> {
        match result {
            Ok(Some(stored)) => {
                self.handles.insert(id.to_owned(), stored);
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
        }
    }
}
