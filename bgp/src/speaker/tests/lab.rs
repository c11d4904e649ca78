//! Several speakers on virtual time, joined by links that can be cut.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    AddPathMode, Asn, ConnectionId, FibRoute, FibUpdate, LocalRoute, Output, PeerConfig, Prefix,
    RouterId, Shutdown, Slice, Speaker, SpeakerConfig, State, effort, snapshot::PeerSnapshot,
    update_group::Limits,
};

/// One way through the network takes this long.
const LATENCY: Duration = Duration::from_millis(1);
/// What a slice of work takes, where it takes time at all.
const SLICE: Duration = Duration::from_millis(10);

/// No few speakers that agree in the end say as much in a few seconds.
pub(super) const MUCH: u64 = 5_000;
/// Nobody has as much to work on before there is something to put out.
const MANY_SLICES: u32 = 1_000_000;

#[derive(Debug)]
enum Packet {
    Syn { from: (usize, ConnectionId) },
    SynAck { to: ConnectionId, from: (usize, ConnectionId) },
    Refused { to: ConnectionId },
    Data { to: ConnectionId, bytes: Bytes },
    Fin { to: ConnectionId },
}

pub(super) struct Lab {
    pub(super) now: Instant,
    packets: u64,
    start: Instant,
    pub(super) speakers: Vec<Option<Speaker>>,
    addresses: Vec<IpAddr>,
    /// The other end of a connection.
    ends: BTreeMap<(usize, ConnectionId), (usize, ConnectionId)>,
    wire: VecDeque<(Instant, usize, Packet)>,
    cut: Vec<(usize, usize)>,
    /// What TCP will send again once the link is back.
    held: Vec<(usize, usize, Packet)>,
    /// Everything that happened, for stories.
    pub(super) story: Vec<String>,
    pub(super) fibs: Vec<BTreeMap<Prefix, Vec<IpAddr>>>,
    pub(super) complete: Vec<bool>,
    /// What was asked about next hops.
    pub(super) asked: Vec<Vec<String>>,
    /// What was asked of BFD.
    pub(super) bfd: Vec<String>,
    pub(super) latency: BTreeMap<(usize, usize), Duration>,
    /// Who does not read: what the second sends to the first stays where it is.
    pub(super) stuck: BTreeSet<(usize, usize)>,
    /// Speakers work in slices of so many prefixes, and that takes time.
    slice: Option<usize>,
    limits: Option<Limits>,
    /// Until when.
    busy: BTreeMap<usize, Instant>,
    /// The most that each speaker did in one step since somebody asked, in slots that it looked at.
    most: BTreeMap<usize, usize>,
}

pub(super) fn address(index: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(index + 1).unwrap()).into()
}

pub(super) fn config(index: usize, asn: u32) -> SpeakerConfig {
    let IpAddr::V4(id) = address(index) else { unreachable!() };
    SpeakerConfig::new(Asn(asn), RouterId::from(id))
}

pub(super) fn peer(index: usize, asn: u32) -> PeerConfig {
    PeerConfig::new(format!("r{index}"), address(index), Asn(asn))
}

pub(super) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

impl Lab {
    /// Two speakers that announce the same prefix to a third, which tells a fourth both paths (RFC 7911).
    pub(super) fn two_paths_told() -> Self {
        let mut configs = mesh_configs(&[1, 2, 3, 4], &[(0, 2), (1, 2), (2, 3)]);
        configs[2].peers[2].add_path = AddPathMode::Send;
        configs[3].peers[0].add_path = AddPathMode::Receive;
        let mut lab = Self::new(configs);
        lab.originate(0, "10.1.0.0/16");
        lab.originate(1, "10.1.0.0/16");
        lab.run(5);
        lab
    }

    pub(super) fn new(configs: Vec<SpeakerConfig>) -> Self {
        let now = tokio_free_epoch();
        let count = configs.len();
        let mut lab = Self {
            now,
            packets: 0,
            start: now,
            speakers: Vec::new(),
            addresses: (0..count).map(address).collect(),
            ends: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: Vec::new(),
            held: Vec::new(),
            story: Vec::new(),
            fibs: vec![BTreeMap::new(); count],
            complete: vec![false; count],
            asked: vec![Vec::new(); count],
            bfd: Vec::new(),
            latency: BTreeMap::new(),
            stuck: BTreeSet::new(),
            slice: None,
            limits: None,
            busy: BTreeMap::new(),
            most: BTreeMap::new(),
        };
        for (index, config) in configs.into_iter().enumerate() {
            let seed = u64::try_from(index).unwrap();
            lab.speakers.push(Some(Speaker::new(config, seed, now)));
        }
        lab
    }

