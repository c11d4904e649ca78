//! `CNI_*` environment variables.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use super::{Attachment, CniError, code, is_identifier};
use crate::rpc::Pod;

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach a container.
    Del,
    /// Verify an attachment.
    Check,
    /// Clean up all attachments but the listed ones.
    Gc,
    /// Say whether ADD can be served.
    Status,
    /// Tell supported versions.
    Version,
}

/// What the runtime said in the environment, validated for its command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Command,
    /// `CNI_CONTAINERID` and `CNI_IFNAME`; always there for ADD, DEL, CHECK.
    pub attachment: Option<Attachment>,
    /// `CNI_NETNS`; always there for ADD and CHECK.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub args: BTreeMap<String, String>,
}

impl Environment {
    /// Reads and validates the variables.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let command = match get("CNI_COMMAND").as_deref() {
            Some("ADD") => Command::Add,
            Some("DEL") => Command::Del,
            Some("CHECK") => Command::Check,
            Some("GC") => Command::Gc,
            Some("STATUS") => Command::Status,
            Some("VERSION") => Command::Version,
            Some(other) => {
                let known = "ADD, DEL, CHECK, GC, STATUS, VERSION";
                return Err(invalid("CNI_COMMAND", &format!("{other:?} is none of {known}")));
            }
            None => return Err(missing("CNI_COMMAND")),
        };
        let about_container = matches!(command, Command::Add | Command::Del | Command::Check);
        let attachment = if about_container { Some(read_attachment(&get)?) } else { None };
        let netns = get("CNI_NETNS").map(PathBuf::from);
        if netns.is_none() && matches!(command, Command::Add | Command::Check) {
            return Err(missing("CNI_NETNS"));
        }
        let args = read_args(&get("CNI_ARGS").unwrap_or_default())?;
        Ok(Self { command, attachment, netns, args })
    }

    /// Returns the pod that the kubelet named in `CNI_ARGS`.
    pub fn pod(&self) -> Option<Pod> {
        let get = |key: &str| self.args.get(key).filter(|value| !value.is_empty()).cloned();
        Some(Pod {
            namespace: get("K8S_POD_NAMESPACE")?,
            name: get("K8S_POD_NAME")?,
            uid: get("K8S_POD_UID"),
            infra_container_id: get("K8S_POD_INFRA_CONTAINER_ID"),
        })
    }

    /// Returns the address asked for with `IP=` in `CNI_ARGS`.
    pub fn requested_ip(&self) -> Result<Option<IpAddr>, CniError> {
        let Some(text) = self.args.get("IP") else { return Ok(None) };
        let parsed =
            text.parse().map_err(|_| invalid("CNI_ARGS", &format!("IP={text} is no address")))?;
        Ok(Some(parsed))
    }
}

fn read_attachment(get: &impl Fn(&str) -> Option<String>) -> Result<Attachment, CniError> {
    let container_id = get("CNI_CONTAINERID").ok_or_else(|| missing("CNI_CONTAINERID"))?;
    if !is_identifier(&container_id) {
        let rule = "must start with a letter or digit and hold only those, '_', '.' and '-'";
        return Err(invalid("CNI_CONTAINERID", rule));
    }
    let ifname = get("CNI_IFNAME").ok_or_else(|| missing("CNI_IFNAME"))?;
    let malformed = ifname.len() > kernel::link::MAX_NAME
        || ifname == "."
        || ifname == ".."
        || ifname.contains(['/', ':'])
        || ifname.contains(char::is_whitespace);
    if malformed {
        let rule = "must be at most 15 octets, without '/', ':' and white space, not '.' or '..'";
        return Err(invalid("CNI_IFNAME", rule));
    }
    Ok(Attachment { container_id, ifname })
}

fn read_args(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    let mut args = BTreeMap::new();
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(invalid("CNI_ARGS", &format!("{pair:?} is not KEY=VALUE")));
        };
        args.insert(key.to_owned(), value.to_owned());
    }
    Ok(args)
}

fn missing(name: &str) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, format!("environment variable {name} is missing"), "")
}

fn invalid(name: &str, why: &str) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, format!("environment variable {name} is invalid"), why)
}
