//! What a collector was told, and what it must still be told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    Collector, Taken,
    batch::Batch,
    encode::{self, DownReason, Ends, Header, Side, Statistic, Subject},
};
use crate::{
    rib::{Path, PathKey, PeerId, SlotId},
    types::{Asn, Families, Family, Prefix, RouterId},
    update_group::{Exports, Outgoing, Packer, end_of_rib},
    wire::{Capabilities, Item, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, Open, next_frame},
};

/// Slots of one step of a walk through the table, when no peer's export rules have to run for them.
const STEP: usize = 2048;
/// Changes of one step afterwards.
const CHANGES: usize = 4096;
/// Steps without a word to the collector before others have their turn.
const SILENT: usize = 8;
/// Changes that may wait: some 30 MiB.
const TOO_MANY: usize = 1 << 19;
/// The same for messages about sessions, besides a few for each of them.
const TOO_MUCH_TO_SAY: usize = 1 << 12;

/// The speaker, as a collector sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description {
    pub(crate) asn: Asn,
    pub(crate) router_id: RouterId,
}

/// A session.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) address: IpAddr,
    pub(crate) asn: Asn,
    pub(crate) router_id: RouterId,
    pub(crate) ends: Ends,
    pub(crate) since: Instant,
    pub(crate) families: Families,
    /// Families whose prefixes have path identifiers, as we receive and as we send them.
    pub(crate) add_path: Families,
    pub(crate) add_path_out: Families,
    pub(crate) sent_open: Bytes,
    pub(crate) received_open: Bytes,
}

/// Which table of whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum View {
    PrePolicy(PeerId),
    PostPolicy(PeerId),
    LocRib,
    /// Adj-RIB-Out (RFC 8671).
    OutPrePolicy(PeerId),
    OutPostPolicy(PeerId),
}

/// A collector that is connected.
#[derive(Debug)]
pub(crate) struct Monitor {
    collector: Collector,
    us: Description,
    /// The wall time at an instant.
    clock: (Duration, Instant),
    now: Instant,
    /// Messages that come before anything about routes.
    control: VecDeque<Bytes>,
    peers: BTreeMap<PeerId, Watched>,
    /// The next slot of the first walk.
    walk: Option<usize>,
    changed: BTreeSet<(PathKey, Prefix)>,
    chosen: BTreeSet<Prefix>,
    /// Prefixes of which peers may be told something else than before.
    exported: BTreeSet<Prefix>,
    /// Walks through the table for peers whose session began later, or whose export rules changed: the next slot.
    out_walks: VecDeque<(PeerId, usize)>,
    /// Identifiers told of prefixes with several paths (RFC 7911): who is told no path must hear which one it was.
    told: BTreeMap<(PeerId, Prefix), Vec<u32>>,
    /// More came than may wait: nothing is kept any more, and the connection is to end.
    too_slow: bool,
    /// Tables whose end is to be marked once nothing waits.
    ends: Vec<(View, Family)>,
    /// The driver knows that there is something.
    pub(crate) signalled: bool,
}

impl Monitor {
    /// Begins: the collector hears who we are, then the Loc-RIB and peers, then routes.
    pub(crate) fn new(
        collector: Collector,
        us: Description,
        since_epoch: Duration,
        now: Instant,
    ) -> Self {
        let description = concat!("Voile ", env!("CARGO_PKG_VERSION"));
        let mut monitor = Self {
            control: VecDeque::from([encode::initiation(&collector.name, description)]),
            collector,
            us,
            clock: (since_epoch, now),
            now,
            peers: BTreeMap::new(),
            walk: Some(0),
            changed: BTreeSet::new(),
            chosen: BTreeSet::new(),
            exported: BTreeSet::new(),
            out_walks: VecDeque::new(),
            told: BTreeMap::new(),
            too_slow: false,
            ends: Vec::new(),
            signalled: false,
        };
        if monitor.collector.views.loc_rib {
            monitor.loc_rib_up();
            let all = Family::ALL.iter().map(|family| (View::LocRib, *family));
            monitor.ends.extend(all);
        }
        monitor
    }

