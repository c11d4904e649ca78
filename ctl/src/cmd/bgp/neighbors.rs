//! `voilectl bgp neighbors`: sessions in full, with their history.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use api::BgpQuerySpec;
use bgp::{State, snapshot::PeerSnapshot};
use serde::Serialize;
use store::Store;

use super::{
    Context, Outcome,
    ask::{Answer, ask},
};
use crate::output::{Format, machine};

/// What one node says, as `-o json` has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodePeers {
    node: String,
    /// Why there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peers: Vec<PeerSnapshot>,
}

/// Runs `bgp neighbors`: exit code 1 when a session is down or a node does not answer.
///
/// # Errors
/// A node that does not exist, and whatever the API server answers.
pub async fn neighbors<S: Store>(context: &Context<S>, which: Option<&str>) -> Result<Outcome> {
    let (node, peer) = match which.map(|which| which.split_once('/').unwrap_or((which, ""))) {
        // `*/PEER`: that peer of every node.
        Some(("*" | "", peer)) => (None, peer),
        Some((node, peer)) => (Some(node), peer),
        None => (None, ""),
    };
    let question = BgpQuerySpec { peer: Some(peer.to_owned()), ..BgpQuerySpec::default() };
    let answers = ask(context, node, &question).await?;
    let nodes: Result<Vec<NodePeers>> = answers.into_iter().map(read).collect();
    let nodes = nodes?;
    let finding = nodes.iter().any(|node| {
        node.error.is_some() || node.peers.iter().any(|peer| peer.state != State::Established)
    });
    if let Some(text) = machine(context.format, &nodes)? {
        return Ok(Outcome { text, finding });
    }
    let mut text = String::new();
    for NodePeers { node, error, peers } in &nodes {
        if context.format == Format::Name {
            for peer in peers {
                writeln!(text, "{node}/{}", peer.address)?;
            }
            continue;
        }
        if let Some(error) = error {
            write!(text, "{node}: {error}\n\n")?;
        }
        for peer in peers {
            write!(text, "{node}/{}\n{}\n", peer.address, peer.to_text())?;
        }
    }
    if text.ends_with("\n\n") {
        text.pop();
    }
    Ok(Outcome { text, finding })
}

fn read(answer: Answer) -> Result<NodePeers> {
    let Answer { node, result } = answer;
    let (error, peers) = match result {
        Ok(text) => {
            let peers = serde_json::from_str(&text)
                .with_context(|| format!("{node} answers in another version's words"))?;
            (None, peers)
        }
        Err(error) => (Some(error), Vec::new()),
    };
    Ok(NodePeers { node, error, peers })
}
