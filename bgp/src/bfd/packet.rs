//! BFD control packets (RFC 5880 §4.1), without authentication.

use std::{fmt, time::Duration};

use crate::wire::Reader;

/// Length of a packet without authentication.
pub const LENGTH: usize = 24;
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// State of a BFD session (RFC 5880 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Held down by the operator.
    AdminDown,
    /// Nothing heard, or the other side does not hear us.
    Down,
    /// We hear the other side.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    const fn number(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

/// Why a session changed its state last (RFC 5880 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// Nothing happened.
    pub const NONE: Self = Self(0);
    /// Nothing was heard for the detection time.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// The other side said that it is down.
    pub const NEIGHBOUR_DOWN: Self = Self(3);
    /// The operator.
    pub const ADMIN_DOWN: Self = Self(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbour signalled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            other => return write!(f, "diagnostic {other}"),
        })
    }
}

/// A control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender changed its state last.
    pub diagnostic: Diagnostic,
    /// State of the sender.
    pub state: State,
    /// The sender wants an answer now.
    pub poll: bool,
    /// This is the answer.
    pub is_final: bool,
    /// C: the sender's BFD does not end with its control plane.
    pub control_plane_independent: bool,
    /// D: the sender wants no periodic packets while both are Up.
    pub demand: bool,
    /// Packets that may be missed.
    pub detect_multiplier: u8,
    /// Names the session at the sender.
    pub my_discriminator: u32,
    /// Names it at the receiver; 0 as long as the sender does not know.
    pub your_discriminator: u32,
    /// How often the sender would like to send.
    pub desired_min_tx: Duration,
    /// How often the sender can receive; zero: never.
    pub required_min_rx: Duration,
}

/// Not a packet for us (RFC 5880 §6.8.6): to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable BFD packet: {0}")]
pub struct Malformed(&'static str);

impl Packet {
    /// Reads a packet and applies the checks that need no session.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let short = |_| Malformed("too short");
        let mut reader = Reader::new(bytes);
        let [head, flags, detect_multiplier, length] = reader.array::<4>().map_err(short)?;
        if head >> 5 != VERSION {
            return Err(Malformed("version is not 1"));
        }
        if usize::from(length) < LENGTH || usize::from(length) > bytes.len() {
            return Err(Malformed("length does not fit"));
        }
        if detect_multiplier == 0 {
            return Err(Malformed("detection multiplier is 0"));
        }
        if flags & MULTIPOINT != 0 {
            return Err(Malformed("multipoint"));
        }
        if flags & AUTHENTICATION != 0 {
            return Err(Malformed("authenticated, but none is configured"));
        }
        let my_discriminator = reader.u32().map_err(short)?;
        let your_discriminator = reader.u32().map_err(short)?;
        let microseconds = |value: u32| Duration::from_micros(u64::from(value));
        let desired_min_tx = microseconds(reader.u32().map_err(short)?);
        let required_min_rx = microseconds(reader.u32().map_err(short)?);
        let state = State::from_number(flags >> 6);
        if my_discriminator == 0 {
            return Err(Malformed("its own discriminator is 0"));
        }
        if your_discriminator == 0 && !matches!(state, State::Down | State::AdminDown) {
            return Err(Malformed("our discriminator is 0"));
        }
        Ok(Self {
            diagnostic: Diagnostic(head & 0x1f),
            state,
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            detect_multiplier,
            my_discriminator,
            your_discriminator,
            desired_min_tx,
            required_min_rx,
        })
    }

    /// Returns the bytes.
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut flags = self.state.number() << 6;
        for (set, flag) in [
            (self.poll, POLL),
            (self.is_final, FINAL),
            (self.control_plane_independent, CONTROL_PLANE_INDEPENDENT),
            (self.demand, DEMAND),
        ] {
            if set {
                flags |= flag;
            }
        }
        let microseconds = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let words = [
            u32::from_be_bytes([
                VERSION << 5 | self.diagnostic.0 & 0x1f,
                flags,
                self.detect_multiplier,
                24,
            ]),
            self.my_discriminator,
            self.your_discriminator,
            microseconds(self.desired_min_tx),
            microseconds(self.required_min_rx),
            // No echo function.
            0,
        ];
        let mut out = [0; LENGTH];
        for (place, byte) in out.iter_mut().zip(words.into_iter().flat_map(u32::to_be_bytes)) {
            *place = byte;
        }
        out
    }
}
