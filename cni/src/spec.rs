//! The CNI specification, versions 0.3.0 to 1.1.0: environment, configuration, results and errors.
//!
//! Pure: what the runtime gave comes in as text, what it gets back goes out as text.

mod conf;
mod environment;
mod result;

use serde::{Deserialize, Serialize};

pub use self::{
    conf::{NetConf, RuntimeConfig},
    environment::{Command, Environment},
    result::{CniResult, Iface, Ip, RouteEntry, versions},
};

/// A version of the specification that we speak; the order is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK.
    V0_4_0,
    /// 1.0.0: no `version` in `ips`.
    V1_0_0,
    /// 1.1.0: STATUS, GC, MTU in results.
    V1_1_0,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] =
        [Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// Returns the text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

/// An error as the runtime gets it (specification, section "Error").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct CniError {
    /// Number, see [`code`].
    pub code: u32,
    /// One line.
    pub msg: String,
    /// Cause and next step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// Error numbers of the specification, and ours from 100 on.
pub mod code {
    /// The version of the configuration is not supported.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown; nothing to clean up.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO_FAILURE: u32 = 5;
    /// The configuration could not be decoded.
    pub const DECODING_FAILURE: u32 = 6;
    /// The configuration makes no sense.
    pub const INVALID_NETWORK_CONFIG: u32 = 7;
    /// Passing trouble: the runtime should try again.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: ADD can't be served.
    pub const NOT_AVAILABLE: u32 = 50;
    /// STATUS: ADD can't be served, and existing containers have limited connectivity.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// Ours: what is in the container is not what should be.
    pub const CHECK_FAILED: u32 = 100;
    /// Ours: the kernel refused to wire the container.
    pub const WIRING_FAILED: u32 = 101;
}

impl CniError {
    /// Makes an error.
    pub fn new(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: details.into() }
    }

    /// Renders it for stdout, with the version that the runtime speaks.
    pub fn render(&self, version: &str) -> String {
        let mut object =
            serde_json::json!({"cniVersion": version, "code": self.code, "msg": self.msg});
        if let (false, Some(fields)) = (self.details.is_empty(), object.as_object_mut()) {
            fields.insert("details".into(), self.details.clone().into());
        }
        format!("{object:#}\n")
    }
}

/// What identifies one interface of one container within a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// Sandbox id that the runtime chose.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Name of the interface inside the container.
    pub ifname: String,
}

/// `^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`: container ids and network names. They end up in file names.
fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

#[cfg(test)]
mod tests;
