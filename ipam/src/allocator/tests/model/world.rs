//! The datastore as a value: cheap to copy, to compare and to hash. It answers as [`store::memory::MemoryStore`] does; a test
//! compares them.
//!
//! Objects are numbers here, equal for equal content. A revision counts the writes of one name, so that the order of writes of
//! different names leaves no trace.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

/// Kinds that programs write.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(super) enum Kind {
    Block,
    Affinity,
    Handle,
    Node,
}

impl Kind {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "IPAMBlock" => Some(Self::Block),
            "BlockAffinity" => Some(Self::Affinity),
            "IPAMHandle" => Some(Self::Handle),
            "Node" => Some(Self::Node),
            _ => None,
        }
    }
}

pub(super) type KeyId = u16;
pub(super) type ObjectId = u32;
/// How often a name was written, and how often it was created.
pub(super) type Revision = (u16, u16);

/// What is stored under a name.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Slot {
    pub(super) object: Option<ObjectId>,
    pub(super) revision: Revision,
}

/// Names and contents, each with its number.
#[derive(Default)]
pub(super) struct Dictionary {
    keys: Vec<(Kind, String)>,
    key_ids: HashMap<(Kind, String), KeyId>,
    objects: Vec<Arc<Value>>,
    object_ids: HashMap<String, ObjectId>,
    stamped: HashMap<(ObjectId, Revision), Arc<Value>>,
}

impl Dictionary {
    pub(super) fn key(&mut self, kind: Kind, name: &str) -> KeyId {
        let next = KeyId::try_from(self.keys.len()).unwrap();
        let entry = (kind, name.to_owned());
        *self.key_ids.entry(entry.clone()).or_insert_with(|| {
            self.keys.push(entry);
            next
        })
    }

    pub(super) fn name(&self, key: KeyId) -> &(Kind, String) {
        &self.keys[usize::from(key)]
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = KeyId> + use<> {
        0..KeyId::try_from(self.keys.len()).unwrap()
    }

    /// Takes in an object, without what the server adds.
    pub(super) fn object(&mut self, object: &Value) -> ObjectId {
        let mut object = sorted(object);
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["resourceVersion", "uid", "creationTimestamp", "generation"] {
                metadata.remove(field);
            }
        }
        let next = ObjectId::try_from(self.objects.len()).unwrap();
        *self.object_ids.entry(object.to_string()).or_insert_with(|| {
            self.objects.push(Arc::new(object));
            next
        })
    }

    pub(super) fn content(&self, object: ObjectId) -> &Arc<Value> {
        &self.objects[usize::try_from(object).unwrap()]
    }

    /// Returns an object as the server sends it.
    pub(super) fn stamped(&mut self, object: ObjectId, revision: Revision) -> Arc<Value> {
        let content = Arc::clone(self.content(object));
        let stamp = || {
            let mut value = (*content).clone();
            value["metadata"]["resourceVersion"] = json!(revision.0.to_string());
            value["metadata"]["uid"] = json!(revision.1.to_string());
            Arc::new(value)
        };
        Arc::clone(self.stamped.entry((object, revision)).or_insert_with(stamp))
    }
}

/// Keys in order, at every depth.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let fields = fields.into_iter().map(|(name, value)| (name.clone(), sorted(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// What a program waits for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Ask {
    /// To be started.
    Start,
    /// Time to pass.
    Wait,
    /// To look at everything, as the collector does.
    Look,
    Get(KeyId),
    List(Kind),
    Create(KeyId, ObjectId),
    Update(KeyId, ObjectId, Revision),
    Delete(KeyId, Option<u16>, Option<u16>),
}

/// What it is told.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Answer {
    Begin,
    Time,
    Look,
    Object(KeyId, Slot),
    Objects(Vec<(KeyId, Slot)>),
    Done,
    NotFound,
    AlreadyExists,
    Conflict,
    Unavailable,
}

impl Ask {
    pub(super) fn is_write(&self) -> bool {
        matches!(self, Self::Create(..) | Self::Update(..) | Self::Delete(..))
    }

