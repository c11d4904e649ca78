//! What is wrong with a file, with the line it is on.

use std::{fmt::Display, ops::Range};

/// Everything that is wrong, so that one reading tells it all.
#[derive(Debug)]
pub(crate) struct Problems<'a> {
    text: &'a str,
    found: Vec<(usize, String)>,
}

impl<'a> Problems<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, found: Vec::new() }
    }

    /// Adds one about a place in the file.
    pub(crate) fn add(&mut self, place: &Range<usize>, field: &str, what: impl Display) {
        let before = self.text.get(..place.start).unwrap_or(self.text);
        let line = before.matches('\n').count().saturating_add(1);
        self.found.push((line, format!("line {line}, {field}: {what}")));
    }

    /// Returns an error that lists them all, or what was made of a file without any.
    pub(crate) fn or<T>(mut self, result: T) -> anyhow::Result<T> {
        if self.found.is_empty() {
            return Ok(result);
        }
        self.found.sort();
        let lines: Vec<String> = self.found.into_iter().map(|(_, text)| text).collect();
        Err(anyhow::anyhow!(lines.join("\n")))
    }
}
