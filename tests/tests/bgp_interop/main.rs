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

mod matrix;
mod scene;
mod speaker;
mod table;

use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use libtest_mimic::{Arguments, Trial};
use voile_tests::{can_make_namespaces, skip};

use matrix::FEATURES;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Scenarios mostly wait.
    arguments.test_threads.get_or_insert(12);
    let results = Arc::new(Mutex::new(table::Results::default()));
    let mut trials = Vec::new();
    for feature in FEATURES {
        for scenario in feature.scenarios {
            for speaker in scenario.with {
                let results = Arc::clone(&results);
                let name = format!("{}::{}", speaker.name.to_lowercase(), scenario.name);
                trials.push(Trial::test(name.clone(), move || {
                    if !can_make_namespaces() {
                        skip(&name, "needs root");
                    } else if !Path::new(speaker.program).exists() {
                        skip(&name, &format!("{} is not installed", speaker.program));
                    } else {
                        (scenario.run)(speaker);
                        results.lock().unwrap().pass(feature.title, speaker.name);
                    }
                    Ok(())
                }));
            }
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
