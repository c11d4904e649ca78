//! Communities of three sizes.

use std::{fmt, str::FromStr};

/// A community (RFC 1997).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Not to other autonomous systems.
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// Not to any peer.
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// Not to other autonomous systems, not even within a confederation.
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
    /// The sender is about to go (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
    /// The route outlived its peer by long (RFC 9494): the last choice.
    pub const LLGR_STALE: Self = Self(0xffff_0006);
    /// The route must not outlive its peer by long (RFC 9494).
    pub const NO_LLGR: Self = Self(0xffff_0007);
    /// Traffic to the prefix shall be discarded (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xffff_029a);

    /// Returns the two halves as operators write them, whether there is a name or not.
    pub fn number(self) -> String {
        format!("{}:{}", self.0 >> 16, self.0 & 0xffff)
    }

    /// Those with a name.
    const NAMED: [(Self, &str); 7] = [
        (Self::NO_EXPORT, "no-export"),
        (Self::NO_ADVERTISE, "no-advertise"),
        (Self::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
        (Self::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
        (Self::LLGR_STALE, "llgr-stale"),
        (Self::NO_LLGR, "no-llgr"),
        (Self::BLACKHOLE, "blackhole"),
    ];
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(community, _)| community == self) {
            Some((_, name)) => f.write_str(name),
            None => f.write_str(&self.number()),
        }
    }
}

/// An extended community (RFC 4360), unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

impl ExtendedCommunity {
    /// Says whether it may leave the autonomous system (RFC 4360 §2).
    pub const fn is_transitive(self) -> bool {
        let [kind, ..] = self.0;
        kind & 0x40 == 0
    }
}

/// A large community (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// Who defines the rest.
    pub global: u32,
    /// First part.
    pub local_1: u32,
    /// Second part.
    pub local_2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local_1, self.local_2)
    }
}

/// Text that is no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no community; write 64512:100, or 64512:1:2 for a large one, or a name like no-export"
)]
pub struct MalformedCommunity(String);

impl FromStr for Community {
    type Err = MalformedCommunity;

    fn from_str(text: &str) -> Result<Self, MalformedCommunity> {
        if let Some((known, _)) = Self::NAMED.iter().find(|(_, name)| *name == text) {
            return Ok(*known);
        }
        let halves = text
            .split_once(':')
            .and_then(|(high, low)| Some((high.parse::<u16>().ok()?, low.parse::<u16>().ok()?)));
        let (high, low) = halves.ok_or_else(|| MalformedCommunity(text.to_owned()))?;
        Ok(Self(u32::from(high) << 16 | u32::from(low)))
    }
}

impl FromStr for LargeCommunity {
    type Err = MalformedCommunity;

    fn from_str(text: &str) -> Result<Self, MalformedCommunity> {
        let mut parts = text.split(':').map(|part| part.parse::<u32>().ok());
        let mut next = || parts.next().flatten();
        let community = (next(), next(), next());
        match (community, parts.next()) {
            ((Some(global), Some(local_1), Some(local_2)), None) => {
                Ok(Self { global, local_1, local_2 })
            }
            _ => Err(MalformedCommunity(text.to_owned())),
        }
    }
}