    pub(super) fn key(&self) -> Option<KeyId> {
        match self {
            Self::Start | Self::Wait | Self::Look | Self::List(_) => None,
            Self::Get(key) | Self::Create(key, _) | Self::Update(key, ..) => Some(*key),
            Self::Delete(key, ..) => Some(*key),
        }
    }
}

/// Everything that is stored, by the number of its name.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct World(Vec<Slot>);

impl World {
    pub(super) fn get(&self, key: KeyId) -> Slot {
        self.0.get(usize::from(key)).copied().unwrap_or_default()
    }

    fn slot(&mut self, key: KeyId) -> &mut Slot {
        let at = usize::from(key);
        if self.0.len() <= at {
            self.0.resize(at + 1, Slot::default());
        }
        &mut self.0[at]
    }

    /// Returns what exists.
    pub(super) fn objects(&self) -> impl Iterator<Item = (KeyId, ObjectId, Revision)> + '_ {
        let slots = self.0.iter().enumerate();
        slots
            .filter_map(|(at, slot)| Some((KeyId::try_from(at).ok()?, slot.object?, slot.revision)))
    }

    pub(super) fn of_kind(&self, kind: Kind, dictionary: &Dictionary) -> Vec<(KeyId, Slot)> {
        let all = self.objects().filter(|(key, ..)| dictionary.name(*key).0 == kind);
        all.map(|(key, object, revision)| (key, Slot { object: Some(object), revision })).collect()
    }

    /// Serves a request.
    pub(super) fn serve(&mut self, ask: &Ask, dictionary: &Dictionary) -> Answer {
        match *ask {
            Ask::Start => Answer::Begin,
            Ask::Wait => Answer::Time,
            Ask::Look => Answer::Look,
            Ask::List(kind) => Answer::Objects(self.of_kind(kind, dictionary)),
            Ask::Get(key) => match self.get(key) {
                Slot { object: None, .. } => Answer::NotFound,
                slot => Answer::Object(key, slot),
            },
            Ask::Create(key, object) => match self.get(key) {
                Slot { object: None, revision: (writes, births) } => {
                    *self.slot(key) =
                        Slot { object: Some(object), revision: (writes + 1, births + 1) };
                    Answer::Object(key, self.get(key))
                }
                _ => Answer::AlreadyExists,
            },
            Ask::Update(key, object, base) => match self.get(key) {
                Slot { object: None, .. } => Answer::NotFound,
                slot if slot.revision != base => Answer::Conflict,
                slot => {
                    // What changes nothing is not written.
                    if slot.object != Some(object) {
                        let revision = (base.0 + 1, base.1);
                        *self.slot(key) = Slot { object: Some(object), revision };
                    }
                    Answer::Object(key, self.get(key))
                }
            },
            Ask::Delete(key, writes, births) => match self.get(key) {
                Slot { object: None, .. } => Answer::NotFound,
                Slot { revision, .. }
                    if writes.is_some_and(|wanted| wanted != revision.0)
                        || births.is_some_and(|wanted| wanted != revision.1) =>
                {
                    Answer::Conflict
                }
                _ => {
                    self.slot(key).object = None;
                    Answer::Done
                }
            },
        }
    }

    /// Serves a write to some kind without looking at what it is based on: a datastore that cannot compare and swap.
    pub(super) fn blinded(&self, ask: &Ask) -> Ask {
        match *ask {
            Ask::Update(key, object, _) => Ask::Update(key, object, self.get(key).revision),
            Ask::Delete(key, ..) => Ask::Delete(key, None, None),
            ref other => other.clone(),
        }
    }

    /// Returns whether a write that is on its way can still do anything: who is behind stays behind.
    pub(super) fn can_still_happen(&self, ask: &Ask) -> bool {
        match *ask {
            Ask::Create(..) => true,
            Ask::Update(key, _, base) => {
                let slot = self.get(key);
                slot.object.is_some() && slot.revision == base
            }
            Ask::Delete(key, writes, _) => {
                let slot = self.get(key);
                slot.object.is_some() && writes.is_none_or(|wanted| wanted == slot.revision.0)
            }
            _ => false,
        }
    }
}
