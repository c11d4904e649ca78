//! Peers that are not named one by one: whoever connects from a prefix, or whoever is at the other end of an interface.

use std::{fmt, net::IpAddr};

use super::PeerConfig;
use crate::types::{Asn, Prefix};

/// Peers that come and go by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerGroup {
    /// Identifies the group; unique among groups and peers.
    pub name: String,
    /// Who belongs to it.
    pub members: Members,
    /// Their autonomous systems.
    pub asns: AcceptedAs,
    /// Most members at a time.
    pub limit: usize,
    /// Everything else. Name, address, AS number, interface and `passive` are those of the member.
    pub template: PeerConfig,
}

/// Who belongs to a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Members {
    /// Routers that connect to us from these addresses.
    Range(Prefix),
    /// The router at the other end of this interface, by its link-local address.
    Interface(String),
}

/// Autonomous systems that a member may be in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AcceptedAs {
    /// Any but ours.
    External,
    /// Ours.
    Internal,
    /// Those within a range, both ends included.
    Ranges(Vec<(Asn, Asn)>),
}

impl AcceptedAs {
    /// Says whether a member may be in this system.
    pub fn accepts(&self, asn: Asn, local_as: Asn) -> bool {
        match self {
            Self::External => asn != local_as,
            Self::Internal => asn == local_as,
            Self::Ranges(ranges) => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&asn))
            }
        }
    }

    /// Returns the only system that is possible; 0 if there are several.
    fn only(&self, local_as: Asn) -> Asn {
        match self {
            Self::Internal => local_as,
            Self::Ranges(ranges) => match ranges.as_slice() {
                [(first, last)] if first == last => *first,
                _ => Asn(0),
            },
            Self::External => Asn(0),
        }
    }
}

impl fmt::Display for AcceptedAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::External => f.write_str("any other AS"),
            Self::Internal => f.write_str("our own AS"),
            Self::Ranges(ranges) => {
                for (index, (first, last)) in ranges.iter().enumerate() {
                    f.write_str(if index == 0 { "AS " } else { ", " })?;
                    if first == last {
                        write!(f, "{first}")?;
                    } else {
                        write!(f, "{first} to {last}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl PeerGroup {
    /// Returns the configuration of a member. Its AS number is 0 until it says which it is.
    pub(crate) fn member(&self, address: IpAddr, local_as: Asn) -> PeerConfig {
        let local_as = self.template.local_as.unwrap_or(local_as);
        let (name, interface, passive) = match &self.members {
            Members::Range(_) => {
                (format!("{}[{address}]", self.name), self.template.interface.clone(), true)
            }
            Members::Interface(interface) => {
                (self.name.clone(), Some(interface.clone()), self.template.passive)
            }
        };
        let asn = self.asns.only(local_as);
        // There may be no IPv4 on the link.
        let extended_next_hop =
            self.template.extended_next_hop || matches!(self.members, Members::Interface(_));
        PeerConfig {
            name,
            address,
            asn,
            interface,
            passive,
            extended_next_hop,
            ..self.template.clone()
        }
    }
}
