//! What the operator wants, as plain data. Compared by value: an unchanged peer keeps its session.

mod group;
mod key;

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

#[cfg(feature = "driver")]
pub(crate) use self::key::Key;
pub use self::{
    group::{AcceptedAs, Members, PeerGroup},
    key::{AoAlgorithm, AoKey},
};

use crate::{
    bfd,
    bmp::Collector,
    filter::Policy,
    types::{Asn, Families, PeerType, Prefix, Role, RouterId},
    wire::AddPath,
};

/// The well-known port.
pub const BGP_PORT: u16 = 179;

/// The whole speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Our autonomous system.
    pub local_as: Asn,
    /// Our identifier.
    pub router_id: RouterId,
    /// Identifier of our reflection cluster; the router id when absent (RFC 4456 §7).
    pub cluster_id: Option<RouterId>,
    /// The peers; names are unique and identify a peer across changes.
    pub peers: Vec<PeerConfig>,
    /// Peers that come and go by themselves. A peer of `peers` is in no group.
    pub groups: Vec<PeerGroup>,
    /// Most next hops of one route; at least 1.
    pub max_paths: usize,
    /// Whether external paths of equal length but different AS numbers share the load.
    pub multipath_relax: bool,
    /// Whether changes of next hops are told ([`crate::Output::Fib`]); fixed when the speaker is made.
    pub fib: bool,
    /// Whether the machine's routing table is asked about next hops ([`crate::Output::NextHopWatch`]): only those that it leads
    /// to are used. Otherwise all are, at the same cost.
    pub follow_next_hops: bool,
    /// How long peers keep our routes when we go; at most 4095 s (RFC 4724 §3).
    pub restart_time: Duration,
    /// Whether this is a restart with forwarding preserved: routes are chosen once peers have sent theirs.
    pub restarting: bool,
    /// After a restart: the next hops of the routes that went on forwarding, if they are known. A peer that carried
    /// nothing was down before, or nothing depends on it: it is waited for only once it shows up.
    pub forwarding_via: Option<BTreeSet<IpAddr>>,
    /// How long a restart waits for peers at most (RFC 4724 §4.1, Selection_Deferral_Timer).
    pub deferral_time: Duration,
    /// Who hears of everything by BMP; each address once.
    pub collectors: Vec<Collector>,
}

impl SpeakerConfig {
    /// Makes a speaker without peers and with the usual values.
    pub fn new(local_as: Asn, router_id: RouterId) -> Self {
        Self {
            local_as,
            router_id,
            cluster_id: None,
            peers: Vec::new(),
            groups: Vec::new(),
            max_paths: 64,
            multipath_relax: true,
            fib: true,
            follow_next_hops: false,
            restart_time: Duration::from_secs(120),
            restarting: false,
            forwarding_via: None,
            deferral_time: Duration::from_secs(120),
            collectors: Vec::new(),
        }
    }
}

/// Which next hop we announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHopMode {
    /// Ourselves to external peers and for our own routes, unchanged otherwise.
    #[default]
    Auto,
    /// Always ourselves.
    Own,
    /// Unchanged wherever there is one.
    Keep,
}

/// Which routes of a peer with BLACKHOLE are honoured: packets to them are dropped. Nothing is unless both sides agreed
/// (RFC 7999 §3.3, §4): such a route is one like others.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blackhole {
    /// None.
    #[default]
    None,
    /// Those that import policy lets in, also when policy itself attached the community.
    Accepted,
    /// Those within these prefixes, which the peer may announce; import policy is not asked whether they are too long.
    Within(Vec<Prefix>),
}

impl Blackhole {
    /// Says whether a route with the community is honoured, if import policy did not let it in by itself.
    pub(crate) fn covers(&self, prefix: &Prefix) -> bool {
        match self {
            Self::None | Self::Accepted => false,
            Self::Within(networks) => networks.iter().any(|network| network.contains(prefix)),
        }
    }
}

/// Whether more than one path of a prefix is exchanged (RFC 7911).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddPathMode {
    /// Only the best path, both ways.
    #[default]
    None,
    /// Take all that the peer has.
    Receive,
    /// Send all that policy allows.
    Send,
    /// Both.
    Both,
}

