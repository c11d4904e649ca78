//! A watch response: one JSON event per line.

use std::collections::VecDeque;
use std::time::Duration;

use api::Resource;
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;
use serde_json::Value;

use super::error::{Failure, Status, Target};
use crate::{Revision, StoreError, WatchEvent, WatchStream, stored};

/// Turns the body of a watch response into events. The stream ends when the server closes it, after an error, or when
/// `patience` has passed (the server was asked to close it earlier than that).
pub(super) fn events<R: Resource>(
    body: Body,
    target: Target,
    patience: Duration,
) -> WatchStream<R> {
    let lines = Lines {
        chunks: Box::pin(body.into_data_stream()),
        buffer: Vec::new(),
        ready: VecDeque::new(),
    };
    let deadline = tokio::time::Instant::now() + patience;
    let state = Some((lines, target));
    Box::pin(stream::unfold(state, move |state| async move {
        let (mut lines, target) = state?;
        let line = tokio::time::timeout_at(deadline, lines.next()).await.ok()??;
        let event = line.and_then(|line| event(&line, &target));
        let rest = event.is_ok().then_some((lines, target));
        Some((event, rest))
    }))
}

struct Lines<S> {
    chunks: S,
    buffer: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
}

impl<S, B, E> Lines<S>
where
    S: futures::Stream<Item = Result<B, E>> + Unpin,
    B: AsRef<[u8]>,
    E: std::error::Error,
{
    async fn next(&mut self) -> Option<Result<Vec<u8>, StoreError>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            match self.chunks.next().await? {
                Ok(chunk) => self.push(chunk.as_ref()),
                Err(error) => {
                    let message = format!("watch broke off: {error}");
                    return Some(Err(StoreError::Unavailable { message }));
                }
            }
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        let mut parts = chunk.split(|byte| *byte == b'\n');
        // What follows the last newline is the beginning of the next line.
        self.buffer.extend_from_slice(parts.next().unwrap_or_default());
        for part in parts {
            let line = std::mem::replace(&mut self.buffer, part.to_vec());
            if !line.iter().all(u8::is_ascii_whitespace) {
                self.ready.push_back(line);
            }
        }
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    event: String,
    object: Value,
}

fn event<R: Resource>(line: &[u8], target: &Target) -> Result<WatchEvent<R>, StoreError> {
    let line: Line = serde_json::from_slice(line).map_err(|error| StoreError::Unavailable {
        message: format!("watch event is not JSON: {error}"),
    })?;
    if line.event == "ERROR" {
        let status = serde_json::from_value::<Status>(line.object).unwrap_or_default();
        return Err(Failure::from_status(status).into_store_error(target));
    }
    if line.event == "BOOKMARK" {
        let revision = line.object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        return Ok(WatchEvent::Bookmark(Revision::new(revision.unwrap_or_default())));
    }
    let (key, is_gone) = (stored::raw_key(&line.object), line.event == "DELETED");
    Ok(match super::parse(line.object) {
        Ok(object) if is_gone => WatchEvent::Deleted(object),
        Ok(object) => WatchEvent::Applied(object),
        Err(error) => WatchEvent::Malformed { key, is_gone, message: error.to_string() },
    })
}
