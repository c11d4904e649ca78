//! Our reading of UPDATEs beside those of netgauze-bgp-pkt and bgpkit-parser: generated messages, the committed corpus, and
//! what mutations make of both. Where one of them disagrees, a reason with its clause must hold (`excuse.rs`).
//!
//! Outside of the workspace because the two take longer to build than all of the speaker.

#[path = "../../tests/fuzz/dice.rs"]
mod dice;
#[path = "differential/excuse.rs"]
mod excuse;
#[path = "differential/generate.rs"]
mod generate;
#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;
#[path = "differential/ours.rs"]
mod ours;
#[path = "differential/reading.rs"]
mod reading;
#[path = "differential/theirs.rs"]
mod theirs;

use std::{collections::BTreeSet, path::Path};

use dice::Dice;
use excuse::{Case, EXCUSES};
use mutate::Mutator;
use reading::{Route, Terms, Verdict};

const GENERATED: usize = 2000;
const MUTATED: usize = 3000;

type Decoder = (&'static str, fn(Terms, &[u8]) -> Verdict);
const DECODERS: [Decoder; 2] =
    [("netgauze-bgp-pkt", theirs::netgauze), ("bgpkit-parser", theirs::bgpkit)];

/// The UPDATEs of the corpus of `table`: a length octet, then so many octets, again and again.
fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/table");
    let mut bodies = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let mut rest = bytes.as_slice();
        while let [length, more @ ..] = rest {
            let (body, more) = more.split_at(usize::from(*length).min(more.len()));
            bodies.insert(body.to_vec());
            rest = more;
        }
    }
    bodies.into_iter().filter(|body| body.len() >= 4).collect()
}

fn cases() -> Vec<(Terms, Vec<u8>)> {
    let mut dice = Dice::new(1);
    let mut cases = Vec::new();
    for body in corpus() {
        for internal in [false, true] {
            cases.push((Terms { internal, four_octets: true, add_path: false }, body.clone()));
        }
    }
    for _ in 0..GENERATED {
        let terms = generate::terms(&mut dice);
        cases.push((terms, generate::update(&mut dice, terms)));
    }
    let seeds = cases.iter().map(|(_, body)| body.clone()).collect();
    let mut mutator = Mutator::new(2, seeds);
    cases.extend((0..MUTATED).map(|_| (generate::terms(&mut dice), mutator.next())));
    // Shorter ones are none, longer ones are for another message.
    cases.retain(|(_, body)| (4..=4077).contains(&body.len()));
    cases
}

#[test]
fn others_read_the_same() {
    let (mut agreed, mut refused) = (0, 0);
    let mut used = vec![0; EXCUSES.len()];
    let mut unexplained = Vec::new();
    for (terms, body) in cases() {
        for (name, decoder) in DECODERS {
            let theirs = decoder(terms, &body);
            let mut known: BTreeSet<Route> = generate::pool(terms).into_iter().collect();
            if let Ok(reading) = &theirs {
                let fits = |route: &Route| terms.add_path || route.path_id == 0;
                known.extend(reading.routes().into_iter().filter(fits));
            }
            let ours = ours::read(terms, &body, &known);
            match (&ours.verdict, &theirs) {
                (Ok(ours), Ok(theirs)) if ours == theirs => agreed += 1,
                (Err(_), Err(_)) => refused += 1,
                _ => {
                    let case = Case { terms, body: &body, ours: &ours, theirs: &theirs };
                    match EXCUSES.iter().position(|(_, holds)| holds(&case)) {
                        Some(number) => used[number] += 1,
                        None => unexplained.push(story(name, &case)),
                    }
                }
            }
        }
    }
    eprintln!("{agreed} read alike, {refused} refused by both");
    for ((why, _), count) in EXCUSES.iter().zip(&used) {
        eprintln!("{count:5} {why}");
    }
    assert!(
        unexplained.is_empty(),
        "{} disagreements without a reason:\n{}",
        unexplained.len(),
        unexplained.join("\n")
    );
    let idle = EXCUSES.iter().zip(&used).find(|(_, count)| **count == 0);
    assert!(idle.is_none(), "no message needs this reason: {:?}", idle.map(|((why, _), _)| why));
}

fn story(name: &str, case: &Case<'_>) -> String {
    let hex: String = case.body.iter().map(|octet| format!("{octet:02x}")).collect();
    let Case { terms, ours, theirs, .. } = case;
    format!("{name}, {terms:?}, {hex}\n  ours: {:?}\n  theirs: {theirs:?}", ours.verdict)
}
