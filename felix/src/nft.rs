//! One nf_tables table, as data: the rules we want, what the kernel has, and the difference.
//!
//! Everything here is pure: the policy core fills a [`Table`]; [`Table::plan`] says what one transaction must do for
//! the kernel to match; [`text`] renders the same table in nft's own syntax for people and tests. Sockets live in
//! `linux`.
//!
//! ```text
//! policy core --put_chain/insert_element--> Table --plan--> Batch --linux::encode--> one netlink transaction
//!                                             ^-- adopt -- Actual <--linux::dump-- kernel (start, drift)
//! ```

pub mod element;
pub mod expr;
pub mod fingerprint;
pub mod ir;
pub mod name;
pub mod plan;
pub mod table;
pub mod text;
mod tracked;

pub use element::{Element, KeyType, Value};
pub use expr::{
    CtState, Expr, Family, Field, Limit, Log, Match, Operand, RateUnit, Reject, Source, Test,
};
pub use fingerprint::Fingerprint;
pub use ir::{Base, Chain, ChainKind, Hook, Map, MapData, MapValue, Policy, Rule, Set, Verdict};
pub use name::{ChainName, MapName, SetName};
pub use plan::{Batch, Op, Shape};
pub use table::{Actual, ActualChain, Table, TableStats};

#[cfg(test)]
mod tests;
