//! A JSON number or string, as Kubernetes has it in ports.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A whole number or a string.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A string, such as the name of a port.
    String(String),
}

impl IntOrString {
    /// Returns the number as a port, whether it was written as a number or as digits.
    #[must_use]
    pub fn as_port(&self) -> Option<u16> {
        let port = match self {
            Self::Int(number) => u16::try_from(*number).ok(),
            Self::String(text) => text.parse().ok(),
        };
        port.filter(|port| *port != 0)
    }

    /// Returns the name when it is one.
    #[must_use]
    pub fn as_name(&self) -> Option<&str> {
        match self {
            Self::String(text) if text.parse::<i64>().is_err() => Some(text),
            _ => None,
        }
    }
}

impl From<u16> for IntOrString {
    fn from(port: u16) -> Self {
        Self::Int(i64::from(port))
    }
}

impl From<&str> for IntOrString {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::String(text) => f.write_str(text),
        }
    }
}

impl JsonSchema for IntOrString {
    fn schema_name() -> Cow<'static, str> {
        "IntOrString".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        int_or_string()
    }
}

/// The structural schema of a field that takes both.
pub(crate) fn int_or_string() -> Schema {
    json_schema!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": true,
    })
}
