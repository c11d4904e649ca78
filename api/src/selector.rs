//! Selectors: which labels an object must have. Grammar and meaning of Calico (`libcalico-go/lib/selector`).
//!
//! `!=` and `not in` are true when the label is absent; every other comparison is false then. An empty selector is `all()`.

mod lexer;
mod parser;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, str::FromStr};

use sha2::{Digest as _, Sha224};

use crate::{LabelSelector, LabelSelectorRequirement};

/// A selector that parsed. Two selectors of one meaning that are written alike have one [`fmt::Display`] form.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Selector(Expression);

/// The parts of a selector.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Expression {
    /// `all()`.
    All,
    /// `global()`: objects outside namespaces.
    Global,
    /// `has(label)`.
    Has(String),
    /// `label == 'value'` and its kin.
    Compare(String, Operator, String),
    /// `label in {'a', 'b'}`; values sorted, each once.
    In(String, Vec<String>),
    /// `label not in {'a', 'b'}`; values sorted, each once.
    NotIn(String, Vec<String>),
    /// `!x`.
    Not(Box<Self>),
    /// `a && b`.
    And(Vec<Self>),
    /// `a || b`.
    Or(Vec<Self>),
}

/// Comparison of a label with one value.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Operator {
    /// `==`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `contains`.
    Contains,
    /// `starts with`.
    StartsWith,
    /// `ends with`.
    EndsWith,
}

/// Why a text is no selector.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message} at position {position}")]
pub struct SelectorError {
    /// Octet where reading stopped.
    pub position: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

/// What an object must have for a selector to match; used to look up candidates instead of scanning all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Restriction {
    /// The label exists.
    Present,
    /// The label exists with one of these values.
    OneOf(Vec<String>),
}

impl Selector {
    /// Matches everything.
    pub const ALL: Self = Self(Expression::All);

    /// Reads a selector.
    ///
    /// # Errors
    /// Where reading stopped and what was expected there.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parser::parse(text).map(Self)
    }

    /// Returns the parts.
    #[must_use]
    pub const fn expression(&self) -> &Expression {
        &self.0
    }

    /// Says whether an object whose labels `label` looks up is selected.
    #[must_use]
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.matches(&label)
    }

    /// Says whether an object with these labels is selected.
    #[must_use]
    pub fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches(|name| labels.get(name).map(String::as_str))
    }

    /// Returns what every match must have.
    #[must_use]
    pub fn restrictions(&self) -> BTreeMap<String, Restriction> {
        let mut found = BTreeMap::new();
        self.0.restrict(&mut found);
        found
    }

    /// Returns Calico's identity of a selector: `s:` and base64url of SHA-224 over the canonical text.
    #[must_use]
    pub fn id(&self) -> String {
        format!("s:{}", base64url(&Sha224::digest(self.to_string().as_bytes())))
    }

    /// Translates a label selector of Kubernetes.
    ///
    /// # Errors
    /// An operator that Kubernetes does not have, or values that do not fit it.
    pub fn from_label_selector(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut parts: Vec<_> = selector
            .match_labels
            .iter()
            .map(|(label, value)| {
                Expression::Compare(label.clone(), Operator::Equal, value.clone())
            })
            .collect();
        for requirement in &selector.match_expressions {
            parts.push(from_requirement(requirement)?);
        }
        Ok(Self(match parts.len() {
            0 => Expression::All,
            1 => parts.swap_remove(0),
            _ => Expression::And(parts),
        }))
    }
}

fn from_requirement(requirement: &LabelSelectorRequirement) -> Result<Expression, SelectorError> {
    let label = requirement.key.clone();
    let sorted = || {
        let mut values = requirement.values.clone();
        values.sort();
        values.dedup();
        values
    };
    let fail = |message: String| Err(SelectorError { position: 0, message });
    match (requirement.operator.as_str(), requirement.values.is_empty()) {
        ("In", false) => Ok(Expression::In(label, sorted())),
        ("NotIn", false) => Ok(Expression::NotIn(label, sorted())),
        ("Exists", true) => Ok(Expression::Has(label)),
        ("DoesNotExist", true) => Ok(Expression::Not(Box::new(Expression::Has(label)))),
        ("In" | "NotIn", true) => fail(format!("{label}: {} needs values", requirement.operator)),
        ("Exists" | "DoesNotExist", false) => {
            fail(format!("{label}: {} takes no values", requirement.operator))
        }
        (operator, _) => {
            fail(format!("{label}: '{operator}' is none of In, NotIn, Exists, DoesNotExist"))
        }
    }
}