    pub(crate) fn collector(&self) -> &Collector {
        &self.collector
    }

    fn time(&self, at: Instant) -> Duration {
        let (since_epoch, then) = self.clock;
        let later = since_epoch.saturating_add(at.saturating_duration_since(then));
        later.saturating_sub(then.saturating_duration_since(at))
    }

    fn header(&self, view: View, at: Instant) -> Option<Header> {
        let time = self.time(at);
        let Description { asn, router_id } = self.us;
        let (subject, side) = match view {
            View::LocRib => (Subject::LocRib { asn, router_id }, Side::PreIn),
            View::PrePolicy(peer) => (self.peers.get(&peer)?.subject(), Side::PreIn),
            View::PostPolicy(peer) => (self.peers.get(&peer)?.subject(), Side::PostIn),
            View::OutPrePolicy(peer) => (self.peers.get(&peer)?.subject(), Side::PreOut),
            View::OutPostPolicy(peer) => (self.peers.get(&peer)?.subject(), Side::PostOut),
        };
        Some(Header { subject, side, time })
    }

    /// RFC 9069 §5.2: both OPENs are made up, and the same.
    fn loc_rib_up(&mut self) {
        let Some(header) = self.header(View::LocRib, self.now) else { return };
        let capabilities = Capabilities {
            multiprotocol: Family::ALL.iter().map(|family| (family.afi(), 1)).collect(),
            four_octet_as: Some(self.us.asn),
            ..Capabilities::default()
        };
        let (asn, router_id) = (self.us.asn, self.us.router_id);
        let open = Open { asn, hold_time: 0, router_id, capabilities }.encode();
        let local = Ipv4Addr::UNSPECIFIED.into();
        let ends = Ends { local, local_port: 0, remote_port: 0 };
        self.control.push_back(encode::peer_up(&header, ends, &open, &open));
    }

    /// A session is up, or was when the collector came.
    pub(crate) fn peer_up(&mut self, id: PeerId, peer: Watched) {
        if !self.collector.views.of_peers() {
            return;
        }
        let (subject, time) = (peer.subject(), self.time(peer.since));
        // RFC 8671 §4: the same for both directions.
        let header = Header { subject, side: Side::PreIn, time };
        self.say(encode::peer_up(&header, peer.ends, &peer.sent_open, &peer.received_open));
        let families = peer.families;
        self.peers.insert(id, peer);
        if self.walk == Some(0) {
            families.iter().for_each(|family| self.mark_end(id, family));
            families.iter().for_each(|family| self.mark_out_end(id, family));
        } else {
            // Of a later one the end of what it sends comes when the peer says so.
            self.exports_changed(id);
        }
    }

    /// What a peer is told is to be told anew: it came later, or its rules changed.
    pub(crate) fn exports_changed(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let families = peer.families;
        if self.collector.views.adj_rib_out() && self.walk != Some(0) {
            self.out_walks.retain(|(peer, _)| *peer != id);
            self.out_walks.push_back((id, 0));
            families.iter().for_each(|family| self.mark_out_end(id, family));
        }
    }

    /// A message that comes before anything about routes.
    fn say(&mut self, message: Bytes) {
        self.control.push_back(message);
        self.check_room();
    }

    /// Gives up on a collector that is too far behind: what it costs is bounded even while it takes nothing.
    fn check_room(&mut self) {
        let messages = self.peers.len().saturating_mul(4).saturating_add(TOO_MUCH_TO_SAY);
        self.too_slow |= self.waiting() > TOO_MANY || self.control.len() > messages;
        if self.too_slow {
            self.control = VecDeque::new();
            self.changed = BTreeSet::new();
            self.chosen = BTreeSet::new();
            self.exported = BTreeSet::new();
            self.told = BTreeMap::new();
            self.out_walks = VecDeque::new();
        }
    }

