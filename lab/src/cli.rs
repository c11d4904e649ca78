//! The commands of `voile-lab`.
#![expect(clippy::print_stderr, reason = "a command line program")]

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{BufRead as _, BufReader},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::{Args, Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};

use crate::{
    apiserver, cleanup,
    cluster::pod_server,
    control::{self, Place, Request},
    demo::{self, DemoArgs, Format, Output, say},
    enter,
    paths::{Base, Layout, Mode, make_private},
    processes::{Row, Status},
    procfs::{ProcessId, now},
    rootless,
    state::State,
    supervisor::{self, SuperviseArgs},
    topology::Topology,
};

/// A Kubernetes cluster with its network fabric in namespaces of this machine.
#[derive(Debug, Parser)]
#[command(
    name = "voile-lab",
    bin_name = "cargo xtask lab",
    version,
    after_help = "Examples:\n  \
    cargo xtask lab                            bring it up, show it at work, remove it\n  \
    cargo xtask lab --keep                     the same, and it stays up\n  \
    export KUBECONFIG=$(cargo xtask lab kubeconfig)\n  \
    cargo xtask lab exec shop/backend -- ip route\n  \
    cargo xtask lab down                       remove every trace, also after a crash"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Verb>,
    #[command(flatten)]
    up: UpArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring a lab up and show it at work (the default)
    #[command(after_help = "Examples:\n  cargo xtask lab up --keep\n  \
        cargo xtask lab up -f deploy/containerlab/bird.clab.yml --name bird\n  \
        cargo xtask lab up --bare        only the cluster, no demonstration")]
    Up(UpArgs),
    /// Remove every trace of a lab, also after a crash
    #[command(
        after_help = "Examples:\n  cargo xtask lab down\n  cargo xtask lab down --name bird\n  \
        cargo xtask lab down --all"
    )]
    Down(DownArgs),
    /// List labs
    #[command(after_help = "Example:\n  cargo xtask lab list")]
    List,
    /// Show what a lab runs
    #[command(after_help = "Example:\n  cargo xtask lab status --name bird")]
    Status(NameArgs),
    /// Print the path of a lab's kubeconfig
    #[command(after_help = "Example:\n  export KUBECONFIG=$(cargo xtask lab kubeconfig)")]
    Kubeconfig(NameArgs),
    /// Run a command in the namespace of a pod (NAME or NAMESPACE/NAME) or of a topology node
    #[command(after_help = "Examples:\n  cargo xtask lab exec shop/backend -- ip route\n  \
        cargo xtask lab exec -n shop backend -- ip -6 addr\n  cargo xtask lab exec n1 -- nft list ruleset")]
    Exec(ExecArgs),
    /// Run the API server alone
    #[command(after_help = "Example:\n  cargo xtask lab apiserver --kubeconfig /tmp/kubeconfig")]
    Apiserver(apiserver::Args),
    #[command(hide = true)]
    Supervise(SuperviseArgs),
    #[command(hide = true)]
    Janitor(JanitorArgs),
    #[command(hide = true)]
    Demo(DemoArgs),
    #[command(hide = true)]
    Enter(enter::EnterArgs),
    #[command(hide = true)]
    PodServer(pod_server::PodServerArgs),
}

