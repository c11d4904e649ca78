//! A keyed collection that knows how the kernel's copy differs.

use std::collections::BTreeMap;

use super::element::Element;

/// What we want of one set or map, and for each key that differs, what the kernel has.
///
/// Only differences are kept twice: a set of 100 000 members that matches the kernel is stored once.
#[derive(Clone, Debug)]
pub(super) struct Tracked<D, V> {
    /// Definition wanted; `None`: to be removed.
    pub(super) desired: Option<D>,
    /// Definition in the kernel; `None`: not there.
    pub(super) kernel: Option<D>,
    /// Members wanted.
    elements: BTreeMap<Element, V>,
    /// Keys that differ, with the kernel's value.
    dirty: BTreeMap<Element, Option<V>>,
}

impl<D, V> Default for Tracked<D, V> {
    fn default() -> Self {
        Self { desired: None, kernel: None, elements: BTreeMap::new(), dirty: BTreeMap::new() }
    }
}

impl<D: Clone + PartialEq, V: Clone + PartialEq> Tracked<D, V> {
    /// Members wanted.
    pub(super) fn elements(&self) -> &BTreeMap<Element, V> {
        &self.elements
    }

    /// Whether neither side has it.
    pub(super) fn is_gone(&self) -> bool {
        self.desired.is_none() && self.kernel.is_none()
    }

    /// Whether the kernel's copy differs.
    pub(super) fn is_dirty(&self) -> bool {
        self.desired != self.kernel || !self.dirty.is_empty()
    }

    /// Sets or removes one member; says whether that changed what is wanted.
    pub(super) fn set(&mut self, key: Element, value: Option<V>) -> bool {
        let before = match value.clone() {
            Some(value) => self.elements.insert(key.clone(), value),
            None => self.elements.remove(&key),
        };
        if before == value {
            return false;
        }
        // Not dirty before: the kernel had what we wanted then.
        let in_kernel = self.dirty.remove(&key).unwrap_or(before);
        if in_kernel != value {
            self.dirty.insert(key, in_kernel);
        }
        true
    }

    /// Replaces definition and members; says whether anything changed.
    pub(super) fn replace(&mut self, definition: D, members: BTreeMap<Element, V>) -> bool {
        let mut changed = self.desired.as_ref() != Some(&definition);
        self.desired = Some(definition);
        changed |= self.replace_members(members);
        changed
    }

    /// Wants it gone.
    pub(super) fn remove(&mut self) -> bool {
        let was_wanted = self.desired.take().is_some();
        self.replace_members(BTreeMap::new());
        was_wanted
    }

    fn replace_members(&mut self, members: BTreeMap<Element, V>) -> bool {
        let gone: Vec<Element> =
            self.elements.keys().filter(|key| !members.contains_key(*key)).cloned().collect();
        let mut changed = !gone.is_empty();
        for key in gone {
            self.set(key, None);
        }
        for (key, value) in members {
            changed |= self.set(key, Some(value));
        }
        changed
    }

    /// Takes the kernel's copy as read.
    pub(super) fn adopt(&mut self, kernel: Option<(D, BTreeMap<Element, V>)>) {
        let (definition, members) = kernel.map_or_else(
            || (None, BTreeMap::new()),
            |(definition, members)| (Some(definition), members),
        );
        self.kernel = definition;
        self.dirty = self
            .elements
            .keys()
            .filter(|key| !members.contains_key(*key))
            .map(|key| (key.clone(), None))
            .collect();
        for (key, value) in members {
            if self.elements.get(&key) != Some(&value) {
                self.dirty.insert(key, Some(value));
            }
        }
    }

    /// The kernel has now what is wanted.
    pub(super) fn committed(&mut self) {
        self.kernel.clone_from(&self.desired);
        self.dirty.clear();
    }

    /// Whether it must be made anew: it is there, but with another definition.
    pub(super) fn is_redefined(&self) -> bool {
        self.desired.is_some() && self.kernel.is_some() && self.desired != self.kernel
    }

    /// Members to take out of the kernel, with the values they have there.
    pub(super) fn deletions(&self) -> Vec<Element> {
        self.dirty
            .iter()
            .filter(|(_, kernel)| kernel.is_some())
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Members to put into the kernel; all of them when it is made anew.
    pub(super) fn additions(&self) -> Vec<(Element, V)> {
        if self.desired != self.kernel {
            return self.elements.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        self.dirty
            .keys()
            .filter_map(|key| Some((key.clone(), self.elements.get(key)?.clone())))
            .collect()
    }
}
