//! `cargo xtask fuzz`: the fuzz targets of the speaker under libFuzzer, guided by coverage, on the stable toolchain.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

/// The targets of `bgp/fuzz`, each with a committed corpus.
const TARGETS: [&str; 4] = ["decode", "table", "session", "decision"];

/// What `cargo fuzz` passes too: counters for every edge and comparison. Only its sanitizers need a nightly toolchain.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Fuzz the speaker, guided by coverage: every target for a while, one after the other
#[derive(Args, Debug)]
pub(crate) struct FuzzArgs {
    /// Targets: decode, table, session, decision; all of them unless named
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Builds and runs the targets; `Ok(true)` when nothing was found.
pub(crate) fn run(args: &FuzzArgs) -> Result<bool> {
    let unknown = args.targets.iter().find(|target| !TARGETS.contains(&target.as_str()));
    if let Some(target) = unknown {
        bail!("there is no target '{target}'; there are {}", TARGETS.join(", "));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the project's folder")?;
    let host = host()?;
    let build = root.join("target/fuzz");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--target", &host, "--manifest-path"])
        .arg(root.join("bgp/fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(&build)
        .env("RUSTFLAGS", COVERAGE.join(" "))
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!(
            "the targets do not build; libFuzzer itself needs a C++ compiler (apt-get install g++)"
        );
    }
    let mut clean = true;
    for target in TARGETS {
        if args.targets.is_empty() || args.targets.iter().any(|wanted| wanted == target) {
            let program = build.join(&host).join("release").join(target);
            clean &= fuzz(root, &program, target, args.seconds)?;
        }
    }
    Ok(clean)
}

/// The platform that rustc builds for: with `--target` the flags do not reach build scripts.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc does not say what it builds for")?.to_owned())
}

fn fuzz(root: &Path, program: &Path, target: &str, seconds: u64) -> Result<bool> {
    // What is found on the way is kept for the next run; only `bgp/fuzz/corpus` is committed.
    let found = root.join("target/fuzz/corpus").join(target);
    let artifacts = root.join("bgp/fuzz/artifacts");
    for folder in [&found, &artifacts] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let committed: PathBuf = root.join("bgp/fuzz/corpus").join(target);
    eprintln!("{target}: {seconds} s");
    let status = Command::new(program)
        .arg(&found)
        .arg(&committed)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/{target}-", artifacts.display()))
        .args(["-max_len=4096", "-timeout=20", "-rss_limit_mb=1024", "-verbosity=1"])
        .arg("-print_final_stats=1")
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !status.success() {
        eprintln!(
            "{target}: FAILED; the input is in {}: mend it, then add the input to {}",
            artifacts.display(),
            committed.display()
        );
    }
    Ok(status.success())
}
