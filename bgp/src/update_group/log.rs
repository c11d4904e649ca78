//! The log of a group: encoded messages that members take at their own pace.
//!
//! Messages for the same audience lie one behind the other in one buffer, so that a member hands kilobytes to the
//! kernel and not messages.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::rib::PeerId;

/// Buffers are made in this size.
const CHUNK: usize = 64 << 10;
/// Room for a message of the usual limit.
const ROOM: usize = 4096;

/// Who gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Audience {
    All,
    Except(PeerId),
    Only(PeerId),
}

impl Audience {
    pub(super) fn includes(self, peer: PeerId) -> bool {
        match self {
            Self::All => true,
            Self::Except(other) => peer != other,
            Self::Only(only) => peer == only,
        }
    }
}

/// Messages for one audience.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) bytes: Bytes,
    pub(super) messages: u32,
    pub(super) audience: Audience,
}

/// Segments that some member has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Log {
    segments: VecDeque<Segment>,
    /// Number of the first of them.
    start: u64,
    bytes: usize,
    writer: Writer,
}

/// Collects messages into segments.
#[derive(Debug, Default)]
pub(super) struct Writer {
    buffer: BytesMut,
    open: Option<(Audience, u32)>,
    done: Vec<Segment>,
}

impl Writer {
    /// Appends what `write` writes; it returns how many messages.
    pub(super) fn write(&mut self, audience: Audience, write: impl FnOnce(&mut BytesMut) -> u32) {
        if self.open.is_some_and(|(other, _)| other != audience) || self.room() < ROOM {
            self.seal();
        }
        if self.room() < ROOM {
            self.buffer = BytesMut::with_capacity(CHUNK);
        }
        let before = self.open.map_or(0, |(_, messages)| messages);
        let messages = before.saturating_add(write(&mut self.buffer));
        self.open = (messages > 0).then_some((audience, messages));
    }

    fn room(&self) -> usize {
        self.buffer.capacity().saturating_sub(self.buffer.len())
    }

    fn seal(&mut self) {
        if let Some((audience, messages)) = self.open.take() {
            let bytes = self.buffer.split().freeze();
            self.done.push(Segment { bytes, messages, audience });
        }
    }

    /// Returns the finished segments.
    pub(super) fn finish(&mut self) -> Vec<Segment> {
        self.seal();
        std::mem::take(&mut self.done)
    }
}

impl Log {
    /// Returns the number of the next segment.
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(u64::try_from(self.segments.len()).unwrap_or(u64::MAX))
    }

    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes
    }

    pub(super) const fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Makes what was written available; returns whether there was something.
    pub(super) fn commit(&mut self) -> bool {
        let done = self.writer.finish();
        for segment in &done {
            self.bytes = self.bytes.saturating_add(segment.bytes.len());
        }
        let any = !done.is_empty();
        self.segments.extend(done);
        any
    }

    /// Returns a segment.
    pub(super) fn get(&self, number: u64) -> Option<&Segment> {
        let index = usize::try_from(number.checked_sub(self.start)?).ok()?;
        self.segments.get(index)
    }

    /// Forgets everything before this number.
    pub(super) fn trim(&mut self, needed: u64) {
        while self.start < needed
            && let Some(segment) = self.segments.pop_front()
        {
            self.start = self.start.saturating_add(1);
            self.bytes = self.bytes.saturating_sub(segment.bytes.len());
        }
    }
}
