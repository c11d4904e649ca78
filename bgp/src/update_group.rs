//! Peers that get the same announcements: policy runs once, messages are encoded once, and a member is a place in the
//! shared log.
//!
//! The first members of a group share one walk through the table. Whoever joins later walks alone, at its own pace, and
//! hears of changes through the log meanwhile. A member that lags too far behind leaves the log until it has caught up (see
//! `behind`). Nothing is buffered without bound.

mod announced;
mod batch;
mod behind;
mod export;
mod exports;
mod leave;
mod log;
mod member;
mod pack;
mod pending;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use self::{
    announced::{Announced, Told},
    batch::{Batch, audience_without},
    behind::Behind,
    leave::Leaver,
    log::{Audience, Log, Segment, Writer},
    member::{Forgotten, Member, Sweep, withdrawn},
    pending::Slots,
};
pub(crate) use self::{
    export::{GroupKey, Sender, Withheld, judge, outgoing},
    exports::{Exports, Outgoing},
    pack::{Block, Packer, end_of_rib},
};
use crate::{
    attr::Interner,
    rib::{PeerId, Rib, SlotId},
    types::{Families, Family, PeerType, Prefix},
    wire::{Item, Refresh, encode_route_refresh},
};

/// How much a group does and keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A member this many bytes behind leaves the log and walks through the table instead.
    pub(crate) lag: usize,
    /// The common walk waits for members while they have this many bytes to take.
    pub(crate) enough: usize,
    /// Slots of one step of a walk.
    pub(crate) step: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lag: 16 << 20, enough: 4 << 20, step: 4096 }
    }
}

/// How paths' sources look to export rules.
pub(crate) type Senders = BTreeMap<PeerId, Sender>;

/// What groups read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    pub(crate) rib: &'a Rib,
    pub(crate) interner: &'a Interner,
    pub(crate) senders: &'a Senders,
}

/// What changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changes<'a> {
    /// Slots with another choice.
    pub(crate) chosen: &'a [SlotId],
    /// Slots with any other path: what ADD-PATH tells.
    pub(crate) paths: &'a [SlotId],
    /// Nothing is undecided: End-of-RIB would be true.
    pub(crate) complete: bool,
}

/// Somebody who is not a member yet.
#[derive(Debug)]
struct Joiner {
    peer: PeerId,
    had: Heritage,
    /// What it gets before it is one.
    early: Vec<Segment>,
}

/// What a peer takes from one group to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heritage {
    /// What it may have.
    items: Forgotten,
    /// Markers of a refresh that it did not get yet.
    begins: Vec<Segment>,
    /// Families whose end of the refresh is to be marked.
    refresh: Families,
}

/// Messages that were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) updates: u64,
    pub(crate) refreshes: u64,
    /// There is more to look through: nothing to send does not mean that there will be nothing.
    pub(crate) goes_on: bool,
}

/// Steps of a member's own walk until it is somebody else's turn, should there be nothing to send so long.
const STEPS: usize = 4;

/// A group.
#[derive(Debug)]
pub(crate) struct UpdateGroup {
    pub(crate) key: Arc<GroupKey>,
    limits: Limits,
    members: BTreeMap<PeerId, Member>,
    /// Those of them that left the log.
    stragglers: BTreeSet<PeerId>,
    joiners: Vec<Joiner>,
    leavers: VecDeque<Leaver>,
    log: Log,
    announced: Announced,
    /// Slots that a member's own walk came by while a path of them was on its way out.
    skipped: Slots,
    /// The next slot of the common walk.
    walk: Option<usize>,
    /// The segment after the End-of-RIB of the common walk.
    marked: Option<u64>,
}

