//! `[[filter]]`: named lists of rules.

use bgp::{
    Asn, Community, LargeCommunity, PeerType,
    filter::{
        Action, AnyCommunity, Filter, LengthRange, Operation, PrefixMatch, PrefixOperator, Rule,
        Source,
    },
};
use serde::Deserialize;
use toml::Spanned;

use super::problem::Problems;
use crate::fields::{Network, Text};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ActionName {
    Accept,
    Reject,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FilterSection {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    rule: Vec<Spanned<RuleSection>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum MatchName {
    Equal,
    NotEqual,
    In,
    NotIn,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SourceName {
    Local,
    Peers,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PeerTypeName {
    External,
    Internal,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RuleSection {
    action: ActionName,
    prefix: Option<Network>,
    r#match: Option<MatchName>,
    min_length: Option<u8>,
    max_length: Option<u8>,
    next_hop: Option<Vec<Network>>,
    source: Option<SourceName>,
    peer_type: Option<PeerTypeName>,
    #[serde(default)]
    communities: Vec<Text<Community>>,
    #[serde(default)]
    large_communities: Vec<Text<LargeCommunity>>,
    #[serde(default)]
    as_path_prefix: Vec<Text<Asn>>,
    #[serde(default)]
    add_communities: Vec<Text<Community>>,
    #[serde(default)]
    add_large_communities: Vec<Text<LargeCommunity>>,
    #[serde(default)]
    prepend_as_path: Vec<Text<Asn>>,
    set_local_pref: Option<u32>,
    set_med: Option<u32>,
}

impl RuleSection {
    fn changes(&self) -> bool {
        !self.add_communities.is_empty()
            || !self.add_large_communities.is_empty()
            || !self.prepend_as_path.is_empty()
            || self.set_local_pref.is_some()
            || self.set_med.is_some()
    }
}

impl From<ActionName> for Action {
    fn from(name: ActionName) -> Self {
        match name {
            ActionName::Accept => Self::Accept,
            ActionName::Reject => Self::Reject,
        }
    }
}

pub(super) fn filter(section: FilterSection, problems: &mut Problems<'_>) -> Filter {
    let name = section.name.into_inner();
    let mut rules = Vec::with_capacity(section.rule.len());
    for (index, section) in section.rule.into_iter().enumerate() {
        let field = format!("filter '{name}', rule {}", index.saturating_add(1));
        check(&section, &field, problems);
        rules.push(rule(section.into_inner()));
    }
    Filter { name, rules }
}

fn check(section: &Spanned<RuleSection>, field: &str, problems: &mut Problems<'_>) {
    let (place, rule) = (section.span(), section.get_ref());
    let lengths = rule.min_length.is_some() || rule.max_length.is_some();
    match &rule.prefix {
        None if rule.r#match.is_some() || lengths => {
            problems.add(&place, field, "match, min-length and max-length need a prefix");
        }
        None => (),
        Some(prefix) => {
            let most = if prefix.0.address().is_ipv4() { 32 } else { 128 };
            let (min, max) = (rule.min_length.unwrap_or(0), rule.max_length.unwrap_or(most));
            if min > max || max > most {
                let what = format!("lengths {min} to {max} are no range within 0 to {most}");
                problems.add(&place, field, what);
            }
        }
    }
    if rule.action == ActionName::Reject && rule.changes() {
        problems.add(
            &place,
            field,
            "a rejected route cannot be changed; remove add-, prepend- and set- fields",
        );
    }
}

fn rule(section: RuleSection) -> Rule {
    let lengths = LengthRange { min: section.min_length, max: section.max_length };
    let operator = match section.r#match.unwrap_or(MatchName::In) {
        MatchName::Equal => PrefixOperator::Equal,
        MatchName::NotEqual => PrefixOperator::NotEqual,
        MatchName::In => PrefixOperator::In,
        MatchName::NotIn => PrefixOperator::NotIn,
    };
    let standard = |list: Vec<Text<Community>>| {
        list.into_iter().map(|each| AnyCommunity::Standard(each.0)).collect::<Vec<_>>()
    };
    let large = |list: Vec<Text<LargeCommunity>>| {
        list.into_iter().map(|each| AnyCommunity::Large(each.0)).collect::<Vec<_>>()
    };
    let added = [standard(section.add_communities), large(section.add_large_communities)];
    let mut operations: Vec<Operation> =
        added.into_iter().flatten().map(Operation::AddCommunity).collect();
    if !section.prepend_as_path.is_empty() {
        let path = section.prepend_as_path.into_iter().map(|asn| asn.0).collect();
        operations.push(Operation::PrependAsPath(path));
    }
    operations.extend(section.set_local_pref.map(Operation::SetLocalPref));
    operations.extend(section.set_med.map(Operation::SetMed));
    Rule {
        prefix: section.prefix.map(|prefix| PrefixMatch { operator, prefix: prefix.0, lengths }),
        next_hop: section.next_hop.map(|list| list.into_iter().map(|each| each.0).collect()),
        source: section.source.map(|source| match source {
            SourceName::Local => Source::Local,
            SourceName::Peers => Source::Peers,
        }),
        peer_type: section.peer_type.map(|name| match name {
            PeerTypeName::External => PeerType::External,
            PeerTypeName::Internal => PeerType::Internal,
        }),
        communities: [standard(section.communities), large(section.large_communities)].concat(),
        as_path_prefix: section.as_path_prefix.into_iter().map(|asn| asn.0).collect(),
        operations,
        ..Rule::new(section.action.into())
    }
}
