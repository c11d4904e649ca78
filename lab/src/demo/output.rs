//! What the demonstration prints: steps, tables and a matrix, for terminals and for logs.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    time::Instant,
};

/// How the result is printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// The summary as JSON on standard output, everything else on standard error.
    Json,
}

/// Where everything is printed.
#[derive(Debug)]
pub struct Output {
    colour: bool,
    format: Format,
    begun: Instant,
}

/// Prints a line to standard output; whoever closed it (`| head`) does not want to read it.
pub fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// Colours, by meaning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Of less interest.
    Faint,
    /// A headline.
    Strong,
}

impl Output {
    /// Colours only on a terminal, and not when `NO_COLOR` is set.
    #[must_use]
    pub fn new(format: Format, begun: Instant) -> Self {
        let terminal = match format {
            Format::Text => std::io::stdout().is_terminal(),
            Format::Json => std::io::stderr().is_terminal(),
        };
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour, format, begun }
    }

    /// When the user began to wait.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Prints a line.
    pub fn line(&self, text: &str) {
        match self.format {
            Format::Text => say(text),
            // Who closed it does not want to read it.
            Format::Json => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    /// Prints the machine's answer, in JSON mode.
    pub fn result(&self, value: &serde_json::Value) {
        if self.format == Format::Json {
            say(&format!("{value:#}"));
        }
    }

    /// Begins a stage.
    pub fn stage(&self, number: usize, title: &str) {
        self.line("");
        self.line(&self.paint(&format!("{number}  {title}"), Tone::Strong));
    }

    /// Prints a line with the time since the beginning.
    pub fn progress(&self, text: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.line(&format!("   {} {text}", self.paint(&format!("{seconds:5.1} s"), Tone::Faint)));
    }

    /// Prints the outcome of a check.
    pub fn check(&self, passed: bool, text: &str) {
        let mark =
            if passed { self.paint("✓", Tone::Good) } else { self.paint("✗", Tone::Bad) };
        self.progress(&format!("{mark} {text}"));
    }

    /// Prints a table, indented.
    pub fn table(&self, head: &[&str], rows: &[Vec<String>]) {
        for (number, line) in table(head, rows).lines().enumerate() {
            let line = if number == 0 { self.paint(line, Tone::Faint) } else { line.to_owned() };
            self.line(&format!("   {line}"));
        }
    }

    /// Prints lines as they are, indented.
    pub fn block(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("   {}", self.marks(line)));
        }
    }

    /// Colours the marks of a matrix.
    fn marks(&self, line: &str) -> String {
        if !self.colour {
            return line.to_owned();
        }
        line.replace('✓', &self.paint("✓", Tone::Good)).replace('✗', &self.paint("✗", Tone::Bad))
    }

    /// Colours a text.
    #[must_use]
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            _ if !self.colour => return text.to_owned(),
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Renders a table with aligned columns.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            // Writing into a String can't fail.
            let _ = write!(text, "{cell:width$}  ");
        }
        out += text.trim_end();
        out.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

/// A cell of the matrix: IPv4 and IPv6, each open, closed, or not asked; and whether it is as expected.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Cell {
    /// IPv4.
    pub(super) v4: Option<Verdict>,
    /// IPv6.
    pub(super) v6: Option<Verdict>,
}

/// What a probe found, and what was expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Verdict {
    /// The connection came up.
    pub(super) open: bool,
    /// It should.
    pub(super) expected: bool,
}

/// Renders a matrix: `✓` open, `✗` closed, each first for IPv4 and then for IPv6; `!` behind what was not expected.
#[must_use]
pub(super) fn matrix(names: &[String], cells: &[Vec<Cell>]) -> String {
    let head: Vec<&str> =
        ["from \\ to"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let rows: Vec<Vec<String>> = names
        .iter()
        .zip(cells)
        .map(|(name, row)| {
            [name.clone()].into_iter().chain(row.iter().map(|cell| cell.to_string())).collect()
        })
        .collect();
    table(&head, &rows)
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.v4.is_none() && self.v6.is_none() {
            return f.pad("·");
        }
        let mut text = String::new();
        for verdict in [self.v4, self.v6] {
            text.push(match verdict {
                None => ' ',
                Some(Verdict { open: true, .. }) => '✓',
                Some(Verdict { open: false, .. }) => '✗',
            });
        }
        if [self.v4, self.v6].into_iter().flatten().any(|verdict| verdict.open != verdict.expected)
        {
            text.push('!');
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn matrices_show_both_families_and_surprises() {
        let verdict = |open, expected| Some(Verdict { open, expected });
        let open = Cell { v4: verdict(true, true), v6: verdict(true, true) };
        let names = ["shop/a".to_owned(), "b".to_owned()];
        let cells = [
            vec![Cell::default(), open],
            vec![
                Cell { v4: verdict(false, false), v6: verdict(true, false) },
                Cell { v4: None, v6: verdict(true, true) },
            ],
        ];
        expect![[r#"
            from \ to  shop/a  b
            shop/a     ·       ✓✓
            b          ✗✓!      ✓
        "#]]
        .assert_eq(&matrix(&names, &cells));
    }
}
