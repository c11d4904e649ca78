//! The scenarios, run after one another against every speaker.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use clap::ValueEnum;

use super::{load::Load, plan::Plan, speaker::Speaker};
use crate::{
    interrupt::Interrupt,
    link::Pair,
    process::{Daemon, Usage},
    report::{Column, Row, Section, Unit, quantile},
};

/// One figure of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scenario {
    /// 10 peers announce 100,000 prefixes each to all others and to one more that only receives
    Dfz10,
    /// One of these 10 withdraws its 100,000
    Withdraw,
    /// 2 peers announce 500,000 prefixes each to each other and to one more that only receives
    Dfz2,
    /// 500 iBGP clients announce 4 blocks each through the speaker as route reflector
    Rr500,
    /// These 500 lose their connections and make them again, all at once
    Reconnect,
    /// 500 sessions with nothing to say (hold time 90 s)
    Idle500,
    /// 500 sessions with a keepalive from each and to each every 3 s (hold time 9 s)
    Keepalive500,
    /// 10 peers announce 10,000 prefixes each to all others and to one more that only receives
    Smoke10,
}

impl Scenario {
    /// Those of a full run.
    pub const USUAL: [Self; 7] = [
        Self::Dfz10,
        Self::Withdraw,
        Self::Dfz2,
        Self::Rr500,
        Self::Reconnect,
        Self::Idle500,
        Self::Keepalive500,
    ];

    fn what(self) -> String {
        self.to_possible_value()
            .and_then(|value| value.get_help().map(ToString::to_string))
            .unwrap_or_default()
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn columns(self) -> Vec<Column> {
        let column = |key, title, unit, ratio| Column { key, title, unit, ratio };
        let sessions = column("sessions_seconds", "sessions up", Unit::Seconds, true);
        let seconds = column("seconds", "everyone has all", Unit::Seconds, true);
        let cpu = column("cpu_seconds", "CPU", Unit::Seconds, true);
        let memory = column("peak_rss_kib", "peak RSS", Unit::Kib, true);
        match self {
            Self::Idle500 | Self::Keepalive500 => {
                let cpu = column("cpu_percent", "CPU of one", Unit::Percent, true);
                vec![cpu, memory]
            }
            Self::Reconnect => vec![sessions, seconds, cpu, memory],
            _ => vec![seconds, cpu, memory],
        }
    }
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is measured.
    pub scenarios: BTreeSet<Scenario>,
    /// How often; the medians are printed.
    pub runs: usize,
    /// How long one step may take.
    pub limit: Duration,
    /// How long idle sessions are watched.
    pub idle: Duration,
}

/// What one run gave: a row of figures for each scenario of a group.
type Outcome = Vec<(Scenario, std::result::Result<Vec<f64>, String>)>;

/// Scenarios that share their set-up.
#[derive(Debug, Clone, Copy)]
enum Group {
    /// Feeds in the shape of the Internet's table, and what is withdrawn afterwards.
    Internet { scenario: Scenario, senders: u32, each: u32 },
    /// Clients of a reflector, and what they do afterwards.
    Reflector,
    /// Sessions without routes.
    Idle { scenario: Scenario, hold_time: u16 },
}

const GROUPS: [Group; 6] = [
    Group::Internet { scenario: Scenario::Smoke10, senders: 10, each: 10_000 },
    Group::Internet { scenario: Scenario::Dfz10, senders: 10, each: 100_000 },
    Group::Internet { scenario: Scenario::Dfz2, senders: 2, each: 500_000 },
    Group::Reflector,
    Group::Idle { scenario: Scenario::Idle500, hold_time: 90 },
    Group::Idle { scenario: Scenario::Keepalive500, hold_time: 9 },
];

impl Group {
    fn scenarios(self) -> Vec<Scenario> {
        match self {
            Self::Internet { scenario: Scenario::Dfz10, .. } => {
                vec![Scenario::Dfz10, Scenario::Withdraw]
            }
            Self::Reflector => vec![Scenario::Rr500, Scenario::Reconnect],
            Self::Internet { scenario, .. } | Self::Idle { scenario, .. } => vec![scenario],
        }
    }

