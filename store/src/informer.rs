//! List, then watch, resume, list again: a stream of changes that never ends.

mod cache;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use api::{Key, Resource};
use futures::{Stream, StreamExt, stream};
use tokio::time::Instant;

pub use cache::Cache;

use crate::{
    ListOptions, Listing, Revision, Store, StoreError, Stored, WatchEvent, WatchStream,
    random::Backoff,
};

/// What a follower sees.
#[derive(Clone, Debug)]
pub enum Change<R> {
    /// Created or changed, or seen for the first time.
    Applied(Stored<R>),
    /// Deleted, with the last state when the server told it and we can read it (not when a new list shows that it vanished).
    Deleted(Key, Option<Stored<R>>),
    /// Everything that existed at the start has been told. Comes once.
    Synced,
    /// An object that our type cannot read. It counts as absent; a previous state of it was told as deleted. Its end is told as
    /// that of any other.
    Malformed {
        /// Which object.
        key: Key,
        /// Why.
        message: String,
    },
    /// The datastore does not answer; what was told stays true as far as anyone knows.
    Disconnected {
        /// Why.
        reason: StoreError,
        /// When the next attempt is made.
        retry_in: Duration,
    },
}

/// What to follow and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FollowOptions {
    /// Which objects. The first list comes from the server's cache.
    pub list: ListOptions,
    /// Keep the raw JSON of objects, needed to write them back ([`Stored::without_raw`]).
    pub keep_raw: bool,
    /// Shortest wait after a failure.
    pub backoff: Duration,
    /// Longest wait after failures.
    pub max_backoff: Duration,
}

impl FollowOptions {
    /// Follows what `list` selects, for reading only.
    #[must_use]
    pub fn new(list: ListOptions) -> Self {
        Self {
            list: ListOptions { cached: true, ..list },
            keep_raw: false,
            backoff: Duration::from_millis(200),
            // Pods wait for it when the server is back.
            max_backoff: Duration::from_secs(10),
        }
    }

    /// Keeps the raw JSON, so that objects can be written back.
    #[must_use]
    pub fn keep_raw(mut self) -> Self {
        self.keep_raw = true;
        self
    }
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self::new(ListOptions::cached())
    }
}

/// Follows every change of the selected objects. The stream never ends; drop it to stop.
pub fn follow<R: Resource>(
    store: impl Store,
    options: FollowOptions,
) -> impl Stream<Item = Change<R>> + Send {
    let follower = Follower::<R, _> {
        backoff: Backoff::new(options.backoff, options.max_backoff),
        store,
        options,
        known: BTreeMap::new(),
        unreadable: BTreeSet::new(),
        ready: VecDeque::new(),
        synced: false,
        phase: Phase::List(None),
    };
    stream::unfold(follower, |mut follower| async move {
        let change = follower.next().await;
        Some((change, follower))
    })
}

/// A watch that lived this long was a good one.
const LONG_ENOUGH: Duration = Duration::from_secs(5);

enum Phase<R> {
    /// List; not older than what was seen already.
    List(Option<Revision>),
    Watch(Revision),
    Stream(WatchStream<R>, Revision, Instant),
    Wait(Duration, Box<Self>),
}

struct Follower<R, S> {
    store: S,
    options: FollowOptions,
    /// What was told, by revision.
    known: BTreeMap<Key, Revision>,
    /// What was told to be malformed.
    unreadable: BTreeSet<Key>,
    ready: VecDeque<Change<R>>,
    synced: bool,
    phase: Phase<R>,
    backoff: Backoff,
}

