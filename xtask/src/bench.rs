//! `cargo xtask bench`: makes release builds of what a suite measures, then hands over to the suite's program.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};

use crate::{lab::target_dir, packages};

/// Measure beside well-known programs in the same run and print ratios
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask bench smoke\n  cargo xtask bench bgp --help\n  \
    cargo xtask bench bgp --only dfz10,withdraw --speaker voile,bird --runs 3\n  \
    cargo xtask bench bgp -o json > figures.json\n  \
    cargo xtask bench bgp --no-build --only rr500    measure what was built before")]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand, Debug)]
enum Suite {
    /// First figures of everything: pods, policy, memory, BGP
    Smoke(Rest),
    /// BGP speakers: convergence, processor time and memory beside BIRD 2, FRR, GoBGP and OpenBGPD
    Bgp(Rest),
    /// Addresses: round trips, time and memory over a datastore that takes 5 ms for each call
    Ipam(Rest),
}

/// What goes to the suite's program, which has its own `--help`. `--no-build` stays here: measure what is there.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
struct Rest {
    /// Arguments of the suite
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Everything that runs on a node, and the API server.
const SMOKE: &[&str] = &[
    "-p",
    "node",
    "-p",
    "cni",
    "-p",
    "lab",
    "-p",
    "bgp",
    "--features",
    "bgp/bgpd",
    "--bin",
    "voile-node",
    "--bin",
    "voile-cni",
    "--bin",
    "voile-lab",
    "--bin",
    "voile-bgpd",
];

impl Suite {
    fn rest(&self) -> &[String] {
        match self {
            Self::Smoke(rest) | Self::Bgp(rest) | Self::Ipam(rest) => &rest.rest,
        }
    }

    fn program(&self) -> &'static str {
        match self {
            Self::Smoke(_) => "bench-smoke",
            Self::Bgp(_) => "bench-bgp",
            Self::Ipam(_) => "bench-ipam",
        }
    }

    /// Arguments of `cargo build --release`, without the suite's own program.
    fn build(&self) -> &'static [&'static str] {
        match self {
            Self::Smoke(_) => SMOKE,
            Self::Bgp(_) => &["-p", "bgp", "--features", "bgp/bgpd", "--bin", "voile-bgpd"],
            Self::Ipam(_) => &["--features", "voile-bench/ipam"],
        }
    }

    fn packages(&self) -> &'static [packages::Program] {
        match self {
            Self::Smoke(_) => packages::BENCH_SMOKE,
            Self::Bgp(_) => packages::BENCH_BGP,
            Self::Ipam(_) => &[],
        }
    }
}

/// Builds, then becomes the suite's program, so that Ctrl-C reaches it alone. Returns only when that fails.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    let mut rest = args.suite.rest().to_vec();
    let no_build = take(&mut rest, "--no-build");
    let help = rest.iter().any(|word| word == "--help" || word == "-h");
    if !help {
        let rootless = matches!(args.suite, Suite::Ipam(_));
        ensure!(rootless || packages::nix_root(), "namespaces are needed: run as root");
        // What cannot be installed is named there, and missing in the tables.
        packages::ensure(args.suite.packages())?;
    }
    let program = target_dir().join("release").join(args.suite.program());
    if !no_build {
        build(args.suite.program(), args.suite.build())?;
    }
    Err(Command::new(&program).args(rest).exec()).with_context(|| {
        format!("cannot run {}; without --no-build it is built first", program.display())
    })
}

/// Takes a flag off the arguments; says whether it was there.
fn take(arguments: &mut Vec<String>, flag: &str) -> bool {
    let before = arguments.len();
    arguments.retain(|argument| argument != flag);
    arguments.len() != before
}

fn build(program: &str, what: &[&str]) -> Result<()> {
    eprintln!("building with optimisation (the first time takes some minutes)");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "-p", "voile-bench", "--bin", program])
        .args(what)
        .status()
        .context("cannot run cargo build")?;
    ensure!(status.success(), "the build failed, see above");
    Ok(())
}