impl Expression {
    fn matches<'a>(&self, label: &impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::All => true,
            // Objects of Kubernetes carry their namespace as a label; what has none is global.
            Self::Global => label("projectcalico.org/namespace").is_none(),
            Self::Has(name) => label(name).is_some(),
            Self::Compare(name, operator, wanted) => operator.holds(label(name), wanted),
            Self::In(name, values) => label(name).is_some_and(|found| contains(values, found)),
            Self::NotIn(name, values) => label(name).is_none_or(|found| !contains(values, found)),
            Self::Not(inner) => !inner.matches(label),
            Self::And(parts) => parts.iter().all(|part| part.matches(label)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(label)),
        }
    }

    fn restrict(&self, found: &mut BTreeMap<String, Restriction>) {
        let (name, restriction) = match self {
            Self::And(parts) => return parts.iter().for_each(|part| part.restrict(found)),
            Self::Has(name) => (name, Restriction::Present),
            Self::Compare(name, Operator::Equal, value) => {
                (name, Restriction::OneOf(vec![value.clone()]))
            }
            Self::Compare(
                name,
                Operator::Contains | Operator::StartsWith | Operator::EndsWith,
                _,
            ) => (name, Restriction::Present),
            Self::In(name, values) => (name, Restriction::OneOf(values.clone())),
            Self::All
            | Self::Global
            | Self::Compare(_, Operator::NotEqual, _)
            | Self::NotIn(..)
            | Self::Not(_)
            | Self::Or(_) => return,
        };
        match (found.get(name), &restriction) {
            (Some(Restriction::OneOf(_)), Restriction::Present) => {}
            _ => drop(found.insert(name.clone(), restriction)),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, inside: bool) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, parts: &[Self], glue: &str| {
            if inside {
                f.write_str("(")?;
            }
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    write!(f, " {glue} ")?;
                }
                part.write(f, true)?;
            }
            if inside { f.write_str(")") } else { Ok(()) }
        };
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(name) => write!(f, "has({name})"),
            Self::Compare(name, operator, value) => {
                write!(f, "{name} {operator} {}", quoted(value))
            }
            Self::In(name, values) => write!(f, "{name} in {{{}}}", joined(values)),
            Self::NotIn(name, values) => write!(f, "{name} not in {{{}}}", joined(values)),
            Self::Not(inner) => {
                f.write_str("!")?;
                inner.write(f, true)
            }
            Self::And(parts) => list(f, parts, "&&"),
            Self::Or(parts) => list(f, parts, "||"),
        }
    }
}

fn contains(values: &[String], found: &str) -> bool {
    values.binary_search_by(|value| value.as_str().cmp(found)).is_ok()
}

fn quoted(value: &str) -> String {
    if value.contains('"') { format!("'{value}'") } else { format!("\"{value}\"") }
}

fn joined(values: &[String]) -> String {
    values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ")
}

impl Operator {
    fn holds(self, found: Option<&str>, wanted: &str) -> bool {
        match self {
            Self::Equal => found == Some(wanted),
            Self::NotEqual => found != Some(wanted),
            Self::Contains => found.is_some_and(|found| found.contains(wanted)),
            Self::StartsWith => found.is_some_and(|found| found.starts_with(wanted)),
            Self::EndsWith => found.is_some_and(|found| found.ends_with(wanted)),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Contains => "contains",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, false)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

/// Base64 of RFC 4648 §5 without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let octet = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        for index in 0..=chunk.len() {
            let six = usize::try_from(bits >> (18 - 6 * index) & 63).unwrap_or(0);
            text.push(char::from(ALPHABET.get(six).copied().unwrap_or(b'A')));
        }
    }
    text
}
