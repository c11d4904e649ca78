//! A BGP-4 speaker: a sans-IO core and, with feature `driver`, the sockets and clock it runs on.
//!
//! [`Speaker`] is the whole protocol as one value. Connections, bytes and time go in (`handle_*`), intentions come out
//! ([`Speaker::poll_output`], [`Speaker::poll_timeout`]). It reads no clock, opens no socket and knows nothing of
//! Kubernetes or of kernel routes.
//!
//! | RFC | What |
//! |---|---|
//! | 4271, 4760, 2545, 5492, 6793, 9072 | the protocol, IPv4 and IPv6 unicast, capabilities, four-octet AS numbers |
//! | 7606, 7607, 6286, 6608, 9774 | what an error costs; AS 0; identifiers; AS_SET refused |
//! | 2918, 7313 | route refresh, with markers |
//! | 4724, 8538, 9494 | graceful restart, also long-lived, helper and restarting side; notifications, hard reset |
//! | 4456 | route reflection |
//! | 7911 | more than one path per prefix, both ways |
//! | 1997, 4360, 8092, 8326, 7999 | communities, graceful shutdown, blackholes where agreed |
//! | 5880, 5881, 5883, 5882, 9384 | BFD over one hop and several, asynchronous (`driver` has the sockets) |
//! | 8950, 2545 | IPv4 routes with IPv6 next hops, link-local next hops, peers by interface |
//! | 7854, 9069, 8671 | BMP: collectors hear of sessions, Adj-RIB-In and Adj-RIB-Out before and after policy, Loc-RIB, statistics |
//! | 9234 | roles, ONLY_TO_CUSTOMER |
//! | 4486, 9003, 9687, 8654 | cease codes, shutdown text, send hold timer, extended messages |
//! | 2385, 5925, 5082 | TCP MD5, also for whole prefixes, TCP-AO where the kernel has it, and GTSM (`driver`) |
//! | 8212 | without a policy nothing passes between systems (`voile-bgpd`) |

pub mod attr;
pub mod bfd;
pub mod bmp;
pub mod config;
pub mod decision;
#[cfg(feature = "driver")]
pub mod driver;
mod effort;
mod fib;
pub mod filter;
mod index;
pub mod mrt;
mod prefetch;
mod random;
#[cfg(feature = "report")]
pub mod report;
mod rib;
mod session;
pub mod snapshot;
mod speaker;
mod types;
mod update_group;
mod watched;
pub mod wire;

pub use self::{
    attr::{Community, LargeCommunity, PathAttributes},
    config::{AddPathMode, PeerConfig, PeerGroup, SpeakerConfig},
    decision::Why,
    fib::{FibNextHop, FibOutcome, FibRoute, FibUpdate, NextHopAnswer, ResolvingRoute},
    session::State,
    speaker::{
        BfdSession, ConnectRequest, ConnectionId, InterfaceDown, LocalNetworks, LocalRoute, Output,
        PeerAction, PeerEvent, Shutdown, Slice, Speaker,
    },
    types::{Asn, Families, Family, MalformedPrefix, PeerType, Prefix, Role, RouterId},
};
