//! One BFD session in asynchronous mode (RFC 5880 §6.8) as a value: packets and time go in, packets and changes of state
//! come out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Diagnostic, Packet, State};
use crate::random::Random;

/// Shortest interval while the session is not Up (RFC 5880 §6.8.3).
const SLOW: Duration = Duration::from_secs(1);

/// How often packets are sent and may be missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timing {
    /// How often we would like to send.
    pub desired_min_tx: Duration,
    /// How often we can receive.
    pub required_min_rx: Duration,
    /// Packets in a row that may be missed, less one; at least 1.
    pub detect_multiplier: u8,
}

impl Default for Timing {
    fn default() -> Self {
        let interval = Duration::from_millis(300);
        Self { desired_min_tx: interval, required_min_rx: interval, detect_multiplier: 3 }
    }
}

/// A session changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: State,
    /// Now.
    pub to: State,
    /// Why.
    pub diagnostic: Diagnostic,
    /// The other side was told to go down by its operator: says nothing about the path (RFC 5882 §4.2).
    pub administrative: bool,
    /// C: the other side's BFD does not end with its control plane (RFC 5882 §4.3).
    pub control_plane_independent: bool,
}

/// A session.
#[derive(Debug)]
pub struct Machine {
    timing: Timing,
    random: Random,
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    /// The intervals that count; those of `timing` do once the other side knows them.
    tx_in_force: Duration,
    rx_in_force: Duration,
    polling: bool,
    next_tx: Option<Instant>,
    detect_at: Option<Instant>,
    packets: VecDeque<Packet>,
    changes: VecDeque<Change>,
}

/// What the other side said last.
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: u32,
    state: State,
    min_rx: Duration,
    desired_tx: Duration,
    detect_multiplier: u8,
    demand: bool,
    control_plane_independent: bool,
}

impl Remote {
    /// RFC 5880 §6.8.1.
    const UNKNOWN: Self = Self {
        discriminator: 0,
        state: State::Down,
        min_rx: Duration::from_micros(1),
        desired_tx: Duration::ZERO,
        detect_multiplier: 0,
        demand: false,
        control_plane_independent: false,
    };
}

impl Machine {
    /// Begins to send. The discriminator is not 0 and unique among our sessions; `seed` feeds jitter.
    pub fn new(timing: Timing, discriminator: u32, seed: u64, now: Instant) -> Self {
        Self {
            timing,
            random: Random::new(seed),
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: Remote::UNKNOWN,
            tx_in_force: timing.desired_min_tx.max(SLOW),
            rx_in_force: timing.required_min_rx,
            polling: false,
            next_tx: Some(now),
            detect_at: None,
            packets: VecDeque::new(),
            changes: VecDeque::new(),
        }
    }

    /// Returns the state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Returns the number that names the session here.
    pub const fn discriminator(&self) -> u32 {
        self.discriminator
    }

    /// Returns how long silence lasts before the session is down (RFC 5880 §6.8.4).
    pub fn detection_time(&self) -> Duration {
        let interval = self.rx_in_force.max(self.remote.desired_tx);
        interval.saturating_mul(u32::from(self.remote.detect_multiplier))
    }

