//! Watches: each connection remembers how far it has read its kind's history, and sleeps until there is more.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::Duration,
};

use axum::body::{Body, Bytes};
use futures::stream;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Shared,
    handlers::Shape,
    kinds::Resource,
    selector::Selector,
    status::Failure,
    storage::{Change, Storage},
    table::{self, Include},
    value::object_at,
};

/// Between two bookmarks of a quiet watch.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);

/// What a client asked to watch.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) resource: Arc<Resource>,
    pub(super) selector: Selector,
    pub(super) shape: Shape,
    pub(super) bookmarks: bool,
    pub(super) initial_events: bool,
    pub(super) from: Option<u64>,
    pub(super) timeout: Duration,
}

struct Watcher {
    shared: Arc<Shared>,
    request: Request,
    changed: watch::Receiver<u64>,
    seen: u64,
    ready: VecDeque<Bytes>,
    ends: Instant,
    next_bookmark: Instant,
    failed: bool,
}

/// Starts a watch; its events come as lines of JSON until its time is over.
pub(super) fn start(
    shared: &Arc<Shared>,
    request: Request,
    started: Instant,
) -> Result<Body, Failure> {
    let collection = request.resource.collection();
    let mut engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
    let changed = engine.storage.subscribe(&collection);
    let storage = &engine.storage;
    let now = Timestamp::now();
    let mut ready = VecDeque::new();
    let mut seen = storage.revision();
    let from = request.from.filter(|from| *from != 0 && !request.initial_events);
    if let Some(from) = from {
        storage.changes_after(&collection, from)?;
        seen = from;
    } else {
        let matching =
            storage.list(&collection, None).filter(|(_, object)| request.selector.matches(object));
        ready.extend(matching.map(|(_, object)| request.line("ADDED", object, now)));
        if request.initial_events {
            ready.push_back(request.bookmark(storage.revision(), true));
        }
    }
    drop(engine);
    let watcher = Watcher {
        shared: Arc::clone(shared),
        ends: started + request.timeout,
        next_bookmark: started + BOOKMARK_EVERY,
        request,
        changed,
        seen,
        ready,
        failed: false,
    };
    let lines = stream::unfold(watcher, |mut watcher| async move {
        let line = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(line), watcher))
    });
    Ok(Body::from_stream(lines))
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.failed {
                return None;
            }
            self.changed.borrow_and_update();
            self.read();
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = sleep_until(self.ends) => return None,
                () = sleep_until(self.next_bookmark) => {
                    self.next_bookmark += BOOKMARK_EVERY;
                    if self.request.bookmarks {
                        self.ready.push_back(self.request.bookmark(self.seen, false));
                    }
                }
            }
        }
    }

    /// Reads what is new in the history.
    fn read(&mut self) {
        let engine = self.shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        match changes(&engine.storage, &self.request, self.seen) {
            Ok(lines) => {
                self.ready.extend(lines);
                // A client may resume from a list of the future (a restarted server): it waits there.
                self.seen = self.seen.max(engine.storage.revision());
            }
            Err(failure) => {
                let mut line = json!({"type": "ERROR", "object": failure.body()}).to_string();
                line.push('\n');
                self.ready.push_back(line.into());
                self.failed = true;
            }
        }
    }
}

fn changes(storage: &Storage, request: &Request, seen: u64) -> Result<Vec<Bytes>, Failure> {
    let now = Timestamp::now();
    let changes = storage.changes_after(&request.resource.collection(), seen)?;
    Ok(changes.iter().filter_map(|change| request.event(change, now)).collect())
}

impl Request {
    /// What a change is to this watcher: an object that no longer matches is deleted for it.
    fn event(&self, change: &Change, now: Timestamp) -> Option<Bytes> {
        let before = change.before.as_ref().filter(|before| self.selector.matches(before));
        let after = !change.deleted && self.selector.matches(&change.object);
        match (before, after) {
            (None, false) => None,
            (None, true) => Some(self.line("ADDED", &change.object, now)),
            (Some(_), true) => Some(self.line("MODIFIED", &change.object, now)),
            (Some(_), false) if change.deleted => Some(self.line("DELETED", &change.object, now)),
            (Some(before), false) => {
                let mut last = Value::clone(before);
                let revision = change.revision.to_string();
                object_at(&mut last, &["metadata"])
                    .insert("resourceVersion".to_owned(), revision.into());
                Some(self.line("DELETED", &last, now))
            }
        }
    }

    fn line(&self, kind: &str, object: &Value, now: Timestamp) -> Bytes {
        let mut line = match self.shape {
            Shape::Plain => json!({"type": kind, "object": object}),
            Shape::Partial => json!({"type": kind, "object": table::partial(object)}),
            Shape::Table(include) => {
                let meta = json!({"resourceVersion": object.pointer("/metadata/resourceVersion")});
                let rows = std::iter::once(object);
                json!({"type": kind, "object": table::render(&self.resource, rows, &meta, include, now)})
            }
        }
        .to_string();
        line.push('\n');
        line.into()
    }

    fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata =
            json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            object_at(&mut metadata, &["annotations"])
                .insert("k8s.io/initial-events-end".to_owned(), "true".into());
        }
        let object = match self.shape {
            Shape::Plain => {
                json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata})
            }
            Shape::Partial => table::partial(&json!({"metadata": metadata})),
            Shape::Table(_) => table::render(
                &self.resource,
                std::iter::empty(),
                &metadata,
                Include::None,
                Timestamp::UNIX_EPOCH,
            ),
        };
        let mut line = json!({"type": "BOOKMARK", "object": object}).to_string();
        line.push('\n');
        line.into()
    }
}
