//! The six commands: environment and configuration in, result or error out.

use std::{path::Path, time::Duration};

use crate::{
    client::{Client, ClientError},
    journal, plumbing,
    rpc::{Add, Check, Del, Gc, Request, Response, Wired, Wiring},
    spec::{
        self, Attachment, CniError, CniResult, Command, Environment, Iface, Ip, NetConf,
        RouteEntry, Version, code,
    },
};

/// How long ADD may take: the daemon may have to wait for the API server. The kubelet gives up after minutes.
const ADD_PATIENCE: Duration = Duration::from_secs(60);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the process leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// For the runtime.
    pub stdout: String,
    /// Zero is success.
    pub exit: u8,
    /// For the log (stderr).
    pub warnings: Vec<String>,
}

impl Outcome {
    /// Makes a failure; `version` is what the runtime asked for, if it got so far.
    pub fn error(error: &CniError, version: &str) -> Self {
        let version = if version.is_empty() { Version::V1_1_0.as_str() } else { version };
        Self { stdout: error.render(version), exit: 1, warnings: Vec::new() }
    }

    fn success(stdout: String) -> Self {
        Self { stdout, exit: 0, warnings: Vec::new() }
    }
}

/// Serves one execution by the runtime.
pub fn run(variable: impl Fn(&str) -> Option<String>, stdin: &str) -> Outcome {
    let version = asked_version(stdin);
    serve(variable, stdin, &version).unwrap_or_else(|error| Outcome::error(&error, &version))
}

/// Finds the version even in a configuration that is wrong otherwise, for errors and VERSION.
fn asked_version(stdin: &str) -> String {
    let conf: Option<serde_json::Value> = serde_json::from_str(stdin).ok();
    let version =
        conf.as_ref().and_then(|conf| conf.get("cniVersion")).and_then(|text| text.as_str());
    version.unwrap_or_default().to_owned()
}

fn serve(
    variable: impl Fn(&str) -> Option<String>,
    stdin: &str,
    version: &str,
) -> Result<Outcome, CniError> {
    let environment = Environment::read(variable)?;
    if environment.command == Command::Version {
        return Ok(Outcome::success(spec::versions(version)));
    }
    let conf = NetConf::read(stdin, environment.command)?;
    match (environment.command, &environment.attachment) {
        (Command::Add, Some(attachment)) => add(&environment, attachment, &conf),
        (Command::Del, Some(attachment)) => del(&environment, attachment, &conf),
        (Command::Check, Some(attachment)) => check(&environment, attachment, &conf),
        (Command::Gc, _) => gc(&conf),
        (Command::Status, _) => status(&conf),
        // `Environment::read` leaves no other combination.
        _ => Err(CniError::new(code::INVALID_ENVIRONMENT, "environment names no container", "")),
    }
}

fn add(
    environment: &Environment,
    attachment: &Attachment,
    conf: &NetConf,
) -> Result<Outcome, CniError> {
    let netns = environment.netns.clone().unwrap_or_default();
    let version = conf.version()?;
    let mut requested_ips = conf.requested_ips()?;
    requested_ips.extend(environment.requested_ip()?);
    let request = Request::Add(Add {
        attachment: attachment.clone(),
        netns: netns.clone(),
        pod: environment.pod(),
        network: conf.name.clone(),
        requested_ips,
        mtu: conf.mtu,
    });
    let mut daemon = Client::connect(conf.socket(), ADD_PATIENCE)?;
    let wiring = expect_wiring(conf.socket(), daemon.ask(&request)?)?;
    let tag = plumbing::tag(&conf.name, attachment);
    let wired = plumbing::wire(&netns, &attachment.ifname, &wiring, &tag);
    let finished = wired.map_err(CniError::from).and_then(|wired| {
        let report = Request::Wired(Wired {
            attachment: attachment.clone(),
            container_mac: wired.container_mac,
            host_ifindex: wired.host_ifindex,
        });
        expect_done(conf.socket(), daemon.ask(&report)?).map(|()| wired)
    });
    match finished {
        Ok(wired) => {
            let result = render_result(attachment, &netns, &wiring, &wired, version);
            Ok(Outcome { warnings: wired.warnings, ..Outcome::success(result) })
        }
        Err(error) => {
            // One conversation at a time: the daemon may be waiting for the end of this one.
            drop(daemon);
            // The runtime calls DEL too, but may be killed before that.
            let mut undone = Outcome::error(&error, version.as_str());
            undone.warnings = give_up(environment, attachment, conf);
            Ok(undone)
        }
    }
}

/// Takes back a half-made attachment; what goes wrong here must not hide the first error.
fn give_up(environment: &Environment, attachment: &Attachment, conf: &NetConf) -> Vec<String> {
    match del(environment, attachment, conf) {
        Ok(outcome) => outcome.warnings,
        Err(error) => vec![format!("clean-up after the failed ADD: {error}")],
    }
}

