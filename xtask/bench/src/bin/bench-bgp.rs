//! `bench-bgp`: the BGP speakers of this machine under the same load.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum as _};
use voile_bench::{
    bgp::{Options, Scenario, Speaker, SpeakerKind, run},
    interrupt::Interrupt,
    report::{self, Section},
};

/// Drive every BGP speaker of this machine with the same peers and print time, processor time, memory and ratios
#[derive(Debug, Parser)]
#[command(
    name = "bgp",
    bin_name = "cargo xtask bench bgp",
    after_help = "Examples:\n  \
    cargo xtask bench bgp                                      everything, once\n  \
    cargo xtask bench bgp --runs 3 --speaker voile,bird        medians, only these two\n  \
    cargo xtask bench bgp --only dfz10,withdraw -o json\n  \
    cargo xtask bench bgp --no-build --voile-bgpd old/voile-bgpd   another build, to compare"
)]
struct Args {
    /// Only these scenarios
    #[arg(long, value_delimiter = ',', value_name = "SCENARIO")]
    only: Vec<Scenario>,
    /// Only these speakers
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    speaker: Vec<SpeakerKind>,
    /// Measure this often and print medians
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Give a speaker up when a step takes longer
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
    /// How long idle sessions are watched
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    idle_seconds: u64,
    /// The build of voile-bgpd to measure
    #[arg(long, value_name = "PROGRAM")]
    voile_bgpd: Option<PathBuf>,
    /// Output: a table, or json
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

fn main() -> ExitCode {
    match bench(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stderr, reason = "progress is for the person in front of the terminal")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the result")]
fn bench(args: Args) -> Result<()> {
    let interrupt = Interrupt::take_over()?;
    let kinds = if args.speaker.is_empty() { SpeakerKind::value_variants() } else { &args.speaker };
    let mut speakers = Vec::new();
    for kind in kinds {
        let place = args.voile_bgpd.as_deref().filter(|_| *kind == SpeakerKind::Voile);
        match Speaker::find(*kind, place) {
            Some(speaker) => speakers.push(speaker),
            None => say(&format!("not here, so not measured: {kind:?}")),
        }
    }
    ensure!(!speakers.is_empty(), "none of the speakers is here; install at least bird2");
    let scenarios = if args.only.is_empty() { Scenario::USUAL.to_vec() } else { args.only };
    let options = Options {
        scenarios: scenarios.into_iter().collect(),
        runs: args.runs.into(),
        limit: Duration::from_secs(args.timeout),
        idle: Duration::from_secs(args.idle_seconds),
    };
    let json = args.output == "json";
    if !json {
        println!("{}; medians of {} runs\n", report::machine(), args.runs);
    }
    let mut sections = Vec::new();
    let mut emit = |section: Section| {
        if !json {
            println!("{}", section.table());
        }
        sections.push(section);
    };
    let result = run(&speakers, &options, &interrupt, &mut say, &mut emit);
    if json {
        println!("{:#}", report::suite("bgp", &sections));
    }
    result
}
