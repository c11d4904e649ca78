//! A path, and the few of them that a prefix has.

use super::PeerId;
use crate::attr::AttrId;

/// Why a received path is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rejection {
    OwnAs,
    FirstAs,
    OwnOriginator,
    OwnCluster,
    NextHop,
    OwnNextHop,
    OffLink,
    Martian,
    RouteLeak,
    MappedNextHop,
    TooLong,
    Policy,
}

impl Rejection {
    /// Says whether a next hop or prefix makes no sense, although it is well-formed (RFC 4271 §6.3).
    pub(crate) const fn is_semantic(self) -> bool {
        matches!(
            self,
            Self::NextHop
                | Self::OwnNextHop
                | Self::OffLink
                | Self::Martian
                | Self::MappedNextHop
                | Self::FirstAs
        )
    }

    /// Returns the reason in words.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::FirstAs => "the path does not begin with the AS of the peer",
            Self::OwnAs => "our own AS is in the path",
            Self::OwnOriginator => "we originated it",
            Self::OwnCluster => "it passed our reflection cluster",
            Self::NextHop => "the next hop is no router we could send to",
            Self::OwnNextHop => "the next hop is this router",
            Self::OffLink => {
                "the next hop is neither the peer nor on a network of ours; if it may be further away, set multihop"
            }
            Self::Martian => "no prefix of unicast addresses",
            Self::RouteLeak => "a route leak: the peer may not pass it on to us (RFC 9234)",
            Self::MappedNextHop => {
                "the next hop is an IPv4 address in IPv6 form; give the peer an IPv6 address on this \
                 link, or have it set one (FRR: set ipv6 next-hop global)"
            }
            Self::TooLong => "an attribute would be too long to be passed on",
            Self::Policy => "import policy",
        }
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.why())
    }
}

/// What import made of a path that it let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The attributes after import policy.
    pub(crate) set: AttrId,
    /// Whether packets are dropped, as agreed with the peer (RFC 7999).
    pub(crate) blackhole: bool,
}

impl From<AttrId> for Accepted {
    fn from(set: AttrId) -> Self {
        Self { set, blackhole: false }
    }
}

/// What became of a path in import, without the attributes: the two together would take more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Blackholed,
    Rejected(Rejection),
}

impl Verdict {
    fn split(import: Result<Accepted, Rejection>) -> (Option<AttrId>, Self) {
        match import {
            Ok(Accepted { set, blackhole: false }) => (Some(set), Self::Accepted),
            Ok(Accepted { set, blackhole: true }) => (Some(set), Self::Blackholed),
            Err(rejection) => (None, Self::Rejected(rejection)),
        }
    }
}

/// What makes a path the successor of another one: who sent it, and under which identifier (RFC 7911 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PathKey {
    pub(crate) source: PeerId,
    /// 0 without ADD-PATH.
    pub(crate) path_id: u32,
}

impl From<PeerId> for PathKey {
    fn from(source: PeerId) -> Self {
        Self { source, path_id: 0 }
    }
}

/// It outlived what it was learned in.
const STALE: u8 = 0x80;

/// When a path was written, or what its peer is told to lose was ordered. Counts per source, and goes round: two of them
/// are compared only while they are close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Epoch(u8);

impl Epoch {
    /// Fewer than this lie between any two that are compared.
    pub(super) const REACH: usize = 32;

    pub(super) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1) & !STALE)
    }

    pub(super) const fn is_before(self, other: Self) -> bool {
        let ahead = other.0.wrapping_sub(self.0) & !STALE;
        ahead != 0 && ahead < STALE / 2
    }
}

/// A path as received, and what import policy made of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) key: PathKey,
    pub(crate) received: AttrId,
    accepted: Option<AttrId>,
    verdict: Verdict,
    /// [`STALE`], and when it was written.
    marks: u8,
    /// Our name for the path towards ADD-PATH peers; unique in its slot and kept as long as the path lives.
    pub(super) local_id: u16,
}