    /// Counts the changes that wait.
    pub(crate) fn waiting(&self) -> usize {
        let all = [self.changed.len(), self.chosen.len(), self.exported.len()];
        all.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// A session is over; its routes go without a word (RFC 7854 §4.9).
    pub(crate) fn peer_down(&mut self, id: PeerId, reason: &DownReason, now: Instant) {
        self.now = now;
        let Some(header) = self.header(View::PrePolicy(id), now) else { return };
        self.peers.remove(&id);
        self.changed.retain(|(key, _)| key.source != id);
        self.out_walks.retain(|(peer, _)| *peer != id);
        self.told.retain(|(peer, _), _| *peer != id);
        self.ends.retain(|(view, _)| view.peer() != Some(id));
        self.say(encode::peer_down(&header, reason));
    }

    /// The peer has sent its whole table.
    pub(crate) fn end_of_rib(&mut self, id: PeerId, family: Family) {
        if self.peers.contains_key(&id) {
            self.mark_end(id, family);
        }
    }

    fn mark_end(&mut self, id: PeerId, family: Family) {
        let views = self.collector.views;
        let pre = views.pre_policy.then_some((View::PrePolicy(id), family));
        let post = views.post_policy.then_some((View::PostPolicy(id), family));
        for end in pre.into_iter().chain(post) {
            if !self.ends.contains(&end) {
                self.ends.push(end);
            }
        }
    }

    fn mark_out_end(&mut self, id: PeerId, family: Family) {
        let views = self.collector.views;
        let pre = views.out_pre_policy.then_some((View::OutPrePolicy(id), family));
        let post = views.out_post_policy.then_some((View::OutPostPolicy(id), family));
        for end in pre.into_iter().chain(post) {
            if !self.ends.contains(&end) {
                self.ends.push(end);
            }
        }
    }

    /// Paths of peers came, changed or went.
    pub(crate) fn paths_changed(&mut self, paths: &[(PathKey, Prefix)]) {
        if self.too_slow {
            return;
        }
        let Self { changed, exported, peers, .. } = self;
        if self.collector.views.adj_rib_in() {
            changed.extend(paths.iter().filter(|(key, _)| peers.contains_key(&key.source)));
        }
        let tells_all = peers.values().any(|peer| !peer.add_path_out.is_empty());
        if self.collector.views.adj_rib_out() && tells_all {
            exported.extend(paths.iter().map(|(_, prefix)| *prefix));
        }
        self.check_room();
    }

    /// Other paths were chosen.
    pub(crate) fn choices_changed(&mut self, prefixes: &[Prefix]) {
        if self.too_slow {
            return;
        }
        if self.collector.views.loc_rib {
            self.chosen.extend(prefixes);
        }
        if self.collector.views.adj_rib_out() {
            self.exported.extend(prefixes);
        }
        self.check_room();
    }

    pub(crate) fn statistics(
        &mut self,
        now: Instant,
        of_peer: impl Fn(PeerId) -> Vec<Statistic>,
        loc_rib: &[Statistic],
    ) {
        self.now = now;
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in peers {
            if let Some(header) = self.header(View::PrePolicy(id), now) {
                self.say(encode::statistics(&header, &of_peer(id)));
            }
        }
        if self.collector.views.loc_rib
            && let Some(header) = self.header(View::LocRib, now)
        {
            self.say(encode::statistics(&header, loc_rib));
        }
    }

    pub(crate) fn has_something(&self) -> bool {
        !self.control.is_empty()
            || self.walk.is_some()
            || !self.changed.is_empty()
            || !self.chosen.is_empty()
            || !self.exported.is_empty()
            || !self.out_walks.is_empty()
            || !self.ends.is_empty()
            || self.too_slow
    }

    /// Takes about `limit` bytes of messages.
    pub(crate) fn take(&mut self, limit: usize, exports: &Exports<'_>, now: Instant) -> Taken {
        self.now = now;
        if self.too_slow {
            return Taken::TooSlow;
        }
        let mut out: Vec<Bytes> = self.control.drain(..).collect();
        let mut size: usize = out.iter().map(Bytes::len).sum();
        let mut silent: usize = 0;
        while size < limit && silent < SILENT && self.has_something() {
            let before = out.len();
            let mut batch = Batch::default();
            if !self.step(&mut batch, exports) {
                self.write_ends(&mut out);
                break;
            }
            let packer = |view| self.packer(view);
            let wrap = |view, messages: &[u8]| self.wrap(view, messages, &mut out);
            batch.write(exports.table.interner, packer, wrap);
            silent = if out.len() == before { silent.saturating_add(1) } else { 0 };
            size = out.iter().skip(before).fold(size, |sum, each| sum.saturating_add(each.len()));
        }
        Taken::Messages(out)
    }

    /// The last message.
    pub(crate) fn termination() -> Bytes {
        encode::termination()
    }

    /// Collects the next routes; says whether there were any to look at. Changes wait for the end of the walk, which tells the
    /// newest state of most of them.
    fn step(&mut self, batch: &mut Batch, exports: &Exports<'_>) -> bool {
        let rib = exports.table.rib;
        if let Some(next) = self.walk {
            let step = self.step_of(self.peers.len());
            let mut slots = rib.range(next, step).peekable();
            if slots.peek().is_none() {
                self.walk = None;
                return true;
            }
            let peers = self.told_peers();
            slots.for_each(|id| self.walk_slot(id, &peers, batch, exports));
            self.walk = Some(next.saturating_add(step));
            return true;
        }
        if let Some((peer, next)) = self.out_walks.pop_front() {
            let mut slots = rib.range(next, STEP).peekable();
            if slots.peek().is_some() {
                self.out_walks.push_front((peer, next.saturating_add(STEP)));
            }
            for id in slots {
                if let Some(prefix) = rib.prefix(id) {
                    self.tell_exports(peer, prefix, Some(id), batch, exports);
                }
            }
            return true;
        }
        if self.waiting() == 0 {
            return false;
        }
        for _ in 0..CHANGES {
            let Some((key, prefix)) = self.changed.pop_first() else { break };
            let path =
                rib.find(&prefix).and_then(|id| rib.paths(id).iter().find(|path| path.key == key));
            self.tell_path(key, prefix, path, batch);
        }
        for _ in 0..CHANGES {
            let Some(prefix) = self.chosen.pop_first() else { break };
            let path = rib.find(&prefix).and_then(|id| rib.chosen(id));
            let set = path.and_then(|path| path.accepted().ok());
            batch.tell(View::LocRib, Item { prefix, path_id: 0 }, set);
        }
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for _ in 0..self.step_of(peers.len()) {
            let Some(prefix) = self.exported.pop_first() else { break };
            let id = rib.find(&prefix);
            for peer in &peers {
                self.tell_exports(*peer, prefix, id, batch, exports);
            }
        }
        true
    }

    /// Slots of one step: fewer, the more peers' rules have to run for each.
    fn step_of(&self, peers: usize) -> usize {
        if self.collector.views.adj_rib_out() { (STEP / peers.max(1)).max(1) } else { STEP }
    }

    /// Those of whose Adj-RIB-Out the collector hears.
    fn told_peers(&self) -> Vec<PeerId> {
        let wanted = self.collector.views.adj_rib_out();
        self.peers.keys().copied().filter(|_| wanted).collect()
    }

    fn walk_slot(
        &mut self,
        id: SlotId,
        peers: &[PeerId],
        batch: &mut Batch,
        exports: &Exports<'_>,
    ) {
        let rib = exports.table.rib;
        let Some(prefix) = rib.prefix(id) else { return };
        for path in rib.paths(id).iter().filter(|path| self.peers.contains_key(&path.key.source)) {
            self.tell_path(path.key, prefix, Some(path), batch);
        }
        if self.collector.views.loc_rib
            && let Some(set) = rib.chosen(id).and_then(|path| path.accepted().ok())
        {
            batch.tell(View::LocRib, Item { prefix, path_id: 0 }, Some(set));
        }
        for peer in peers {
            self.tell_exports(*peer, prefix, Some(id), batch, exports);
        }
    }

    fn tell_path(&self, key: PathKey, prefix: Prefix, path: Option<&Path>, batch: &mut Batch) {
        let PathKey { source, path_id } = key;
        if !self.peers.contains_key(&source) {
            return;
        }
        let item = Item { prefix, path_id };
        let views = self.collector.views;
        if views.pre_policy {
            batch.tell(View::PrePolicy(source), item, path.map(|path| path.received));
        }
        let accepted = path.and_then(|path| path.accepted().ok());
        // The first walk has nothing to take back.
        if views.post_policy && (accepted.is_some() || self.walk.is_none()) {
            batch.tell(View::PostPolicy(source), item, accepted);
        }
    }

    /// What a peer is told of a prefix. Of what it is not told the collector hears that too, unless this is the first walk: what
    /// it heard before is not remembered.
    fn tell_exports(
        &mut self,
        peer: PeerId,
        prefix: Prefix,
        id: Option<SlotId>,
        batch: &mut Batch,
        exports: &Exports<'_>,
    ) {
        let Some(watched) = self.peers.get(&peer) else { return };
        if !watched.families.contains(prefix.family()) {
            return;
        }
        let several = watched.add_path_out.contains(prefix.family());
        let told = id.map(|id| exports.of(peer, id, &prefix)).unwrap_or_default();
        let ids: Vec<u32> = told.iter().map(|each| each.path_id).collect();
        let gone = if several {
            let before = if ids.is_empty() {
                self.told.remove(&(peer, prefix))
            } else {
                self.told.insert((peer, prefix), ids.clone())
            };
            before.unwrap_or_default().into_iter().filter(|id| !ids.contains(id)).collect()
        } else if told.is_empty() && self.walk.is_none() {
            vec![0]
        } else {
            Vec::new()
        };
        let views = self.collector.views;
        let (pre, post) = (View::OutPrePolicy(peer), View::OutPostPolicy(peer));
        for path_id in gone {
            let item = Item { prefix, path_id };
            if views.out_pre_policy {
                batch.tell(pre, item, None);
            }
            if views.out_post_policy {
                batch.tell(post, item, None);
            }
        }
        for Outgoing { path_id, before, after } in told {
            let item = Item { prefix, path_id };
            if views.out_pre_policy {
                batch.tell(pre, item, Some(before));
            }
            match after {
                Some(after) if views.out_post_policy => batch.tell_made(post, item, after),
                None if views.out_post_policy && self.walk.is_none() => {
                    batch.tell(post, item, None);
                }
                _ => {}
            }
        }
    }

    fn packer(&self, view: View) -> Packer {
        let peer = view.peer().and_then(|peer| self.peers.get(&peer));
        let add_path = match (peer, view) {
            (None, _) => Families::NONE,
            (Some(peer), View::OutPrePolicy(_) | View::OutPostPolicy(_)) => peer.add_path_out,
            (Some(peer), _) => peer.add_path,
        };
        Packer { limit: MAX_MESSAGE, add_path }
    }

    /// One message of ours for each UPDATE.
    fn wrap(&self, view: View, mut messages: &[u8], out: &mut Vec<Bytes>) {
        let Some(header) = self.header(view, self.now) else { return };
        while let Ok(Some(frame)) = next_frame(messages, MAX_EXTENDED_MESSAGE) {
            let Some((update, rest)) = messages.split_at_checked(frame.length()) else { return };
            out.push(encode::route_monitoring(&header, update));
            messages = rest;
        }
    }

    fn write_ends(&mut self, out: &mut Vec<Bytes>) {
        for (view, family) in std::mem::take(&mut self.ends) {
            let mut message = BytesMut::new();
            end_of_rib(family, &mut message);
            self.wrap(view, &message, out);
        }
    }
}

impl Watched {
    fn subject(&self) -> Subject {
        let Self { address, asn, router_id, .. } = *self;
        Subject::Peer { address, asn, router_id }
    }
}

impl View {
    fn peer(self) -> Option<PeerId> {
        match self {
            Self::PrePolicy(peer)
            | Self::PostPolicy(peer)
            | Self::OutPrePolicy(peer)
            | Self::OutPostPolicy(peer) => Some(peer),
            Self::LocRib => None,
        }
    }
}