impl<R: Resource, S: Store> Follower<R, S> {
    async fn next(&mut self) -> Change<R> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            let phase = std::mem::replace(&mut self.phase, Phase::List(None));
            self.phase = self.step(phase).await;
        }
    }

    async fn step(&mut self, phase: Phase<R>) -> Phase<R> {
        match phase {
            Phase::Wait(wait, next) => {
                tokio::time::sleep(wait).await;
                *next
            }
            Phase::List(floor) => {
                let list =
                    ListOptions { not_older_than: floor.clone(), ..self.options.list.clone() };
                match self.store.list::<R>(&list).await {
                    Ok(listing) => {
                        let revision = listing.revision.clone();
                        self.relisted(listing);
                        Phase::Watch(revision)
                    }
                    Err(error) => self.failed(error, Phase::List(floor)),
                }
            }
            Phase::Watch(from) => match self.store.watch::<R>(&self.options.list, &from).await {
                Ok(stream) => Phase::Stream(stream, from, Instant::now()),
                Err(StoreError::Gone) => self.failed(StoreError::Gone, Phase::List(Some(from))),
                Err(error) => self.failed(error, Phase::Watch(from)),
            },
            Phase::Stream(mut stream, at, since) => match stream.next().await {
                Some(Ok(event)) => {
                    self.backoff.reset();
                    let reached = self.told(event);
                    Phase::Stream(stream, reached.unwrap_or(at), since)
                }
                Some(Err(StoreError::Gone)) => self.failed(StoreError::Gone, Phase::List(Some(at))),
                Some(Err(error)) => self.failed(error, Phase::Watch(at)),
                // Servers close watches now and then. A short wait keeps a server that closes at once from being
                // asked in a loop; it says nothing about the connection.
                None => {
                    if since.elapsed() > LONG_ENOUGH {
                        self.backoff.reset();
                    }
                    Phase::Wait(self.backoff.next_wait(), Box::new(Phase::Watch(at)))
                }
            },
        }
    }

    fn failed(&mut self, reason: StoreError, next: Phase<R>) -> Phase<R> {
        let mut retry_in = self.backoff.next_wait();
        if let StoreError::TooManyRequests { retry_after_seconds: Some(seconds), .. } = reason {
            retry_in = retry_in.max(Duration::from_secs(seconds));
        }
        if !matches!(reason, StoreError::Gone) {
            self.ready.push_back(Change::Disconnected { reason, retry_in });
        }
        Phase::Wait(retry_in, Box::new(next))
    }

    fn relisted(&mut self, listing: Listing<R>) {
        let present: BTreeSet<Key> = listing.items.iter().map(|item| item.key()).collect();
        let vanished: Vec<Key> =
            self.known.keys().filter(|key| !present.contains(*key)).cloned().collect();
        for key in vanished {
            self.known.remove(&key);
            self.ready.push_back(Change::Deleted(key, None));
        }
        let unreadable: BTreeSet<Key> =
            listing.malformed.iter().map(|(key, _)| key.clone()).collect();
        for key in std::mem::take(&mut self.unreadable) {
            if !present.contains(&key) && !unreadable.contains(&key) {
                self.ready.push_back(Change::Deleted(key, None));
            }
        }
        self.unreadable = unreadable;
        for item in listing.items {
            if self.known.get(&item.key()) != Some(&item.revision()) {
                self.applied(item);
            }
        }
        for (key, message) in listing.malformed {
            self.ready.push_back(Change::Malformed { key, message });
        }
        if !self.synced {
            self.synced = true;
            self.ready.push_back(Change::Synced);
        }
    }

    fn applied(&mut self, object: Stored<R>) {
        self.known.insert(object.key(), object.revision());
        self.unreadable.remove(&object.key());
        let kept = if self.options.keep_raw { object } else { object.without_raw() };
        self.ready.push_back(Change::Applied(kept));
    }

    /// Queues what an event means; returns the revision to resume from.
    fn told(&mut self, event: WatchEvent<R>) -> Option<Revision> {
        let revision = match event {
            WatchEvent::Applied(object) => {
                let revision = object.revision();
                self.applied(object);
                revision
            }
            WatchEvent::Deleted(object) => {
                let (key, revision) = (object.key(), object.revision());
                if self.known.remove(&key).is_some() {
                    self.ready.push_back(Change::Deleted(key, Some(object)));
                }
                revision
            }
            WatchEvent::Bookmark(revision) => revision,
            WatchEvent::Malformed { key, is_gone, message } => {
                let was_known = self.known.remove(&key).is_some();
                if was_known || (is_gone && self.unreadable.remove(&key)) {
                    self.ready.push_back(Change::Deleted(key.clone(), None));
                }
                if !is_gone {
                    self.unreadable.insert(key.clone());
                    self.ready.push_back(Change::Malformed { key, message });
                }
                return None;
            }
        };
        (!revision.as_str().is_empty()).then_some(revision)
    }
}
