//! Speakers, the wires between them, and one queue of events.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use bgp::{
    Asn, ConnectionId, LocalRoute, Output, PeerConfig, Prefix, RouterId, Speaker, SpeakerConfig,
};
use bytes::Bytes;

use crate::dice::Dice;

/// Who talks to whom. Everybody is in one AS.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Topology {
    /// Everybody with everybody.
    Mesh { nodes: usize },
    /// Nodes 0 and 1 reflect for all others.
    Reflectors { nodes: usize },
}

impl Topology {
    pub(crate) const fn nodes(self) -> usize {
        match self {
            Self::Mesh { nodes } | Self::Reflectors { nodes } => nodes,
        }
    }

    fn are_peers(self, a: usize, b: usize) -> bool {
        match self {
            _ if a == b => false,
            Self::Mesh { .. } => true,
            Self::Reflectors { .. } => a < 2 || b < 2,
        }
    }
}

/// A process of a node: packets to an earlier one reach nobody.
type Life = u32;
/// One end of a connection.
type End = (usize, Life, ConnectionId);

#[derive(Debug)]
enum Packet {
    Syn {
        from: End,
    },
    SynAck {
        to: End,
        from: End,
    },
    Data {
        to: End,
        from: End,
        bytes: Bytes,
    },
    /// Closed, refused, or nobody there.
    Gone {
        to: End,
    },
}

#[derive(Debug)]
enum What {
    Wake,
    Arrival(Packet),
}

/// Ordered by time, then by when it was made.
struct Event {
    at: Instant,
    number: u64,
    node: usize,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Node {
    speaker: Option<Speaker>,
    life: Life,
    /// The other ends of its connections.
    ends: HashMap<ConnectionId, End>,
    /// When it will be woken.
    wake: Option<Instant>,
    originated: BTreeSet<Prefix>,
    fib: BTreeMap<Prefix, Vec<IpAddr>>,
}

pub(crate) struct Network {
    pub(crate) topology: Topology,
    start: Instant,
    now: Instant,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<Event>>,
    next_event: u64,
    pub(crate) events: u64,
    /// Nodes of different sides cannot reach each other.
    side: Vec<u8>,
    /// What TCP sends again when the wire is back.
    held: Vec<(usize, usize, Packet)>,
    touched: BTreeSet<usize>,
    /// UPDATE messages on their way or arrived.
    updates: u64,
    dice: Dice,
}

const AS: Asn = Asn(64512);

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0001 + u32::try_from(node).unwrap())
}

fn node_of(address: IpAddr) -> usize {
    let IpAddr::V4(address) = address else { unreachable!("only IPv4 is used here") };
    usize::try_from(u32::from(address) - 0x0a00_0001).unwrap()
}

/// The block of a node; `more` are blocks that come and go.
pub(crate) fn block(node: usize, more: usize) -> Prefix {
    let base = 0x0af4_0000 + u32::try_from(more * 4096 + node).unwrap() * 64;
    Prefix::new(Ipv4Addr::from(base).into(), 26).unwrap()
}

