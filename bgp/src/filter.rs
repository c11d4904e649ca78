//! Import and export policy: rules in order, the first that matches decides, and the verdict says which one it was.

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use crate::{
    attr::{Community, LargeCommunity, PathAttributes},
    types::{Asn, PeerType, Prefix},
};

/// Filters in order, and what happens to a route that none of them decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// The filters.
    pub filters: Vec<Arc<Filter>>,
    /// What happens at the end.
    pub default: Action,
}

/// A named list of rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter {
    /// Name, for the reason.
    pub name: String,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// One rule: every condition that is present must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The prefix.
    pub prefix: Option<PrefixMatch>,
    /// The next hop is within one of these; a route of ours has none.
    pub next_hop: Option<Vec<Prefix>>,
    /// Who the route is from.
    pub source: Option<Source>,
    /// The kind of the peer that the policy belongs to.
    pub peer_type: Option<PeerType>,
    /// At least one of these is attached.
    pub communities: Vec<AnyCommunity>,
    /// The path begins with these.
    pub as_path_prefix: Vec<Asn>,
    /// LOCAL_PREF is this.
    pub local_pref: Option<u32>,
    /// The verdict.
    pub action: Action,
    /// What is changed on an accepted route.
    pub operations: Vec<Operation>,
}

impl Rule {
    /// Makes a rule without conditions.
    pub const fn new(action: Action) -> Self {
        Self {
            prefix: None,
            next_hop: None,
            source: None,
            peer_type: None,
            communities: Vec::new(),
            as_path_prefix: Vec::new(),
            local_pref: None,
            action,
            operations: Vec::new(),
        }
    }

    /// The same rule for one prefix only.
    #[must_use]
    pub fn with_prefix(self, operator: PrefixOperator, prefix: Prefix) -> Self {
        let lengths = LengthRange { min: None, max: None };
        Self { prefix: Some(PrefixMatch { operator, prefix, lengths }), ..self }
    }
}

/// A condition on the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixMatch {
    /// How to compare.
    pub operator: PrefixOperator,
    /// With what.
    pub prefix: Prefix,
    /// The length must be in here as well.
    pub lengths: LengthRange,
}

/// Prefix lengths, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LengthRange {
    /// At least.
    pub min: Option<u8>,
    /// At most.
    pub max: Option<u8>,
}

/// How prefixes are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrefixOperator {
    /// The very prefix.
    Equal,
    /// Anything else of that family.
    NotEqual,
    /// The prefix or one inside it.
    In,
    /// Neither the prefix nor one inside it.
    NotIn,
}

/// Who a route is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// This speaker.
    Local,
    /// A peer.
    Peers,
}

/// A community of either size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnyCommunity {
    /// RFC 1997.
    Standard(Community),
    /// RFC 8092.
    Large(LargeCommunity),
}

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Let the route through.
    Accept,
    /// Stop it.
    Reject,
}

/// A change to an accepted route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Attaches a community.
    AddCommunity(AnyCommunity),
    /// Puts these in front of the path, first one outermost.
    PrependAsPath(Vec<Asn>),
    /// Sets LOCAL_PREF.
    SetLocalPref(u32),
    /// Sets MULTI_EXIT_DISC.
    SetMed(u32),
}

/// Name of the filter that stands for a policy that is missing.
const NO_POLICY: &str = "no policy is configured (RFC 8212)";

/// Why a policy decided as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason<'a> {
    /// This rule of this filter, counted from 1.
    Rule {
        /// Name of the filter.
        filter: &'a str,
        /// Number of the rule.
        number: usize,
    },
    /// No rule matched.
    Default,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { filter, .. } if *filter == NO_POLICY => f.write_str(filter),
            Self::Rule { filter, number } => write!(f, "rule {number} of filter {filter}"),
            Self::Default => f.write_str("no rule matched"),
        }
    }
}

/// A verdict, with what to change and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The verdict.
    pub action: Action,
    /// What to change.
    pub operations: &'a [Operation],
    /// Why.
    pub why: Reason<'a>,
}