impl UpdateGroup {
    pub(crate) fn new(key: GroupKey, limits: Limits) -> Self {
        Self {
            key: Arc::new(key),
            limits,
            members: BTreeMap::new(),
            stragglers: BTreeSet::new(),
            joiners: Vec::new(),
            leavers: VecDeque::new(),
            log: Log::default(),
            announced: Announced::default(),
            skipped: Slots::default(),
            walk: None,
            marked: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.joiners.is_empty() && self.leavers.is_empty()
    }

    /// Adds a peer; it gets the whole table. `had` is what it got from another group before.
    pub(crate) fn join(&mut self, peer: PeerId, had: Heritage) {
        self.joiners.push(Joiner { peer, had, early: Vec::new() });
    }

    /// Lists those who are no members yet.
    pub(crate) fn joiners(&self) -> impl Iterator<Item = PeerId> {
        self.joiners.iter().map(|joiner| joiner.peer)
    }

    /// Tells one who is no member yet of routes of this speaker; it hears of them once more when it is. Returns whether there
    /// is something to send.
    pub(crate) fn tell_early(&mut self, peer: PeerId, own: &[Prefix], table: Table<'_>) -> bool {
        let Some(place) = self.joiners.iter().position(|joiner| joiner.peer == peer) else {
            return false;
        };
        let mut batch = Batch::new(&self.key, table, 0);
        let mut items = Vec::new();
        for prefix in own.iter().filter(|prefix| self.key.families.contains(prefix.family())) {
            let Some(id) = table.rib.find(prefix) else { continue };
            let mut paths = table.rib.usable_paths(id, table.interner);
            let Some(path) = paths.find(|path| path.key.source == PeerId::LOCAL) else { continue };
            let Some(bucket) = batch.export(prefix, path, PeerId::LOCAL) else { continue };
            let many = self.key.add_path.contains(prefix.family());
            let item = Item { prefix: *prefix, path_id: if many { path.local_id() } else { 0 } };
            batch.announce(bucket, id, item);
            items.push(item);
        }
        let mut writer = Writer::default();
        batch.write(&self.packer(), &mut writer, |_| true);
        let Some(joiner) = self.joiners.get_mut(place) else { return false };
        // Withdrawn before it becomes a member, it must be told so.
        items.iter().for_each(|item| joiner.had.items.push(item));
        joiner.early.extend(writer.finish());
        !joiner.early.is_empty()
    }

    /// Sends a member everything again; between markers if `enhanced` (RFC 7313).
    pub(crate) fn refresh(&mut self, peer: PeerId, families: Families, enhanced: bool) {
        let families = families.and(self.key.families);
        let Some(member) = self.members.get_mut(&peer) else { return };
        let refresh = if enhanced { families } else { Families::NONE };
        for family in refresh.iter() {
            let bytes = encode_route_refresh(family, Refresh::Begin);
            // One that waits is enough: asking again and again without reading must not fill our memory.
            if member.private.iter().any(|each| each.messages == 0 && each.bytes == bytes) {
                continue;
            }
            member.private.push_back(Segment { bytes, messages: 0, audience: Audience::All });
        }
        member.begin_sweep(&Sweep { whole: true, families, refresh, ..Sweep::default() });
    }

    pub(crate) fn leave(&mut self, peer: PeerId) {
        self.members.remove(&peer);
        self.stragglers.remove(&peer);
        self.joiners.retain(|joiner| joiner.peer != peer);
        self.leavers.retain(|leaver| leaver.peer != peer);
        self.trim();
    }

    /// Says whether there is work besides changes.
    pub(crate) fn wants_flush(&self) -> bool {
        let is_due = match self.walk {
            Some(_) => self.may_walk(),
            None => !self.joiners.is_empty(),
        };
        is_due || !self.leavers.is_empty()
    }

    /// The common walk waits while everybody has much to take. As soon as somebody has taken it all, it goes on: who
    /// does not read must not hold up the others, and is rescued in the end.
    fn may_walk(&self) -> bool {
        let end = self.log.end();
        self.log.len() < self.limits.enough
            || self.members.values().any(|member| member.cursor == end)
    }

    pub(crate) fn has(&self, peer: PeerId) -> bool {
        self.members.contains_key(&peer)
            || self.joiners.iter().any(|joiner| joiner.peer == peer)
            || self.is_leaving(peer)
    }

    /// Says whether a path went into the messages for a member.
    pub(crate) fn has_told(&self, peer: PeerId, id: SlotId, path_id: u32) -> bool {
        let mut told = self.announced.get(id);
        self.members.contains_key(&peer)
            && told.any(|told| told.path_id == path_id && told.source != peer)
    }

    /// Says whether members hear of more than the chosen path.
    pub(crate) fn wants_all_paths(&self) -> bool {
        !self.key.add_path.is_empty()
    }

    /// Counts the prefixes of a family that a member has from us.
    pub(crate) fn advertised(&self, peer: PeerId, family: Family) -> usize {
        if self.members.contains_key(&peer) { self.announced.total_for(peer, family) } else { 0 }
    }

    /// Counts the octets that a member has not taken yet.
    pub(crate) fn queued(&self, peer: PeerId) -> usize {
        let Some(member) = self.members.get(&peer) else { return 0 };
        let log = (member.cursor..self.log.end()).filter_map(|number| self.log.get(number));
        let log = log.filter(|segment| segment.audience.includes(peer));
        member.private.iter().chain(log).map(|segment| segment.bytes.len()).sum()
    }

    /// Lists what was withdrawn without the member having heard of it.
    fn forgotten(&self, peer: PeerId, member: &Member) -> Forgotten {
        let rest = (member.cursor..self.log.end()).filter_map(|number| self.log.get(number));
        let missed = member.behind.iter().flat_map(Behind::missed);
        let rest = member.private.iter().chain(rest).chain(missed);
        let rest = rest.filter(|segment| segment.audience.includes(peer));
        let mut items = member.leftovers.clone();
        let gone = rest.flat_map(|segment| withdrawn(segment, self.key.add_path));
        gone.for_each(|item| items.push(&item));
        items
    }

    /// Takes note of changes and, once the table is decided about completely, of joiners: End-of-RIB must not come
    /// early. Adds the members that have something to send now.
    pub(crate) fn flush(
        &mut self,
        changes: Changes<'_>,
        table: Table<'_>,
        ready: &mut BTreeSet<PeerId>,
    ) {
        if !self.members.is_empty() || !self.leavers.is_empty() {
            let changed = if self.wants_all_paths() { changes.paths } else { changes.chosen };
            self.apply(changed.iter().copied(), table);
            if !changed.is_empty() {
                // Nothing is written for them.
                ready.extend(&self.stragglers);
            }
            self.list_leaving(table.rib);
        } else if changes.complete && !self.joiners.is_empty() {
            self.announced.clear();
            self.walk = Some(0);
            self.admit(false);
        }
        if let Some(next) = self.walk.filter(|_| self.may_walk()) {
            self.walk_on(next, table);
            if self.walk.is_none() {
                self.log.commit();
                self.marked = Some(self.log.end());
                ready.extend(self.members.keys());
            }
        }
        // Before joiners are admitted behind the end of the log: members must hear that there is something in it.
        let written = self.log.commit();
        // With nobody left but those who leave, what was announced may be by rules that are no more: it is begun anew.
        let goes_on = self.walk.is_none() && !self.members.is_empty();
        if goes_on && changes.complete && !self.joiners.is_empty() {
            ready.extend(self.admit(true));
        }
        if written {
            ready.extend(self.members.keys());
            self.rescue();
        }
    }

    /// Makes joiners members; those who missed the common walk walk alone.
    fn admit(&mut self, late: bool) -> Vec<PeerId> {
        self.log.commit();
        let (cursor, families) = (self.log.end(), self.key.families);
        let joiners = std::mem::take(&mut self.joiners);
        let mut admitted = Vec::with_capacity(joiners.len());
        for Joiner { peer, had, early } in joiners {
            let Heritage { items: leftovers, begins, refresh } = had;
            let private = early.into_iter().chain(begins).collect();
            let mut member = Member { private, cursor, sweep: None, behind: None, leftovers };
            if late {
                let end_of_rib = families;
                let sweep =
                    Sweep { whole: true, families, end_of_rib, refresh, ..Sweep::default() };
                member.begin_sweep(&sweep);
            } else if !refresh.is_empty() {
                let families = refresh;
                let sweep = Sweep { whole: true, families, refresh, ..Sweep::default() };
                member.begin_sweep(&sweep);
            }
            self.members.insert(peer, member);
            admitted.push(peer);
        }
        admitted
    }

    /// One step of the walk that the first members share.
    fn walk_on(&mut self, next: usize, table: Table<'_>) {
        let mut slots = table.rib.range(next, self.limits.step).peekable();
        if slots.peek().is_some() {
            self.apply(slots, table);
            self.walk = Some(next.saturating_add(self.limits.step));
            return;
        }
        if self.settle_leftovers(table.rib) {
            return;
        }
        self.walk = None;
        // Those who were rescued meanwhile have not seen everything: theirs comes after their own walk.
        let is_alone = |member: &Member| {
            member.sweep.as_ref().is_some_and(|sweep| !sweep.end_of_rib.is_empty())
        };
        let audiences: Vec<Audience> = if self.members.values().any(is_alone) {
            let others = self.members.iter().filter(|(_, member)| !is_alone(member));
            others.map(|(peer, _)| Audience::Only(*peer)).collect()
        } else {
            vec![Audience::All]
        };
        for audience in audiences {
            for family in self.key.families.iter() {
                self.log.writer().write(audience, |out| {
                    end_of_rib(family, out);
                    1
                });
            }
        }
    }

    /// Tells one of the members that read the log what it had and must forget, as far as one step goes. Says whether there was
    /// any.
    fn settle_leftovers(&mut self, rib: &Rib) -> bool {
        let readers = self.members.iter_mut().filter(|(_, member)| member.behind.is_none());
        let mut heirs = readers.filter(|(_, member)| !member.leftovers.is_empty());
        let Some((peer, member)) = heirs.next() else { return false };
        let (peer, items) = (*peer, member.leftovers.take(self.limits.step));
        let gone = items.into_iter().filter(|item| !self.is_told(peer, item, rib));
        let gone: Vec<Item> = gone.collect();
        withdraw(&self.packer(), &gone, Audience::Only(peer), self.log.writer());
        true
    }

    fn is_told(&self, peer: PeerId, item: &Item, rib: &Rib) -> bool {
        rib.find(&item.prefix).is_some_and(|id| {
            let mut told = self.announced.get(id);
            told.any(|told| told.path_id == item.path_id && told.source != peer)
        })
    }

    fn packer(&self) -> Packer {
        Packer { limit: self.key.limit, add_path: self.key.add_path }
    }

    /// Returns who must not hear of a path: its source, if that is one of us.
    fn exclude(&self, source: PeerId, batch: &mut Batch<'_>) -> PeerId {
        // Neighbouring slots mostly share their source.
        if let Some((known, exclude)) = batch.excluded
            && known == source
        {
            return exclude;
        }
        let exclude = if self.members.contains_key(&source) { source } else { PeerId::LOCAL };
        batch.excluded = Some((source, exclude));
        exclude
    }

    fn apply(&mut self, changed: impl Iterator<Item = SlotId>, table: Table<'_>) {
        let key = Arc::clone(&self.key);
        let mut batch = Batch::new(&key, table, changed.size_hint().0);
        for id in changed {
            let Some(prefix) = table.rib.prefix(id) else { continue };
            if !key.families.contains(prefix.family()) {
                continue;
            }
            if key.add_path.contains(prefix.family()) {
                self.apply_all_paths(id, prefix, &mut batch, table);
            } else {
                self.apply_chosen(id, prefix, &mut batch, table);
            }
        }
        let packer = self.packer();
        let (members, writer) = (&self.members, self.log.writer());
        let refused = batch.write(&packer, writer, |audience| has_audience(members, audience));
        for (id, path_id) in refused {
            let Some(family) = table.rib.prefix(id).map(|prefix| prefix.family()) else { continue };
            self.announced.forget(id, family, path_id);
        }
    }

    fn apply_chosen(
        &mut self,
        id: SlotId,
        prefix: Prefix,
        batch: &mut Batch<'_>,
        table: Table<'_>,
    ) {
        let now = table.rib.chosen(id).and_then(|path| {
            let source = path.key.source;
            let exclude = self.exclude(source, batch);
            Some((batch.export(&prefix, path, exclude)?, source))
        });
        let item = Item { prefix, path_id: 0 };
        let source = now.map(|(_, source)| source);
        let before = self.announced.replace(id, prefix.family(), source);
        if let Some(before) = before {
            self.withdraw_from_losers(before, source, item, batch);
        }
        self.note_behind(id, before.into_iter().map(|before| (before, item)));
        if let Some((bucket, _)) = now {
            batch.announce(bucket, id, item);
        }
    }

    fn apply_all_paths(
        &mut self,
        id: SlotId,
        prefix: Prefix,
        batch: &mut Batch<'_>,
        table: Table<'_>,
    ) {
        let before: Vec<Told> = self.announced.get(id).collect();
        // That path may be back as it was, and somebody has not heard of it.
        let again = self.skipped.remove(id);
        let mut now = Vec::new();
        for path in table.rib.usable_paths(id, table.interner) {
            let source = path.key.source;
            let told = Told { path_id: path.local_id(), source, set: path.accepted().ok() };
            let exclude = self.exclude(source, batch);
            let Some(bucket) = batch.export(&prefix, path, exclude) else { continue };
            now.push(told);
            if again || !before.contains(&told) {
                batch.announce(bucket, id, Item { prefix, path_id: told.path_id });
            }
        }
        let items = before.iter();
        let items = items.map(|told| (told.source, Item { prefix, path_id: told.path_id }));
        self.note_behind(id, items);
        for before in before {
            let successor = now.iter().find(|now| now.path_id == before.path_id);
            let item = Item { prefix, path_id: before.path_id };
            self.withdraw_from_losers(before.source, successor.map(|now| now.source), item, batch);
        }
        self.announced.set_many(id, prefix.family(), now);
    }

    /// Tells those who had a path and get no other in its place.
    fn withdraw_from_losers(
        &self,
        before: PeerId,
        now: Option<PeerId>,
        item: Item,
        batch: &mut Batch<'_>,
    ) {
        match now {
            None => {
                let exclude = self.exclude(before, batch);
                batch.withdraw(audience_without(exclude), item);
            }
            // The new source had it from us until now.
            Some(source) if source != before && self.members.contains_key(&source) => {
                batch.withdraw(Audience::Only(source), item);
            }
            Some(_) => (),
        }
    }

    /// Takes what a member should send next, about `limit` bytes of it.
    pub(crate) fn transmit(
        &mut self,
        peer: PeerId,
        limit: usize,
        table: Table<'_>,
        out: &mut Vec<Bytes>,
    ) -> Taken {
        let mut taken = Taken::default();
        let (mut size, mut steps): (usize, usize) = (0, STEPS);
        let start = self.log.start();
        let slowest = self.members.get(&peer).is_some_and(|member| member.cursor == start);
        while size < limit {
            let Some(segment) = self.next_segment(peer, table, &mut steps) else { break };
            size = size.saturating_add(segment.bytes.len());
            match segment.messages {
                0 => taken.refreshes = taken.refreshes.saturating_add(1),
                count => taken.updates = taken.updates.saturating_add(u64::from(count)),
            }
            out.push(segment.bytes);
        }
        taken.goes_on = steps == 0;
        // A keepalive moves no cursor and must not cost a look at every member.
        if slowest && self.members.get(&peer).is_some_and(|member| member.cursor > start) {
            self.trim();
        }
        taken
    }

    fn next_segment(
        &mut self,
        peer: PeerId,
        table: Table<'_>,
        steps: &mut usize,
    ) -> Option<Segment> {
        if let Some(joiner) = self.joiners.iter_mut().find(|joiner| joiner.peer == peer) {
            return (!joiner.early.is_empty()).then(|| joiner.early.remove(0));
        }
        loop {
            let member = self.members.get_mut(&peer)?;
            if let Some(segment) = member.private.pop_front() {
                return Some(segment);
            }
            if let Some(segment) = self.log.get(member.cursor) {
                member.cursor = member.cursor.saturating_add(1);
                if segment.audience.includes(peer) {
                    return Some(segment.clone());
                }
                continue;
            }
            if !self.members.get(&peer).is_some_and(|member| self.may_sweep(member)) {
                return None;
            }
            self.members.get(&peer)?.sweep.as_ref()?;
            *steps = steps.checked_sub(1)?;
            let sweep = self.members.get_mut(&peer)?.sweep.take()?;
            let mut writer = Writer::default();
            let rest = self.sweep_on(peer, sweep, table, &mut writer);
            let member = self.members.get_mut(&peer)?;
            member.sweep = rest;
            member.private.extend(writer.finish());
        }
    }

    /// Forgets the segments that every member has taken.
    fn trim(&mut self) {
        let needed = self.members.values().map(|member| member.cursor).min();
        let needed = needed.unwrap_or_else(|| self.log.end());
        self.log.trim(needed);
    }
}

fn withdraw(packer: &Packer, items: &[Item], audience: Audience, writer: &mut Writer) {
    for family in Family::ALL {
        let items: Vec<Item> =
            items.iter().filter(|item| item.prefix.family() == family).copied().collect();
        writer.write(audience, |out| packer.withdraw(family, &items, out));
    }
}

fn has_audience(members: &BTreeMap<PeerId, Member>, audience: Audience) -> bool {
    let attached = |peer: &PeerId| members.get(peer).is_some_and(|member| member.behind.is_none());
    match audience {
        Audience::Only(peer) => attached(&peer),
        Audience::All => members.keys().any(attached),
        Audience::Except(other) => members.keys().any(|peer| *peer != other && attached(peer)),
    }
}

impl GroupKey {
    pub(crate) fn is_external(&self) -> bool {
        self.peer_type == PeerType::External
    }
}
