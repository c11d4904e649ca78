//! The fuzz targets in `cargo test`: the committed corpora, then inputs made from them by a mutator with a fixed seed.
//!
//! `VOILE_FUZZ_SECONDS=600 cargo test -p bgp --test fuzz` goes on for longer, from a seed that it prints (`VOILE_SEED=n`
//! repeats it); an input that fails is written to `bgp/fuzz/artifacts`. `bgp/fuzz` has the same targets for
//! coverage-guided fuzzing.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a test: what fails here fails it, with the reason"
)]

#[path = "fuzz/dice.rs"]
mod dice;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/targets.rs"]
mod targets;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use mutate::Mutator;

/// Inputs made per target without `VOILE_FUZZ_SECONDS`.
const CASES: usize = 3000;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder("corpus").join(target)).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus of {target}");
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn try_one(name: &str, target: fn(&[u8]), input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| target(input));
    if outcome.is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        let artifacts = folder("artifacts");
        let _ = std::fs::create_dir_all(&artifacts);
        let _ = std::fs::write(artifacts.join(format!("{name}-{}", input.len())), input);
        panic!("{name} failed on {hex}");
    }
}

fn run(name: &str) {
    let (_, target) =
        targets::TARGETS.into_iter().find(|(each, _)| *each == name).expect("a target");
    let seeds = corpus(name);
    for input in &seeds {
        try_one(name, target, input);
    }
    let seconds = std::env::var("VOILE_FUZZ_SECONDS").ok().map(|text| text.parse().unwrap());
    let seed = std::env::var("VOILE_SEED").ok().map(|text| text.parse().unwrap());
    let clock =
        || SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| u64::from(since.subsec_nanos()));
    let seed = seed.unwrap_or_else(|| if seconds.is_some() { clock() } else { 1 });
    eprintln!("{name}: VOILE_SEED={seed}");
    let mut mutator = Mutator::new(seed, seeds);
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut count = 0;
    while end.map_or(count < CASES, |end| Instant::now() < end) {
        try_one(name, target, &mutator.next());
        count += 1;
    }
    eprintln!("{name}: {count} inputs");
}

#[test]
fn any_bytes_decode_or_are_refused() {
    run("decode");
}

#[test]
fn what_is_read_can_be_written_and_read_again() {
    run("table");
}

#[test]
fn no_script_of_events_breaks_a_session_for_good() {
    run("session");
}

#[test]
fn the_order_of_arrival_decides_nothing() {
    run("decision");
}
