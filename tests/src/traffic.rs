//! Datagrams that are asked and answered all the time, to notice every one that is lost.

use std::{
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::Namespace;

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// A thread in a namespace that works until it is told to stop.
#[derive(Debug)]
pub struct Worker<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Worker<T> {
    #[must_use]
    pub fn start(
        namespace: &Namespace,
        work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
    ) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (stopped, netns) = (Arc::clone(&stop), PathBuf::from(namespace.path()));
        let thread = std::thread::spawn(move || {
            kernel::netns::in_netns(&netns, || work(&stopped)).expect("enter the namespace")
        });
        Self { stop, thread }
    }

    pub fn finish(self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("worker")
    }
}

/// What became of the questions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Asked {
    pub sent: u64,
    pub unanswered: u64,
}

/// Asks and waits for the answer, from a new port each time: another flow for those who share load, and a new connection for
/// those who keep a state of it.
#[must_use]
pub fn ask(
    namespace: &Namespace,
    from: &'static str,
    to: SocketAddr,
    pause: Duration,
) -> Worker<Asked> {
    Worker::start(namespace, move |stop| {
        let mut asked = Asked::default();
        while !stop.load(Ordering::Relaxed) {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            asked.sent += 1;
            // No way to go counts as a loss.
            let sent = socket.send_to(&[0; 8], to);
            if let Err(error) = sent.and_then(|_| socket.recv(&mut [0; 8])) {
                asked.unanswered += 1;
                eprintln!("question {} to {to}: {error}", asked.sent);
            }
            std::thread::sleep(pause);
        }
        asked
    })
}

/// Answers those who may ask; returns all others.
#[must_use]
pub fn answer(
    namespace: &Namespace,
    at: SocketAddr,
    may_ask: impl Fn(SocketAddr) -> bool + Send + 'static,
) -> Worker<Vec<SocketAddr>> {
    // Before anybody asks.
    let socket = namespace.run(|| UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(LOOK)).unwrap();
    Worker::start(namespace, move |stop| {
        let mut others = Vec::new();
        let mut octets = [0; 8];
        while !stop.load(Ordering::Relaxed) {
            match socket.recv_from(&mut octets) {
                Ok((_, from)) if may_ask(from) => {
                    let _ = socket.send_to(&octets, from);
                }
                Ok((_, from)) => others.push(from),
                Err(_) => {}
            }
        }
        others
    })
}
