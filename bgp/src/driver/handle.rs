//! The daemon's way to the speaker.

use std::net::IpAddr;

use tokio::sync::{broadcast, mpsc, oneshot};

use super::bmp::Question;
#[cfg(doc)]
use crate::Speaker;
use crate::{
    FibOutcome, InterfaceDown, LocalNetworks, LocalRoute, NextHopAnswer, PeerAction, PeerEvent,
    Prefix, Shutdown, SpeakerConfig,
    snapshot::{Happenings, RouteExplanation, Snapshot, TablePart, TableQuestion},
};

/// What the daemon asks for.
#[derive(Debug)]
pub(super) enum Command {
    Configure(Box<SpeakerConfig>),
    Originate(Prefix, LocalRoute),
    Withdraw(Prefix),
    Networks(LocalNetworks),
    InterfaceDown(InterfaceDown),
    InterfaceUp(String),
    Neighbour(String, IpAddr),
    NeighbourLost(String),
    Operate(String, PeerAction, oneshot::Sender<Result<(), String>>),
    Snapshot {
        with_rib: bool,
        reply: oneshot::Sender<Snapshot>,
    },
    Explain(Prefix, oneshot::Sender<Option<RouteExplanation>>),
    ExplainAddress(IpAddr, oneshot::Sender<Option<RouteExplanation>>),
    Table(TableQuestion, oneshot::Sender<Option<TablePart>>),
    Happenings {
        watcher: String,
        within: Option<Prefix>,
        reply: oneshot::Sender<Option<Happenings>>,
    },
    FibOutcomes(Vec<FibOutcome>),
    NextHops(Vec<NextHopAnswer>),
    Bmp(String, Question),
    Shutdown(Shutdown, oneshot::Sender<()>),
}

/// The speaker has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the BGP speaker has stopped")]
pub struct Stopped;

/// Talks to a running speaker. When the last handle is dropped the speaker stops as for a restart.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    events: broadcast::Sender<PeerEvent>,
}

impl Handle {
    pub(super) const fn new(
        commands: mpsc::UnboundedSender<Command>,
        events: broadcast::Sender<PeerEvent>,
    ) -> Self {
        Self { commands, events }
    }

    fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).map_err(|_| Stopped)
    }

    /// Applies a new configuration; only what changed is reset.
    pub fn configure(&self, config: SpeakerConfig) -> Result<(), Stopped> {
        self.send(Command::Configure(Box::new(config)))
    }

    /// Announces a prefix, or changes what is attached to it.
    pub fn originate(&self, prefix: Prefix, route: LocalRoute) -> Result<(), Stopped> {
        self.send(Command::Originate(prefix, route))
    }

    /// Announces a prefix no longer.
    pub fn withdraw(&self, prefix: Prefix) -> Result<(), Stopped> {
        self.send(Command::Withdraw(prefix))
    }

    /// Tells which addresses and networks are this machine's (see [`crate::Speaker::handle_networks`]).
    pub fn networks(&self, networks: LocalNetworks) -> Result<(), Stopped> {
        self.send(Command::Networks(networks))
    }

    /// A link lost its carrier: sessions over it end at once.
    pub fn interface_down(&self, down: InterfaceDown) -> Result<(), Stopped> {
        self.send(Command::InterfaceDown(down))
    }

    /// A link has its carrier again.
    pub fn interface_up(&self, interface: impl Into<String>) -> Result<(), Stopped> {
        self.send(Command::InterfaceUp(interface.into()))
    }

    /// A router showed up on an interface that a group of peers is for.
    pub fn neighbour(&self, interface: impl Into<String>, address: IpAddr) -> Result<(), Stopped> {
        self.send(Command::Neighbour(interface.into(), address))
    }

    /// The router on an interface is gone for good.
    pub fn neighbour_lost(&self, interface: impl Into<String>) -> Result<(), Stopped> {
        self.send(Command::NeighbourLost(interface.into()))
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(question(reply))?;
        answer.await.map_err(|_| Stopped)
    }

    /// Does something to the session with a peer, by its name or address. The inner error says why it cannot be done.
    pub async fn operate(
        &self,
        peer: &str,
        action: PeerAction,
    ) -> Result<Result<(), String>, Stopped> {
        self.ask(|reply| Command::Operate(peer.to_owned(), action, reply)).await
    }

    /// Returns a part of a table; `None` if there is no such peer.
    pub async fn table(&self, question: TableQuestion) -> Result<Option<TablePart>, Stopped> {
        self.ask(|reply| Command::Table(question, reply)).await
    }

    /// Tells what happened since the one of this name asked last, which is to be within a minute; see [`Speaker::happenings`].
    pub async fn happenings(
        &self,
        watcher: &str,
        within: Option<Prefix>,
    ) -> Result<Option<Happenings>, Stopped> {
        let watcher = watcher.to_owned();
        self.ask(|reply| Command::Happenings { watcher, within, reply }).await
    }

    /// Describes the speaker; the table only if asked for.
    pub async fn snapshot(&self, with_rib: bool) -> Result<Snapshot, Stopped> {
        self.ask(|reply| Command::Snapshot { with_rib, reply }).await
    }

    /// Explains a prefix; `None` if there is no path to it.
    pub async fn explain(&self, prefix: Prefix) -> Result<Option<RouteExplanation>, Stopped> {
        self.ask(|reply| Command::Explain(prefix, reply)).await
    }

    /// Explains the prefix that decides where packets to an address go; `None` if there is none.
    pub async fn explain_address(
        &self,
        address: IpAddr,
    ) -> Result<Option<RouteExplanation>, Stopped> {
        self.ask(|reply| Command::ExplainAddress(address, reply)).await
    }

    /// Tells what became of routes in the kernel: after a batch of [`FibReceiver`](super::FibReceiver), and when it
    /// changes later.
    pub fn fib_outcomes(&self, outcomes: Vec<FibOutcome>) -> Result<(), Stopped> {
        if outcomes.is_empty() { Ok(()) } else { self.send(Command::FibOutcomes(outcomes)) }
    }

    /// Tells how the machine's routes lead to next hops of a batch of [`FibReceiver`](super::FibReceiver), and when it changes
    /// later (see [`crate::Speaker::handle_next_hops`]).
    pub fn next_hops(&self, answers: Vec<NextHopAnswer>) -> Result<(), Stopped> {
        if answers.is_empty() { Ok(()) } else { self.send(Command::NextHops(answers)) }
    }

    /// Subscribes to changes of sessions' states.
    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.events.subscribe()
    }

    /// Ends all sessions and waits until peers were told, two seconds at most.
    pub async fn shutdown(&self, kind: Shutdown) {
        let (reply, answer) = oneshot::channel();
        if self.send(Command::Shutdown(kind, reply)).is_ok() {
            // An error means that the task is gone, which is what we want.
            let _ = answer.await;
        }
    }
}
