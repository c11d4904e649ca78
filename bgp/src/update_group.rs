//! Peers that get the same announcements: policy runs once, messages are encoded once, and a member is a place in the
//! shared log.
//!
//! For each slot a group remembers whose path it announced. A member that is itself the source skips the message, so
//! one word per slot tells exactly who has what (RFC 4271 §9.2: never back to where it came from).

mod export;
mod pack;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use self::pack::Packer;
pub(crate) use self::{
    export::{GroupKey, Sender, outgoing},
    pack::end_of_rib,
};
use crate::{
    attr::{AttrSet, Interner},
    rib::{Chosen, PeerId, Rib, SlotId},
    types::{Families, Family, PeerType, Prefix},
    wire::{Refresh, encode_route_refresh},
};

/// A member this far behind is given up (no buffering without bound).
const MAX_LAG: usize = 64 << 20;

/// Who gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Audience {
    All,
    Except(PeerId),
    Only(PeerId),
}

impl Audience {
    fn includes(self, peer: PeerId) -> bool {
        match self {
            Self::All => true,
            Self::Except(other) => peer != other,
            Self::Only(only) => peer == only,
        }
    }
}

#[derive(Debug)]
struct Message {
    bytes: Bytes,
    audience: Audience,
}

#[derive(Debug, Default)]
struct Member {
    /// What only this member gets, before the log goes on.
    private: VecDeque<Bytes>,
    /// Number of the next message of the log.
    cursor: u64,
}

/// Somebody who needs the whole table.
#[derive(Debug)]
struct Joiner {
    peer: PeerId,
    families: Families,
    /// What it has from the group it was in before.
    had: Vec<Prefix>,
    then: Then,
}

/// What ends a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// A new session's table is complete.
    EndOfRib,
    /// Answers a request of a member.
    Nothing,
    /// The same, between markers (RFC 7313 §4).
    EndOfRefresh,
}

/// How paths' sources look to export rules.
pub(crate) type Senders = BTreeMap<PeerId, Sender>;

/// A group.
#[derive(Debug)]
pub(crate) struct UpdateGroup {
    pub(crate) key: GroupKey,
    members: BTreeMap<PeerId, Member>,
    joiners: Vec<Joiner>,
    log: VecDeque<Message>,
    log_start: u64,
    log_bytes: usize,
    /// Per slot: 0, or the number of the source whose path is announced plus one.
    announced: Vec<u32>,
    announced_by_source: BTreeMap<PeerId, usize>,
    announced_total: usize,
}

/// What a batch of changes asks for, in the order of its first use.
#[derive(Debug, Default)]
struct Batch {
    withdrawals: BTreeMap<(Audience, Family), Vec<Prefix>>,
    buckets: Vec<Bucket>,
    by_set: hashbrown::HashMap<(usize, PeerId, Family), usize>,
}

#[derive(Debug)]
struct Bucket {
    set: Arc<AttrSet>,
    source: PeerId,
    family: Family,
    slots: Vec<SlotId>,
    prefixes: Vec<Prefix>,
}

impl Batch {
    fn announce(&mut self, set: Arc<AttrSet>, source: PeerId, id: SlotId, prefix: Prefix) {
        let family = prefix.family();
        let next = self.buckets.len();
        let key = (Arc::as_ptr(&set).addr(), source, family);
        let index = *self.by_set.entry(key).or_insert(next);
        if index == next {
            let (slots, prefixes) = (Vec::new(), Vec::new());
            self.buckets.push(Bucket { set, source, family, slots, prefixes });
        }
        if let Some(bucket) = self.buckets.get_mut(index) {
            bucket.slots.push(id);
            bucket.prefixes.push(prefix);
        }
    }
}

/// Results of export rules, by the set of attributes that went in.
type Cache = hashbrown::HashMap<(usize, PeerId, Family), Option<Arc<AttrSet>>>;