    /// From now on whatever a speaker has to work on takes time for each so many prefixes, and anything may happen
    /// meanwhile.
    pub(super) fn work_in_slices(&mut self, slice: usize) {
        self.slice = Some(slice);
        self.speakers.iter_mut().flatten().for_each(|speaker| speaker.slice = slice);
    }

    fn note_effort(&mut self, index: usize) {
        let most = self.most.entry(index).or_default();
        *most = effort::take().max(*most);
    }

    /// Returns the most that a speaker did in one step since the last time.
    pub(super) fn most(&mut self, index: usize) -> usize {
        self.most.remove(&index).unwrap_or(0)
    }

    /// Gives a speaker another configuration.
    pub(super) fn configure(&mut self, index: usize, config: SpeakerConfig) {
        let now = self.now;
        effort::take();
        self.speaker(index).configure(config, now);
        self.note_effort(index);
    }

    /// From now on new groups keep no more than this for who does not read.
    pub(super) fn keep_little(&mut self, limits: Limits) {
        self.limits = Some(limits);
        self.speakers.iter_mut().flatten().for_each(|speaker| speaker.limits = limits);
    }

    /// Gives the speakers other addresses; before the first run.
    pub(super) fn renumber(&mut self, addresses: &[&str]) {
        self.addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    }

    /// Two speakers in the given systems, peering with each other.
    pub(super) fn pair(left: u32, right: u32) -> Self {
        Self::pair_with(left, right, |_| ())
    }

    pub(super) fn pair_with(left: u32, right: u32, change: impl Fn(&mut PeerConfig)) -> Self {
        let mut configs = vec![config(0, left), config(1, right)];
        configs[0].peers.push(peer(1, right));
        configs[1].peers.push(peer(0, left));
        configs.iter_mut().flat_map(|config| &mut config.peers).for_each(change);
        Self::new(configs)
    }

    /// A chain or mesh: peers as listed, everyone in the given AS.
    pub(super) fn mesh(asns: &[u32], links: &[(usize, usize)]) -> Self {
        Self::new(mesh_configs(asns, links))
    }

    pub(super) fn speaker(&mut self, index: usize) -> &mut Speaker {
        self.speakers[index].as_mut().unwrap()
    }

    pub(super) fn originate(&mut self, index: usize, text: &str) {
        self.speaker(index).originate(prefix(text), LocalRoute::default());
    }

    pub(super) fn withdraw(&mut self, index: usize, text: &str) {
        self.speaker(index).withdraw(&prefix(text));
    }

    pub(super) fn peer(&mut self, index: usize, peer: usize) -> PeerSnapshot {
        let snapshot = self.speaker(index).snapshot(false);
        snapshot.peers.into_iter().find(|each| each.name == format!("r{peer}")).unwrap()
    }

    pub(super) fn state(&mut self, index: usize, peer: usize) -> State {
        self.peer(index, peer).state
    }