    /// A packet that names this session, or that comes from its address and names none.
    pub fn handle_packet(&mut self, packet: &Packet, now: Instant) {
        if self.state == State::AdminDown {
            return;
        }
        self.remote = Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            min_rx: packet.required_min_rx,
            desired_tx: packet.desired_min_tx,
            detect_multiplier: packet.detect_multiplier,
            demand: packet.demand,
            control_plane_independent: packet.control_plane_independent,
        };
        if packet.is_final && self.polling {
            self.polling = false;
            self.adopt_intervals();
        }
        let to = match (self.state, packet.state) {
            (State::Down, State::Down) => State::Init,
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => State::Up,
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => State::Down,
            (state, _) => state,
        };
        let diagnostic = match to {
            State::Down => Diagnostic::NEIGHBOUR_DOWN,
            _ => Diagnostic::NONE,
        };
        self.enter(to, diagnostic, now);
        self.detect_at = Some(now + self.detection_time());
        if packet.poll {
            // RFC 5880 §6.8.7: at once, whatever the interval.
            let answer = Packet { poll: false, is_final: true, ..self.packet() };
            self.packets.push_back(answer);
        }
        self.hasten(now);
    }

    /// Changes the intervals of a running session.
    pub fn set_timing(&mut self, timing: Timing, now: Instant) {
        if self.timing == timing {
            return;
        }
        self.timing = timing;
        if self.state == State::Up {
            // RFC 5880 §6.8.3: what makes us slower waits until the other side knows.
            self.tx_in_force = self.tx_in_force.min(timing.desired_min_tx);
            self.rx_in_force = self.rx_in_force.max(timing.required_min_rx);
            self.polling = true;
        } else {
            self.adopt_intervals();
        }
        self.hasten(now);
    }

    /// Tells the other side that the session ends on purpose; it must not take that for a failure.
    pub fn shut_down(&mut self, now: Instant) {
        self.enter(State::AdminDown, Diagnostic::ADMIN_DOWN, now);
        self.detect_at = None;
        self.next_tx = None;
        self.packets.push_back(self.packet());
    }

    /// Returns when [`Machine::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.next_tx, self.detect_at].into_iter().flatten().min()
    }

    /// Says whether the other side has been silent for too long.
    pub fn is_expiring(&self, now: Instant) -> bool {
        self.detect_at.is_some_and(|at| at <= now)
    }

    /// Fires what is due; early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.detect_at.is_some_and(|at| at <= now) {
            self.detect_at = None;
            let state = self.state;
            // RFC 5880 §6.8.1: it may have restarted and would not know the number.
            self.remote = Remote {
                control_plane_independent: self.remote.control_plane_independent,
                ..Remote::UNKNOWN
            };
            if matches!(state, State::Init | State::Up) {
                self.enter(State::Down, Diagnostic::DETECTION_TIME_EXPIRED, now);
            }
        }
        if self.next_tx.is_some_and(|at| at <= now) {
            if self.may_send() {
                self.packets.push_back(self.packet());
            }
            self.next_tx = Some(now + self.jittered());
        }
    }

    /// Takes a packet to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Packet> {
        self.packets.pop_front()
    }

    /// Takes a change of state.
    #[must_use]
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    fn enter(&mut self, to: State, diagnostic: Diagnostic, now: Instant) {
        let from = self.state;
        if from == to {
            return;
        }
        self.state = to;
        self.diagnostic = diagnostic;
        match to {
            State::Up => {
                // From the slow interval to the wanted one.
                self.adopt_intervals();
                self.polling = true;
            }
            _ => {
                self.polling = false;
                self.tx_in_force = self.timing.desired_min_tx.max(SLOW);
                self.rx_in_force = self.timing.required_min_rx;
            }
        }
        self.next_tx = Some(now);
        self.changes.push_back(Change {
            from,
            to,
            diagnostic,
            administrative: self.remote.state == State::AdminDown || to == State::AdminDown,
            control_plane_independent: self.remote.control_plane_independent,
        });
    }

    fn adopt_intervals(&mut self) {
        let slowest = if self.state == State::Up { Duration::ZERO } else { SLOW };
        self.tx_in_force = self.timing.desired_min_tx.max(slowest);
        self.rx_in_force = self.timing.required_min_rx;
    }

    /// RFC 5880 §6.8.7.
    fn may_send(&self) -> bool {
        let both_up = self.state == State::Up && self.remote.state == State::Up;
        let asked_not_to = self.remote.demand && both_up && !self.polling;
        !self.remote.min_rx.is_zero() && !asked_not_to
    }

    fn packet(&self) -> Packet {
        let slowest = if self.state == State::Up { Duration::ZERO } else { SLOW };
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.polling,
            is_final: false,
            // The daemon is one process: its BFD ends with it.
            control_plane_independent: false,
            demand: false,
            detect_multiplier: self.timing.detect_multiplier.max(1),
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.timing.desired_min_tx.max(slowest),
            required_min_rx: self.timing.required_min_rx,
        }
    }

    fn interval(&self) -> Duration {
        self.tx_in_force.max(self.remote.min_rx)
    }

    /// RFC 5880 §6.8.7: up to 25 % less, and at least 10 % when a single packet must not be missed.
    fn jittered(&mut self) -> Duration {
        let interval = self.interval();
        let least = interval.mul_f64(0.75);
        let most =
            if self.timing.detect_multiplier <= 1 { interval.mul_f64(0.9) } else { interval };
        least + self.random.up_to(most.saturating_sub(least))
    }

    /// A shorter interval takes effect at once.
    fn hasten(&mut self, now: Instant) {
        if let Some(next) = self.next_tx {
            let soonest = now + self.interval();
            self.next_tx = Some(next.min(soonest));
        }
    }
}
