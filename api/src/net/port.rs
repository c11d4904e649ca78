//! Ports of policy rules: a number, a range, or the name of a container port.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::IntOrString;

/// A port as a policy writes it: `80`, `"80:90"` or `"http"`. Kept as written; [`Port::range`] interprets it.
#[derive(
    Clone, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
#[schemars(inline, description = "A number, a range such as `80:90`, or the name of a port.", extend("pattern" = "^.*"))]
pub struct Port(IntOrString);

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl PortRange {
    /// A single port.
    #[must_use]
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}:{}", self.first, self.last)
        }
    }
}

/// Why a port makes no sense.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The number does not fit.
    #[error(
        "port {0} is outside 0..65535: give a port number, a range such as `8000:8080`, or a port name"
    )]
    OutOfRange(String),
    /// First above last.
    #[error("port range `{0}` ends before it begins: swap the two numbers")]
    Reversed(String),
    /// Neither number, range nor name.
    #[error(
        "`{0}` is no port: give a number, a range such as `8000:8080`, or a name of letters, digits, `-`, `_` and `.`"
    )]
    Syntax(String),
}

/// What a port means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortMeaning<'a> {
    /// Numbers.
    Range(PortRange),
    /// A name to look up in each pod's containers.
    Name(&'a str),
}

impl Port {
    /// Interprets it.
    ///
    /// # Errors
    /// When it is out of range, reversed, or neither number, range nor name.
    pub fn meaning(&self) -> Result<PortMeaning<'_>, PortError> {
        match &self.0 {
            IntOrString::Int(number) => u16::try_from(*number)
                .map(|port| PortMeaning::Range(PortRange::single(port)))
                .map_err(|_| PortError::OutOfRange(number.to_string())),
            IntOrString::String(text) => text_meaning(text),
        }
    }

    /// Returns the numbers; `None` when it is a name or makes no sense.
    #[must_use]
    pub fn range(&self) -> Option<PortRange> {
        match self.meaning() {
            Ok(PortMeaning::Range(range)) => Some(range),
            _ => None,
        }
    }

    /// Returns the name; `None` when it is a number or range or makes no sense.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self.meaning() {
            Ok(PortMeaning::Name(name)) => Some(name),
            _ => None,
        }
    }
}

fn text_meaning(text: &str) -> Result<PortMeaning<'_>, PortError> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number =
        |part: &str| part.parse::<u16>().map_err(|_| PortError::OutOfRange(text.to_owned()));
    if digits(text) {
        return number(text).map(|port| PortMeaning::Range(PortRange::single(port)));
    }
    if let Some((first, last)) = text.split_once(':')
        && digits(first)
        && digits(last)
    {
        let (first, last) = (number(first)?, number(last)?);
        return if first <= last {
            Ok(PortMeaning::Range(PortRange { first, last }))
        } else {
            Err(PortError::Reversed(text.to_owned()))
        };
    }
    // libcalico numorstring: a name is 1 to 128 of letters, digits, `_`, `.` and `-`.
    let is_name = (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_name { Ok(PortMeaning::Name(text)) } else { Err(PortError::Syntax(text.to_owned())) }
}

impl From<u16> for Port {
    fn from(port: u16) -> Self {
        Self(port.into())
    }
}

impl From<&str> for Port {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<PortRange> for Port {
    fn from(range: PortRange) -> Self {
        if range.first == range.last {
            Self::from(range.first)
        } else {
            Self(IntOrString::String(range.to_string()))
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
