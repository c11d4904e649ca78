//! All peers of a scenario in one thread around one epoll.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{
    peer::{Peer, State},
    plan::Plan,
    table::Bits,
};
use crate::{interrupt::Interrupt, process::Daemon};

/// Room for one read; what a peer sends is handled in pieces of at most this size.
const BUFFER: usize = 256 * 1024;
/// How often timers are looked at.
const TICK_MILLISECONDS: u16 = 20;
/// How many sessions are made at once where that is not what is measured: no speaker's queue overflows.
const GENTLE: usize = 4;
/// How long everything must stay exact before it counts: late withdrawals would show.
const SETTLE: Duration = Duration::from_millis(300);

/// The peers of a speaker.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    peers: Vec<Peer>,
    streams: Vec<Arc<Vec<u8>>>,
    epoll: Epoll,
    buffer: Vec<u8>,
    events: Vec<EpollEvent>,
    next_tick: Instant,
    /// Announce as soon as a session is up.
    eager: bool,
    /// How many sessions may be in the making at once.
    opening: usize,
    interrupt: &'a Interrupt,
}

impl<'a> Load<'a> {
    /// Makes the peers; none is connected yet.
    pub(crate) fn new(plan: &Plan, interrupt: &'a Interrupt) -> Result<Self> {
        let now = Instant::now();
        let peer = |plan_of_peer| Peer::new(plan_of_peer, &plan.truth, plan.hold_time, now);
        Ok(Self {
            peers: plan.peers.iter().map(peer).collect(),
            streams: plan.peers.iter().map(|peer| Arc::clone(&peer.stream)).collect(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("cannot make an epoll")?,
            buffer: vec![0; BUFFER],
            events: vec![EpollEvent::empty(); 512],
            next_tick: now,
            eager: false,
            opening: GENTLE,
            interrupt,
        })
    }

    /// Runs until every session is up. They are made a few at a time.
    pub(crate) fn establish(&mut self, daemon: &mut Daemon, limit: Duration) -> Result<()> {
        let start = Instant::now();
        self.run(daemon, start, limit, |load| load.peers.iter().all(Peer::is_established))?;
        Ok(())
    }

    /// Lets everyone announce at once; returns how long it took until everyone holds everything.
    pub(crate) fn announce(&mut self, daemon: &mut Daemon, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        for index in 0..self.peers.len() {
            self.send(index);
        }
        self.converge(daemon, start, limit)
    }

    /// Lets the first peer send `bytes`, after which everyone must hold `expected`.
    pub(crate) fn withdraw(
        &mut self,
        daemon: &mut Daemon,
        bytes: Vec<u8>,
        expected: Vec<Arc<Bits>>,
        limit: Duration,
    ) -> Result<Duration> {
        for (peer, expected) in self.peers.iter_mut().zip(expected) {
            peer.table.expect(expected);
        }
        let start = Instant::now();
        if let Some(first) = self.peers.first_mut() {
            first.announce(Arc::new(bytes));
            self.watch(0, false);
        }
        self.converge(daemon, start, limit)
    }

    /// Cuts every connection and makes all of them again at once. Returns how long it took until all sessions were up
    /// and until everyone held everything.
    pub(crate) fn reconnect(
        &mut self,
        daemon: &mut Daemon,
        limit: Duration,
    ) -> Result<(Duration, Duration)> {
        let start = Instant::now();
        for peer in &mut self.peers {
            peer.reset(start);
        }
        (self.eager, self.opening) = (true, usize::MAX);
        let sessions =
            self.run(daemon, start, limit, |load| load.peers.iter().all(Peer::is_established))?;
        let tables = self.converge(daemon, start, limit)?;
        Ok((sessions, tables))
    }

    /// Keeps the sessions, and nothing else, for some time.
    pub(crate) fn idle(&mut self, daemon: &mut Daemon, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(daemon)?;
            self.sessions_must_hold()?;
        }
        Ok(())
    }

    fn converge(
        &mut self,
        daemon: &mut Daemon,
        start: Instant,
        limit: Duration,
    ) -> Result<Duration> {
        loop {
            let took = self.run(daemon, start, limit, |load| {
                load.peers.iter().all(|peer| peer.is_established() && peer.table.is_exact())
            })?;
            let changes = |load: &Self| load.peers.iter().map(|peer| peer.table.changes).sum();
            let before: u64 = changes(self);
            let settled = Instant::now() + SETTLE;
            while Instant::now() < settled {
                self.turn(daemon)?;
            }
            if changes(self) == before {
                return Ok(took);
            }
            if start.elapsed() > limit {
                bail!("it does not come to rest; {}", self.complaint());
            }
        }
    }

