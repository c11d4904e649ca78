//! A numbered TCP stream between two pods: what is echoed must come back complete, in order, and without long silence.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{interval, timeout},
};

use crate::procfs::now;

const PACE: Duration = Duration::from_millis(2);
/// A stream that is silent for longer is broken.
const SILENCE: Duration = Duration::from_secs(20);

/// A running stream.
#[derive(Debug)]
pub(super) struct Stream {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Report>>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    /// Numbers sent.
    pub(super) sent: u64,
    /// Numbers that came back in order.
    pub(super) echoed: u64,
    /// Longest time without an echo.
    pub(super) longest_silence: Duration,
}

impl Stream {
    /// Connects from a namespace and begins.
    pub(super) fn start(netns: PathBuf, to: SocketAddr) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("stream".into()).spawn(move || {
            kernel::netns::in_netns(netns, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(converse(to, &stopped))
            })?
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends the stream, waits for what is still under way, and returns the report.
    pub(super) fn finish(self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the stream's thread died"))?
    }
}

async fn converse(to: SocketAddr, stop: &AtomicBool) -> Result<Report> {
    let connected = timeout(Duration::from_secs(3), TcpStream::connect(to)).await;
    let stream = connected.context("timeout").and_then(|stream| Ok(stream?));
    let stream = stream.with_context(|| format!("no connection to {to}"))?;
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    let sender = async {
        let mut pace = interval(PACE);
        let mut sent = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            pace.tick().await;
            writer.write_all(&sent.to_be_bytes()).await?;
            sent += 1;
        }
        writer.shutdown().await?;
        anyhow::Ok(sent)
    };
    let receiver = async {
        let mut last: Instant = now();
        let mut longest = Duration::ZERO;
        let mut expected = 0_u64;
        let mut buffer = [0; 8];
        loop {
            let read = timeout(SILENCE, reader.read_exact(&mut buffer)).await;
            let read = read.with_context(|| format!("silent after number {expected}"))?;
            match read {
                Ok(_) => (),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error).context("stream"),
            }
            let number = u64::from_be_bytes(buffer);
            anyhow::ensure!(number == expected, "number {number} came instead of {expected}");
            expected += 1;
            longest = longest.max(last.elapsed());
            last = now();
        }
        Ok((expected, longest))
    };
    let (sent, (echoed, longest_silence)) = futures::future::try_join(sender, receiver).await?;
    anyhow::ensure!(sent == echoed, "{sent} numbers sent, {echoed} came back");
    Ok(Report { sent, echoed, longest_silence })
}
