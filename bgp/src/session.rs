//! One TCP connection's finite state machine (RFC 4271 §8): what is expected, what it is answered with, its deadlines.
//!
//! Which of two connections to a peer lives (§6.8), when to connect again and what a lost session costs are questions
//! about the peer and belong to the speaker.

use std::{
    collections::VecDeque,
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    config::PeerConfig,
    random::Random,
    rib::PeerId,
    types::{Asn, Families, Family, PeerType, Role, RouterId},
    watched::Deadline,
    wire::{
        self, Capabilities, Frame, GracefulRestart, Kind, LongLivedFamily, MAX_EXTENDED_MESSAGE,
        MAX_MESSAGE, Notification, Open, Refresh,
    },
};

/// RFC 4271 §8.2.2: "a large value" while waiting for the peer's OPEN.
const OPEN_HOLD: Duration = Duration::from_secs(240);

/// RFC 4271 §4.4: never more than one in a second.
const KEEPALIVE_AT_LEAST: Duration = Duration::from_secs(1);

/// IPv4 unicast with an IPv6 next hop (RFC 8950 §4).
const IPV4_OVER_IPV6: (u16, u16, u16) = (1, 1, 2);

/// State of a session (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Not trying.
    Idle,
    /// Waiting until it is time to connect, or for the peer to connect.
    Active,
    /// Connecting.
    Connect,
    /// OPEN sent, waiting for the peer's.
    OpenSent,
    /// OPENs exchanged, waiting for the first KEEPALIVE.
    OpenConfirm,
    /// Exchanging routes.
    Established,
}

impl State {
    /// All states, in the order of RFC 4271 §8.2.2.
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Connect,
        Self::Active,
        Self::OpenSent,
        Self::OpenConfirm,
        Self::Established,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "Idle",
            Self::Active => "Active",
            Self::Connect => "Connect",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        })
    }
}

/// Who opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Outgoing,
    Incoming,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No TCP connection yet.
    Connecting,
    /// Connected, giving the peer time to speak first.
    DelayOpen,
    OpenSent,
    OpenConfirm,
    Established,
}

/// What both sides agreed on.
#[derive(Clone, Debug)]
pub(crate) struct Negotiated {
    pub(crate) families: Families,
    pub(crate) four_octet_as: bool,
    /// Longest message that we may send, and that the peer may.
    pub(crate) limit: usize,
    pub(crate) receive_limit: usize,
    /// Families with path identifiers in what the peer sends and in what we send (RFC 7911).
    pub(crate) add_path_receive: Families,
    pub(crate) add_path_send: Families,
    pub(crate) hold_time: Duration,
    pub(crate) keepalive: Duration,
    /// What the peer announced, if we honour it.
    pub(crate) graceful: Option<GracefulRestart>,
    /// Notifications keep the routes (RFC 8538).
    pub(crate) notification_keeps: bool,
    /// The peer knows long-lived graceful restart, and how long its routes may live, if we honour it (RFC 9494).
    pub(crate) long_lived: Option<Vec<LongLivedFamily>>,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub(crate) extended_next_hop: bool,
    /// The peer can send everything again (RFC 2918).
    pub(crate) refresh: bool,
    /// Refreshes have a beginning and an end (RFC 7313).
    pub(crate) enhanced_refresh: bool,
    pub(crate) router_id: RouterId,
}

impl Negotiated {
    /// Families that the peer went on forwarding while it was away for long (RFC 9494 §4.2).
    pub(crate) fn long_lived_forwarding(&self) -> Families {
        let kept = self.long_lived.iter().flatten().filter(|each| each.forwarding);
        kept.filter_map(|each| Family::from_wire(each.afi, each.safi)).collect()
    }
}

/// What a session must know of its surroundings to open.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) local_as: Asn,
    pub(crate) router_id: RouterId,
    pub(crate) restart_time: Duration,
    /// This is a restart with forwarding preserved.
    pub(crate) restarting: bool,
    /// Our routes towards the peer went on forwarding since it last heard them (F of RFC 4724).
    pub(crate) forwarding: bool,
    /// The peer refused capabilities before.
    pub(crate) without_capabilities: bool,
}

