//! The status socket: one line of JSON asks, one JSON value answers. Whoever asks nothing gets the whole state.

use std::{
    net::IpAddr,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use bgp::{
    MalformedPrefix, PeerAction, Prefix,
    driver::{Handle, Stopped},
    mrt,
    report::{Exposition, HappeningsReport, RouteReport, TableReport, speaker_metrics},
    snapshot::TableQuestion,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::{show::Flow, status};

/// How long a reader may take to say what it wants; one that ends its side at once does not wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest question.
const LONGEST: u64 = 4096;

/// How often the speaker is asked what happened.
const PAUSE: Duration = Duration::from_millis(200);

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Request {
    /// Everything; the whole table is among it.
    State,
    /// The same without the table.
    Peers,
    Route {
        prefix: String,
    },
    /// A part of a table.
    Table(TableQuestion),
    /// What happens from now on: a line of JSON each time, until the one who asks goes away.
    Monitor {
        within: Option<Prefix>,
    },
    Mrt,
    Metrics,
    Refresh {
        peer: String,
        out: bool,
    },
    Reset {
        peer: String,
        text: String,
    },
}

/// Serves until aborted.
pub(crate) fn serve(path: &Path, handle: Handle) -> anyhow::Result<()> {
    // Left over from a former run; a live one would have kept us from listening on the BGP port.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        _ => (),
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handle = handle.clone();
            tokio::spawn(async move {
                if let Err(error) = answer(stream, handle).await {
                    tracing::debug!(%error, "a reader of the status went away");
                }
            });
        }
    });
    Ok(())
}

async fn answer(stream: UnixStream, handle: Handle) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read).take(LONGEST);
    let question = timeout(PATIENCE, reader.read_line(&mut line)).await;
    let request = match question {
        Ok(Ok(length)) if length > 0 => serde_json::from_str(&line),
        _ => Ok(Request::State),
    };
    let answer = match request {
        Ok(Request::Monitor { within }) => {
            return Ok(monitor(reader.into_inner(), write, within, &handle).await?);
        }
        Ok(request) => handle_request(request, &handle).await?,
        Err(error) => json!({ "error": format!("no such request: {error}") }),
    };
    write.write_all(format!("{answer:#}\n").as_bytes()).await?;
    write.shutdown().await?;
    Ok(())
}

async fn handle_request(request: Request, handle: &Handle) -> Result<Value, Stopped> {
    Ok(match request {
        Request::State => status::render(&handle.snapshot(true).await?),
        Request::Peers => status::render(&handle.snapshot(false).await?),
        Request::Mrt => {
            let snapshot = handle.snapshot(true).await?;
            #[expect(clippy::disallowed_methods, reason = "the rim: a dump says when it was made")]
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let dump = mrt::table_dump(&snapshot, now);
            let digits: String = dump.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "mrt": digits })
        }
        Request::Metrics => {
            let mut text = Exposition::default();
            speaker_metrics(&handle.snapshot(false).await?, &mut text);
            json!({ "metrics": text.into_text() })
        }
        Request::Route { prefix } => route(&prefix, handle).await?,
        Request::Table(question) => match handle.table(question).await? {
            Some(part) => json!(TableReport::from(&part)),
            None => json!({ "error": "there is no such peer; see `voile-bgpd show peers`" }),
        },
        // It was answered already.
        Request::Monitor { .. } => Value::Null,
        Request::Refresh { peer, out } => {
            let (action, done) = if out {
                (PeerAction::RefreshOut, format!("sending everything to {peer} again"))
            } else {
                (PeerAction::RefreshIn, format!("asked {peer} to send everything again"))
            };
            done_or_error(handle.operate(&peer, action).await?, &done)
        }
        Request::Reset { peer, text } => {
            let done = handle.operate(&peer, PeerAction::Reset { text }).await?;
            done_or_error(done, &format!("reset {peer}"))
        }
    })
}

fn done_or_error(result: Result<(), String>, done: &str) -> Value {
    match result {
        Ok(()) => json!({ "done": done }),
        Err(why) => json!({ "error": format!("{why}; see `voile-bgpd show peers`") }),
    }
}

/// Tells what happens until the one who asked goes away.
async fn monitor(
    mut reader: BufReader<OwnedReadHalf>,
    mut write: OwnedWriteHalf,
    within: Option<Prefix>,
    handle: &Handle,
) -> std::io::Result<()> {
    static MONITORS: AtomicU64 = AtomicU64::new(0);
    let name = format!("socket {}", MONITORS.fetch_add(1, Ordering::Relaxed));
    let mut rest = [0; 64];
    loop {
        let answer = match handle.happenings(&name, within).await {
            Ok(Some(happenings)) => json!(HappeningsReport::from(&happenings)),
            Ok(None) => json!({ "error": "too many look on already; try again in a minute" }),
            Err(stopped) => json!({ "error": stopped.to_string() }),
        };
        let failed = answer.get("error").is_some();
        // Also when nothing happened: so a reader knows that it is heard.
        write.write_all(format!("{answer}\n").as_bytes()).await?;
        if failed {
            return Ok(());
        }
        tokio::select! {
            count = reader.read(&mut rest) => if count? == 0 { return Ok(()) },
            () = tokio::time::sleep(PAUSE) => (),
        }
    }
}

/// Explains a prefix, or the one that an address lies in.
async fn route(destination: &str, handle: &Handle) -> Result<Value, Stopped> {
    let explanation = match (destination.parse::<IpAddr>(), destination.parse()) {
        (Ok(address), _) => handle.explain_address(address).await?,
        (Err(_), Ok(prefix)) => handle.explain(prefix).await?,
        (Err(_), Err(error)) => {
            let error: MalformedPrefix = error;
            return Ok(json!({ "error": error.to_string() }));
        }
    };
    Ok(match explanation {
        Some(explanation) => json!(RouteReport::from(&explanation)),
        None => json!({
            "error": format!("there is no path to {destination}; see `show routes` for what there is")
        }),
    })
}

/// Asks another process.
pub(crate) async fn ask(path: &Path, request: &Request) -> anyhow::Result<Value> {
    let mut stream = connect(path, request).await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    read_answer(&text)
}

/// Asks another process for what happens; ends when it does, or when `take` says that it is enough.
pub(crate) async fn listen(
    path: &Path,
    request: &Request,
    mut take: impl FnMut(&Value) -> anyhow::Result<Flow>,
) -> anyhow::Result<()> {
    let stream = connect(path, request).await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        if let Flow::Enough = take(&read_answer(line.as_bytes())?)? {
            return Ok(());
        }
    }
    bail!("the speaker has stopped");
}

async fn connect(path: &Path, request: &Request) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await.with_context(|| {
        format!(
            "no speaker answers on {}; set status-socket in its file, and --socket here",
            path.display()
        )
    })?;
    let question = serde_json::to_string(request)?;
    stream.write_all(format!("{question}\n").as_bytes()).await?;
    Ok(stream)
}

fn read_answer(text: &[u8]) -> anyhow::Result<Value> {
    let answer: Value = serde_json::from_slice(text).context("the answer is no JSON")?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => bail!("{error}"),
        None => Ok(answer),
    }
}
