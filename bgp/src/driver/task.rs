//! The one task that owns the speaker.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    sync::{broadcast, mpsc, oneshot},
    task::JoinSet,
};

use super::{
    bfd::{Bfd, BfdEvent},
    bmp::{Question, Sinks},
    connection::{self, Connection, Input, Read, Written},
    discovery::{Discovery, Neighbour},
    fib::FibSender,
    handle::Command,
    listener::Listeners,
    refused::RefusedSegments,
};
use crate::{ConnectRequest, ConnectionId, Output, PeerEvent, Shutdown, Slice, Speaker};

/// Bytes taken from the kernel at once.
pub(super) const READ: usize = 256 << 10;
/// Bytes asked of the speaker at once.
const WRITE: usize = 256 << 10;
/// Bytes written to one peer before others have their turn.
const TURN: usize = 1 << 20;
/// Inputs handled before outputs are looked at.
const BATCH: usize = 256;
/// The same, in bytes: some milliseconds of work. Few enough for keepalives not to wait, many enough to be packed.
const SLICE: usize = 512 << 10;
/// Slices of the speaker's work before inputs and timers are looked at again: about what the most input at once asks for.
const SLICES: usize = 16;
/// How long peers may take to read the farewell.
const FAREWELL: Duration = Duration::from_secs(2);