#[derive(Args, Clone, Debug)]
struct UpArgs {
    /// Topology in containerlab's format [default: deploy/containerlab/leaf-spine.clab.yml]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Name of the lab; several live side by side [default: the topology's name]
    #[arg(long)]
    name: Option<String>,
    /// Leave it up afterwards and say how to look around
    #[arg(long)]
    keep: bool,
    /// Only bring it up and leave it: no demonstration
    #[arg(long)]
    bare: bool,
    /// How the summary is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Args, Clone, Debug)]
struct NameArgs {
    /// Name of the lab, if there are several
    #[arg(long)]
    name: Option<String>,
}

#[derive(Args, Clone, Debug)]
struct DownArgs {
    /// Name of the lab, if there are several
    #[arg(long)]
    name: Option<String>,
    /// All labs
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

#[derive(Args, Clone, Debug)]
struct ExecArgs {
    /// Name of the lab, if there are several
    #[arg(long)]
    name: Option<String>,
    /// Namespace of the pod
    #[arg(short, long)]
    namespace: Option<String>,
    /// Pod or topology node
    target: String,
    /// Command and arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[derive(Args, Clone, Debug)]
struct JanitorArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    pid: i32,
    #[arg(long)]
    start: u64,
}

/// Runs a command; the process has a single thread so far, which joining a user namespace requires.
#[must_use]
pub fn main() -> ExitCode {
    // `up` blocks some signals while the demonstration runs, and children inherit that.
    let _ = SigSet::all().thread_unblock();
    // We may have been started as /proc/self/exe; ps(1) shall show a name.
    let _ = nix::sys::prctl::set_name(c"voile-lab");
    let cli = Cli::parse();
    let verb = cli.command.unwrap_or(Verb::Up(cli.up));
    run(verb).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

fn run(verb: Verb) -> Result<ExitCode> {
    let done = match verb {
        Verb::Up(args) => return up(&args),
        Verb::Demo(args) => return run_demo(&args),
        Verb::Exec(args) => exec(args),
        Verb::Down(args) => down(&args),
        Verb::List => list(),
        Verb::Status(args) => status(&args),
        Verb::Kubeconfig(args) => kubeconfig(&args),
        Verb::Supervise(args) => {
            log("info");
            supervisor::run(&args)
        }
        Verb::Janitor(args) => supervisor::janitor(
            &Layout::at(&args.dir),
            ProcessId { pid: args.pid, start: args.start },
        ),
        Verb::Enter(args) => enter::run(&args),
        Verb::Apiserver(args) => {
            log("info");
            tokio::runtime::Runtime::new()?.block_on(apiserver::cli(args))
        }
        Verb::PodServer(args) => {
            log("warn");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(pod_server::run(args)).context("pod server")
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn log(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("VOILE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        // Saying on standard error that standard error fails would be a panic: the log's disk may be full.
        .log_internal_errors(false)
        .init();
}

/// Finds the topology that ships with the sources, from wherever one stands in them.
fn default_topology() -> Result<PathBuf> {
    const SHIPPED: &str = "deploy/containerlab/leaf-spine.clab.yml";
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let starts = [here, program].into_iter().flatten();
    let found = starts
        .flat_map(|start| start.ancestors().map(|folder| folder.join(SHIPPED)).collect::<Vec<_>>())
        .find(|path| path.is_file());
    found.ok_or_else(|| anyhow!("no {SHIPPED} here; name a topology with -f FILE.clab.yml"))
}

fn up(args: &UpArgs) -> Result<ExitCode> {
    let begun = now();
    let file = args.file.clone().map_or_else(default_topology, Ok)?;
    let topology = Topology::load(&file)?;
    let file = file.canonicalize()?;
    let name = args.name.clone().unwrap_or_else(|| topology.name.clone());
    crate::topology::check_lab_name(&name).map_err(|reason| anyhow!("--name: {reason}"))?;
    let base = Base::find()?;
    let layout = base.lab(&name);
    let out = Output::new(args.output, begun);
    clear(&layout, &out)?;
    make_private(&layout.dir).with_context(|| {
        format!(
            "cannot make {} for the lab's files; is its disk read-only or full?",
            layout.dir.display()
        )
    })?;
    let nodes = topology.kubernetes_nodes().count();
    out.line(&format!(
        "lab {name}: {} ({nodes} Kubernetes nodes, {} routers)",
        file.display(),
        topology.routers().count()
    ));
    // Orphans of the supervisor become ours.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    // Removes the lab if this process dies before it can.
    let mut janitor = start_janitor(&layout)?;
    let result = build(&layout, &file, base.mode, &out).and_then(|()| {
        if args.keep || args.bare {
            dismiss(&mut janitor)?;
        }
        present(args, &layout, base.mode, &out)
    });
    // From here on it would only meet the next lab of the same name.
    dismiss(&mut janitor)?;
    result
}

fn dismiss(janitor: &mut Child) -> Result<()> {
    janitor.kill()?;
    janitor.wait()?;
    Ok(())
}

/// Starts the lab; what is left of a failure is removed.
fn build(layout: &Layout, file: &Path, mode: Mode, out: &Output) -> Result<()> {
    let Err(error) = supervise(layout, file, mode, out) else { return Ok(()) };
    let log = layout.dir.join("supervisor.log");
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let tail: Vec<_> = text.lines().rev().take(5).collect();
    let tail: Vec<_> = tail.into_iter().rev().collect();
    cleanup::sweep(layout)?;
    bail!("{error:#}\n{}", tail.join("\n"));
}

/// Shows the lab, and removes it unless it shall stay.
fn present(args: &UpArgs, layout: &Layout, mode: Mode, out: &Output) -> Result<ExitCode> {
    if args.bare {
        print_hints(layout, out, mode);
        return Ok(ExitCode::SUCCESS);
    }
    let shown = demonstrate(layout, args.output, out.begun())?;
    if args.keep {
        print_hints(layout, out, mode);
    } else {
        if shown == Shown::Failed {
            keep_logs(layout, out);
        }
        let swept = cleanup::sweep(layout)?;
        reap();
        out.line(&format!(
            "   removed: {} processes, {} namespaces (with --keep the lab stays)",
            swept.processes, swept.namespaces
        ));
    }
    Ok(match shown {
        Shown::Passed => ExitCode::SUCCESS,
        Shown::Failed => ExitCode::from(1),
        Shown::Interrupted => ExitCode::from(130),
    })
}

/// Collects what the supervisor left: inside a container there may be nobody else who does.
fn reap() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    while waitpid(None, Some(WaitPidFlag::WNOHANG))
        .is_ok_and(|status| status != WaitStatus::StillAlive)
    {}
}

/// A lab of that name that runs is an error; what a crashed one left is removed.
fn clear(layout: &Layout, out: &Output) -> Result<()> {
    if !layout.dir.exists() {
        return Ok(());
    }
    if State::load(&layout.state()).is_ok_and(|state| state.running()) {
        bail!(
            "lab {:?} is up already; remove it with `cargo xtask lab down --name {}` or choose another --name",
            layout.name,
            layout.name
        );
    }
    let swept = cleanup::sweep(layout)?;
    if swept.processes + swept.namespaces > 0 {
        out.line(&format!("removed what an earlier lab {:?} had left", layout.name));
    }
    Ok(())
}

fn own_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("voile-lab");
    command
}

fn start_janitor(layout: &Layout) -> Result<Child> {
    let own = ProcessId::own().context("cannot read /proc")?;
    let mut janitor = own_program();
    janitor.arg("janitor").arg("--dir").arg(&layout.dir);
    janitor.args(["--pid", &own.pid.to_string(), "--start", &own.start.to_string()]);
    janitor.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    janitor.spawn().context("cannot start the janitor")
}

/// Starts the supervisor and follows it until the lab is up.
fn supervise(layout: &Layout, file: &Path, mode: Mode, out: &Output) -> Result<()> {
    let log =
        OpenOptions::new().create(true).append(true).open(layout.dir.join("supervisor.log"))?;
    let mut command = own_program();
    command.arg("supervise").arg("--dir").arg(&layout.dir).arg("--file").arg(file);
    if mode == Mode::Rootless {
        command.arg("--rootless");
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
    let stdout = child.stdout.take().context("no pipe")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        let (kind, text) = line.split_once(' ').unwrap_or((&line, ""));
        match kind {
            "step" => out.progress(text),
            "ready" => return Ok(()),
            _ => bail!("{text}"),
        }
    }
    bail!("the supervisor died: {}", child.wait()?)
}

/// How the demonstration ended.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Shown {
    Passed,
    Failed,
    Interrupted,
}

/// Runs the demonstration in a process of its own, so that this one stays outside the lab's user namespace.
fn demonstrate(layout: &Layout, format: Format, begun: Instant) -> Result<Shown> {
    // Ctrl-C ends the demonstration; this process then removes the lab.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let format = if format == Format::Json { "json" } else { "text" };
    let mut demo = own_program()
        .args(["demo", "--output", format, "--elapsed", &begun.elapsed().as_secs_f64().to_string()])
        .arg("--dir")
        .arg(&layout.dir)
        .spawn()?;
    let process = ProcessId::of(demo.id());
    let status = loop {
        // Blocked signals wait here, so none that came since the start is missed.
        match signals.wait()? {
            // Orphans that became ours end too: ask whether it was the demonstration.
            Signal::SIGCHLD => {
                if let Some(status) = demo.try_wait()? {
                    break status;
                }
            }
            _ => process.iter().for_each(|demo| demo.signal(Signal::SIGKILL)),
        }
    };
    if status.signal().is_some() {
        return Ok(Shown::Interrupted);
    }
    Ok(if status.success() { Shown::Passed } else { Shown::Failed })
}

fn run_demo(args: &DemoArgs) -> Result<ExitCode> {
    let state = State::load(&Layout::at(&args.dir).state())?;
    if let (true, Some(supervisor)) = (state.rootless, state.supervisor) {
        rootless::join(supervisor.pid)?;
    }
    let passed = tokio::runtime::Runtime::new()?.block_on(demo::run(args))?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Logs of a failed lab outlive it.
fn keep_logs(layout: &Layout, out: &Output) {
    let target =
        std::env::temp_dir().join(format!("voile-lab-{}-logs-{}", layout.name, std::process::id()));
    let copied = std::fs::create_dir_all(&target).and_then(|()| {
        std::fs::copy(layout.dir.join("supervisor.log"), target.join("supervisor.log"))?;
        for entry in std::fs::read_dir(layout.dir.join("logs"))?.flatten() {
            std::fs::copy(entry.path(), target.join(entry.file_name()))?;
        }
        Ok(())
    });
    if copied.is_ok() {
        out.line(&format!("   logs of everything that ran: {}", target.display()));
    }
}

fn print_hints(layout: &Layout, out: &Output, mode: Mode) {
    let name = &layout.name;
    let option = if Base::find().map_or(0, |base| base.labs().len()) > 1 {
        format!(" --name {name}")
    } else {
        String::new()
    };
    out.line("");
    out.line("The lab stays up. Look around:");
    out.line(&format!("   export KUBECONFIG={}", layout.kubeconfig().display()));
    out.line("   kubectl get nodes,pods -A -o wide");
    out.line("   voilectl get nodes; voilectl bgp summary; voilectl ipam show --show-blocks; voilectl policy show");
    out.line(&format!("   cargo xtask lab exec{option} shop/backend -- ip route"));
    if mode == Mode::Root {
        out.line(&format!("   ip netns exec {name}-n1 nft list ruleset; ip -n {name}-n1 route"));
    } else {
        out.line(&format!("   cargo xtask lab exec{option} n1 -- nft list ruleset"));
    }
    out.line(&format!("   logs: {}", layout.dir.join("logs").display()));
    out.line(&format!("   cargo xtask lab down{option}"));
}

/// The lab that a command means: the named one, the only one, or an error with the names.
fn which(name: Option<&str>) -> Result<(Base, Layout)> {
    let base = Base::find()?;
    let labs = base.labs();
    let layout = match (name, labs.as_slice()) {
        (Some(name), _) if labs.iter().any(|lab| lab == name) => base.lab(name),
        (None, [only]) => base.lab(only),
        (_, []) => bail!("no lab is up; `cargo xtask lab --keep` brings one up"),
        (Some(name), _) => bail!("no lab {name:?}; there are {}", labs.join(", ")),
        (None, _) => bail!("several labs are up; say which with --name: {}", labs.join(", ")),
    };
    Ok((base, layout))
}

fn down(args: &DownArgs) -> Result<()> {
    let base = Base::find()?;
    let labs = if args.all { base.labs() } else { Vec::new() };
    let layouts: Vec<_> = if args.all {
        labs.iter().map(|name| base.lab(name)).collect()
    } else {
        match which(args.name.as_deref()) {
            Ok((_, layout)) => vec![layout],
            // Nothing to remove is what was asked for.
            Err(_) if base.labs().is_empty() => Vec::new(),
            Err(error) => return Err(error),
        }
    };
    if layouts.is_empty() {
        say("no lab is up");
    }
    for layout in layouts {
        let swept = cleanup::sweep(&layout)?;
        say(&format!(
            "lab {}: {} processes, {} namespaces removed",
            layout.name, swept.processes, swept.namespaces
        ));
    }
    Ok(())
}

fn list() -> Result<()> {
    let base = Base::find()?;
    let rows: Vec<_> = base
        .labs()
        .into_iter()
        .map(|name| match State::load(&base.lab(&name).state()) {
            Ok(state) => {
                let what = match (state.running(), state.ready) {
                    (true, true) => "up",
                    (true, false) => "starting",
                    (false, _) => "crashed; remove it with down",
                };
                vec![
                    name,
                    what.to_owned(),
                    state.processes.len().to_string(),
                    state.topology.display().to_string(),
                ]
            }
            Err(error) => vec![name, format!("{error:#}")],
        })
        .collect();
    say(demo::table(&["NAME", "STATE", "PROCESSES", "TOPOLOGY"], &rows).trim_end());
    Ok(())
}

fn status(args: &NameArgs) -> Result<()> {
    let (_, layout) = which(args.name.as_deref())?;
    let state = State::load(&layout.state())?;
    ensure!(
        state.running(),
        "lab {:?} has crashed; remove it with `cargo xtask lab down`",
        layout.name
    );
    let programs: Vec<Row> = control::ask(&layout, &Request::List)?;
    let rows: Vec<_> = programs
        .into_iter()
        .map(|row| {
            let (status, pid) = match row.status {
                Status::Running(process) => ("running".to_owned(), process.pid.to_string()),
                Status::Ended(code) => (format!("ended with {code}"), String::new()),
                Status::Waiting => ("waiting".to_owned(), String::new()),
                Status::Stopped => ("stopped".to_owned(), String::new()),
            };
            vec![row.name, status, pid, row.restarts.to_string()]
        })
        .collect();
    say(&format!("lab {} at {}, files in {}", layout.name, state.server, layout.dir.display()));
    say(demo::table(&["PROGRAM", "STATUS", "PID", "RESTARTS"], &rows).trim_end());
    Ok(())
}

fn kubeconfig(args: &NameArgs) -> Result<()> {
    let (_, layout) = which(args.name.as_deref())?;
    say(&format!("{}", layout.kubeconfig().display()));
    Ok(())
}

fn exec(args: ExecArgs) -> Result<()> {
    let (_, layout) = which(args.name.as_deref())?;
    let name = match &args.namespace {
        Some(namespace) => format!("{namespace}/{}", args.target),
        None => args.target.clone(),
    };
    let place: Place = control::ask(&layout, &Request::Place { name })?;
    let state = State::load(&layout.state())?;
    if let (true, Some(supervisor)) = (state.rootless, state.supervisor) {
        rootless::join(supervisor.pid)?;
    }
    enter::run(&enter::EnterArgs {
        netns: Some(place.netns),
        die_with: None,
        hostname: Some(place.hostname),
        command: args.command,
    })
}
