//! A network of routers: our speaker, others, and what they can be asked.

pub mod raw;

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{Namespace, Process, built, wait_for, wire};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Hosts on one switch. Host `n` has 10.0.0.n/24 and fd00::n/64 on `eth0`, and a folder of its own.
#[derive(Clone, Debug)]
pub struct Lan(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hosts: Vec<Namespace>,
    switch: Namespace,
    dir: tempfile::TempDir,
}

impl Lan {
    #[must_use]
    pub fn new(hosts: usize) -> Self {
        let switch = Namespace::new("switch");
        let bridge = ["link", "add", "br0", "up", "type", "bridge", "mcast_snooping", "0"];
        let _ = switch.output("ip", &bridge);
        let dir = tempfile::tempdir().unwrap();
        // FRR's own user must get through.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let hosts = (1..=hosts).map(|number| {
            let host = Namespace::new(&format!("host{number}"));
            let port = format!("p{number}");
            wire(&switch, &port, &host, "eth0");
            let _ = switch.output("ip", &["link", "set", &port, "master", "br0"]);
            for address in [format!("10.0.0.{number}/24"), format!("fd00::{number}/64")] {
                let _ = host.output("ip", &["address", "add", &address, "dev", "eth0", "nodad"]);
            }
            std::fs::create_dir(dir.path().join(format!("host{number}"))).unwrap();
            host
        });
        Self(Arc::new(Inner { hosts: hosts.collect(), switch, dir }))
    }

    /// Returns the namespace of a host; the first one is 1.
    #[must_use]
    pub fn host(&self, number: usize) -> &Namespace {
        self.0.hosts.get(number - 1).expect("a host of this network")
    }

    /// Returns the folder of a host.
    #[must_use]
    pub fn folder(&self, number: usize) -> PathBuf {
        self.0.dir.path().join(format!("host{number}"))
    }

    /// Writes a file into the folder of a host.
    #[must_use]
    pub fn file(&self, number: usize, name: &str, text: &str) -> PathBuf {
        let path = self.folder(number).join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts a program on a host.
    #[must_use]
    pub fn spawn(&self, number: usize, program: &Path, arguments: &[&str]) -> Process {
        let name = program.file_name().unwrap().to_string_lossy();
        let log = self.folder(number).join(format!("{name}.log"));
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder(number));
        self.host(number).spawn(&mut command, &log)
    }

    /// Drops what goes to and comes from a host; its link keeps its carrier.
    pub fn block(&self, number: usize) {
        self.set_port(number, "disabled");
    }

    /// Lets it through again.
    pub fn unblock(&self, number: usize) {
        self.set_port(number, "forwarding");
    }

    fn set_port(&self, number: usize, state: &str) {
        let port = format!("p{number}");
        let _ = self.0.switch.output("bridge", &["link", "set", "dev", &port, "state", state]);
    }

    /// Returns the routes of a host that BGP put there, as `ip route` prints them.
    #[must_use]
    pub fn routes(&self, number: usize) -> String {
        let host = self.host(number);
        let print = |family| host.output("ip", &[family, "route", "show", "proto", "bgp"]);
        print("-4") + &print("-6")
    }
}

/// Our speaker on a host of a network: `voile-bgpd` with a configuration file and a status socket.
#[derive(Debug)]
pub struct Voile {
    lan: Lan,
    host: usize,
    head: String,
    process: Process,
}

impl Voile {
    /// Starts it. `body` is what follows the first lines of `[router]`.
    #[must_use]
    pub fn start(lan: &Lan, host: usize, asn: u32, body: &str) -> Self {
        let head = format!(
            "[router]\nas = {asn}\nrouter-id = \"10.0.0.{host}\"\nstatus-socket = \"{}\"\n\
             listen = [\"0.0.0.0:179\", \"[::]:179\"]\nebgp-requires-policy = false\n",
            lan.folder(host).join("status.sock").display()
        );
        let config = lan.file(host, "bgpd.toml", &format!("{head}{body}"));
        let process = lan.spawn(host, &built("voile-bgpd"), &[&config.to_string_lossy()]);
        Self { lan: lan.clone(), host, head, process }
    }