fn del(
    environment: &Environment,
    attachment: &Attachment,
    conf: &NetConf,
) -> Result<Outcome, CniError> {
    // First the interface, then the address: nobody else may get the address while this container still has it.
    let tag = plumbing::tag(&conf.name, attachment);
    plumbing::unwire(environment.netns.as_deref(), &attachment.ifname, &tag)?;
    let del = Del {
        attachment: attachment.clone(),
        netns: environment.netns.clone(),
        pod: environment.pod(),
        network: conf.name.clone(),
    };
    let request = Request::Del(del.clone());
    let answer =
        Client::connect(conf.socket(), PATIENCE).and_then(|mut daemon| daemon.ask(&request));
    match answer {
        Ok(response) => {
            expect_done(conf.socket(), response)?;
            Ok(Outcome::success(String::new()))
        }
        Err(error) => leave_to_journal(conf.socket(), &del, &error),
    }
}

/// The daemon is away: a pod must still be able to end.
fn leave_to_journal(socket: &Path, del: &Del, why: &ClientError) -> Result<Outcome, CniError> {
    let path = journal::record(socket, del).map_err(|error| {
        let details =
            format!("and writing the journal in {}: {error}", journal::folder(socket).display());
        CniError::new(code::TRY_AGAIN, why.to_string(), details)
    })?;
    let warning = format!("{why}; the address is released when it is back ({})", path.display());
    Ok(Outcome { warnings: vec![warning], ..Outcome::success(String::new()) })
}

fn check(
    environment: &Environment,
    attachment: &Attachment,
    conf: &NetConf,
) -> Result<Outcome, CniError> {
    let request = Request::Check(Check {
        attachment: attachment.clone(),
        pod: environment.pod(),
        network: conf.name.clone(),
    });
    let mut daemon = Client::connect(conf.socket(), PATIENCE)?;
    let wiring = expect_wiring(conf.socket(), daemon.ask(&request)?)?;
    let netns = environment.netns.clone().unwrap_or_default();
    let mut findings = plumbing::check(&netns, &attachment.ifname, &wiring)?;
    if let Some(previous) = conf.prev_result()? {
        for address in &wiring.addresses {
            if !previous.ips.iter().any(|ip| ip.address == *address) {
                findings.push(format!("prevResult lacks address {address}"));
            }
        }
    }
    if findings.is_empty() {
        return Ok(Outcome::success(String::new()));
    }
    let msg = format!("interface {} is not as it was made", attachment.ifname);
    Err(CniError::new(code::CHECK_FAILED, msg, findings.join("; ")))
}

fn gc(conf: &NetConf) -> Result<Outcome, CniError> {
    let valid = conf.valid_attachments()?;
    let removed = plumbing::collect(&conf.name, valid)?;
    let request = Request::Gc(Gc { network: conf.name.clone(), valid_attachments: valid.to_vec() });
    let mut daemon = Client::connect(conf.socket(), PATIENCE)?;
    expect_done(conf.socket(), daemon.ask(&request)?)?;
    let warnings =
        removed.into_iter().map(|name| format!("removed stale interface {name}")).collect();
    Ok(Outcome { warnings, ..Outcome::success(String::new()) })
}

fn status(conf: &NetConf) -> Result<Outcome, CniError> {
    let asked = Client::connect(conf.socket(), PATIENCE)
        .and_then(|mut daemon| daemon.ask(&Request::Status));
    let response = asked.map_err(|error| CniError { code: code::NOT_AVAILABLE, ..error.into() })?;
    expect_done(conf.socket(), response)?;
    Ok(Outcome::success(String::new()))
}

fn expect_wiring(socket: &Path, response: Response) -> Result<Wiring, CniError> {
    match response {
        Response::Wire(wiring) => Ok(wiring),
        Response::Error(error) => Err(error),
        Response::Done => Err(confused(socket)),
    }
}

fn expect_done(socket: &Path, response: Response) -> Result<(), CniError> {
    match response {
        Response::Done => Ok(()),
        Response::Error(error) => Err(error),
        Response::Wire(_) => Err(confused(socket)),
    }
}

fn confused(socket: &Path) -> CniError {
    let reason = "it answers another question".to_owned();
    ClientError::Confused { socket: socket.to_owned(), reason }.into()
}

fn render_result(
    attachment: &Attachment,
    netns: &Path,
    wiring: &Wiring,
    wired: &plumbing::Wired,
    version: Version,
) -> String {
    let host = Iface {
        name: wiring.host_interface.clone(),
        mac: Some(wiring.host_mac.to_string()),
        mtu: Some(wiring.mtu),
        sandbox: None,
    };
    let container = Iface {
        name: attachment.ifname.clone(),
        mac: Some(wired.container_mac.to_string()),
        mtu: Some(wiring.mtu),
        sandbox: Some(netns.display().to_string()),
    };
    let ip = |address| Ip {
        version: None,
        address,
        gateway: wiring.gateway_for(&address),
        interface: Some(1),
    };
    let default =
        |gateway| RouteEntry { dst: plumbing::default_prefix(gateway), gw: Some(gateway) };
    let result = CniResult {
        interfaces: vec![host, container],
        ips: wiring.addresses.iter().copied().map(ip).collect(),
        routes: wiring.gateways.iter().copied().map(default).collect(),
        ..CniResult::default()
    };
    result.render(version)
}
