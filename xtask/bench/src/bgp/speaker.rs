//! The speakers: where they are, how they are told the same thing, and how they start without touching the kernel.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use nix::unistd::User;

use super::plan::{Plan, SPEAKER, SPEAKER_AS};
use crate::{interrupt::Interrupt, link::Pair, process::Daemon};

/// How long a speaker may take to listen.
const START: Duration = Duration::from_secs(30);

/// Which speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpeakerKind {
    /// voile-bgpd, a release build
    Voile,
    /// BIRD 2 (package bird2)
    Bird,
    /// FRR's bgpd (package frr)
    Frr,
    /// GoBGP (package gobgpd)
    Gobgp,
    /// OpenBGPD (package openbgpd)
    Openbgpd,
}

impl SpeakerKind {
    /// Where Debian puts it; our own lies beside this program.
    fn usual_place(self) -> Option<PathBuf> {
        Some(match self {
            Self::Voile => std::env::current_exe().ok()?.with_file_name("voile-bgpd"),
            Self::Bird => "/usr/sbin/bird".into(),
            Self::Frr => "/usr/lib/frr/bgpd".into(),
            Self::Gobgp => "/usr/bin/gobgpd".into(),
            Self::Openbgpd => "/usr/sbin/bgpd".into(),
        })
    }
}

/// A speaker that is installed here.
#[derive(Debug, Clone)]
pub struct Speaker {
    /// Which one.
    pub kind: SpeakerKind,
    /// Its name with its version.
    pub name: String,
    program: PathBuf,
}

impl Speaker {
    /// Finds a speaker, at the given place or the usual one.
    #[must_use]
    pub fn find(kind: SpeakerKind, place: Option<&Path>) -> Option<Self> {
        let program = place.map(Path::to_owned).or_else(|| kind.usual_place())?;
        let (flag, name) = match kind {
            SpeakerKind::Voile => ("--version", "voile-bgpd"),
            SpeakerKind::Bird => ("--version", "BIRD"),
            SpeakerKind::Frr => ("--version", "FRR bgpd"),
            SpeakerKind::Gobgp => ("--version", "GoBGP"),
            SpeakerKind::Openbgpd => ("-V", "OpenBGPD"),
        };
        // It will be started in a folder of its own.
        let program = program.canonicalize().ok()?;
        let output = Command::new(&program).arg(flag).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let digit = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let version = text.split_whitespace().find(digit).unwrap_or_default();
        Some(Self { kind, name: format!("{name} {version}").trim().to_owned(), program })
    }