impl Path {
    pub(crate) fn new(key: PathKey, received: AttrId, import: Result<Accepted, Rejection>) -> Self {
        let (accepted, verdict) = Verdict::split(import);
        Self { key, received, accepted, verdict, marks: 0, local_id: 0 }
    }

    /// What was written last; walks that are under way know better (see [`super::Rib::fate`]).
    pub(super) const fn is_stale(&self) -> bool {
        self.marks & STALE != 0
    }

    pub(super) const fn set_stale(&mut self, stale: bool) {
        self.marks = if stale { self.marks | STALE } else { self.marks & !STALE };
    }

    pub(super) const fn epoch(&self) -> Epoch {
        Epoch(self.marks & !STALE)
    }

    pub(super) const fn set_epoch(&mut self, epoch: Epoch) {
        self.marks = self.marks & STALE | epoch.0;
    }

    /// Takes another verdict of import policy.
    pub(super) fn set_import(&mut self, import: Result<Accepted, Rejection>) {
        (self.accepted, self.verdict) = Verdict::split(import);
    }

    /// Returns the attributes after import policy.
    pub(crate) fn accepted(&self) -> Result<AttrId, Rejection> {
        self.accepted.ok_or(match self.verdict {
            Verdict::Rejected(rejection) => rejection,
            Verdict::Accepted | Verdict::Blackholed => Rejection::Policy,
        })
    }

    /// Returns what import made of it.
    pub(crate) fn import(&self) -> Result<Accepted, Rejection> {
        let blackhole = self.is_blackholed();
        self.accepted().map(|set| Accepted { set, blackhole })
    }

    /// Says whether packets are dropped, as agreed with the peer (RFC 7999).
    pub(crate) fn is_blackholed(&self) -> bool {
        self.verdict == Verdict::Blackholed
    }

    pub(crate) fn local_id(&self) -> u32 {
        u32::from(self.local_id)
    }
}

/// The paths of a slot. One is the usual case and needs no allocation.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "a slot must be small: most have one path")]
pub(super) enum Paths {
    #[default]
    None,
    One(Path),
    Many(Box<Vec<Path>>),
}

impl Paths {
    /// The first path of a prefix.
    pub(super) const fn one(mut path: Path) -> Self {
        path.local_id = 1;
        Self::One(path)
    }

    pub(super) fn as_slice(&self) -> &[Path] {
        match self {
            Self::None => &[],
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Self::None => &mut [],
            Self::One(path) => std::slice::from_mut(path),
            Self::Many(paths) => paths,
        }
    }

    pub(super) fn find(&self, key: PathKey) -> Option<usize> {
        self.as_slice().iter().position(|path| path.key == key)
    }

    /// Adds a path behind the others, under the smallest free local identifier.
    pub(super) fn push(&mut self, mut path: Path) {
        // Among one more than there are, one is free.
        let mut used = vec![false; self.as_slice().len()];
        for other in self.as_slice() {
            let place = usize::from(other.local_id).checked_sub(1);
            if let Some(place) = place.and_then(|place| used.get_mut(place)) {
                *place = true;
            }
        }
        let free = used.iter().position(|used| !used).unwrap_or(used.len());
        path.local_id = u16::try_from(free.saturating_add(1)).unwrap_or(u16::MAX);
        *self = match std::mem::take(self) {
            Self::None => Self::one(path),
            Self::One(first) => Self::Many(Box::new(vec![first, path])),
            Self::Many(mut paths) => {
                paths.push(path);
                Self::Many(paths)
            }
        };
    }

    /// Removes a path; the order of the others stays.
    pub(super) fn remove(&mut self, index: usize) -> Option<Path> {
        if index >= self.as_slice().len() {
            return None;
        }
        match std::mem::take(self) {
            Self::None => None,
            Self::One(path) => Some(path),
            Self::Many(mut paths) => {
                let removed = paths.remove(index);
                *self = match paths.as_slice() {
                    [only] => Self::One(*only),
                    _ => Self::Many(paths),
                };
                Some(removed)
            }
        }
    }
}
