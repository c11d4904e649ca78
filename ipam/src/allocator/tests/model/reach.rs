//! What each node touches, now and from here on. Steps that touch nothing in common may be tried in one order only; `model.rs` says why.
//!
//! Who touches what later is not assumed but learned, for each conversation: what its continuations were seen to touch. Where something was
//! left out that turns out to matter, the explorer looks again.

use super::actors::LocalId;
use super::world::{Ask, Dictionary, Kind};

/// Names that are read or written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Touch {
    reads: u128,
    writes: u128,
    /// Kinds that are read as a whole, by their number.
    kinds: u8,
    /// The judge can see it.
    is_visible: bool,
}

/// Every kind.
const EVERYTHING: u8 = u8::MAX;

impl Touch {
    pub(super) fn of(ask: &Ask) -> Self {
        let mut touch = Self::default();
        match *ask {
            Ask::Start | Ask::Wait => {}
            Ask::Look => touch.kinds = EVERYTHING,
            Ask::List(kind) => touch.kinds = bit(kind),
            Ask::Get(key) => touch.reads = 1 << key,
            Ask::Create(key, _) | Ask::Update(key, ..) | Ask::Delete(key, ..) => {
                touch.reads = 1 << key;
                touch.writes = 1 << key;
            }
        }
        touch
    }

    pub(super) fn reading_kind(mut self, kind: Kind) -> Self {
        self.kinds |= bit(kind);
        self
    }

    pub(super) fn reading(mut self, names: u128) -> Self {
        self.reads |= names;
        self
    }

    pub(super) fn seen(mut self) -> Self {
        self.is_visible = true;
        self
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            reads: self.reads | other.reads,
            writes: self.writes | other.writes,
            kinds: self.kinds | other.kinds,
            is_visible: self.is_visible || other.is_visible,
        }
    }
}

fn bit(kind: Kind) -> u8 {
    1 << (kind as u8)
}

/// What is known so far of every conversation's continuations.
#[derive(Default)]
pub(super) struct Reach {
    /// By conversation.
    later: Vec<Touch>,
    before: Vec<Vec<LocalId>>,
    /// Names of each kind.
    of_kind: [u128; 4],
    names: usize,
}

fn at(local: LocalId) -> usize {
    usize::try_from(local).unwrap()
}

impl Reach {
    /// There is one conversation more.
    pub(super) fn grow(&mut self) {
        self.later.push(Touch::default());
        self.before.push(Vec::new());
    }

    /// Takes note of new names.
    pub(super) fn keep_up(&mut self, dictionary: &Dictionary) {
        for key in dictionary.keys().skip(self.names) {
            self.of_kind[dictionary.name(key).0 as usize] |= 1 << key;
            self.names += 1;
        }
    }

    /// Whether it can make a difference which of two comes first.
    pub(super) fn meet(&self, one: &Touch, other: &Touch) -> bool {
        self.disturbs(one, other)
            || self.disturbs(other, one)
            || (one.is_visible && other.is_visible)
    }

    fn disturbs(&self, writer: &Touch, reader: &Touch) -> bool {
        let kinds = self.of_kind.iter().zip(0_u8..);
        let wholes = kinds.filter(|(_, kind)| reader.kinds & (1 << kind) != 0);
        let read = wholes.fold(reader.reads, |read, (names, _)| read | names);
        writer.writes & read != 0
    }

    /// Whether a step meets anything that is known to come of a conversation.
    pub(super) fn meets_later(&self, step: &Touch, local: LocalId) -> bool {
        self.meet(step, &self.later[at(local)])
    }

    /// A conversation was seen to touch something next.
    pub(super) fn touches(&mut self, local: LocalId, touch: &Touch) {
        let mut open = vec![(local, *touch)];
        while let Some((local, touch)) = open.pop() {
            let known = self.later[at(local)];
            let all = known.and(touch);
            if all == known {
                continue;
            }
            self.later[at(local)] = all;
            open.extend(self.before[at(local)].iter().map(|before| (*before, all)));
        }
    }

    /// A conversation was seen to go on as another.
    pub(super) fn goes_on(&mut self, from: LocalId, to: LocalId) {
        if self.before[at(to)].last() != Some(&from) {
            self.before[at(to)].push(from);
            let later = self.later[at(to)];
            self.touches(from, &later);
        }
    }
}
