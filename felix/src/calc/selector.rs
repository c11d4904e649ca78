//! Who a rule means: label selectors of Calico and Kubernetes, with the namespace and service account they are held to.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    fmt,
    hash::{Hash, Hasher},
};

use super::item::Item;

/// A whole selector: all parts must match. Two selectors with the same text select the same.
#[derive(Clone, Debug)]
pub struct Selector {
    namespace: NamespaceTerm,
    service_account: Option<AccountTerm>,
    labels: LabelTerm,
    /// Only pods, as peers of Kubernetes policies are.
    pods_only: bool,
    text: String,
}

/// Which namespaces.
#[derive(Clone, Debug)]
pub enum NamespaceTerm {
    /// Any, and things without a namespace.
    Any,
    /// This one.
    Is(String),
    /// Those with such labels.
    Labels(LabelTerm),
    /// Only things without a namespace: Calico's `global()`.
    None,
}

/// Which service accounts.
#[derive(Clone, Debug, Default)]
pub struct AccountTerm {
    /// One of these names, if any are given.
    pub names: BTreeSet<String>,
    /// Labels of the account.
    pub labels: LabelTerm,
}

/// Which labels.
#[derive(Clone, Debug, Default)]
pub enum LabelTerm {
    /// Any.
    #[default]
    All,
    /// A selector in Calico's language.
    Calico(api::Selector),
    /// The requirements of a Kubernetes label selector; all must hold.
    Kubernetes(Vec<Requirement>),
}

/// One requirement of a Kubernetes label selector.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Requirement {
    /// Present, with one of these values.
    In(String, BTreeSet<String>),
    /// Absent, or with another value.
    NotIn(String, BTreeSet<String>),
    /// Present.
    Exists(String),
    /// Absent.
    DoesNotExist(String),
}

impl Requirement {
    fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::In(key, values) => value(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => value(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => value(key).is_some(),
            Self::DoesNotExist(key) => value(key).is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &BTreeSet<String>| {
            values.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::In(key, values) if values.len() == 1 => {
                write!(f, "{key} == {}", list(values))
            }
            Self::In(key, values) => write!(f, "{key} in {{{}}}", list(values)),
            Self::NotIn(key, values) => write!(f, "{key} not in {{{}}}", list(values)),
            Self::Exists(key) => write!(f, "has({key})"),
            Self::DoesNotExist(key) => write!(f, "!has({key})"),
        }
    }
}

impl LabelTerm {
    /// Requirements in an order that does not depend on how they were written.
    #[must_use]
    pub fn kubernetes(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort();
        requirements.dedup();
        if requirements.is_empty() { Self::All } else { Self::Kubernetes(requirements) }
    }

    /// Reads a selector in Calico's language; empty means everything.
    ///
    /// # Errors
    /// When it is not a selector.
    pub fn calico(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text == "all()" {
            return Ok(Self::All);
        }
        let parsed =
            api::Selector::parse(text).map_err(|error| format!("selector `{text}`: {error}"))?;
        Ok(Self::Calico(parsed))
    }

    /// Reads what can be read of a selector that as a whole cannot: the terms between its outermost `&&`. What it selects is
    /// never less than what was meant; everything, when no term can be read.
    #[must_use]
    pub fn readable_part(text: &str) -> Self {
        let Some(terms) = conjunction(text) else { return Self::All };
        let readable = terms.into_iter().filter(|term| api::Selector::parse(term).is_ok());
        let joined = readable.map(|term| format!("({term})")).collect::<Vec<_>>().join(" && ");
        Self::calico(&joined).unwrap_or_default()
    }

    fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::All => true,
            Self::Calico(selector) => selector.matches(&label),
            Self::Kubernetes(all) => all.iter().all(|one| one.matches(&label)),
        }
    }
}

