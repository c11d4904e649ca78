//! Chains, rules, sets and maps, at the level of nft's language.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    element::{Element, KeyType, Value},
    expr::Expr,
    name::{ChainName, MapName, SetName},
};

/// What happens to a packet.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// Ends this base chain; later base chains of the hook still see the packet.
    Accept,
    /// Ends everything.
    Drop,
    /// Back to the chain that jumped here; in a base chain, its policy.
    Return,
    /// To another chain, and back when it falls through or returns.
    Jump(ChainName),
    /// To another chain, without coming back to this one.
    Goto(ChainName),
    /// On with the next rule.
    Continue,
}

/// A rule: all expressions in order, then the verdict (`None`: fall to the next rule).
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Rule {
    /// Matches and statements, evaluated left to right; a match that fails ends the rule.
    pub exprs: Vec<Expr>,
    /// What happens if all matched.
    pub verdict: Option<Verdict>,
    /// Shown by `nft list` (at most 127 octets are kept).
    pub comment: Option<String>,
}

impl Rule {
    /// A rule that always applies.
    #[must_use]
    pub const fn always(verdict: Verdict) -> Self {
        Self { exprs: Vec::new(), verdict: Some(verdict), comment: None }
    }

    /// A rule with expressions and a verdict.
    #[must_use]
    pub const fn new(exprs: Vec<Expr>, verdict: Verdict) -> Self {
        Self { exprs, verdict: Some(verdict), comment: None }
    }

    /// A rule of statements only.
    #[must_use]
    pub const fn statements(exprs: Vec<Expr>) -> Self {
        Self { exprs, verdict: None, comment: None }
    }

    /// The same rule with a comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}

/// Where the kernel calls a base chain (inet family).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
}

/// Kind of a base chain.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ChainKind {
    /// Ordinary filtering.
    Filter,
    /// Address translation: sees only the first packet of a flow.
    Nat,
    /// Re-routes locally made packets when their mark changes.
    Route,
}

/// What a base chain does with packets that reach its end.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Policy {
    /// Lets them through.
    Accept,
    /// Drops them.
    Drop,
}

/// Makes a chain a base chain.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Base {
    /// Kind of chain.
    pub kind: ChainKind,
    /// Where it is called.
    pub hook: Hook,
    /// Order among base chains of a hook, low first.
    pub priority: i32,
    /// What happens at its end.
    pub policy: Policy,
}

impl Base {
    /// A filter base chain that accepts at its end.
    #[must_use]
    pub const fn filter(hook: Hook, priority: i32) -> Self {
        Self { kind: ChainKind::Filter, hook, priority, policy: Policy::Accept }
    }

    /// A nat base chain.
    #[must_use]
    pub const fn nat(hook: Hook, priority: i32) -> Self {
        Self { kind: ChainKind::Nat, hook, priority, policy: Policy::Accept }
    }
}

/// A chain of rules.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Chain {
    /// Name, unique in the table.
    pub name: ChainName,
    /// Present on chains that the kernel calls by itself.
    pub base: Option<Base>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain reached by jump or goto.
    #[must_use]
    pub const fn new(name: ChainName, rules: Vec<Rule>) -> Self {
        Self { name, base: None, rules }
    }

    /// A base chain.
    #[must_use]
    pub const fn base(name: ChainName, base: Base, rules: Vec<Rule>) -> Self {
        Self { name, base: Some(base), rules }
    }
}

/// A named set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Set {
    /// Name, unique among sets and maps of the table.
    pub name: SetName,
    /// Types of the key's parts; several parts make a concatenation.
    pub key: Vec<KeyType>,
    /// Whether elements may be ranges. Ranges must be disjoint: the kernel refuses overlaps (EEXIST).
    pub interval: bool,
    /// Members.
    pub elements: BTreeSet<Element>,
}

impl Set {
    /// An empty set of exact keys.
    #[must_use]
    pub fn exact(name: SetName, key: &[KeyType]) -> Self {
        Self { name, key: key.to_vec(), interval: false, elements: BTreeSet::new() }
    }

    /// An empty set of disjoint ranges.
    #[must_use]
    pub fn interval(name: SetName, key: &[KeyType]) -> Self {
        Self { name, key: key.to_vec(), interval: true, elements: BTreeSet::new() }
    }

    /// The same set with these members.
    #[must_use]
    pub fn with(mut self, elements: impl IntoIterator<Item = Element>) -> Self {
        self.elements.extend(elements);
        self
    }
}

/// What a map gives for a key.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum MapData {
    /// A verdict.
    Verdict,
    /// A value, or a concatenation of values, of these types.
    Values(Vec<KeyType>),
}

/// What one key of a map gives.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum MapValue {
    /// A verdict.
    Verdict(Verdict),
    /// A value or a concatenation of values, as kernel bytes.
    Data(Element),
}

impl MapValue {
    /// A value or a concatenation of values.
    #[must_use]
    pub fn data(parts: &[Value]) -> Self {
        Self::Data(Element::new(parts))
    }
}

impl From<Verdict> for MapValue {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

/// A named map.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Map {
    /// Name, unique among sets and maps of the table.
    pub name: MapName,
    /// Types of the key's parts.
    pub key: Vec<KeyType>,
    /// What it gives.
    pub data: MapData,
    /// Members.
    pub elements: BTreeMap<Element, MapValue>,
}

impl Map {
    /// An empty verdict map.
    #[must_use]
    pub fn verdict(name: MapName, key: &[KeyType]) -> Self {
        Self { name, key: key.to_vec(), data: MapData::Verdict, elements: BTreeMap::new() }
    }

    /// An empty map to values.
    #[must_use]
    pub fn values(name: MapName, key: &[KeyType], data: &[KeyType]) -> Self {
        let data = MapData::Values(data.to_vec());
        Self { name, key: key.to_vec(), data, elements: BTreeMap::new() }
    }

    /// The same map with these members.
    #[must_use]
    pub fn with(mut self, elements: impl IntoIterator<Item = (Element, MapValue)>) -> Self {
        self.elements.extend(elements);
        self
    }
}