impl Identity {
    /// Returns the OPEN for a peer.
    pub(crate) fn open(&self, config: &PeerConfig) -> Open {
        let local_as = config.local_as.unwrap_or(self.local_as);
        let capabilities = if self.without_capabilities {
            Capabilities::default()
        } else {
            self.capabilities(config, local_as)
        };
        Open { asn: local_as, hold_time: config.hold_time, router_id: self.router_id, capabilities }
    }

    fn capabilities(&self, config: &PeerConfig, local_as: Asn) -> Capabilities {
        let internal = config.peer_type(self.local_as) == PeerType::Internal;
        // RFC 9234 §4.1: only between systems.
        let roles = config.role.filter(|_| !internal).map(Role::number).into_iter().collect();
        let graceful_restart = config.graceful_restart.then(|| GracefulRestart {
            restarting: self.restarting,
            notification: true,
            restart_time: u16::try_from(self.restart_time.as_secs()).unwrap_or(4095).min(4095),
            families: config
                .families
                .iter()
                .map(|family| wire::GracefulRestartFamily {
                    afi: family.afi(),
                    safi: 1,
                    forwarding: self.forwarding,
                })
                .collect(),
        });
        Capabilities {
            multiprotocol: config.families.iter().map(|family| (family.afi(), 1)).collect(),
            route_refresh: true,
            enhanced_route_refresh: true,
            extended_next_hop: if config.extended_next_hop && config.families.ipv4 {
                vec![IPV4_OVER_IPV6]
            } else {
                Vec::new()
            },
            roles,
            long_lived: config.graceful_restart.then(|| self.long_lived(config)),
            extended_message: config.extended_message,
            four_octet_as: Some(local_as),
            graceful_restart,
            add_path: config.add_path.capability(config.families),
            ..Capabilities::default()
        }
    }

    /// RFC 9494 §4.1; no families when we only help others.
    fn long_lived(&self, config: &PeerConfig) -> Vec<LongLivedFamily> {
        let Some(time) = config.long_lived_stale_time else { return Vec::new() };
        let stale_time = u32::try_from(time.as_secs()).unwrap_or(u32::MAX).min(0x00ff_ffff);
        let families = config.families.iter().map(|family| LongLivedFamily {
            afi: family.afi(),
            safi: 1,
            forwarding: self.forwarding,
            stale_time,
        });
        families.collect()
    }
}

/// What a message means to the speaker.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    Nothing,
    /// Two connections may have collided now.
    Opened,
    Established,
    Update(&'a [u8]),
    Refresh(Family, Refresh),
    /// The peer ends the session.
    Notified(Notification),
    /// We must.
    Fail(Failure),
}

/// Why we end a session: what the peer is told, and what the operator is told beyond that.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) notification: Notification,
    pub(crate) explanation: Option<String>,
}

impl Failure {
    fn new(notification: Notification, explanation: String) -> Self {
        Self { notification, explanation: Some(explanation) }
    }
}

impl From<Notification> for Failure {
    fn from(notification: Notification) -> Self {
        Self { notification, explanation: None }
    }
}

/// What a deadline means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// TCP did not come up in time.
    Connect,
    Hold,
    SendHold,
}

/// Counted messages of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "report", derive(serde::Serialize, serde::Deserialize))]
pub struct MessageCounters {
    /// OPEN.
    pub opens: u64,
    /// UPDATE.
    pub updates: u64,
    /// NOTIFICATION.
    pub notifications: u64,
    /// KEEPALIVE.
    pub keepalives: u64,
    /// ROUTE-REFRESH.
    pub refreshes: u64,
}

impl MessageCounters {
    pub(crate) fn count(&mut self, kind: Kind) {
        let counter = match kind {
            Kind::Open => &mut self.opens,
            Kind::Update => &mut self.updates,
            Kind::Notification => &mut self.notifications,
            Kind::Keepalive => &mut self.keepalives,
            Kind::RouteRefresh => &mut self.refreshes,
        };
        *counter = counter.saturating_add(1);
    }
}

