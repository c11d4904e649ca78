//! A YAML document as a tree that remembers lines and notices keys given twice.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::Fault;

/// A value and the line it starts in.
#[derive(Clone, Debug)]
pub(super) struct Yaml {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Text and whether it was plain (unquoted), because only plain text can be a number, a boolean or null.
    Scalar(String, bool),
    Sequence(Vec<Yaml>),
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Yaml,
}

impl Yaml {
    /// What the value is, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match &self.value {
            Value::Scalar(..) if self.is_null() => "nothing",
            Value::Scalar(..) => "a scalar",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(text, true) if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// Entries of a mapping; nothing counts as an empty one.
    pub(super) fn mapping(&self, what: &str) -> Result<&[Entry], Fault> {
        match &self.value {
            Value::Mapping(entries) => Ok(entries),
            Value::Scalar(..) if self.is_null() => Ok(&[]),
            _ => Err(self.unexpected(what, "a mapping (`key: value` lines)")),
        }
    }

    /// Items of a list; nothing counts as an empty one.
    pub(super) fn sequence(&self, what: &str) -> Result<&[Self], Fault> {
        match &self.value {
            Value::Sequence(items) => Ok(items),
            Value::Scalar(..) if self.is_null() => Ok(&[]),
            _ => Err(self.unexpected(what, "a list (`- item` lines)")),
        }
    }

    pub(super) fn text(&self, what: &str) -> Result<&str, Fault> {
        match &self.value {
            Value::Scalar(text, _) if !self.is_null() => Ok(text),
            _ => Err(self.unexpected(what, "a text")),
        }
    }

    pub(super) fn unexpected(&self, what: &str, wanted: &str) -> Fault {
        Fault::new(self.line, format!("{what} must be {wanted}, but is {}", self.describe()), "")
    }
}

/// Parses exactly one document.
pub(super) fn parse(text: &str) -> Result<Yaml, Fault> {
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: BTreeMap::new() };
    builder.document()
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, Yaml>,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Yaml, Fault> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => (),
                (Event::StreamEnd | Event::DocumentEnd, span) => {
                    return Err(Fault::new(
                        span.start.line(),
                        "the file is empty",
                        "it needs `name:` and `topology:`",
                    ));
                }
                event => {
                    let root = self.value(event)?;
                    return self.only_document(root);
                }
            }
        }
    }

    fn only_document(&mut self, root: Yaml) -> Result<Yaml, Fault> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart(_), span) => {
                    return Err(Fault::new(
                        span.start.line(),
                        "a second YAML document begins here",
                        "keep one topology in a file",
                    ));
                }
                _ => (),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(syntax(&error)),
            None => Err(Fault::new(0, "the file ends in the middle of a value", "")),
        }
    }

    fn value(&mut self, (event, span): (Event<'a>, Span)) -> Result<Yaml, Fault> {
        let line = span.start.line();
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                (Value::Scalar(text.into_owned(), style == ScalarStyle::Plain), anchor)
            }
            Event::SequenceStart(anchor, _) => (Value::Sequence(self.items()?), anchor),
            Event::MappingStart(anchor, _) => (Value::Mapping(self.entries()?), anchor),
            Event::Alias(id) => {
                return self.anchors.get(&id).cloned().ok_or_else(|| {
                    Fault::new(
                        line,
                        "this alias names no anchor",
                        "define it with `&name` further up",
                    )
                });
            }
            other => return Err(Fault::new(line, format!("unexpected YAML: {other:?}"), "")),
        };
        let node = Yaml { line, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn items(&mut self) -> Result<Vec<Yaml>, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                event => items.push(self.value(event)?),
            }
        }
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event.0, Event::MappingEnd) {
                return Ok(entries);
            }
            let key = self.value(event)?;
            let line = key.line;
            let name = key.text("a key")?.to_owned();
            if let Some(first) = entries.iter().find(|entry| entry.key == name) {
                return Err(Fault::new(
                    line,
                    format!("key {name:?} is given twice, first in line {}", first.line),
                    "delete one of them",
                ));
            }
            let event = self.next()?;
            let value = self.value(event)?;
            entries.push(Entry { key: name, line, value });
        }
    }
}

fn syntax(error: &ScanError) -> Fault {
    Fault::new(
        error.marker().line(),
        format!("not YAML: {}", error.info()),
        "check indentation, colons and quotes there",
    )
}
