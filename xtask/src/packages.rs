//! Programs that tests and the lab use: found, installed where that is possible, or named.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};

/// A program and the Debian package that brings it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    /// Name on PATH, or an absolute path.
    pub name: &'static str,
    /// Debian package.
    pub package: &'static str,
    /// What misses without it.
    pub purpose: &'static str,
}

const fn program(name: &'static str, package: &'static str, purpose: &'static str) -> Program {
    Program { name, package, purpose }
}

/// What the lab uses.
pub(crate) const LAB: &[Program] =
    &[program("ip", "iproute2", "`exec` lines of topologies, looking around")];

/// What the tests use beyond the lab.
pub(crate) const TEST: &[Program] = &[
    program("ip", "iproute2", "namespace tests"),
    program("nft", "nftables", "reading rule sets back in tests"),
    program("bird", "bird2", "BGP interoperability"),
    program("/usr/lib/frr/bgpd", "frr", "BGP interoperability"),
    program("gobgpd", "gobgpd", "BGP interoperability"),
    program("/usr/sbin/bgpctl", "openbgpd", "BGP interoperability"),
    program("exabgp", "exabgp", "BGP interoperability"),
    program("tshark", "tshark", "reading streams of BMP"),
    program("bgpdump", "bgpdump", "reading MRT dumps"),
    program("pmbmpd", "pmacct", "a collector of BMP beside a cluster"),
    program("promtool", "prometheus", "checking alerts"),
    program("g++", "g++", "libFuzzer, which the fuzz targets are linked with"),
];

/// What `cargo xtask bench bgp` measures beside our own speaker.
pub(crate) const BENCH_BGP: &[Program] = &[
    program("bird", "bird2", "the speaker that ratios refer to"),
    program("/usr/lib/frr/bgpd", "frr", "BGP figures of FRR"),
    program("gobgpd", "gobgpd", "BGP figures of GoBGP"),
    program("/usr/sbin/bgpctl", "openbgpd", "BGP figures of OpenBGPD"),
];

/// What `cargo xtask bench smoke` measures beside our own programs.
pub(crate) const BENCH_SMOKE: &[Program] = &[
    program("bird", "bird2", "the speaker that ratios refer to"),
    program("/usr/lib/cni/ptp", "containernetworking-plugins", "the plugin that ratios refer to"),
];

/// Installs what is missing where this is root on Debian; otherwise says what is missing. Returns what still is.
pub(crate) fn ensure(programs: &[Program]) -> Result<Vec<Program>> {
    let missing = |programs: &[Program]| {
        programs.iter().copied().filter(|program| find(program.name).is_none()).collect::<Vec<_>>()
    };
    let wanted = missing(programs);
    if wanted.is_empty() {
        return Ok(wanted);
    }
    let mut packages: Vec<_> = wanted.iter().map(|program| program.package).collect();
    packages.sort_unstable();
    packages.dedup();
    if nix_root() && find("apt-get").is_some() {
        eprintln!("installing Debian packages: {}", packages.join(" "));
        install(&packages)?;
    } else {
        eprintln!("not root on Debian: install these packages yourself: {}", packages.join(" "));
    }
    let still = missing(programs);
    for program in &still {
        eprintln!(
            "missing: {} (package {}), needed for: {}",
            program.name, program.package, program.purpose
        );
    }
    Ok(still)
}

/// Finds a program on PATH (or in the sbin folders), or checks an absolute path.
#[must_use]
pub(crate) fn find(name: &str) -> Option<std::path::PathBuf> {
    if name.starts_with('/') {
        return Path::new(name).exists().then(|| name.into());
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
}

/// Installs packages without letting them start services of their own.
fn install(packages: &[&str]) -> Result<()> {
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        fs::write(policy, "#!/bin/sh\nexit 101\n").context("cannot write /usr/sbin/policy-rc.d")?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
    }
    let run = |arguments: &[&str]| {
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(arguments)
            .stdout(std::process::Stdio::null())
            .status()
    };
    let result = run(&["update", "-qq"]).and_then(|_| {
        let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
        arguments.extend(packages);
        run(&arguments)
    });
    if ours {
        fs::remove_file(policy)?;
    }
    let status = result.context("cannot run apt-get")?;
    anyhow::ensure!(status.success(), "apt-get install {} failed: {status}", packages.join(" "));
    Ok(())
}

/// Whether this is root, as /proc tells.
#[must_use]
pub(crate) fn nix_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
    })
}
