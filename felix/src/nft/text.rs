//! The table in nft's own syntax.

use super::table::Table;

/// Renders the whole table, in name order.
#[must_use]
pub fn render(table: &Table) -> String {
    format!("table inet {} {{\n}}\n", table.name())
}
