//! Hundreds of speakers in one process on virtual time: whatever is lost, restarted and cut off, all end in the state
//! that a computation from scratch gives.
//!
//! Everything random comes from one seed, which a failure prints; `VOILE_SEED=n` runs that one again.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test: what fails here fails it, with the reason"
)]

#[path = "fuzz/dice.rs"]
mod dice;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/trouble.rs"]
mod trouble;

use network::{Network, Topology};
use trouble::Trouble;

/// The seed to stop at, if one is to be looked at again.
fn replay() -> Option<u64> {
    std::env::var("VOILE_SEED").ok().map(|seed| seed.parse::<u64>().unwrap())
}

/// Runs a topology through trouble, once per seed, from the start each time.
fn survive(topology: Topology, seeds: std::ops::Range<u64>, rounds: usize) {
    let seeds = replay().map_or(seeds, |seed| seed..seed + 1);
    for seed in seeds {
        let story = format!("{topology:?}: VOILE_SEED={seed}");
        let mut network = Network::new(topology, seed);
        network.converge(&story);
        strike(&mut network, seed, rounds, &story);
    }
}

/// Runs one network through the trouble of one seed after the other: making it takes longer than what follows. Up to the
/// seed that is to be looked at again, everything happens as before.
fn survive_all(topology: Topology, seeds: std::ops::RangeInclusive<u64>, rounds: usize) {
    let last = replay().unwrap_or(*seeds.end());
    let mut network = Network::new(topology, *seeds.start());
    network.converge(&format!("{topology:?}: at the start"));
    eprintln!("{topology:?}: up after {:?}, {} events", network.elapsed(), network.events);
    for seed in *seeds.start()..=last {
        strike(&mut network, seed, rounds, &format!("{topology:?}: VOILE_SEED={seed}"));
    }
}

fn strike(network: &mut Network, seed: u64, rounds: usize, story: &str) {
    eprintln!("{story}");
    let mut trouble = Trouble::new(seed);
    for _ in 0..rounds {
        trouble.strike(network);
    }
    network.heal();
    network.converge(story);
    eprintln!("  converged after {:?}, {} events", network.elapsed(), network.events);
}

/// Everybody talks to everybody: 44,850 sessions.
#[test]
fn a_full_mesh_of_300_converges() {
    survive_all(Topology::Mesh { nodes: 300 }, 1..=2, 4);
}

/// Everybody talks to both reflectors, which talk to each other.
#[test]
fn a_thousand_nodes_behind_two_reflectors_converge() {
    survive_all(Topology::Reflectors { nodes: 1000 }, 1..=3, 4);
}

/// Small ones run through many more kinds of trouble in the same time.
#[test]
fn small_meshes_converge_after_long_trouble() {
    survive(Topology::Mesh { nodes: 8 }, 1..25, 40);
}

#[test]
fn small_reflections_converge_after_long_trouble() {
    survive(Topology::Reflectors { nodes: 8 }, 1..25, 40);
}