    fn run(
        &mut self,
        daemon: &mut Daemon,
        start: Instant,
        limit: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Result<Duration> {
        loop {
            let now = self.turn(daemon)?;
            if done(self) {
                return Ok(now.duration_since(start));
            }
            self.sessions_must_hold()?;
            if now.duration_since(start) > limit {
                bail!("not done after {:.0} s: {}", limit.as_secs_f64(), self.complaint());
            }
        }
    }

    /// Where sessions are made one by one a lost one is a fault; where all come at once it is made again and costs time.
    fn sessions_must_hold(&self) -> Result<()> {
        if self.opening > GENTLE {
            return Ok(());
        }
        match self.peers.iter().find_map(|peer| peer.lost.as_ref()) {
            Some(lost) => bail!("{lost}"),
            None => Ok(()),
        }
    }

    fn complaint(&self) -> String {
        let down: Vec<&Peer> = self.peers.iter().filter(|peer| !peer.is_established()).collect();
        if let Some(first) = down.first() {
            let all = self.peers.len();
            return format!("{} of {all} sessions are not up; {}", down.len(), first.complaint());
        }
        let behind: Vec<&Peer> = self.peers.iter().filter(|peer| !peer.table.is_exact()).collect();
        let first = behind.first().map(|peer| peer.complaint()).unwrap_or_default();
        format!("{} of {} peers are behind; {first}", behind.len(), self.peers.len())
    }

    fn send(&mut self, index: usize) {
        if let (Some(peer), Some(stream)) = (self.peers.get_mut(index), self.streams.get(index)) {
            peer.announce(Arc::clone(stream));
        }
        self.watch(index, false);
    }

    /// Tells epoll what a peer waits for.
    fn watch(&mut self, index: usize, new: bool) {
        let Some(peer) = self.peers.get(index) else { return };
        let Some(stream) = &peer.stream else { return };
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, peer.wants_write());
        let mut event = EpollEvent::new(flags, u64::try_from(index).unwrap_or(u64::MAX));
        // A socket that is gone has left the epoll by itself.
        let _ =
            if new { self.epoll.add(stream, event) } else { self.epoll.modify(stream, &mut event) };
    }

    /// Waits for sockets, at most until the next tick, and serves them. Returns when that was.
    fn turn(&mut self, daemon: &mut Daemon) -> Result<Instant> {
        let timeout = EpollTimeout::from(TICK_MILLISECONDS);
        let ready = match self.epoll.wait(&mut self.events, timeout) {
            Ok(ready) => ready,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(error).context("cannot wait for sockets"),
        };
        let now = Instant::now();
        for place in 0..ready {
            let Some(event) = self.events.get(place).copied() else { break };
            self.serve(usize::try_from(event.data()).unwrap_or(usize::MAX), event.events(), now);
        }
        self.connect(now)?;
        if now >= self.next_tick {
            self.next_tick = now + Duration::from_millis(u64::from(TICK_MILLISECONDS));
            self.tick(daemon, now)?;
        }
        Ok(Instant::now())
    }

    fn serve(&mut self, index: usize, events: EpollFlags, now: Instant) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let before = (peer.state, peer.wants_write());
        if peer.state == State::Connecting || events.contains(EpollFlags::EPOLLOUT) {
            peer.writable(now);
        }
        if events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            peer.readable(&mut self.buffer, now);
        }
        let established = peer.is_established() && before.0 != State::Established;
        if established && self.eager {
            self.send(index);
        } else if before.1 != peer.wants_write() {
            self.watch(index, false);
        }
    }

    fn tick(&mut self, daemon: &mut Daemon, now: Instant) -> Result<()> {
        self.interrupt.check()?;
        if let Some(death) = daemon.death() {
            bail!("{death}");
        }
        for index in 0..self.peers.len() {
            let Some(peer) = self.peers.get_mut(index) else { break };
            peer.lose_patience(now);
            let before = peer.wants_write();
            peer.keep_alive(now);
            if peer.wants_write() != before {
                self.watch(index, false);
            }
        }
        Ok(())
    }

    /// Starts the connections that are due.
    fn connect(&mut self, now: Instant) -> Result<()> {
        let mut opening = self.peers.iter().filter(|peer| peer.is_opening()).count();
        for index in 0..self.peers.len() {
            if opening >= self.opening {
                break;
            }
            let Some(peer) = self.peers.get_mut(index) else { break };
            if matches!(peer.state, State::Down(due) if now >= due) {
                peer.connect(now).context("cannot make a socket")?;
                self.watch(index, true);
                opening += 1;
            }
        }
        Ok(())
    }
}
