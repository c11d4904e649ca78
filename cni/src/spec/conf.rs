//! The network configuration on stdin.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::Deserialize;

use super::{Attachment, CniError, CniResult, Command, Version, code, is_identifier};
use crate::DEFAULT_SOCKET;

/// Our entry of a network configuration list, as the runtime hands it over.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetConf {
    /// Version the result must have.
    #[serde(default)]
    pub cni_version: String,
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// Where the daemon listens; absent means [`DEFAULT_SOCKET`].
    socket: Option<PathBuf>,
    /// MTU of pods; the daemon's detection when absent.
    pub mtu: Option<u32>,
    /// What ADD returned (CHECK, DEL).
    prev_result: Option<serde_json::Value>,
    /// What the runtime adds for capabilities.
    #[serde(default)]
    pub runtime_config: RuntimeConfig,
    /// GC: attachments that must stay.
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
}

/// Capability arguments.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RuntimeConfig {
    /// `ips`: addresses asked for, with or without prefix length.
    #[serde(default)]
    ips: Vec<String>,
}

impl NetConf {
    /// Decodes and validates a configuration for a command.
    pub fn read(text: &str, command: Command) -> Result<Self, CniError> {
        let conf: Self = serde_json::from_str(text).map_err(|error| {
            CniError::new(
                code::DECODING_FAILURE,
                "network configuration on stdin",
                error.to_string(),
            )
        })?;
        let version = conf.version()?;
        let since = match command {
            Command::Check => Version::V0_4_0,
            Command::Gc | Command::Status => Version::V1_1_0,
            Command::Add | Command::Del | Command::Version => Version::V0_3_0,
        };
        if version < since {
            let details = format!("{command:?} exists since {}", since.as_str());
            let msg = format!("cniVersion {} has no such command", conf.cni_version);
            return Err(CniError::new(code::INCOMPATIBLE_VERSION, msg, details));
        }
        if !is_identifier(&conf.name) {
            let rule = "must start with a letter or digit and hold only those, '_', '.' and '-'";
            return Err(invalid("name", &format!("{:?} {rule}", conf.name)));
        }
        if conf.mtu.is_some_and(|mtu| !(68..=65_535).contains(&mtu)) {
            return Err(invalid("mtu", "must be 68 to 65535 (1280 or more for IPv6)"));
        }
        Ok(conf)
    }

    /// Returns the version, if we speak it.
    pub fn version(&self) -> Result<Version, CniError> {
        Version::parse(&self.cni_version).ok_or_else(|| {
            let known = Version::ALL.map(Version::as_str).join(", ");
            let msg = format!("cniVersion {:?} is not supported", self.cni_version);
            CniError::new(code::INCOMPATIBLE_VERSION, msg, format!("use one of {known}"))
        })
    }

    /// Returns where the daemon listens.
    pub fn socket(&self) -> &Path {
        self.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET))
    }

    /// Returns the addresses that the `ips` capability asks for.
    pub fn requested_ips(&self) -> Result<Vec<IpAddr>, CniError> {
        let parse = |text: &String| {
            let bare =
                text.parse().ok().or_else(|| text.parse::<IpNet>().ok().map(|net| net.addr()));
            bare.ok_or_else(|| invalid("runtimeConfig.ips", &format!("{text:?} is no address")))
        };
        self.runtime_config.ips.iter().map(parse).collect()
    }

    /// Returns the earlier result, if there is one.
    pub fn prev_result(&self) -> Result<Option<CniResult>, CniError> {
        let Some(value) = &self.prev_result else { return Ok(None) };
        serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|error| CniError::new(code::DECODING_FAILURE, "prevResult", error.to_string()))
    }

    /// Returns the attachments that GC must leave; their absence is an error, not an empty list.
    pub fn valid_attachments(&self) -> Result<&[Attachment], CniError> {
        self.valid_attachments.as_deref().ok_or_else(|| {
            invalid("cni.dev/valid-attachments", "is missing; GC would remove everything")
        })
    }
}

fn invalid(field: &str, why: &str) -> CniError {
    CniError::new(
        code::INVALID_NETWORK_CONFIG,
        format!("network configuration field {field} is invalid"),
        why,
    )
}
