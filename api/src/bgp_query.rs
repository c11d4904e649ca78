//! `voile.dev/v1` BgpQuery: a question to the BGP speaker of one node, and its answer. Who asks makes the object, the node's daemon
//! writes the status, and who asked deletes it; what is left behind the daemon removes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::kind;

kind!(
    /// A question to the BGP speaker of one node.
    BgpQuery, BgpQuerySpec, BgpQueryStatus, "voile.dev", "v1", "BgpQuery", "bgpqueries", Cluster
);

/// Label of a query: for which node it is ([`node_label`]), so that a daemon hears of its own only.
pub const QUERY_NODE_LABEL: &str = "voile.dev/node";
/// Label of the queries that belong together.
pub const QUERY_LABEL: &str = "voile.dev/query";

/// Longest value of a label.
const LONGEST_LABEL: usize = 63;

/// Returns the value of [`QUERY_NODE_LABEL`] for a node: its name, or the end of it. Two nodes may share one: the spec counts.
#[must_use]
pub fn node_label(node: &str) -> &str {
    let start = node.len().saturating_sub(LONGEST_LABEL);
    let tail = node.get(start..).unwrap_or(node);
    tail.trim_start_matches(|letter: char| !letter.is_ascii_alphanumeric())
}

/// The question: a destination, a peer, a table, what happens, or an action.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpQuerySpec {
    /// Which node is asked.
    pub node: String,
    /// Why packets to this prefix, or to this address, go where they go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The session with the peer of this name or address; all sessions if it is empty. With `table` and `action`: which peer is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// A part of a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<BgpTableQuery>,
    /// What happens: answered as soon as something did, or after a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<BgpWatchQuery>,
    /// Something to be done to the session with `peer`. It takes the right `operate` besides, where the cluster has the admission
    /// policy of our manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<BgpAction>,
    /// What the operator of the peer is told of the action (RFC 9003).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A part of a table.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpTableQuery {
    /// Which table.
    pub view: BgpTable,
    /// On which side of policy; of no meaning to the Loc-RIB.
    #[serde(default)]
    pub policy: BgpPolicySide,
    /// Only this prefix and those within.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Only what comes behind this prefix, where the part before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A table (RFC 4271 section 3.2).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum BgpTable {
    /// What peers told the node.
    AdjIn,
    /// What the node uses.
    #[default]
    Loc,
    /// What the node tells its peers.
    AdjOut,
}

/// A side of policy.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum BgpPolicySide {
    /// Before it, with what it stops.
    Pre,
    /// After it.
    #[default]
    Post,
}

/// What happens from now on.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpWatchQuery {
    /// A name of the one who asks: what happened since its last question is told.
    pub watcher: String,
    /// Of routes only this prefix and those within.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

/// Something to be done to a session.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum BgpAction {
    /// End it and begin anew.
    Reset,
    /// Ask the peer to send everything again (RFC 2918).
    RefreshIn,
    /// Send the peer everything again.
    RefreshOut,
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpQueryStatus {
    /// When it was given, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub answered_at: Option<String>,
    /// The answer as JSON: what `voilectl bgp route -o json` and its like have for a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_long_names_are_their_ends() {
        assert_eq!(node_label("worker-1"), "worker-1");
        let long = format!("{}.example.com", "x".repeat(80));
        assert!(node_label(&long).len() <= LONGEST_LABEL && long.ends_with(node_label(&long)));
        let dot = format!("x.{}", "y".repeat(62));
        assert_eq!(node_label(&dot), "y".repeat(62));
    }
}