/// What a policy looks at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The prefix.
    pub prefix: Prefix,
    /// The attributes.
    pub attributes: &'a PathAttributes,
    /// Who the route is from.
    pub source: Source,
    /// The kind of the peer that the policy belongs to.
    pub peer_type: PeerType,
}

impl Policy {
    /// Everything passes.
    pub const fn accept() -> Self {
        Self { filters: Vec::new(), default: Action::Accept }
    }

    /// Nothing passes.
    pub const fn reject() -> Self {
        Self { filters: Vec::new(), default: Action::Reject }
    }

    /// Nothing passes, because nobody said what may (RFC 8212 §2).
    pub fn absent() -> Self {
        let name = NO_POLICY.to_owned();
        let filter = Filter { name, rules: vec![Rule::new(Action::Reject)] };
        Self { filters: vec![Arc::new(filter)], default: Action::Reject }
    }

    /// Judges a route.
    pub fn judge(&self, subject: &Subject<'_>) -> Verdict<'_> {
        for filter in &self.filters {
            for (index, rule) in filter.rules.iter().enumerate() {
                if rule.matches(subject) {
                    let number = index.saturating_add(1);
                    let why = Reason::Rule { filter: &filter.name, number };
                    return Verdict { action: rule.action, operations: &rule.operations, why };
                }
            }
        }
        Verdict { action: self.default, operations: &[], why: Reason::Default }
    }

    /// Says whether the verdict depends on the attributes alone, so that it holds for all prefixes that share them.
    pub fn ignores_prefix(&self) -> bool {
        self.filters.iter().all(|filter| filter.rules.iter().all(|rule| rule.prefix.is_none()))
    }
}

impl Rule {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        let attributes = subject.attributes;
        self.prefix.is_none_or(|condition| condition.matches(&subject.prefix))
            && self.next_hop.as_ref().is_none_or(|networks| {
                attributes.next_hop.as_ref().is_some_and(|next_hop| {
                    networks.iter().any(|each| each.contains_address(next_hop.address))
                })
            })
            && self.source.is_none_or(|source| source == subject.source)
            && self.peer_type.is_none_or(|peer_type| peer_type == subject.peer_type)
            && (self.communities.is_empty()
                || self.communities.iter().any(|each| each.is_attached_to(attributes)))
            && attributes.as_path.0.starts_with(&self.as_path_prefix)
            && self.local_pref.is_none_or(|wanted| attributes.local_pref == Some(wanted))
    }
}

impl PrefixMatch {
    fn matches(&self, prefix: &Prefix) -> bool {
        if prefix.family() != self.prefix.family() {
            return false;
        }
        let long_enough = self.lengths.min.is_none_or(|min| prefix.length() >= min);
        let short_enough = self.lengths.max.is_none_or(|max| prefix.length() <= max);
        let compared = match self.operator {
            PrefixOperator::Equal => *prefix == self.prefix,
            PrefixOperator::NotEqual => *prefix != self.prefix,
            PrefixOperator::In => self.prefix.contains(prefix),
            PrefixOperator::NotIn => !self.prefix.contains(prefix),
        };
        compared && long_enough && short_enough
    }
}

impl AnyCommunity {
    fn is_attached_to(self, attributes: &PathAttributes) -> bool {
        match self {
            Self::Standard(community) => attributes.communities.contains(&community),
            Self::Large(community) => attributes.large_communities.contains(&community),
        }
    }
}

impl Operation {
    /// Changes the attributes.
    pub fn apply(&self, attributes: &mut PathAttributes) {
        match self {
            Self::AddCommunity(AnyCommunity::Standard(community)) => {
                insert_sorted(&mut attributes.communities, *community);
            }
            Self::AddCommunity(AnyCommunity::Large(community)) => {
                insert_sorted(&mut attributes.large_communities, *community);
            }
            Self::PrependAsPath(path) => {
                attributes.as_path.0.splice(0..0, path.iter().copied());
            }
            Self::SetLocalPref(local_pref) => attributes.local_pref = Some(*local_pref),
            Self::SetMed(med) => attributes.med = Some(*med),
        }
    }
}

fn insert_sorted<T: Ord>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
        list.sort();
    }
}