/// Splits at the outermost `&&`. None when there is an outermost `||`, or when brackets or quotes do not match: then no term
/// limits the whole.
fn conjunction(text: &str) -> Option<Vec<&str>> {
    let (mut terms, mut begin, mut depth, mut quote) = (Vec::new(), 0, 0_usize, None);
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '(' | '{') => depth += 1,
            (None, ')' | '}') => depth = depth.checked_sub(1)?,
            (None, '|') if depth == 0 => return None,
            (None, '&') if depth == 0 && characters.next_if(|(_, next)| *next == '&').is_some() => {
                terms.push(text.get(begin..at)?.trim());
                begin = at + 2;
            }
            _ => {}
        }
    }
    terms.push(text.get(begin..)?.trim());
    let complete = depth == 0 && quote.is_none();
    terms.retain(|term| !term.is_empty());
    complete.then_some(terms)
}

impl fmt::Display for LabelTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Calico(selector) => write!(f, "{selector}"),
            Self::Kubernetes(all) => {
                let parts: Vec<String> = all.iter().map(ToString::to_string).collect();
                f.write_str(&parts.join(" && "))
            }
        }
    }
}

impl Selector {
    /// A selector of its parts.
    #[must_use]
    pub fn new(
        namespace: NamespaceTerm,
        service_account: Option<AccountTerm>,
        labels: LabelTerm,
        pods_only: bool,
    ) -> Self {
        let text = describe(&namespace, service_account.as_ref(), &labels, pods_only);
        Self { namespace, service_account, labels, pods_only, text }
    }

    /// The canonical text: what identifies the selector and what people read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The one namespace the selector can't leave, if there is one.
    #[must_use]
    pub fn only_namespace(&self) -> Option<&str> {
        match &self.namespace {
            NamespaceTerm::Is(name) => Some(name),
            _ => None,
        }
    }

    /// Whether nothing limits it.
    #[must_use]
    pub fn selects_everything(&self) -> bool {
        let account = self.service_account.as_ref();
        let any_account = account
            .is_none_or(|term| term.names.is_empty() && matches!(term.labels, LabelTerm::All));
        matches!(self.namespace, NamespaceTerm::Any)
            && any_account
            && matches!(self.labels, LabelTerm::All)
    }

    /// Whether only pods can match, no network sets.
    #[must_use]
    pub const fn pods_only(&self) -> bool {
        self.pods_only
    }

    /// Whether an item is meant.
    #[must_use]
    pub fn matches(&self, item: &Item) -> bool {
        (!self.pods_only || item.is_pod())
            && self.namespace_matches(item)
            && self.account_matches(item)
            && self.labels.matches(|key| item.label(key))
    }

    fn namespace_matches(&self, item: &Item) -> bool {
        match &self.namespace {
            NamespaceTerm::Any => true,
            NamespaceTerm::Is(name) => item.namespace.as_deref() == Some(name),
            NamespaceTerm::None => item.namespace.is_none(),
            NamespaceTerm::Labels(term) => {
                item.namespace.is_some() && term.matches(|key| item.namespace_label(key))
            }
        }
    }

    fn account_matches(&self, item: &Item) -> bool {
        let Some(term) = &self.service_account else { return true };
        let Some(name) = &item.service_account else { return false };
        (term.names.is_empty() || term.names.contains(name))
            && term.labels.matches(|key| item.account_label(key))
    }
}

fn describe(
    namespace: &NamespaceTerm,
    account: Option<&AccountTerm>,
    labels: &LabelTerm,
    pods_only: bool,
) -> String {
    let mut parts = Vec::new();
    if pods_only {
        parts.push("pods".to_owned());
    }
    match namespace {
        NamespaceTerm::Any => {}
        NamespaceTerm::Is(name) => parts.push(format!("namespace {name}")),
        NamespaceTerm::Labels(term) => parts.push(format!("namespace [{term}]")),
        NamespaceTerm::None => parts.push("namespace [global()]".to_owned()),
    }
    if let Some(account) = account {
        let names: Vec<&str> = account.names.iter().map(String::as_str).collect();
        parts.push(format!("account {{{}}} [{}]", names.join(", "), account.labels));
    }
    parts.push(format!("[{labels}]"));
    parts.join(" ")
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
