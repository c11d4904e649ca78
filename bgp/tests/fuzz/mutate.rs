//! Inputs from a corpus and a seed: flips, copies, insertions, interesting numbers, splices.

use crate::dice::Dice;

pub(crate) struct Mutator {
    dice: Dice,
    corpus: Vec<Vec<u8>>,
}

const INTERESTING: [u8; 12] = [0, 1, 2, 4, 7, 8, 16, 32, 33, 127, 128, 255];

impl Mutator {
    pub(crate) const fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self { dice: Dice::new(seed), corpus }
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.dice.roll(sides)
    }

    fn octet(&mut self) -> u8 {
        if self.roll(2) == 0 {
            let at = self.roll(INTERESTING.len());
            INTERESTING[at]
        } else {
            u8::try_from(self.roll(256)).unwrap()
        }
    }

    /// Returns the next input.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let chosen = self.roll(self.corpus.len());
        let mut input = self.corpus[chosen].clone();
        for _ in 0..=self.roll(6) {
            self.change(&mut input);
        }
        input.truncate(8192);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.roll(input.len());
        match self.roll(7) {
            0 => {
                let octet = self.octet();
                input.insert(at.min(input.len()), octet);
            }
            1 if !input.is_empty() => {
                input.remove(at);
            }
            2 if !input.is_empty() => {
                // A length or a count off by one.
                input[at] = input[at].wrapping_add(if self.roll(2) == 0 { 1 } else { 255 });
            }
            3 if !input.is_empty() => input[at] ^= 1 << self.roll(8),
            4 => {
                let chosen = self.roll(self.corpus.len());
                let other = self.corpus[chosen].clone();
                let from = self.roll(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            5 if !input.is_empty() => {
                let length = self.roll(24).min(input.len() - at);
                let copy = input[at..at + length].to_vec();
                let to = self.roll(input.len());
                input.splice(to..to, copy);
            }
            _ if !input.is_empty() => input[at] = self.octet(),
            _ => (),
        }
    }
}
