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
    RouteLeak,
    MappedNextHop,
    Policy,
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
    rejection: Option<Rejection>,
    /// [`STALE`], and when it was written.
    marks: u8,
    /// Our name for the path towards ADD-PATH peers; unique in its slot and kept as long as the path lives.
    pub(super) local_id: u16,
}

impl Path {
    pub(crate) fn new(key: PathKey, received: AttrId, accepted: Result<AttrId, Rejection>) -> Self {
        let (accepted, rejection) = (accepted.ok(), accepted.err());
        Self { key, received, accepted, rejection, marks: 0, local_id: 0 }
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
    pub(super) fn set_accepted(&mut self, accepted: Result<AttrId, Rejection>) {
        (self.accepted, self.rejection) = (accepted.ok(), accepted.err());
    }

    /// Returns the attributes after import policy.
    pub(crate) fn accepted(&self) -> Result<AttrId, Rejection> {
        self.accepted.ok_or(self.rejection.unwrap_or(Rejection::Policy))
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