    /// Returns the namespace it runs in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        self.lan.host(self.host)
    }

    /// Starts it again with the configuration it had.
    pub fn restart(&mut self) {
        let config = self.lan.folder(self.host).join("bgpd.toml");
        self.process =
            self.lan.spawn(self.host, &built("voile-bgpd"), &[&config.to_string_lossy()]);
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it as for an upgrade (SIGTERM) or for good (SIGINT).
    pub fn stop(&mut self, signal: Signal) {
        self.process.signal(signal);
        self.process.wait();
    }

    /// Gives it another configuration.
    pub fn configure(&self, body: &str) {
        let _ = self.lan.file(self.host, "bgpd.toml", &format!("{}{body}", self.head));
        self.process.signal(Signal::SIGHUP);
    }

    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Returns the whole state.
    pub fn status(&self) -> Result<Value, String> {
        let socket = self.lan.folder(self.host).join("status.sock");
        let mut text = String::new();
        UnixStream::connect(socket)
            .and_then(|mut stream| {
                stream.write_all(b"\"state\"\n")?;
                stream.read_to_string(&mut text)
            })
            .map_err(|error| format!("no status: {error}\n{}", self.log()))?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// Returns the state of a peer.
    pub fn peer(&self, name: &str) -> Result<Value, String> {
        let status = self.status()?;
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        peers.into_iter().find(|peer| peer["name"] == name).ok_or(format!("no peer {name}"))
    }

    /// Returns the paths of a prefix.
    pub fn paths(&self, prefix: &str) -> Result<Vec<Value>, String> {
        let status = self.status()?;
        let routes = status["routes"].as_array().cloned().unwrap_or_default();
        let found = routes.into_iter().find(|route| route["prefix"] == prefix);
        Ok(found.and_then(|route| route["paths"].as_array().cloned()).unwrap_or_default())
    }

    /// Waits until a peer's state satisfies the condition and returns it.
    pub fn wait_peer(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("state of {name}"), PATIENCE, || {
            let peer = self.peer(name)?;
            if wanted(&peer) {
                return Ok(peer);
            }
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(12).collect();
            Err(format!("{peer:#}\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n")))
        })
    }

    pub fn wait_established(&self, name: &str) {
        let _ = self.wait_peer(name, |peer| peer["state"] == "Established");
    }

    /// Waits until a path of the peer is used for the prefix and returns it.
    #[must_use]
    pub fn wait_route(&self, prefix: &str, peer: &str) -> Value {
        wait_for(&format!("{prefix} from {peer}"), PATIENCE, || {
            let paths = self.paths(prefix)?;
            let used = |path: &&Value| {
                path["peer"] == peer && (path["usage"] == "best" || path["usage"] == "multipath")
            };
            let found = paths.iter().find(used).cloned();
            found.ok_or_else(|| format!("{paths:#?}\n{}", self.log()))
        })
    }

    /// Waits until there is no path of the prefix.
    pub fn wait_no_route(&self, prefix: &str) {
        wait_for(&format!("{prefix} gone"), PATIENCE, || {
            let paths = self.paths(prefix)?;
            if paths.is_empty() { Ok(()) } else { Err(format!("{paths:#?}")) }
        });
    }
}

/// Waits until a question's answer has all these parts.
pub fn wait_text(what: &str, parts: &[&str], mut ask: impl FnMut() -> Result<String, String>) {
    wait_for(what, PATIENCE, || {
        let answer = ask()?;
        match parts.iter().find(|part| !answer.contains(**part)) {
            None => Ok(()),
            Some(part) => Err(format!("no {part:?} in {answer}")),
        }
    });
}

/// Waits until a question's answer does not have this part.
pub fn wait_gone(what: &str, part: &str, mut ask: impl FnMut() -> Result<String, String>) {
    wait_for(what, PATIENCE, || {
        let answer = ask()?;
        if answer.contains(part) { Err(format!("still {part:?} in {answer}")) } else { Ok(()) }
    });
}