    /// Stops everything between two speakers from now on; nobody is told.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        self.cut.push((a.min(b), a.max(b)));
    }

    pub(super) fn mend(&mut self, a: usize, b: usize) {
        self.cut.retain(|link| *link != (a.min(b), a.max(b)));
        for (from, to, packet) in std::mem::take(&mut self.held) {
            self.send(from, to, packet);
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// The process dies: its connections close without a word.
    pub(super) fn kill(&mut self, index: usize) {
        self.speakers[index] = None;
        self.held.retain(|(from, to, _)| *from != index && *to != index);
        let ends: Vec<_> = self.ends.iter().map(|(near, far)| (*near, *far)).collect();
        for (near, far) in ends {
            if near.0 == index {
                self.ends.remove(&near);
                self.ends.remove(&far);
                if !self.is_cut(index, far.0) {
                    self.send(index, far.0, Packet::Fin { to: far.1 });
                }
            }
        }
    }

    pub(super) fn start(&mut self, index: usize, config: SpeakerConfig) {
        let mut speaker = Speaker::new(config, 99, self.now);
        speaker.slice = self.slice.unwrap_or(speaker.slice);
        speaker.limits = self.limits.unwrap_or(speaker.limits);
        self.speakers[index] = Some(speaker);
        self.complete[index] = false;
    }

    pub(super) fn shutdown(&mut self, index: usize, kind: Shutdown) {
        let now = self.now;
        self.speaker(index).shutdown(kind, now);
        self.drain(index);
        self.speakers[index] = None;
    }

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        if self.is_cut(from, to) {
            self.held.push((from, to, packet));
        } else {
            let latency = self.latency.get(&(from, to)).copied().unwrap_or(LATENCY);
            let at = self.now + latency;
            let position = self.wire.iter().position(|(other, ..)| *other > at);
            self.wire.insert(position.unwrap_or(self.wire.len()), (at, to, packet));
        }
    }

    /// Bytes as if from the peer of a connection.
    pub(super) fn inject(&mut self, index: usize, bytes: &[u8]) {
        let connection =
            *self.ends.keys().find(|(owner, _)| *owner == index).map(|(_, c)| c).unwrap();
        let now = self.now;
        self.speaker(index).handle_received(connection, bytes, now);
        self.drain(index);
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_within(time, u64::MAX);
    }

    /// Runs, and fails as soon as more happens than that: speakers that never agree, or work for ever, are not waited for.
    pub(super) fn run_within(&mut self, time: Duration, most: u64) {
        let end = self.now + time;
        let (before, mut steps) = (self.packets, 0_u64);
        self.drain_all();
        while let Some(next) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.step();
            steps += 1;
            let said = self.packets - before;
            assert!(
                said <= most && steps <= most.saturating_mul(10),
                "{said} packets in {steps} steps of {time:?}: this never ends\n{}",
                self.tell()
            );
        }
        self.now = end;
    }

    pub(super) fn run(&mut self, seconds: u64) {
        self.run_for(Duration::from_secs(seconds));
    }

    /// Runs for a number of times ten seconds, in none of which as much may be said as by speakers that never agree.
    pub(super) fn come_to_rest(&mut self, times: u32) {
        for _ in 0..times {
            self.run_within(Duration::from_secs(10), MUCH);
        }
    }

    fn next_event(&mut self) -> Option<Instant> {
        let packets = self.wire.front().map(|(at, ..)| *at);
        let timers = self.speakers.iter_mut().flatten().filter_map(Speaker::poll_timeout).min();
        let work = self.busy.values().min().copied();
        [packets, timers, work].into_iter().flatten().min()
    }

    fn step(&mut self) {
        while self.wire.front().is_some_and(|(at, ..)| *at <= self.now) {
            if let Some((_, to, packet)) = self.wire.pop_front() {
                self.packets += 1;
                self.deliver(to, packet);
                self.drain(to);
            }
        }
        let now = self.now;
        for speaker in self.speakers.iter_mut().flatten() {
            if speaker.poll_timeout().is_some_and(|at| at <= now) {
                speaker.handle_timeout(now);
            }
        }
        self.drain_all();
    }

    fn deliver(&mut self, to: usize, packet: Packet) {
        let (now, local) = (self.now, self.addresses[to]);
        match packet {
            Packet::Syn { from } => {
                let remote = self.addresses[from.0];
                let accepted =
                    self.speakers[to].as_mut().and_then(|s| s.handle_accepted(local, remote, now));
                match accepted {
                    Some(connection) => {
                        self.ends.insert((to, connection), from);
                        let ack = Packet::SynAck { to: from.1, from: (to, connection) };
                        self.send(to, from.0, ack);
                    }
                    None => self.send(to, from.0, Packet::Refused { to: from.1 }),
                }
            }
            Packet::SynAck { to: connection, from } => {
                self.ends.insert((to, connection), from);
                if let Some(speaker) = &mut self.speakers[to] {
                    speaker.handle_connected(connection, local, now);
                }
            }
            Packet::Refused { to: connection } => {
                if let Some(speaker) = &mut self.speakers[to] {
                    speaker.handle_closed(connection, "connection refused", now);
                }
            }
            Packet::Data { to: connection, bytes } => {
                if let Some(speaker) = &mut self.speakers[to] {
                    speaker.handle_received(connection, &bytes, now);
                }
            }
            Packet::Fin { to: connection } => {
                self.ends.remove(&(to, connection));
                if let Some(speaker) = &mut self.speakers[to] {
                    speaker.handle_closed(connection, "peer closed the connection", now);
                }
            }
        }
    }

    fn drain_all(&mut self) {
        for index in 0..self.speakers.len() {
            self.drain(index);
        }
    }

    fn drain(&mut self, index: usize) {
        if self.busy.get(&index).is_some_and(|until| *until > self.now) {
            return;
        }
        self.busy.remove(&index);
        let mut slices = 0;
        while let Some(speaker) = &mut self.speakers[index] {
            effort::take();
            let slice = speaker.poll_slice();
            self.note_effort(index);
            match slice {
                Slice::Output(output) => self.handle_output(index, output),
                Slice::Idle => return,
                Slice::Worked if self.slice.is_some() => {
                    self.busy.insert(index, self.now + SLICE);
                    return;
                }
                Slice::Worked => {
                    slices += 1;
                    assert!(slices < MANY_SLICES, "r{index} works for ever\n{}", self.tell());
                }
            }
        }
    }

    fn handle_output(&mut self, index: usize, output: Output) {
        match output {
            Output::Connect(request) => {
                let to = self.addresses.iter().position(|each| *each == request.remote.ip());
                self.send(index, to.unwrap(), Packet::Syn { from: (index, request.connection) });
            }
            Output::TransmitReady(connection) => {
                let far = self.ends.get(&(index, connection));
                if far.is_none_or(|(to, _)| !self.stuck.contains(&(*to, index))) {
                    self.transmit(index, connection);
                }
            }
            Output::Close { connection, last } => {
                self.carry(index, connection, last);
                if let Some((to, far)) = self.ends.remove(&(index, connection)) {
                    self.send(index, to, Packet::Fin { to: far });
                }
            }
            Output::Fib(FibUpdate { prefix, route }) => {
                let hops: Vec<IpAddr> = route.next_hops().iter().map(|hop| hop.address).collect();
                if route == FibRoute::Absent {
                    self.fibs[index].remove(&prefix);
                } else {
                    self.fibs[index].insert(prefix, hops);
                }
            }
            Output::Peer(event) => {
                let time = self.now.duration_since(self.start).as_secs();
                self.story.push(format!("{time}s r{index} {event}"));
            }
            Output::BfdWatch(session) => {
                self.bfd
                    .push(format!("r{index} watches {} at {}\n", session.peer, session.address));
            }
            // Tests ask themselves.
            Output::BmpReady(_) => (),
            Output::NextHopWatch(address) => self.asked[index].push(format!("{address}?")),
            Output::NextHopForget(address) => self.asked[index].push(format!("{address} no more")),
            Output::BfdForget(peer) => self.bfd.push(format!("r{index} forgets {peer}\n")),
            Output::RestartComplete => {
                self.complete[index] = true;
                let time = self.now.duration_since(self.start).as_secs();
                self.story.push(format!("{time}s r{index} restart complete"));
            }
        }
    }

    fn transmit(&mut self, index: usize, connection: ConnectionId) {
        loop {
            effort::take();
            let messages = self.speaker(index).transmit(connection, 1 << 13);
            self.note_effort(index);
            if messages.is_empty() {
                return;
            }
            self.carry(index, connection, messages);
        }
    }

    /// A peer reads again.
    pub(super) fn unstick(&mut self, reader: usize, index: usize) {
        self.stuck.remove(&(reader, index));
        let ends = self.ends.iter().filter(|(near, far)| near.0 == index && far.0 == reader);
        let connections: Vec<_> = ends.map(|(near, _)| near.1).collect();
        connections.into_iter().for_each(|connection| self.transmit(index, connection));
    }

    fn carry(&mut self, index: usize, connection: ConnectionId, messages: Vec<Bytes>) {
        if let Some((to, far)) = self.ends.get(&(index, connection)).copied() {
            for bytes in messages {
                self.send(index, to, Packet::Data { to: far, bytes });
            }
        }
    }

    /// What happened since the last call.
    pub(super) fn tell(&mut self) -> String {
        let mut story = std::mem::take(&mut self.story).join("\n");
        story.push('\n');
        story
    }

    /// The FIB of a speaker in words.
    pub(super) fn fib(&self, index: usize) -> String {
        let lines = self.fibs[index].iter().map(|(prefix, hops)| {
            let hops: Vec<String> = hops.iter().map(ToString::to_string).collect();
            match hops.as_slice() {
                [] => format!("{prefix} blackhole\n"),
                hops => format!("{prefix} via {}\n", hops.join(" ")),
            }
        });
        lines.collect()
    }
}

pub(super) fn mesh_configs(asns: &[u32], links: &[(usize, usize)]) -> Vec<SpeakerConfig> {
    let mut configs: Vec<_> =
        asns.iter().enumerate().map(|(index, asn)| config(index, *asn)).collect();
    for (a, b) in links {
        configs[*a].peers.push(peer(*b, asns[*b]));
        configs[*b].peers.push(peer(*a, asns[*a]));
    }
    configs
}

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time; never read again")]
fn tokio_free_epoch() -> Instant {
    Instant::now()
}
