//! How answers are shown: table, wide, name, JSON or YAML.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

/// Output format of a command.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// JSON, stable and documented
    Json,
    /// YAML
    Yaml,
    /// `kind/name` only
    Name,
}

/// Where and how a command answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// On standard output.
    Format(Format),
    /// A report into a file; on standard output a table.
    File(PathBuf),
}

impl Output {
    /// Returns how to answer on standard output.
    #[must_use]
    pub fn format(&self) -> Format {
        match self {
            Self::Format(format) => *format,
            Self::File(_) => Format::Table,
        }
    }

    /// Returns the file for a report.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Format(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(format) = Format::from_str(text, true) {
            return Ok(Self::Format(format));
        }
        if text.ends_with(".json") {
            return Ok(Self::File(text.into()));
        }
        Err("expected table, wide, json, yaml, name, or a file that ends in .json".to_owned())
    }
}

/// Whether whoever reads the output wants more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Flow {
    /// Yes.
    More,
    /// No: `| head` has seen enough.
    Enough,
}

/// Where output goes.
#[derive(Clone, Debug)]
pub enum Sink {
    /// To standard output, at once.
    Stdout,
    /// Kept: for tests.
    Kept(Arc<Mutex<String>>),
}

impl Sink {
    /// Writes a part.
    ///
    /// # Errors
    /// A full disk and the like; a reader that went away has what it wanted.
    pub fn write(&self, text: &str) -> anyhow::Result<Flow> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                    Ok(()) => Ok(Flow::More),
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Flow::Enough),
                    Err(error) => Err(error).context("cannot write to standard output"),
                }
            }
            Self::Kept(kept) => {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
                Ok(Flow::More)
            }
        }
    }
}

/// What the terminal is like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Screen {
    /// Columns.
    pub width: usize,
    /// Whether colours are welcome.
    pub color: bool,
}

impl Screen {
    /// Looks at standard output, `NO_COLOR` and `COLUMNS`.
    #[must_use]
    pub fn detect() -> Self {
        let set = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let color = io::stdout().is_terminal() && set("NO_COLOR").is_none();
        let columns = set("COLUMNS").and_then(|text| text.parse().ok());
        let width = columns.or_else(|| Some(usize::from(terminal_size::terminal_size()?.0.0)));
        Self { width: width.unwrap_or(80).max(40), color }
    }
}

/// A table for people: columns padded to their widest cell, three spaces apart, no rulers, as kubectl prints.
#[derive(Clone, Debug, Default)]
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Starts a table.
    #[must_use]
    pub fn new(headers: &[&str]) -> Self {
        Self {
            headers: headers.iter().map(|&header| header.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; empty cells print as `-`.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells =
            cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        self.rows.push(cells.collect());
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Renders the table.
    #[must_use]
    pub fn render(&self) -> String {
        let widths: Vec<usize> = self
            .headers
            .iter()
            .enumerate()
            .map(|(column, header)| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
                    .max(header.chars().count())
            })
            .collect();
        let mut text = String::new();
        for row in std::iter::once(&self.headers).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:<width$}   ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Renders as pretty JSON with a newline at the end.
///
/// # Errors
/// When a value cannot be represented, which our types cannot cause.
pub fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Renders as YAML.
///
/// # Errors
/// When a value cannot be represented, which our types cannot cause.
pub fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_norway::to_string(value)?)
}

/// Renders a value in the machine formats; `None` for the formats that each command has its own text for.
///
/// # Errors
/// When a value cannot be represented, which our types cannot cause.
pub fn machine(format: Format, value: &impl Serialize) -> anyhow::Result<Option<String>> {
    match format {
        Format::Json => json(value).map(Some),
        Format::Yaml => yaml(value).map(Some),
        Format::Table | Format::Wide | Format::Name => Ok(None),
    }
}

/// Renders a number of things: `1 block`, `2 blocks`.
#[must_use]
pub fn count(number: usize, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded_and_empty_cells_show() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["a".to_owned(), "Established".to_owned()]);
        table.row(["longer-name".to_owned(), String::new()]);
        expect_test::expect![[r#"
            NAME          STATE
            a             Established
            longer-name   -
        "#]]
        .assert_eq(&table.render());
    }
}
