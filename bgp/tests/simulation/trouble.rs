//! What can go wrong, rolled with dice.

use std::time::Duration;

use crate::{dice::Dice, network::Network};

pub(crate) struct Trouble {
    dice: Dice,
}

impl Trouble {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed) }
    }

    /// One piece of trouble, and some time for it to work.
    pub(crate) fn strike(&mut self, network: &mut Network) {
        let nodes = network.topology.nodes();
        match self.dice.roll(10) {
            0 | 1 => {
                for _ in 0..=self.dice.roll(nodes) {
                    network.break_connection(self.dice.roll(nodes));
                }
            }
            2..=4 => {
                for _ in 0..=self.dice.roll(nodes / 8 + 2) {
                    let node = self.dice.roll(nodes);
                    if network.is_up(node) {
                        network.kill(node);
                    } else {
                        let restarting = self.dice.roll(2) == 0;
                        network.boot(node, restarting);
                    }
                }
            }
            5 => {
                let border = self.dice.roll(nodes);
                network.divide(|node| u8::from(node < border));
            }
            6 => {
                let alone = self.dice.roll(nodes);
                network.divide(|node| u8::from(node == alone));
            }
            7 => network.divide(|_| 0),
            _ => {
                for _ in 0..=self.dice.roll(nodes) {
                    network.toggle(self.dice.roll(nodes), 1 + self.dice.roll(2));
                }
            }
        }
        let pause = [1, 20, 300, 3_000, 25_000, 70_000][self.dice.roll(6)];
        network.run_for(Duration::from_millis(pause));
    }
}
