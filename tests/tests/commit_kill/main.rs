//! The writer of policy dies in the middle of a transaction, again and again: the kernel holds the old table or the new one,
//! never a half, the next writer makes it right, and meanwhile nothing forbidden passes and nothing allowed is lost.
//!
//! This program starts itself again as the writer. `VOILE_SEED` repeats the dice of a run.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test: what fails here fails it, with the reason"
)]

mod node;
mod probe;
mod table;
mod writer;

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Trial};
use store::random::Random;
use voile_tests::{can_make_namespaces, skip};

use self::{
    node::Node,
    probe::Probes,
    table::Table,
    writer::{State, WRITER, Word},
};

const NAME: &str = "a_death_in_a_transaction_leaves_the_old_table_or_the_new_one";
const DEATHS: usize = 60;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(WRITER) {
        return writer::main(words.next().as_deref());
    }
    let trial = Trial::test(NAME, || {
        if !can_make_namespaces() {
            skip(NAME, "needs root");
        } else if !std::path::Path::new("/usr/sbin/nft").exists() {
            skip(NAME, "nft, which reads the table, is not installed");
        } else {
            die_in_transactions();
        }
        Ok(())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

/// When a death comes after the beginning of a transaction. The kernel's part is a few milliseconds at its end, which moves
/// with the load of the machine: a death that came too early makes the next ones later, and the other way round.
#[derive(Debug, Default)]
struct Aim {
    at: Duration,
    too_early: usize,
    /// The kernel had committed, and the writer did not know yet.
    in_between: usize,
    too_late: usize,
}

impl Aim {
    fn wait(&self, dice: &mut Random) {
        let nanos = u64::try_from(self.at.as_nanos()).unwrap() / 10;
        std::thread::sleep(Duration::from_nanos(nanos * 8 + dice.below(nanos * 4)));
    }

    fn learn(&mut self, committed: bool, known: bool) {
        let step = self.at / 12;
        if committed {
            self.at -= step
        } else {
            self.at += step
        }
        match (committed, known) {
            (false, _) => self.too_early += 1,
            (true, false) => self.in_between += 1,
            (true, true) => self.too_late += 1,
        }
    }
}

fn die_in_transactions() {
    let seed = std::env::var("VOILE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| Random::from_entropy().below(1_000_000));
    eprintln!("VOILE_SEED={seed}");
    let mut dice = Random::seeded(seed);
    let node = Node::new();
    let (a, b, took) = both_tables(&node);
    assert!(a != b);
    let expected = |state| if state == State::A { &a } else { &b };

    // The table of the last writer is there, and stays: from now on every packet is judged.
    let probes = Probes::start(&node);
    let mut aim = Aim { at: took, ..Aim::default() };
    for death in 0..DEATHS {
        let first = if dice.chance(500) { State::A } else { State::B };
        let mut life = Life::start(&node, first);
        life.expect(Word::Synced);
        let made = table::read(&node.router);
        let wrong = table::difference(&made, expected(first));
        assert!(wrong.is_empty(), "death {death}: not made right:\n{wrong}");
        let mut from = first;
        for _ in 0..dice.below(3) {
            let _ = life.exchange();
            from = from.other();
        }
        life.begin();
        aim.wait(&mut dice);
        let known = life.kill();
        let left = table::read(&node.router);
        let (old, new) = (&left == expected(from), &left == expected(from.other()));
        let half = || table::difference(&left, expected(from));
        assert!(old || new, "death {death}, from {from:?}: half a table:\n{}", half());
        assert!(
            new || !known,
            "death {death}: it was committed, the writer said, and is not there"
        );
        aim.learn(new, known);
    }
    let report = probes.finish();
    eprintln!("{DEATHS} deaths: {aim:?}\n{report}");
    assert!(aim.too_early > 0 && aim.in_between + aim.too_late > 0, "not aimed: {aim:?}");
    report.judge();
}

/// The two tables, written from scratch and by one transaction, and how long one takes.
fn both_tables(node: &Node) -> (Table, Table, Duration) {
    let mut life = Life::start(node, State::A);
    life.expect(Word::Synced);
    let a = table::read(&node.router);
    let _ = life.exchange();
    let b = table::read(&node.router);
    let took = (0..4).map(|_| life.exchange()).max().unwrap();
    let _ = life.kill();
    (a, b, took)
}

/// A writer that lives.
struct Life {
    child: Child,
    words: Lines<BufReader<ChildStdout>>,
    /// A line for each transaction that it may make.
    leave: ChildStdin,
}

impl Life {
    fn start(node: &Node, first: State) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([WRITER, first.name()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = node.router.run(|| command.spawn()).unwrap();
        let words = BufReader::new(child.stdout.take().unwrap()).lines();
        let leave = child.stdin.take().unwrap();
        Self { child, words, leave }
    }

    fn expect(&mut self, word: Word) {
        let line = self.words.next().transpose().unwrap();
        assert_eq!(line.as_deref(), Some(word.name()), "what the writer says");
    }

    /// Lets it begin a transaction.
    fn begin(&mut self) {
        self.leave.write_all(b"\n").unwrap();
        self.expect(Word::Begins);
    }

    /// Lets it make one; returns how long that took.
    fn exchange(&mut self) -> Duration {
        self.begin();
        let began = Instant::now();
        self.expect(Word::Done);
        began.elapsed()
    }

    /// Kills it with SIGKILL; returns whether it had said that its transaction was done.
    fn kill(&mut self) -> bool {
        self.child.kill().unwrap();
        let _ = self.child.wait().unwrap();
        self.words.by_ref().map_while(Result::ok).any(|line| line == Word::Done.name())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
