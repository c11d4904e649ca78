//! What a collector was told, and what it must still be told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    Collector, Taken,
    encode::{self, DownReason, Ends, Header, Statistic, Subject},
};
use crate::{
    attr::{AttrId, Interner, PathAttributes, encode_block},
    rib::{Path, PathKey, PeerId, Rib, SlotId},
    types::{Asn, Families, Family, Prefix, RouterId},
    update_group::{Block, Packer, end_of_rib},
    wire::{Capabilities, Item, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, Open, next_frame},
};

/// Slots of one step of the first walk through the table.
const STEP: usize = 2048;
/// Changes of one step afterwards.
const CHANGES: usize = 4096;
/// Changes that may wait: some 30 MiB.
const TOO_MANY: usize = 1 << 19;

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
    /// Families whose prefixes have path identifiers.
    pub(crate) add_path: Families,
    pub(crate) sent_open: Bytes,
    pub(crate) received_open: Bytes,
}

/// Which table of whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum View {
    PrePolicy(PeerId),
    PostPolicy(PeerId),
    LocRib,
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
    /// Tables whose end is to be marked once nothing waits.
    ends: Vec<(View, Family)>,
    /// The driver knows that there is something.
    pub(crate) signalled: bool,
}

/// Prefixes with the same attributes.
type Announced = BTreeMap<(View, Family, AttrId), Vec<Item>>;

