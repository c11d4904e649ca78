//! Connections to collectors of BMP: a task for each, which asks the speaker for messages and never makes it wait.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::handle::Command;
use crate::{
    Speaker,
    bmp::{Collector, Taken},
};

/// Bytes asked of the speaker at once.
const TAKE: usize = 256 << 10;
/// How long a collector may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to read our last message.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long it may take nothing of what waits: then it counts as dead, and is connected to anew.
const STALLED: Duration = Duration::from_secs(90);
/// Longest wait between attempts (RFC 7854 §3.2).
const LONGEST_WAIT: Duration = Duration::from_secs(720);

/// What a collector's task asks for.
#[derive(Debug)]
pub(super) enum Question {
    /// It is connected; wall time since 1970.
    Connected(Duration),
    /// About so many bytes.
    Take(usize, oneshot::Sender<Taken>),
    Statistics,
    Closed,
}

#[derive(Debug)]
struct Sink {
    collector: Collector,
    ready: Arc<Notify>,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

/// All collectors.
#[derive(Debug)]
pub(super) struct Sinks {
    commands: mpsc::WeakUnboundedSender<Command>,
    sinks: BTreeMap<String, Sink>,
}

impl Sinks {
    pub(super) const fn new(commands: mpsc::WeakUnboundedSender<Command>) -> Self {
        Self { commands, sinks: BTreeMap::new() }
    }

    /// Starts and stops tasks as the configuration wants it.
    pub(super) fn configure(&mut self, collectors: &[Collector]) {
        self.sinks.retain(|_, sink| {
            let wanted = collectors.contains(&sink.collector);
            if !wanted {
                sink.stop.notify_one();
            }
            wanted
        });
        for collector in collectors {
            if self.sinks.contains_key(&collector.address) {
                continue;
            }
            let (ready, stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let talk = Talk {
                collector: collector.clone(),
                commands: self.commands.clone(),
                ready: Arc::clone(&ready),
                stop: Arc::clone(&stop),
            };
            let (collector, task) = (collector.clone(), tokio::spawn(talk.run()));
            self.sinks.insert(collector.address.clone(), Sink { collector, ready, stop, task });
        }
    }

    pub(super) fn ready(&self, collector: &str) {
        if let Some(sink) = self.sinks.get(collector) {
            sink.ready.notify_one();
        }
    }

    /// Says goodbye to all.
    pub(super) async fn stop(self) {
        for sink in self.sinks.values() {
            sink.stop.notify_one();
        }
        for (_, mut sink) in self.sinks {
            if timeout(FAREWELL, &mut sink.task).await.is_err() {
                sink.task.abort();
            }
        }
    }
}

/// The speaker has stopped, or wants no more of this collector.
struct Over;

struct Talk {
    collector: Collector,
    commands: mpsc::WeakUnboundedSender<Command>,
    ready: Arc<Notify>,
    stop: Arc<Notify>,
}

impl Talk {
    /// Connects again and again, with growing pauses.
    async fn run(self) {
        let address = self.collector.address.as_str();
        let mut wait = self.collector.retry;
        loop {
            let connected = tokio::select! {
                connected = timeout(PATIENCE, TcpStream::connect(address)) => connected,
                () = self.stop.notified() => return,
            };
            let reason = match connected {
                Ok(Ok(stream)) => {
                    tracing::info!(collector = %address, "BMP connected");
                    wait = self.collector.retry;
                    let Ok(reason) = self.feed(stream).await else { return };
                    reason
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            tracing::warn!(collector = %address, %reason, again_in = ?wait, "no BMP connection");
            if self.ask(Question::Closed).is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => (),
                () = self.stop.notified() => return,
            }
            wait = wait.saturating_mul(2).min(LONGEST_WAIT);
        }
    }

    fn ask(&self, question: Question) -> Result<(), Over> {
        let commands = self.commands.upgrade().ok_or(Over)?;
        let address = self.collector.address.clone();
        commands.send(Command::Bmp(address, question)).map_err(|_| Over)
    }

    /// Feeds the collector until it is gone; says why.
    async fn feed(&self, stream: TcpStream) -> Result<String, Over> {
        let (mut reader, mut writer) = stream.into_split();
        // Whether a message is on its way.
        let mut midway = false;
        let reason = tokio::select! {
            reason = self.talk(&mut reader, &mut writer, &mut midway) => reason,
            () = self.stop.notified() => Err(Over),
        };
        if reason.is_err() && !midway {
            farewell(&mut writer).await;
        }
        reason
    }

    async fn talk(
        &self,
        reader: &mut OwnedReadHalf,
        writer: &mut OwnedWriteHalf,
        midway: &mut bool,
    ) -> Result<String, Over> {
        #[expect(clippy::disallowed_methods, reason = "the rim: a collector hears the wall time")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.ask(Question::Connected(since_epoch))?;
        let mut statistics = self.collector.statistics.map(tokio::time::interval);
        loop {
            let (reply, answer) = oneshot::channel();
            self.ask(Question::Take(TAKE, reply))?;
            let messages = match answer.await.map_err(|_| Over)? {
                Taken::Messages(messages) => messages,
                Taken::TooSlow => return Ok("the collector does not keep up".to_owned()),
            };
            if messages.is_empty() {
                tokio::select! {
                    () = self.ready.notified() => (),
                    () = tick(statistics.as_mut()) => self.ask(Question::Statistics)?,
                    reason = gone(reader) => return Ok(reason),
                }
                continue;
            }
            *midway = true;
            if let Err(reason) = write(writer, &messages.concat()).await {
                return Ok(reason);
            }
            *midway = false;
        }
    }
}

/// Writes everything, as long as the collector takes something now and then.
async fn write(writer: &mut OwnedWriteHalf, mut bytes: &[u8]) -> Result<(), String> {
    while !bytes.is_empty() {
        match timeout(STALLED, writer.write(bytes)).await {
            Ok(Ok(count)) => bytes = bytes.get(count..).unwrap_or_default(),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the collector reads nothing".to_owned()),
        }
    }
    Ok(())
}

async fn tick(interval: Option<&mut tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// Waits for the end: collectors have nothing to say (RFC 7854 §3.2).
async fn gone(reader: &mut OwnedReadHalf) -> String {
    let mut buffer = [0; 512];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return "the collector closed the connection".to_owned(),
            Ok(_) => (),
            Err(error) => return error.to_string(),
        }
    }
}

async fn farewell(writer: &mut OwnedWriteHalf) {
    let last = Speaker::bmp_farewell();
    let said = async {
        writer.write_all(&last).await?;
        writer.shutdown().await
    };
    // Nothing depends on it.
    let _ = timeout(FAREWELL, said).await;
}
