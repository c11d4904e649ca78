//! `voilectl bgp clear` and `bgp refresh`: what an operator does to a session.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use api::{BgpAction, BgpQuerySpec};
use serde::Serialize;
use store::Store;

use super::{Context, Outcome, ask::ask, which::Which};
use crate::output::machine;

/// What one node did, as `-o json` has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    node: String,
    peer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs `bgp clear` or `bgp refresh`: exit code 1 when a node did not do it.
///
/// # Errors
/// A peer that is not named, a node that does not exist, and whatever the API server answers.
pub async fn operate<S: Store>(
    context: &Context<S>,
    which: &str,
    action: BgpAction,
    text: Option<&str>,
) -> Result<Outcome> {
    let which = Which::read(&[which.to_owned()])?;
    let Some(peer) = &which.peer else {
        bail!("say which session: NODE/PEER, or '*/PEER' for that peer of every node");
    };
    let question = BgpQuerySpec {
        peer: Some(peer.clone()),
        action: Some(action),
        text: text.map(str::to_owned),
        ..BgpQuerySpec::default()
    };
    let answers = ask(context, which.node.as_deref(), &question).await?;
    let done: Vec<Done<'_>> = answers
        .into_iter()
        .map(|answer| Done { node: answer.node, peer, error: answer.result.err() })
        .collect();
    let finding = done.iter().any(|each| each.error.is_some());
    if let Some(text) = machine(context.format, &done)? {
        return Ok(Outcome { text, finding });
    }
    let words = match action {
        BgpAction::Reset => "session ended, begins anew",
        BgpAction::RefreshIn => "asked to send everything again",
        BgpAction::RefreshOut => "gets everything again",
    };
    let mut text = String::new();
    for Done { node, peer, error } in &done {
        match error {
            None => writeln!(text, "{node}/{peer}: {words}")?,
            Some(error) => writeln!(text, "{node}: {error}")?,
        }
    }
    Ok(Outcome { text, finding })
}
