//! What must go on while daemons die: TCP streams, numbered datagrams, and connections that stay forbidden.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A thread in a namespace that works until it is told to stop.
pub(crate) struct Worker<T> {
    name: String,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Worker<T> {
    fn start(
        name: String,
        netns: &Path,
        work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
    ) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (stopped, netns) = (Arc::clone(&stop), PathBuf::from(netns));
        let thread = std::thread::spawn(move || {
            kernel::netns::in_netns(&netns, || work(&stopped)).expect("enter the namespace")
        });
        Self { name, stop, thread }
    }

    pub(crate) fn finish(self) -> (String, T) {
        self.stop.store(true, Ordering::Relaxed);
        (self.name, self.thread.join().expect("worker"))
    }
}

/// What became of a TCP stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stream {
    pub(crate) echoed: u64,
    pub(crate) longest_silence: Duration,
}

/// One connection for the whole time: numbers go there and come back, in order.
pub(crate) fn stream(name: &str, netns: &Path, to: SocketAddr) -> Worker<Result<Stream, String>> {
    Worker::start(format!("{name} {to}"), netns, move |stop| {
        converse(to, stop).map_err(|error| format!("{to}: {error}"))
    })
}

fn converse(to: SocketAddr, stop: &AtomicBool) -> std::io::Result<Stream> {
    let mut connection = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(15)))?;
    let mut report = Stream::default();
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        connection.write_all(&report.echoed.to_be_bytes())?;
        let mut octets = [0; 8];
        connection.read_exact(&mut octets)?;
        let number = u64::from_be_bytes(octets);
        if number != report.echoed {
            let text = format!("{number} came instead of {}", report.echoed);
            return Err(std::io::Error::other(text));
        }
        report.echoed += 1;
        report.longest_silence = report.longest_silence.max(sent.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(report)
}

/// What became of a row of datagrams.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    pub(crate) sent: usize,
    /// When those were sent that never came back.
    pub(crate) lost: Vec<Instant>,
}

/// A datagram every 10 ms, echoed by the other end.
pub(crate) fn datagrams(
    name: &str,
    netns: &Path,
    to: SocketAddr,
) -> Worker<std::io::Result<Datagrams>> {
    Worker::start(format!("{name} {to}"), netns, move |stop| count(to, stop))
}

fn count(to: SocketAddr, stop: &AtomicBool) -> std::io::Result<Datagrams> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    let mut open: Vec<Option<Instant>> = Vec::new();
    let mut end = None;
    loop {
        let now = Instant::now();
        if stop.load(Ordering::Relaxed) {
            // What is under way may still arrive.
            let end = *end.get_or_insert(now + Duration::from_secs(2));
            if now >= end || open.iter().all(Option::is_none) {
                break;
            }
        } else {
            let number = u64::try_from(open.len()).unwrap_or(u64::MAX);
            open.push(Some(now));
            // No route or a refused port counts as a loss; the others go on.
            drop(socket.send(&number.to_be_bytes()));
        }
        let next = now + Duration::from_millis(10);
        while Instant::now() < next {
            let mut octets = [0; 8];
            match socket.recv(&mut octets) {
                Ok(8) => {
                    let number = usize::try_from(u64::from_be_bytes(octets)).unwrap_or(usize::MAX);
                    if let Some(slot) = open.get_mut(number) {
                        *slot = None;
                    }
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
    Ok(Datagrams { sent: open.len(), lost: open.into_iter().flatten().collect() })
}

/// What became of forbidden connections.
#[derive(Debug, Default)]
pub(crate) struct Forbidden {
    pub(crate) tried: u64,
    /// When one came through.
    pub(crate) through: Vec<Instant>,
}

/// Tries a connection that policy forbids, again and again.
pub(crate) fn forbidden(name: &str, netns: &Path, to: SocketAddr) -> Worker<Forbidden> {
    Worker::start(format!("{name} {to}"), netns, move |stop| {
        let mut report = Forbidden::default();
        while !stop.load(Ordering::Relaxed) {
            report.tried += 1;
            if TcpStream::connect_timeout(&to, Duration::from_millis(150)).is_ok() {
                report.through.push(Instant::now());
            }
        }
        report
    })
}
