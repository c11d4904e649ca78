//! Eight allocators race for addresses while they are killed, their requests lost, repeated and refused, their watches late,
//! and a pool changes its block size; in the end nothing is lost and nothing is given twice.
//!
//! This program starts itself again as an allocator. `VOILE_SEED` repeats the dice of a run (not the order of events),
//! `VOILE_RACE_OPERATIONS` makes it shorter or longer.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test: what fails here fails it, with the reason"
)]

mod crowd;
mod journal;
mod judge;
mod judge_cases;
mod proxy;
mod scene;
mod witness;
mod worker;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use store::random::Random;
use voile_tests::skip;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(crowd::WORKER) {
        return worker::main();
    }
    let mut arguments = Arguments::from_args();
    // A race has the machine for itself.
    arguments.test_threads = Some(1);
    let seed = std::env::var("VOILE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| Random::from_entropy().below(1_000_000));
    let mut trials: Vec<Trial> = judge_cases::cases()
        .map(|(name, case)| {
            Trial::test(name, move || {
                case();
                Ok(())
            })
        })
        .collect();
    let servers: [(&str, scene::Start); 2] =
        [("lab_api_server", scene::lab), ("real_api_server", scene::real)];
    for (name, start) in servers {
        trials.push(Trial::test(name, move || {
            if let Err(why) = scene::race(name, start, seed) {
                skip(name, &why);
            }
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
