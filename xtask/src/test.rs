//! `cargo xtask test`: every check, in the order in which failures are cheapest to learn of.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::packages;

/// Arguments of `cargo xtask test`.
#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// Only build and run tests: no format check, no lints
    #[arg(long)]
    quick: bool,
    /// Passed to `cargo test` (for instance `-p bgp` or a test name)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: Vec<String>,
    broken: Vec<String>,
}

/// Runs all checks; `Ok(true)` when everything passed.
pub(crate) fn run(args: &TestArgs) -> Result<bool> {
    packages::ensure(packages::TEST)?;
    let mut counts = Counts::default();
    if !args.quick {
        step(&mut counts, "format", &["fmt", "--all", "--check"])?;
        step(
            &mut counts,
            "lints",
            &[
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--all-features",
                "--",
                "-D",
                "warnings",
            ],
        )?;
        for core in ["bgp", "felix"] {
            let name = format!("{core} without default features");
            step(&mut counts, &name, &["check", "--quiet", "-p", core, "--no-default-features"])?;
        }
    }
    step(&mut counts, "build", &["build", "--quiet", "--workspace", "--all-features", "--bins"])?;
    if !args.quick {
        let arguments = [
            "test",
            "--quiet",
            "--manifest-path",
            "bgp/fuzz/Cargo.toml",
            "--target-dir",
            "target/fuzz",
        ];
        step(&mut counts, "our decoder beside others", &arguments)?;
    }
    tests(&mut counts, &args.rest)?;
    Ok(report(&counts))
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn step(counts: &mut Counts, name: &str, arguments: &[&str]) -> Result<()> {
    let start = Instant::now();
    eprintln!("{name}: cargo {}", arguments.join(" "));
    let status = cargo().args(arguments).status().context("cannot run cargo")?;
    let seconds = start.elapsed().as_secs();
    if status.success() {
        counts.passed += 1;
        eprintln!("{name}: ok ({seconds} s)");
    } else {
        counts.failed += 1;
        counts.broken.push(name.to_owned());
        eprintln!("{name}: FAILED ({seconds} s)");
    }
    Ok(())
}

/// Runs `cargo test`, shows one line a test program and everything of the failures, keeps the whole output in a file.
fn tests(counts: &mut Counts, rest: &[String]) -> Result<()> {
    let log_path = target_dir().join("xtask-test.log");
    let mut log =
        File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let mut command = cargo();
    command.args(["test", "--no-fail-fast", "--all-features"]);
    if !rest.iter().any(|argument| argument == "-p" || argument == "--package") {
        command.arg("--workspace");
    }
    command.args(rest.iter().take_while(|argument| *argument != "--"));
    command.args(["--", "--nocapture"]);
    command.args(rest.iter().skip_while(|argument| *argument != "--").skip(1));
    let (reader, writer) = std::io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer).stdin(Stdio::null());
    let mut child = command.spawn().context("cannot run cargo test")?;
    drop(command);
    let mut program = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(log, "{line}")?;
        let text = line.trim();
        if let Some(name) =
            text.strip_prefix("Running ").or_else(|| text.strip_prefix("Doc-tests "))
        {
            name.clone_into(&mut program);
        } else if let Some(found) = text.find("SKIPPED:") {
            counts.skipped.push(text.get(found + 8..).unwrap_or_default().trim().to_owned());
        } else if let Some(result) = text.strip_prefix("test result: ") {
            let (passed, failed, ignored) = parse_result(result);
            counts.passed += passed;
            counts.failed += failed;
            if ignored > 0 {
                counts.skipped.push(format!("{ignored} ignored in {program}"));
            }
            if passed + failed > 0 {
                eprintln!("{:<60} {passed} passed, {failed} failed", short(&program));
            }
        } else if text.ends_with("... FAILED")
            || text.contains(" panicked at ")
            || text.starts_with("error")
        {
            eprintln!("  {text}");
        }
        if let Some(name) =
            text.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            counts.broken.push(name.to_owned());
        }
    }
    let status = child.wait()?;
    if !status.success() && counts.failed == 0 {
        counts.failed += 1;
        counts.broken.push("cargo test did not run to its end".to_owned());
    }
    eprintln!("whole output: {}", log_path.display());
    if counts.failed > 0 {
        eprintln!("to see why: less {}", log_path.display());
    }
    Ok(())
}

fn parse_result(text: &str) -> (usize, usize, usize) {
    let number = |word: &str| {
        text.split([';', '.'])
            .find_map(|part| {
                part.trim().strip_suffix(word)?.trim().rsplit(' ').next()?.parse().ok()
            })
            .unwrap_or(0)
    };
    (number("passed"), number("failed"), number("ignored"))
}

fn short(program: &str) -> String {
    program.split(" (").next().unwrap_or(program).replace("unittests ", "")
        + " "
        + program
            .rsplit('/')
            .next()
            .and_then(|file| file.rsplit_once('-'))
            .map_or("", |(name, _)| name)
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}

#[expect(clippy::print_stdout, reason = "the closing line belongs to standard output")]
fn report(counts: &Counts) -> bool {
    for reason in &counts.skipped {
        println!("skipped: {reason}");
    }
    for name in &counts.broken {
        println!("failed: {name}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed,
        counts.failed,
        counts.skipped.len()
    );
    counts.failed == 0
}