impl Network {
    pub(crate) fn new(topology: Topology, seed: u64) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "an origin for virtual time; never read again"
        )]
        let now = Instant::now();
        let mut network = Self {
            topology,
            start: now,
            now,
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            next_event: 0,
            events: 0,
            side: vec![0; topology.nodes()],
            held: Vec::new(),
            touched: BTreeSet::new(),
            updates: 0,
            dice: Dice::new(seed ^ 0x5eed),
        };
        for node in 0..topology.nodes() {
            network.nodes.push(Node {
                speaker: None,
                life: 0,
                ends: HashMap::new(),
                wake: None,
                originated: BTreeSet::from([block(node, 0)]),
                fib: BTreeMap::new(),
            });
            network.boot(node, false);
        }
        network
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn config(&self, node: usize, restarting: bool) -> SpeakerConfig {
        let mut config = SpeakerConfig::new(AS, RouterId::from(address(node)));
        config.restart_time = Duration::from_secs(20);
        config.deferral_time = Duration::from_secs(20);
        config.restarting = restarting;
        let peers =
            (0..self.topology.nodes()).filter(|other| self.topology.are_peers(node, *other));
        config.peers = peers.map(|other| self.peer(node, other)).collect();
        config
    }

    fn peer(&self, node: usize, other: usize) -> PeerConfig {
        let mut peer = PeerConfig::new(other.to_string(), address(other).into(), AS);
        // As Calico's mesh: of two nodes the one with the higher address waits.
        peer.passive = matches!(self.topology, Topology::Mesh { .. }) && node > other;
        peer.hold_time = 60;
        peer.idle_hold_max = Duration::from_secs(5);
        peer.stale_time = Duration::from_secs(20);
        peer.route_reflector_client =
            matches!(self.topology, Topology::Reflectors { .. }) && node < 2 && other >= 2;
        peer
    }

    /// Starts the process of a node.
    pub(crate) fn boot(&mut self, node: usize, restarting: bool) {
        let config = self.config(node, restarting);
        let seed = u64::try_from(self.dice.roll(usize::MAX)).unwrap();
        let mut speaker = Speaker::new(config, seed, self.now);
        for prefix in &self.nodes[node].originated {
            speaker.originate(*prefix, LocalRoute::default());
        }
        if !restarting {
            self.nodes[node].fib.clear();
        }
        self.nodes[node].speaker = Some(speaker);
        self.touched.insert(node);
        self.settle();
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].speaker.is_some()
    }

    /// The process dies; its kernel closes the connections. Routes in the kernel stay.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].speaker = None;
        self.nodes[node].life += 1;
        self.nodes[node].wake = None;
        let ends = std::mem::take(&mut self.nodes[node].ends);
        let mut ends: Vec<End> = ends.into_values().collect();
        ends.sort_unstable();
        for to in ends {
            self.send(node, to.0, Packet::Gone { to });
        }
    }

    /// A connection breaks: both ends learn of it.
    pub(crate) fn break_connection(&mut self, node: usize) {
        let mut ends: Vec<(ConnectionId, End)> =
            self.nodes[node].ends.iter().map(|(near, far)| (*near, *far)).collect();
        ends.sort_unstable();
        if ends.is_empty() {
            return;
        }
        let (near, far) = ends[self.dice.roll(ends.len())];
        let near = (node, self.nodes[node].life, near);
        self.send(node, far.0, Packet::Gone { to: far });
        self.send(far.0, node, Packet::Gone { to: near });
    }

    pub(crate) fn toggle(&mut self, node: usize, more: usize) {
        let prefix = block(node, more);
        let originated = self.nodes[node].originated.contains(&prefix);
        if originated {
            self.nodes[node].originated.remove(&prefix);
        } else {
            self.nodes[node].originated.insert(prefix);
        }
        if let Some(speaker) = &mut self.nodes[node].speaker {
            if originated {
                speaker.withdraw(&prefix);
            } else {
                speaker.originate(prefix, LocalRoute::default());
            }
        }
        self.touched.insert(node);
        self.settle();
    }

    /// Puts nodes on sides that cannot reach each other; 0 everywhere is one network again.
    pub(crate) fn divide(&mut self, side: impl Fn(usize) -> u8) {
        self.side = (0..self.topology.nodes()).map(side).collect();
        for (from, to, packet) in std::mem::take(&mut self.held) {
            self.send(from, to, packet);
        }
    }

    /// Everybody is up and nothing is cut.
    pub(crate) fn heal(&mut self) {
        self.divide(|_| 0);
        for node in 0..self.topology.nodes() {
            if !self.is_up(node) {
                self.boot(node, false);
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        if self.side[from] != self.side[to] {
            self.held.push((from, to, packet));
            return;
        }
        // A path of its own for each pair, the same in both directions and over time: TCP keeps the order.
        let latency = 1 + u64::try_from((from * to + from + to) % 5).unwrap();
        self.push(self.now + Duration::from_millis(latency), to, What::Arrival(packet));
    }

    fn push(&mut self, at: Instant, node: usize, what: What) {
        self.next_event += 1;
        self.queue.push(Reverse(Event { at, number: self.next_event, node, what }));
    }

    /// Runs for some virtual time.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|Reverse(event)| event.at <= end) {
            let at = self.queue.peek().map_or(end, |Reverse(event)| event.at);
            self.now = self.now.max(at);
            // Everything of one instant is handled before anybody decides, as the driver does with a batch.
            while self.queue.peek().is_some_and(|Reverse(event)| event.at <= self.now) {
                if let Some(Reverse(event)) = self.queue.pop() {
                    self.events += 1;
                    self.handle(event);
                }
            }
            self.settle();
        }
        self.now = end;
    }

    fn handle(&mut self, Event { node, what, .. }: Event) {
        let now = self.now;
        match what {
            What::Wake => {
                let place = &mut self.nodes[node];
                if place.wake.is_some_and(|at| at <= now) {
                    place.wake = None;
                    if let Some(speaker) = &mut place.speaker {
                        speaker.handle_timeout(now);
                    }
                    self.touched.insert(node);
                }
            }
            What::Arrival(packet) => self.deliver(node, packet),
        }
    }

    fn deliver(&mut self, node: usize, packet: Packet) {
        let now = self.now;
        let local = IpAddr::V4(address(node));
        let life = self.nodes[node].life;
        self.touched.insert(node);
        match packet {
            Packet::Syn { from } => {
                let place = &mut self.nodes[node];
                let remote = address(from.0).into();
                let speaker = place.speaker.as_mut();
                match speaker.and_then(|speaker| speaker.handle_accepted(local, remote, now)) {
                    Some(connection) => {
                        place.ends.insert(connection, from);
                        let ack = Packet::SynAck { to: from, from: (node, life, connection) };
                        self.send(node, from.0, ack);
                    }
                    None => self.send(node, from.0, Packet::Gone { to: from }),
                }
            }
            Packet::SynAck { to, from } => {
                let place = &mut self.nodes[node];
                match &mut place.speaker {
                    Some(speaker) if to.1 == life => {
                        place.ends.insert(to.2, from);
                        speaker.handle_connected(to.2, local, now);
                    }
                    _ => self.send(node, from.0, Packet::Gone { to: from }),
                }
            }
            Packet::Data { to, from, bytes } => {
                let place = &mut self.nodes[node];
                match &mut place.speaker {
                    Some(speaker) if to.1 == life && place.ends.contains_key(&to.2) => {
                        speaker.handle_received(to.2, &bytes, now);
                    }
                    _ => self.send(node, from.0, Packet::Gone { to: from }),
                }
            }
            Packet::Gone { to } => {
                let place = &mut self.nodes[node];
                if to.1 == life {
                    place.ends.remove(&to.2);
                    if let Some(speaker) = &mut place.speaker {
                        speaker.handle_closed(to.2, "connection closed", now);
                    }
                }
            }
        }
    }

    /// Takes all outputs of the nodes that something happened to.
    fn settle(&mut self) {
        while let Some(node) = self.touched.pop_first() {
            while let Some(output) =
                self.nodes[node].speaker.as_mut().and_then(Speaker::poll_output)
            {
                self.output(node, output);
            }
            let place = &mut self.nodes[node];
            let deadline = place.speaker.as_mut().and_then(Speaker::poll_timeout);
            if let Some(at) = deadline
                && place.wake.is_none_or(|wake| at < wake)
            {
                let at = at.max(self.now);
                place.wake = Some(at);
                self.push(at, node, What::Wake);
            }
        }
    }

    fn output(&mut self, node: usize, output: Output) {
        let life = self.nodes[node].life;
        match output {
            Output::Connect(request) => {
                let from = (node, life, request.connection);
                self.send(node, node_of(request.remote.ip()), Packet::Syn { from });
            }
            Output::TransmitReady(connection) => {
                while let Some(speaker) = &mut self.nodes[node].speaker {
                    let messages = speaker.transmit(connection, 1 << 16);
                    if messages.is_empty() {
                        break;
                    }
                    self.carry(node, connection, &messages);
                }
            }
            Output::Close { connection, last } => {
                self.carry(node, connection, &last);
                if let Some(to) = self.nodes[node].ends.remove(&connection) {
                    self.send(node, to.0, Packet::Gone { to });
                }
            }
            Output::Fib(update) => {
                let hops: Vec<IpAddr> =
                    update.route.next_hops().iter().map(|hop| hop.address).collect();
                let fib = &mut self.nodes[node].fib;
                if hops.is_empty() {
                    fib.remove(&update.prefix);
                } else {
                    fib.insert(update.prefix, hops);
                }
            }
            Output::RestartComplete => self.sweep(node),
            Output::Peer(_)
            | Output::BfdWatch(_)
            | Output::BfdForget(_)
            | Output::BmpReady(_)
            | Output::NextHopWatch(_)
            | Output::NextHopForget(_) => {}
        }
    }

    /// After a restart the daemon removes the routes that the speaker did not tell again.
    fn sweep(&mut self, node: usize) {
        let place = &mut self.nodes[node];
        if let Some(speaker) = &place.speaker {
            let known: BTreeSet<Prefix> =
                speaker.snapshot(true).rib.into_iter().map(|entry| entry.prefix).collect();
            place.fib.retain(|prefix, _| known.contains(prefix));
        }
    }

    /// The bytes of one batch arrive together.
    fn carry(&mut self, node: usize, connection: ConnectionId, messages: &[Bytes]) {
        let Some(to) = self.nodes[node].ends.get(&connection).copied() else { return };
        let from = (node, self.nodes[node].life, connection);
        if !messages.is_empty() {
            let is_update = |message: &&Bytes| message.get(18) == Some(&2);
            self.updates += u64::try_from(messages.iter().filter(is_update).count()).unwrap();
            let bytes = Bytes::from(messages.concat());
            self.send(node, to.0, Packet::Data { to, from, bytes });
        }
    }

    /// What a node should have, computed from who originates what.
    fn difference(&self) -> Option<String> {
        let originated: BTreeMap<Prefix, usize> = (0..self.topology.nodes())
            .flat_map(|node| self.nodes[node].originated.iter().map(move |prefix| (*prefix, node)))
            .collect();
        for (node, place) in self.nodes.iter().enumerate() {
            let others = originated.iter().filter(|(_, origin)| **origin != node);
            let mut count = 0;
            for (prefix, origin) in others {
                count += 1;
                let expected = [IpAddr::V4(address(*origin))];
                let found = place.fib.get(prefix).map(Vec::as_slice);
                if found != Some(&expected[..]) {
                    return Some(format!(
                        "node {node}: {prefix} of node {origin}: {found:?}{}",
                        self.explain(node, *origin)
                    ));
                }
            }
            if place.fib.len() != count {
                let extra = place
                    .fib
                    .keys()
                    .find(|prefix| originated.get(prefix).is_none_or(|origin| *origin == node));
                return Some(format!(
                    "node {node} has {} routes, not {count}: {extra:?}",
                    place.fib.len()
                ));
            }
        }
        None
    }

    /// The sessions of both that may be to blame.
    fn explain(&self, node: usize, origin: usize) -> String {
        let mut text = String::new();
        for (from, to) in
            [(node, origin), (origin, node), (node, 0), (node, 1), (0, origin), (1, origin)]
        {
            let Some(speaker) = &self.nodes[from].speaker else { continue };
            let peers = speaker.snapshot(false).peers;
            if let Some(peer) = peers.into_iter().find(|peer| peer.name == to.to_string()) {
                text += &format!(
                    "\n  {from} -> {to}: {} since {:?}, last error {:?}, {} received, {} advertised",
                    peer.state,
                    peer.since,
                    peer.last_error,
                    peer.prefixes_received,
                    peer.prefixes_advertised
                );
            }
        }
        text
    }

    /// Runs until everybody has what it should, and a little longer: then nobody has anything to say any more.
    pub(crate) fn converge(&mut self, story: &str) {
        let deadline = self.now + Duration::from_secs(300);
        while let Some(difference) = self.difference() {
            assert!(self.now < deadline, "{story}: not converged after 300 s: {difference}");
            self.run_for(Duration::from_secs(1));
        }
        // As long as restarts and stale routes may take.
        self.run_for(Duration::from_secs(30));
        let before = self.updates;
        self.run_for(Duration::from_secs(10));
        if let Some(difference) = self.difference() {
            unreachable!("{story}: converged, and then no more: {difference}");
        }
        let said = self.updates - before;
        assert_eq!(said, 0, "{story}: the same routes again and again");
    }
}
