//! BGP passwords: the secrets that peers name, each watched by itself, so that a new key is used at once and nothing else of
//! the namespace is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api::Secret;
use base64::Engine as _;
use futures::StreamExt as _;
use store::{
    ListOptions, Store,
    informer::{Change, FollowOptions, follow},
};
use tokio::{sync::mpsc, task::AbortHandle, time::Instant};

use super::Seen;

/// How long the first configuration waits for a secret that cannot be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became known of one secret: its keys, or that there is nothing to be known.
#[derive(Debug)]
pub(crate) struct Told {
    secret: String,
    keys: BTreeMap<String, String>,
}

/// The secrets in use.
#[derive(Debug)]
pub(super) struct Passwords<S> {
    store: S,
    namespace: String,
    sender: mpsc::Sender<Seen>,
    watched: BTreeMap<String, Watch>,
}

#[derive(Debug)]
struct Watch {
    task: AbortHandle,
    since: Instant,
    told: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<S: Store> Passwords<S> {
    pub(super) fn new(store: S, namespace: &str, sender: mpsc::Sender<Seen>) -> Self {
        Self { store, namespace: namespace.to_owned(), sender, watched: BTreeMap::new() }
    }

    /// Watches exactly these secrets.
    pub(super) fn follow(&mut self, wanted: BTreeSet<String>) {
        self.watched.retain(|secret, _| wanted.contains(secret));
        for secret in wanted {
            if self.watched.contains_key(&secret) {
                continue;
            }
            let (store, namespace) = (self.store.clone(), self.namespace.clone());
            let task = tokio::spawn(watch(store, namespace, secret.clone(), self.sender.clone()));
            let watch = Watch { task: task.abort_handle(), since: Instant::now(), told: false };
            self.watched.insert(secret, watch);
        }
    }

    /// Takes note, and keeps `<secret>/<key>` up to date in `known`.
    pub(super) fn take(&mut self, told: Told, known: &mut BTreeMap<String, String>) {
        let Some(watch) = self.watched.get_mut(&told.secret) else { return };
        watch.told = true;
        let prefix = format!("{}/", told.secret);
        known.retain(|id, _| !id.starts_with(&prefix));
        known.extend(told.keys.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
    }

    /// Whether every secret was heard of, or waited for long enough.
    pub(super) fn complete(&self) -> bool {
        self.watched.values().all(|watch| watch.told || watch.since.elapsed() >= PATIENCE)
    }

    /// When waiting ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let open = self.watched.values().filter(|watch| !watch.told);
        open.map(|watch| watch.since + PATIENCE).max()
    }
}

async fn watch<S: Store>(store: S, namespace: String, secret: String, sender: mpsc::Sender<Seen>) {
    let list = ListOptions::cached().namespace(&namespace).field("metadata.name", &secret);
    let mut changes = std::pin::pin!(follow::<Secret>(store, FollowOptions::new(list)));
    let mut last = BTreeMap::new();
    while let Some(change) = changes.next().await {
        match change {
            Change::Applied(object) => last = decode(&object),
            Change::Deleted(..) => last.clear(),
            // Nothing new: a secret that does not exist is heard of in this way.
            Change::Synced => {}
            Change::Malformed { message, .. } => {
                tracing::warn!(%namespace, %secret, %message, "BGP password cannot be read");
            }
            Change::Disconnected { reason, .. } => {
                tracing::warn!(%namespace, %secret, %reason, "BGP password cannot be watched");
                continue;
            }
        }
        let told = Told { secret: secret.clone(), keys: last.clone() };
        if sender.send(Seen::Password(told)).await.is_err() {
            return;
        }
    }
}

fn decode(secret: &Secret) -> BTreeMap<String, String> {
    let standard = base64::engine::general_purpose::STANDARD;
    let text = |value: &String| String::from_utf8(standard.decode(value).ok()?).ok();
    secret.data.iter().filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store::memory::MemoryStore;

    use super::*;

    fn secret(value: &str) -> Secret {
        let data = base64::engine::general_purpose::STANDARD.encode(value);
        let metadata = json!({"name": "bgp", "namespace": "net"});
        serde_json::from_value(json!({"metadata": metadata, "data": {"tor": data}})).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_secret_is_a_new_key_and_a_missing_one_does_not_hold_up_the_rest() {
        let store = MemoryStore::new();
        let (sender, mut receiver) = mpsc::channel(16);
        let mut passwords = Passwords::new(store.clone(), "net", sender);
        let mut known = BTreeMap::new();
        passwords.follow(BTreeSet::from(["bgp".to_owned()]));
        assert!(!passwords.complete());

        let mut until = async |wanted: Option<&str>| {
            while known.get("bgp/tor").map(String::as_str) != wanted || !passwords.complete() {
                let Some(Seen::Password(told)) = receiver.recv().await else { panic!("no change") };
                passwords.take(told, &mut known);
            }
        };
        until(None).await;
        let created = store.create(&secret("first")).await.unwrap();
        until(Some("first")).await;
        let mut changed = created;
        changed.data = secret("second").data;
        store.update(&changed).await.unwrap();
        until(Some("second")).await;
    }
}
