//! Connections go away: what the peer is told, what happens to its routes, when to try again.

use std::time::{Duration, Instant};

use super::{ConnectionId, Output, PeerEvent, Speaker};
use crate::{
    bmp::DownReason,
    rib::{PeerId, Retire},
    session::{Negotiated, State},
    snapshot::LossCause,
    types::{Families, Family},
    wire::{Cease, Kind, Notification},
};

/// A session that lasted this long was a good one: waits start small again.
const STABLE: Duration = Duration::from_secs(30);

/// Until the operator says otherwise.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What stays of a peer's routes when its session is lost.
#[derive(Debug, Default)]
struct Kept {
    families: Families,
    /// For how long, at first.
    time: Duration,
    /// For how much longer.
    long_lived: Vec<(Family, Duration)>,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Loss {
    /// TCP failed or the peer closed it.
    Transport,
    /// We found an error, or a timer expired.
    Sent(Notification),
    /// The peer did.
    Received(Notification),
    /// The peer opened a new session over this one.
    PeerRestarted,
    /// The path is broken, or the peer restarts: who knows (RFC 5882 §4.3).
    PathDown(Notification),
    /// We end it and mean it: no graceful restart. The notification is for the peer.
    Final(Option<Notification>),
}

impl Loss {
    /// The same for those who count.
    fn cause(&self) -> LossCause {
        let timers = [Notification::HOLD_TIMER_EXPIRED, Notification::SEND_HOLD_TIMER_EXPIRED];
        match self {
            Self::Transport => LossCause::Transport,
            Self::Sent(notification) if timers.contains(notification) => LossCause::HoldTimer,
            Self::Sent(_) => LossCause::NotificationSent,
            Self::Received(_) => LossCause::NotificationReceived,
            Self::PeerRestarted => LossCause::PeerRestarted,
            Self::PathDown(_) => LossCause::Bfd,
            Self::Final(notification) => {
                let reason = notification.as_ref().and_then(cease_reason);
                if reason == Some(Cease::BfdDown.number()) {
                    LossCause::Bfd
                } else if reason == Some(Cease::MaximumPrefixes.number()) {
                    LossCause::MaxPrefixes
                } else {
                    LossCause::Local
                }
            }
        }
    }

    /// The same for those who watch; numbers of events are those of RFC 4271 §8.1.
    fn down_reason(&self) -> DownReason {
        match self {
            Self::Transport => DownReason::PeerClosed,
            Self::Sent(notification)
            | Self::PathDown(notification)
            | Self::Final(Some(notification)) => DownReason::Notified(notification.encode()),
            Self::Received(notification) => DownReason::PeerNotified(notification.encode()),
            // OpenCollisionDump.
            Self::PeerRestarted => DownReason::Closed(23),
            // ManualStop.
            Self::Final(None) => DownReason::Closed(2),
        }
    }
}

impl Speaker {
    /// Event 18: a connection is gone, or could not be made.
    pub fn handle_closed(&mut self, connection: ConnectionId, reason: &str, now: Instant) {
        self.now = now;
        self.lose(connection, Loss::Transport, reason);
        self.finish_restart();
    }

