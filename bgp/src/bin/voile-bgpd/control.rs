//! The status socket: one line of JSON asks, one JSON value answers. Whoever asks nothing gets the whole state.

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use bgp::{
    MalformedPrefix,
    driver::{Handle, Stopped},
    mrt,
    report::RouteReport,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::status;

/// How long a reader may take to say what it wants; one that ends its side at once does not wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest question.
const LONGEST: u64 = 4096;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Request {
    State,
    Route { prefix: String },
    Mrt,
    Refresh { peer: String },
    Reset { peer: String, text: String },
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
        Request::Mrt => {
            let snapshot = handle.snapshot(true).await?;
            #[expect(clippy::disallowed_methods, reason = "the rim: a dump says when it was made")]
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let dump = mrt::table_dump(&snapshot, now);
            let digits: String = dump.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "mrt": digits })
        }
        Request::Route { prefix } => route(&prefix, handle).await?,
        Request::Refresh { peer } => match handle.refresh(&peer).await? {
            true => json!({ "done": format!("asked {peer} to send everything again") }),
            false => json!({
                "error": format!("no session with '{peer}' that could be refreshed; see `show peers`")
            }),
        },
        Request::Reset { peer, text } => match handle.reset(&peer, &text).await? {
            true => json!({ "done": format!("reset {peer}") }),
            false => json!({ "error": format!("there is no peer '{peer}'; see `show peers`") }),
        },
    })
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
    let mut stream = UnixStream::connect(path).await.with_context(|| {
        format!(
            "no speaker answers on {}; set status-socket in its file, and --socket here",
            path.display()
        )
    })?;
    let question = serde_json::to_string(request)?;
    stream.write_all(format!("{question}\n").as_bytes()).await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    let answer: Value = serde_json::from_slice(&text).context("the answer is no JSON")?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => bail!("{error}"),
        None => Ok(answer),
    }
}