impl Deadline for Session {
    fn next_deadline(&self) -> Option<Instant> {
        let send_hold = self.send_hold();
        [self.hold, self.keepalive, send_hold].into_iter().flatten().min()
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) peer: PeerId,
    pub(crate) direction: Direction,
    stage: Stage,
    pub(crate) local: Option<IpAddr>,
    /// An incomplete message.
    pub(crate) buffer: Vec<u8>,
    pub(crate) their_open: Option<Open>,
    /// Both OPEN messages as they were, for those who watch.
    pub(crate) our_open: Bytes,
    pub(crate) their_open_message: Bytes,
    pub(crate) negotiated: Option<Arc<Negotiated>>,
    pub(crate) established_at: Option<Instant>,
    /// Messages that go before any UPDATE.
    control: VecDeque<Bytes>,
    /// The driver knows that there is something to send.
    pub(crate) signalled: bool,
    /// The driver has not asked for more since then.
    pub(crate) blocked_since: Option<Instant>,
    /// What the peer said last, and when.
    last_received: Option<(Kind, Instant)>,
    /// Segments that the kernel had refused when this began.
    pub(crate) refused_before: u64,
    hold: Option<Instant>,
    keepalive: Option<Instant>,
}

impl Session {
    /// Begins to connect; gives up at the deadline.
    pub(crate) fn connecting(peer: PeerId, deadline: Instant) -> Self {
        Self {
            peer,
            direction: Direction::Outgoing,
            stage: Stage::Connecting,
            local: None,
            buffer: Vec::new(),
            their_open: None,
            our_open: Bytes::new(),
            their_open_message: Bytes::new(),
            negotiated: None,
            established_at: None,
            control: VecDeque::new(),
            signalled: false,
            blocked_since: None,
            last_received: None,
            refused_before: 0,
            hold: Some(deadline),
            keepalive: None,
        }
    }

    /// Begins with a connection of the peer's.
    pub(crate) fn accepted(peer: PeerId, now: Instant) -> Self {
        Self { direction: Direction::Incoming, ..Self::connecting(peer, now) }
    }

