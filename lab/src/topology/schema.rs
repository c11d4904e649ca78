//! Which keys containerlab's schema knows where, and what shape their values have.

use super::{
    Fault,
    yaml::{Entry, Value, Yaml},
};

/// Shape of a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    /// Text or number.
    Text,
    /// `true` or `false`.
    Boolean,
    /// Whole number.
    Integer,
    /// List of texts.
    Texts,
    /// Mapping of names to texts.
    Map,
    /// Only containers care; not looked into.
    Opaque,
}

pub(super) type Keys = &'static [(&'static str, Shape)];

/// Top level of the file.
pub(super) const ROOT: Keys = &[
    ("name", Shape::Text),
    ("prefix", Shape::Text),
    ("mgmt", Shape::Opaque),
    ("settings", Shape::Opaque),
    ("debug", Shape::Opaque),
    ("topology", Shape::Opaque),
];

/// `topology:`.
pub(super) const TOPOLOGY: Keys = &[
    ("defaults", Shape::Opaque),
    ("kinds", Shape::Opaque),
    ("groups", Shape::Opaque),
    ("nodes", Shape::Opaque),
    ("links", Shape::Opaque),
];

/// A node, and what defaults, kinds and groups may say about nodes.
pub(super) const NODE: Keys = &[
    ("SANs", Shape::Texts),
    ("aliases", Shape::Texts),
    ("auto-remove", Shape::Boolean),
    ("binds", Shape::Texts),
    ("cap-add", Shape::Texts),
    ("certificate", Shape::Opaque),
    ("cmd", Shape::Text),
    ("components", Shape::Opaque),
    ("config", Shape::Opaque),
    ("cpu", Shape::Text),
    ("cpu-set", Shape::Text),
    ("credentials", Shape::Opaque),
    ("devices", Shape::Texts),
    ("dns", Shape::Opaque),
    ("enforce-startup-config", Shape::Boolean),
    ("entrypoint", Shape::Text),
    ("env", Shape::Map),
    ("env-files", Shape::Texts),
    ("exec", Shape::Texts),
    ("extras", Shape::Opaque),
    ("group", Shape::Text),
    ("healthcheck", Shape::Opaque),
    ("image", Shape::Text),
    ("image-pull-policy", Shape::Text),
    ("kind", Shape::Text),
    ("labels", Shape::Map),
    ("license", Shape::Text),
    ("memory", Shape::Text),
    ("mgmt-ipv4", Shape::Text),
    ("mgmt-ipv6", Shape::Text),
    ("mgmt_ipv4", Shape::Text),
    ("mgmt_ipv6", Shape::Text),
    ("network-mode", Shape::Text),
    ("ports", Shape::Texts),
    ("position", Shape::Text),
    ("privileged", Shape::Boolean),
    ("publish", Shape::Texts),
    ("restart-policy", Shape::Text),
    ("runtime", Shape::Text),
    ("shm-size", Shape::Text),
    ("stages", Shape::Opaque),
    ("startup-config", Shape::Text),
    ("startup-delay", Shape::Integer),
    ("suppress-startup-config", Shape::Boolean),
    ("sysctls", Shape::Map),
    ("tmpfs", Shape::Texts),
    ("type", Shape::Text),
    ("user", Shape::Text),
    ("wait-for", Shape::Texts),
];

/// A link.
pub(super) const LINK: Keys = &[
    ("type", Shape::Text),
    ("endpoints", Shape::Opaque),
    ("mtu", Shape::Integer),
    ("vars", Shape::Opaque),
    ("labels", Shape::Map),
];

/// One end of a typed link.
pub(super) const ENDPOINT: Keys = &[
    ("node", Shape::Text),
    ("interface", Shape::Text),
    ("mac", Shape::Text),
    ("ipv4", Shape::Text),
    ("ipv6", Shape::Text),
    ("vars", Shape::Opaque),
];

/// Checks keys and shapes of a mapping; `place` names it in messages.
pub(super) fn check<'a>(yaml: &'a Yaml, keys: Keys, place: &str) -> Result<&'a [Entry], Fault> {
    let entries = yaml.mapping(place)?;
    for entry in entries {
        let Some((_, shape)) = keys.iter().find(|(name, _)| *name == entry.key) else {
            let names: Vec<_> = keys.iter().map(|(name, _)| *name).collect();
            let help = nearest(&entry.key, &names).map_or_else(
                || format!("known keys: {}", names.join(", ")),
                |name| format!("did you mean {name:?}?"),
            );
            return Err(Fault::new(
                entry.line,
                format!("{place}: unknown key {:?}", entry.key),
                help,
            ));
        };
        check_shape(&entry.value, *shape, &format!("{place}: {}", entry.key))?;
    }
    Ok(entries)
}

fn check_shape(yaml: &Yaml, shape: Shape, what: &str) -> Result<(), Fault> {
    match (shape, &yaml.value) {
        (Shape::Opaque, _) => Ok(()),
        (Shape::Text, _) => yaml.text(what).map(drop),
        (Shape::Boolean, Value::Scalar(text, true))
            if matches!(text.as_str(), "true" | "false") =>
        {
            Ok(())
        }
        (Shape::Boolean, _) => Err(yaml.unexpected(what, "true or false")),
        (Shape::Integer, Value::Scalar(text, true)) if text.parse::<u32>().is_ok() => Ok(()),
        (Shape::Integer, _) => Err(yaml.unexpected(what, "a whole number")),
        (Shape::Texts, _) => {
            yaml.sequence(what)?.iter().try_for_each(|item| item.text(what).map(drop))
        }
        (Shape::Map, _) => {
            yaml.mapping(what)?.iter().try_for_each(|entry| match entry.value.value {
                Value::Scalar(..) => Ok(()),
                _ => Err(entry
                    .value
                    .unexpected(&format!("{what}.{}", entry.key), "a text or a number")),
            })
        }
    }
}

/// Finds the known word that a misspelt one most likely means.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let substituted = diagonal + usize::from(x != y);
            diagonal = *cell;
            *cell = substituted.min(diagonal + 1).min(left + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
