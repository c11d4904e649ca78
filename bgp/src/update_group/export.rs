//! What a peer is told about a path: the rules of RFC 4271 §9.2, RFC 4456 and RFC 1997, then policy.

use std::{borrow::Cow, fmt, net::IpAddr};

use crate::{
    attr::{Community, NextHop, PathAttributes},
    config::NextHopMode,
    filter::{Action, Policy, Source, Subject, Verdict},
    types::{Asn, Families, Family, PeerType, Prefix, Role, RouterId},
};

/// Everything that makes announcements to two peers the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupKey {
    pub(crate) peer_type: PeerType,
    pub(crate) client: bool,
    pub(crate) local_as: Asn,
    pub(crate) cluster_id: RouterId,
    pub(crate) families: Families,
    /// Families whose paths are all told (RFC 7911).
    pub(crate) add_path: Families,
    pub(crate) four_octet_as: bool,
    pub(crate) limit: usize,
    pub(crate) next_hop: NextHopMode,
    pub(crate) own_ipv4: Option<IpAddr>,
    pub(crate) own_ipv6: Option<IpAddr>,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub(crate) extended_next_hop: bool,
    pub(crate) local_pref: u32,
    /// The sessions are about to end (RFC 8326).
    pub(crate) graceful_shutdown: bool,
    pub(crate) role: Option<Role>,
    /// The peers know long-lived graceful restart.
    pub(crate) long_lived: bool,
    pub(crate) export: Policy,
}

/// Who a path is from, as export rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Local,
    Peer { peer_type: PeerType, client: bool, router_id: RouterId },
}

/// Why a path is not announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Withheld {
    Internal,
    Community(Community),
    Policy(String),
    NoNextHop(Family),
    RouteLeak,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internal => {
                f.write_str("learned from an internal peer, and neither is a reflection client")
            }
            Self::Community(community) => write!(f, "carries {community}"),
            Self::Policy(why) => write!(f, "rejected by export policy: {why}"),
            Self::RouteLeak => {
                f.write_str("carries ONLY_TO_CUSTOMER, and the peer is none (RFC 9234)")
            }
            Self::NoNextHop(family) => write!(f, "no address of ours for {family}"),
        }
    }
}

/// Returns what the members of a group are told.
pub(crate) fn outgoing(
    key: &GroupKey,
    prefix: &Prefix,
    path: Cow<'_, PathAttributes>,
    sender: &Sender,
) -> Result<PathAttributes, Withheld> {
    check_scope(key, &path, sender)?;
    let verdict = judge(key, prefix, &path, sender);
    if verdict.action == Action::Reject {
        return Err(Withheld::Policy(verdict.why.to_string()));
    }
    let received = path.next_hop;
    let mut attributes = path.into_owned();
    if key.is_external() && *sender != Sender::Local {
        // RFC 4271 §5.1.4: a received MED goes no further.
        attributes.med = None;
    }
    for operation in verdict.operations {
        operation.apply(&mut attributes);
    }
    if key.graceful_shutdown {
        // RFC 8326 §4.1.
        attributes.add_community(Community::GRACEFUL_SHUTDOWN);
        attributes.local_pref = Some(0);
    }
    attributes.next_hop = Some(next_hop(key, prefix.family(), received, sender)?);
    match key.peer_type {
        PeerType::External => make_external(key, &mut attributes),
        PeerType::Internal => make_internal(key, &mut attributes, sender),
    }
    Ok(attributes)
}

/// Returns what export policy says about a path.
pub(crate) fn judge<'a>(
    key: &'a GroupKey,
    prefix: &Prefix,
    path: &PathAttributes,
    sender: &Sender,
) -> Verdict<'a> {
    let source = match sender {
        Sender::Local => Source::Local,
        Sender::Peer { .. } => Source::Peers,
    };
    let subject = Subject { prefix: *prefix, attributes: path, source, peer_type: key.peer_type };
    key.export.judge(&subject)
}

fn check_scope(key: &GroupKey, path: &PathAttributes, sender: &Sender) -> Result<(), Withheld> {
    // What we originate with such a community is marked for the receiver (RFC 1997: "received").
    if *sender != Sender::Local {
        let within = [Community::NO_ADVERTISE];
        let outside =
            [Community::NO_ADVERTISE, Community::NO_EXPORT, Community::NO_EXPORT_SUBCONFED];
        let barred: &[Community] = if key.is_external() { &outside } else { &within };
        if let Some(community) = barred.iter().find(|each| path.has(**each)) {
            return Err(Withheld::Community(*community));
        }
    }
    // RFC 9494 §4.3.
    if path.has(Community::LLGR_STALE) && !key.long_lived {
        return Err(Withheld::Community(Community::LLGR_STALE));
    }
    // RFC 9234 §5.
    let upwards = [Some(Role::Customer), Some(Role::Peer), Some(Role::RouteServerClient)];
    if key.is_external() && upwards.contains(&key.role) && path.only_to_customer().is_some() {
        return Err(Withheld::RouteLeak);
    }
    // RFC 4456 §6: between internal peers only to or from a client.
    match sender {
        Sender::Peer { peer_type: PeerType::Internal, client: false, .. }
            if key.peer_type == PeerType::Internal && !key.client =>
        {
            Err(Withheld::Internal)
        }
        _ => Ok(()),
    }
}

fn next_hop(
    key: &GroupKey,
    family: Family,
    received: Option<NextHop>,
    sender: &Sender,
) -> Result<NextHop, Withheld> {
    let own = match key.next_hop {
        NextHopMode::Own => true,
        NextHopMode::Keep => false,
        NextHopMode::Auto => key.is_external() || *sender == Sender::Local,
    };
    // A link-local address means nothing on another link.
    let fits = |address: IpAddr| match address {
        IpAddr::V4(_) => family == Family::Ipv4,
        IpAddr::V6(v6) => {
            !v6.is_unicast_link_local() && (family == Family::Ipv6 || key.extended_next_hop)
        }
    };
    let kept = received.map(|next_hop| next_hop.address);
    let kept = kept.filter(|address| !own && fits(*address)).map(NextHop::from);
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let own = match family {
        Family::Ipv4 => key.own_ipv4,
        Family::Ipv6 => key.own_ipv6,
    };
    own.map(NextHop::from).ok_or(Withheld::NoNextHop(family))
}

fn make_external(key: &GroupKey, attributes: &mut PathAttributes) {
    // RFC 9234 §5: for customers, peers and clients of a route server only.
    if matches!(key.role, Some(Role::Provider | Role::Peer | Role::RouteServer)) {
        attributes.mark_only_to_customer(key.local_as);
    }
    attributes.as_path.prepend(key.local_as);
    attributes.local_pref = None;
    attributes.originator_id = None;
    attributes.cluster_list.clear();
    attributes.extended_communities.retain(|each| each.is_transitive());
}

fn make_internal(key: &GroupKey, attributes: &mut PathAttributes, sender: &Sender) {
    attributes.local_pref.get_or_insert(key.local_pref);
    if let Sender::Peer { peer_type: PeerType::Internal, router_id, .. } = sender {
        attributes.originator_id.get_or_insert(*router_id);
        attributes.cluster_list.insert(0, key.cluster_id);
    }
}