impl UpdateGroup {
    pub(crate) fn new(key: GroupKey) -> Self {
        Self {
            key,
            members: BTreeMap::new(),
            joiners: Vec::new(),
            log: VecDeque::new(),
            log_start: 0,
            log_bytes: 0,
            announced: Vec::new(),
            announced_by_source: BTreeMap::new(),
            announced_total: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.joiners.is_empty()
    }

    /// Adds a peer; it gets the whole table with the next flush. `had` is what it got from another group before.
    pub(crate) fn join(&mut self, peer: PeerId, had: Vec<Prefix>) {
        self.joiners.push(Joiner { peer, families: self.key.families, had, then: Then::EndOfRib });
    }

    /// Sends a member everything again.
    pub(crate) fn refresh(&mut self, peer: PeerId, families: Families, enhanced: bool) {
        if self.members.contains_key(&peer) {
            let then = if enhanced { Then::EndOfRefresh } else { Then::Nothing };
            self.joiners.push(Joiner { peer, families, had: Vec::new(), then });
        }
    }

    pub(crate) fn leave(&mut self, peer: PeerId) {
        self.members.remove(&peer);
        self.joiners.retain(|joiner| joiner.peer != peer);
        self.trim();
    }

    pub(crate) fn wants_flush(&self) -> bool {
        !self.joiners.is_empty()
    }

    pub(crate) fn has(&self, peer: PeerId) -> bool {
        self.members.contains_key(&peer) || self.joiners.iter().any(|joiner| joiner.peer == peer)
    }

    /// Counts the prefixes that a member has from us.
    pub(crate) fn advertised(&self, peer: PeerId) -> usize {
        if !self.members.contains_key(&peer) {
            return 0;
        }
        let own = self.announced_by_source.get(&peer).copied().unwrap_or(0);
        self.announced_total.saturating_sub(own)
    }

    /// Lists the prefixes that a member has from us.
    pub(crate) fn prefixes_of(&self, peer: PeerId, rib: &Rib) -> Vec<Prefix> {
        if !self.members.contains_key(&peer) {
            return Vec::new();
        }
        let all = rib.chosen_slots().into_iter();
        let has = all.filter(|id| self.source_of(*id).is_some_and(|source| source != peer));
        has.filter_map(|id| rib.prefix(id)).collect()
    }

    fn source_of(&self, id: SlotId) -> Option<PeerId> {
        self.announced.get(id.index())?.checked_sub(1).map(PeerId)
    }

    fn set_source(&mut self, id: SlotId, source: Option<PeerId>) {
        let before = self.source_of(id);
        if before == source {
            return;
        }
        if self.announced.len() <= id.index() {
            self.announced.resize(id.index().saturating_add(1), 0);
        }
        if let Some(place) = self.announced.get_mut(id.index()) {
            *place = source.map_or(0, |peer| peer.0.saturating_add(1));
        }
        if let Some(count) = before.and_then(|peer| self.announced_by_source.get_mut(&peer)) {
            *count = count.saturating_sub(1);
            self.announced_total = self.announced_total.saturating_sub(1);
        }
        if let Some(peer) = source {
            let count = self.announced_by_source.entry(peer).or_default();
            *count = count.saturating_add(1);
            self.announced_total = self.announced_total.saturating_add(1);
        }
    }

    /// Takes note of changed choices and, once the table is decided about completely, of joiners: End-of-RIB must not
    /// come early. Returns the members that have something to send now.
    pub(crate) fn flush(
        &mut self,
        changed: &[SlotId],
        rib: &Rib,
        senders: &Senders,
        interner: &mut Interner,
        table_is_complete: bool,
    ) -> BTreeSet<PeerId> {
        let before = self.log_end();
        let mut ready = BTreeSet::new();
        if !self.members.is_empty() {
            self.apply(changed, rib, senders, interner);
        } else if table_is_complete {
            self.start(rib, senders, interner, &mut ready);
        }
        if !table_is_complete {
            if self.log_end() > before {
                ready.extend(self.members.keys());
            }
            return ready;
        }
        for joiner in std::mem::take(&mut self.joiners) {
            ready.insert(joiner.peer);
            self.replay(&joiner, rib, senders, interner);
        }
        if self.log_end() > before {
            ready.extend(self.members.keys());
        }
        ready
    }

    /// The first members of a group share the whole table through the log.
    fn start(
        &mut self,
        rib: &Rib,
        senders: &Senders,
        interner: &mut Interner,
        ready: &mut BTreeSet<PeerId>,
    ) {
        let joiners = std::mem::take(&mut self.joiners);
        let cursor = self.log_end();
        for joiner in &joiners {
            self.members.insert(joiner.peer, Member { private: VecDeque::new(), cursor });
            ready.insert(joiner.peer);
        }
        self.announced.clear();
        self.announced_by_source.clear();
        self.announced_total = 0;
        self.apply(&rib.chosen_slots(), rib, senders, interner);
        for joiner in joiners {
            self.withdraw_leftovers(&joiner, rib);
        }
        let families = self.key.families;
        for family in families.iter() {
            self.append(end_of_rib(family), Audience::All);
        }
    }

    fn apply(&mut self, changed: &[SlotId], rib: &Rib, senders: &Senders, interner: &mut Interner) {
        let mut batch = Batch::default();
        let mut cache = Cache::default();
        for id in changed {
            let Some(prefix) = rib.prefix(*id) else { continue };
            if !self.key.families.contains(prefix.family()) {
                continue;
            }
            let before = self.source_of(*id);
            let now = rib.chosen(*id).and_then(|chosen| {
                let set = self.export(&prefix, chosen, senders, interner, &mut cache)?;
                Some((set, chosen.source))
            });
            match (before, &now) {
                (Some(old), None) => {
                    batch
                        .withdrawals
                        .entry((Audience::Except(old), prefix.family()))
                        .or_default()
                        .push(prefix);
                }
                // The new source had it from us until now.
                (Some(old), Some((_, new))) if old != *new && self.members.contains_key(new) => {
                    batch
                        .withdrawals
                        .entry((Audience::Only(*new), prefix.family()))
                        .or_default()
                        .push(prefix);
                }
                _ => (),
            }
            self.set_source(*id, now.as_ref().map(|(_, source)| *source));
            if let Some((set, source)) = now {
                batch.announce(set, source, *id, prefix);
            }
        }
        self.encode(batch);
    }

    /// Withdrawals first, then each set of attributes with all its prefixes.
    fn encode(&mut self, batch: Batch) {
        let packer = Packer { four_octet_as: self.key.four_octet_as, limit: self.key.limit };
        for ((audience, family), prefixes) in &batch.withdrawals {
            if self.has_audience(*audience) {
                for bytes in packer.withdraw(*family, prefixes) {
                    self.append(bytes, *audience);
                }
            }
        }
        for bucket in batch.buckets {
            let audience = Audience::Except(bucket.source);
            if !self.has_audience(audience) {
                continue;
            }
            match packer.announce(bucket.family, &bucket.set, &bucket.prefixes) {
                Ok(messages) => {
                    for bytes in messages {
                        self.append(bytes, audience);
                    }
                }
                Err(pack::TooLong) => self.give_up(&bucket, &packer, audience),
            }
        }
    }

    /// Attributes that fit no message: the peer must not keep what it had (never truncate).
    fn give_up(&mut self, bucket: &Bucket, packer: &Packer, audience: Audience) {
        tracing::warn!(prefixes = ?bucket.prefixes, "attributes too long for a message, not announced");
        for id in &bucket.slots {
            self.set_source(*id, None);
        }
        for bytes in packer.withdraw(bucket.family, &bucket.prefixes) {
            self.append(bytes, audience);
        }
    }

    fn has_audience(&self, audience: Audience) -> bool {
        match audience {
            Audience::All => !self.members.is_empty(),
            Audience::Except(peer) => self.members.keys().any(|member| *member != peer),
            Audience::Only(peer) => self.members.contains_key(&peer),
        }
    }

    fn export(
        &self,
        prefix: &Prefix,
        chosen: &Chosen,
        senders: &Senders,
        interner: &mut Interner,
        cache: &mut Cache,
    ) -> Option<Arc<AttrSet>> {
        let key = (Arc::as_ptr(&chosen.attributes).addr(), chosen.source, prefix.family());
        if self.key.export.ignores_prefix()
            && let Some(known) = cache.get(&key)
        {
            return known.clone();
        }
        let sender = senders.get(&chosen.source)?;
        let result = outgoing(&self.key, prefix, &chosen.attributes, sender);
        let result = result.ok().map(|attributes| interner.intern(attributes));
        cache.insert(key, result.clone());
        result
    }

    /// Sends one peer everything it should have; as a member from then on.
    fn replay(&mut self, joiner: &Joiner, rib: &Rib, senders: &Senders, interner: &mut Interner) {
        let mut private = match self.members.remove(&joiner.peer) {
            Some(member) => self.remaining(joiner.peer, member),
            None => VecDeque::new(),
        };
        let mut batch = Batch::default();
        let mut cache = Cache::default();
        for id in rib.chosen_slots() {
            let (Some(prefix), Some(chosen)) = (rib.prefix(id), rib.chosen(id)) else { continue };
            let has = self.source_of(id).is_some_and(|source| source != joiner.peer);
            if !has || !joiner.families.contains(prefix.family()) {
                continue;
            }
            if let Some(set) = self.export(&prefix, chosen, senders, interner, &mut cache) {
                batch.announce(set, PeerId::LOCAL, id, prefix);
            }
        }
        if joiner.then == Then::EndOfRefresh {
            let begin = |family| encode_route_refresh(family, Refresh::Begin);
            private.extend(joiner.families.iter().map(begin));
        }
        let packer = Packer { four_octet_as: self.key.four_octet_as, limit: self.key.limit };
        for bucket in &batch.buckets {
            private.extend(
                packer.announce(bucket.family, &bucket.set, &bucket.prefixes).into_iter().flatten(),
            );
        }
        let families = joiner.families.iter();
        match joiner.then {
            Then::EndOfRib => private.extend(families.map(end_of_rib)),
            Then::EndOfRefresh => {
                private.extend(families.map(|family| encode_route_refresh(family, Refresh::End)));
            }
            Then::Nothing => (),
        }
        self.members.insert(joiner.peer, Member { private, cursor: self.log_end() });
        self.withdraw_leftovers(joiner, rib);
    }

    /// Withdraws what the peer has from its former group and would not get from this one.
    fn withdraw_leftovers(&mut self, joiner: &Joiner, rib: &Rib) {
        if joiner.had.is_empty() {
            return;
        }
        let has: BTreeSet<Prefix> = self.prefixes_of(joiner.peer, rib).into_iter().collect();
        let packer = Packer { four_octet_as: self.key.four_octet_as, limit: self.key.limit };
        for family in Family::ALL {
            let gone = joiner
                .had
                .iter()
                .filter(|prefix| prefix.family() == family && !has.contains(*prefix));
            let gone: Vec<Prefix> = gone.copied().collect();
            for bytes in packer.withdraw(family, &gone) {
                self.append(bytes, Audience::Only(joiner.peer));
            }
        }
    }

    fn remaining(&self, peer: PeerId, member: Member) -> VecDeque<Bytes> {
        let mut rest = member.private;
        let skip =
            usize::try_from(member.cursor.saturating_sub(self.log_start)).unwrap_or(usize::MAX);
        let log = self.log.iter().skip(skip);
        rest.extend(
            log.filter(|message| message.audience.includes(peer))
                .map(|message| message.bytes.clone()),
        );
        rest
    }

    fn log_end(&self) -> u64 {
        self.log_start.saturating_add(u64::try_from(self.log.len()).unwrap_or(u64::MAX))
    }

    fn append(&mut self, bytes: Bytes, audience: Audience) {
        self.log_bytes = self.log_bytes.saturating_add(bytes.len());
        self.log.push_back(Message { bytes, audience });
    }

    /// Takes what a member should send next, about `limit` bytes of it.
    pub(crate) fn transmit(&mut self, peer: PeerId, limit: usize, out: &mut Vec<Bytes>) {
        let log_start = self.log_start;
        let Some(member) = self.members.get_mut(&peer) else { return };
        let mut size: usize = 0;
        while size < limit
            && let Some(bytes) = member.private.pop_front()
        {
            size = size.saturating_add(bytes.len());
            out.push(bytes);
        }
        let slowest = member.cursor == log_start;
        let skip = usize::try_from(member.cursor.saturating_sub(log_start)).unwrap_or(usize::MAX);
        for message in self.log.iter().skip(skip) {
            if size >= limit {
                break;
            }
            member.cursor = member.cursor.saturating_add(1);
            if message.audience.includes(peer) {
                size = size.saturating_add(message.bytes.len());
                out.push(message.bytes.clone());
            }
        }
        if slowest {
            self.trim();
        }
    }

    /// Forgets the messages that every member has taken.
    fn trim(&mut self) {
        let needed = self.members.values().map(|member| member.cursor).min();
        let needed = needed.unwrap_or_else(|| self.log_end());
        while self.log_start < needed
            && let Some(message) = self.log.pop_front()
        {
            self.log_start = self.log_start.saturating_add(1);
            self.log_bytes = self.log_bytes.saturating_sub(message.bytes.len());
        }
    }

    /// Lists the members that lag too far behind.
    pub(crate) fn laggards(&self) -> Vec<PeerId> {
        if self.log_bytes < MAX_LAG {
            return Vec::new();
        }
        let behind = self.members.iter().filter(|(_, member)| member.cursor == self.log_start);
        behind.map(|(peer, _)| *peer).collect()
    }
}

impl GroupKey {
    pub(crate) fn is_external(&self) -> bool {
        self.peer_type == PeerType::External
    }
}