    pub(crate) fn state(&self) -> State {
        match self.stage {
            Stage::Connecting | Stage::DelayOpen => State::Connect,
            Stage::OpenSent => State::OpenSent,
            Stage::OpenConfirm => State::OpenConfirm,
            Stage::Established => State::Established,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.stage != Stage::Connecting
    }

    /// TCP is up: sends OPEN, or waits a little.
    pub(crate) fn connected(
        &mut self,
        local: IpAddr,
        config: &PeerConfig,
        identity: &Identity,
        now: Instant,
    ) {
        self.local = Some(local);
        match config.delay_open {
            Some(delay) => {
                self.stage = Stage::DelayOpen;
                self.hold = Some(now + delay);
            }
            None => self.send_open(config, identity, now),
        }
    }

    fn send_open(&mut self, config: &PeerConfig, identity: &Identity, now: Instant) {
        self.stage = Stage::OpenSent;
        self.hold = Some(now + OPEN_HOLD);
        self.our_open = identity.open(config).encode();
        self.send(self.our_open.clone());
    }

    pub(crate) fn send(&mut self, message: Bytes) {
        self.control.push_back(message);
    }

    /// Counts the octets that wait to be sent before any UPDATE.
    pub(crate) fn control_octets(&self) -> usize {
        self.control.iter().map(Bytes::len).sum()
    }

    pub(crate) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    pub(crate) fn take_control(&mut self) -> impl Iterator<Item = Bytes> {
        self.control.drain(..)
    }

    /// Longest message the peer may send.
    pub(crate) fn limit(&self) -> usize {
        self.negotiated.as_ref().map_or(MAX_MESSAGE, |negotiated| negotiated.receive_limit)
    }

    /// Handles one message (RFC 4271 §8.2.2, events 19 to 28).
    pub(crate) fn handle_frame<'a>(
        &mut self,
        frame: &Frame<'a>,
        config: &PeerConfig,
        identity: &Identity,
        now: Instant,
    ) -> Step<'a> {
        self.last_received = Some((frame.kind, now));
        let step = match (frame.kind, self.stage) {
            (Kind::Notification, _) => match Notification::decode(frame.body) {
                Ok(notification) => Step::Notified(notification),
                Err(_) => Step::Fail(Notification::new(1, 2, []).into()),
            },
            (Kind::Open, Stage::DelayOpen | Stage::OpenSent) => {
                match self.handle_open(frame.body, config, identity, now) {
                    Ok(()) => Step::Opened,
                    Err(failure) => Step::Fail(failure),
                }
            }
            (Kind::Keepalive, Stage::OpenConfirm) => {
                self.stage = Stage::Established;
                self.established_at = Some(now);
                Step::Established
            }
            (Kind::Keepalive, Stage::Established) => Step::Nothing,
            (Kind::Update, Stage::Established) => Step::Update(frame.body),
            (Kind::RouteRefresh, Stage::Established) => {
                match wire::decode_route_refresh(frame.body) {
                    Ok(Some((family, refresh))) => Step::Refresh(family, refresh),
                    Ok(None) => Step::Nothing,
                    Err(notification) => Step::Fail(notification.into()),
                }
            }
            (kind, _) => Step::Fail(self.unexpected(kind)),
        };
        self.restart_hold(now);
        step
    }

    /// RFC 6608.
    fn unexpected(&self, kind: Kind) -> Failure {
        let subcode = match self.stage {
            Stage::Connecting | Stage::DelayOpen => 0,
            Stage::OpenSent => 1,
            Stage::OpenConfirm => 2,
            Stage::Established => 3,
        };
        let explanation = format!("peer sent {kind} in state {}", self.state());
        Failure::new(Notification::new(5, subcode, []), explanation)
    }

    fn handle_open(
        &mut self,
        body: &[u8],
        config: &PeerConfig,
        identity: &Identity,
        now: Instant,
    ) -> Result<(), Failure> {
        let theirs = Open::decode(body)?;
        let ours = identity.open(config);
        if theirs.asn != config.asn {
            let explanation = match config.asn {
                Asn(0) => format!("peer is AS {}, which its group does not accept", theirs.asn),
                asn => format!("peer is AS {}, configured {asn}", theirs.asn),
            };
            return Err(Failure::new(Notification::new(2, 2, []), explanation));
        }
        // RFC 6286 §2.2: equal identifiers are an error only within an AS.
        let internal = config.peer_type(identity.local_as) == PeerType::Internal;
        if internal && theirs.router_id == ours.router_id {
            let explanation = format!("peer has our own BGP identifier {}", ours.router_id);
            return Err(Failure::new(Notification::new(2, 3, []), explanation));
        }
        if !internal {
            check_role(config, &theirs)?;
        }
        if self.stage == Stage::DelayOpen {
            self.send_open(config, identity, now);
        }
        let negotiated = negotiate(&ours, &theirs, config);
        if negotiated.families.is_empty() {
            // RFC 5492 §3: the data is the capability that we miss.
            let data = config
                .families
                .iter()
                .flat_map(|family| [1, 4, 0, family.afi().to_be_bytes()[1], 0, 1]);
            let notification = Notification::new(2, 7, data.collect::<Vec<u8>>());
            let theirs = theirs.capabilities.families();
            let explanation =
                format!("no address family in common: ours {}, theirs {theirs}", config.families);
            return Err(Failure::new(notification, explanation));
        }
        self.stage = Stage::OpenConfirm;
        self.keepalive = (!negotiated.keepalive.is_zero()).then(|| now + negotiated.keepalive);
        self.negotiated = Some(Arc::new(negotiated));
        self.their_open = Some(theirs);
        self.their_open_message = wire::message(Kind::Open, |out| out.extend_from_slice(body));
        self.send(wire::keepalive());
        Ok(())
    }

    /// Says how the hold timer came to expire.
    pub(crate) fn silence(&self, now: Instant) -> String {
        let hold = self.negotiated.as_ref().map_or(OPEN_HOLD, |negotiated| negotiated.hold_time);
        let last = match self.last_received {
            Some((kind, at)) => {
                let ago = now.saturating_duration_since(at).as_secs();
                format!("last message {kind} {ago} s ago")
            }
            None => "the peer never said anything".to_owned(),
        };
        format!("hold timer expired after {} s: {last}", hold.as_secs())
    }

    fn restart_hold(&mut self, now: Instant) {
        if let Some(negotiated) = &self.negotiated {
            // Zero: no timer at all (RFC 4271 §4.2).
            self.hold = (!negotiated.hold_time.is_zero()).then(|| now + negotiated.hold_time);
        }
    }

    /// Says whether the peer has been silent for too long.
    pub(crate) fn is_expiring(&self, now: Instant) -> bool {
        self.is_connected() && self.hold.is_some_and(|at| at <= now)
    }

    /// RFC 9687 §3: eight minutes or twice the hold time.
    fn send_hold(&self) -> Option<Instant> {
        let hold_time = self.negotiated.as_ref()?.hold_time;
        let patience = hold_time.saturating_mul(2).max(Duration::from_secs(480));
        (!hold_time.is_zero()).then_some(self.blocked_since? + patience)
    }

    /// Fires what is due; early calls do nothing.
    pub(crate) fn handle_timeout(
        &mut self,
        config: &PeerConfig,
        identity: &Identity,
        random: &mut Random,
        now: Instant,
    ) -> Option<Expired> {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if is_due(self.keepalive) {
            self.send(wire::keepalive());
            let interval = self.negotiated.as_ref().map(|negotiated| negotiated.keepalive);
            self.keepalive =
                interval.map(|interval| now + random.jitter(interval).max(KEEPALIVE_AT_LEAST));
        }
        if is_due(self.send_hold()) {
            return Some(Expired::SendHold);
        }
        if !is_due(self.hold) {
            return None;
        }
        match self.stage {
            Stage::Connecting => Some(Expired::Connect),
            Stage::DelayOpen => {
                self.send_open(config, identity, now);
                None
            }
            _ => Some(Expired::Hold),
        }
    }
}

