//! `bench-smoke`: first figures of everything, in a minute or two.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;
use voile_bench::{
    bgp::{self, Scenario, Speaker, SpeakerKind},
    interrupt::Interrupt,
    report::{self, Section},
    smoke,
};

/// Measure pods coming and going, policy on its way into the kernel, BGP and memory, beside well-known programs
#[derive(Debug, Parser)]
#[command(
    name = "smoke",
    bin_name = "cargo xtask bench smoke",
    after_help = "Examples:\n  \
    cargo xtask bench smoke\n  \
    cargo xtask bench smoke -o json > figures.json\n  \
    cargo xtask bench smoke --no-build --programs target/debug   another build, to compare"
)]
struct Args {
    /// Folder of voile-lab, voile-node, voile-cni and voile-bgpd [default: where this program is]
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Output: a table, or json
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

fn main() -> ExitCode {
    match bench(&Args::parse()) {
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
fn bench(args: &Args) -> Result<()> {
    let interrupt = Interrupt::take_over()?;
    let programs = match &args.programs {
        Some(programs) => programs.canonicalize().context("--programs")?,
        None => std::env::current_exe()?.parent().context("this program's folder")?.to_owned(),
    };
    let json = args.output == "json";
    if !json {
        println!("{}\n", report::machine());
    }
    let mut sections = Vec::new();
    let mut emit = |section: Section| {
        if !json {
            println!("{}", section.table());
        }
        sections.push(section);
    };
    let whole = smoke::run(&programs, &interrupt, &mut say, &mut emit).and_then(|()| {
        let ours = programs.join("voile-bgpd");
        let speakers = [(SpeakerKind::Voile, Some(ours.as_path())), (SpeakerKind::Bird, None)];
        let found = speakers.into_iter().filter_map(|(kind, place)| Speaker::find(kind, place));
        let options = bgp::Options {
            scenarios: [Scenario::Smoke10].into(),
            runs: 3,
            limit: Duration::from_secs(60),
            idle: Duration::from_secs(1),
        };
        bgp::run(&found.collect::<Vec<_>>(), &options, &interrupt, &mut say, &mut emit)
    });
    if json {
        println!("{:#}", report::suite("smoke", &sections));
    }
    whole
}
