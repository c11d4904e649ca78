//! `bench-ipam`: what an address costs.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use voile_bench::{
    interrupt::Interrupt,
    ipam::{self, LATENCY},
    report::{self, Section},
};

/// Count round trips, time and memory of the allocator over a datastore that takes 5 ms for each call
#[derive(Debug, Parser)]
#[command(
    name = "ipam",
    bin_name = "cargo xtask bench ipam",
    after_help = "Examples:\n  \
    cargo xtask bench ipam\n  \
    cargo xtask bench ipam --only burst,claims\n  \
    cargo xtask bench ipam -o json > figures.json"
)]
struct Args {
    /// Only these scenarios
    #[arg(long, value_delimiter = ',', value_name = "SCENARIO")]
    only: Vec<Scenario>,
    /// Output: a table, or json
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scenario {
    /// One address after the other on a node that has a block
    Assign,
    /// 100 pods at once on one node
    Burst,
    /// 200 nodes claim their first block at the same moment
    Claims,
    /// A new node among 1,024 and among 65,536 blocks of others
    Scale,
}

impl Scenario {
    async fn run(self) -> Result<Section> {
        match self {
            Self::Assign => ipam::assign().await,
            Self::Burst => ipam::burst().await,
            Self::Claims => ipam::claims().await,
            Self::Scale => ipam::scale().await,
        }
    }
}

#[expect(clippy::print_stderr, reason = "for the person in front of the terminal")]
fn main() -> ExitCode {
    match bench(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result")]
fn bench(args: &Args) -> Result<()> {
    let interrupt = Interrupt::take_over()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let json = args.output == "json";
    if !json {
        let latency = LATENCY.as_millis();
        println!("{}; every call to the datastore takes {latency} ms\n", report::machine());
    }
    let wanted: &[Scenario] =
        if args.only.is_empty() { Scenario::value_variants() } else { &args.only };
    let mut sections = Vec::new();
    for scenario in wanted {
        let section = runtime.block_on(async {
            tokio::select! {
                section = scenario.run() => section,
                () = interrupted(&interrupt) => bail!("interrupted"),
            }
        })?;
        if !json {
            println!("{}", section.table());
        }
        sections.push(section);
    }
    if json {
        println!("{:#}", report::suite("ipam", &sections));
    }
    Ok(())
}

async fn interrupted(interrupt: &Interrupt) {
    while interrupt.check().is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