/// RFC 9234 §4.2.
fn check_role(config: &PeerConfig, theirs: &Open) -> Result<(), Failure> {
    let Some(own) = config.role else { return Ok(()) };
    let wanted = own.counterpart();
    let explanation = match theirs.capabilities.roles.as_slice() {
        [] if !config.role_strict => return Ok(()),
        [] => format!("peer announces no role, but must be {wanted}"),
        [role] if *role == wanted.number() => return Ok(()),
        [role] => match Role::from_number(*role) {
            Some(role) => format!("peer says it is {role}, but must be {wanted} to us as {own}"),
            None => format!("peer announces the unknown role {role}"),
        },
        roles => format!("peer announces several roles: {roles:?}"),
    };
    Err(Failure::new(Notification::new(2, 11, []), explanation))
}

fn negotiate(ours: &Open, theirs: &Open, config: &PeerConfig) -> Negotiated {
    let (mine, other) = (&ours.capabilities, &theirs.capabilities);
    let hold_time = Duration::from_secs(u64::from(ours.hold_time.min(theirs.hold_time)));
    let third = hold_time / 3;
    // Zero would mean to say nothing until the peer's hold timer expires.
    let wanted = config.keepalive_time.filter(|wanted| !wanted.is_zero());
    let keepalive = wanted.map_or(third, |wanted| wanted.max(KEEPALIVE_AT_LEAST).min(third));
    // RFC 8654 §4: who announces it takes long messages, also from those who do not.
    let extended = |may: bool| if may { MAX_EXTENDED_MESSAGE } else { MAX_MESSAGE };
    let graceful = other.graceful_restart.clone().filter(|_| mine.graceful_restart.is_some());
    let families = mine.families().and(other.families());
    Negotiated {
        families,
        add_path_receive: mine.add_path_receive().and(other.add_path_send()).and(families),
        add_path_send: mine.add_path_send().and(other.add_path_receive()).and(families),
        four_octet_as: mine.four_octet_as.is_some() && other.four_octet_as.is_some(),
        limit: extended(mine.extended_message && other.extended_message),
        receive_limit: extended(mine.extended_message),
        hold_time,
        keepalive,
        // RFC 9494 §4.1: nothing without graceful restart.
        long_lived: other.long_lived.clone().filter(|_| graceful.is_some()),
        extended_next_hop: [mine, other]
            .iter()
            .all(|each| each.extended_next_hop.contains(&IPV4_OVER_IPV6)),
        refresh: other.route_refresh,
        enhanced_refresh: mine.enhanced_route_refresh && other.enhanced_route_refresh,
        notification_keeps: graceful.as_ref().is_some_and(|graceful| graceful.notification),
        graceful,
        router_id: theirs.router_id,
    }
}
