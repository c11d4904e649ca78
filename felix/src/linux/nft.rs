//! The nf_tables socket: commit a batch, read our table back.

use std::{io, time::Duration};

use super::{
    encode::{Encoded, encode},
    socket::{Socket, finished},
    uapi::{NLMSG_ERROR, msg},
    wire::{Messages, fixed},
};
use crate::nft::{Batch, Op, text};

/// Why a transaction was not committed. Nothing of it is in the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Someone else committed since the generation this batch was made for.
    #[error("nf_tables changed since generation {0}: read it again and retry")]
    Stale(u32),
    /// The kernel refused steps of the batch.
    #[error("kernel refused {}", list(.0))]
    Refused(Vec<Refusal>),
    /// The socket failed.
    #[error("nf_tables socket: {0}")]
    Socket(#[from] io::Error),
}

/// One step the kernel refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Index of the step in the batch; `None` when the batch as a whole was refused (a loop, too many jumps).
    pub op: Option<usize>,
    /// What the step was, in words.
    pub what: String,
    /// The kernel's errno.
    pub errno: i32,
}

fn list(refusals: &[Refusal]) -> String {
    let shown = refusals.iter().take(3).map(|refusal| {
        format!("to {}: {}", refusal.what, io::Error::from_raw_os_error(refusal.errno))
    });
    let mut text = shown.collect::<Vec<_>>().join("; ");
    if refusals.len() > 3 {
        text.push_str(&format!("; and {} more", refusals.len() - 3));
    }
    text
}

/// A committed transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Commit {
    /// Generation of the ruleset after it.
    pub generation: u32,
    /// Messages sent.
    pub messages: usize,
    /// Octets sent.
    pub bytes: usize,
}

/// Access to nf_tables in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Nft {
    pub(super) socket: Socket,
    generation: Option<u32>,
}

impl Nft {
    /// Opens a socket; needs CAP_NET_ADMIN in the namespace for anything beyond reading.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(true)?, generation: None })
    }

    /// The port that notifications of our own changes carry.
    #[must_use]
    pub const fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Asks the kernel for the generation of the whole ruleset.
    pub fn generation(&mut self) -> io::Result<u32> {
        let read = self.socket.ask(msg::GETGEN, |_| {}, |message| message.attrs().be32(1))?;
        read.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// Takes the current generation as the one we know: whatever others did up to now has been looked at.
    pub fn refresh(&mut self) -> io::Result<u32> {
        let generation = self.generation()?;
        self.generation = Some(generation);
        Ok(generation)
    }

    /// Commits all steps at once, or none.
    pub fn commit(&mut self, batch: &Batch) -> Result<Commit, CommitError> {
        let before = match self.generation {
            Some(known) => known,
            None => self.refresh()?,
        };
        let encoded = self.encode(batch, before);
        self.socket.send(&encoded.bytes)?;
        // The kernel works while we send: when send returns, every answer is already queued.
        let outcome = self.answers(batch, &encoded);
        match outcome {
            Ok(true) => {}
            Ok(false) => self.check_generation(before)?,
            Err(CommitError::Socket(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.check_generation(before)?;
            }
            Err(error) => {
                self.generation = None;
                return Err(error);
            }
        }
        // The kernel skips zero when it counts.
        let generation = before.wrapping_add(1).max(1);
        self.generation = Some(generation);
        Ok(Commit { generation, messages: encoded.messages(), bytes: encoded.len() })
    }

    fn encode(&mut self, batch: &Batch, generation: u32) -> Encoded {
        let first = self.socket.reserve(0);
        let encoded = encode(batch, generation, first);
        self.socket.reserve(u32::try_from(encoded.messages()).unwrap_or(u32::MAX));
        encoded
    }

    /// Answers were lost: whether the generation moved says whether the batch was committed.
    fn check_generation(&mut self, before: u32) -> Result<(), CommitError> {
        let now = self.generation()?;
        if now == before { Err(CommitError::Stale(before)) } else { Ok(()) }
    }

    /// Reads all answers; true when the last message was acknowledged.
    fn answers(&mut self, batch: &Batch, encoded: &Encoded) -> Result<bool, CommitError> {
        let mut acknowledged = false;
        let mut refusals = Vec::new();
        while let Some(datagram) = self.socket.receive_now()? {
            for message in Messages(datagram).filter(|message| message.kind == NLMSG_ERROR) {
                // The header of the message meant follows the code.
                let seq = fixed(message.body, 12).map_or(message.seq, u32::from_ne_bytes);
                match finished(&message) {
                    Some(Ok(())) => acknowledged |= seq == encoded.last_seq(),
                    Some(Err(error)) => {
                        let errno = error.raw_os_error().unwrap_or(0);
                        if errno == libc::ERESTART && seq == encoded.first_seq() {
                            return Err(CommitError::Stale(self.generation.unwrap_or(0)));
                        }
                        refusals.push(refusal(batch, encoded, seq, errno));
                    }
                    None => {}
                }
            }
        }
        if refusals.is_empty() { Ok(acknowledged) } else { Err(CommitError::Refused(refusals)) }
    }
}

fn refusal(batch: &Batch, encoded: &Encoded, seq: u32, errno: i32) -> Refusal {
    let Some((index, part)) = encoded.origin(seq) else {
        let what = "validate the ruleset (jumps too deep, or a loop)".to_owned();
        return Refusal { op: None, what, errno };
    };
    let what = batch.ops.get(index).map_or_else(String::new, |op| {
        let subject = format!("{} {}", op.verb(), op.subject());
        match op {
            Op::AddRules(chain) => {
                let rule = chain.rules.get(part).map(text::rule).unwrap_or_default();
                format!("{subject}, rule {part} `{rule}`")
            }
            _ => subject,
        }
    });
    Refusal { op: Some(index), what, errno }
}

/// How long to wait before asking again after a dump that raced with a commit.
pub(super) const DUMP_RETRY: Duration = Duration::from_millis(5);