impl AddPathMode {
    /// Returns what an OPEN says about it.
    pub(crate) fn capability(self, families: Families) -> Vec<AddPath> {
        let mode = match self {
            Self::None => return Vec::new(),
            Self::Receive => 1,
            Self::Send => 2,
            Self::Both => 3,
        };
        families.iter().map(|family| AddPath { afi: family.afi(), safi: 1, mode }).collect()
    }
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Identifies the peer in events, status and across changes.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its autonomous system.
    pub asn: Asn,
    /// The AS we pretend to be towards this peer.
    pub local_as: Option<Asn>,
    /// The address we connect from; connections to another of our addresses are refused.
    pub local_address: Option<IpAddr>,
    /// The interface that link-local next hops of this peer are on.
    pub interface: Option<String>,
    /// Whether the peer may be further away than the link although it is on a network of ours: then its next hops need
    /// not be on one either (RFC 4271 §6.3 b). One on no network of ours is further away anyhow.
    pub multihop: bool,
    /// Whether we only wait for the peer to connect.
    pub passive: bool,
    /// Whether the session is down on purpose.
    pub shutdown: bool,
    /// TCP MD5 password (RFC 2385), at most 80 octets.
    pub password: Option<String>,
    /// Keys of TCP-AO (RFC 5925) instead: the first one is used at first, the others are accepted.
    pub tcp_ao: Vec<AoKey>,
    /// Distance in hops that GTSM allows (RFC 5082); 1 is the link.
    pub ttl_security: Option<u8>,
    /// TTL of what we send; the driver's default when absent. Ignored with GTSM.
    pub ttl: Option<u8>,
    /// Families to exchange.
    pub families: Families,
    /// Proposed hold time in seconds: 0, or at least 3.
    pub hold_time: u16,
    /// Time between keepalives; a third of the negotiated hold time when absent.
    pub keepalive_time: Option<Duration>,
    /// Time between attempts to connect.
    pub connect_retry: Duration,
    /// How long we let the peer send OPEN first after connecting (RFC 4271 §8.2.1.3).
    pub delay_open: Option<Duration>,
    /// First wait after an error; doubles up to [`PeerConfig::idle_hold_max`].
    pub idle_hold: Duration,
    /// Longest wait after errors.
    pub idle_hold_max: Duration,
    /// Whether to announce and honour graceful restart.
    pub graceful_restart: bool,
    /// How long stale routes live after the peer is back, waiting for End-of-RIB.
    pub stale_time: Duration,
    /// How long peers may keep our routes after the restart time, as a last resort; not announced when absent. Peers'
    /// own announcements are honoured together with [`PeerConfig::graceful_restart`] (RFC 9494).
    pub long_lived_stale_time: Option<Duration>,
    /// Whether the session is about to be shut down: our routes carry GRACEFUL_SHUTDOWN, and those of the peer are the
    /// last choice (RFC 8326).
    pub graceful_shutdown: bool,
    /// What we are to an external peer (RFC 9234).
    pub role: Option<Role>,
    /// Whether the peer must announce its role.
    pub role_strict: bool,
    /// Whether and how BFD watches the path to the peer.
    pub bfd: Option<bfd::Config>,
    /// Whether IPv4 routes may have IPv6 next hops (RFC 8950); theirs are ours when the session is over IPv6.
    pub extended_next_hop: bool,
    /// Whether to announce extended messages.
    pub extended_message: bool,
    /// Whether to exchange several paths of a prefix.
    pub add_path: AddPathMode,
    /// LOCAL_PREF of routes sent to an internal peer that have none. Calico's BIRD wants 2147482623 (metric 1024).
    pub local_pref: u32,
    /// Next hop of announced routes.
    pub next_hop: NextHopMode,
    /// Our IPv4 address for IPv4 routes over an IPv6 session.
    pub next_hop_ipv4: Option<IpAddr>,
    /// Our IPv6 address for IPv6 routes over an IPv4 session.
    pub next_hop_ipv6: Option<IpAddr>,
    /// Whether the peer is our reflection client.
    pub route_reflector_client: bool,
    /// How often our own AS may be in a received path.
    pub allow_own_as: usize,
    /// Whether paths of an external peer must begin with its AS (RFC 4271 §6.3). A route server does not put its own
    /// there (RFC 7947 §2.2.2.1): with [`Role::RouteServerClient`] nothing is asked of it.
    pub enforce_first_as: bool,
    /// Which routes with BLACKHOLE are honoured (RFC 7999).
    pub blackhole: Blackhole,
    /// Most prefixes to accept from the peer; the session ends beyond it.
    pub max_prefixes: Option<usize>,
    /// Percentage of [`PeerConfig::max_prefixes`] that is warned about.
    pub max_prefixes_warning: u8,
    /// Wait after too many prefixes; until [`Speaker::reset`](crate::Speaker::reset) when absent.
    pub max_prefixes_wait: Option<Duration>,
    /// What to accept.
    pub import: Policy,
    /// What to announce.
    pub export: Policy,
}