    fn plan(self) -> Plan {
        match self {
            Self::Internet { senders, each, .. } => Plan::internet(senders, each),
            Self::Reflector => Plan::reflector(500, 4),
            Self::Idle { hold_time, .. } => Plan { hold_time, ..Plan::reflector(500, 0) },
        }
    }
}

/// Runs what the options ask for; `progress` is told every step, `emit` gets a scenario's figures as soon as all speakers
/// have been through it. Fails only when it is interrupted or cannot make its
/// surroundings: what goes wrong with a speaker is a row.
pub fn run(
    speakers: &[Speaker],
    options: &Options,
    interrupt: &Interrupt,
    progress: &mut dyn FnMut(&str),
    emit: &mut dyn FnMut(Section),
) -> Result<()> {
    for group in GROUPS {
        let mut wanted = group.scenarios();
        wanted.retain(|scenario| options.scenarios.contains(scenario));
        if wanted.is_empty() {
            continue;
        }
        let plan = group.plan();
        let mut outcomes = Vec::new();
        for speaker in speakers {
            let mut runs = Vec::new();
            for run in 1..=options.runs {
                let names: Vec<String> = wanted.iter().map(|scenario| scenario.name()).collect();
                progress(&format!("{}: {} (run {run})", names.join(", "), speaker.name));
                runs.push(measure(group, &plan, speaker, options, interrupt)?);
            }
            outcomes.push((speaker, runs));
        }
        for scenario in wanted {
            let rows = outcomes.iter().map(|(speaker, runs)| row(&speaker.name, scenario, runs));
            emit(Section {
                name: scenario.name(),
                what: scenario.what(),
                baseline: "BIRD",
                columns: scenario.columns(),
                rows: rows.collect(),
            });
        }
    }
    Ok(())
}

fn row(subject: &str, scenario: Scenario, runs: &[Outcome]) -> Row {
    let mut good: Vec<&Vec<f64>> = Vec::new();
    let mut fault = None;
    for (_, outcome) in runs.iter().flatten().filter(|(measured, _)| *measured == scenario) {
        match outcome {
            Ok(figures) => good.push(figures),
            Err(why) => fault = Some(why.clone()),
        }
    }
    let median = |index: usize| {
        let values: Vec<f64> =
            good.iter().filter_map(|figures| figures.get(index)).copied().collect();
        quantile(&values, 0.5)
    };
    let values = (0..scenario.columns().len()).map(median).collect();
    if let (Some(why), false) = (&fault, good.is_empty()) {
        fault = Some(format!("in {} of {} runs: {why}", runs.len() - good.len(), runs.len()));
    }
    Row { subject: subject.to_owned(), values, fault }
}

/// One run of one group against one speaker, in namespaces of its own.
fn measure(
    group: Group,
    plan: &Plan,
    speaker: &Speaker,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Outcome> {
    let folder = tempfile::Builder::new().prefix("voile-bench-").tempdir()?;
    let pair = Pair::new(super::plan::SPEAKER, &plan.addresses())?;
    let mut outcome = Vec::new();
    let result = speaker.start(plan, &pair, folder.path(), interrupt).and_then(|mut daemon| {
        let stage = || stages(group, plan, &mut daemon, options, interrupt, &mut outcome);
        pair.load.run(stage)?
    });
    interrupt.check()?;
    if let Err(why) = result {
        let done = outcome.len();
        outcome.extend(
            group.scenarios().into_iter().skip(done).map(|next| (next, Err(format!("{why:#}")))),
        );
    }
    Ok(outcome)
}

fn stages(
    group: Group,
    plan: &Plan,
    daemon: &mut Daemon,
    options: &Options,
    interrupt: &Interrupt,
    outcome: &mut Outcome,
) -> Result<()> {
    let limit = options.limit;
    let mut load = Load::new(plan, interrupt)?;
    load.establish(daemon, limit)?;
    // What a speaker does once after its sessions came up belongs to no scenario.
    load.idle(daemon, Duration::from_secs(1))?;
    let before = daemon.usage();
    if let Group::Idle { scenario, .. } = group {
        load.idle(daemon, options.idle)?;
        let (cpu, peak) = spent(before, daemon.usage());
        let percent = 100.0 * cpu / options.idle.as_secs_f64();
        outcome.push((scenario, Ok(vec![percent, peak])));
        return Ok(());
    }
    let took = load.announce(daemon, limit)?.as_secs_f64();
    let (cpu, peak) = spent(before, daemon.usage());
    match group {
        Group::Internet { scenario, .. } => {
            outcome.push((scenario, Ok(vec![took, cpu, peak])));
            if options.scenarios.contains(&Scenario::Withdraw) && scenario == Scenario::Dfz10 {
                let (bytes, expected) = plan.withdrawal();
                let before = daemon.usage();
                let took = load.withdraw(daemon, bytes, expected, limit)?.as_secs_f64();
                let (cpu, peak) = spent(before, daemon.usage());
                outcome.push((Scenario::Withdraw, Ok(vec![took, cpu, peak])));
            }
        }
        Group::Reflector | Group::Idle { .. } => {
            outcome.push((Scenario::Rr500, Ok(vec![took, cpu, peak])));
            if options.scenarios.contains(&Scenario::Reconnect) {
                let before = daemon.usage();
                let (up, all) = load.reconnect(daemon, limit)?;
                let (cpu, peak) = spent(before, daemon.usage());
                let figures = vec![up.as_secs_f64(), all.as_secs_f64(), cpu, peak];
                outcome.push((Scenario::Reconnect, Ok(figures)));
            }
        }
    }
    Ok(())
}

/// Processor seconds between two looks, and the peak of memory in KiB.
fn spent(before: Usage, after: Usage) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "KiB of memory, far below 2^52")]
    let peak = after.peak_kib as f64;
    (after.cpu.saturating_sub(before.cpu).as_secs_f64(), peak)
}