    /// Ends a connection and draws the consequences.
    pub(super) fn lose(&mut self, connection: ConnectionId, loss: Loss, cause: &str) {
        let Some((session, peer)) = self.peer_of(connection) else { return };
        let id = session.peer;
        let was_connected = session.is_connected();
        let was_established = peer.established == Some(connection);
        let keeps = session.negotiated.as_ref().is_some_and(|each| each.notification_keeps);
        let graceful = match &loss {
            Loss::Transport | Loss::PeerRestarted | Loss::PathDown(_) => true,
            // RFC 4724 §4.2 counts an expired hold timer as a broken session.
            Loss::Sent(notification) if *notification == Notification::HOLD_TIMER_EXPIRED => true,
            Loss::Sent(notification) | Loss::Received(notification) => {
                keeps && !notification.is_hard_reset()
            }
            Loss::Final(_) => false,
        };
        let kept = session.negotiated.as_ref().and_then(|each| {
            let restart = each.graceful.as_ref().filter(|_| graceful)?;
            let time = Duration::from_secs(u64::from(restart.restart_time));
            let families = restart.families().and(each.families);
            Some(Kept { families, time, long_lived: long_lived_times(each, families) })
        });
        let lasted = session.established_at.map(|at| self.now.saturating_duration_since(at));
        let farewell = match &loss {
            Loss::Sent(notification)
            | Loss::PathDown(notification)
            | Loss::Final(Some(notification)) => Some(notification.clone()),
            _ => None,
        };
        self.drop_connection(connection, farewell.as_ref());
        if was_established {
            self.monitor_down(id, &loss.down_reason());
            self.session_down(id, kept);
            if let Some(peer) = self.peers.get_mut(&id) {
                let count = peer.losses.entry(loss.cause()).or_default();
                *count = count.saturating_add(1);
            }
        }
        self.plan_retry(id, &loss, was_connected, lasted);
        if !matches!(loss, Loss::PeerRestarted)
            && let Some(peer) = self.peers.get_mut(&id)
        {
            peer.last_error = Some(cause.to_owned());
        }
        self.report(id, cause);
        self.forget_member(id);
    }

    /// Closes a connection without any consequence for the peer.
    pub(super) fn drop_connection(
        &mut self,
        connection: ConnectionId,
        notification: Option<&Notification>,
    ) {
        let Some(mut session) = self.connections.remove(&connection) else { return };
        let mut last: Vec<_> = session.take_control().collect();
        if notification.is_some() {
            // A KEEPALIVE that is still here would make the peer believe for a moment that the session is up, and drop
            // the connection that won over this one.
            last.retain(|message| message.get(18) != Some(&Kind::Keepalive.number()));
        }
        if let Some(peer) = self.peers.get_mut(&session.peer) {
            peer.forget(connection);
            if notification.is_some() && session.is_connected() {
                peer.sent.count(Kind::Notification);
            }
        }
        if session.is_connected() {
            last.extend(notification.map(Notification::encode));
        }
        self.outputs.push_back(Output::Close { connection, last });
    }

    /// The session is over: routes go, or stay as stale ones for a while (RFC 4724 §4.2).
    fn session_down(&mut self, id: PeerId, kept: Option<Kept>) {
        self.leave_group(id);
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Kept { families, time, long_lived } = kept.unwrap_or_default();
        // For how long it said the last time that it will be away counts (RFC 9494 §4.2).
        let longer: Families = long_lived.iter().map(|(family, _)| *family).collect();
        peer.long_lived.retain(|family, _| families.and(longer).contains(*family));
        peer.long_lived_times = long_lived;
        peer.stale = families;
        peer.stale_until = (!families.is_empty()).then(|| now + time);
        peer.end_of_rib = Families::NONE;
        let refreshing = std::mem::take(&mut peer.refreshing);
        peer.refresh_until = None;
        // What was stale already has had its chance, except that long-lived routes stay (RFC 9494 §4.2), and that a
        // refresh only asked to hear a valid route again.
        let spared: Families = peer.long_lived.keys().copied().collect();
        let flushed = families.without(spared).without(refreshing);
        let remove = Families::BOTH.without(families);
        self.retire(id, Retire { remove, remove_stale: flushed, mark_stale: families });
    }