pub(super) struct Task {
    pub(super) speaker: Speaker,
    pub(super) listeners: Listeners,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    /// Connections that deliver their last messages.
    pub(super) farewells: JoinSet<()>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) input_queue: mpsc::Receiver<Input>,
    pub(super) command_queue: mpsc::UnboundedReceiver<Command>,
    pub(super) events: broadcast::Sender<PeerEvent>,
    pub(super) fib: FibSender,
    pub(super) refused: RefusedSegments,
    pub(super) bfd: Bfd,
    pub(super) bfd_events: mpsc::UnboundedReceiver<BfdEvent>,
    pub(super) discovery: Discovery,
    pub(super) sinks: Sinks,
    pub(super) neighbours: mpsc::UnboundedReceiver<Neighbour>,
    /// What is read lies here while the speaker handles it.
    pub(super) buffer: Vec<u8>,
    /// Bytes handled since outputs were looked at.
    pub(super) handled: usize,
    /// The speaker has more to work on.
    pub(super) busy: bool,
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Task {
    /// Runs until told to stop or until the last handle is gone.
    pub(super) async fn run(mut self) {
        if !self.speaker.config().restarting {
            self.fib.complete();
        }
        self.drain_outputs();
        let mut batch = Vec::with_capacity(BATCH);
        let mut commands = Vec::with_capacity(BATCH);
        loop {
            let deadline = self.speaker.poll_timeout();
            let sleep = tokio::time::sleep_until(
                deadline.unwrap_or_else(|| now() + Duration::from_secs(3600)).into(),
            );
            tokio::select! {
                _ = self.input_queue.recv_many(&mut batch, BATCH) => {
                    for input in batch.drain(..) {
                        self.handle_input(input);
                        if self.handled >= SLICE {
                            self.drain_outputs();
                        }
                    }
                }
                _ = self.command_queue.recv_many(&mut commands, BATCH) => {
                    if commands.is_empty() {
                        return self.stop(Shutdown::Restart, None).await;
                    }
                    for command in commands.drain(..) {
                        match command {
                            Command::Shutdown(kind, reply) => {
                                return self.stop(kind, Some(reply)).await;
                            }
                            command => self.handle_command(command),
                        }
                    }
                }
                Some((peer, change)) = self.bfd_events.recv() => {
                    self.speaker.handle_bfd(&peer, &change, now());
                }
                Some(neighbour) = self.neighbours.recv() => match neighbour {
                    Neighbour::Found(interface, address) => self.neighbour(&interface, address),
                    Neighbour::Silent(interface) => {
                        self.speaker.handle_neighbour_silent(&interface, now());
                    }
                },
                () = sleep => (),
                () = tokio::task::yield_now(), if self.busy => (),
                Some(_) = self.farewells.join_next() => (),
            }
            let time = now();
            if self.speaker.poll_timeout().is_some_and(|at| at <= time) {
                if let Some(total) = self.refused.poll(time) {
                    self.speaker.set_refused_segments(total);
                }
                self.read_before_expiry(time);
                self.speaker.handle_timeout(time);
            }
            self.drain_outputs();
        }
    }

    async fn stop(mut self, kind: Shutdown, reply: Option<oneshot::Sender<()>>) {
        // Our end must not look like a broken path.
        self.bfd.stop();
        self.speaker.shutdown(kind, now());
        self.drain_outputs();
        drop(self.listeners);
        self.connections.clear();
        self.sinks.stop().await;
        let farewells = async { while self.farewells.join_next().await.is_some() {} };
        // A peer that does not read must not keep us.
        let _ = tokio::time::timeout(FAREWELL, farewells).await;
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }

    fn handle_input(&mut self, input: Input) {
        match input {
            Input::Accepted(stream, remote) => self.accept(stream, remote),
            Input::Connected(connection, stream) => self.connected(connection, stream),
            Input::Readable(connection) => self.read(connection),
            Input::Writable(connection) => {
                if let Some(known) = self.connections.get_mut(&connection) {
                    known.unblock();
                    self.transmit(connection);
                }
            }
            Input::Closed(connection, reason) => {
                self.speaker.handle_closed(connection, &reason, now());
            }
        }
    }

    fn accept(&mut self, stream: TcpStream, remote: SocketAddr) {
        let interface = connection::interface_of(&remote);
        let remote = connection::plain(remote.ip());
        let Ok(local) = stream.local_addr() else { return };
        let local = connection::plain(local.ip());
        let accepted = self.speaker.handle_accepted_on(interface.as_deref(), local, remote, now());
        let Some(connection) = accepted else {
            tracing::debug!(%remote, "refused a connection");
            return;
        };
        // Before the first byte is read.
        let secured =
            self.speaker.peer_at(remote).map(|peer| connection::secure(stream.as_fd(), peer));
        if let Some(Err(error)) = secured {
            let reason = format!("cannot set the TTL of the connection: {error}");
            self.speaker.handle_closed(connection, &reason, now());
            return;
        }
        let started = Connection::start(connection, stream, &self.inputs);
        self.connections.insert(connection, started);
    }

    fn read(&mut self, connection: ConnectionId) {
        let Some(known) = self.connections.get(&connection) else { return };
        let read = known.read(&mut self.buffer);
        self.take(connection, read);
    }

    /// After a long stop what a peer said in time lies in the socket still: its silence was ours.
    fn read_before_expiry(&mut self, time: Instant) {
        for connection in self.speaker.expiring(time) {
            let Some(known) = self.connections.get(&connection) else { continue };
            let read = known.read_now(&mut self.buffer);
            self.take(connection, read);
        }
    }

    fn take(&mut self, connection: ConnectionId, read: Read) {
        match read {
            Read::Bytes(count) => {
                self.handled = self.handled.saturating_add(count);
                let bytes = self.buffer.get(..count).unwrap_or_default();
                self.speaker.handle_received(connection, bytes, now());
            }
            Read::Nothing => (),
            Read::Closed(reason) => self.speaker.handle_closed(connection, &reason, now()),
        }
    }

    fn connected(&mut self, connection: ConnectionId, stream: TcpStream) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        match stream.local_addr() {
            Ok(local) => {
                *known = Connection::start(connection, stream, &self.inputs);
                let local = connection::plain(local.ip());
                self.speaker.handle_connected(connection, local, now());
            }
            Err(error) => self.speaker.handle_closed(connection, &error.to_string(), now()),
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Configure(config) => {
                self.discovery.configure(&config);
                self.sinks.configure(&config.collectors);
                if let Err(error) = self.listeners.configure(&config) {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, ?cause, "cannot prepare the listening sockets");
                }
                self.speaker.configure(*config, now());
            }
            Command::Originate(prefix, route) => self.speaker.originate(prefix, route),
            Command::Withdraw(prefix) => self.speaker.withdraw(&prefix),
            Command::Networks(networks) => self.speaker.handle_networks(networks, now()),
            Command::InterfaceDown(down) => self.speaker.handle_interface_down(down, now()),
            Command::Neighbour(interface, address) => self.neighbour(&interface, address),
            Command::NeighbourLost(interface) => {
                self.speaker.handle_neighbour_lost(&interface, now());
            }
            Command::Operate(peer, action, reply) => {
                let _ = reply.send(self.speaker.operate(&peer, &action, now()));
            }
            Command::InterfaceUp(interface) => {
                self.speaker.handle_interface_up(&interface, now());
            }
            Command::Snapshot { with_rib, reply } => {
                // How long things have lasted is counted until now, not until the last message.
                self.speaker.set_time(now());
                let _ = reply.send(self.speaker.snapshot(with_rib));
            }
            Command::Explain(prefix, reply) => {
                let _ = reply.send(self.speaker.explain(&prefix));
            }
            Command::ExplainAddress(address, reply) => {
                let prefix = self.speaker.longest_match(address);
                let _ = reply.send(prefix.and_then(|prefix| self.speaker.explain(&prefix)));
            }
            Command::Table(question, reply) => {
                let _ = reply.send(self.speaker.table(&question));
            }
            Command::Happenings { watcher, within, reply } => {
                let _ = reply.send(self.speaker.happenings(&watcher, within, now()));
            }
            Command::NextHops(answers) => self.speaker.handle_next_hops(answers, now()),
            Command::FibOutcomes(outcomes) => self.speaker.handle_fib_outcomes(outcomes, now()),
            Command::Bmp(collector, question) => self.monitor(&collector, question),
            // The loop takes it.
            Command::Shutdown(..) => (),
        }
    }

    fn monitor(&mut self, collector: &str, question: Question) {
        match question {
            Question::Connected(since_epoch) => {
                self.speaker.bmp_connected(collector, since_epoch, now());
            }
            Question::Take(limit, reply) => {
                let _ = reply.send(self.speaker.bmp_take(collector, limit, now()));
            }
            Question::Statistics => self.speaker.bmp_statistics(collector, now()),
            Question::Closed => self.speaker.bmp_closed(collector),
        }
    }

    fn neighbour(&mut self, interface: &str, address: IpAddr) {
        self.speaker.handle_neighbour(interface, address, now());
        if let Err(error) = self.listeners.allow(interface, address) {
            tracing::error!(%error, "cannot prepare the listening sockets");
        }
    }

    fn drain_outputs(&mut self) {
        self.handled = 0;
        let mut worked: usize = 0;
        self.busy = loop {
            match self.speaker.poll_slice() {
                Slice::Output(output) => self.handle_output(output),
                Slice::Idle => break false,
                Slice::Worked if worked >= SLICES => break true,
                Slice::Worked => worked = worked.saturating_add(1),
            }
        };
    }

    fn handle_output(&mut self, output: Output) {
        match output {
            Output::Connect(request) => self.connect(request),
            Output::TransmitReady(connection) => self.transmit(connection),
            Output::Close { connection, last } => self.close(connection, last),
            Output::Fib(update) => self.fib.update(update),
            Output::Peer(event) => {
                tracing::info!(peer = %event.peer, address = %event.address, from = %event.from,
                    to = %event.to, cause = %event.cause, "session changed");
                // Nobody may be listening.
                let _ = self.events.send(event);
            }
            Output::BmpReady(collector) => self.sinks.ready(&collector),
            Output::BfdWatch(session) => self.bfd.watch(session),
            Output::BfdForget(peer) => self.bfd.forget(peer),
            Output::RestartComplete => self.fib.complete(),
            Output::NextHopWatch(address) => self.fib.follow(address, true),
            Output::NextHopForget(address) => self.fib.follow(address, false),
        }
    }

    fn connect(&mut self, request: ConnectRequest) {
        let Some(config) = self.speaker.peer_config(&request.peer).cloned() else { return };
        let connection = request.connection;
        let task = tokio::spawn(connection::connect(request, config, self.inputs.clone()));
        self.connections.insert(connection, Connection::connecting(task.abort_handle()));
    }

    fn transmit(&mut self, connection: ConnectionId) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        let mut turn: usize = 0;
        let mut messages = Vec::new();
        while known.is_ready() {
            match known.write(std::mem::take(&mut messages)) {
                Written::All if turn >= TURN => {
                    known.yield_now();
                    return;
                }
                Written::All => (),
                Written::Blocked | Written::Failed => return,
            }
            messages = self.speaker.transmit(connection, WRITE);
            if messages.is_empty() {
                return;
            }
            turn = messages.iter().fold(turn, |sum, bytes| sum.saturating_add(bytes.len()));
        }
    }

    fn close(&mut self, connection: ConnectionId, last: Vec<bytes::Bytes>) {
        if let Some(known) = self.connections.remove(&connection) {
            known.close(last, &mut self.farewells);
        }
    }
}
