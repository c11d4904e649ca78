//! What one transaction does, in an order that never leaves a reference without its referent.

use std::sync::Arc;

use super::{
    element::{Element, KeyType},
    ir::{Base, Chain, MapData, MapValue},
    name::{ChainName, MapName, SetName},
};

/// Key of a set or map, and whether its members are ranges.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shape {
    /// Types of the key's parts.
    pub key: Vec<KeyType>,
    /// Whether members may be ranges.
    pub interval: bool,
}

/// One step of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Op {
    /// Makes the table.
    AddTable,
    /// Removes every rule of a chain.
    FlushChain(ChainName),
    /// Takes members out of a set.
    DeleteElements(SetName, Shape, Vec<Element>),
    /// Takes members out of a map.
    DeleteMapElements(MapName, Vec<KeyType>, Vec<Element>),
    /// Removes a chain without rules.
    DeleteChain(ChainName),
    /// Removes a set with its members.
    DeleteSet(SetName),
    /// Removes a map with its members.
    DeleteMap(MapName),
    /// Makes a chain without rules.
    AddChain(ChainName, Option<Base>),
    /// Makes an empty set.
    AddSet(SetName, Shape),
    /// Makes an empty map.
    AddMap(MapName, Vec<KeyType>, MapData),
    /// Puts members into a set.
    AddElements(SetName, Shape, Vec<Element>),
    /// Appends all rules of a chain.
    AddRules(Arc<Chain>),
    /// Puts members into a map.
    AddMapElements(MapName, Vec<KeyType>, MapData, Vec<(Element, MapValue)>),
}

/// One transaction: the kernel does all of it or nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    /// Name of the table.
    pub table: String,
    /// Steps in order.
    pub ops: Vec<Op>,
}

impl Op {
    /// Names what the step touches, for errors: `chain x`, `set y`.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::AddTable => "table".to_owned(),
            Self::FlushChain(name) | Self::DeleteChain(name) | Self::AddChain(name, _) => {
                format!("chain {name}")
            }
            Self::AddRules(chain) => format!("chain {}", chain.name),
            Self::DeleteElements(name, ..)
            | Self::DeleteSet(name)
            | Self::AddSet(name, _)
            | Self::AddElements(name, ..) => format!("set {name}"),
            Self::DeleteMapElements(name, ..)
            | Self::DeleteMap(name)
            | Self::AddMap(name, ..)
            | Self::AddMapElements(name, ..) => format!("map {name}"),
        }
    }

    /// What the step does, in words.
    #[must_use]
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::AddTable | Self::AddChain(..) | Self::AddSet(..) | Self::AddMap(..) => "create",
            Self::FlushChain(_) => "flush",
            Self::DeleteElements(..) | Self::DeleteMapElements(..) => "remove members of",
            Self::DeleteChain(_) | Self::DeleteSet(_) | Self::DeleteMap(_) => "delete",
            Self::AddElements(..) | Self::AddMapElements(..) => "add members to",
            Self::AddRules(_) => "write rules of",
        }
    }
}