    fn plan_retry(
        &mut self,
        id: PeerId,
        loss: &Loss,
        was_connected: bool,
        lasted: Option<Duration>,
    ) {
        let (now, stopped) = (self.now, self.stopped);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if lasted.is_some_and(|lasted| lasted >= STABLE) {
            peer.failures = 0;
        }
        let mut wait = peer.config.connect_retry;
        let mut refuse = false;
        match loss {
            _ if !was_connected => peer.attempts = peer.attempts.saturating_add(1),
            // Quickly at first. A peer that comes and goes is given more and more time.
            Loss::Transport | Loss::PeerRestarted if lasted.is_some() => {
                peer.failures = peer.failures.saturating_add(1);
                wait = peer.hold_off();
            }
            Loss::Transport | Loss::PeerRestarted => (),
            Loss::Sent(notification) if *notification != Notification::HOLD_TIMER_EXPIRED => {
                peer.failures = peer.failures.saturating_add(1);
                wait = peer.hold_off();
                refuse = true;
            }
            // One of two connections to a peer: the other one goes on.
            _ if peer.connections().next().is_some() => (),
            _ => {
                peer.failures = peer.failures.saturating_add(1);
                wait = peer.hold_off();
            }
        }
        // What a peer did not know once it may know after its restart.
        peer.without_capabilities &= lasted.is_none();
        if let Loss::Received(notification) = loss
            && notification.is_unsupported_parameter()
        {
            peer.without_capabilities = true;
        }
        let mut others = peer.connections().filter_map(|other| self.connections.get(&other));
        let another = others.any(|other| other.state() >= State::OpenConfirm);
        let at = now + self.random.jitter(wait);
        if refuse {
            peer.refuse_until = Some(at);
        }
        if !(stopped || another || peer.config.shutdown || peer.config.passive) {
            peer.retry_at = Some(at);
        }
    }

    /// Too many prefixes: ends the session for a longer while.
    pub(super) fn exceed_prefixes(&mut self, connection: ConnectionId, limit: usize) {
        let Some((session, peer)) = self.peer_of(connection) else { return };
        let (id, wait) = (session.peer, peer.config.max_prefixes_wait.unwrap_or(FOREVER));
        let keeps = session.negotiated.as_ref().is_some_and(|each| each.notification_keeps);
        let cease = Notification::cease(Cease::MaximumPrefixes);
        let cease = if keeps { cease.into_hard_reset() } else { cease };
        let cause = format!("peer announced more than {limit} prefixes");
        let until = self.now + wait;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.refuse_until = Some(until);
        }
        self.lose(connection, Loss::Final(Some(cease)), &cause);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.retry_at = (!peer.config.passive).then_some(until);
        }
    }

    /// Returns the state of a peer: that of its furthest connection.
    pub(super) fn state_of(&self, id: PeerId) -> State {
        let Some(peer) = self.peers.get(&id) else { return State::Idle };
        let connections = peer.connections();
        let furthest = connections
            .filter_map(|connection| self.connections.get(&connection))
            .map(|session| session.state())
            .max();
        let waits = peer.refuse_until.is_some_and(|until| self.now < until);
        match furthest {
            Some(state) => state,
            None if peer.config.shutdown || self.stopped || waits => State::Idle,
            None => State::Active,
        }
    }

    /// Tells a change of state, once.
    pub(super) fn report(&mut self, id: PeerId, cause: &str) {
        let to = self.state_of(id);
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let from = std::mem::replace(&mut peer.state, to);
        if from == to {
            return;
        }
        peer.since = now;
        peer.flaps = peer.flaps.saturating_add(u64::from(from == State::Established));
        peer.history.push(now, from, to, cause);
        let (peer, address) = (peer.config.name.clone(), peer.config.address);
        let event = PeerEvent { peer, address, from, to, cause: cause.to_owned() };
        self.watch_session(&event);
        self.outputs.push_back(Output::Peer(event));
    }

    /// Returns how long ago something was.
    pub(super) fn ago(&self, at: Instant) -> Duration {
        self.now.saturating_duration_since(at)
    }
}

/// Returns the subcode of a Cease, also of one inside a hard reset (RFC 8538 §3).
fn cease_reason(notification: &Notification) -> Option<u8> {
    match (notification.code, notification.is_hard_reset(), notification.data.as_slice()) {
        (6, true, [6, reason, ..]) => Some(*reason),
        (6, _, _) => Some(notification.subcode),
        _ => None,
    }
}

/// RFC 9494 §4.2: of the families that graceful restart keeps.
fn long_lived_times(negotiated: &Negotiated, kept: Families) -> Vec<(Family, Duration)> {
    let announced = negotiated.long_lived.iter().flatten();
    let times = announced.filter_map(|each| {
        let family = Family::from_wire(each.afi, each.safi).filter(|each| kept.contains(*each))?;
        let time = Duration::from_secs(u64::from(each.stale_time));
        (!time.is_zero()).then_some((family, time))
    });
    times.collect()
}
