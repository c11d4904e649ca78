//! A copy of all objects of a kind, kept fresh by a watch.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::sleep};

/// Objects by `namespace/name` (or `/name`).
pub type Objects<K> = Arc<BTreeMap<String, Arc<K>>>;

/// A handle to the copy; clones share it.
#[derive(Clone, Debug)]
pub struct Cache<K> {
    objects: watch::Receiver<Objects<K>>,
}

impl<K> Cache<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Begins to follow a kind; returns when the first list is there.
    pub async fn follow(api: Api<K>) -> Self {
        let (sender, mut objects) = watch::channel(Objects::default());
        tokio::spawn(keep(api, sender));
        // The sender lives as long as the task.
        drop(objects.changed().await);
        Self { objects }
    }
}

impl<K> Cache<K> {
    /// The objects now.
    #[must_use]
    pub fn get(&self) -> Objects<K> {
        self.objects.borrow().clone()
    }

    /// Waits for the next change and returns the objects; `None` at the end of the lab.
    pub async fn next(&mut self) -> Option<Objects<K>> {
        self.objects.changed().await.ok()?;
        Some(self.objects.borrow_and_update().clone())
    }
}

async fn keep<K>(api: Api<K>, sender: watch::Sender<Objects<K>>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    while !sender.is_closed() {
        if let Err(error) = list_and_watch(&api, &sender).await {
            tracing::debug!(kind = std::any::type_name::<K>(), %error, "watch begins again");
            sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn list_and_watch<K>(api: &Api<K>, sender: &watch::Sender<Objects<K>>) -> kube::Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let list = api.list(&ListParams::default()).await?;
    let mut version = list.metadata.resource_version.clone().unwrap_or_default();
    let objects = list.items.into_iter().map(|object| (key(&object), Arc::new(object))).collect();
    sender.send_replace(Arc::new(objects));
    loop {
        let parameters = WatchParams::default().timeout(280);
        let mut events = api.watch(&parameters, &version).await?.boxed();
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    version = object.resource_version().unwrap_or(version);
                    sender.send_modify(|objects| {
                        Arc::make_mut(objects).insert(key(&object), Arc::new(object));
                    });
                }
                WatchEvent::Deleted(object) => {
                    version = object.resource_version().unwrap_or(version);
                    sender
                        .send_modify(|objects| drop(Arc::make_mut(objects).remove(&key(&object))));
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
    }
}

/// `namespace/name`.
pub fn key<K: Resource>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
