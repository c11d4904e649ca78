//! Our speaker beside the others: each scenario is a network of its own, all run side by side.
//!
//! When every scenario has run, their results are compared with the table in `docs/reference/bgp-interop.md`;
//! `UPDATE_EXPECT=1` writes it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test: what fails here fails it, with the reason"
)]

mod bird;
mod exabgp;
mod frr;
mod gobgp;
mod openbgpd;
mod scene;
mod table;

use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use libtest_mimic::{Arguments, Trial};
use voile_tests::{can_make_namespaces, skip};

/// What a scenario shows, with whom, and how.
struct Scenario {
    /// A row of the table.
    feature: &'static str,
    /// Distinguishes scenarios of one row and peer.
    name: &'static str,
    run: fn(),
}

/// Another speaker.
struct Speaker {
    name: &'static str,
    program: &'static str,
    scenarios: &'static [Scenario],
}

const SPEAKERS: &[Speaker] =
    &[bird::SPEAKER, frr::SPEAKER, gobgp::SPEAKER, openbgpd::SPEAKER, exabgp::SPEAKER];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Scenarios mostly wait.
    arguments.test_threads.get_or_insert(8);
    let results = Arc::new(Mutex::new(table::Results::default()));
    let mut trials = Vec::new();
    for speaker in SPEAKERS {
        let reason = if !can_make_namespaces() {
            Some("needs root".to_owned())
        } else if !Path::new(speaker.program).exists() {
            Some(format!("{} is not installed", speaker.program))
        } else {
            None
        };
        for scenario in speaker.scenarios {
            let (results, reason) = (Arc::clone(&results), reason.clone());
            let name = format!("{}::{}", speaker.name.to_lowercase(), scenario.name);
            trials.push(Trial::test(name.clone(), move || {
                match reason {
                    Some(reason) => skip(&name, &reason),
                    None => {
                        (scenario.run)();
                        results.lock().unwrap().pass(scenario.feature, speaker.name);
                    }
                }
                Ok(())
            }));
        }
    }
    let total = trials.len();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let results = results.lock().unwrap();
    // A part of the scenarios, or none of a speaker, makes no table.
    if conclusion.has_failed() || results.count() < total || arguments.list {
        return conclusion.exit_code();
    }
    match results.compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            eprintln!("test table_of_results ... FAILED\n{complaint}");
            ExitCode::FAILURE
        }
    }
}
