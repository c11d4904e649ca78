//! The rim of the speaker: sockets and the clock. One task owns the [`Speaker`]; every connection has two
//! tasks that wait for the kernel and decide nothing.
//!
//! Sockets are made by the thread that polls the driver's task: run it on a runtime whose threads are all in the
//! network namespace it is meant for.

mod bfd;
mod bmp;
mod connection;
mod discovery;
mod fib;
mod handle;
mod listener;
mod refused;
mod socket_option;
mod task;
mod tcp_ao;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::sync::{broadcast, mpsc};

use self::{
    bfd::Bfd, bmp::Sinks, discovery::Discovery, listener::Listeners, refused::RefusedSegments,
    task::Task,
};
pub use self::{
    fib::{FibBatch, FibReceiver},
    handle::{Handle, Stopped},
};
use crate::{Speaker, SpeakerConfig};

/// Events that a slow subscriber may be behind.
const EVENTS: usize = 1024;
/// Reads and the like that wait for the speaker; readers stop beyond it.
const INPUTS: usize = 256;

/// What the driver needs besides the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; nowhere if empty. One address per family, usually `0.0.0.0:179` and `[::]:179`.
    pub listen: Vec<SocketAddr>,
    /// Feeds jitter.
    pub seed: u64,
}

impl Options {
    /// Listens on all addresses of both families.
    pub fn on_port(port: u16) -> Self {
        let any = [IpAddr::from([0_u8; 4]), IpAddr::from([0_u16; 8])];
        let listen = any.map(|address| SocketAddr::new(address, port)).to_vec();
        Self { listen, seed: u64::from(std::process::id()) }
    }
}

/// The speaker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No listening socket.
    #[error("cannot listen on {address}; is another BGP speaker running there?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// No socket to try keys on.
    #[error("cannot make a socket")]
    Socket(#[source] io::Error),
    /// A password or the like cannot be set.
    #[error(
        "cannot set the TCP MD5 password of {peer}; it has 1 to 80 octets and needs CONFIG_TCP_MD5SIG"
    )]
    Password {
        /// Whose.
        peer: String,
        /// Why not.
        source: io::Error,
    },
    /// A key of TCP-AO cannot be set.
    #[error("cannot set the TCP-AO keys of {peer}")]
    TcpAo {
        /// Whose.
        peer: String,
        /// Why not.
        source: io::Error,
    },
}

/// Says what the kernel misses of what a configuration asks for, before it is used.
pub fn check(config: &SpeakerConfig) -> Result<(), Error> {
    let templates = config.groups.iter().map(|group| &group.template);
    for peer in config.peers.iter().chain(templates) {
        for key in &peer.tcp_ao {
            tcp_ao::check(key.algorithm)
                .map_err(|source| Error::TcpAo { peer: peer.name.clone(), source })?;
        }
    }
    listener::try_keys(config)
}

/// Opens the listening sockets and starts the speaker on the current runtime.
pub fn spawn(config: SpeakerConfig, options: Options) -> Result<(Handle, FibReceiver), Error> {
    let (inputs, input_queue) = mpsc::channel(INPUTS);
    let (commands, command_queue) = mpsc::unbounded_channel();
    let (events, _) = broadcast::channel(EVENTS);
    let (fib, fib_receiver) = fib::mailbox();
    let mut listeners = Listeners::open(&options.listen, &inputs)?;
    listeners.configure(&config)?;
    let (found, neighbours) = mpsc::unbounded_channel();
    let mut discovery = Discovery::new(found);
    discovery.configure(&config);
    let mut sinks = Sinks::new(commands.downgrade());
    sinks.configure(&config.collectors);
    let (bfd_sender, bfd_events) = mpsc::unbounded_channel();
    let bfd_addresses = bfd_addresses(&options.listen);
    let now = tokio::time::Instant::now().into_std();
    let task = Task {
        speaker: Speaker::new(config, options.seed, now),
        listeners,
        connections: std::collections::BTreeMap::new(),
        farewells: tokio::task::JoinSet::new(),
        inputs,
        input_queue,
        command_queue,
        events: events.clone(),
        fib,
        refused: RefusedSegments::default(),
        bfd: Bfd::new(bfd_addresses, options.seed, bfd_sender),
        bfd_events,
        discovery,
        sinks,
        neighbours,
        buffer: vec![0; task::READ],
        handled: 0,
        busy: false,
    };
    tokio::spawn(task.run());
    Ok((Handle::new(commands, events), fib_receiver))
}

/// BFD listens where BGP does; on all addresses if that is nowhere.
fn bfd_addresses(listen: &[SocketAddr]) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = listen.iter().map(SocketAddr::ip).collect();
    if addresses.is_empty() {
        addresses = Options::on_port(0).listen.iter().map(SocketAddr::ip).collect();
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
