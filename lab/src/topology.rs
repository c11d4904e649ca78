//! Topologies in containerlab's file format (`*.clab.yml`).
//!
//! The same files stay valid for containerlab itself; what only containers need (images, licences, management
//! addresses) is read, checked and left alone. Reading is strict: what would be ignored in silence is an error.

mod model;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod yaml;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

pub use self::model::{Bind, Endpoint, Link, Node, Role, RouterKind, Topology};
pub(crate) use self::reader::words;

/// Why a topology can't be used, with the line to look at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopologyError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for TopologyError {}

/// A finding before the file's name is known.
#[derive(Debug)]
struct Fault {
    line: usize,
    message: String,
    help: String,
}

impl Fault {
    fn new(line: usize, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { line, message: message.into(), help: help.into() }
    }
}

impl Topology {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, TopologyError> {
        let text = fs::read_to_string(path).map_err(|error| TopologyError {
            file: path.to_owned(),
            line: 0,
            message: format!("cannot read the topology: {error}"),
            help: "name a containerlab file with -f FILE.clab.yml".into(),
        })?;
        Self::parse(&text, path)
    }

    /// Reads the text of a file; `path` is where relative binds start, and what errors name.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TopologyError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        yaml::parse(text).and_then(|root| reader::read(&root, folder, path)).map_err(
            |Fault { line, message, help }| TopologyError {
                file: path.to_owned(),
                line,
                message,
                help,
            },
        )
    }
}

/// Says why a name can't be a lab's, if it can't.
pub fn check_lab_name(name: &str) -> Result<(), String> {
    reader::check_name(name, 0, "lab")
        .map(drop)
        .map_err(|fault| format!("{}; {}", fault.message, fault.help))
}
