//! The judge sees what it is there for: each case is a story with one thing wrong, or with none.

use std::collections::BTreeSet;

use crate::{
    journal::Record,
    judge::{Seen, Stored, judge},
};

/// A story: lines of the journal, changes between them, what is stored in the end, and what the judge says.
struct Case {
    name: &'static str,
    /// `n h want`, ..., or `see BLOCK ADDRESS BEFORE AFTER` with `-` for nobody.
    story: &'static [&'static str],
    stored: &'static [(&'static str, &'static str)],
    verdict: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "a_release_between_two_holders_is_fine",
        story: &[
            "n a want",
            "see b1 10.0.0.1 - a",
            "n a have 10.0.0.1",
            "n a drop",
            "see b1 10.0.0.1 a -",
            "n a gone",
            "m b want",
            "see b1 10.0.0.1 - b",
            "m b have 10.0.0.1",
        ],
        stored: &[("10.0.0.1", "b")],
        verdict: &[],
    },
    Case {
        name: "two_holders_are_seen",
        story: &[
            "n a want",
            "m b want",
            "n a have 10.0.0.1",
            "m b have 10.0.0.1",
            "n a drop",
            "n a gone",
        ],
        stored: &[("10.0.0.1", "b")],
        verdict: &["10.0.0.1 was given to b while a had it"],
    },
    Case {
        name: "a_late_answer_of_a_released_address_is_fine",
        story: &[
            "n a want",
            "n a have 10.0.0.1",
            "n a drop",
            "m b want",
            "m b have 10.0.0.1",
            "n a gone",
        ],
        stored: &[("10.0.0.1", "b")],
        verdict: &[],
    },
    Case {
        name: "a_lost_release_is_seen",
        story: &["n a want", "n a have 10.0.0.1", "n a drop", "n a gone"],
        stored: &[("10.0.0.1", "a")],
        verdict: &["10.0.0.1 is still stored as that of a, which does not have it"],
    },
    Case {
        name: "a_lost_release_of_one_of_two_is_seen",
        story: &[
            "n a want",
            "n a have 10.0.0.1,fd00::1",
            "n a drop-one 10.0.0.1",
            "n a gone-one 10.0.0.1",
        ],
        stored: &[("10.0.0.1", "a"), ("fd00::1", "a")],
        verdict: &["10.0.0.1 is still stored as that of a, which does not have it"],
    },
    Case {
        name: "a_lost_assignment_is_seen",
        story: &["n a want", "n a have 10.0.0.1"],
        stored: &[],
        verdict: &["10.0.0.1 was given to a, and the datastore does not say so"],
    },
    Case {
        name: "an_address_that_is_taken_away_is_seen_though_it_comes_back",
        story: &[
            "n a want",
            "see b1 10.0.0.1 - a",
            "n a have 10.0.0.1",
            "see b1 10.0.0.1 a -",
            "see b1 10.0.0.1 - a",
        ],
        stored: &[("10.0.0.1", "a")],
        verdict: &["10.0.0.1 of a, not released, went to nobody"],
    },
    Case {
        name: "an_address_that_nobody_asked_for_is_seen",
        story: &["see b1 10.0.0.1 - x", "see b1 10.0.0.1 x -"],
        stored: &[],
        verdict: &["10.0.0.1 went to x, which did not ask"],
    },
    Case {
        name: "overlapping_blocks_that_give_the_same_address_are_seen",
        story: &[
            "n a want",
            "m b want",
            "see b1 10.0.0.1 - a",
            "see b2 10.0.0.1 - b",
            "see b1 10.0.0.1 a -",
            "n a have 10.0.0.2",
            "m b have 10.0.0.1",
        ],
        stored: &[("10.0.0.2", "a"), ("10.0.0.1", "b")],
        verdict: &["10.0.0.1 was assigned in block b2 and in block b1"],
    },
    Case {
        name: "what_a_kill_left_must_have_ended",
        story: &["n a want", "m b want", "m b failed no-address", "m b drop", "m b gone"],
        stored: &[],
        verdict: &["the last request of a never ended"],
    },
    Case {
        name: "what_was_forgotten_must_have_nothing",
        story: &["n forgotten want"],
        stored: &[("10.0.0.1", "forgotten")],
        verdict: &["10.0.0.1 is still stored as that of forgotten, which does not have it"],
    },
];

/// Names, and what runs them.
pub(crate) fn cases() -> impl Iterator<Item = (String, impl FnOnce() + Send + 'static)> {
    CASES.iter().map(|case| (format!("judge::{}", case.name), move || run(case)))
}

fn run(case: &Case) {
    let (mut journal, mut seen, mut length) = (Vec::new(), Vec::new(), 0);
    for line in case.story {
        match line.strip_prefix("see ") {
            Some(change) => {
                let words: Vec<&str> = change.split(' ').collect();
                let owner = |word: &str| (word != "-").then(|| word.to_owned());
                seen.push(Seen {
                    journal: length,
                    block: words[0].to_owned(),
                    address: words[1].parse().unwrap(),
                    before: owner(words[2]),
                    after: owner(words[3]),
                });
            }
            None => {
                length += 1;
                let record = Record::parse(line).unwrap();
                assert_eq!(record.to_string(), *line, "lines are read as they are written");
                journal.push((length, record));
            }
        }
    }
    let stored: Stored = case
        .stored
        .iter()
        .map(|(address, handle)| (address.parse().unwrap(), (*handle).to_owned()))
        .collect();
    let forgotten = BTreeSet::from(["forgotten".to_owned()]);
    let (_, found) = judge(&journal, &seen, &stored, &forgotten);
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(told, case.verdict);
}