#[derive(Debug, Default)]
struct Batch {
    withdrawn: BTreeMap<(View, Family), Vec<Item>>,
    announced: Announced,
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
        let (subject, post_policy) = match view {
            View::LocRib => (Subject::LocRib { asn, router_id }, false),
            View::PrePolicy(peer) => (self.peers.get(&peer)?.subject(), false),
            View::PostPolicy(peer) => (self.peers.get(&peer)?.subject(), true),
        };
        Some(Header { subject, post_policy, time })
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
        if !self.collector.views.adj_rib_in() {
            return;
        }
        let (subject, time) = (peer.subject(), self.time(peer.since));
        let header = Header { subject, post_policy: false, time };
        let message = encode::peer_up(&header, peer.ends, &peer.sent_open, &peer.received_open);
        self.control.push_back(message);
        // Of a later one the end comes when the peer says so.
        if self.walk == Some(0) {
            let families = peer.families;
            families.iter().for_each(|family| self.mark_end(id, family));
        }
        self.peers.insert(id, peer);
    }

    /// A session is over; its routes go without a word (RFC 7854 §4.9).
    pub(crate) fn peer_down(&mut self, id: PeerId, reason: &DownReason, now: Instant) {
        self.now = now;
        let Some(header) = self.header(View::PrePolicy(id), now) else { return };
        self.peers.remove(&id);
        self.changed.retain(|(key, _)| key.source != id);
        self.ends.retain(|(view, _)| view.peer() != Some(id));
        self.control.push_back(encode::peer_down(&header, reason));
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

    /// Paths of peers came, changed or went.
    pub(crate) fn paths_changed(&mut self, paths: &[(PathKey, Prefix)]) {
        let Self { changed, peers, .. } = self;
        changed.extend(paths.iter().filter(|(key, _)| peers.contains_key(&key.source)));
    }

    /// Other paths were chosen.
    pub(crate) fn choices_changed(&mut self, prefixes: &[Prefix]) {
        if self.collector.views.loc_rib {
            self.chosen.extend(prefixes);
        }
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
                self.control.push_back(encode::statistics(&header, &of_peer(id)));
            }
        }
        if self.collector.views.loc_rib
            && let Some(header) = self.header(View::LocRib, now)
        {
            self.control.push_back(encode::statistics(&header, loc_rib));
        }
    }

    pub(crate) fn has_something(&self) -> bool {
        !self.control.is_empty()
            || self.walk.is_some()
            || !self.changed.is_empty()
            || !self.chosen.is_empty()
            || !self.ends.is_empty()
    }

    /// Takes about `limit` bytes of messages.
    pub(crate) fn take(
        &mut self,
        limit: usize,
        rib: &Rib,
        interner: &Interner,
        now: Instant,
    ) -> Taken {
        self.now = now;
        if self.changed.len().saturating_add(self.chosen.len()) > TOO_MANY {
            return Taken::TooSlow;
        }
        let mut out: Vec<Bytes> = self.control.drain(..).collect();
        let mut size: usize = out.iter().map(Bytes::len).sum();
        while size < limit && self.has_something() {
            let before = out.len();
            let mut batch = Batch::default();
            if !self.step(&mut batch, rib) {
                self.write_ends(&mut out);
                break;
            }
            self.write(batch, interner, &mut out);
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
    fn step(&mut self, batch: &mut Batch, rib: &Rib) -> bool {
        if let Some(next) = self.walk {
            let mut slots = rib.range(next, STEP).peekable();
            if slots.peek().is_none() {
                self.walk = None;
                return true;
            }
            slots.for_each(|id| self.walk_slot(id, batch, rib));
            self.walk = Some(next.saturating_add(STEP));
            return true;
        }
        if self.changed.is_empty() && self.chosen.is_empty() {
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
            tell(
                View::LocRib,
                Item { prefix, path_id: 0 },
                path.and_then(|path| path.accepted().ok()),
                batch,
            );
        }
        true
    }

    fn walk_slot(&self, id: SlotId, batch: &mut Batch, rib: &Rib) {
        let Some(prefix) = rib.prefix(id) else { return };
        for path in rib.paths(id).iter().filter(|path| self.peers.contains_key(&path.key.source)) {
            self.tell_path(path.key, prefix, Some(path), batch);
        }
        if self.collector.views.loc_rib
            && let Some(set) = rib.chosen(id).and_then(|path| path.accepted().ok())
        {
            tell(View::LocRib, Item { prefix, path_id: 0 }, Some(set), batch);
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
            tell(View::PrePolicy(source), item, path.map(|path| path.received), batch);
        }
        let accepted = path.and_then(|path| path.accepted().ok());
        // The first walk has nothing to take back.
        if views.post_policy && (accepted.is_some() || self.walk.is_none()) {
            tell(View::PostPolicy(source), item, accepted, batch);
        }
    }

    fn packer(&self, view: View) -> Packer {
        let peer = view.peer().and_then(|peer| self.peers.get(&peer));
        let add_path = peer.map_or(Families::NONE, |peer| peer.add_path);
        Packer { limit: MAX_MESSAGE, add_path }
    }

    fn write(&self, batch: Batch, interner: &Interner, out: &mut Vec<Bytes>) {
        for ((view, family), items) in batch.withdrawn {
            let mut messages = BytesMut::new();
            self.packer(view).withdraw(family, &items, &mut messages);
            self.wrap(view, &messages, out);
        }
        for ((view, family, set), items) in batch.announced {
            let attributes = with_next_hop(interner.attributes(set), family);
            let mut bytes = BytesMut::new();
            encode_block(&attributes, family, true, &mut bytes);
            let block = Block { family, next_hop: attributes.next_hop, bytes: &bytes };
            let mut messages = BytesMut::new();
            let packer = self.packer(view);
            if packer.announce(&block, &items, &mut messages).is_err() {
                // Attributes that fill a message: they came in an extended one, and go as such.
                messages.clear();
                let packer = Packer { limit: MAX_EXTENDED_MESSAGE, ..packer };
                let _ = packer.announce(&block, &items, &mut messages);
            }
            self.wrap(view, &messages, out);
        }
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
            Self::PrePolicy(peer) | Self::PostPolicy(peer) => Some(peer),
            Self::LocRib => None,
        }
    }
}

fn tell(view: View, item: Item, set: Option<AttrId>, batch: &mut Batch) {
    let family = item.prefix.family();
    match set {
        Some(set) => batch.announced.entry((view, family, set)).or_default().push(item),
        None => batch.withdrawn.entry((view, family)).or_default().push(item),
    }
}

/// Routes of our own have no next hop, but messages must have one: none in particular.
fn with_next_hop(attributes: PathAttributes, family: Family) -> PathAttributes {
    let nowhere: IpAddr = match family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let next_hop = attributes.next_hop.or(Some(nowhere.into()));
    PathAttributes { next_hop, ..attributes }
}
