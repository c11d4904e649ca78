//! Harness for tests that need more than one crate or a kernel: namespaces, wires, processes, and waiting for facts.
//!
//! Everything made here is removed when the test ends, also when it panics: namespaces are named after the test's process
//! and dropped, processes are killed and reaped.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    clippy::missing_panics_doc,
    reason = "a test harness: what fails here fails the test, with the reason"
)]

mod api;
pub mod bgp;
pub mod lab;
pub mod traffic;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use kernel::{NetNs, Netlink, link, netns};

pub use api::{Answer, Api};

static COUNTER: AtomicU32 = AtomicU32::new(0);
static CLEAN: Once = Once::new();

/// Says on standard error that a test is skipped, and why; `cargo xtask test` counts these lines.
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED: {test}: {reason}");
}

/// Whether this process may make namespaces.
#[must_use]
pub fn can_make_namespaces() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Removes the namespaces, and the processes in them, of tests that were killed before they could.
fn remove_leftovers() {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: PathBuf| {
        std::fs::metadata(path).ok().map(|namespace| (namespace.dev(), namespace.ino()))
    };
    let named = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for entry in named {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("vt").and_then(|rest| rest.split_once('-')?.0.parse().ok());
        let Some(owner): Option<u32> = owner else { continue };
        if Path::new(&format!("/proc/{owner}")).exists() {
            continue;
        }
        let leftover = identity(entry.path());
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let id = process.file_name().to_string_lossy().parse::<i32>();
            if let (Ok(id), true) =
                (id, leftover.is_some() && identity(process.path().join("ns/net")) == leftover)
            {
                let id = nix::unistd::Pid::from_raw(id);
                let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL);
            }
        }
        let _ = netns::delete(&entry.path());
    }
}

/// A network namespace of this test.
#[derive(Debug)]
pub struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// Makes a namespace with its loopback up, forwarding on.
    #[must_use]
    pub fn new(name: &str) -> Self {
        CLEAN.call_once(remove_leftovers);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = netns::named(&format!("vt{}-{number}-{name}", std::process::id()));
        netns::create(&path).expect("make a network namespace");
        let namespace = Self { path };
        namespace.run(|| {
            let netlink = Netlink::open().unwrap();
            let lo = link::index_of(&netlink, "lo").unwrap();
            link::set_up(&netlink, lo, true).unwrap();
            for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                kernel::sysctl::ensure(path, "1").unwrap();
            }
        });
        namespace
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a closure on a thread inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::in_netns(&self.path, work).expect("enter the namespace")
    }

    /// Starts a program inside the namespace; its output goes to `log`.
    #[must_use]
    pub fn spawn(&self, command: &mut Command, log: &Path) -> Process {
        let out = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let child = self.run(|| command.spawn());
        Process::new(command, child, log)
    }

    /// Runs a program inside the namespace to its end and returns its standard output.
    #[must_use]
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(|| Command::new(program).args(arguments).output());
        let output = output.unwrap_or_else(|error| panic!("start {program}: {error}"));
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Like [`Namespace::output`], for questions that are asked until the answer is right.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.run(|| Command::new(program).args(arguments).output());
        let output = output.map_err(|error| format!("start {program}: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    /// Gives an interface an address and switches it on.
    pub fn address(&self, interface: &str, prefix: &str) {
        self.run(|| {
            let netlink = Netlink::open().unwrap();
            let index = link::index_of(&netlink, interface).unwrap();
            let address = kernel::Address::new(index, prefix.parse().unwrap());
            kernel::address::add(&netlink, &address).unwrap();
            link::set_up(&netlink, index, true).unwrap();
        });
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = netns::delete(&self.path);
    }
}

/// Joins two namespaces by a veth pair with these interface names.
pub fn wire(near: &Namespace, near_name: &str, far: &Namespace, far_name: &str) {
    let (near_ns, far_ns) = (NetNs::open(near.path()).unwrap(), NetNs::open(far.path()).unwrap());
    let netlink = Netlink::open_in(&near_ns).unwrap();
    let end =
        |name: &str, netns| link::VethEnd { name: name.to_owned(), mtu: None, mac: None, netns };
    link::create_veth(&netlink, &end(near_name, None), &end(far_name, Some(&far_ns))).unwrap();
    for (namespace, name) in [(near, near_name), (far, far_name)] {
        namespace.run(|| {
            let netlink = Netlink::open().unwrap();
            link::set_up(&netlink, link::index_of(&netlink, name).unwrap(), true).unwrap();
        });
    }
}

/// A process of this test, killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn new(command: &Command, child: std::io::Result<Child>, log: &Path) -> Self {
        let child =
            child.unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()));
        Self { child, log: log.to_owned() }
    }

    /// Starts a program where this thread is; its output goes to `log`.
    #[must_use]
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let child = command.spawn();
        Self::new(command, child, log)
    }

    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills with SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(id, signal).unwrap();
    }

    /// Waits for the end of a process that was told to end.
    pub fn wait(&mut self) {
        let _ = self.child.wait();
    }

    /// Returns what the process has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `fact` returns something, and panics with the last complaint when it does not in time.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut fact: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match fact() {
            Ok(value) => return value,
            Err(reason) if Instant::now() >= deadline => {
                panic!("{what}: not within {patience:?}: {reason}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Finds a program that `cargo build` made, next to the test's own.
///
/// # Panics
/// When it was not built: `cargo build --workspace --all-features` makes all.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join(name);
    assert!(
        program.exists(),
        "{} is not built; run `cargo build --workspace --all-features` first",
        program.display()
    );
    program
}
