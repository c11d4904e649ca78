//! The shim's end of the socket: blocking, with one deadline for the whole conversation.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    rpc::{self, FrameError, HEADER, Request, Response},
    spec::{CniError, code},
};

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    socket: PathBuf,
    deadline: Instant,
    patience: Duration,
}

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("voile-node does not answer on {}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It took too long.
    #[error("voile-node did not answer on {} within {} s", socket.display(), patience.as_secs())]
    TimedOut {
        /// The socket.
        socket: PathBuf,
        /// How long we waited.
        patience: Duration,
    },
    /// It answered something else.
    #[error("voile-node's answer on {} makes no sense: {reason}", socket.display())]
    Confused {
        /// The socket.
        socket: PathBuf,
        /// What was wrong.
        reason: String,
    },
}

impl From<ClientError> for CniError {
    fn from(error: ClientError) -> Self {
        let details = match &error {
            ClientError::Unreachable { source, .. } => format!(
                "{source}; check that the voile-node pod of this node is running and ready, and that it mounts the \
                 socket's folder from the host"
            ),
            ClientError::TimedOut { .. } => {
                "check voile-node's log on this node: the API server may be slow or away".to_owned()
            }
            ClientError::Confused { .. } => {
                "restart the voile-node pod of this node so that it installs its own voile-cni"
                    .to_owned()
            }
        };
        Self::new(code::TRY_AGAIN, error.to_string(), details)
    }
}

impl Client {
    /// Connects; everything asked on this connection must be answered within `patience` from now.
    pub fn connect(socket: &Path, patience: Duration) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket)
            .map_err(|source| ClientError::Unreachable { socket: socket.to_owned(), source })?;
        Ok(Self { stream, socket: socket.to_owned(), deadline: now() + patience, patience })
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        let frame = rpc::encode_request(request).map_err(|error| self.confused(&error))?;
        self.arm()?;
        self.stream.write_all(&frame).map_err(|error| self.broken(error))?;
        let mut header = [0; HEADER];
        self.read(&mut header)?;
        let length = rpc::frame_length(header).map_err(|error| self.confused(&error))?;
        let mut contents = vec![0; length];
        self.read(&mut contents)?;
        rpc::decode_response(&contents).map_err(|error| self.confused(&error))
    }

    fn read(&mut self, mut into: &mut [u8]) -> Result<(), ClientError> {
        while !into.is_empty() {
            self.arm()?;
            match self.stream.read(into) {
                Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => into = into.get_mut(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    /// Gives the next system call what is left of the time.
    fn arm(&self) -> Result<(), ClientError> {
        let left = self.deadline.saturating_duration_since(now());
        if left.is_zero() {
            return Err(ClientError::TimedOut {
                socket: self.socket.clone(),
                patience: self.patience,
            });
        }
        let armed = self
            .stream
            .set_read_timeout(Some(left))
            .and_then(|()| self.stream.set_write_timeout(Some(left)));
        armed.map_err(|error| self.broken(error))
    }

    fn broken(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::TimedOut { socket, patience: self.patience }
            }
            _ => ClientError::Unreachable { socket, source },
        }
    }

    fn confused(&self, error: &FrameError) -> ClientError {
        ClientError::Confused { socket: self.socket.clone(), reason: error.to_string() }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shim is the driver: nobody above it has a clock"
)]
fn now() -> Instant {
    Instant::now()
}