    /// Starts it in its namespace with a configuration for every peer of the plan, and waits until it listens.
    pub(crate) fn start(
        &self,
        plan: &Plan,
        pair: &Pair,
        folder: &Path,
        interrupt: &Interrupt,
    ) -> Result<Daemon> {
        let config = folder.join("config");
        let text = match self.kind {
            SpeakerKind::Voile => voile(plan),
            SpeakerKind::Bird => bird(plan),
            SpeakerKind::Frr => frr(plan),
            SpeakerKind::Gobgp => gobgp(plan),
            SpeakerKind::Openbgpd => openbgpd(plan, &folder.join("control")),
        };
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        // OpenBGPD reads no configuration that others could.
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
        if let (SpeakerKind::Openbgpd, Ok(Some(user))) = (self.kind, User::from_name("_openbgpd")) {
            // It locks itself into its user's home, which only Debian's service makes.
            fs::create_dir_all(user.dir).context("cannot make the home of _openbgpd")?;
        }
        let mut daemon =
            Daemon::start(pair, &mut self.command(&config, folder), &folder.join("log"))?;
        let deadline = Instant::now() + START;
        while !daemon.listens(179) {
            interrupt.check()?;
            if let Some(death) = daemon.death() {
                bail!("at its start {death}");
            }
            if Instant::now() > deadline {
                bail!("it does not listen after {} s: {}", START.as_secs(), daemon.last_words());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    fn command(&self, config: &Path, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(folder);
        match self.kind {
            SpeakerKind::Voile => command.env("RUST_LOG", "warn").arg(config),
            SpeakerKind::Bird => command.arg("-f").arg("-c").arg(config).args(["-s", "control"]),
            SpeakerKind::Frr => command
                .args(["--no_zebra", "--no_kernel", "--skip_runas", "--vty_port", "0"])
                .args(["--vty_addr", "127.0.0.1", "--log", "stdout", "--log-level", "warnings"])
                .arg("--vty_socket")
                .arg(folder)
                .arg("--pid_file")
                .arg(folder.join("pid"))
                .arg("--config_file")
                .arg(config),
            SpeakerKind::Gobgp => command
                .args(["--config-type", "toml", "--log-level", "warn"])
                .args(["--api-hosts", "127.0.0.1:50051", "--pprof-disable"])
                .arg("--config-file")
                .arg(config),
            SpeakerKind::Openbgpd => command.arg("-d").arg("-f").arg(config),
        };
        command
    }
}

fn voile(plan: &Plan) -> String {
    let mut text = format!(
        "[router]\nas = {SPEAKER_AS}\nrouter-id = \"{SPEAKER}\"\nlisten = [\"{SPEAKER}:179\"]\n\
         ebgp-requires-policy = false\n"
    );
    for peer in &plan.peers {
        let _ = write!(
            text,
            "\n[[peer]]\naddress = \"{}\"\nas = {}\npassive = true\nfamilies = [\"ipv4\"]\nhold-time = 90\n\
             route-reflector-client = {}\n",
            peer.address, peer.asn, plan.reflector
        );
    }
    text
}

fn bird(plan: &Plan) -> String {
    // `direct`: next hops of iBGP are on the wire; without it BIRD asks an IGP that does not exist.
    let role = if plan.reflector { "rr client; direct;" } else { "" };
    let mut text = format!(
        "router id {SPEAKER};\nlog stderr {{ warning, error, fatal, bug }};\nprotocol device {{}}\n\
         template bgp common {{\n  local {SPEAKER} as {SPEAKER_AS};\n  passive on;\n  hold time 90;\n  \
         error wait time 1, 2;\n  ipv4 {{ import all; export all; }};\n}}\n"
    );
    for (index, peer) in plan.peers.iter().enumerate() {
        let _ = writeln!(
            text,
            "protocol bgp p{index} from common {{ neighbor {} as {}; {role} }}",
            peer.address, peer.asn
        );
    }
    text
}

fn frr(plan: &Plan) -> String {
    let mut text = format!(
        "hostname bench\nrouter bgp {SPEAKER_AS}\n bgp router-id {SPEAKER}\n no bgp ebgp-requires-policy\n \
         no bgp network import-check\n neighbor all peer-group\n neighbor all passive\n"
    );
    for peer in &plan.peers {
        let _ = writeln!(text, " neighbor {} remote-as {}", peer.address, peer.asn);
        let _ = writeln!(text, " neighbor {} peer-group all", peer.address);
    }
    text.push_str(" address-family ipv4 unicast\n  neighbor all activate\n");
    if plan.reflector {
        text.push_str("  neighbor all route-reflector-client\n");
    }
    text.push_str(" exit-address-family\n");
    text
}

fn gobgp(plan: &Plan) -> String {
    let mut text = format!(
        "[global.config]\nas = {SPEAKER_AS}\nrouter-id = \"{SPEAKER}\"\nlocal-address-list = [\"{SPEAKER}\"]\n"
    );
    for peer in &plan.peers {
        let _ = write!(
            text,
            "\n[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n\
             [neighbors.timers.config]\nhold-time = 90\nidle-hold-time-after-reset = 1\n\
             [neighbors.transport.config]\npassive-mode = true\n",
            peer.address, peer.asn
        );
        if plan.reflector {
            let _ = write!(
                text,
                "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                 route-reflector-cluster-id = \"{SPEAKER}\"\n"
            );
        }
    }
    text
}

fn openbgpd(plan: &Plan, control: &Path) -> String {
    let mut text = format!(
        "AS {SPEAKER_AS}\nrouter-id {SPEAKER}\nfib-update no\nlisten on {SPEAKER}\nsocket \"{}\"\n\
         allow from any\nallow to any\n",
        control.display()
    );
    let role = if plan.reflector { " route-reflector\n" } else { "" };
    for peer in &plan.peers {
        let _ = write!(
            text,
            "neighbor {} {{\n remote-as {}\n passive\n holdtime 90\n{role}}}\n",
            peer.address, peer.asn
        );
    }
    text
}
