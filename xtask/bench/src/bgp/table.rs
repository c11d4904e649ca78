//! Which prefixes a peer holds, and whether these are exactly the ones that it should.

use std::sync::Arc;

use super::wire::{self, Update};

/// All prefixes of a scenario: of one length, side by side, so that a prefix is a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Universe {
    pub(crate) base: u32,
    pub(crate) length: u8,
    pub(crate) count: u32,
}

impl Universe {
    fn shift(self) -> u32 {
        u32::from(32_u8.saturating_sub(self.length))
    }

    pub(crate) fn address(self, number: u32) -> u32 {
        self.base.wrapping_add(number << self.shift())
    }

    fn number(self, address: u32, length: u8) -> Option<u32> {
        let number = address.checked_sub(self.base)? >> self.shift();
        (length == self.length && number < self.count && self.address(number) == address)
            .then_some(number)
    }
}

/// How a receiver recognises that a prefix arrived with the attributes that it was announced with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The last AS of the path.
    Origin,
    /// The next hop, which a reflector leaves alone (RFC 4456 section 10).
    NextHop,
}

impl Mark {
    fn of(self, update: &Update<'_>) -> Option<u32> {
        let value = update.attribute(match self {
            Self::Origin => 2,
            Self::NextHop => 3,
        })?;
        Some(u32::from_be_bytes(*value.last_chunk::<4>()?))
    }
}

/// What every receiver of a scenario knows.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) universe: Universe,
    pub(crate) mark: Mark,
    /// The mark of each prefix.
    pub(crate) marks: Vec<u32>,
}

/// A set of prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    pub(crate) count: u32,
}

impl Bits {
    pub(crate) fn new(universe: Universe) -> Self {
        Self { words: vec![0; usize::try_from(universe.count.div_ceil(64)).unwrap_or(0)], count: 0 }
    }

    fn place(number: u32) -> (usize, u64) {
        (usize::try_from(number >> 6).unwrap_or(usize::MAX), 1 << (number & 63))
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        let (word, bit) = Self::place(number);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds or removes; returns whether that changed anything.
    pub(crate) fn set(&mut self, number: u32, present: bool) -> bool {
        let (word, bit) = Self::place(number);
        let Some(word) = self.words.get_mut(word) else { return false };
        if (*word & bit != 0) == present {
            return false;
        }
        *word ^= bit;
        if present {
            self.count += 1;
        } else {
            self.count -= 1;
        }
        true
    }
}

/// What one peer holds.
#[derive(Debug)]
pub(crate) struct Table {
    truth: Arc<Truth>,
    present: Bits,
    expected: Arc<Bits>,
    /// What it announces itself. A speaker may send that back (FRR does, for its update groups): loop detection drops it.
    own: Arc<Bits>,
    /// Prefixes that nobody of this scenario announces.
    unknown: u64,
    /// Prefixes that came with attributes of others.
    mixed_up: u64,
    /// How often a prefix came or went.
    pub(crate) changes: u64,
}

impl Table {
    pub(crate) fn new(truth: Arc<Truth>, expected: Arc<Bits>, own: Arc<Bits>) -> Self {
        let present = Bits::new(truth.universe);
        Self { truth, present, expected, own, unknown: 0, mixed_up: 0, changes: 0 }
    }

    /// Forgets everything, as at the end of a session.
    pub(crate) fn clear(&mut self) {
        let (expected, own) = (Arc::clone(&self.expected), Arc::clone(&self.own));
        *self = Self::new(Arc::clone(&self.truth), expected, own);
    }

    /// Changes what should be here.
    pub(crate) fn expect(&mut self, expected: Arc<Bits>) {
        self.expected = expected;
    }

    /// Applies the body of an UPDATE.
    pub(crate) fn update(&mut self, body: &[u8]) -> Result<(), String> {
        let malformed = || "it sent a malformed UPDATE".to_owned();
        let update = Update::new(body).ok_or_else(malformed)?;
        let truth = Arc::clone(&self.truth);
        let mut whole = wire::prefixes(update.withdrawn, |address, length| {
            if let Some(number) = truth.universe.number(address, length)
                && self.present.set(number, false)
            {
                self.changes += 1;
            }
        });
        if !update.announced.is_empty() {
            let mark = truth.mark.of(&update);
            whole &= wire::prefixes(update.announced, |address, length| {
                let Some(number) = truth.universe.number(address, length) else {
                    self.unknown += 1;
                    return;
                };
                if self.own.has(number) {
                    return;
                }
                let index = usize::try_from(number).unwrap_or(usize::MAX);
                if truth.marks.get(index).copied() != mark {
                    self.mixed_up += 1;
                }
                if self.present.set(number, true) {
                    self.changes += 1;
                }
            });
        }
        if whole { Ok(()) } else { Err(malformed()) }
    }

    /// Whether exactly the expected prefixes are here, each with its own attributes.
    ///
    /// The sets are compared only when they are equally large: once or twice, not with every prefix.
    pub(crate) fn is_exact(&self) -> bool {
        self.present.count == self.expected.count
            && self.unknown == 0
            && self.mixed_up == 0
            && self.present == *self.expected
    }

    /// What is wrong, for people.
    pub(crate) fn complaint(&self) -> String {
        let both = self.present.words.iter().zip(&self.expected.words);
        let matching: u32 = both.map(|(a, b)| (a & b).count_ones()).sum();
        let missing = self.expected.count - matching;
        let extra = u64::from(self.present.count - matching) + self.unknown;
        format!(
            "{missing} of {} prefixes missing, {extra} too many, {} with attributes of others",
            self.expected.count, self.mixed_up
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{super::wire::Attributes, *};

    const UNIVERSE: Universe = Universe { base: 0x1000_0000, length: 24, count: 100 };

    fn body(attributes: &Attributes, numbers: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        let addresses = numbers.iter().map(|number| UNIVERSE.address(*number));
        wire::announce(&mut out, attributes, addresses, 24);
        out.split_off(19)
    }

    fn table(expected: &[u32]) -> Table {
        let marks = (0..100).map(|number| if number < 10 { 7 } else { 8 }).collect();
        let mut bits = Bits::new(UNIVERSE);
        for number in expected {
            bits.set(*number, true);
        }
        let truth = Truth { universe: UNIVERSE, mark: Mark::Origin, marks };
        let mut own = Bits::new(UNIVERSE);
        own.set(50, true);
        Table::new(Arc::new(truth), Arc::new(bits), Arc::new(own))
    }

    #[test]
    fn exact_means_nothing_missing_nothing_extra_nothing_mixed_up() {
        let seven = Attributes { path: vec![65001, 7], ..Attributes::default() };
        let mut table = table(&[1, 2]);
        table.update(&body(&seven, &[1])).unwrap();
        assert!(!table.is_exact());
        table.update(&body(&seven, &[1, 2])).unwrap();
        assert!(table.is_exact());
        table.update(&body(&seven, &[3])).unwrap();
        assert_eq!(
            table.complaint(),
            "0 of 2 prefixes missing, 1 too many, 0 with attributes of others"
        );
        let mut out = Vec::new();
        wire::withdraw(&mut out, &[UNIVERSE.address(3)], 24);
        table.update(&out.split_off(19)).unwrap();
        assert!(table.is_exact());
        table.update(&body(&seven, &[50])).unwrap();
        assert!(table.is_exact(), "its own came back");
        table.update(&body(&seven, &[1, 11])).unwrap();
        assert!(table.complaint().ends_with("1 with attributes of others"));
    }
}