impl PeerConfig {
    /// Makes a peer with the usual values: everything accepted and announced.
    pub fn new(name: impl Into<String>, address: IpAddr, asn: Asn) -> Self {
        Self {
            name: name.into(),
            address,
            port: BGP_PORT,
            asn,
            local_as: None,
            local_address: None,
            interface: None,
            multihop: false,
            passive: false,
            shutdown: false,
            password: None,
            tcp_ao: Vec::new(),
            ttl_security: None,
            ttl: None,
            families: Families::default_for(&address),
            hold_time: 90,
            keepalive_time: None,
            connect_retry: Duration::from_secs(5),
            delay_open: None,
            idle_hold: Duration::from_secs(1),
            idle_hold_max: Duration::from_secs(30),
            graceful_restart: true,
            stale_time: Duration::from_secs(360),
            long_lived_stale_time: None,
            graceful_shutdown: false,
            role: None,
            role_strict: false,
            bfd: None,
            extended_next_hop: false,
            extended_message: true,
            add_path: AddPathMode::None,
            local_pref: 100,
            next_hop: NextHopMode::Auto,
            next_hop_ipv4: None,
            next_hop_ipv6: None,
            route_reflector_client: false,
            allow_own_as: 0,
            enforce_first_as: true,
            blackhole: Blackhole::None,
            max_prefixes: None,
            max_prefixes_warning: 75,
            max_prefixes_wait: Some(Duration::from_secs(300)),
            import: Policy::accept(),
            export: Policy::accept(),
        }
    }

    /// Says whether a session under the other configuration can go on under this one.
    pub fn keeps_session_of(&self, other: &Self) -> bool {
        let comparable = Self {
            // Everything that only concerns routes, or the next attempt to connect.
            connect_retry: other.connect_retry,
            delay_open: other.delay_open,
            idle_hold: other.idle_hold,
            idle_hold_max: other.idle_hold_max,
            passive: other.passive,
            stale_time: other.stale_time,
            local_pref: other.local_pref,
            next_hop: other.next_hop,
            next_hop_ipv4: other.next_hop_ipv4,
            next_hop_ipv6: other.next_hop_ipv6,
            route_reflector_client: other.route_reflector_client,
            allow_own_as: other.allow_own_as,
            enforce_first_as: other.enforce_first_as,
            blackhole: other.blackhole.clone(),
            multihop: other.multihop,
            graceful_shutdown: other.graceful_shutdown,
            bfd: other.bfd,
            max_prefixes: other.max_prefixes,
            max_prefixes_warning: other.max_prefixes_warning,
            max_prefixes_wait: other.max_prefixes_wait,
            import: other.import.clone(),
            export: other.export.clone(),
            ..self.clone()
        };
        comparable == *other
    }

    /// Says whether a session under the other configuration could go on, if its key were not another one.
    pub fn changes_only_key_of(&self, other: &Self) -> bool {
        let key = |config: &Self| (config.password.clone(), config.tcp_ao.clone());
        let (password, tcp_ao) = key(other);
        key(self) != key(other) && Self { password, tcp_ao, ..self.clone() }.keeps_session_of(other)
    }

    /// Returns what signs the segments of the session.
    #[cfg(feature = "driver")]
    pub(crate) fn key(&self) -> Option<Key> {
        if self.tcp_ao.is_empty() {
            self.password.clone().map(Key::Md5)
        } else {
            Some(Key::Ao(self.tcp_ao.clone()))
        }
    }

    /// Returns whether the peer is in another AS than we are towards it.
    pub fn peer_type(&self, local_as: Asn) -> PeerType {
        if self.local_as.unwrap_or(local_as) == self.asn {
            PeerType::Internal
        } else {
            PeerType::External
        }
    }
}
