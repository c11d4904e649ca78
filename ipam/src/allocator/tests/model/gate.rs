//! The datastore as one life of a node sees it: every request waits until it is answered from outside, and watches show what
//! they are told to show.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{Key, Resource};
use futures::stream;
use serde_json::{Value, json};
use store::{
    DeletePreconditions, ListOptions, Listing, Revision, Store, StoreError, Stored, WatchEvent,
    WatchStream,
};
use tokio::sync::{mpsc, oneshot};

/// A request as it was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) verb: Verb,
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) body: Value,
    /// Revision and uid that the object must have.
    pub(super) guard: (Option<String>, Option<String>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verb {
    Get,
    List,
    Look,
    Create,
    Update,
    Delete,
}

/// An answer as it is heard.
#[derive(Debug)]
pub(super) enum Reply {
    Object(Arc<Value>),
    Objects(Vec<Arc<Value>>),
    Done,
    NotFound,
    AlreadyExists,
    Conflict,
    Unavailable,
}

/// A change that a watch shows.
type Shown = (bool, Arc<Value>);
type Named = (&'static str, String);

/// What waits, and what the watches show.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) waiting: Vec<(Sent, oneshot::Sender<Reply>)>,
    view: BTreeMap<Named, Arc<Value>>,
    watchers: Vec<(&'static str, mpsc::UnboundedSender<Shown>)>,
    /// Kinds that are read by requests; the others never change.
    gated: Vec<&'static str>,
    /// Blocks that were asked to be made.
    pub(super) created: u64,
}

impl Desk {
    pub(super) fn new(view: BTreeMap<Named, Arc<Value>>, gated: Vec<&'static str>) -> Self {
        Self { view, gated, ..Self::default() }
    }

    /// Shows the objects of a kind as they are now. Returns whether that is news.
    pub(super) fn show(&mut self, kind: &'static str, now: Vec<(String, Arc<Value>)>) -> bool {
        let now: BTreeMap<Named, Arc<Value>> =
            now.into_iter().map(|(name, object)| ((kind, name), object)).collect();
        let before = self.view.extract_if(.., |(one, _), _| *one == kind).collect::<Vec<_>>();
        let mut changes: Vec<Shown> = Vec::new();
        for (named, object) in &before {
            if !now.contains_key(named) {
                changes.push((true, Arc::clone(object)));
            }
        }
        let before: BTreeMap<_, _> = before.into_iter().collect();
        for (named, object) in &now {
            if before.get(named) != Some(object) {
                changes.push((false, Arc::clone(object)));
            }
        }
        self.view.extend(now);
        self.watchers.retain(|(_, told)| !told.is_closed());
        for (_, told) in self.watchers.iter().filter(|(one, _)| *one == kind) {
            for change in &changes {
                let _ = told.send(change.clone());
            }
        }
        !changes.is_empty()
    }
}

/// The door to the desk.
#[derive(Clone)]
pub(super) struct Gate(pub(super) Arc<Mutex<Desk>>);

impl Gate {
    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_gated<R: Resource>(&self) -> bool {
        self.desk().gated.contains(&R::KIND.kind)
    }

    async fn ask<R: Resource>(
        &self,
        verb: Verb,
        key: &Key,
        body: Value,
        guard: (Option<String>, Option<String>),
    ) -> Result<Vec<Arc<Value>>, StoreError> {
        let (tell, told) = oneshot::channel();
        let kind = R::KIND.kind;
        let sent = Sent { verb, kind, name: key.name.clone(), body, guard };
        {
            let mut desk = self.desk();
            desk.created += u64::from(verb == Verb::Create && kind == "IPAMBlock");
            desk.waiting.push((sent, tell));
        }
        let key = key.to_string();
        match told.await {
            Ok(Reply::Object(object)) => Ok(vec![object]),
            Ok(Reply::Objects(objects)) => Ok(objects),
            Ok(Reply::Done) => Ok(Vec::new()),
            Ok(Reply::NotFound) => Err(StoreError::NotFound { kind, key }),
            Ok(Reply::AlreadyExists) => Err(StoreError::AlreadyExists { kind, key }),
            Ok(Reply::Conflict) => Err(StoreError::Conflict { kind, key }),
            Ok(Reply::Unavailable) => {
                Err(StoreError::Unavailable { message: "no answer".to_owned() })
            }
            // Dead.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until it is this program's turn to look at everything.
    pub(super) async fn look(&self) {
        let nothing = (Verb::Look, Key::cluster(""), Value::Null, (None, None));
        let (verb, key, body, guard) = nothing;
        drop(self.ask::<api::IpamBlock>(verb, &key, body, guard).await);
    }

    fn shown<R: Resource>(&self, options: &ListOptions) -> Vec<Arc<Value>> {
        let desk = self.desk();
        let of_kind = desk.view.iter().filter(|((kind, _), _)| *kind == R::KIND.kind);
        let named = options.fields.get("metadata.name");
        let chosen = of_kind.filter(|((_, name), _)| named.is_none_or(|wanted| wanted == name));
        chosen.map(|(_, object)| Arc::clone(object)).collect()
    }
}

fn one<R: Resource>(objects: Vec<Arc<Value>>) -> Result<Stored<R>, StoreError> {
    Stored::parse(objects.into_iter().next().unwrap())
}

impl Store for Gate {
    async fn get<R: Resource>(&self, key: &Key) -> Result<Stored<R>, StoreError> {
        if self.is_gated::<R>() {
            return one(self.ask::<R>(Verb::Get, key, Value::Null, (None, None)).await?);
        }
        let found = self.desk().view.get(&(R::KIND.kind, key.name.clone())).cloned();
        let missing = || StoreError::NotFound { kind: R::KIND.kind, key: key.to_string() };
        Stored::parse(found.ok_or_else(missing)?)
    }

    async fn list<R: Resource>(&self, options: &ListOptions) -> Result<Listing<R>, StoreError> {
        let objects = if self.is_gated::<R>() && !options.cached {
            self.ask::<R>(Verb::List, &Key::cluster(""), Value::Null, (None, None)).await?
        } else {
            self.shown::<R>(options)
        };
        let items = objects.into_iter().map(Stored::parse).collect::<Result<_, _>>()?;
        Ok(Listing { items, malformed: Vec::new(), revision: Revision::new("1") })
    }

    async fn watch<R: Resource>(
        &self,
        _: &ListOptions,
        _: &Revision,
    ) -> Result<WatchStream<R>, StoreError> {
        let (told, changes) = mpsc::unbounded_channel::<Shown>();
        self.desk().watchers.push((R::KIND.kind, told));
        let next = |mut changes: mpsc::UnboundedReceiver<Shown>| async move {
            let (is_gone, object) = changes.recv().await?;
            let event = Stored::parse(object).map(|object| match is_gone {
                true => WatchEvent::Deleted(object),
                false => WatchEvent::Applied(object),
            });
            Some((event, changes))
        };
        Ok(Box::pin(stream::unfold(changes, next)))
    }

    async fn create<R: Resource>(&self, object: &R) -> Result<Stored<R>, StoreError> {
        let mut body = serde_json::to_value(object).unwrap();
        body["apiVersion"] = json!(R::KIND.api_version());
        body["kind"] = json!(R::KIND.kind);
        one(self.ask::<R>(Verb::Create, &object.key(), body, (None, None)).await?)
    }

    async fn update<R: Resource>(&self, object: &Stored<R>) -> Result<Stored<R>, StoreError> {
        let meta = object.meta();
        let guard = (meta.resource_version.clone(), meta.uid.clone());
        one(self.ask::<R>(Verb::Update, &object.key(), object.body()?, guard).await?)
    }

    async fn update_status<R: Resource>(&self, _: &Stored<R>) -> Result<Stored<R>, StoreError> {
        unreachable!("nobody here has a status")
    }

    async fn patch<R: Resource>(
        &self,
        _: &Key,
        _: Option<&str>,
        _: &Value,
    ) -> Result<Stored<R>, StoreError> {
        unreachable!("nobody here patches")
    }

    async fn delete<R: Resource>(
        &self,
        key: &Key,
        preconditions: &DeletePreconditions,
    ) -> Result<(), StoreError> {
        let revision = preconditions.revision.as_ref().map(|one| one.as_str().to_owned());
        let guard = (revision, preconditions.uid.clone());
        self.ask::<R>(Verb::Delete, key, Value::Null, guard).await.map(drop)
    }
}
