//! The status socket: whoever connects gets the whole state as JSON.

use std::{io::Write, path::Path};

use anyhow::Context;
use bgp::driver::Handle;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use crate::status;

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
            tokio::spawn(answer(stream, handle.clone()));
        }
    });
    Ok(())
}

async fn answer(mut stream: UnixStream, handle: Handle) {
    if let Ok(snapshot) = handle.snapshot(true).await {
        let text = format!("{:#}\n", status::render(&snapshot));
        if let Err(error) = stream.write_all(text.as_bytes()).await {
            tracing::debug!(%error, "a reader of the status went away");
        }
    }
}

/// Prints the state of another process.
pub(crate) async fn print(path: &Path) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(path).await.with_context(|| {
        format!("no speaker answers on {}; is status-socket set there?", path.display())
    })?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    std::io::stdout().write_all(&text)?;
    Ok(())
}
