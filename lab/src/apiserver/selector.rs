//! Label and field selectors of lists and watches.

use serde_json::Value;

use super::{
    defaults::{KEY_RULE, is_label_key},
    status::Failure,
    value::{show, text},
};

/// Which objects a list or watch is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    pub(super) namespace: Option<String>,
    labels: Vec<Requirement>,
    fields: Vec<(Vec<String>, bool, String)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

impl Selector {
    /// Reads the two query parameters; `selectable` are the kind's fields besides name and namespace.
    pub(super) fn parse(
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
        selectable: &[String],
    ) -> Result<Self, Failure> {
        let mut parsed = Vec::new();
        for term in fields.split(',').filter(|term| !term.is_empty()) {
            let (path, equal, wanted) = split_field(term).ok_or_else(|| {
                Failure::bad_request(format!(
                    "invalid selector: '{fields}'; can't understand '{term}'"
                ))
            })?;
            let known = matches!(path, "metadata.name" | "metadata.namespace")
                || selectable.iter().any(|s| s == path);
            if !known {
                return Err(Failure::bad_request(format!("field label not supported: {path}")));
            }
            parsed.push((path.split('.').map(str::to_owned).collect(), equal, wanted.to_owned()));
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            labels: parse_labels(labels)?,
            fields: parsed,
        })
    }

    /// Whether an object is selected.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|namespace| text(object, &["metadata", "namespace"]) == namespace)
            && self.labels.iter().all(|requirement| requirement.holds(object))
            && self.fields.iter().all(|(path, equal, wanted)| {
                let found =
                    path.iter().fold(object, |value, key| value.get(key).unwrap_or(&Value::Null));
                (show(found) == *wanted) == *equal
            })
    }
}

fn split_field(term: &str) -> Option<(&str, bool, &str)> {
    if let Some((path, wanted)) = term.split_once("!=") {
        return Some((path, false, wanted));
    }
    let (path, wanted) = term.split_once('=')?;
    Some((path, true, wanted.strip_prefix('=').unwrap_or(wanted)))
}

impl Requirement {
    fn key(&self) -> &str {
        match self {
            Self::In(key, _) | Self::NotIn(key, _) | Self::Exists(key) | Self::Absent(key) => key,
            Self::Greater(key, _) | Self::Less(key, _) => key,
        }
    }

    fn holds(&self, object: &Value) -> bool {
        let label = |key: &String| {
            object.pointer("/metadata/labels").and_then(|l| l.get(key)).and_then(Value::as_str)
        };
        let number = |key: &String| label(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => {
                label(key).is_some_and(|label| values.iter().any(|v| v == label))
            }
            Self::NotIn(key, values) => {
                label(key).is_none_or(|label| values.iter().all(|v| v != label))
            }
            Self::Exists(key) => label(key).is_some(),
            Self::Absent(key) => label(key).is_none(),
            Self::Greater(key, bound) => number(key).is_some_and(|number| number > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|number| number < *bound),
        }
    }
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, Failure> {
    let mut requirements = Vec::new();
    let mut depth = 0_u32;
    let terms = text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    for term in terms.map(str::trim).filter(|term| !term.is_empty()) {
        let requirement = parse_term(term)?;
        let key = requirement.key();
        if !is_label_key(key) {
            return Err(Failure::bad_request(format!(
                "unable to parse requirement: <nil>: Invalid value: {key:?}: {KEY_RULE}"
            )));
        }
        requirements.push(requirement);
    }
    Ok(requirements)
}

fn parse_term(term: &str) -> Result<Requirement, Failure> {
    let clean = |part: &str| part.trim().to_owned();
    if let Some((key, value)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(clean(key), vec![clean(value)]));
    }
    if let Some((key, value)) = term.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Ok(Requirement::In(clean(key), vec![clean(value)]));
    }
    if let Some((head, list)) = term.strip_suffix(')').and_then(|term| term.split_once('(')) {
        let values = list.split(',').map(clean).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next()) {
            (Some(key), Some("in")) => Ok(Requirement::In(key.to_owned(), values)),
            (Some(key), Some("notin")) => Ok(Requirement::NotIn(key.to_owned(), values)),
            _ => Err(Failure::bad_request(format!("unable to parse requirement: {term}"))),
        };
    }
    if let Some((key, bound)) =
        term.split_once('>').and_then(|(k, v)| Some((k, v.trim().parse().ok()?)))
    {
        return Ok(Requirement::Greater(clean(key), bound));
    }
    if let Some((key, bound)) =
        term.split_once('<').and_then(|(k, v)| Some((k, v.trim().parse().ok()?)))
    {
        return Ok(Requirement::Less(clean(key), bound));
    }
    if let Some(word) = term.split_whitespace().nth(1) {
        return Err(Failure::bad_request(format!(
            "unable to parse requirement: found '{word}', expected: in, notin, =, ==, !=, gt, lt"
        )));
    }
    Ok(match term.strip_prefix('!') {
        Some(key) => Requirement::Absent(clean(key)),
        None => Requirement::Exists(clean(term)),
    })
}
